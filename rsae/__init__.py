"""Sparse autoencoders with trainable rational activations.

>>> teacher = rsae.load("sae-directory")
>>> store = rsae.harvest(rsae.HarvestConfig(tokens=100_000), "store")
>>> new = rsae.upgrade(teacher, store)
>>> rsae.save(new.tuned, "rational-sae")
"""

from rsae.activation import RationalActivation
from rsae.activations.harvest import HarvestConfig, harvest
from rsae.activations.host import Host, load_host
from rsae.activations.store import Store
from rsae.errors import InputError
from rsae.formats import load, save
from rsae.sae import SAE, JumpReLU, Rational, ReLU, TopK
from rsae.train import TrainConfig, train
from rsae.upgrade import UpgradeConfig, Upgraded, upgrade

__all__ = [
    "SAE",
    "HarvestConfig",
    "Host",
    "InputError",
    "JumpReLU",
    "Rational",
    "RationalActivation",
    "ReLU",
    "Store",
    "TopK",
    "TrainConfig",
    "UpgradeConfig",
    "Upgraded",
    "harvest",
    "load",
    "load_host",
    "save",
    "train",
    "upgrade",
]
