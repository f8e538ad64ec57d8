"""A fresh SAE that is ready to train on activations."""

from __future__ import annotations

import inspect
from typing import Any

from rsae.activations.protocol import Activations, check_activations
from rsae.sae import SAE
from rsae.sae import family as family_named
from rsae.sae.layout import Layout
from rsae.sae.registry import FAMILIES, typed
from rsae.sae.units import move_, units_for
from rsae.sharding import part_of
from rsae.support.errors import InputError, did_you_mean
from rsae.support.seeds import check_seed

_SAMPLE = 8192


def new(
    family: str,
    activations: Activations,
    seed: int = 0,
    skip: bool = False,
    causal: bool = False,
    shard: bool = False,
    **settings: Any,
) -> SAE:
    """An untrained SAE in the activations' units: random unit decoder rows, the encoder their transpose.

    Where the activations have a target it is a transcoder, which predicts the target. Joined activations (`rsae.join`)
    make it a crosscoder, or with a joined target a cross-layer transcoder.

    Args:
        family: Name of the family; `rsae.sae.FAMILIES` lists them.
        activations: What it is to be trained on: they give the width, the units and the start of b_dec.
        seed: Of the decoder's directions and of the sample.
        skip: Give a transcoder a linear way past the code (skip transcoder).
        causal: Of a cross-layer transcoder: part the latents among the points that are read, each to read its own alone
            and write that and later ones.
        shard: Make this process's part of it; see `rsae.sharding`.
        **settings: The family's settings without `d_in`, such as `d_sae` and `k`. Thresholds and bandwidths are in
            units of activations of mean norm sqrt(D).

    Raises:
        InputError: The family or a setting is unknown, or a setting that it needs is missing; the seed is too large.
    """
    check_seed(seed)
    check_activations(activations)
    cls = family_named(family)
    parameters = inspect.signature(cls).parameters
    known = [name for name in parameters if name != "d_in" and name not in ("args", "kwargs")]
    if (cls.rational and "activation" not in settings) or family not in FAMILIES:
        way = "upgrade it (rsae.upgrade)" if family in FAMILIES else "take rsae.pursuit of it"
        raise InputError(f"{family} starts from a trained SAE: train one of another family and {way}")
    for name in settings if not cls.rational else ():
        if name not in known:
            raise InputError(f"family {family!r} takes no setting {name!r}{did_you_mean(name, known)}")
    if not cls.rational:
        settings = typed(cls, settings)
        if settings.get("d_sae", 1) < 1:
            raise InputError(f"d_sae={settings['d_sae']} must be 1 at least")
    for name in known:
        needed = parameters[name].default is inspect.Parameter.empty
        if needed and name not in settings and not cls.rational:
            raise InputError(f"family {family!r} needs the setting {name!r}")
    target = activations.target
    if skip and target is None:
        raise InputError(f"skip: {activations.name} has no target, and only a transcoder skips its code")
    predicts = {} if target is None else {"target": {"d_out": target.d_in, "skip": skip}}
    whole = {"d_in": activations.d_in} | settings | predicts
    sae = part_of(cls, whole) if shard else cls.from_settings(whole)
    sae.layout = _layout(activations, causal, sae)
    if shard and sae.layout is not None:
        raise InputError("shard: joined activations are trained whole; leave --shard or --join out")
    x_BD = activations.sample(_SAMPLE, seed)
    units, out = units_for(sae, activations)
    if target is None:
        sae.rescale_(1 / units.scale)
        sae.initialise(x_BD if units.origin_D is None else x_BD - units.origin_D, seed)
    else:
        sae.initialise(units.of(x_BD), seed, out.of(target.sample(_SAMPLE, seed)))
        sae.constrain_()
        sae.rescale_(1 / units.scale, 1 / out.scale)
    move_(sae, units.shift(-1), out.shift(-1))
    sae.provenance = activations.provenance
    return sae.eval()  # as what is loaded or trained: `train` trains a copy of its own


def _layout(activations: Activations, causal: bool, sae: SAE) -> Layout | None:
    """Of what points the activations are."""
    reads = getattr(activations, "points", None)
    writes = reads if activations.target is None else getattr(activations.target, "points", None)
    if reads is None and writes is None and not causal:
        return None
    if reads is None or writes is None:
        raise InputError(
            f"{activations.name}: join what is read and what is predicted, of one point, too (rsae.join)"
        )
    if causal and (activations.target is None or len(reads) != len(writes)):
        raise InputError(
            "causal: a cross-layer transcoder predicts a target for each point that it reads; join as many"
        )
    if causal and sae.d_sae % len(reads):
        raise InputError(f"causal: d_sae {sae.d_sae} cannot be parted among {len(reads)} points")
    return Layout(reads, writes, causal)
