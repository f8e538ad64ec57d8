"""How many steps of a solve a wanted error takes, by a proven bound on the spectrum that an SAE's own supports have.

Shapes: B tokens, K places of a code (the most of the batch), D d_in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

import approx
from rsae.activations.protocol import Activations, check_fits
from rsae.sae import SAE, plain, pursuit
from rsae.support.errors import InputError

_ROWS = 128  # tokens at a time
#: outwards, far above the rounding of eigenvalues in float64
_MARGIN = 1e-9


@dataclass(frozen=True)
class SolveSteps:
    """Steps of conjugate gradients for a wanted error."""

    steps: int
    """The least number that the bound holds for: `steps` of a pursuit."""
    bound: float
    """What they leave of the first error at most, in the energy norm; rounded up."""
    lowest: float
    """Least eigenvalue of the Gram matrices of unit decoder rows, over all supports of the sample."""
    largest: float
    """Largest one."""
    tokens: int
    """Tokens of the sample."""

    def __str__(self) -> str:
        return (
            f"{self.steps} steps leave at most {self.bound:.3g} of a solve's first error (energy norm), for spectra in "
            f"[{self.lowest:.3g}, {self.largest:.3g}], as {self.tokens} tokens have them"
        )


@torch.no_grad()
def pursuit_steps(
    sae: SAE, activations: Activations, error: float = 0.1, tokens: int = 1024, seed: int = 0
) -> SolveSteps:
    """The steps that a pursuit's solves need for an error, by `approx.chebyshev_bound`.

    The supports are those of the plain code and of the pursued one. The bound is proven for every matrix whose spectrum
    lies in the interval; that other tokens' spectra lie there, too, is what the sample says, no proof.

    Args:
        sae: The SAE; of a pursuit, the plain one is taken.
        activations: Where a sample of tokens comes from.
        error: What may be left of the first error, between 0 and 1.
        tokens: Size of the sample.
        seed: Of the sample.

    Raises:
        InputError: Decoder rows of a token are linearly dependent, or the SAE does not fit the activations.
    """
    sae = plain(sae)
    check_fits(sae, activations)
    unit_FD = F.normalize(sae.W_dec.double(), dim=1)
    low, high = torch.inf, 0.0
    x_BD = activations.sample(tokens, seed).to(sae.W_enc.device)
    codes = (sae, pursuit(sae))
    for rows_BD in x_BD.split(_ROWS):
        for code in codes:
            eigenvalue_BK = _spectra(code.encode(rows_BD) != 0, unit_FD)
            low, high = min(low, eigenvalue_BK.min().item()), max(high, eigenvalue_BK.max().item())
    low, high = low * (1 - _MARGIN) - _MARGIN, high * (1 + _MARGIN)
    if low <= 0:
        raise InputError(
            "some token's decoder rows are linearly dependent: no number of steps is enough for every error; "
            "prune repeated latents"
        )
    steps = approx.chebyshev_steps(low, high, error)
    return SolveSteps(steps, approx.chebyshev_bound(low, high, steps), low, high, len(x_BD))


def _spectra(on_BF: torch.Tensor, unit_FD: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of each token's W_S W_S', [B, K]; 1 for the places that a token does not use.

    The mean eigenvalue of a Gram matrix of unit rows is 1, so that these change neither the least nor the largest.
    """
    most = max(1, int(on_BF.sum(1).max()))
    used_BK, latent_BK = on_BF.float().topk(most, dim=1)
    rows_BKD = unit_FD[latent_BK] * used_BK[..., None]
    gram_BKK = rows_BKD @ rows_BKD.transpose(1, 2)
    gram_BKK.diagonal(dim1=1, dim2=2).copy_(torch.ones_like(used_BK))
    return torch.linalg.eigvalsh(gram_BKK)
