"""Sparse autoencoders, one file a family."""

from rsae.sae.abs_top_k import AbsTopK
from rsae.sae.base import FAMILIES, SAE, Loss, family
from rsae.sae.batch_top_k import BatchTopK
from rsae.sae.gated import Gated
from rsae.sae.jump_relu import JumpReLU
from rsae.sae.matryoshka_batch_top_k import MatryoshkaBatchTopK
from rsae.sae.rational import RationalSAE
from rsae.sae.relu import ReLU
from rsae.sae.sign_aware_gated import SignAwareGated
from rsae.sae.soft_rational import SoftRational
from rsae.sae.top_k import TopK

__all__ = [
    "FAMILIES",
    "SAE",
    "AbsTopK",
    "BatchTopK",
    "Gated",
    "JumpReLU",
    "Loss",
    "MatryoshkaBatchTopK",
    "RationalSAE",
    "ReLU",
    "SignAwareGated",
    "SoftRational",
    "TopK",
    "family",
]
