"""All firings of an SAE in the form of delphi's cache of latents, so that its explainers and scorers run on them.

    OUT/MODULE/START_END.safetensors   locations [N, 3] (sequence, position, latent - START), activations [N], tokens
    OUT/MODULE/config.json             what the cache was made of

As `LatentCache.save_splits` writes it (EleutherAI/delphi, delphi/latents/cache.py, commit 3c2e139). Sequences are
padded to one length with token 0; where the store left a token out, position 0 above all, token 0 stands, and nothing
fires. Shapes: N firings, Q sequences, P positions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from evals.firings import Texts, entries
from rsae import SAE, Activations, InputError, Store
from rsae.support.files import write_json, writing

#: Files of a cache
_SPLITS = 5


def write_cache(
    sae: SAE,
    activations: Activations,
    out: str | os.PathLike,
    latents: Sequence[int] = (),
    split: str = "heldout",
) -> list[Path]:
    """Write delphi's cache of an SAE's latents.

    Args:
        sae: The SAE.
        activations: A store of its hook point.
        out: Directory.
        latents: Which latents; all by default.
        split: `heldout` or `train`.

    Returns:
        The files.

    Raises:
        InputError: where the activations are no store with tokens, or name no host.
    """
    if not isinstance(activations, Store):
        raise InputError("delphi's cache holds tokens: give a store (rsae harvest)")
    known = activations.provenance.filled(sae.provenance)
    model, hook = known.known("model", "delphi's cache"), known.known("hook", "delphi's cache")
    texts = Texts(activations, split)
    tokens_QP = np.zeros((texts.sequence_N.max() + 1, texts.position_N.max() + 1), dtype=np.int64)
    tokens_QP[texts.sequence_N, texts.position_N] = texts.token_N
    parts = list(entries(sae, activations, split, list(latents) or None, "all firings"))
    row_N, latent_N, value_N = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("row_N", "latent_N", "value_N")
    )
    if len(latents):
        latent_N = np.asarray(latents)[latent_N]
    place_N3 = np.stack([texts.sequence_N[row_N], texts.position_N[row_N].astype(np.int64), latent_N], axis=1)
    edges = np.linspace(0, sae.d_sae, min(_SPLITS, sae.d_sae) + 1).astype(int)
    directory, files = Path(out) / hook, []
    for start, end in zip(edges, edges[1:] - 1, strict=False):
        inside = (latent_N >= start) & (latent_N <= end)
        locations = place_N3[inside] - [0, 0, start]
        small = not len(locations) or locations[:, [0, 2]].max() < 2**16
        file = directory / f"{start}_{end}.safetensors"
        tensors = {
            "locations": locations.astype(np.uint16 if small else np.uint32),
            "activations": value_N[inside].astype(np.float16),
            "tokens": tokens_QP,
        }
        with writing(file) as temporary:
            save_file(tensors, temporary)
        files.append(file)
    write_json(
        directory / "config.json",
        {
            "dataset_repo": known.text or "",
            "dataset_split": split,
            "dataset_name": "",
            "dataset_column": "text",
            "batch_size": 32,
            "cache_ctx_len": int(tokens_QP.shape[1]),
            "n_tokens": int(tokens_QP.size),
            "n_splits": len(files),
            "model_name": model,
        },
    )
    return [*files, directory / "config.json"]
