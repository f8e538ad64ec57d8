"""Our trainer beside SAELens's and dictionary_learning's: FVU at the same l0, from the same tokens in the same order.

    .venv-peers/bin/python -m tests.benchmarks.trainers STORE OUT           # about an hour
    .venv-peers/bin/python -m tests.benchmarks.trainers STORE OUT topk      # the peers' trainers of that name alone

Ours trains with the defaults of each family. The peers train by their own trainers, at the rate that they recommend
and at ten times it, with warm-up and decay in the shares of a long run that they recommend. Where a penalty sets the
sparsity, its weight is searched until the held-out l0 is within 3 % of the goal or four weights were tried; FVU is then
read at the goal, between the two nearest in the logarithms. All SAEs are read by `rsae.load` and measured by
`evals.reconstruction`. Each training's figures are kept in OUT, a JSON file: a stopped run goes on where it was.
"""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import evals
import rsae
from tests.peers import cases

D_SAE, L0, STEPS, BATCH, SEED = 768, 32, 800, 512, 0
RATES = (3e-4, 3e-3)
OURS = ("top_k", "batch_top_k", "jump_relu", "relu", "gated")
#: Architecture; the setting that sets its sparsity and where the search for it starts; what else is set
SAELENS: dict[str, tuple[str, float, dict[str, Any]]] = {
    "topk": ("k", L0, {"use_sparse_activations": False}),  # which fails on this torch
    "batchtopk": ("k", L0, {}),
    "jumprelu": ("l0_coefficient", 3.0, {}),
    "standard": ("l1_coefficient", 3.0, {}),
    "gated": ("l1_coefficient", 3.0, {}),
}
#: Trainer likewise; its activations have mean norm 1
DICTIONARY_LEARNING: dict[str, tuple[str, float, dict[str, Any]]] = {
    "TopKTrainer": ("k", L0, {"threshold_start_step": STEPS // 2}),
    "BatchTopKTrainer": ("k", L0, {"threshold_start_step": STEPS // 2, "threshold_beta": 0.99}),
    "JumpReluTrainer": ("target_l0", L0, {}),
    "StandardTrainer": ("l1_penalty", 0.05, {}),
    "GatedSAETrainer": ("l1_penalty", 0.05, {}),
}
CHOSEN = ("k", "target_l0")


def ours(store: rsae.Store, family: str) -> rsae.SAE:
    """Trained with the family's defaults."""
    of_k = family in ("top_k", "batch_top_k")
    settings: dict[str, Any] = {"k": L0} if of_k else {}
    sae = rsae.new(family, store, seed=SEED, d_sae=D_SAE, **settings)
    config = rsae.TrainConfig(steps=STEPS, batch=BATCH, seed=SEED, l0=None if of_k else L0)
    rsae.train(sae, store, config)
    return sae


def saelens(store: rsae.Store, name: str, lr: float, sparsity: float, out: Path) -> None:
    """Trained by SAELens's trainer and saved by it."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.training.sae_trainer import SAETrainer

    cls, cfg_cls = get_sae_training_class(name)
    key, _, rest = SAELENS[name]
    rest = rest | {key: int(sparsity) if key == "k" else sparsity}
    if key != "k":
        rest[key.replace("coefficient", "warm_up_steps")] = STEPS // 20
    sae = cls(cfg_cls(d_in=store.d_in, d_sae=D_SAE, normalize_activations="expected_average_only_in", **rest))
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=STEPS * BATCH,
            train_batch_size_samples=BATCH,
            lr=lr,
            lr_end=0.0,
            lr_decay_steps=STEPS // 5,
            n_batches_for_norm_estimate=10,
        ),
        sae,
        batches(store),
    )
    trainer.fit().save_inference_model(str(out))


def dictionary_learning(store: rsae.Store, name: str, lr: float, sparsity: float, out: Path) -> None:
    """Trained by dictionary_learning's trainer, saved as its training loop saves."""
    cases.dictionary_classes()  # it is imported without what it needs for language models
    from dictionary_learning import trainers

    key, _, rest = DICTIONARY_LEARNING[name]
    rest = rest | {key: int(sparsity) if key in CHOSEN else sparsity, "lr": lr, "decay_start": STEPS * 4 // 5}
    if "k" not in rest:
        rest["sparsity_warmup_steps"] = STEPS // 20
    shared: dict[str, Any] = {"activation_dim": store.d_in, "dict_size": D_SAE, "layer": 0, "lm_name": "none"}
    trainer = getattr(trainers, name)(
        steps=STEPS, warmup_steps=STEPS // 50, seed=SEED, device="cpu", **shared, **rest
    )
    norm = math.sqrt(store.d_in) / store.scale
    for step, x_BD in zip(range(STEPS), batches(store), strict=False):
        trainer.update(step, x_BD / norm)
    trainer.ae.scale_biases(norm)
    out.mkdir(parents=True)
    torch.save(trainer.ae.state_dict(), out / "ae.pt")
    (out / "config.json").write_text(json.dumps({"trainer": trainer.config}))


def batches(store: rsae.Store) -> Iterator[torch.Tensor]:
    """The batches of our trainer, in its order."""
    step = 0
    while True:
        yield store.batch(step, BATCH, SEED)
        step += 1


class Figures:
    """What was measured, in a file."""

    def __init__(self, path: Path, store: rsae.Store):
        self.path, self.store = path, store
        self.known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, name: str, make: Callable[[Path], rsae.SAE | None]) -> dict[str, float]:
        """Figures of a training, made where they are not known; `make` gives the SAE, or saves it."""
        if name not in self.known:
            folder = Path(tempfile.mkdtemp())
            torch.manual_seed(SEED)
            start = time.perf_counter()
            made = make(folder / "sae")
            seconds = time.perf_counter() - start
            fit = evals.reconstruction(made or rsae.load(folder / "sae"), self.store, allow_mismatch=True)
            shutil.rmtree(folder)
            self.known[name] = {"fvu": fit.fvu, "l0": fit.l0, "alive": fit.alive, "seconds": seconds}
            self.path.write_text(json.dumps(self.known, indent=1))
        return self.known[name]


def at_goal(train: Callable[[float], dict[str, float]], start: float, chosen: bool) -> dict[str, float]:
    """Figures at the goal, or the nearest to it."""
    weight, tried = start, {}
    for _ in range(1 if chosen else 4):
        tried[weight] = train(weight)
        off = {w: math.log(max(found["l0"], 1e-3) / L0) for w, found in tried.items()}
        nearest = sorted(off, key=lambda w: abs(off[w]))
        if abs(off[nearest[0]]) < 0.03:
            break
        # the nearest on either side of the goal; on one side only, the nearest two
        other = [w for w in nearest[1:] if off[w] * off[nearest[0]] < 0] or nearest[1:]
        slope = -1.0
        if other:
            slope = min(-0.3, (off[other[0]] - off[nearest[0]]) / math.log(other[0] / nearest[0]))
        weight = nearest[0] * min(10.0, max(0.1, math.exp(-off[nearest[0]] / slope)))
    found = tried[nearest[0]]
    beyond = [w for w in nearest[1:] if off[w] * off[nearest[0]] < 0]
    if not beyond:
        return found
    share = off[nearest[0]] / (off[nearest[0]] - off[beyond[0]])
    between = math.log(found["fvu"]) * (1 - share) + math.log(tried[beyond[0]]["fvu"]) * share
    return found | {"fvu": math.exp(between), "l0": L0}


def main(activations: str, out: str, only: str = "") -> None:
    store = rsae.Store.open(activations)
    figures = Figures(Path(out), store)
    rows = [(f"ours {family}", figures.of(family, lambda _, f=family: ours(store, f))) for family in OURS]
    peers = (("SAELens", saelens, SAELENS), ("dictionary_learning", dictionary_learning, DICTIONARY_LEARNING))
    for peer, train, table in peers:
        for name, (key, start, _) in table.items():
            for lr in RATES if only.lower() in name.lower() else ():

                def one(weight: float, lr: float = lr, name: str = name, train: Any = train) -> dict:
                    label = f"{train.__name__} {name} {lr:g} {weight:.6g}"
                    return figures.of(label, lambda path: train(store, name, lr, weight, path))

                rows.append((f"{peer} {name} {lr:g}", at_goal(one, start, key in CHOSEN)))
    for label, found in rows:
        print(
            f"| {label} | {found['l0']:.1f} | {found['fvu']:.4f} | {found['alive']:.3f} | {found['seconds']:.0f} |"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
