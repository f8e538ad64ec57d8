"""How a transcoder begins. Shapes: B batch, D d_in, O d_out, F d_sae."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from rsae.sae.base import SAE


@torch.no_grad()
def start_transcoder(sae: SAE, x_BD: torch.Tensor, y_BO: torch.Tensor, generator: torch.Generator) -> None:
    """Random directions to begin with, and the best linear map A from x to y.

    Of a plain transcoder each latent is a random direction w of x and its image w A, as an SAE's begin with a direction
    and the same; its encoder sees x less its mean. A skip connection begins as A, and the latents with random images.

    Args:
        sae: The transcoder.
        x_BD: A sample of what it reads, standardised.
        y_BO: What it is to predict.
        generator: Of the directions.
    """
    mean_D, mean_O = x_BD.mean(0), y_BO.mean(0)
    x_BD, y_BO = (x_BD - mean_D).double(), (y_BO - mean_O).double()
    gram_DD = x_BD.T @ x_BD
    gram_DD.diagonal().add_(1e-3 * gram_DD.diagonal().mean())
    A_DO = torch.linalg.solve(gram_DD, x_BD.T @ y_BO).to(sae.W_dec)
    w_FD = F.normalize(torch.randn(sae.d_sae, sae.d_in, generator=generator), dim=1).to(sae.W_dec)
    if sae.W_skip is None:
        image_FO = w_FD @ A_DO
        w_FD = w_FD * image_FO.norm(dim=1, keepdim=True)
        sae.W_dec.copy_(image_FO)
        sae.b_dec.copy_(mean_O)
    else:
        sae.W_dec.copy_(torch.randn(sae.W_dec.shape, generator=generator))
        sae.W_skip.copy_(A_DO.T)
        sae.b_dec.copy_(mean_O - mean_D @ A_DO)
    sae.constrain_()
    sae.W_enc.copy_(w_FD.T)
    sae.encoder_bias.copy_(-(w_FD @ mean_D))
