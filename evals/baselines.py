"""What an SAE has to beat: the same figures at the same l0, for codes that have learnt less, or nothing.

    random_decoder   a TopK SAE whose random unit decoder stays as it is; its encoder is trained
    random_encoder   a TopK SAE whose random encoder stays as it is; its decoder is trained
    shuffled         the SAE's own code, each latent's values moved to other tokens: the same densities and decoder
    pca              the principal directions, each token's largest coordinates
    neurons          the activation's own coordinates, each token's largest deviations from the mean

The two random ones have the SAE's width and take `steps` of training, as in the literature (frozen decoders and
encoders). The SAE's l0 is met by k, rounded. Shapes: B batch, D dimensions, F latents.

The host's untrained twin needs a store of its own: harvest one from a host with random weights and compare there. The
fine-tuned control is what `rsae.upgrade` makes beside an upgrade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

import rsae
from evals.metrics.reconstruction import reconstruction
from evals.results import Reconstruction
from rsae import SAE, AbsTopK, Activations, InputError, TrainConfig
from rsae.support.errors import did_you_mean

#: Tokens whose code is shuffled among each other
_ROWS = 4096


def baselines(
    sae: SAE,
    activations: Activations,
    names: Sequence[str] = (),
    steps: int = 500,
    seed: int = 0,
    allow_mismatch: bool = False,
) -> dict[str, Reconstruction]:
    """Measure baselines beside an SAE: what `evals.reconstruction` says of each, at the SAE's l0.

    Args:
        sae: An SAE of any family and format.
        activations: Where it is measured, on held-out activations; the baselines learn from the training ones.
        names: Which baselines; all by default.
        steps: Training steps of the random ones, of 1024 tokens.
        seed: Of random weights, shuffles and the training's order.
        allow_mismatch: Accept an SAE of another model or hook point.

    Returns:
        By name, in the order of the module's list.

    Raises:
        InputError: for an unknown name, or an SAE that does not fit the activations.
    """
    for name in names:
        if name not in MAKERS:
            raise InputError(f"baseline {name!r} is unknown{did_you_mean(name, MAKERS)}")
    l0 = reconstruction(sae, activations, allow_mismatch=allow_mismatch).l0
    k = min(max(1, round(l0)), sae.d_sae - 1)
    return {
        name: measure(sae, activations, k, steps, seed)
        for name, measure in MAKERS.items()
        if not names or name in names
    }


def _random_decoder(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> Reconstruction:
    made = _fresh(sae, activations, k, seed)
    made.W_dec.requires_grad_(False)
    return _trained(made, activations, steps, seed)


def _random_encoder(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> Reconstruction:
    made = _fresh(sae, activations, k, seed)
    made.W_enc.requires_grad_(False)
    return _trained(made, activations, steps, seed)


def _fresh(sae: SAE, activations: Activations, k: int, seed: int) -> SAE:
    return rsae.new("top_k", activations, seed, d_sae=sae.d_sae, k=k).to(sae.W_enc.device)


def _trained(made: SAE, activations: Activations, steps: int, seed: int) -> Reconstruction:
    batch = min(1024, activations.tokens())
    config = TrainConfig(steps=steps, batch=batch, lr=1e-3, revival=0.0, seed=seed)
    rsae.train(made, activations, config)
    return reconstruction(made, activations)


class _Shuffled(SAE):
    """The code of an SAE with each latent's values moved among the tokens that are encoded together."""

    family = "shuffled"
    penalties = (None,)

    def __init__(self, sae: SAE, seed: int):
        super().__init__(sae.d_in, sae.d_sae)
        self.inner, self.signed = sae, sae.signed
        self.W_dec, self.provenance = sae.W_dec, sae.provenance
        self.generator = torch.Generator().manual_seed(6_000_011 + seed)

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        z_BF = self.inner.encode(x_BD)
        order_BF = torch.rand(z_BF.shape, generator=self.generator).argsort(0).to(z_BF.device)
        return z_BF.gather(0, order_BF)

    def decode(self, z_BF: torch.Tensor, x_BD: torch.Tensor | None = None) -> torch.Tensor:
        return self.inner.decode(z_BF, x_BD)


def _shuffle(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> Reconstruction:
    return reconstruction(_Shuffled(sae, seed), activations, rows=_ROWS, allow_mismatch=True)


def _pca(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> Reconstruction:
    mean_D, covariance_DD = _moments(activations)
    row_DD = torch.linalg.eigh(covariance_DD).eigenvectors.T  # a direction a row
    return reconstruction(_largest(row_DD, mean_D, k), activations)


def _neurons(sae: SAE, activations: Activations, k: int, steps: int, seed: int) -> Reconstruction:
    mean_D, _ = _moments(activations)
    return reconstruction(_largest(torch.eye(len(mean_D)), mean_D, k), activations)


def _largest(row_DD: torch.Tensor, mean_D: torch.Tensor, k: int) -> SAE:
    """The k largest coordinates of x - mean in an orthonormal basis."""
    made = AbsTopK(len(row_DD), len(row_DD), min(k, len(row_DD))).eval()
    with torch.no_grad():
        made.W_dec.copy_(row_DD)
        made.W_enc.copy_(row_DD.T)
        made.b_dec.copy_(mean_D)
    return made


def _moments(activations: Activations) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the training activations, in float64."""
    count = 0
    total_D = torch.zeros(activations.d_in, dtype=torch.float64)
    square_DD = torch.zeros(activations.d_in, activations.d_in, dtype=torch.float64)
    for x_BD in _training(activations):
        count += len(x_BD)
        total_D += x_BD.sum(0)
        square_DD += x_BD.T @ x_BD
    mean_D = total_D / count
    return mean_D, square_DD / count - mean_D[:, None] * mean_D


def _training(activations: Activations) -> Iterator[torch.Tensor]:
    for x_BD in activations.blocks("train"):
        yield x_BD.double()


#: (SAE, activations, k, steps, seed) to figures, by name
MAKERS: dict[str, Callable[[SAE, Activations, int, int, int], Reconstruction]] = {
    "random_decoder": _random_decoder,
    "random_encoder": _random_encoder,
    "shuffled": _shuffle,
    "pca": _pca,
    "neurons": _neurons,
}
