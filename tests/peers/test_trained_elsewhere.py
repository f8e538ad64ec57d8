"""SAEs that SAELens trained itself: we read them, fine-tuning starts at their function, the control improves on it."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import pytest
import torch

import rsae
from rsae import TrainConfig, UpgradeConfig

D, F, K = 24, 96, 4
#: Architecture and its settings in SAELens's training
TRAININGS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 2.0},
    "gated": {"l1_coefficient": 2.0},
    "jumprelu": {"l0_coefficient": 1.0, "jumprelu_init_threshold": 0.05},
    "topk": {"k": K},
    "batchtopk": {"k": K},
}


def sparse_rows(rows: int, seed: int) -> torch.Tensor:
    """Sparse combinations of hidden directions, of the scale of a host's activations."""
    generator = torch.Generator().manual_seed(7)
    W_GD = torch.nn.functional.normalize(torch.randn(64, D, generator=generator), dim=1)
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(rows, 64, generator=generator) < K / 64
    return 3 * (on * (0.5 + torch.rand(rows, 64, generator=generator))) @ W_GD


@pytest.fixture(scope="module")
def store():
    return rsae.Store.of(torch.cat([sparse_rows(8000, 0), sparse_rows(1000, 1)]), heldout=1000)


def trained_by_saelens(architecture: str, path) -> Any:
    """A few hundred steps of SAELens's own training class and loss; its inference SAE is saved by itself."""
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import TrainStepInput

    cls, cfg_cls = get_sae_training_class(architecture)
    sae = cls(cfg_cls(d_in=D, d_sae=F, **TRAININGS[architecture]))
    optimiser = torch.optim.Adam(sae.parameters(), lr=3e-3)
    x = sparse_rows(8000, 0)
    coefficients = {name: c.value if hasattr(c, "value") else c for name, c in sae.get_coefficients().items()}
    for step in range(300):
        batch = x[torch.randint(len(x), (256,), generator=torch.Generator().manual_seed(step))]
        given = TrainStepInput(
            sae_in=batch,
            coefficients=coefficients,
            dead_neuron_mask=None,
            n_training_steps=step,
            is_logging_step=False,
        )
        out = sae.training_forward_pass(given)
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
    sae.save_inference_model(path)
    return sae


def fvu(sae: rsae.SAE, x: torch.Tensor) -> float:
    with torch.no_grad():
        return ((sae(x) - x).square().sum() / (x - x.mean(0)).square().sum()).item()


@pytest.mark.parametrize("architecture", sorted(TRAININGS))
def test_a_teacher_of_saelens_is_upgraded(architecture, store, tmp_path):
    import sae_lens

    trained_by_saelens(architecture, tmp_path / "teacher")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "teacher")
    teacher = rsae.load(tmp_path / "teacher")
    x = torch.cat(list(store.blocks("heldout")))
    with torch.no_grad():
        torch.testing.assert_close(teacher(x), theirs(x), rtol=1e-4, atol=1e-4)
    norms = teacher.W_dec.norm(dim=1)
    one = UpgradeConfig(type=(3, 2), tune=TrainConfig(steps=1, batch=256, lr=1e-6, sparsity=1e-3))
    start = rsae.upgrade(teacher, store, config=one)
    assert start.control is not None
    for sae in (start.initial, start.tuned, start.control):
        assert fvu(sae, x) == pytest.approx(fvu(teacher, x), rel=0.01), norms
    tune = TrainConfig(steps=200, batch=256, lr=1e-3)
    new = rsae.upgrade(teacher, store, config=UpgradeConfig(type=(3, 2), tune=tune))
    assert new.control is not None
    assert fvu(new.control, x) < fvu(teacher, x)
    assert fvu(rsae.pursuit(teacher), x) < fvu(teacher, x)
    rsae.save(new.control, tmp_path / "control")
    with torch.no_grad():
        again = sae_lens.SAE.load_from_disk(tmp_path / "control")
        torch.testing.assert_close(again(x), new.control(x), rtol=1e-3, atol=1e-3)
    for name in ("context_size", "prepend_bos"):  # SAELens's ActivationsStore asks for both
        assert name in again.cfg.metadata.to_dict()
