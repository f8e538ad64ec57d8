"""How a transcoder begins. Shapes: B batch, D d_in, O d_out, F d_sae."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F

#: Entries of the code's matrix at the start, where it is taken of more than 1024 tokens
_ENTRIES = 2**26


class Transcoder(Protocol):
    """What is asked of an SAE."""

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        ...

    @property
    def W_enc(self) -> torch.Tensor:
        """The encoder, [D, F]."""
        ...

    @property
    def W_dec(self) -> torch.Tensor:
        """The decoder, [F, O]."""
        ...

    @property
    def b_dec(self) -> torch.Tensor:
        """The decoder's bias, [O]."""
        ...

    @property
    def W_skip(self) -> torch.Tensor | None:
        """The skip connection, [O, D]; None for none."""
        ...

    @property
    def encoder_bias(self) -> torch.Tensor:
        """The encoder's bias, [F]."""
        ...

    @property
    def homogeneous(self) -> bool:
        """Whether any latent can be scaled by itself without changing the function."""
        ...

    def scale_latents_(self, factor_F: torch.Tensor) -> None:
        """Multiply each latent's code and divide its decoder row by a factor: the same function."""
        ...


@torch.no_grad()
def begin_(
    sae: Transcoder,
    x_BD: torch.Tensor,
    y_BO: torch.Tensor,
    code: Callable[[torch.Tensor], torch.Tensor],
    generator: torch.Generator,
) -> None:
    """Give a transcoder its first weights: random directions, and the best linear map A from x to y.

    Of a plain transcoder each latent is a random direction w of x and its image w A, as an SAE's begin with a direction
    and the same; its encoder sees x less its mean. A skip connection begins as A, and the latents' images as what
    predicts the rest (`aimed`). Beside A random images are noise: the first thing that training learns is then to shut
    all gates, and a gate that is shut learns no more.

    Args:
        sae: The transcoder. Its decoder rows have norm 1 afterwards.
        x_BD: A sample of what it reads, standardised.
        y_BO: What it is to predict.
        code: Gives the code z_BF of a sample.
        generator: Of the directions.
    """
    mean_D, mean_O = x_BD.mean(0), y_BO.mean(0)
    x64_BD, y64_BO = (x_BD - mean_D).double(), (y_BO - mean_O).double()
    gram_DD = x64_BD.T @ x64_BD
    gram_DD.diagonal().add_(1e-3 * gram_DD.diagonal().mean())
    A_DO = torch.linalg.solve(gram_DD, x64_BD.T @ y64_BO).to(x_BD)
    w_FD = F.normalize(torch.randn(sae.d_sae, x_BD.shape[1], generator=generator), dim=1).to(x_BD)
    if sae.W_skip is None:
        image_FO = w_FD @ A_DO
        w_FD = w_FD * image_FO.norm(dim=1, keepdim=True)
        sae.b_dec.copy_(mean_O)
    else:
        image_FO = torch.randn(sae.d_sae, y_BO.shape[1], generator=generator).to(x_BD)
        sae.W_skip.copy_(A_DO.T)
    sae.W_enc.copy_(w_FD.T)
    sae.encoder_bias.copy_(-(w_FD @ mean_D))
    sae.W_dec.copy_(F.normalize(image_FO, dim=1))
    if sae.W_skip is not None:
        rows = max(1024, _ENTRIES // sae.d_sae)
        z_BF, left_BO = code(x_BD[:rows]), y_BO[:rows] - x_BD[:rows] @ A_DO
        W_dec_FO, norm_F = aimed(z_BF, left_BO, sae.W_dec, each=sae.homogeneous)
        sae.b_dec.copy_(left_BO.mean(0) - z_BF.mean(0) @ W_dec_FO)
        sae.W_dec.copy_(W_dec_FO)
        sae.scale_latents_(norm_F)


@torch.no_grad()
def aimed(
    z_BF: torch.Tensor, left_BO: torch.Tensor, W_dec_FO: torch.Tensor, each: bool, steps: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with which a code predicts what a skip connection leaves, and their norms, [F].

    Args:
        z_BF: The code of a sample.
        left_BO: What the skip connection leaves of it.
        W_dec_FO: Images of norm 1, which latents that do not fire in the sample keep.
        each: Whether latents may be scaled one by one; else all images have one norm.
        steps: Steps of conjugate gradients towards least squares at most. They go by three quarters of the sample, and
            end where the last quarter gains no more.
    """
    tiny, fitted = torch.finfo(z_BF.dtype).tiny, 3 * len(z_BF) // 4
    z_BF, left_BO = z_BF - z_BF.mean(0), left_BO - left_BO.mean(0)
    (fit_BF, test_BF), (rest_BO, test_BO) = (t.tensor_split([fitted]) for t in (z_BF, left_BO))
    move_FO = fit_BF.T @ rest_BO
    W_FO, square, least = torch.zeros_like(move_FO), move_FO.square().sum(), None
    for _ in range(steps):
        change_BO = fit_BF @ move_FO
        alpha = square / change_BO.square().sum().clamp_min(tiny)
        moved_FO, rest_BO = W_FO + alpha * move_FO, rest_BO - alpha * change_BO
        error = (test_BF @ moved_FO - test_BO).square().sum()
        if least is not None and error >= least:
            break
        W_FO, least = moved_FO, error
        gradient_FO = fit_BF.T @ rest_BO
        last, square = square, gradient_FO.square().sum()
        move_FO = gradient_FO + square / last.clamp_min(tiny) * move_FO
    norm_F = W_FO.norm(dim=1)
    fires_F = norm_F > 0
    typical = norm_F[fires_F].mean() if fires_F.any() else norm_F.new_ones(())
    image_FO = torch.where(fires_F[:, None], W_FO / norm_F.clamp_min(tiny)[:, None], W_dec_FO)
    if each:
        norm_F = torch.where(fires_F, norm_F, typical)
    else:  # the one norm that leaves least
        predicted_BO = z_BF @ image_FO
        best = (predicted_BO * left_BO).sum() / predicted_BO.square().sum().clamp_min(tiny)
        norm_F = torch.where(best > 0, best, typical).expand_as(norm_F)
    return image_FO * norm_F[:, None], norm_F
