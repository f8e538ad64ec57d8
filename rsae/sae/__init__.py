"""Sparse autoencoders, one file a family."""

from rsae.sae.abs_top_k import AbsTopK
from rsae.sae.base import SAE
from rsae.sae.batch_top_k import BatchTopK
from rsae.sae.gated import Gated
from rsae.sae.jump_relu import JumpReLU
from rsae.sae.matryoshka_batch_top_k import MatryoshkaBatchTopK
from rsae.sae.pursuit import PursuitConfig, PursuitSAE, plain, pursuit
from rsae.sae.rational import RationalSAE
from rsae.sae.records import Entries, Loss, Target, Trained
from rsae.sae.registry import FAMILIES, RATIONAL_FORMS, family, register
from rsae.sae.relu import ReLU
from rsae.sae.sign_aware_gated import SignAwareGated
from rsae.sae.soft_rational import SoftRational
from rsae.sae.top_k import TopK

__all__ = [
    "FAMILIES",
    "RATIONAL_FORMS",
    "SAE",
    "AbsTopK",
    "BatchTopK",
    "Entries",
    "Gated",
    "JumpReLU",
    "Loss",
    "MatryoshkaBatchTopK",
    "PursuitConfig",
    "PursuitSAE",
    "RationalSAE",
    "ReLU",
    "SignAwareGated",
    "SoftRational",
    "Target",
    "TopK",
    "Trained",
    "family",
    "plain",
    "pursuit",
    "register",
]
