"""Sparse probing: how well k latents tell a concept (SAEBench's protocol, without its choice on the test set).

Shapes: B batch, P position, N tokens, D dimensions, T texts, F latents.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evals.labelled import Labelled
from evals.metrics.codes import host_code, place_of, readings, row_norms, sharing_products
from evals.results import Accuracy, Baseline, Probing
from evals.tasks import Task
from rsae import SAE, Host
from rsae.activations.hooks import HookPoint, activations_at, batches, pad
from rsae.activations.text import Document
from rsae.support.files import read_tensors, write_tensors
from rsae.support.progress import progress


@dataclass(frozen=True)
class ProbeData:
    """A task's activations."""

    x_ND: torch.Tensor
    """Activations of all tokens."""
    text_N: torch.Tensor
    """Number of the text that a token is of."""
    label_T: np.ndarray
    """0 or 1; of texts with several labels a column each, [T, C]."""
    is_train_T: np.ndarray
    """True for a training text."""

    def blocks(self, rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All tokens in a random order: x_BD, and the text that each is of.

        Texts stand in the order of their labels. A code that moves values among the tokens of a block (`shuffled`)
        would tell the label of texts that were encoded together.

        Args:
            rows: Tokens at a time.
        """
        order_N = torch.randperm(len(self.x_ND), generator=torch.Generator().manual_seed(7_000_003))
        for some_B in order_N.split(rows):
            yield self.x_ND[some_B.to(self.x_ND.device)], self.text_N[some_B].long()

    def save(self, path: str | os.PathLike) -> None:
        """Write one safetensors file."""
        write_tensors(
            path,
            {
                "x_ND": self.x_ND,
                "text_N": self.text_N,
                "label_T": torch.tensor(self.label_T),
                "is_train_T": torch.tensor(self.is_train_T),
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> ProbeData:
        """Read what `save` wrote."""
        t = read_tensors(Path(path))
        return cls(t["x_ND"], t["text_N"], t["label_T"].numpy(), t["is_train_T"].numpy())


def probe_data(
    host: Host,
    hook: str,
    task: Task,
    context: int = 128,
    norm_limit: float = float("inf"),
    exclude_tokens: Sequence[int] = (),
) -> ProbeData:
    """Run the host over a task's texts.

    Args:
        host: The model.
        hook: Hook point.
        task: The labelled texts.
        context: Tokens a text, truncated on the right.
        norm_limit: Tokens whose activation has a larger norm are left out, as in SAE training.
        exclude_tokens: Ids of tokens that are left out.

    Returns:
        The activations, without position 0, padding and what is left out; a text without any is left out whole.
    """
    texts = task.train[0] + task.test[0]
    left_out = (norm_limit, exclude_tokens)
    x_ND, text_N, kept = text_activations(host, hook, texts, context, *left_out, task.name)
    labels = np.concatenate([task.train[1], task.test[1]])
    is_train = np.arange(len(texts)) < len(task.train[0])
    return ProbeData(x_ND, text_N, labels[kept], is_train[kept])


def labelled_data(
    host: Host,
    hook: str,
    texts: Labelled,
    context: int = 128,
    norm_limit: float = float("inf"),
    exclude_tokens: Sequence[int] = (),
) -> ProbeData:
    """Run the host over texts with several labels.

    Args:
        host: The model.
        hook: Hook point.
        texts: The texts.
        context: Tokens a text, truncated on the right.
        norm_limit: Tokens whose activation has a larger norm are left out.
        exclude_tokens: Ids of tokens that are left out.

    Returns:
        The activations, as those of `probe_data`.
    """
    left_out = (norm_limit, exclude_tokens)
    x_ND, text_N, kept = text_activations(host, hook, texts.texts, context, *left_out, texts.name)
    return ProbeData(x_ND, text_N, texts.label_TC[kept], texts.is_train_T[kept])


def text_activations(
    host: Host,
    hook: str,
    texts: Sequence[str],
    context: int,
    norm_limit: float,
    exclude_tokens: Sequence[int],
    what: str,
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Run the host over texts.

    Args:
        host: The model.
        hook: Hook point.
        texts: The texts.
        context: Tokens a text, truncated on the right.
        norm_limit: Tokens whose activation has a larger norm are left out.
        exclude_tokens: Ids of tokens that are left out.
        what: Says in the progress bar whose texts they are.

    Returns:
        x_ND without position 0, padding and what is left out; the number of each row's text among those that have a
        row; and which texts these are.
    """
    point = HookPoint.parse(hook, host)
    excluded = torch.tensor(exclude_tokens, dtype=torch.long)
    ids = [host.sequences([Document("", t)], context, shortest=2)[:1] for t in texts]
    kept = [i for i, s in enumerate(ids) if s]
    x: dict[int, torch.Tensor] = {}
    with progress(len(kept), f"probe texts {what}", "text") as bar:
        for numbers in batches([ids[i][0] for i in kept], host.device):
            chosen = [kept[number] for number in numbers]
            tokens_BP, mask_BP = pad([ids[i][0] for i in chosen], host.device)
            x_BPD = activations_at(host, point, tokens_BP, mask_BP).cpu()
            for row, i in enumerate(chosen):
                x_PD = x_BPD[row, 1 : len(ids[i][0])]
                kept_P = ~torch.isin(tokens_BP[row, 1 : len(ids[i][0])].cpu(), excluded)
                x[i] = x_PD[kept_P & (x_PD.norm(dim=1) <= norm_limit)]
            bar.update(len(chosen))
    kept = [i for i in kept if len(x[i])]
    numbers = [torch.full((len(x[i]),), n, dtype=torch.int32) for n, i in enumerate(kept)]
    return torch.cat([x[i] for i in kept]), torch.cat(numbers), kept


def pooled(
    encode: Callable[[torch.Tensor], torch.Tensor] | None, data: ProbeData, rows: int = 1024
) -> np.ndarray:
    """The mean code of each text.

    Args:
        encode: Activations x_BD to codes z_BF; None for the activation itself.
        data: A task's activations.
        rows: Tokens at a time.

    Returns:
        Means over each text's tokens, float64 [T, F].
    """
    return pooled_all([encode], data, rows)[0]


@torch.no_grad()
def pooled_all(
    encodes: Sequence[Callable[[torch.Tensor], torch.Tensor] | None], data: ProbeData, rows: int = 1024
) -> list[np.ndarray]:
    """The mean codes of each text, of several codes that see a block of tokens one after the other.

    Args:
        encodes: As for `pooled`.
        data: A task's activations.
        rows: Tokens at a time.
    """
    totals: list[torch.Tensor | None] = [None] * len(encodes)
    for x_BD, text_B in data.blocks(rows):
        sorted_B, order_B = text_B.sort(stable=True)
        chosen_T, length_T = sorted_B.unique_consecutive(return_counts=True)
        start_T = length_T.cumsum(0) - length_T
        for number, encode in enumerate(encodes):
            z_BF = x_BD if encode is None else encode(x_BD)
            z_BF = z_BF.to(torch.promote_types(z_BF.dtype, torch.float32))
            total_TF = totals[number]
            if total_TF is None:
                total_TF = totals[number] = torch.zeros(len(data.label_T), z_BF.shape[1], dtype=torch.float64)
            # a text's tokens of the block in float32: a third of the time of adding each in float64
            given = (order_B.to(z_BF.device), z_BF, start_T.to(z_BF.device))
            part_TF = torch.nn.functional.embedding_bag(*given, mode="sum")
            total_TF.index_add_(0, chosen_T, part_TF.double().cpu())
    count_T = torch.bincount(data.text_N.long(), minlength=len(data.label_T))
    return [(total_TF / count_T[:, None]).numpy() for total_TF in totals if total_TF is not None]


def probe(sae: SAE, data: ProbeData, k: Sequence[int] = (1, 2, 5, 20)) -> Probing:
    """Test accuracy of an L2 logistic regression (C = 1) on the k best latents.

    The best are those with the largest |mean over positives - mean over negatives| on the training texts. Codes are
    taken in units of unit decoder rows, so that the scale of a latent does not matter.

    Args:
        sae: The SAE.
        data: A task's activations.
        k: Numbers of latents.

    Returns:
        Accuracies by k.
    """
    return probe_all({"": sae}, data, k)[""]


def probe_all(group: Mapping[str, SAE], data: ProbeData, k: Sequence[int]) -> dict[str, Probing]:
    """`probe` of SAEs with the same encoder, which meets a token once.

    Args:
        group: The SAEs by name (`evals.metrics.codes.by_encoder`).
        data: A task's activations.
        k: Numbers of latents.

    Returns:
        Accuracies by k, of each.
    """
    device = next(iter(group.values())).W_enc.device
    wanted = [(name, *found) for name, sae in group.items() for found in readings(sae).items()]
    here = data if device.type == "cpu" else replace(data, x_ND=data.x_ND.to(device))
    with sharing_products(group.values()):
        codes = pooled_all(
            [partial(host_code, group[name], encode=encode) for name, _, encode in wanted], here
        )
    found: dict[str, dict[str, dict[int, Accuracy]]] = {name: {} for name in group}
    for (name, reading, _), z_TF in zip(wanted, codes, strict=True):
        correct = correct_with_best(z_TF * row_norms(group[name]), data, k)
        found[name][reading] = {n: accuracy(correct_T) for n, correct_T in correct.items()}
    return {name: Probing(by_reading.pop(""), by_reading) for name, by_reading in found.items()}


def correct_with_best(z_TF: np.ndarray, data: ProbeData, k: Sequence[int]) -> dict[int, np.ndarray]:
    """Probes on the best columns.

    Args:
        z_TF: Mean codes of the texts.
        data: The task they are of.
        k: Numbers of columns; those beyond the width are left out.

    Returns:
        By k: for each test text whether the probe is right.
    """
    train, label = data.is_train_T, data.label_T
    gap_F = np.abs(z_TF[train & (label == 1)].mean(0) - z_TF[train & (label == 0)].mean(0))
    best = np.argsort(-gap_F, kind="stable")
    model = LogisticRegression(C=1.0, max_iter=1000)
    return {n: _correct(model, z_TF[:, best[:n]], data) for n in k if n <= len(best)}


def correct_dense(data: ProbeData) -> np.ndarray:
    """For each test text, whether the probe on the whole (standardised) activation is right."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    return _correct(model, pooled(None, data), data)


def _correct(model: Any, z_TF: np.ndarray, data: ProbeData) -> np.ndarray:
    train, test, label = data.is_train_T, ~data.is_train_T, data.label_T
    return model.fit(z_TF[train], label[train]).predict(z_TF[test]) == label[test]


def accuracy(correct_T: np.ndarray) -> Accuracy:
    """A probe's accuracy with Wilson's 95 % interval over test texts; the probe is not trained again.

    Args:
        correct_T: For each test text whether the probe is right.
    """
    found = binomtest(int(correct_T.sum()), len(correct_T)).proportion_ci(0.95, "wilson")
    return Accuracy(float(correct_T.mean()), float(found.low), float(found.high))


def baseline(data: ProbeData) -> Baseline:
    """What a logistic regression on the whole (standardised) activation reaches: what there is to find."""
    correct_T = correct_dense(data)
    return Baseline(accuracy(correct_T), int(data.is_train_T.sum()), len(correct_T))


def sparse_probing(
    sae: SAE,
    host: Host,
    task: Task,
    k: Sequence[int] = (1, 2, 5, 20),
    hook: str | None = None,
    context: int = 128,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
) -> Probing:
    """Run the host over a task's texts and probe an SAE's codes there.

    Args:
        sae: The SAE.
        host: The model.
        task: The labelled texts (`evals.load_task`).
        k: Numbers of latents.
        hook: Hook point; by default the one that the SAE was trained at.
        context: Tokens a text, truncated on the right.
        allow_mismatch: Accept an SAE of another model or hook point.
        exclude_tokens: Tokens, by id or by text, that are left out of a text's mean; by default the SAE's.

    Returns:
        Test accuracies by k, as `probe` gives them.
    """
    point, limit, excluded = place_of(sae, host, hook, None, allow_mismatch, exclude_tokens)
    return probe(sae, probe_data(host, str(point), task, context, limit, excluded), k)
