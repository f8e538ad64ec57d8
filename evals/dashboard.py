"""All that one SAE shows on stored activations, without a suite: what it is, how it does, what its latents are about.

Shapes: D dimensions, F latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evals.firings import Texts
from evals.latents import (
    Card,
    Counts,
    Extent,
    Histogram,
    Vocabulary,
    by_density,
    cards,
    check_latents,
    count,
)
from evals.metrics.reconstruction import reconstruction
from evals.results import Reconstruction
from evals.site import load_address
from rsae import SAE, Activations, InputError, Provenance, Store, load_host
from rsae.activations.protocol import check_fits
from rsae.formats import detect

#: What the cards of a page show
SHOWN = Extent(contexts=8, intervals=5, each=2, around=12, logits=10)
#: Bars of a decade in the histogram of densities
_BARS = 4


@dataclass(frozen=True)
class Dashboard:
    """What there is to see of an SAE."""

    address: str
    """Where it lies."""
    format: str
    """Of its files."""
    family: str
    """Its family."""
    settings: dict[str, Any]
    """Its family's settings."""
    provenance: dict[str, Any]
    """Where its activations come from, as it says itself, by SAELens's names."""
    activations: str
    """What it was measured on."""
    reconstruction: Reconstruction
    """Its figures."""
    decoder_norms: tuple[float, float]
    """Smallest and largest norm of its decoder rows."""
    densities: Histogram
    """The living latents by log10 of the share of tokens on which they fire."""
    dead: tuple[int, ...]
    """The latents that never fire."""
    cards: tuple[Card, ...]
    """Of the chosen latents."""
    notes: tuple[str, ...]
    """What is missing, and why."""


class Subject:
    """An SAE beside the activations that it is looked at on; what is counted is counted once.

    Args:
        address: A path in any supported format, or OWNER/NAME:SUBFOLDER on the hub.
        activations: A store of its hook point, or one's own activations.
        host: The host's name, where it is not the activations' own; `none` for no host.
        allow_mismatch: Accept an SAE of another model or hook point.

    Raises:
        InputError: where the SAE cannot be loaded, or does not fit the activations.
    """

    def __init__(
        self,
        address: str,
        activations: Activations,
        host: str | None = None,
        allow_mismatch: bool = False,
    ):
        self.address, self.activations = address, activations
        self.sae: SAE = load_address(address).eval()
        check_fits(self.sae, activations, allow_mismatch)
        self.allow_mismatch = allow_mismatch
        self.vocabulary, self.notes = _vocabulary(host, activations, self.sae)
        self.counts: Counts = count(self.sae, activations)

    def chosen(self, latents: Sequence[int], features: int) -> list[int]:
        """The latents to show.

        Args:
            latents: Which; where it is empty, some that fire, spread by density.
            features: How many of these.
        """
        check_latents(latents, self.sae.d_sae, self.address)
        return list(latents) or by_density(self.counts.fired_F, features)

    def cards(self, latents: Sequence[int], extent: Extent = SHOWN) -> tuple[Card, ...]:
        """Cards of latents.

        Args:
            latents: Which.
            extent: How much they show.
        """
        return cards(self.sae, self.activations, latents, self.counts, self.vocabulary, extent)

    @property
    def provenance(self) -> Provenance:
        """Where the activations come from; what they do not say is the SAE's word."""
        return self.activations.provenance.filled(self.sae.provenance)

    @property
    def sequences(self) -> int:
        """Held-out sequences that were looked at; of activations without texts, whose sequences are not known, as many
        full ones as their tokens make."""
        if isinstance(self.activations, Store):
            return int(Texts(self.activations, "heldout").sequence_N[-1]) + 1
        return -(-self.counts.tokens // max(1, self.provenance.known("context", "an export") - 1))


def dashboard(subject: Subject, latents: Sequence[int] = (), features: int = 24) -> Dashboard:
    """Look at an SAE.

    Args:
        subject: The SAE and the activations.
        latents: Latents to make cards of.
        features: Where none are given: how many, spread by density among those that fire.

    Returns:
        What there is to see.

    Raises:
        InputError: for a latent that it does not have.
    """
    sae, counts = subject.sae, subject.counts
    shown = subject.cards(subject.chosen(latents, features))
    norm_F = sae.W_dec.detach().norm(dim=1)
    fired_F = counts.fired_F.numpy()
    return Dashboard(
        address=subject.address,
        format=detect(subject.address) if Path(subject.address).exists() else "on the hub",
        family=sae.family,
        settings=sae.settings(),
        provenance=sae.provenance.metadata(),
        activations=subject.activations.name,
        reconstruction=reconstruction(sae, subject.activations, allow_mismatch=subject.allow_mismatch),
        decoder_norms=(norm_F.min().item(), norm_F.max().item()),
        densities=_densities(fired_F[fired_F > 0] / counts.tokens, counts.tokens),
        dead=tuple(np.flatnonzero(fired_F == 0).tolist()),
        cards=shown,
        notes=tuple(subject.notes),
    )


def _densities(share_F: np.ndarray, tokens: int) -> Histogram:
    low = -float(np.ceil(np.log10(tokens)))
    bars = max(1, int(-low)) * _BARS
    made = np.histogram(np.log10(share_F), bars, (min(low, -1.0), 0.0))[0]
    return Histogram(min(low, -1.0), 0.0, tuple(made.tolist()))


def _vocabulary(
    host: str | None, activations: Activations, sae: SAE
) -> tuple[Vocabulary | None, tuple[str, ...]]:
    """The host's words; else why there are none."""
    if host == "none":
        return None, ("no contexts and no logits: no host was wanted",)
    if not isinstance(activations, Store):
        return None, ("no contexts and no logits: the activations are no store with tokens (rsae harvest)",)
    known = activations.provenance.filled(sae.provenance)
    name = host or known.model
    if name is None:
        return None, ("no contexts and no logits: nobody says which host it is (--host NAME)",)
    try:
        words = Vocabulary(load_host(name), known)
    except InputError as error:
        if host is not None:
            raise
        return None, (f"no contexts and no logits: {error}",)
    if words.unembedding_VD is None:
        return words, ("no logits: the hook point does not write to the residual stream",)
    return words, ()
