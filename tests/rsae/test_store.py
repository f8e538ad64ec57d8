import json
import shutil
from dataclasses import replace

import pytest
import torch

from rsae import InputError, Store, harvest
from rsae.activations import harvest as module
from rsae.activations.text import load_documents, split_documents
from rsae.files import read_tensors


def copy(store, tmp_path):
    return shutil.copytree(store.path, tmp_path / "copy")


def test_store_holds_what_the_manifest_says(store, harvest_config):
    manifest = store.manifest
    assert store.tokens("train") >= harvest_config.tokens
    assert store.tokens("heldout") >= harvest_config.heldout_tokens
    assert sum(len(x) for x in store.blocks("train")) == store.tokens("train")
    assert manifest["hook"] == "blocks.1.hook_resid_post"
    x = torch.cat(list(store.blocks("train")))
    assert x.shape[1] == store.d_in == 32
    assert x.double().norm(dim=1).mean().item() * store.scale == pytest.approx(32**0.5, rel=1e-6)


def test_activations_are_the_hosts(store, host):
    shard = read_tensors(store.path / "train-00000.safetensors")
    first = shard["document_N"] == shard["document_N"][0]
    documents = split_documents(load_documents(store.manifest["text"]), store.manifest["seed"])["train"]
    (ids,) = host.sequences(documents[:1], 10_000)
    hidden = host.model(input_ids=torch.tensor([ids[:32]]), output_hidden_states=True).hidden_states[2][0, 1:]
    torch.testing.assert_close(shard["x_ND"][first][: len(hidden)], hidden, rtol=1e-4, atol=1e-5)
    assert shard["token_N"][first][: len(hidden)].tolist() == ids[1:32]
    assert shard["position_N"].min() == 1  # position 0 is left out


def test_train_and_heldout_are_other_articles(harvest_config):
    parts = split_documents(load_documents(harvest_config.text), 0)
    titles = [{d.title for d in part} for part in parts.values()]
    assert sum(map(len, titles)) == 200
    assert not titles[0] & titles[1]
    assert not titles[1] & titles[2]
    assert not titles[0] & titles[2]


def test_batches_are_a_function_of_the_step(store):
    again = Store.open(store.path)
    late = again.batch(70, 64, seed=3)
    assert torch.equal(store.batch(70, 64, seed=3), late)
    assert not torch.equal(store.batch(71, 64, seed=3), late)
    assert not torch.equal(store.batch(70, 64, seed=4), late)


def test_an_epoch_uses_every_token_once(store):
    size = store.tokens() // 4
    rows = torch.cat([store.batch(i, size, seed=0) for i in range(4)])
    everything = torch.cat(list(store.blocks("train")))
    unused = len(everything) - len(rows)
    assert unused < 4
    seen = {tuple(r) for r in rows[:, :4].tolist()}
    assert len({tuple(r) for r in everything[:, :4].tolist()} - seen) <= unused


def test_a_killed_harvest_goes_on(store, harvest_config, host, tmp_path, monkeypatch):
    calls = []
    real = module.activations_at

    def dying(*args):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "activations_at", dying)
    with pytest.raises(KeyboardInterrupt):
        harvest(harvest_config, tmp_path / "s", host)
    with pytest.raises(InputError, match="no finished activation store"):
        Store.open(tmp_path / "s")
    resumed = harvest(harvest_config, tmp_path / "s", host)
    assert resumed.manifest["shards"] == store.manifest["shards"]  # checksums and all
    total = len(calls)
    harvest(harvest_config, tmp_path / "s", host)
    assert len(calls) == total  # nothing ran again


def test_a_corrupt_shard_is_named_and_only_it_is_made_again(
    store, harvest_config, host, tmp_path, monkeypatch
):
    path = copy(store, tmp_path)
    shard = path / "train-00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"train-00000.safetensors: the shard is corrupt.*run the same"):
        Store.open(path)
    calls = []
    real = module.activations_at
    monkeypatch.setattr(module, "activations_at", lambda *a: calls.append(1) or real(*a))
    repaired = harvest(harvest_config, path, host)
    assert repaired.manifest == store.manifest
    assert 0 < len(calls) <= 8  # 128 sequences in batches of 16
    Store.open(path)


def test_a_missing_shard_is_named(store, tmp_path):
    path = copy(store, tmp_path)
    (path / "heldout-00000.safetensors").unlink()
    with pytest.raises(InputError, match=r"heldout-00000.safetensors: the shard is missing"):
        Store.open(path)


def test_a_store_of_other_settings_is_not_overwritten(store, harvest_config, host, tmp_path):
    path = copy(store, tmp_path)
    with pytest.raises(InputError, match="other settings"):
        harvest(replace(harvest_config, tokens=2000), path, host)


def test_norm_limit_leaves_outliers_out(harvest_config, host, tmp_path, monkeypatch):
    """A token a thousand times as long as the median does not reach the store; the manifest counts it."""
    real = module.activations_at

    def with_outlier(host, point, tokens, mask):
        x = real(host, point, tokens, mask).clone()
        x[0, 2] *= 1000
        return x

    monkeypatch.setattr(module, "activations_at", with_outlier)
    limited = harvest(harvest_config, tmp_path / "a", host)
    kept = harvest(replace(harvest_config, norm_limit=1e9), tmp_path / "b", host)
    assert limited.manifest["excluded_by_norm"] > 0
    assert kept.manifest["excluded_by_norm"] == 0
    longest = max(x.norm(dim=1).max().item() for x in limited.blocks("train"))
    assert longest <= limited.manifest["excluded_norm"]
    assert limited.tokens() + limited.tokens("heldout") + limited.manifest["excluded_by_norm"] == (
        kept.tokens() + kept.tokens("heldout")
    )


def test_too_little_text(harvest_config, host, tmp_path):
    with pytest.raises(InputError, match="lower `tokens` or add text"):
        harvest(replace(harvest_config, tokens=10**6), tmp_path / "s", host)


def test_unknown_split(store):
    with pytest.raises(InputError, match="it has train, heldout"):
        next(store.blocks("test"))


def test_bad_text_files(tmp_path):
    with pytest.raises(InputError, match="did you mean 'wikipedia'"):
        load_documents("wikipeda")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"text": "fine"}) + "\n" + json.dumps({"txt": "typo"}))
    with pytest.raises(InputError, match=r"bad.jsonl:2: needs one JSON object a line with a field 'text'"):
        load_documents(str(bad))
