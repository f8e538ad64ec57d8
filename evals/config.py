"""Config files: TOML, validated whole before anything runs; a typo names the key and the nearest valid one."""

from __future__ import annotations

import os
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from evals.tasks import check_task
from rsae import HarvestConfig, TrainConfig, UpgradeConfig
from rsae.activations.hooks import SITES
from rsae.activations.host import EMBEDDED_HOST
from rsae.sae import FAMILIES
from rsae.sae.rational import RationalSAE
from rsae.support.errors import InputError, did_you_mean

Variant = Literal["soft", "gated"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _File(_Section):
    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """Read and validate a TOML file; `InputError` names the file, the key and the remedy."""
        try:
            data = tomllib.loads(Path(path).read_text())
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"config {path}: not readable as TOML ({error})") from None
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InputError(f"config {path}: {explain(error, cls)}") from None


class Teachers(_Section):
    """The SAEs to upgrade."""

    d_sae: PositiveInt = 1536
    k: PositiveInt = 32
    sparsity_relu: PositiveFloat = 3.0
    sparsity_jump_relu: PositiveFloat = 1.5
    steps: PositiveInt = 800
    batch: PositiveInt = 1024
    lr: PositiveFloat = 1e-3


class Upgrade(_Section):
    """Their rational upgrades, and the budget that the controls get too."""

    variants: Annotated[list[Variant], Field(min_length=1)] = list(get_args(Variant))
    type: tuple[PositiveInt, PositiveInt] = (9, 8)
    form: Literal["partial", "standard", "safe", "safe-b"] = "partial"
    steps: PositiveInt = 250
    lr: PositiveFloat = 3e-4

    @field_validator("type")
    @classmethod
    def _odd_over_even(cls, type_: tuple[int, int]) -> tuple[int, int]:
        m, n = type_
        if m != n + 1 or n % 2:
            raise ValueError("the variants take types (2j + 1, 2j), such as [3, 2], [5, 4] or [9, 8]")
        return type_


class Evaluate(_Section):
    """What is measured."""

    downstream_tokens: PositiveInt = 2500
    tasks: list[str] = ["spam", "agnews_sports", "code_python", "wiki_people", "french"]
    probe_train: PositiveInt = 300
    probe_test: PositiveInt = 150
    probe_context: PositiveInt = 32
    k: list[PositiveInt] = [1, 2, 5, 20]
    #: so many latents, or pairs of them, are pushed either way; 0 leaves the measure out
    intervention: NonNegativeInt = 0

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str]) -> list[str]:
        for task in tasks:
            check_task(task)
        return tasks


class DemoConfig(_File):
    """The main job's settings."""

    seed: int = 0
    harvest: HarvestConfig = HarvestConfig()
    teachers: Teachers = Teachers()
    upgrade: Upgrade = Upgrade()
    evaluate: Evaluate = Evaluate(k=[1, 2, 5])


class Site(_Section):
    """A host and its hook points; with `teachers` (public SAEs) those are upgraded there, and none is trained.

    A teacher is a path, or OWNER/NAME:SUBFOLDER on the hub.
    """

    host: str = EMBEDDED_HOST
    hooks: Annotated[list[str], Field(min_length=1)] = ["blocks.12.hook_resid_pre"]
    teachers: list[str] = []

    @field_validator("hooks")
    @classmethod
    def _named(cls, hooks: list[str]) -> list[str]:
        for hook in hooks:
            if not re.fullmatch(rf"blocks\.\d+\.hook_({'|'.join(SITES)})", hook):
                raise ValueError(
                    f"hook point {hook!r}: write blocks.L.hook_SITE, SITE one of {', '.join(SITES)}"
                )
        return hooks


class Grid(_Section):
    """The teachers: families x widths x levels of sparsity x seeds.

    A family's widths are `d_sae`, unless its own `widths.FAMILY` are given. Its levels are `l0` (top_k families take it
    as k; the penalty's weight of others is steered to it), unless `k` (for top_k families) or the family's own weights
    `sparsity.FAMILY` are given.
    """

    families: Annotated[list[str], Field(min_length=1)] = ["relu", "jump_relu", "top_k"]
    d_sae: Annotated[list[PositiveInt], Field(min_length=1)] = [1536]
    widths: dict[str, Annotated[list[PositiveInt], Field(min_length=1)]] = {}
    l0: list[PositiveInt] = [16, 32, 64]
    k: list[PositiveInt] = []
    sparsity: dict[str, Annotated[list[PositiveFloat], Field(min_length=1)]] = {}
    seeds: Annotated[list[int], Field(min_length=1)] = [0]

    @field_validator("families")
    @classmethod
    def _trainable(cls, families: list[str]) -> list[str]:
        known = [n for n, f in FAMILIES.items() if not issubclass(f, RationalSAE)]
        for name in families:
            if name not in known:
                raise ValueError(f"family {name!r} is unknown{did_you_mean(name, known)}")
        return families

    @model_validator(mode="after")
    def _consistent(self) -> Grid:
        for name in self.sparsity:
            if name not in self.families or "top_k" in name:
                fit = [f for f in self.families if "top_k" not in f]
                raise ValueError(f"grid.sparsity.{name} is no family with a penalty{did_you_mean(name, fit)}")
        for name in self.widths:
            if name not in self.families:
                raise ValueError(f"grid.widths.{name} is not in families{did_you_mean(name, self.families)}")
        for family in self.families:
            levels = self.levels(family)
            if not levels:
                raise ValueError(f"family {family!r} has no level of sparsity; give l0 = [...]")
            largest = max(level.get("k", level.get("l0", 0)) for level in levels.values())
            if largest >= (least := min(self.widths_of(family))):
                place = f"widths.{family}" if family in self.widths else "d_sae"
                raise ValueError(f"l0 {largest:g} is not below the {least} latents of {place}")
        return self

    def widths_of(self, family: str) -> list[int]:
        """The numbers of latents that a family is trained with."""
        return self.widths.get(family, self.d_sae)

    def levels(self, family: str) -> dict[str, dict[str, Any]]:
        """By name: `k` of the family, or the training's `l0` or `sparsity`."""
        if "top_k" in family:
            return {f"k{k}": {"k": k} for k in self.k or self.l0}
        if family in self.sparsity:
            return {f"sparsity{w:g}": {"sparsity": w} for w in self.sparsity[family]}
        return {f"l0_{goal}": {"l0": float(goal)} for goal in self.l0}


class Synthetic(_Section):
    """SA-GSAE's protocols on data with a known truth; seeds: how many; steps: of training."""

    protocols: list[Literal["A", "B", "C"]] = []
    seeds: PositiveInt = 3
    steps: PositiveInt = 1000


#: What the sections of a suite leave to its sites and its grid
_ELSEWHERE = {"harvest": ("host", "hook"), "train": ("seed", "l0", "sparsity"), "tune": ("seed",)}


class SuiteConfig(_File):
    """A grid of cells: sites x teachers x upgrades, each with its start and its control; or teachers alone.

    `synthetic`: protocols to run beside the grid, or alone where no `sites` are given.

    `harvest` holds for all sites, `train` for all teachers, `tune` (the fine-tuning) for all upgrades and controls.
    `soft_sparsity`: weight of the L1 penalty that `soft` and its control get where the teacher was trained with
    another penalty.
    """

    sites: list[Site] = [Site()]
    harvest: HarvestConfig = HarvestConfig()
    grid: Grid = Grid()
    train: TrainConfig = TrainConfig(steps=800)
    upgrades: dict[str, UpgradeConfig] = {}
    tune: TrainConfig = UpgradeConfig().tune
    soft_sparsity: PositiveFloat = 3.0
    evaluate: Evaluate = Evaluate()
    synthetic: Synthetic = Synthetic()

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

    @staticmethod
    def as_given(record: dict[str, Any]) -> dict[str, Any]:
        """A result file's `config` as it may stand in a suite's file: without what is given elsewhere."""
        upgrades = {name: _without(upgrade, ("tune",)) for name, upgrade in record["upgrades"].items()}
        sections = {name: _without(record[name], keys) for name, keys in _ELSEWHERE.items()}
        return record | sections | {"upgrades": upgrades}

    @model_validator(mode="after")
    def _fitting(self) -> SuiteConfig:
        if not self.sites and not self.synthetic.protocols:
            raise ValueError("sites is empty: give a site, or protocols in [synthetic]")
        for name, upgrade in self.upgrades.items():
            if not re.fullmatch(r"[a-z0-9_]+", name) or name in ("teacher", "control"):
                raise ValueError(f"upgrades.{name}: choose another name, of a-z, 0-9 and _")
            m, n = upgrade.type
            if m != n + 1 or n % 2:
                raise ValueError(f"upgrades.{name}.type: write a type (2j + 1, 2j), such as [3, 2] or [9, 8]")
            for family in self.grid.families:
                try:
                    upgrade.family_for(FAMILIES[family])
                except InputError as error:
                    raise ValueError(
                        f"upgrades.{name}: {error}; or leave {family!r} out of the grid"
                    ) from None
        return self


def _without(values: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def to_toml(config: dict[str, Any]) -> str:
    """A config as TOML; what is None is left out, since that is what it means."""

    def given(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: given(v) for key, v in value.items() if v is not None}
        return [given(v) for v in value] if isinstance(value, list) else value

    return tomli_w.dumps(given(config))


#: Shipped suites, by name
PRESETS = ("quick", "standard", "paper")


def preset(name: str) -> Path:
    """The file of a shipped config: `demo`, `quick`; of a shipped suite: `suite-quick`, `suite-standard`, ..."""
    return Path(str(resources.files("evals") / "configs" / f"{name}.toml"))


def explain(error: ValidationError, model: Any) -> str:
    """The first complaint as one line: the key, what is wrong with it, the nearest valid key for a typo."""
    first = error.errors()[0]
    *parents, key = [str(part) for part in first["loc"]] or [""]
    name = ".".join([*parents, key])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        for parent in parents:
            model = _inner(model, parent)
        return f"unknown key {name!r}{did_you_mean(key, _fields(model))}"
    message = first["msg"].removeprefix("Value error, ")
    # a complaint about a whole section shows its own words, not the section
    return message if isinstance(first["input"], dict) else f"{name} = {first['input']!r}: {message}"


def _fields(model: Any) -> dict[str, Any]:
    fields = getattr(model, "model_fields", None) or model.__pydantic_fields__
    return {name: field.annotation for name, field in fields.items()}


def _inner(model: Any, part: str) -> Any:
    """The model of a field; in a list or a table of sections, that of its items."""
    if get_origin(model) in (list, dict):
        return get_args(model)[-1]
    return _fields(model)[part]
