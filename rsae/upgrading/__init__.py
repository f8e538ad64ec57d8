"""From a trained SAE to a rational one, and the control."""

from rsae.upgrading.config import UpgradeConfig, Upgraded
from rsae.upgrading.decide import Decided, decide
from rsae.upgrading.upgrade import upgrade

__all__ = ["Decided", "UpgradeConfig", "Upgraded", "decide", "upgrade"]
