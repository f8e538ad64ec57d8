"""The record of a run: one file a cell, one schema, written and read here only.

    RUN/suite.toml                 the settings that the run was last started with
    RUN/results/CELL.json          a cell: what it is, where its SAE lies, its figures, how it was made
    RUN/sites/SITE/                activations, SAEs and finished steps of a site
    RUN/gates/                     fits of the gates, with their certificates
    RUN/ground_truth/CELL.json     scores in a world of known features (`evals.truth`)
    RUN/units/, cards/, stability/ which units are finished; feature cards; whose latents are the same

A *cell* is one SAE with its figures. A *site* is a host and a hook point.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from evals.stats import Interval
from rsae import HarvestConfig, InputError, TrainConfig, UpgradeConfig
from rsae.formats import mark_in
from rsae.support.files import is_json, read_json, write_json
from rsae.support.values import numeral

#: Of the files in RUN/results; files of another version are refused
VERSION = 2

T = TypeVar("T")


class Role(StrEnum):
    """What a cell is in the comparison."""

    TEACHER = "teacher"
    """The trained SAE that upgrades start from."""
    START = "start"
    """An upgrade before fine-tuning."""
    TUNED = "tuned"
    """An upgrade after fine-tuning."""
    CONTROL = "control"
    """The teacher with its own activation, fine-tuned under the same budget."""
    SECOND_CONTROL = "second_control"
    """What else the same or more effort would give: more steps, more latents, the same inference."""
    CEILING = "ceiling"
    """What the control's dictionary could give."""
    BASELINE = "baseline"
    """A code that has learnt less, or nothing, at the teacher's l0."""


@dataclass(frozen=True)
class Site:
    """A host and a hook point; for transcoders two."""

    host: str
    """An embedded host's name, a directory, or a hub name."""
    hook: str
    """TransformerLens name of the hook point."""
    target: str | None = None
    """The hook point that transcoders predict; None for SAEs."""
    skip: bool = False
    """Whether they have a skip connection."""

    @property
    def place(self) -> str:
        """The hook points as part of a file's name."""
        target = f"-to-{slug(self.target)}" if self.target else ""
        return f"{slug(Path(self.host).name)}-{slug(self.hook)}{target}"

    @property
    def name(self) -> str:
        """The site as part of a file's name."""
        return f"{self.place}-skip" if self.skip else self.place

    @property
    def hooks(self) -> str:
        """The hook points in words."""
        skip = ", skip" if self.skip else ""
        return f"{self.hook} to {self.target}{skip}" if self.target else self.hook

    def __str__(self) -> str:
        return f"{Path(self.host).name} {self.hooks}"


@dataclass(frozen=True)
class Level:
    """What sets a teacher's sparsity."""

    kind: Literal["k", "l0", "sparsity", "source"]
    """The family's k, a wanted l0, the weight of the penalty, or (of a public SAE) its address."""
    value: int | float | str
    """A number; for a public SAE the address."""

    @property
    def number(self) -> float:
        """For sorting: 0 where the level is no number."""
        return self.value if isinstance(self.value, int | float) else 0.0

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return self.value
        return f"{self.kind}{'_' if self.kind == 'l0' else ''}{numeral(self.value)}"


class Figures:
    """Figures by field, which `figures["fvu"]` gives, too."""

    def __getitem__(self, name: str) -> Any:
        if name not in {one.name for one in fields(self)}:  # type: ignore[arg-type]
            raise KeyError(name)
        return getattr(self, name)


# --- figures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit(Figures):
    """How well one code of an SAE reconstructs, and how sparse it is: means over the tokens."""

    mse: float
    """Mean squared error, summed over dimensions, in the host's own units."""
    fvu: float
    """Fraction of variance unexplained."""
    r2: float
    """1 - FVU."""
    l0: float
    """Mean number of non-zero entries of the code that is decoded."""
    alive: float
    """Share of latents that are non-zero on at least one token."""
    cosine: float
    """Mean cosine of activation and reconstruction."""
    l2_ratio: float
    """Mean ratio of the reconstruction's norm to the activation's."""
    relative_bias: float
    """Mean ||x_hat||^2 / mean <x, x_hat>; below 1, reconstructions are too short."""


@dataclass(frozen=True)
class Density:
    """How many latents fire how often."""

    up_to: tuple[float, ...]
    """Upper edges, as shares of the tokens; the first, 0, counts the latents that never fire."""
    latents: tuple[int, ...]
    """How many latents lie in each interval."""


@dataclass(frozen=True)
class Reconstruction(Fit):
    """The figures of `evals.reconstruction`: of the code that is decoded."""

    tokens: int
    """How many tokens the figures are means of."""
    density: Density
    """The latents by how often they fire."""
    decoder_redundancy: float
    """Mean over latents of the largest cosine (of a signed family: |cosine|) with another latent's decoder row."""
    bipolar: float | None = None
    """Share of latents that use both signs; None for a family without signs."""
    two_way: float | None = None
    """Share of latents whose rarer sign makes up over a tenth of their firings; None for a family without signs."""
    others: dict[str, Fit] = field(default_factory=dict)
    """The same of other codes that can be read of the weights, such as `soft`: the dense code before truncation."""


@dataclass(frozen=True)
class BySequence:
    """What predictions cost in each sequence of the text, in nats: sums, so that cells can be compared in pairs."""

    predictions: tuple[int, ...]
    """How many predictions count."""
    dce: tuple[float, ...]
    """Sum of cross-entropy minus clean."""
    kl: tuple[float, ...]
    """Sum of KL(clean || spliced)."""


@dataclass(frozen=True)
class AtPositions:
    """What predictions cost at some positions of a sequence, in nats."""

    first: int
    """The first position."""
    last: int
    """The last position."""
    predictions: int
    """How many predictions are made there."""
    kl: float
    """KL(clean || spliced), their mean."""
    kl_interval: Interval | None
    """Of KL, by resampling sequences; None of fewer than two."""


@dataclass(frozen=True, kw_only=True)
class Spliced(Figures):
    """What the host predicts with a reconstruction in the activation's place: means over predictions, in nats."""

    kl: float
    """KL(clean || spliced): the least noisy of these figures."""
    kl_interval: Interval | None
    """Of KL, by resampling sequences; None of fewer than two."""
    ce: float
    """Cross-entropy with the reconstruction spliced in."""
    dce: float
    """Cross-entropy with the reconstruction spliced in, minus clean."""
    dce_interval: Interval | None
    """Of dCE, by resampling sequences; None of fewer than two."""
    loss_recovered: float
    """(CE_zero - CE) / (CE_zero - CE_clean): 0 is zero ablation, 1 the clean host."""
    top1: float
    """Share of predictions whose most likely token is the clean host's."""
    sequences: BySequence
    """The same predictions, sequence by sequence."""
    loss_recovered_mean: float | None = None
    """(CE_mean - CE) / (CE_mean - CE_clean): 0 is mean ablation, 1 the clean host; None where it was not measured."""
    by_position: tuple[AtPositions, ...] = ()
    """By position in the sequence: the earlier a token, the less the host has read."""


@dataclass(frozen=True, kw_only=True)
class Downstream(Spliced):
    """The figures of `evals.downstream`."""

    ce_clean: float
    """Cross-entropy of the host itself."""
    ce_zero: float
    """Cross-entropy with zeros spliced in."""
    kl_zero: float
    """KL(clean || zeros spliced in)."""
    predictions: int
    """How many predictions the figures are means of."""
    positions: str
    """Which positions keep their activation, and which predictions do not count."""
    others: dict[str, Spliced] = field(default_factory=dict)
    """The same of other codes that can be read of the weights."""
    ce_mean: float | None = None
    """Cross-entropy with the mean activation spliced in."""
    kl_mean: float | None = None
    """KL(clean || mean activation spliced in)."""
    precision: str = "float32"
    """In which the host was run from the hook point on, clean and spliced alike."""
    precision_kl: float | None = None
    """KL(clean in float32 || clean in that precision): what it costs by itself; None for float32."""


@dataclass(frozen=True)
class Accuracy:
    """A probe's test accuracy."""

    value: float
    """Share of the test texts that are told right."""
    low: float
    """Lower end of the 95 % interval (Wilson's) over test texts."""
    high: float
    """Upper end of the interval."""


@dataclass(frozen=True)
class Baseline:
    """What there is to find in a probing task."""

    dense: Accuracy
    """Of a probe on the whole activation."""
    train: int
    """Training texts."""
    test: int
    """Test texts."""


@dataclass(frozen=True)
class Probing:
    """The figures of `evals.sparse_probing` for one task."""

    accuracy: dict[int, Accuracy]
    """By k: of a probe on the k best latents."""
    others: dict[str, dict[int, Accuracy]] = field(default_factory=dict)
    """The same of other codes that can be read of the weights."""
    baseline: Baseline | None = None
    """What a dense probe reaches, where it was asked for."""


@dataclass(frozen=True)
class Intervention(Figures):
    """The figures of `evals.intervention`: means over dials, None where there is no dial."""

    dials: int
    """How many dials were pushed."""
    eligible: int
    """How many could have been pushed."""
    kl_plus: float | None = None
    """KL(clean || pushed) of the plus polarity, nats a token."""
    kl_minus: float | None = None
    """KL(clean || pushed) of the minus polarity, nats a token."""
    opposition: float | None = None
    """Cosine of what the two polarities change; -1 is opposite."""
    row_cosine: float | None = None
    """Cosine of the two decoder directions."""
    agreement: float | None = None
    """Correlation of what the polarities change with the contexts in which they are on."""
    agreement_others: float | None = None
    """The same with the contexts of the other dials; None with fewer than two dials."""


@dataclass(frozen=True)
class Jacobians(Figures):
    """The figures of `evals.jacobians`: of a transcoder and the MLP that it stands for."""

    cosine: float
    """Cosine of the two Jacobians at a token, mean over tokens; 0 where no latent is on."""
    cosine_interval: Interval | None
    """95 % bootstrap interval over tokens; None of fewer than two."""
    norm_ratio: float
    """Frobenius norm of the transcoder's Jacobians over that of the MLP's, over all tokens."""
    varying_cosine: float
    """Cosine, over all tokens, of both without their means over the tokens: what depends on the input."""
    varying_share: float
    """Share of the MLP's squared norm that depends on the input."""
    tokens: int
    """Tokens sampled."""


@dataclass(frozen=True)
class Features(Figures):
    """Whether the latents are the right ones, by SAEBench's measures; each only where the suite asks for it."""

    absorption: float | None = None
    """Mean absorption fraction of first letters; less is better."""
    full_absorption: float | None = None
    """Mean share of words with full absorption."""
    tpp: dict[int, float] = field(default_factory=dict)
    """Targeted probe perturbation by number of ablated latents, mean over sets."""
    scr: dict[int, float] = field(default_factory=dict)
    """Spurious correlation removal by number of ablated latents, mean over sets."""
    interchange: dict[int, float] = field(default_factory=dict)
    """RAVEL's disentanglement by number of moved latents, mean over sets."""


@dataclass(frozen=True)
class Metrics:
    """All that is measured of a cell."""

    reconstruction: Reconstruction
    """On stored held-out activations."""
    downstream: Downstream
    """In the host."""
    probing: dict[str, Probing]
    """By task, in the order of the suite."""
    intervention: Intervention | None = None
    """Where the suite asks for it."""
    encode_us: float | None = None
    """Microseconds a token that its encoding took: of a cell that second controls are compared with, and of those."""
    features: Features | None = None
    """Where the suite asks for it."""
    jacobians: Jacobians | None = None
    """Of a transcoder, where the suite asks for it."""


# --- cells -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A function of one variable as points."""

    t: tuple[float, ...]
    """Arguments."""
    r: tuple[float, ...]
    """Values."""


@dataclass(frozen=True)
class How:
    """How a cell was made."""

    seconds: float
    """To make the SAE: training, calibration or fine-tuning."""
    harvest: HarvestConfig
    """The activations."""
    host_note: str
    """What the host's loader says about it, such as its precision."""
    machine: str
    """The processor, and what of it was used."""
    versions: dict[str, str]
    """By package."""
    train: TrainConfig | None = None
    """The training, or the fine-tuning."""
    penalty: str | None = None
    """The sparsity penalty of the fine-tuning loss."""
    upgrade: UpgradeConfig | None = None
    """Of a start or a tuned cell."""
    start: dict[str, Any] | None = None
    """What a rational activation says of its start: type, method, error."""
    gate: Curve | None = None
    """The trained rational function over t = h / C_in, where all latents share its coefficients."""
    history: tuple[dict[str, float], ...] = ()
    """Means of the training loss and its parts."""


@dataclass(frozen=True)
class Result:
    """A cell: one SAE with its figures."""

    site: Site
    """Where in which host it belongs."""
    family: str
    """The teacher's family."""
    d_sae: int
    """Number of latents of the teacher."""
    level: Level
    """What set the teacher's sparsity."""
    seed: int
    """Of the teacher's start and the order of its data."""
    upgrade: str | None
    """Name of the upgrade, of a start or a tuned cell."""
    role: Role
    """What the cell is in the comparison."""
    control: str | None
    """Name of the control that an upgrade is compared with; of a control, its own; None for a teacher."""
    sae: str
    """Where the SAE lies, relative to the run; of a public teacher, its address."""
    metrics: Metrics
    """Its figures."""
    how: How
    """How it was made."""
    name: str | None = None
    """Of a baseline, a second control or a ceiling: its name."""

    @property
    def variant(self) -> str:
        """The cell among those of one teacher, as a name for readers and files."""
        return variant(self.role, self.upgrade, self.control, self.name)

    @property
    def cell(self) -> str:
        """The cell as a file's name, without `.json`."""
        source = [self.family, str(self.d_sae), str(self.level)]
        return f"{self.site.name}-{slug('-'.join(source))}-s{self.seed}-{self.variant}"

    @property
    def group(self) -> tuple[Site, str, int]:
        """Cells of one group are compared: one site, family and width."""
        return self.site, self.family, self.d_sae

    @property
    def compared(self) -> bool:
        """Whether it is an upgrade that stands beside its control: a start is not a result."""
        return self.role is Role.TUNED


def variant(role: Role, upgrade: str | None, control: str | None, name: str | None = None) -> str:
    """The name of a cell among those of one teacher.

    Args:
        role: What the cell is.
        upgrade: The upgrade's name.
        control: The control's name.
        name: The name of a baseline, a second control or a ceiling.

    Returns:
        `teacher`, `UPGRADE-init` for a start, `UPGRADE`, the control's own name, or `name`.
    """
    named = {
        Role.TEACHER: "teacher",
        Role.START: f"{upgrade}-init",
        Role.TUNED: upgrade,
        Role.CONTROL: control,
        Role.SECOND_CONTROL: name,
        Role.CEILING: name,
        Role.BASELINE: name,
    }
    return str(named[role])


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_.")


# --- files -----------------------------------------------------------------------------------------------------


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def dump(value: Any) -> Any:
    """A record (or a mapping or list of records) as JSON-able values."""
    return _adapter(type(value)).dump_python(value, mode="json")


def parse(kind: type[T], value: Any) -> T:
    """The record that `dump` made `value` of.

    Args:
        kind: The record's class.
        value: What `dump` gave.

    Returns:
        The record.

    Raises:
        pydantic.ValidationError: where `value` is no such record.
    """
    return _adapter(kind).validate_python(value)


def write_result(run: str | os.PathLike, result: Result) -> None:
    """Write a cell's `result` into `run`/results."""
    write_json(Path(run) / "results" / f"{result.cell}.json", {"version": VERSION, **dump(result)})


def read_results(run: str | os.PathLike) -> list[Result]:
    """All cells of a run.

    Args:
        run: The run's directory.

    Returns:
        The cells by site, family, width, level, variant and seed.

    Raises:
        InputError: where there are no result files, or they were made by an earlier version.
    """
    directory = Path(run) / "results"
    found = [_read(file) for file in sorted(directory.glob("*.json"))]
    if not found and mark_in(Path(run)) is not None:
        raise InputError(f"{run}: an SAE, no run: give --activations to look at SAEs")
    if not found:
        raise InputError(
            f"{directory}: no result files; make them with `evals run demo --out {run}` (for the report of "
            "one SAE give --activations)"
        )
    return sorted(found, key=_order)


def _read(file: Path) -> Result:
    if not is_json(file):
        raise InputError(f"{file}: torn; the same command as for the run makes it anew")
    made = read_json(file)
    if not isinstance(made, dict) or made.pop("version", None) != VERSION:
        raise InputError(
            f"{file}: made by an earlier version; make the run anew in another directory, "
            "`evals run demo --out NEW` or `evals run SUITE.toml --out NEW`"
        )
    try:
        return parse(Result, made)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{file}: the field {where!r} is wrong ({first['msg']}); delete the file and run the same command again"
        ) from None


#: In this order in tables; other families follow by name
_FAMILIES = ("relu", "jump_relu", "top_k")
#: The roles within an upgrade; its control follows the upgrade, as the run makes them
_ROLES = (
    Role.TEACHER,
    Role.BASELINE,
    Role.START,
    Role.TUNED,
    Role.CONTROL,
    Role.SECOND_CONTROL,
    Role.CEILING,
)
#: These stand below the upgrades that they are compared with
_BELOW = (Role.CONTROL, Role.SECOND_CONTROL, Role.CEILING)


def _order(result: Result) -> tuple:
    family = _FAMILIES.index(result.family) if result.family in _FAMILIES else len(_FAMILIES)
    # what is compared with one control stands together, the control last
    together = (
        result.control or "",
        result.role in _BELOW,
        result.upgrade or "",
        _ROLES.index(result.role),
        result.name or "",
    )
    level = (result.level.number, str(result.level))
    return (
        str(result.site),
        result.site.name,
        family,
        result.family,
        result.d_sae,
        level,
        together,
        result.seed,
    )
