"""The figures that are compared and shown: how each is read off a record, which way is better, what it means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evals.results import Probing, Result


@dataclass(frozen=True)
class Measure:
    """A figure of a cell."""

    key: str
    """Its name in JSON and in the page."""
    heading: str
    """Its name in tables."""
    form: str
    """How it is printed."""
    meaning: str
    """What it is, in a line."""
    read: Callable[[Result], float | None]
    """The figure of a cell; None where it does not apply."""
    more: bool = False
    """Whether more is better."""
    ratio: bool = False
    """Whether it is compared as a ratio."""
    ceiling: Callable[[Result], float | None] | None = None
    """What could be reached, of a figure for which that is known."""

    def of(self, result: Result) -> float:
        """The figure of a cell that has it."""
        value = self.read(result)
        assert value is not None, f"{result.cell} has no {self.key}"
        return value

    def cost(self, result: Result) -> float:
        """The figure so that less is better."""
        return -self.of(result) if self.more else self.of(result)

    def difference(self, value: float, reference: float) -> float:
        """Relative for a ratio, else absolute; of nothing, nothing is no more and anything infinitely more."""
        if not self.ratio:
            return value - reference
        if not reference:
            return math.inf if value else 0.0
        return value / reference - 1


def _to(value: float) -> Callable[[Result], float]:
    return lambda _: value


L0 = Measure(
    "l0",
    "l0",
    "{:.1f}",
    "mean non-zero entries of the code that is decoded",
    lambda r: r.metrics.reconstruction.l0,
)
MSE = Measure(
    "mse",
    "MSE",
    "{:.3g}",
    "mean squared error, summed over dimensions, in the host's own units",
    lambda r: r.metrics.reconstruction.mse,
    ratio=True,
    ceiling=_to(0.0),
)
FVU = Measure(
    "fvu",
    "FVU",
    "{:.4f}",
    "fraction of variance unexplained",
    lambda r: r.metrics.reconstruction.fvu,
    ratio=True,
    ceiling=_to(0.0),
)
R2 = Measure("r2", "R^2", "{:.4f}", "1 - FVU", lambda r: r.metrics.reconstruction.r2, more=True)
ALIVE = Measure(
    "alive",
    "alive",
    "{:.3f}",
    "share of latents that fire on the held-out tokens",
    lambda r: r.metrics.reconstruction.alive,
    more=True,
)
DCE = Measure(
    "dce",
    "dCE",
    "{:.4f}",
    "cross-entropy with the reconstruction spliced in, minus clean (nats a token)",
    lambda r: r.metrics.downstream.dce,
    ceiling=_to(0.0),
)
LOSS_RECOVERED = Measure(
    "loss_recovered",
    "LR",
    "{:.4f}",
    "loss recovered: 0 is zero ablation, 1 is the clean host",
    lambda r: r.metrics.downstream.loss_recovered,
    more=True,
    ceiling=_to(1.0),
)
KL = Measure(
    "kl",
    "KL",
    "{:.4f}",
    "KL(clean || spliced), nats a token",
    lambda r: r.metrics.downstream.kl,
    ratio=True,
    ceiling=_to(0.0),
)

#: What an upgrade and its control are compared by, beside probing
ERRORS = (MSE, FVU, KL, DCE)
#: What SAEs of different families and widths are compared by; alive is a share, 1 - dead
AGAINST_REFERENCE = (R2, ALIVE, LOSS_RECOVERED)


def _pushed(name: str) -> Callable[[Result], float | None]:
    return lambda r: None if r.metrics.intervention is None else r.metrics.intervention[name]


def _turned(name: str) -> Callable[[Result], float | None]:
    return lambda r: None if r.metrics.jacobians is None else r.metrics.jacobians[name]


def _readings(results: Sequence[Result]) -> list[Measure]:
    """Of the other codes that can be read of some cell's weights: FVU, l0, dCE."""
    names = dict.fromkeys(name for r in results for name in r.metrics.reconstruction.others)
    found = []
    for name in names:
        meaning = (
            "the dense code before truncation" if name == "soft" else f"the {name} code of the same weights"
        )
        found += [
            Measure(f"{name}_fvu", f"{name} FVU", "{:.4f}", f"FVU of {meaning}", _other_fit(name, "fvu")),
            Measure(
                f"{name}_l0", f"{name} l0", "{:.0f}", f"non-zero entries of {meaning}", _other_fit(name, "l0")
            ),
            Measure(f"{name}_dce", f"{name} dCE", "{:.4f}", f"dCE of {meaning}", _other_dce(name)),
        ]
    return found


def _other_fit(name: str, figure: str) -> Callable[[Result], float | None]:
    def read(result: Result) -> float | None:
        found = result.metrics.reconstruction.others.get(name)
        return None if found is None else found[figure]

    return read


def _other_dce(name: str) -> Callable[[Result], float | None]:
    def read(result: Result) -> float | None:
        found = result.metrics.downstream.others.get(name)
        return None if found is None else found.dce

    return read


def _features(results: Sequence[Result]) -> list[Measure]:
    """SAEBench's measures of features that some cell has."""
    found = [
        Measure(
            "absorption",
            "absorption",
            "{:.3f}",
            "share of a first letter's part that other latents have taken over",
            lambda r: r.metrics.features and r.metrics.features.absorption,
            ceiling=_to(0.0),
        )
    ]
    meanings = {
        "tpp": ("TPP", "targeted probe perturbation: fall of a class's own probe, minus that of the others"),
        "scr": ("SCR", "spurious correlation removal: share recovered of what the bias costs"),
        "interchange": ("interchange", "as RAVEL: mean of cause and isolation, 0.5 where nothing is moved"),
    }
    for kind, (heading, meaning) in meanings.items():
        numbers = {n for r in results if r.metrics.features for n in r.metrics.features[kind]}
        found += [
            Measure(
                f"{kind}{n}",
                f"{heading} {n}",
                "{:+.3f}",
                f"{meaning}, {n} latents",
                _ablated(kind, n),
                more=True,
            )
            for n in sorted(numbers)
        ]
    return found


def _ablated(kind: str, number: int) -> Callable[[Result], float | None]:
    return lambda r: None if r.metrics.features is None else r.metrics.features[kind].get(number)


def probed(result: Result) -> list[int]:
    """The numbers k of latents that a cell was probed with."""
    tasks = iter(result.metrics.probing.values())
    return sorted(next(tasks, Probing({})).accuracy)


def probing(k: int) -> Measure:
    """The mean test accuracy over tasks with the k best latents."""

    def read(result: Result) -> float | None:
        if k not in probed(result):
            return None
        return float(np.mean([task.accuracy[k].value for task in result.metrics.probing.values()]))

    meaning = f"sparse probing, mean test accuracy with the {k} best latents"
    return Measure(f"k{k}", f"probe k={k}", "{:.3f}", meaning, read, more=True, ceiling=_dense)


def _dense(result: Result) -> float | None:
    """What a probe on the whole activation reaches, mean over tasks."""
    known = [task.baseline for task in result.metrics.probing.values()]
    return float(np.mean([one.dense.value for one in known if one])) if known and all(known) else None


def probings(results: Sequence[Result]) -> list[Measure]:
    """The probing measures that all cells have: runs, and the cells of one that was stopped, may differ in k."""
    common = [set(probed(r)) for r in results]
    return [probing(k) for k in sorted(set.intersection(*common) if common else ())]


def columns(results: Sequence[Result]) -> list[Measure]:
    """The measures that some cell has a figure for, in the order of a table."""
    every = [
        L0,
        MSE,
        FVU,
        Measure(
            "bipolar",
            "bipolar",
            "{:.3f}",
            "share of latents that use both signs on the held-out tokens",
            lambda r: r.metrics.reconstruction.bipolar,
        ),
        Measure(
            "two_way",
            "two-way",
            "{:.3f}",
            "share of latents whose rarer sign makes up over a tenth of their firings",
            lambda r: r.metrics.reconstruction.two_way,
        ),
        ALIVE,
        KL,
        DCE,
        LOSS_RECOVERED,
        Measure(
            "loss_recovered_mean",
            "LR mean",
            "{:.4f}",
            "loss recovered against mean ablation: 0 is the mean activation, 1 is the clean host",
            lambda r: r.metrics.downstream.loss_recovered_mean,
            more=True,
            ceiling=_to(1.0),
        ),
        Measure(
            "top1",
            "top-1",
            "{:.3f}",
            "share of predictions whose most likely token is the clean host's",
            lambda r: r.metrics.downstream.top1,
        ),
        Measure(
            "opposition",
            "opposition",
            "{:.3f}",
            "cosine of what the two polarities of a dial change: -1 is opposite",
            _pushed("opposition"),
        ),
        Measure(
            "agreement",
            "agreement",
            "{:.3f}",
            "correlation of what they change with the contexts in which they are on",
            _pushed("agreement"),
        ),
        Measure(
            "agreement_others",
            "of others",
            "{:.3f}",
            "the same with the contexts of other dials",
            _pushed("agreement_others"),
        ),
        Measure(
            "jacobian_cosine",
            "J cosine",
            "{:.3f}",
            "cosine of the transcoder's Jacobian and the MLP's, mean over tokens",
            _turned("cosine"),
            more=True,
            ceiling=_to(1.0),
        ),
        Measure(
            "varying_cosine",
            "J varying",
            "{:.3f}",
            "the same of both without their means over tokens: what depends on the input",
            _turned("varying_cosine"),
            more=True,
            ceiling=_to(1.0),
        ),
        Measure(
            "cosine",
            "cosine",
            "{:.4f}",
            "mean cosine of activation and reconstruction",
            lambda r: r.metrics.reconstruction.cosine,
        ),
        Measure(
            "relative_bias",
            "bias",
            "{:.4f}",
            "relative bias: below 1, reconstructions are too short",
            lambda r: r.metrics.reconstruction.relative_bias,
        ),
        *(probing(k) for k in sorted({k for r in results for k in probed(r)})),
        *_features(results),
        *_readings(results),
        Measure(
            "encode_us",
            "us/token",
            "{:.0f}",
            "microseconds a token that the encoding takes",
            lambda r: r.metrics.encode_us,
        ),
        Measure(
            "seconds",
            "s",
            "{:.0f}",
            "seconds to make it (training, or calibration for a start)",
            lambda r: r.how.seconds,
        ),
    ]
    return [measure for measure in every if any(measure.read(r) is not None for r in results)]
