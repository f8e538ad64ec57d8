"""Suites as TOML files, validated whole before anything runs; a typo names the key and the nearest valid one."""

from __future__ import annotations

import inspect
import os
import re
import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import tomli_w
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from evals.labelled import check_sets
from evals.results import Level
from evals.tasks import check_task
from evals.world import NOISE
from rsae import HarvestConfig, TrainConfig, UpgradeConfig
from rsae.activations.hooks import POINTS
from rsae.activations.host import EMBEDDED_HOST
from rsae.sae import FAMILIES, SAE
from rsae.sae import family as family_named
from rsae.sae.registry import typed
from rsae.support.devices import products_in
from rsae.support.errors import InputError, did_you_mean
from rsae.support.files import write_text
from rsae.support.seeds import Seed
from rsae.upgrading.decide import upgraded_family


def _twice(values: list[Any]) -> Any:
    """The first value that stands there before; None where there is none."""
    return next((value for i, value in enumerate(values) if value in values[:i]), None)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        """A seed that is given twice is no second repetition."""
        for name in type(self).model_fields.keys() - {"hooks", "targets"}:
            given = getattr(self, name)
            for values in given.values() if isinstance(given, dict) else [given]:
                if isinstance(values, list) and (twice := _twice(values)) is not None:
                    raise ValueError(f"{name} holds {twice!r} twice")
        return self


class Place(_Section):
    """A host and its hook points: `[[sites]]` in a file."""

    def __repr__(self) -> str:
        return f"host {self.host!r} at {', '.join(self.hooks)}"

    host: str = EMBEDDED_HOST
    """An embedded host's name, a directory, or a hub name."""
    hooks: Annotated[list[str], Field(min_length=1)] = ["blocks.12.hook_resid_pre"]
    """TransformerLens names, such as `blocks.12.hook_resid_pre`, or names of modules."""
    targets: list[str] = []
    """What transcoders predict, a hook point for each of `hooks`; empty for SAEs."""
    skip: bool = False
    """Give the transcoders a skip connection."""
    teachers: list[str] = []
    """Public SAEs to upgrade there instead of training any: a path, or OWNER/NAME:SUBFOLDER on the hub."""

    @field_validator("hooks", "targets")
    @classmethod
    def _named(cls, hooks: list[str]) -> list[str]:
        for hook in hooks:
            known = "|".join(map(re.escape, POINTS.values()))
            of_block = re.fullmatch(rf"blocks\.\d+\.({known})(\[\d+\])?", hook)
            module = "." in hook and "hook" not in hook  # its host says whether there is such a one
            if not (of_block or module):
                raise ValueError(
                    f"hook point {hook!r}: write blocks.L.POINT, POINT one of {', '.join(POINTS.values())}; or a "
                    "module's own name"
                )
        return hooks

    @model_validator(mode="after")
    def _paired(self) -> Place:
        if self.targets and len(self.targets) != len(self.hooks):
            raise ValueError(f"{len(self.targets)} targets for {len(self.hooks)} hooks: give one for each")
        if (twice := _twice(list(zip(self.hooks, self.targets or self.hooks, strict=True)))) is not None:
            raise ValueError(f"hooks holds {twice[0]!r} twice")
        if self.skip and not self.targets:
            raise ValueError("skip is for transcoders: give targets, or leave it out")
        return self


class Grid(_Section):
    """The teachers: families x widths x levels of sparsity x seeds."""

    families: Annotated[list[str], Field(min_length=1)] = ["relu", "jump_relu", "top_k"]
    """Families of SAEs to train."""
    d_sae: Annotated[list[PositiveInt], Field(min_length=1)] = [1536]
    """Numbers of latents."""
    widths: dict[str, Annotated[list[PositiveInt], Field(min_length=1)]] = {}
    """By family: numbers of latents of its own, in the place of `d_sae`."""
    settings: dict[str, dict[str, bool | int | float | str | list[int | float]]] = {}
    """By family: settings of its own beside width and k, such as `auxiliary = false`."""
    l0: list[PositiveInt] = [16, 32, 64]
    """Levels of sparsity: families with a k take it as k; the penalty of the others is steered to it."""
    k: list[PositiveInt] = []
    """Levels of the families with a k, in the place of `l0`."""
    sparsity: dict[str, Annotated[list[PositiveFloat], Field(min_length=1)]] = {}
    """By family with a penalty: weights of it as levels, in the place of `l0`."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    """Of the teachers' start and the order of their data."""

    @field_validator("families")
    @classmethod
    def _trainable(cls, families: list[str]) -> list[str]:
        known = [n for n, f in FAMILIES.items() if not f.rational]
        for name in families:
            if name not in known:
                raise ValueError(f"family {name!r} is unknown{did_you_mean(name, known)}")
        return families

    @model_validator(mode="after")
    def _consistent(self) -> Grid:
        for name in self.sparsity:
            if name not in self.families or takes_k(name):
                fit = [f for f in self.families if not takes_k(f)]
                raise ValueError(f"grid.sparsity.{name} is no family with a penalty{did_you_mean(name, fit)}")
        for name in self.widths:
            if name not in self.families:
                raise ValueError(f"grid.widths.{name} is not in families{did_you_mean(name, self.families)}")
        for name, given in self.settings.items():
            if name not in self.families:
                raise ValueError(
                    f"grid.settings.{name} is not in families{did_you_mean(name, self.families)}"
                )
            _specimen(name, given)
        for family in self.families:
            levels = self.levels(family)
            if not levels:
                raise ValueError(f"family {family!r} has no level of sparsity; give l0 = [...]")
            largest = max(0 if level.kind == "sparsity" else level.number for level in levels)
            if largest >= (least := min(self.widths_of(family))):
                place = f"widths.{family}" if family in self.widths else "d_sae"
                raise ValueError(f"l0 {largest:g} is not below the {least} latents of {place}")
        return self

    def widths_of(self, family: str) -> list[int]:
        """The numbers of latents that a family is trained with."""
        return self.widths.get(family, self.d_sae)

    def options(self, family: str) -> dict[str, Any]:
        """The settings of its own that a family is trained with."""
        return self.settings.get(family, {})

    def levels(self, family: str) -> list[Level]:
        """The levels of sparsity that a family is trained at."""
        if takes_k(family):
            return [Level("k", k) for k in self.k or self.l0]
        if family in self.sparsity:
            return [Level("sparsity", weight) for weight in self.sparsity[family]]
        return [Level("l0", l0) for l0 in self.l0]


def takes_k(family: str) -> bool:
    """Whether a family's l0 is a setting (k), not what a penalty leads to."""
    return FAMILIES[family].sparsity_by == "k"


def family_options(family: str) -> list[str]:
    """The settings that a family takes beside its widths and k.

    Args:
        family: Its name.
    """
    out = ("self", "d_in", "d_sae", "k", "args", "kwargs")
    return [option for option in inspect.signature(family_named(family)).parameters if option not in out]


def _specimen(family: str, given: dict[str, Any] | None = None) -> SAE:
    """A tiny SAE of a family, to ask what can be made of it."""
    known = family_options(family)
    for name in given or {}:
        if name not in known:
            raise ValueError(f"grid.settings.{family}.{name} is no setting of it{did_you_mean(name, known)}")
    settings = {"d_in": 4, "d_sae": 8} | ({"k": 2} if takes_k(family) else {})
    return FAMILIES[family].from_settings(settings | typed(FAMILIES[family], given or {}))


class Evaluate(_Section):
    """What is measured."""

    downstream_tokens: PositiveInt = 5000
    """Held-out tokens to splice through the host; the standard error of KL at 5,000 is 1 to 2 %."""
    downstream_precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """In which the host runs from the hook point on; `auto` takes bfloat16 where the processor computes in it, and is
    settled once for a run (as the precision of `train` and `tune` is). What it costs is measured."""
    tasks: list[str] = ["spam", "agnews_sports", "code_python", "wiki_people", "french"]
    """Probing tasks, embedded or from files."""
    probe_train: Annotated[int, Field(ge=20)] = 300
    """Training texts a task, half of each class; half as many of each class of `classes`, and of each combination of
    `crossed`."""
    probe_test: Annotated[int, Field(ge=20)] = 150
    """Test texts, likewise."""
    probe_context: PositiveInt = 32
    """Tokens a text, truncated on the right."""
    k: list[PositiveInt] = [1, 2, 5, 20]
    """Numbers of latents to probe with."""
    absorption: NonNegativeInt = 0
    """How many words to read for the absorption of first letters; 0 leaves the measure out."""
    classes: list[str] = []
    """Sets of texts of several classes, embedded or files, for targeted probe perturbation (TPP)."""
    crossed: list[str] = []
    """Sets of texts with two labels, embedded or files, for spurious correlation removal (SCR)."""
    ablate: list[PositiveInt] = [10, 50]
    """Numbers of latents that TPP and SCR ablate."""
    stability: bool = False
    """Match the latents of SAEs of different seeds, and of upgrades with their teachers."""
    intervention: NonNegativeInt = 0
    """How many latents, or pairs of latents, to push either way; 0 leaves the measure out."""

    jacobians: NonNegativeInt = 0
    """Of transcoders of an MLP: on how many tokens to compare the Jacobians; 0 leaves the measure out."""

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str]) -> list[str]:
        for task in tasks:
            check_task(task)
        return tasks

    @model_validator(mode="after")
    def _sets(self) -> Evaluate:
        check_sets(self.classes, self.crossed)
        return self

    @property
    def features(self) -> bool:
        """Whether some measure of features is wanted."""
        return bool(self.absorption or self.classes or self.crossed)


Baseline = Literal["random_decoder", "random_encoder", "shuffled", "pca", "neurons", "untrained"]
SecondControl = Literal["pursued", "longer", "wider", "omp"]
#: Of other cells of a teacher, by themselves or behind `control-`: an upgrade of such a name would be taken for one
RESERVED = dict.fromkeys(
    ["teacher", "control", *get_args(Baseline), *get_args(SecondControl), "held"]
    + [penalty for family in FAMILIES.values() for penalty in family.penalties if penalty]
)


class Synthetic(_Section):
    """SA-GSAE's protocols on data with a known truth."""

    protocols: list[Literal["A", "B", "C"]] = []
    """Which to run, beside the grid or, in a file without `[[sites]]`, alone."""
    seeds: PositiveInt = 3
    """How many worlds and starts to average over."""
    steps: PositiveInt = 1000
    """Of training."""


class Truth(_Section):
    """A world of known features, in which the same grid is trained and scored (`evals.World`)."""

    features: NonNegativeInt = 0
    """Number of features; 0 leaves the measure out."""
    d_in: PositiveInt = 128
    """Dimensions of an activation."""
    seed: Seed = 0
    """Of the world."""
    noise: Annotated[list[NonNegativeFloat], Field(min_length=1)] = [NOISE]
    """Standard deviations of the noise in each dimension: a world each."""
    samples: Annotated[int, Field(ge=2)] = 20_000
    """Held-out samples to score on."""

    @field_validator("features")
    @classmethod
    def _enough(cls, features: int) -> int:
        if 0 < features < 16:
            raise ValueError("a world has 16 features at least; 0 leaves it out")
        return features


#: What the sections of a suite leave to its sites and its grid
_ELSEWHERE = {"harvest": ("host", "hook", "target"), "train": ("seed", "l0", "sparsity"), "tune": ("seed",)}


class SuiteConfig(_Section):
    """A grid of cells: sites x teachers x upgrades, each with its start and its control; or teachers alone."""

    sites: list[Place] = [Place()]
    """Hosts and hook points."""
    harvest: HarvestConfig = HarvestConfig()
    """The activations, the same for all sites."""
    grid: Grid = Grid()
    """The teachers."""
    train: TrainConfig = TrainConfig(steps=800)
    """The teachers' training."""
    upgrades: dict[str, UpgradeConfig] = {}
    """By name; without any, the trained SAEs alone are measured."""
    tune: TrainConfig = UpgradeConfig().tune
    """The fine-tuning, the same for all upgrades and all controls."""
    soft_sparsity: PositiveFloat = 3.0
    """Weight of the L1 penalty for `soft` and its control where the teacher was trained with another penalty."""
    baselines: list[Baseline] = []
    """Codes at each teacher's l0 that have learnt less, or nothing, measured like everything else."""
    second_controls: list[SecondControl] = []
    """Beside the control of a `pursuit` upgrade: `pursued` (the control with the same inference), `longer` (twice the
    fine-tuning), `wider` (twice the latents), `omp` (orthogonal matching pursuit on the control's dictionary). A
    pursuit that is not fine-tuned stands beside the control of another upgrade."""
    evaluate: Evaluate = Evaluate()
    """What is measured."""
    ground_truth: Truth = Truth()
    """The same grid in a world of known features."""
    synthetic: Synthetic = Synthetic()
    """Protocols to run beside the grid, or alone where no `sites` are given."""

    def settled(self, device: str, kept: Path) -> Self:
        """With `auto` precisions settled, so that one table has one precision, whatever machines make it.

        Args:
            device: Where it runs.
            kept: The suite as this run was begun, if it was.
        """
        if "auto" not in (self.train.precision, self.tune.precision, self.evaluate.downstream_precision):
            return self
        begun = self.read(kept) if kept.exists() else self

        def one(wanted: str, before: str) -> str:
            return products_in(before if wanted == "auto" else wanted, torch.device(device))

        downstream = one(self.evaluate.downstream_precision, begun.evaluate.downstream_precision)
        return self.model_copy(
            update={
                "train": replace(self.train, precision=one(self.train.precision, begun.train.precision)),
                "tune": replace(self.tune, precision=one(self.tune.precision, begun.tune.precision)),
                "evaluate": self.evaluate.model_copy(update={"downstream_precision": downstream}),
            }
        )

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """Read and validate a suite.

        Args:
            path: A TOML file, or the name of a preset.

        Returns:
            The suite.

        Raises:
            InputError: names the file, the key and the remedy.
        """
        file = preset(str(path)) if str(path) in PRESETS else Path(path)
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            remedy = f"; a preset is one of {', '.join(PRESETS)}" if not file.suffix else ""
            raise InputError(f"config {path}: not readable as TOML ({error}){remedy}") from None
        try:
            made = cls.model_validate(data)
        except ValidationError as error:
            raise InputError(f"config {path}: {explain(error, cls)}") from None
        if place := _truth(data, made.model_dump()):
            raise InputError(f"config {path}: {place} is true or false; give a number")
        return made

    def write(self, path: str | os.PathLike) -> None:
        """Write the suite as a TOML file that `read` takes."""
        write_text(path, self.to_toml())

    def to_toml(self) -> str:
        """The suite as TOML, without what its sites and its grid give, and without what is None."""
        record = self.model_dump(mode="json")
        sections = {name: _without(record[name], keys) for name, keys in _ELSEWHERE.items()}
        upgrades = {name: _without(upgrade, ("tune",)) for name, upgrade in record["upgrades"].items()}
        return tomli_w.dumps(_given(record | sections | {"upgrades": upgrades}))

    @model_validator(mode="before")
    @classmethod
    def _protocols_alone(cls, data: Any) -> Any:
        if "synthetic" not in data or "sites" in data:
            return data
        if idle := sorted(data.keys() & cls.model_fields.keys() - {"synthetic"}):
            raise ValueError(f"{idle[0]} is of no use to [synthetic] alone; give [[sites]], or leave it out")
        return data | {"sites": []}

    @model_validator(mode="before")
    @classmethod
    def _given_elsewhere(cls, data: Any) -> Any:
        sections = {name: part for name, part in data.items() if isinstance(part, dict)}
        for section, keys in _ELSEWHERE.items():
            for key in keys:
                if key in sections.get(section, {}):
                    place = "sites" if section == "harvest" else "grid"
                    raise ValueError(f"{section}.{key} is given by [{place}]; leave it out there")
        for name, upgrade in sections.get("upgrades", {}).items():
            if isinstance(upgrade, dict) and "tune" in upgrade:
                raise ValueError(
                    f"upgrades.{name}.tune: the budget is [tune], the same for all and for the control"
                )
        return data

    @model_validator(mode="after")
    def _fitting(self) -> SuiteConfig:
        if not self.sites and not self.synthetic.protocols and not self.ground_truth.features:
            raise ValueError(
                "sites is empty: give a site, features in [ground_truth], or protocols in [synthetic]"
            )
        if any(place.targets for place in self.sites) and any(
            u.variant == "pursuit" for u in self.upgrades.values()
        ):
            raise ValueError("a transcoder does not see what it predicts: leave variant 'pursuit' out")
        if self.evaluate.jacobians:
            for place in self.sites:
                mlps = [hook.replace("hook_mlp_in", "hook_mlp_out") for hook in place.hooks]
                if not place.targets or mlps != place.targets or mlps == place.hooks:
                    raise ValueError(
                        "evaluate.jacobians are of transcoders of an MLP: give sites with hooks blocks.L.hook_mlp_in "
                        "and targets blocks.L.hook_mlp_out, or leave it out"
                    )
        for family in self.grid.families if self.sites else []:
            try:
                _specimen(family).penalty_named(self.train.penalty)
            except InputError as error:
                raise ValueError(f"train.{error}; or leave {family!r} out of the grid") from None
            least = min(self.grid.widths_of(family))
            e = self.evaluate
            for name, most, asked in (("k", e.k, e.tasks), ("ablate", e.ablate, e.classes or e.crossed)):
                if asked and max(most, default=0) > least:
                    raise ValueError(
                        f"evaluate.{name} {max(most)} is more than the {least} latents of a {family}"
                    )
        if self.baselines and any(place.targets for place in self.sites):
            raise ValueError("baselines stand beside SAEs: leave them out where sites have targets")
        moved = self.evaluate.features or self.evaluate.intervention
        if moved and any(place.targets for place in self.sites):
            raise ValueError(
                "evaluate: absorption, classes, crossed and intervention measure SAEs; leave them out where sites have "
                "targets"
            )
        if self.second_controls and not any(u.variant == "pursuit" for u in self.upgrades.values()):
            raise ValueError(
                "second_controls stand beside an upgrade of variant 'pursuit'; give one, or leave them out"
            )
        for name, training in (("train", self.train), ("tune", self.tune)) if self.sites else ():
            if training.batch > self.harvest.tokens:
                raise ValueError(
                    f"{name}.batch {training.batch} is larger than harvest.tokens {self.harvest.tokens}; lower it"
                )
        for name, upgrade in self.upgrades.items():
            if not re.fullmatch(r"[a-z0-9_]{1,64}", name) or name in RESERVED:
                raise ValueError(
                    f"upgrades.{name}: choose another name, of 64 of a-z, 0-9 and _ at most, and none of "
                    f"{', '.join(RESERVED)}"
                )
            m, n = upgrade.type
            if (n and m != n + 1) or n % 2 or (not n and upgrade.variant != "gated"):
                raise ValueError(
                    f"upgrades.{name}.type: write a type (2j + 1, 2j), such as [3, 2] or [9, 8]; or for `gated` one of "
                    "the second controls [1, 0] and [2, 0]"
                )
            for family in self.grid.families:
                try:
                    upgraded_family(_specimen(family), upgrade)
                except InputError as error:
                    raise ValueError(
                        f"upgrades.{name}: {error}; or leave {family!r} out of the grid"
                    ) from None
        return self


def _truth(given: Any, made: Any, place: str = "") -> str:
    """Where a truth value was taken for a number; empty where none was."""
    if isinstance(given, bool):
        return "" if isinstance(made, bool) else place
    if isinstance(given, dict) and isinstance(made, dict):
        parts = [
            (f"{place}.{key}" if place else key, given[key], made[key]) for key in given.keys() & made.keys()
        ]
    elif isinstance(given, list) and isinstance(made, list | tuple):
        parts = [(f"{place}.{i}", *pair) for i, pair in enumerate(zip(given, made, strict=False))]
    else:
        return ""
    return next(
        (
            found
            for name, one, other in sorted(parts, key=lambda p: p[0])
            if (found := _truth(one, other, name))
        ),
        "",
    )


def _without(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _given(value: Any) -> Any:
    """Without what is None: left out is what that means."""
    if isinstance(value, dict):
        return {key: _given(v) for key, v in value.items() if v is not None}
    return [_given(v) for v in value] if isinstance(value, list) else value


#: Shipped suites, by name
PRESETS = ("demo", "quick", "standard", "paper", "transcoders")


def preset(name: str) -> Path:
    """The file of a shipped suite, by its name."""
    return Path(str(resources.files("evals") / "configs" / f"{name}.toml"))


def explain(error: ValidationError, model: Any) -> str:
    """The first complaint of a validation as one line.

    Args:
        error: What the validation raised.
        model: The model that was validated.

    Returns:
        The key, what is wrong with it, and the nearest valid key for a typo.
    """
    first = error.errors()[0]
    *parents, key = [str(part) for part in first["loc"]] or [""]
    name = ".".join([*parents, key])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        for parent in parents:
            model = _inner(model, parent)
        return f"unknown key {name!r}{did_you_mean(key, _fields(model))}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "list_type" and isinstance(first["input"], dict):
        return f"[{name}] is a list of sections: write [[{name}]]"
    # a complaint about a whole section shows its own words, not the section
    own = first["type"] == "value_error" and isinstance(first["input"], dict)
    return message if own else f"{name} = {first['input']!r}: {message}"


def _fields(model: Any) -> dict[str, Any]:
    fields = getattr(model, "model_fields", None) or model.__pydantic_fields__
    return {name: field.annotation for name, field in fields.items()}


def _inner(model: Any, part: str) -> Any:
    """The model of a field; in a list or a table of sections, that of its items."""
    if get_origin(model) in (list, dict):
        return get_args(model)[-1]
    return _fields(model)[part]
