"""A new family is one file: this one defines a gate, a penalty and a rational form, and nothing else knows of them."""

from __future__ import annotations

import pytest
import torch

import approx
import evals
import rsae
from evals.cli import main
from rsae import RationalSAE, TrainConfig, UpgradeConfig
from rsae.sae import FAMILIES, RATIONAL_FORMS, register
from rsae.sae.base import SAE
from rsae.sae.sparse import Pattern
from tests.command import run_command


@pytest.fixture(scope="module")
def shifted():
    """A gate that opens at 0.2 and lets h - 0.2 through, with a penalty on squares; gone again afterwards."""

    @register
    class Shifted(SAE):
        family = "shifted"
        penalties = ("squares", "l1")

        def __init__(self, d_in: int, d_sae: int, shift: float = 0.2, subtract_b_dec: bool = True):
            super().__init__(d_in, d_sae, subtract_b_dec)
            self.shift = shift

        def support(self, h_BF: torch.Tensor) -> Pattern:
            return Pattern.of(h_BF > self.shift)

        def values(self, h_N: torch.Tensor, latent_N: torch.Tensor | None) -> torch.Tensor:
            return torch.where(h_N > self.shift, self.magnitude(h_N, latent_N), 0.0)

        def sparsity_penalty(self, penalty, h_N, z_N, pattern):
            if penalty == "squares":
                return z_N.square().sum() / pattern.shape[0]
            return super().sparsity_penalty(penalty, h_N, z_N, pattern)

        @property
        def homogeneous(self) -> bool:
            return False

        def scale_latents_(self, factor_F: torch.Tensor) -> None:
            super().scale_latents_(factor_F)
            self.shift *= factor_F[0].item()

        def _rescale_(self, factor: float) -> None:
            super()._rescale_(factor)
            self.shift *= factor

        @classmethod
        def gate_target(cls) -> approx.Target | None:
            return approx.relu()

        def settings(self):
            return super().settings() | {"shift": self.shift}

    @register
    class RationalShifted(RationalSAE, Shifted):
        family = "rational_shifted"

    yield Shifted
    for cls in (Shifted, RationalShifted):
        FAMILIES.pop(cls.family)
        RATIONAL_FORMS.pop(cls, None)


@pytest.mark.parametrize("variant", ["gated", "soft", "pursuit"])
def test_trains_upgrades_saves_loads_and_is_pursued(shifted, store, variant, tmp_path):
    teacher = rsae.new("shifted", store, d_sae=40)
    history = rsae.train(teacher, store, TrainConfig(steps=80, batch=64, lr=3e-3, sparsity=0.01))
    assert history[-1]["sse"] < history[0]["sse"]
    assert teacher.trained == rsae.sae.Trained("squares", 0.01)
    rsae.save(teacher, tmp_path / "teacher")
    loaded = rsae.load(tmp_path / "teacher")
    x = store.sample(300)
    assert type(loaded) is shifted
    assert torch.equal(loaded(x), teacher(x))
    tune = TrainConfig(steps=20, batch=64, sparsity=0.01)
    config = UpgradeConfig(variant=variant, type=(3, 2), tune=tune, calibration_tokens=512)
    new = rsae.upgrade(loaded, store, config=config, out=tmp_path / "new")
    names = {"gated": "rational_shifted", "soft": "soft_rational", "pursuit": "pursuit_shifted"}
    assert new.tuned.family == names[variant]
    assert new.control is not None
    assert new.control.family == "shifted"
    assert torch.equal(rsae.load(tmp_path / "new" / "tuned")(x), new.tuned(x))
    if variant == "gated":
        torch.testing.assert_close(new.initial(x), teacher(x), rtol=1e-4, atol=1e-4)


def test_is_evaluated_compared_and_reported_by_a_suite(shifted, suite_file, tmp_path):
    """A grid of the family, its upgrades by three variants, their controls, and the page."""
    text = suite_file.read_text()
    text = text.replace(
        'families = ["jump_relu", "top_k"]', 'families = ["shifted"]\nsparsity.shifted = [0.01]'
    )
    text = text.replace("l0 = [4, 8]\n", "").replace("seeds = [0, 1]", "seeds = [0]")
    text = text.replace("[tune]", '[upgrades.pursuit]\nvariant = "pursuit"\n[tune]')
    (tmp_path / "mine.toml").write_text(text)
    run = tmp_path / "run"
    done = run_command(main, "run", tmp_path / "mine.toml", "--out", run)
    assert done.returncode == 0, done.stderr
    results = evals.read_results(run)
    assert {r.family for r in results} == {"shifted"}
    assert {(r.role.value, r.upgrade) for r in results} >= {
        ("tuned", "gated"),
        ("tuned", "pursuit"),
        ("control", None),
    }
    assert all(r.metrics.reconstruction.fvu > 0 for r in results)
    assert "shifted" in run_command(main, "compare", run).stdout
    done = run_command(main, "report", run)
    assert done.returncode == 0, done.stderr
    assert "shifted" in (run / "report.html").read_text()
