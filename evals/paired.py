"""SAEs side by side on the same tokens, by address and without a suite: what differs, and how surely.

Differences are paired: both SAEs see the same activations and the same predictions. What is resampled for the intervals
are documents (of activations without text: blocks of rows) and, in the host, sequences. So the intervals are about the
text, not about training seeds. Shapes: B rows of a block, N rows, S groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from evals.comparison import Difference, difference
from evals.firings import Texts
from evals.metrics.downstream import downstream
from evals.metrics.reconstruction import read_and_predicted, spread
from evals.results import Downstream
from evals.stats import Interval, ratio_interval
from rsae import SAE, Activations, Host, InputError, Store, load_host
from rsae.activations.harvest import sequences_like
from rsae.activations.protocol import check_fits
from rsae.support.progress import progress

#: Into how many groups rows without text are parted for resampling: few, so that what neighbours share stays together
_GROUPS = 30


@dataclass(frozen=True)
class Beside:
    """An SAE among others."""

    name: str
    """Its name, or where it lies."""
    family: str
    """Its family."""
    d_sae: int
    """Number of latents."""
    l0: float
    """Mean non-zero entries of the code that is decoded."""
    fvu: float
    """Fraction of variance unexplained."""
    fvu_interval: Interval | None
    """Of FVU; None of fewer than two groups."""
    alive: float
    """Share of latents that fire."""
    host: Downstream | None
    """What the host loses; None without one."""


@dataclass(frozen=True)
class Change:
    """An SAE minus the first one."""

    name: str
    """Whose figures."""
    minus: str
    """Name of the first SAE."""
    l0: Difference
    """Of l0."""
    fvu: Difference
    """Of FVU."""
    kl: Difference | None
    """Of KL, nats a prediction; None without a host."""
    dce: Difference | None
    """Of cross-entropy, nats a prediction."""


@dataclass(frozen=True)
class SideBySide:
    """SAEs on the same tokens."""

    saes: tuple[Beside, ...]
    """The SAEs in the order given."""
    changes: tuple[Change, ...]
    """All but the first, minus the first."""
    tokens: int
    """Tokens that FVU and l0 are of."""
    groups: str
    """What was resampled."""


class _Sums:
    """Sums of an SAE over the rows of each group."""

    def __init__(self, groups: int, d_sae: int):
        self.error_S, self.count_S = np.zeros(groups), np.zeros(groups)
        self.fired_F = torch.zeros(d_sae, dtype=torch.bool)


def compare_saes(
    saes: Mapping[str, SAE],
    activations: Activations,
    host: Host | None = None,
    tokens: int = 5000,
    allow_mismatch: bool = False,
    rows_together: int | None = None,
) -> SideBySide:
    """Compare SAEs of one hook point on the same held-out tokens.

    Args:
        saes: Two or more, by name; the others are compared with the first.
        activations: A store of their hook point, or one's own activations.
        host: The model; with it also what it loses on the store's held-out text.
        tokens: How many tokens of that text.
        allow_mismatch: Accept SAEs of another model or hook point.
        rows_together: Of activations without text: how many rows are one sample's, such as an image's patches. They are
            resampled together. By default 30 blocks of rows are.

    Returns:
        Figures with 95 % intervals, and paired differences with theirs.

    Raises:
        InputError: for fewer than two SAEs, one that does not fit, a host beside activations that name no text, or
            `rows_together` below 1 or beside a store of texts.
    """
    if not isinstance(saes, Mapping) or len(saes) < 2:
        raise InputError("compare: give two SAEs at least, by name: {'mine': sae, 'other': other}")
    if rows_together is not None and (rows_together < 1 or isinstance(activations, Store)):
        raise InputError(
            f"compare: rows_together={rows_together} is for activations without text, and at least 1; documents are "
            "resampled of a store"
        )
    for sae in saes.values():
        check_fits(sae, activations, allow_mismatch)
    if len({sae.transcodes for sae in saes.values()}) > 1:
        raise InputError("compare: a transcoder and an SAE give different things; compare two of a kind")
    known = activations.provenance
    # first of all: a text that is not there would be told of after minutes
    sequences = [] if host is None else sequences_like(known, host, "heldout", tokens)
    group_N, groups = _groups(activations, rows_together)
    count_S = np.bincount(group_N)
    sums, variance_S = _measured(saes, activations, group_N)
    spliced: dict[str, Downstream] = {}
    if host is not None:
        rest = {"norm_limit": known.norm_limit, "exclude_tokens": known.exclude_tokens}
        place = {"hook": known.hook, "allow_mismatch": allow_mismatch}
        spliced = downstream(saes, host, sequences, **place, **rest)
    variance = variance_S.sum()
    beside = [
        Beside(
            name=name,
            family=sae.family,
            d_sae=sae.d_sae,
            l0=sums[name].count_S.sum() / len(group_N),
            fvu=sums[name].error_S.sum() / variance,
            fvu_interval=ratio_interval(sums[name].error_S, variance_S),
            alive=sums[name].fired_F.double().mean().item(),
            host=spliced.get(name),
        )
        for name, sae in saes.items()
    ]
    first, *others = saes
    changes = []
    for name in others:
        mine, theirs = sums[name], sums[first]
        kl = dce = None
        if spliced:
            a, b = spliced[name].sequences, spliced[first].sequences
            kl, dce = (difference(*pair, a.predictions) for pair in ((a.kl, b.kl), (a.dce, b.dce)))
        l0 = difference(mine.count_S, theirs.count_S, count_S)
        changes.append(Change(name, first, l0, difference(mine.error_S, theirs.error_S, variance_S), kl, dce))
    return SideBySide(tuple(beside), tuple(changes), len(group_N), groups)


def shared_host(name: str | None, activations: Activations) -> Host | None:
    """The host to splice SAEs into, in the precision that it made the activations in.

    Args:
        name: Its name; `none` for no host; None for the activations' own, where they name one and its text.
        activations: The activations.
    """
    known = activations.provenance
    if name == "none" or (name is None and not (known.model and known.text)):
        return None
    settings = activations.manifest.settings if isinstance(activations, Store) else {}
    return load_host(name or known.model or "", dtype=settings.get("host_dtype", "float32"))


def _groups(activations: Activations, rows_together: int | None) -> tuple[np.ndarray, str]:
    """The group of each held-out row, and what groups are."""
    if isinstance(activations, Store):
        texts = Texts(activations, "heldout")
        group_N = np.unique(texts.document_N, return_inverse=True)[1]
        return group_N, f"{group_N.max() + 1} documents"
    rows = activations.tokens("heldout")
    size = rows_together or -(-rows // _GROUPS)
    return np.arange(rows) // size, f"{-(-rows // size)} blocks of {size} rows"


@torch.no_grad()
def _measured(
    saes: Mapping[str, SAE], activations: Activations, group_N: np.ndarray
) -> tuple[dict[str, _Sums], np.ndarray]:
    """Squared errors and active latents of each SAE by group, and the groups' share of the variance."""
    groups = int(group_N.max()) + 1
    sums = {name: _Sums(groups, sae.d_sae) for name, sae in saes.items()}
    first = next(iter(saes.values()))
    pairs = lambda: read_and_predicted(first, activations, "heldout", 4096)  # noqa: E731
    mean_O = torch.stack([y_BO.double().sum(0) for _, y_BO in pairs()]).sum(0) / len(group_N)
    variance_S, start = np.zeros(groups), 0
    with progress(len(group_N), f"{len(saes)} SAEs on the same tokens", "tok") as bar:
        for x_BD, y_BO in pairs():
            of_B = group_N[start : start + len(x_BD)]
            np.add.at(variance_S, of_B, (y_BO.double() - mean_O).square().sum(1).numpy())
            for name, sae in saes.items():
                z_BF = sae.encode(x_BD.to(sae.W_enc.device))
                y_hat_BO = sae.decode(z_BF, x_BD.to(z_BF)).double().cpu()
                np.add.at(sums[name].error_S, of_B, (y_hat_BO - y_BO.double()).square().sum(1).numpy())
                np.add.at(sums[name].count_S, of_B, (z_BF != 0).sum(1).cpu().numpy())
                sums[name].fired_F |= (z_BF != 0).any(0).cpu()
            start += len(x_BD)
            bar.update(len(x_BD))
    spread(variance_S.sum() / start + mean_O.square().sum().item(), mean_O, activations.name)
    return sums, variance_S
