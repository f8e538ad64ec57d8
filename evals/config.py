"""Config files: TOML, validated whole before anything runs; a typo names the key and the nearest valid one."""

from __future__ import annotations

import os
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from evals.tasks import TASKS
from rsae import HarvestConfig
from rsae.errors import InputError, did_you_mean

Variant = Literal["soft", "gated"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    k: list[PositiveInt] = [1, 2, 5]

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str]) -> list[str]:
        for task in tasks:
            if task not in TASKS:
                raise ValueError(f"task {task!r} is unknown{did_you_mean(task, TASKS)}")
        return tasks


class DemoConfig(_Section):
    """The main job's settings."""

    seed: int = 0
    harvest: HarvestConfig = HarvestConfig()
    teachers: Teachers = Teachers()
    upgrade: Upgrade = Upgrade()
    evaluate: Evaluate = Evaluate()

    @classmethod
    def read(cls, path: str | os.PathLike) -> DemoConfig:
        """Read and validate a TOML file; `InputError` names the file, the key and the remedy."""
        try:
            data = tomllib.loads(Path(path).read_text())
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"config {path}: not readable as TOML ({error})") from None
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InputError(f"config {path}: {explain(error, cls)}") from None


def preset(name: str) -> Path:
    """The file of a shipped config: `demo` or `quick`."""
    return Path(str(resources.files("evals") / "configs" / f"{name}.toml"))


def explain(error: ValidationError, model: Any) -> str:
    """The first complaint as one line: the key, what is wrong with it, the nearest valid key for a typo."""
    first = error.errors()[0]
    *parents, key = [str(part) for part in first["loc"]]
    name = ".".join([*parents, key])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        for parent in parents:
            model = _fields(model)[parent]
        return f"unknown key {name!r}{did_you_mean(key, _fields(model))}"
    return f"{name} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"


def _fields(model: Any) -> dict[str, Any]:
    fields = getattr(model, "model_fields", None) or model.__pydantic_fields__
    return {name: field.annotation for name, field in fields.items()}
