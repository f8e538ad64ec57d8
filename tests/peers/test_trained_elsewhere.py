"""SAEs that the peers trained: we read them, fine-tuning starts at their function, the control improves on it."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import rsae
from rsae import TrainConfig, UpgradeConfig
from tests.peers import cases
from tests.peers.test_transformer_lens import hooked
from tests.rsae.helpers import random_sae
from tests.rsae.test_hooks import CONFIGS, random_host

D, F, K = 24, 96, 4
#: Architecture and its settings in SAELens's training
TRAININGS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 2.0},
    "gated": {"l1_coefficient": 2.0},
    "jumprelu": {"l0_coefficient": 1.0, "jumprelu_init_threshold": 0.05},
    "topk": {"k": K},
    "batchtopk": {"k": K},
}

#: Trainers of dictionary_learning and their settings
TRAINERS: dict[str, dict[str, Any]] = {
    "StandardTrainer": {"lr": 3e-3, "l1_penalty": 0.05, "sparsity_warmup_steps": 10},
    "GatedSAETrainer": {"lr": 3e-3, "l1_penalty": 0.05, "sparsity_warmup_steps": 10},
    "JumpReluTrainer": {"lr": 3e-3, "target_l0": 8.0, "sparsity_warmup_steps": 10, "bandwidth": 0.1},
    "TopKTrainer": {"k": K, "lr": 3e-3, "threshold_start_step": 50},
    "BatchTopKTrainer": {"k": K, "lr": 3e-3, "threshold_start_step": 50, "threshold_beta": 0.9},
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


def trained_by_dictionary_learning(name: str, path) -> Any:
    """A few hundred steps of dictionary_learning's own trainer; saved as its training loop saves."""
    cases.dictionary_classes()  # it is imported without what it needs for language models
    from dictionary_learning import trainers

    cls = getattr(trainers, name)
    shared: dict[str, Any] = {
        "activation_dim": D,
        "dict_size": F,
        "layer": 0,
        "lm_name": "none",
        "device": "cpu",
    }
    trainer = cls(steps=300, warmup_steps=10, seed=0, **shared, **TRAINERS[name])
    x = sparse_rows(8000, 0)
    for step in range(300):
        trainer.update(step, x[torch.randint(len(x), (256,), generator=torch.Generator().manual_seed(step))])
    path.mkdir(parents=True)
    torch.save(trainer.ae.state_dict(), path / "ae.pt")
    (path / "config.json").write_text(json.dumps({"trainer": trainer.config}))
    return trainer.ae


@pytest.mark.parametrize("name", sorted(TRAINERS))
def test_a_teacher_of_dictionary_learning_is_upgraded(name, store, tmp_path):
    theirs = trained_by_dictionary_learning(name, tmp_path / "teacher")
    assert_upgraded(rsae.load(tmp_path / "teacher"), theirs, store)


@pytest.mark.parametrize("architecture", sorted(TRAININGS))
def test_a_teacher_of_saelens_is_upgraded(architecture, store, tmp_path):
    import sae_lens

    trained_by_saelens(architecture, tmp_path / "teacher")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "teacher")
    control = assert_upgraded(rsae.load(tmp_path / "teacher"), theirs, store)
    rsae.save(control, tmp_path / "control")
    x = torch.cat(list(store.blocks("heldout")))
    with torch.no_grad():
        again = sae_lens.SAE.load_from_disk(tmp_path / "control")
        torch.testing.assert_close(again(x), control(x), rtol=1e-3, atol=1e-3)


def assert_upgraded(teacher: rsae.SAE, theirs: Any, store: Any) -> rsae.SAE:
    """It computes what the peer does, fine-tuning starts there, and the control, given back, improves on it."""
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
    return new.control


@pytest.mark.parametrize(
    "name", ["top_k", "batch_top_k", "rational_top_k", "pursuit_top_k", "sign_aware_gated"]
)
def test_what_we_save_runs_in_saelens_loop_over_activations(name, tmp_path):
    """SAELens's ActivationsStore is made from our SAE's own metadata and feeds it."""
    import sae_lens
    from datasets import Dataset
    from sae_lens.training.activations_store import ActivationsStore

    import rsae.formats.saelens

    host = random_host("gpt2", CONFIGS["gpt2"])
    sae = random_sae(name.removeprefix("pursuit_"), d_in=32)
    sae = rsae.pursuit(sae, candidates=20) if name.startswith("pursuit_") else sae
    sae.provenance = rsae.Provenance(model="gpt2", hook="blocks.1.hook_resid_pre", context=16, bos=False)
    rsae.save(sae.eval(), tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    rows = torch.randint(97, (64, 16), generator=torch.Generator().manual_seed(0)).tolist()
    activations = ActivationsStore.from_sae(
        hooked(host),
        theirs,
        Dataset.from_dict({"tokens": rows}),
        streaming=False,
        store_batch_size_prompts=4,
        n_batches_in_buffer=4,
        train_batch_size_tokens=64,
        total_tokens=512,
    )
    for _ in range(3):
        x = activations.next_batch().reshape(-1, 32)
        with torch.no_grad():
            torch.testing.assert_close(theirs(x), sae(x), rtol=1e-4, atol=1e-4)
