"""SAEs in parts: each process makes or takes the latents that lie in it; `rsae.sae.shard` is how they act as one."""

from __future__ import annotations

from typing import Any

from rsae.sae import SAE
from rsae.sae.shard import Shard, latent_dimension
from rsae.support.errors import InputError


def part_of(cls: type[SAE], settings: dict[str, Any]) -> SAE:
    """This process's part of an SAE, with weights yet to be loaded.

    Args:
        cls: The family.
        settings: Of the whole, as `SAE.settings` gives them.

    Raises:
        InputError: The family cannot be sharded.
    """
    if not cls.shardable or settings.get("target") is not None:
        what = f"family {cls.family!r}" if not cls.shardable else "a transcoder"
        raise InputError(
            f"{what} cannot be sharded: not every part of it is made of single latents; leave --shard out"
        )
    shard = Shard(settings["d_sae"])
    if settings.get("k", 0) > shard.fewest:  # told by all processes, not by the one that has so few
        raise InputError(
            f"k={settings['k']} is more than the {shard.fewest} latents of the smallest of {shard.parts} shards"
        )
    sae = cls.from_settings(settings | {"d_sae": shard.here})
    sae.shard = shard
    return sae


def sharded(sae: SAE) -> SAE:
    """This process's part of an SAE. `rsae.train` trains the parts together, `rsae.save` writes them as one SAE.

    The processes are those that torchrun started and `rsae.support.distributed.join(shards=...)` laid out.

    Args:
        sae: The whole; it is left as it is.

    Raises:
        InputError: The family cannot be sharded.
    """
    part = part_of(type(sae), sae.settings())
    assert isinstance(part.shard, Shard)
    cut = {}
    for name, value in sae.state_dict().items():
        dim = latent_dimension(name, value)
        cut[name] = value if dim is None else value.narrow(dim, part.shard.first, part.shard.here)
    part.to(sae.W_enc.device).load_state_dict(cut)
    part.input_norm, part.provenance, part.trained = sae.input_norm, sae.provenance, sae.trained
    return part.train(sae.training)
