"""Teacher -> rational start -> fine-tuned, and the control: the teacher fine-tuned by the same budget.

RSAE, section 3.2: fit the gate once, copy the weights, calibrate the scales on the teacher's pre-activations,
fine-tune. The control that the paper lacks runs by default.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import approx
from rsae.activations.host import Host
from rsae.activations.protocol import Activations, check_fits
from rsae.folders import UPGRADE, check_free
from rsae.formats.sealed import load_sealed, save_sealed
from rsae.sae import SAE, JumpReLU, SoftRational
from rsae.sae.fingerprint import weights_of
from rsae.support.cache import Cache
from rsae.support.errors import InputError
from rsae.support.progress import say
from rsae.training import History, train
from rsae.upgrading.config import UpgradeConfig, Upgraded
from rsae.upgrading.decide import Decided, bandwidth, decide, fit_of
from rsae.upgrading.start import control_start, match_l0, start

#: A fine-tuned SAE is told to be worse than its start above this FVU, in its units, and not below this share of its l0
_WORSE, _SPARSER = 1.05, 0.9


def upgrade(
    teacher: SAE,
    activations: Activations,
    type: tuple[int, int] | None = None,
    config: UpgradeConfig | None = None,
    fit: approx.Fit | approx.Rational | None = None,
    control: SAE | bool = True,
    out: str | os.PathLike | None = None,
    allow_mismatch: bool = False,
    host: Host | None = None,
    force: bool = False,
) -> Upgraded:
    """Upgrade a trained SAE to a rational one, and fine-tune the control under the same budget.

    Args:
        teacher: The trained SAE, of any origin; it is left as it is.
        activations: What it was trained on, or the like: a store, a stream, or `Store.of` one's own.
        type: Type (m, n) of the rational function, instead of the config's.
        config: How to upgrade; the defaults suit minutes on a CPU.
        fit: A fit of the teacher's gate, where it is there already.
        control: A control that was trained with the same budget and loss before; or False for none (no comparison
            without one is worth much).
        out: A directory. The SAEs are saved there as `initial`, `control` and `tuned`, and a killed call continues
            where it stopped.
        allow_mismatch: Accept a teacher that says that it belongs to another host or hook point.
        host: For an objective with KL: the host, where it is loaded already.
        force: Lose another upgrade that `out` holds, of another teacher or by other settings.

    Returns:
        The three SAEs, the budget and the histories.

    Raises:
        InputError: The teacher does not fit the activations, or has no rational form in this variant; `out` holds
            another upgrade.
    """
    check_fits(teacher, activations, allow_mismatch)
    config = config or UpgradeConfig()
    if type is not None:
        config = replace(config, type=type)
    teacher = copy.deepcopy(teacher).float()  # whatever precision it is held in
    if isinstance(teacher, JumpReLU) and teacher.trained is None:
        # trained elsewhere: files do not say the bandwidth, and it has the activations' unit
        teacher.bandwidth = bandwidth(teacher, activations)
    decided = decide(teacher, activations, config)
    gate = fit.rational if isinstance(fit, approx.Fit) else fit
    given = [gate and gate.to_json(), weights_of(control) if isinstance(control, SAE) else control]
    steps = _Kept(teacher, activations, replace(config, tune=decided.tune), given, out)
    steps.make_room(force)

    def begin() -> tuple[SAE, History]:
        sae = start(teacher, activations, config, fit)
        tokens = config.calibration_tokens
        there, here = fit_of(teacher, activations, tokens), fit_of(sae, activations, tokens)
        return sae, [here | {f"teacher_{name}": value for name, value in there.items()}]

    def tune(sae: SAE, name: str) -> tuple[SAE, History]:
        what = f"fine-tune {teacher.family} {name}"
        return _tuned(_frozen_as(teacher, sae), activations, decided, steps.checkpoint(name), what, host)

    def fine_tune() -> tuple[SAE, History]:
        sae, history = tune(initial, config.variant)
        if isinstance(sae, SoftRational):
            match_l0(sae, controlled or teacher, activations, config.calibration_tokens)
        now, before = fit_of(sae, activations, config.calibration_tokens), steps.history["initial"][0]
        sparser = now["l0"] < _SPARSER * before["l0"]
        if decided.tune.objective == "mse" and now["fvu"] > _WORSE * before["fvu"] and not sparser:
            say(
                f"warning: {sae.family}: fine-tuning made it worse: FVU {now['fvu']:.3g} at l0 {now['l0']:.1f}, at its "
                f"start {before['fvu']:.3g} at {before['l0']:.1f} (a sample of the training tokens); take `initial`, "
                "or fine-tune for fewer steps, at a lower lr or with less sparsity"
            )
        return sae, history

    initial = steps.sae("initial", begin)
    if not config.fine_tune:
        return Upgraded(
            initial, initial, None, decided.tune, decided.control_name, steps.history, steps.cache.seconds
        )
    controlled = control if isinstance(control, SAE) else None
    if control is True:
        controlled = steps.sae(
            "control", lambda: tune(control_start(teacher, activations, config), "control")
        )
    tuned = steps.sae("tuned", fine_tune)
    return Upgraded(
        initial, tuned, controlled, decided.tune, decided.control_name, steps.history, steps.cache.seconds
    )


def _tuned(
    sae: SAE,
    activations: Activations,
    decided: Decided,
    checkpoint: Path | None,
    description: str,
    host: Host | None,
) -> tuple[SAE, History]:
    """`sae`, fine-tuned by the budget and loss: one function for the rational SAE and the control."""
    return sae, train(sae, activations, decided.tune, checkpoint, description, True, host)


def _frozen_as(teacher: SAE, sae: SAE) -> SAE:
    """A copy whose parameters are frozen where a teacher's are beside others that are not, on both sides alike."""
    sae = copy.deepcopy(sae)
    held = {name for name, p in teacher.named_parameters() if not p.requires_grad}
    for name, p in sae.named_parameters() if len(held) < len(list(teacher.parameters())) else ():
        p.requires_grad_(name not in held)
    return sae


class _Kept:
    """The steps of one upgrade: each makes an SAE, which a later call with the same settings reads back."""

    def __init__(
        self,
        teacher: SAE,
        activations: Activations,
        config: UpgradeConfig,
        given: list[Any],
        out: str | os.PathLike | None,
    ):
        self.device = teacher.W_enc.device
        self.directory = Path(out) if out is not None else None
        self.cache = Cache(self.directory)
        self.settings = [asdict(config), weights_of(teacher), activations.identity, *given]
        self.history: dict[str, History] = {}

    def make_room(self, force: bool) -> None:
        """Refuse to lose another upgrade; where that is wanted, lose all of it, so that no two are ever mixed."""
        if self.directory is not None:
            check_free(self.directory, UPGRADE)
        others = self.cache.others(dict.fromkeys(("initial", "control", "tuned"), self.settings))
        if others and not force:
            raise InputError(
                f"{self.directory} holds another upgrade ({', '.join(others)}), of another teacher or by other "
                "settings; choose another directory, or give force=True (--force)"
            )
        for name in others:
            self.cache.forget(name)
            assert self.directory is not None
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def checkpoint(self, name: str) -> Path | None:
        return self.directory / f"{name}.checkpoint.safetensors" if self.directory else None

    def sae(self, name: str, make: Callable[[], tuple[SAE, History]]) -> SAE:
        made: list[SAE] = []

        def run() -> History:
            sae, history = make()
            made.append(sae)
            if self.directory is not None:
                save_sealed(sae, self.directory / name)
            return history

        self.history[name] = self.cache.run(
            name, self.settings, run, None if self.directory is None else self.directory / name
        )
        if made:
            return made[0]
        assert self.directory is not None
        return load_sealed(self.directory / name).to(self.device)
