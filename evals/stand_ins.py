"""Codes that stand beside an SAE at the same l0: some have learnt less, or nothing; one is solved for each token.

    random_decoder   a TopK SAE whose random unit decoder stays as it is; its encoder is trained
    random_encoder   a TopK SAE whose random encoder stays as it is; its decoder is trained
    shuffled         the SAE's own code, each latent's values moved to other tokens: the same densities and decoder
    pca              the principal directions, each token's largest coordinates
    neurons          the activation's own coordinates, each token's largest deviations from the mean
    omp              orthogonal matching pursuit on the SAE's decoder, with as many latents a token as its own code:
                     what the dictionary could give

The two random ones have the SAE's width and take `steps` of training, as in the literature (frozen decoders and
encoders). The SAE's l0 is met by k, rounded. Shapes: B batch, D dimensions, F latents, K latents of a token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import rsae
from rsae import SAE, AbsTopK, Activations, TrainConfig

#: Tokens whose code is shuffled among each other
SHUFFLED_ROWS = 4096
#: A token's residual counts as 0 below this share of its norm: then no latent is added
_SOLVED = 1e-5
#: Numbers that a step of matching pursuit makes at a time
_BLOCK = 2**24


class Shuffled(SAE):
    """The code of an SAE with each latent's values moved among the tokens that are encoded together.

    Args:
        sae: The SAE.
        seed: Of the shuffles.
    """

    family = "shuffled"
    penalties = (None,)

    def __init__(self, sae: SAE, seed: int):
        super().__init__(sae.d_in, sae.d_sae)
        self.inner, self.signed = sae, sae.signed
        self.W_enc, self.W_dec, self.b_dec, self.provenance = sae.W_enc, sae.W_dec, sae.b_dec, sae.provenance
        self.seed = 6_000_011 + seed

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        z_BF = self.inner.encode(x_BD)
        draw = torch.Generator().manual_seed(
            self.seed
        )  # anew: no figure depends on what was measured before it
        order_BF = torch.rand(z_BF.shape, generator=draw).argsort(0).to(z_BF.device)
        return z_BF.gather(0, order_BF)

    def decode(self, z_BF: torch.Tensor, x_BD: torch.Tensor | None = None) -> torch.Tensor:
        return self.inner.decode(z_BF, x_BD)


class MatchingPursuit(SAE):
    """Orthogonal matching pursuit on an SAE's decoder; each token has as many latents as the SAE's plain code gives it.

    A latent is added at a time, the one whose row has the largest |cosine| with what is left over, then all values are
    solved by least squares. Values have either sign, whatever the SAE's family.

    Args:
        sae: The SAE.

    Source: Pati, Rezaiifar and Krishnaprasad 1993.
    """

    family = "omp"
    penalties = (None,)
    signed = True

    def __init__(self, sae: SAE):
        super().__init__(sae.d_in, sae.d_sae)
        self.inner = rsae.plain(sae)
        self.input_norm = sae.input_norm
        self.W_enc, self.W_dec, self.b_dec, self.provenance = sae.W_enc, sae.W_dec, sae.b_dec, sae.provenance

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        shape = (*x_BD.shape[:-1], self.d_sae)
        rows_BD = x_BD.reshape(-1, self.d_in)
        count_B = (self.inner.encode(rows_BD) != 0).sum(1)
        target_BD = self.standardise(rows_BD).to(self.W_dec.dtype) - self.b_dec
        norm_F = self.W_dec.norm(dim=1).clamp_min(1e-12)
        unit_FD = self.W_dec / norm_F[:, None]
        most = int(count_B.max()) if len(count_B) else 0
        size = max(1, _BLOCK // max(self.d_sae, most * self.d_in))
        parts = [
            orthogonal_matching_pursuit(y_BD, unit_FD, n_B)
            for y_BD, n_B in zip(target_BD.split(size), count_B.split(size), strict=True)
        ]
        return (torch.cat(parts) / norm_F).reshape(shape)

    def decode(self, z_BF: torch.Tensor, x_BD: torch.Tensor | None = None) -> torch.Tensor:
        return self.inner.decode(z_BF, x_BD)


def orthogonal_matching_pursuit(
    y_BD: torch.Tensor, unit_FD: torch.Tensor, count_B: torch.Tensor
) -> torch.Tensor:
    """Sparse codes z_BF of y on unit rows, for many tokens at a time.

    Args:
        y_BD: What is to be approximated.
        unit_FD: The dictionary, a unit row each.
        count_B: Non-zeros of each token, at most.

    Returns:
        The codes; fewer non-zeros where nothing is left over.
    """
    most = min(int(count_B.max()) if len(count_B) else 0, len(unit_FD))
    chosen_BK = torch.zeros(len(y_BD), most, dtype=torch.long, device=y_BD.device)
    value_BK = torch.zeros(len(y_BD), most, dtype=torch.float64, device=y_BD.device)
    y64_BD, residual_BD = y_BD.double(), y_BD.clone()
    least_B = _SOLVED * y_BD.norm(dim=1)
    for k in range(most):
        on = ((count_B > k) & (residual_BD.norm(dim=1) > least_B)).nonzero()[:, 0]
        if not len(on):
            break
        score_BF = (residual_BD[on] @ unit_FD.T).abs()
        score_BF.scatter_(1, chosen_BK[on, :k], -1.0)
        chosen_BK[on, k] = score_BF.argmax(1)
        rows_BKD = unit_FD[chosen_BK[on, : k + 1]].double()
        gram_BKK = rows_BKD @ rows_BKD.transpose(1, 2)
        # rows that are parallel to those chosen are not chosen: the rest of them is orthogonal to what is left over
        factor_BKK = torch.linalg.cholesky(gram_BKK + 1e-10 * torch.eye(k + 1).to(gram_BKK))
        product_BK1 = rows_BKD @ y64_BD[on][:, :, None]
        solved_BK1 = torch.cholesky_solve(product_BK1, factor_BKK)
        value_BK[on, : k + 1] = solved_BK1[:, :, 0]
        residual_BD[on] = (y64_BD[on] - (solved_BK1 * rows_BKD).sum(1)).to(y_BD.dtype)
    return torch.zeros(len(y_BD), len(unit_FD)).to(y_BD).scatter_add(1, chosen_BK, value_BK.to(y_BD.dtype))


def stand_in(name: str, sae: SAE, activations: Activations, l0: float, steps: int, seed: int) -> SAE:
    """Make one of the module's codes.

    Args:
        name: Its name.
        sae: The SAE that it stands beside.
        activations: What it learns from.
        l0: The SAE's l0.
        steps: Training steps of the two random ones.
        seed: Of random weights, shuffles and the training's order.

    Returns:
        An SAE.
    """
    k = min(max(1, round(l0)), sae.d_sae - 1)
    return STAND_INS[name](sae, activations, k, steps, seed)


def wrap(name: str, sae: SAE, seed: int = 0) -> SAE | None:
    """A code that is made of an SAE alone; None for one that has weights of its own.

    Args:
        name: Its name.
        sae: The SAE.
        seed: Of shuffles.
    """
    made = {"shuffled": lambda: Shuffled(sae, seed), "omp": lambda: MatchingPursuit(sae)}
    return made[name]() if name in made else None


def _random_decoder(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> SAE:
    made = rsae.new("top_k", activations, seed, d_sae=sae.d_sae, k=k).to(sae.W_enc.device)
    made.W_dec.requires_grad_(False)
    return _trained(made, activations, steps, seed)


def _random_encoder(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> SAE:
    made = rsae.new("top_k", activations, seed, d_sae=sae.d_sae, k=k).to(sae.W_enc.device)
    made.W_enc.requires_grad_(False)
    return _trained(made, activations, steps, seed)


def _trained(made: SAE, activations: Activations, steps: int, seed: int) -> SAE:
    batch = min(1024, activations.tokens())
    rsae.train(made, activations, TrainConfig(steps=steps, batch=batch, lr=1e-3, revival=0.0, seed=seed))
    return made


def _shuffle(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> SAE:
    return Shuffled(sae, seed)


def _omp(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> SAE:
    return MatchingPursuit(sae)


def _pca(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> SAE:
    mean_D, covariance_DD = _moments(activations)
    row_DD = torch.linalg.eigh(covariance_DD).eigenvectors.T  # a direction a row
    return _largest(row_DD, mean_D, k, activations)


def _neurons(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> SAE:
    mean_D, _ = _moments(activations)
    return _largest(torch.eye(len(mean_D)), mean_D, k, activations)


def _largest(row_DD: torch.Tensor, mean_D: torch.Tensor, k: int, activations: Activations) -> SAE:
    """The k largest coordinates of x - mean in an orthonormal basis."""
    made = AbsTopK(len(row_DD), len(row_DD), min(k, len(row_DD))).eval()
    with torch.no_grad():
        made.W_dec.copy_(row_DD)
        made.W_enc.copy_(row_DD.T)
        made.b_dec.copy_(mean_D)
    made.provenance = activations.provenance
    return made


def _moments(activations: Activations) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the training activations, in float64."""
    count = 0
    total_D = torch.zeros(activations.d_in, dtype=torch.float64)
    square_DD = torch.zeros(activations.d_in, activations.d_in, dtype=torch.float64)
    for x_BD in activations.blocks("train"):
        x64_BD = x_BD.double()
        count += len(x64_BD)
        total_D += x64_BD.sum(0)
        square_DD += x64_BD.T @ x64_BD
    mean_D = total_D / count
    return mean_D, square_DD / count - mean_D[:, None] * mean_D


#: (SAE, activations, k, steps, seed) to the code, by name
STAND_INS: dict[str, Callable[[SAE, Activations, int, int, int], SAE]] = {
    "random_decoder": _random_decoder,
    "random_encoder": _random_encoder,
    "shuffled": _shuffle,
    "pca": _pca,
    "neurons": _neurons,
    "omp": _omp,
}
