"""The loss that brings dead latents back. Shapes: B batch, D d_in, O d_out, F d_sae, A dead latents, K of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rsae.sae.base import SAE
from rsae.sae.records import Decoder, Entries
from rsae.sae.sparse import mean_square


def revival_loss(
    sae: SAE,
    x_BD: torch.Tensor,
    dead_F: torch.Tensor,
    y_BO: torch.Tensor | None = None,
    entries: Entries | None = None,
) -> torch.Tensor:
    """AuxK: the top D/2 dead latents predict the detached residual x - x_hat.

    Scaled by min(dead / (D/2), 1), as a mean over the batch of squared errors.

    Args:
        sae: The SAE.
        x_BD: A batch.
        dead_F: Which latents are dead.
        y_BO: What a transcoder is to predict of it.
        entries: What the batch's loss has encoded (`Loss.entries`); None where that is to be done here.

    Source: Gao et al. 2024, appendix A.2.
    """
    with torch.no_grad():
        if entries is None:
            z_N, pattern = sae.plain_entries(sae.pre_activations(x_BD))
        else:
            pattern = entries.pattern
            z_N = sae.values(entries.h_N, pattern.latent_N)
        x_BD = sae.standardise(x_BD)
        x_hat_BO = sae.decoded(z_N, pattern, Decoder(sae.W_dec, sae.b_dec))
        residual_BO = sae.left_to_code(x_BD, y_BO) - x_hat_BO
    dead = dead_F.nonzero().squeeze(1)
    everywhere = int(sae.shard.sum(dead_F.sum()))
    k = min(everywhere, max(1, sae.d_in // 2))
    centred_BD = x_BD - sae.b_dec.detach() if sae.subtract_b_dec else x_BD
    h_BA = F.linear(centred_BD, sae.W_enc[:, dead].T, sae.encoder_bias[dead])
    if not sae.signed:
        h_BA = h_BA.relu()
    chosen = sae.shard.largest(h_BA.detach().abs(), k)
    z_BA = chosen.scatter(chosen.gather(h_BA))
    scale = min(1.0, everywhere / max(1, sae.d_in // 2))
    return scale * mean_square(sae.shard.sum(z_BA @ sae.W_dec[dead]) - residual_BO)
