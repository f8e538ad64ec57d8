"""How a transcoder begins. Shapes: B batch, D d_in, O d_out, F d_sae."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Start(NamedTuple):
    """The weights that a transcoder begins with; its decoder rows have norm 1."""

    W_enc_FD: torch.Tensor
    b_enc_F: torch.Tensor
    W_dec_FO: torch.Tensor
    b_dec_O: torch.Tensor
    W_skip_OD: torch.Tensor | None


@torch.no_grad()
def transcoder_start(
    x_BD: torch.Tensor, y_BO: torch.Tensor, d_sae: int, skip: bool, generator: torch.Generator
) -> Start:
    """Random directions to begin with, and the best linear map A from x to y.

    Of a plain transcoder each latent is a random direction w of x and its image w A, as an SAE's begin with a direction
    and the same; its encoder sees x less its mean. A skip connection begins as A, and the latents with random images.

    Args:
        x_BD: A sample of what it reads, standardised.
        y_BO: What it is to predict.
        d_sae: Number of latents.
        skip: Whether it has a skip connection.
        generator: Of the directions.
    """
    mean_D, mean_O = x_BD.mean(0), y_BO.mean(0)
    x64_BD, y64_BO = (x_BD - mean_D).double(), (y_BO - mean_O).double()
    gram_DD = x64_BD.T @ x64_BD
    gram_DD.diagonal().add_(1e-3 * gram_DD.diagonal().mean())
    A_DO = torch.linalg.solve(gram_DD, x64_BD.T @ y64_BO).to(x_BD)
    w_FD = F.normalize(torch.randn(d_sae, x_BD.shape[1], generator=generator), dim=1).to(x_BD)
    if skip:
        image_FO = torch.randn(d_sae, y_BO.shape[1], generator=generator).to(x_BD)
        b_dec_O, W_skip_OD = mean_O - mean_D @ A_DO, A_DO.T
    else:
        image_FO = w_FD @ A_DO
        w_FD = w_FD * image_FO.norm(dim=1, keepdim=True)
        b_dec_O, W_skip_OD = mean_O, None
    return Start(w_FD, -(w_FD @ mean_D), F.normalize(image_FO, dim=1), b_dec_O, W_skip_OD)
