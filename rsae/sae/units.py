"""An SAE in the units of training: about another origin, and at another scale. Shapes: D d_in, O d_out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rsae.activations.protocol import Activations
from rsae.activations.units import Units, units_of
from rsae.sae.base import SAE
from rsae.sae.gated import Gated


def units_for(sae: SAE, activations: Activations) -> tuple[Units, Units]:
    """The units in which an SAE is trained on activations, and those of what it predicts.

    Args:
        sae: The SAE; one that normalises each token, or that cannot be moved, stays about 0.
        activations: The activations.
    """
    read = activations, units_of(activations)
    target = activations.target
    written = read if target is None or not sae.transcodes else (target, units_of(target))
    # of two magnitudes that see the origin by different scales one bias can tell but one
    one_bias = not isinstance(sae, Gated) or sae.subtract_b_dec or sae.r_mag.numel() == sae.d_sae
    if sae.input_norm is None and one_bias:
        return read[1], written[1]
    return Units(None, activations.scale), Units(None, written[0].scale)


@torch.no_grad()
def move_(sae: SAE, by_D: torch.Tensor | None, out_O: torch.Tensor | None) -> None:
    """Change the origin in place: afterwards f_new(x - by) = f_old(x) - out.

    Args:
        sae: The SAE.
        by_D: The new origin; None for the old one.
        out_O: The same for what a transcoder predicts; an autoencoder's is `by_D`.
    """
    if by_D is not None:
        by_D = by_D.to(sae.W_enc)
        if not sae.subtract_b_dec:
            shift_F = by_D @ sae.W_enc
            sae.encoder_bias.add_(shift_F)
            if isinstance(sae, Gated):  # the magnitude sees the input through the same weights
                sae.b_mag.add_(sae.r_mag.exp().flatten() * shift_F)
        if sae.W_skip is not None:
            sae.b_dec += F.linear(by_D, sae.W_skip)
    out_O = out_O if sae.transcodes else by_D
    if out_O is not None:
        sae.b_dec -= out_O.to(sae.b_dec)


def entered(sae: SAE, units: Units, out: Units) -> SAE:
    """A copy in float32 that sees activations as training does.

    Args:
        sae: The SAE, in the activations' own units.
        units: Of training.
        out: Of what it predicts.
    """
    sae = sae.in_units(units.scale, out.scale)
    move_(sae, units.shift(units.scale), out.shift(out.scale))
    return sae


def left(sae: SAE, units: Units, out: Units) -> SAE:
    """The inverse of `entered`.

    Args:
        sae: The SAE, in the units of training; its origin changes.
        units: Of training.
        out: Of what it predicts.
    """
    move_(sae, units.shift(-units.scale), out.shift(-out.scale))
    return sae.in_units(1 / units.scale, 1 / out.scale)
