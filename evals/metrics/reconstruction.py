"""Reconstruction and sparsity on stored activations: streamed, accumulated in float64.

Shapes: B batch, D dimensions, F latents.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from evals.metrics.codes import readings, sharing_products
from evals.results import Density, Fit, Reconstruction
from rsae import SAE, Activations, InputError, Provenance, Store
from rsae.activations.protocol import check_fits

#: Upper edges of the density histogram's decades; below the first stand the latents that never fire
DENSITY_EDGES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: Up to so many latents `decoder_redundancy` is over all; of more, over so many at random (standard error below 0.01)
EXACT, SAMPLE = 16_384, 4096
#: Vectors whose cosines are computed together
_ROWS = 512


class _Sums:
    """What is summed over tokens for one code of an SAE."""

    def __init__(self, sae: SAE):
        self.error = self.product = self.square = self.cosine = self.ratio = self.fired = 0.0
        self.directed = 0  # tokens that have a direction: the mean cosine and ratio of norms are over these
        self.signed = sae.signed
        self.count_F, self.minus_F = torch.zeros(2, sae.d_sae, dtype=torch.int64)

    def add(self, x_BD: torch.Tensor, z_BF: torch.Tensor, x_hat_BD: torch.Tensor) -> None:
        """A block; x_BD and x_hat_BD in float64."""
        norm_B, norm_hat_B = (y.norm(dim=1) for y in (x_BD, x_hat_BD))
        some_B = norm_B > 0
        self.directed += int(some_B.sum())
        product_B = (x_BD * x_hat_BD).sum(1)
        self.error += (x_hat_BD - x_BD).square().sum().item()
        self.product += product_B.sum().item()
        self.square += x_hat_BD.square().sum().item()
        cosine_B = product_B / (norm_B * norm_hat_B.clamp_min(1e-12))
        self.cosine += cosine_B[some_B].sum().item()
        self.ratio += (norm_hat_B / norm_B)[some_B].sum().item()
        self.count_F += (z_BF != 0).sum(0).cpu()
        if self.signed:
            self.minus_F += (z_BF < 0).sum(0).cpu()

    def fit(self, tokens: int, variance: float) -> Fit:
        """Means over the tokens."""
        mse = self.error / tokens
        return Fit(
            mse=mse,
            fvu=mse / variance,
            r2=1 - mse / variance,
            l0=self.count_F.sum().item() / tokens,
            alive=(self.count_F > 0).double().mean().item(),
            cosine=self.cosine / self.directed,
            l2_ratio=self.ratio / self.directed,
            # all zeros have no direction: nothing is biased there
            relative_bias=self.square / self.product if self.product else 1.0,
        )


@torch.no_grad()
def reconstruction(
    sae: SAE,
    activations: Activations | torch.Tensor | np.ndarray,
    split: str = "heldout",
    rows: int = 4096,
    allow_mismatch: bool = False,
) -> Reconstruction:
    """How well an SAE reconstructs stored activations, and how sparse the code is that it decodes.

    Args:
        sae: An SAE that takes activations as the host gives them.
        activations: A store or the like, with a target for a transcoder, whose prediction is then measured; or a tensor
            or array [N, D] (more leading dimensions are flattened), all of which counts.
        split: `heldout` or `train`.
        rows: Tokens at a time; the result does not depend on it.
        allow_mismatch: Accept an SAE of another model or hook point.

    Returns:
        Means over the split's tokens, summed in float64; MSE is in the activations' own units.

    Raises:
        InputError: where the SAE belongs to another model, hook point or width.

    Source:
        `relative_bias` is eq. 10 of Rajamanoharan et al. 2024, arXiv 2404.16014.
    """
    if isinstance(activations, torch.Tensor | np.ndarray):
        rows_ND = activations.reshape(-1, activations.shape[-1]) if activations.ndim else activations
        activations = Store.of([rows_ND, rows_ND], heldout=len(rows_ND))
        activations.provenance = Provenance()  # nothing of it was held out of anything
    check_fits(sae, activations, allow_mismatch)
    tokens, square = 0, 0.0
    total_O = torch.zeros(sae.d_out, dtype=torch.float64)
    sums = {name: (encode, _Sums(sae)) for name, encode in readings(sae).items()}
    for x_BD, y_BO in read_and_predicted(sae, activations, split, rows):
        y64_BO = y_BO.double()
        tokens += len(x_BD)
        total_O += y64_BO.sum(0)
        square += y64_BO.square().sum().item()
        here_BD = x_BD.to(sae.W_enc.device)
        with sharing_products([sae]):
            for encode, summed in sums.values():
                z_BF = encode(here_BD)
                summed.add(y64_BO, z_BF, sae.decode(z_BF, x_BD.to(z_BF)).double().cpu())
    if not tokens:
        raise InputError(f"{activations.name}: its split {split!r} holds no token")
    variance = spread(square / tokens, total_O / tokens, activations.name)
    honest = sums[""][1]
    count_F, minus_F = honest.count_F, honest.minus_F
    rarer_F = torch.minimum(minus_F, count_F - minus_F)
    bins_F = torch.bucketize(count_F.double() / tokens, torch.tensor(DENSITY_EDGES, dtype=torch.float64))
    latents = torch.bincount(bins_F, minlength=len(DENSITY_EDGES)).tolist()
    return Reconstruction(
        **vars(honest.fit(tokens, variance)),
        tokens=tokens,
        density=Density(DENSITY_EDGES, tuple(latents)),
        decoder_redundancy=decoder_redundancy(sae.W_dec, sae.signed),
        bipolar=(rarer_F > 0).double().mean().item() if sae.signed else None,
        two_way=(10 * rarer_F > count_F).double().mean().item() if sae.signed else None,
        others={name: summed.fit(tokens, variance) for name, (_, summed) in sums.items() if name},
    )


def spread(square: float, mean_O: torch.Tensor, name: str) -> float:
    """Mean ||x - mean||^2, what FVU is a fraction of.

    Args:
        square: Mean ||x||^2, summed in float64.
        mean_O: The mean.
        name: What the activations are called in messages.

    Raises:
        InputError: The activations are all the same but for rounding: there is no variance to explain.
    """
    variance = square - mean_O.square().sum().item()
    if not variance > 1e-12 * square:
        raise InputError(f"{name}: its tokens are all alike, so that FVU is not defined; give more tokens")
    return variance


def read_and_predicted(
    sae: SAE, activations: Activations, split: str, rows: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What an SAE reads and what it is to give, block by block: x_BD twice; of a transcoder x_BD and its target y_BO.

    Args:
        sae: The SAE.
        activations: The activations.
        split: `heldout` or `train`.
        rows: Largest number at a time.
    """
    read = activations.blocks(split, rows)
    if not sae.transcodes or activations.target is None:
        yield from ((x_BD, x_BD) for x_BD in read)
    else:
        yield from zip(read, activations.target.blocks(split, rows), strict=True)


@torch.no_grad()
def decoder_redundancy(W_FD: torch.Tensor, signed: bool = False) -> float:
    """Mean over vectors of the largest cosine with another; of more than `EXACT` over a sample of them, against all.

    Args:
        W_FD: The vectors.
        signed: Take |cosine|: a reversed row with a reversed sign of its code is the same latent.

    Returns:
        The mean; 0 for a single vector, which nothing repeats.
    """
    if len(W_FD) < 2:
        return 0.0
    if len(W_FD) <= EXACT:
        return largest_cosines(W_FD, signed=signed).double().mean().item()
    unit_FD = torch.nn.functional.normalize(W_FD.float(), dim=1)
    chosen_S = torch.randperm(len(unit_FD), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    found = []
    for own_B in chosen_S.to(unit_FD.device).split(_ROWS):
        cosine_BF = unit_FD[own_B] @ unit_FD.T
        cosine_BF = cosine_BF.abs() if signed else cosine_BF
        cosine_BF.scatter_(1, own_B[:, None], -torch.inf)
        found.append(cosine_BF.amax(1))
    return torch.cat(found).double().mean().item()


@torch.no_grad()
def largest_cosines(vector_FD: torch.Tensor, rows: int = _ROWS, signed: bool = False) -> torch.Tensor:
    """Each vector's largest cosine with another of `vector_FD` (|cosine| of `signed` ones), [F]; `rows` vectors at a
    time, each pair once."""
    unit_FD = torch.nn.functional.normalize(vector_FD.float(), dim=1)
    largest_F = unit_FD.new_full((len(unit_FD),), -torch.inf)
    for start in range(0, len(unit_FD), rows):
        cosine_BF = unit_FD[start : start + rows] @ unit_FD[start:].T
        cosine_BF = cosine_BF.abs() if signed else cosine_BF
        cosine_BF.diagonal().fill_(-torch.inf)
        own, later = largest_F[start : start + rows], largest_F[start + rows :]
        torch.maximum(own, cosine_BF.amax(1), out=own)
        if len(later):
            torch.maximum(later, cosine_BF[:, rows:].amax(0), out=later)
    return largest_F.cpu()
