"""Sparse autoencoders, one file a family."""

from rsae.sae.base import FAMILIES, SAE, Loss, family
from rsae.sae.jump_relu import JumpReLU
from rsae.sae.rational import Rational
from rsae.sae.relu import ReLU
from rsae.sae.top_k import TopK

__all__ = ["FAMILIES", "SAE", "JumpReLU", "Loss", "Rational", "ReLU", "TopK", "family"]
