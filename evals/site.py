"""What a run makes at one site: the activations, teachers, their upgrades and the controls.

Each step is idempotent: its result is kept under the settings that it depends on (those of the steps that it builds
on included), and a stopped run resumes. All that is asked of `rsae` for that stands here.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import rsae
from evals.gates import fit_gate
from evals.results import Curve, How, Level, Result, Role, Site, variant
from evals.stand_ins import wrap
from rsae import SAE, HarvestConfig, InputError, TrainConfig, UpgradeConfig
from rsae.activations.harvest import sequences_like, settled
from rsae.activations.protocol import check_fits
from rsae.formats.sealed import load_sealed, save_sealed
from rsae.sae import family
from rsae.support.cache import Cache
from rsae.support.files import bytes_of
from rsae.upgrading import decide

_PACKAGES = ("rsae", "torch", "transformers", "numpy", "python-flint", "scikit-learn")


@dataclass(frozen=True)
class Plan:
    """A teacher to train."""

    family: str
    """Its family."""
    d_sae: int
    """Number of latents."""
    level: Level
    """What sets its sparsity."""
    train: TrainConfig
    """The training, but for what the level says."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of the family beside width and k."""

    @property
    def name(self) -> str:
        """The teacher among those of a site."""
        return f"{self.family}-{self.d_sae}-{self.level}-s{self.train.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """The family's settings, without `d_in`."""
        k = {"k": self.level.value} if self.level.kind == "k" else {}
        return {"d_sae": self.d_sae} | k | self.options

    def training(self, skip: bool = False) -> TrainConfig:
        """The training with the level.

        Args:
            skip: Whether the SAE has a skip connection.
        """
        train = self.train.rated(family(self.family).rates.beside(skip))
        given = {self.level.kind: self.level.number} if self.level.kind in ("l0", "sparsity") else {}
        return train.changed(given)


@dataclass(frozen=True)
class Cell:
    """An SAE to measure."""

    sae: SAE
    """The SAE itself."""
    path: str
    """Where it lies, relative to the run; of a public SAE, its address."""
    family: str
    """The teacher's family."""
    level: Level
    """What set the teacher's sparsity."""
    role: Role
    """What it is in the comparison."""
    how: How
    """How it was made."""
    upgrade: str | None = None
    """Name of the upgrade, of a start or a tuned SAE."""
    control: str | None = None
    """Name of the control."""
    name: str | None = None
    """Of a baseline, a second control or a ceiling: its name."""

    @property
    def variant(self) -> str:
        """The cell among those of one teacher."""
        return variant(self.role, self.upgrade, self.control, self.name)


class SiteRun:
    """One site of a run: its activations and what is made of them.

    Args:
        site: The host and the hook point.
        harvest: The activations' settings; host and hook point are the site's.
        run: The run's directory.
        device: Where the host and the SAEs are: `cpu`, `cuda`, ... No result's key depends on it.
    """

    def __init__(self, site: Site, harvest: HarvestConfig, run: str | os.PathLike, device: str = "cpu"):
        self.site, self.run, self.device = site, Path(run), device
        own = replace(harvest, host=site.host, hook=site.hook, target=site.target)
        self.harvest = settled(own, [self.activations], device)
        self.directory = self.run / "sites" / site.name
        self.cache = Cache(self.directory / "steps")

    # --- the host and its activations ----------------------------------------------------------------------

    @cached_property
    def host(self) -> rsae.Host:
        """The model; its activations are computed as those of the harvest, its weights are float32."""
        return _host(
            self.site.host, self.device, "mixed" if self.harvest.host_dtype == "mixed" else "float32"
        )

    @cached_property
    def store(self) -> rsae.Store:
        """The activations, harvested where they are not there yet."""
        if self.device == "cpu" or self.harvested:
            return rsae.harvest(self.harvest, self.activations)
        host = rsae.load_host(self.site.host, self.device, self.harvest.host_dtype)
        return rsae.harvest(self.harvest, self.activations, host)

    @property
    def harvested(self) -> bool:
        """Whether the activations are there."""
        return (self.activations / "manifest.json").exists()

    @property
    def activations(self) -> Path:
        """Where they lie."""
        return (
            self.run / "sites" / self.site.place / "activations"
        )  # with and without a skip connection the same

    @property
    def norm_limit(self) -> float:
        """Activations above it were left out of training, and are left alone in evaluation."""
        limit = self.store.provenance.norm_limit
        return float("inf") if limit is None else limit

    @property
    def exclude_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that were left out of training, and are left alone in evaluation."""
        return self.store.provenance.exclude_tokens or ()

    @property
    def identity(self) -> Any:
        """Tells one store from another, for the keys of what is made of it."""
        return self.store.identity

    def heldout(self, tokens: int) -> list[list[int]]:
        """Token ids of held-out articles, at least `tokens` of them."""
        return sequences_like(self.store.provenance, self.host, "heldout", tokens)

    # --- SAEs ----------------------------------------------------------------------------------------------

    def teachers(self, plans: list[Plan]) -> list[Cell]:
        """Teachers; those that are not there yet are trained in one pass over the activations."""
        of_step = {f"{plan.name}-teacher": plan for plan in plans}
        paths = {step: self.directory / "saes" / plan.name / "teacher" for step, plan in of_step.items()}

        def make(steps: list[str]) -> dict[str, Any]:
            saes = [
                rsae.new(plan.family, self.store, plan.train.seed, self.site.skip, **plan.settings).to(
                    self.device
                )
                for plan in (of_step[step] for step in steps)
            ]
            configs = [of_step[step].training(self.site.skip) for step in steps]
            checkpoint = self.directory / "checkpoints" / f"{of_step[steps[0]].name}.safetensors"
            what = f"{of_step[steps[0]].family} teacher" if len(steps) == 1 else f"{len(steps)} teachers"
            histories = rsae.train(saes, self.store, configs, checkpoint, f"train {what}")
            for step, sae in zip(steps, saes, strict=True):
                save_sealed(sae, paths[step])
            return dict(zip(steps, histories, strict=True))

        settings = {
            step: [self.identity, plan.family, plan.settings, asdict(plan.training(self.site.skip))]
            for step, plan in of_step.items()
        }
        histories = self.cache.run_all(settings, make, paths)
        return [
            Cell(
                sae=load_sealed(paths[step]).to(self.device),
                path=self.relative(paths[step]),
                family=plan.family,
                level=plan.level,
                role=Role.TEACHER,
                how=self.how(
                    self.cache.seconds[step],
                    train=plan.training(self.site.skip),
                    history=tuple(histories[step]),
                ),
            )
            for step, plan in of_step.items()
        ]

    def public_teacher(self, address: str) -> Cell:
        """A trained SAE from a path, or OWNER/NAME:SUBFOLDER on the hub."""
        sae = load_address(address).to(self.device)
        check_fits(sae, self.store)
        level = Level("source", address)
        return Cell(sae, address, sae.family, level, Role.TEACHER, self.how(0.0))

    def upgrades(
        self,
        name: str,
        teacher: Cell,
        configs: dict[str, UpgradeConfig],
        tune: TrainConfig,
        soft_sparsity: float,
    ) -> list[Cell]:
        """All cells of a teacher.

        Args:
            name: The teacher among those of the site.
            teacher: The teacher.
            configs: Upgrades by name.
            tune: The fine-tuning, the same for all upgrades and controls.
            soft_sparsity: Weight of the L1 penalty for `soft` where the teacher was trained with another penalty.

        Returns:
            The teacher, then for each upgrade its start, itself and its control; a control that serves several
            upgrades is made once.
        """
        cells = [teacher]
        controls: dict[str, SAE] = {}
        for upgrade, given in configs.items():
            config = _with_budget(given, tune, teacher.sae, soft_sparsity)
            decided = decide(teacher.sae, self.store, config)
            out = self.directory / "saes" / name / upgrade
            new = rsae.upgrade(
                teacher.sae,
                self.store,
                config=config,
                fit=fit_gate(self.run, teacher.family, config.type) if config.variant == "soft" else None,
                control=controls.get(decided.control_name, True),
                out=out,
                force=True,
            )
            started = self._upgraded(teacher, out, new, Role.START, upgrade, config)
            if not config.fine_tune:  # nothing is fine-tuned, so that there is nothing to control
                cells.append(replace(started, control=None))
                continue
            cells += [started, self._upgraded(teacher, out, new, Role.TUNED, upgrade, config)]
            if new.control_name not in controls and new.control is not None:
                controls[new.control_name] = new.control
                cells.append(self._upgraded(teacher, out, new, Role.CONTROL, None, None))
        return cells

    def _upgraded(
        self,
        teacher: Cell,
        out: Path,
        new: rsae.Upgraded,
        role: Role,
        upgrade: str | None,
        config: UpgradeConfig | None,
    ) -> Cell:
        """One of the SAEs that an upgrade gives; `rsae.upgrade` has saved it in `out`."""
        saes = {Role.START: new.initial, Role.TUNED: new.tuned, Role.CONTROL: new.control}
        step = {Role.START: "initial", Role.TUNED: "tuned", Role.CONTROL: "control"}[role]
        sae = saes[role]
        assert sae is not None
        return replace(
            teacher,
            sae=sae,
            path=self.relative(out / step),
            role=role,
            upgrade=upgrade,
            control=new.control_name,
            how=self.how(
                new.seconds[step],
                train=new.budget,
                penalty=new.budget.penalty,
                upgrade=None if config is None else replace(config, tune=new.budget),
                start=sae.activation.start if isinstance(sae, rsae.RationalSAE) else None,
                gate=gate_curve(sae),
                history=() if role is Role.START else tuple(new.history[step]),
            ),
        )

    def relative(self, path: Path) -> str:
        """A path as results hold it.

        Args:
            path: A path within the run.
        """
        return path.relative_to(self.run).as_posix()

    def how(self, seconds: float, **made: Any) -> How:
        """The record of how a cell was made.

        Args:
            seconds: How long it took.
            **made: What else is known: fields of `How`.
        """
        return How(
            seconds=seconds,
            harvest=self.harvest,
            host_note=self.store.provenance.note or "",
            machine=machine(self.device),
            versions={package: version(package) for package in _PACKAGES},
            **made,
        )


def _with_budget(
    config: UpgradeConfig, tune: TrainConfig, teacher: SAE, soft_sparsity: float
) -> UpgradeConfig:
    """The upgrade with its budget: its weight of the penalty is the teacher's, or holds the teacher's l0.

    `soft` is dense in training, so that there is no l0 to hold: under a penalty that the teacher was not trained with
    it needs a weight of its own.
    """
    own, penalty = teacher.trained, rsae.SoftRational.penalties[0]
    told = own is not None and own.penalty == penalty and own.sparsity > 0
    if config.variant == "soft" and teacher.penalties[0] is not None and not told and not tune.l0:
        tune = replace(tune, sparsity=soft_sparsity)
    return replace(config, tune=tune)


def load_address(address: str) -> SAE:
    """An SAE from a path, or OWNER/NAME:SUBFOLDER on the hub."""
    if Path(address).exists():
        return rsae.load(address)
    place, _, subfolder = address.partition(":")
    return rsae.load(place, subfolder=subfolder or None)


def load_sae(run: str | os.PathLike, result: Result) -> SAE:
    """A cell's SAE.

    Args:
        run: The run's directory.
        result: The cell.

    Returns:
        The SAE, which takes activations as the host gives them.

    Raises:
        InputError: where it is not there any more, or not as the run made it.
    """
    if result.level.kind == "source" and result.sae == result.level.value:
        sae = load_address(result.sae)
    elif (path := Path(run) / result.sae).is_dir():
        sae = load_sealed(path)
    else:
        raise InputError(
            f"{path}: the SAE of {result.cell} is missing; run the same command as for the run again"
        )
    made = wrap(result.name, sae, result.seed) if result.name else None
    return made or sae


def open_store(run: str | os.PathLike, result: Result) -> rsae.Store:
    """The activations of a cell's site.

    Args:
        run: The run's directory.
        result: The cell.

    Returns:
        The store.

    Raises:
        InputError: where it is missing or corrupt.
    """
    sites, site = Path(run) / "sites", result.site
    own = sites / site.name / "untrained" if result.name == "untrained" else sites / site.place
    return rsae.Store.open(own / "activations")


@lru_cache(maxsize=1)
def _host(name: str, device: str, dtype: str) -> rsae.Host:
    """A host is kept for the next site in it."""
    return rsae.load_host(name, device, dtype)


def fingerprint(sae: SAE) -> list[Any]:
    """Tells one SAE from another: all that its code depends on, the weights to the bit.

    Whatever made an SAE of a run, it is measured as it was saved, so that last bits do not differ from part to part.
    """
    kinds = [
        [one.family, one.settings(), one.input_norm and one.input_norm.kind]
        for one in sae.modules()  # what is wrapped has settings of its own
        if isinstance(one, SAE)
    ]
    known = sae.provenance
    targets = [known.target, known.target_norm_limit]
    return [kinds, targets, {name: bytes_of([value]) for name, value in sae.state_dict().items()}]


def machine(device: str = "cpu") -> str:
    """The processor and what of it is used.

    Args:
        device: Where the SAEs are; a GPU is named.
    """
    gpu = f"{torch.cuda.get_device_name(device)}, " if torch.device(device).type == "cuda" else ""
    return f"{gpu}{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}"


def gate_curve(sae: SAE) -> Curve | None:
    """The rational function r(t) = phi(C_in t) / C_out of a rational SAE whose latents share its coefficients.

    Args:
        sae: The SAE.

    Returns:
        For `soft` r over t in [-1.2, 1.2]; for `gated` where its gate can be open, t >= 0; None for coefficients of
        each latent.
    """
    if not isinstance(sae, rsae.RationalSAE) or any(p.shape[0] > 1 for p in sae.activation.form.parameters()):
        return None
    start = -1.2 if isinstance(sae, rsae.SoftRational) else 0.0
    t_1N = torch.linspace(start, 1.2, 481, device=sae.W_enc.device)[None]
    with torch.no_grad():
        r_N = sae.activation.form.evaluate(t_1N)[0]
        if sae.signed:  # the odd part
            r_N = (r_N - sae.activation.form.evaluate(-t_1N)[0]) / 2
    return Curve(tuple(t_1N[0].tolist()), tuple(r_N.tolist()))
