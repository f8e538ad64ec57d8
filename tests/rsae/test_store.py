import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rsae import InputError, Store, Stream, TrainConfig, harvest, train
from rsae.activations import harvest as module
from rsae.activations import host as host_module
from rsae.activations import remote
from rsae.activations.open import open_activations
from rsae.activations.prefetch import prefetched
from rsae.activations.rows import Scaled
from rsae.activations.store import VERSION, Manifest, Shard
from rsae.activations.text import load_documents, split_documents
from rsae.activations.windows import Windows
from rsae.provenance import check_match
from rsae.support.files import read_tensors, write_tensors
from rsae.support.parts import shares
from tests.rsae.helpers import random_sae


def copy(store, tmp_path):
    return shutil.copytree(store.path, tmp_path / "copy")


def test_store_holds_what_the_manifest_says(store, harvest_config):
    assert store.tokens("train") >= harvest_config.tokens
    assert store.tokens("heldout") >= harvest_config.heldout_tokens
    assert sum(len(x) for x in store.blocks("train")) == store.tokens("train")
    assert store.provenance.hook == "blocks.1.hook_resid_post"
    x = torch.cat(list(store.blocks("train")))
    assert x.shape[1] == store.d_in == 32
    assert x.double().norm(dim=1).mean().item() * store.scale == pytest.approx(32**0.5, rel=1e-6)


def test_activations_are_the_hosts(store, host):
    shard = read_tensors(store.path / "train-00000.safetensors")
    first = shard["document_N"] == shard["document_N"][0]
    documents = split_documents(load_documents(store.provenance.text), store.provenance.split_seed)["train"]
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
    real = module.activations_at_all

    def dying(*args):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "activations_at_all", dying)
    with pytest.raises(KeyboardInterrupt):
        harvest(harvest_config, tmp_path / "s", host)
    with pytest.raises(InputError, match="no finished activation store"):
        Store.open(tmp_path / "s")
    resumed = harvest(harvest_config, tmp_path / "s", host)
    assert resumed.manifest.shards == store.manifest.shards  # checksums and all
    total = len(calls)
    harvest(harvest_config, tmp_path / "s", host)
    assert len(calls) == total  # nothing ran again


def test_a_harvest_killed_with_minus_9_goes_on(store, harvest_config, host, tmp_path, monkeypatch):
    """In a process of its own, slowed down so that it dies in the middle: the first shard is kept."""
    code = (
        "import json, sys, time, torch; from rsae.activations import harvest as m; real = m.activations_at_all\n"
        "torch.set_num_threads(1)\n"  # as here: sums in another order would be other bytes
        "def slow(*a): time.sleep(0.05); return real(*a)\n"
        "m.activations_at_all = slow; m.harvest(m.HarvestConfig(**json.loads(sys.argv[1])), sys.argv[2])"
    )
    settings = json.dumps(asdict(harvest_config))
    process = subprocess.Popen([sys.executable, "-c", code, settings, str(tmp_path / "s")], stderr=-3)
    first = tmp_path / "s" / "train-00000.json"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (tmp_path / "s" / ".train-00001.safetensors.1.tmp").write_bytes(b"half a shard")
    assert not (tmp_path / "s" / "manifest.json").exists()
    calls = []
    real = module.activations_at_all
    monkeypatch.setattr(module, "activations_at_all", lambda *a: calls.append(1) or real(*a))
    resumed = harvest(harvest_config, tmp_path / "s", host)
    assert resumed.manifest == store.manifest  # checksums and all
    assert not list((tmp_path / "s").glob(".*"))
    once = len(calls)
    harvest(harvest_config, tmp_path / "again", host)
    assert len(calls) - once == once + 8  # the first shard's 128 sequences, in batches of 16, ran once only


@pytest.mark.parametrize("parts", [1, 2, 5, 30])
def test_parts_make_the_store_of_one(store, harvest_config, host, tmp_path, monkeypatch, parts):
    """In any order; the last call finds all shards there, and what another part is writing stays."""
    out = {harvest_config.hook: tmp_path / "s"}
    (tmp_path / "s").mkdir()
    torn = tmp_path / "s" / ".train-00001.safetensors.1.tmp"
    calls, real = [], module.activations_at_all
    monkeypatch.setattr(module, "activations_at_all", lambda *a: calls.append(1) or real(*a))
    for i in reversed(range(parts)):
        torn.write_bytes(b"half a shard")
        assert module.harvest_all(harvest_config, out, host, (i, parts)) == {}
        assert torn.exists()
        assert not (tmp_path / "s" / "manifest.json").exists()
        assert not calls or i < len(store.manifest.shards)  # a part without a shard of its own runs nothing
    monkeypatch.setattr(module, "activations_at_all", lambda *_: pytest.fail("the host ran again"))
    made = module.harvest_all(harvest_config, out, host)[harvest_config.hook]
    assert made.manifest == store.manifest  # checksums and all
    assert not torn.exists()
    assert (
        module.harvest_all(harvest_config, out, host, (0, parts))[harvest_config.hook].manifest
        == made.manifest
    )


def test_parts_in_order_run_each_token_once(store, harvest_config, host, tmp_path, monkeypatch):
    calls, real = [], module.activations_at_all
    monkeypatch.setattr(module, "activations_at_all", lambda *a: calls.append(1) or real(*a))
    harvest(harvest_config, tmp_path / "whole", host)
    once = len(calls)
    for i in range(3):
        module.harvest_all(harvest_config, {harvest_config.hook: tmp_path / "parts"}, host, (i, 3))
    assert len(calls) == 2 * once


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 12))
def test_work_is_parted_evenly(sizes, count):
    """Each piece once, the first by the first process; no process has more than another but for one piece."""
    parted = shares(sizes, count)
    assert sorted(i for share in parted for i in share) == list(range(len(sizes)))
    assert parted[0][0] == 0
    loads = [sum(sizes[i] for i in share) for share in parted]
    assert max(loads) - min(loads) <= max(sizes)


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
    real = module.activations_at_all
    monkeypatch.setattr(module, "activations_at_all", lambda *a: calls.append(1) or real(*a))
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
    told = rf"other settings \(tokens {harvest_config.tokens} and not 2000, dtype 'float32' and not 'int8'\)"
    with pytest.raises(InputError, match=told):
        harvest(replace(harvest_config, tokens=2000, dtype="int8"), path, host)
    (path / "manifest.json").unlink()  # begun, and not finished
    with pytest.raises(InputError, match=told):
        harvest(replace(harvest_config, tokens=2000, dtype="int8"), path, host)


def test_what_the_host_was_computed_in_is_told(store, harvest_config, tmp_path):
    made = harvest(replace(harvest_config, host_dtype="mixed"), tmp_path / "mixed")
    assert made.manifest.settings["host_dtype"] == "mixed"
    assert "run with products in bfloat16" in (made.provenance.note or "")
    x_ND, y_ND = (torch.cat(list(s.blocks("train"))) for s in (store, made))
    assert 0 < (x_ND - y_ND).norm() < 0.02 * x_ND.norm()


@pytest.mark.parametrize("begun", [True, False])
def test_auto_goes_on_as_a_store_was_begun(harvest_config, tmp_path, monkeypatch, begun):
    """On whatever machine: a run's directory may be seen from several."""
    config = replace(harvest_config, host_dtype="auto")
    monkeypatch.setattr(host_module, "has_bfloat16", lambda _: begun)
    first = harvest(config, tmp_path / "store")
    (tmp_path / "store" / "manifest.json").unlink()
    monkeypatch.setattr(host_module, "has_bfloat16", lambda _: not begun)
    again = harvest(config, tmp_path / "store")
    assert again.manifest == first.manifest
    assert again.manifest.settings.get("host_dtype", "float32") == ("mixed" if begun else "float32")


def test_auto_goes_on_as_a_store_in_object_storage_was_begun(harvest_config, tmp_path, monkeypatch):
    """From another machine, which has no part of it yet."""
    config, url = replace(harvest_config, host_dtype="auto"), f"file://{tmp_path}/bucket/store"
    made = []
    for has in (True, False):
        monkeypatch.setenv("RSAE_CACHE", str(tmp_path / f"here-{has}"))
        monkeypatch.setattr(host_module, "has_bfloat16", lambda _, has=has: has)
        made.append(harvest(config, url))
    assert made[0].manifest == made[1].manifest
    assert made[0].manifest.settings["host_dtype"] == "mixed"


def test_a_host_that_is_there_says_what_it_computes_in(harvest_config, host, tmp_path):
    """Whatever the settings ask of one that would be loaded."""
    mixed = replace(host, mixed=True)
    assert harvest(harvest_config, tmp_path / "a", mixed).manifest.settings["host_dtype"] == "mixed"
    exact = harvest(replace(harvest_config, host_dtype="mixed"), tmp_path / "b", host)
    assert "host_dtype" not in exact.manifest.settings
    assert Stream(harvest_config, mixed).identity["host_dtype"] == "mixed"


def test_norm_limit_leaves_outliers_out(harvest_config, host, tmp_path, monkeypatch):
    """A token a thousand times as long as the median does not reach the store; the manifest counts it."""
    real = module.activations_at_all

    def with_outlier(host, points, tokens, mask):
        (x,) = real(host, points, tokens, mask)
        x = x.clone()
        x[0, 2] *= 1000
        return [x]

    monkeypatch.setattr(module, "activations_at_all", with_outlier)
    limited = harvest(harvest_config, tmp_path / "a", host)
    kept = harvest(replace(harvest_config, norm_limit=1e9), tmp_path / "b", host)
    excluded = sum(s.excluded_by_norm for s in limited.manifest.shards)
    assert excluded > 0
    assert sum(s.excluded_by_norm for s in kept.manifest.shards) == 0
    longest = max(x.norm(dim=1).max().item() for x in limited.blocks("train"))
    limit = limited.provenance.norm_limit
    assert limit is not None
    assert longest <= limit
    assert limited.tokens() + limited.tokens("heldout") + excluded == (kept.tokens() + kept.tokens("heldout"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stores(store, harvest_config, host, tmp_path, dtype):
    half = harvest(replace(harvest_config, dtype=dtype), tmp_path / "s", host)
    sizes = [(s.path / "train-00000.safetensors").stat().st_size for s in (half, store)]
    assert sizes[0] < 0.6 * sizes[1]
    x, truth = half.batch(3, 64, seed=0), store.batch(3, 64, seed=0)
    assert x.dtype == torch.float32
    assert torch.equal(x, truth.to(getattr(torch, dtype)).float())
    assert half.scale == pytest.approx(store.scale, rel=1e-2)


def test_float16_that_overflows(harvest_config, host, tmp_path, monkeypatch):
    real = module.activations_at_all
    monkeypatch.setattr(module, "activations_at_all", lambda *a: [x * 1e6 for x in real(*a)])
    with pytest.raises(InputError, match=r"not finite in float16; harvest with dtype float32 or bfloat16"):
        harvest(replace(harvest_config, dtype="float16"), tmp_path / "s", host)


def test_many_sequences_make_larger_shards(store, harvest_config, host, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SHARDS_AT_MOST", 1)
    one = harvest(harvest_config, tmp_path / "s", host)
    assert [s.split for s in one.manifest.shards] == ["train", "heldout"]
    assert torch.equal(one.batch(2, 64, seed=1), store.batch(2, 64, seed=1))


# --- windows: an order for stores larger than memory, and for streams --------------------------------------


@pytest.mark.parametrize("window", [1, 40, 10_000])
def test_windows_give_every_row_once_an_epoch_in_an_order_of_their_seed(window):
    sizes = [7, 1, 30, 12, 5, 9]
    units = list(torch.arange(sum(sizes))[:, None].split(sizes))
    loads = []

    def load(chosen):
        loads.extend(chosen)
        return torch.cat([units[u] for u in chosen])

    windows = Windows(sizes, window, load)
    epoch = torch.cat([windows.rows(i, 8, seed=3) for i in range(0, 64, 8)])
    assert sorted(epoch.flatten().tolist()) == list(range(64))
    assert sorted(loads) == list(range(6))  # each unit was loaded once
    assert torch.equal(Windows(sizes, window, load).rows(20, 30, seed=3), epoch[20:50])
    assert not torch.equal(windows.rows(0, 64, seed=4), epoch)


def test_a_windowed_store_uses_every_token_once_in_an_epoch(store):
    windowed = Store.open(store.path, window=1000)
    size = store.tokens() // 8
    rows = torch.cat([windowed.batch(i, size, seed=0) for i in range(8)])
    everything = {tuple(r) for r in torch.cat(list(store.blocks("train"))).tolist()}
    seen = {tuple(r) for r in rows.tolist()}
    assert seen <= everything
    assert len(everything - seen) < 8
    again = Store.open(store.path, window=1000)
    assert torch.equal(again.batch(21, size, seed=0), windowed.batch(21, size, seed=0))


def anonymous_memory() -> int:
    """Bytes of this process that no file backs: what it holds by itself."""
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith("RssAnon")).split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("window", [0, 2048])
def test_a_store_is_read_without_being_held_in_memory(tmp_path, window):
    """An epoch over 128 MB of shards: batches and windows alone are in memory."""
    shards = [Shard(f"{i}.safetensors", "train", 16_384, "") for i in range(4)]
    for shard in shards:
        write_tensors(tmp_path / shard.file, {"x_ND": torch.ones(16_384, 512)})
    big = Store(tmp_path, Manifest(VERSION, 512, 1.0, shards), window)
    before, most = anonymous_memory(), 0
    for step in range(big.tokens() // 1024):
        assert big.batch(step, 1024, seed=0).sum() == 1024 * 512
        most = max(most, anonymous_memory() - before)
    assert most < 64 * 2**20


@pytest.fixture
def stream(harvest_config, host):
    return Stream(harvest_config, host, window=800)


def test_a_stream_is_the_store_in_another_order(stream, store):
    """The same activations, all of them once an epoch, and the same scale but for sampling."""
    size = stream.tokens() // 8
    rows = torch.cat([stream.batch(i, size, seed=0) for i in range(8)])
    stored = torch.cat(list(store.blocks("train")))
    distance = torch.cdist(rows.double(), stored.double())
    # within the host's float error, as other sequences stand beside it in the batch
    assert distance.min(dim=1).values.max() < 1e-4
    assert (distance.min(dim=0).values < 1e-4).double().mean() > 0.99  # the last few have no whole batch
    assert stream.scale == pytest.approx(store.scale, rel=0.02)
    assert stream.d_in == store.d_in
    heldout = [torch.cat(list(s.blocks("heldout"))) for s in (stream, store)]
    torch.testing.assert_close(*heldout, rtol=1e-4, atol=1e-5)


def test_training_on_a_stream_resumes_to_the_same_weights(
    stream, harvest_config, host, tmp_path, monkeypatch
):
    config = TrainConfig(steps=120, batch=64)

    def trained(source, checkpoint):
        sae = random_sae("top_k", store=source)
        train(sae, source, config, checkpoint)
        return sae.state_dict()

    whole = trained(stream, None)
    real, calls = Stream.batch, []

    def dying(self, step, size, seed):
        calls.append(step)
        if step == 110:
            raise KeyboardInterrupt
        return real(self, step, size, seed)

    monkeypatch.setattr(Stream, "batch", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(stream, tmp_path / "checkpoint")
    monkeypatch.setattr(Stream, "batch", lambda *a: calls.append(a[1]) or real(*a))
    calls.clear()
    resumed = trained(Stream(harvest_config, host, window=800), tmp_path / "checkpoint")
    assert calls[0] == 100
    assert all(torch.equal(resumed[k], v) for k, v in whole.items())


def test_a_stream_leaves_outliers_out(stream, harvest_config, host, monkeypatch):
    real = module.activations_at_all

    def with_outlier(host, points, tokens, mask):
        (x,) = real(host, points, tokens, mask)
        x = x.clone()
        x[0, 2] *= 1000
        return [x]

    monkeypatch.setattr(module, "activations_at_all", with_outlier)
    limited = Stream(harvest_config, host, window=800)
    assert limited.limit == pytest.approx(stream.limit, rel=0.1)
    rows = torch.cat([limited.batch(i, 64, seed=0) for i in range(20)])
    assert rows.norm(dim=1).max() <= limited.limit
    assert max(x.norm(dim=1).max() for x in limited.blocks("heldout")) <= limited.limit
    assert limited.sample(50).norm(dim=1).max() <= limited.limit


def test_sample_of_a_stream(stream):
    assert torch.equal(stream.sample(50, seed=1), stream.sample(50, seed=1))
    assert stream.sample(50, seed=2).shape == (50, 32)
    with pytest.raises(InputError, match="it has train, heldout"):
        stream.sample(5, split="test")


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
    with pytest.raises(InputError, match=r"bad.jsonl:2: needs an object with a field 'text'"):
        load_documents(str(bad))


# --- int8, object storage, reading ahead -------------------------------------------------------------------


@settings(max_examples=30)
@given(
    arrays(
        np.float32, st.tuples(st.integers(1, 20), st.integers(1, 9)), elements=st.floats(-1e6, 1e6, width=32)
    )
)
def test_int8_is_within_half_a_step_of_each_token(rows):
    x_ND = torch.from_numpy(rows)
    stored = Scaled.of(x_ND)
    step_N = x_ND.abs().amax(1) / 127
    assert len(stored) == len(x_ND)
    assert ((stored[:] - x_ND).abs() <= step_N[:, None] * 0.5 * (1 + 1e-4) + 1e-30).all()
    index = torch.arange(len(x_ND)).flip(0)
    assert torch.equal(stored[index], stored[:].flip(0))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_what_a_short_dtype_costs_is_told(store, harvest_config, host, tmp_path, dtype):
    short = harvest(replace(harvest_config, dtype=dtype), tmp_path / "s", host)
    sizes = [(s.path / "train-00000.safetensors").stat().st_size for s in (short, store)]
    assert sizes[0] < (0.6 if dtype == "bfloat16" else 0.45) * sizes[1]
    x, stored = (torch.cat([*s.blocks("train"), *s.blocks("heldout")]) for s in (store, short))
    lost = (x - stored).square().sum() / (x - x.mean(0)).square().sum()
    assert short.manifest.storage_error == pytest.approx(lost.item(), rel=0.05)
    assert short.provenance.storage is not None
    assert f"{short.manifest.storage_error:.2g}" in short.provenance.storage
    assert store.manifest.storage_error == 0
    assert store.provenance.storage is None
    assert short.batch(3, 64, seed=0).dtype == torch.float32
    x_BD = torch.cat([Store.open(short.path, window=500).batch(i, 64, seed=0) for i in range(3)])
    assert {tuple(row) for row in x_BD.tolist()} <= {tuple(row) for row in stored.tolist()}


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_object_storage(store, harvest_config, host, tmp_path, monkeypatch, storage):
    """A harvest into a URL, read from it elsewhere; what is here and whole is not copied again."""
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path / "here"))
    url = f"{storage}://{tmp_path / 'bucket' if storage == 'file' else '/bucket'}/store"
    made = harvest(harvest_config, url, host)
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path / "elsewhere"))
    found = open_activations(url)
    assert found.identity == made.identity
    assert torch.equal(found.batch(3, 64, seed=0), store.batch(3, 64, seed=0))
    copied = []
    real = remote._get
    monkeypatch.setattr(
        remote, "_get", lambda s, there, here: copied.append(here.name) or real(s, there, here)
    )
    (remote.local(url) / "heldout-00000.safetensors").write_bytes(b"torn")
    assert torch.equal(open_activations(url).sample(20), found.sample(20))
    assert copied == ["manifest.json", "heldout-00000.safetensors"]
    with pytest.raises(InputError, match="other settings"):
        harvest(replace(harvest_config, tokens=2000), url, host)


def test_object_storage_of_a_transcoders_store(harvest_config, host, tmp_path, monkeypatch):
    config = replace(harvest_config, tokens=500, target="blocks.1.hook_mlp_out")
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path / "here"))
    made = harvest(config, f"file://{tmp_path}/bucket", host)
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path / "elsewhere"))
    found = Store.open(f"file://{tmp_path}/bucket")
    assert found.target is not None
    assert made.target is not None
    assert found.identity == made.identity
    assert torch.equal(found.target.batch(1, 32, seed=0), made.target.batch(1, 32, seed=0))


def test_object_storage_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("RSAE_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="memory://none: no manifest.json, so no finished activation store"):
        open_activations("memory://none")
    with pytest.raises(InputError, match="nonsense://x: .*nonsense"):
        Store.open("nonsense://x")


def test_batches_are_made_ahead():
    """While a step runs, the next batch is made; each comes once, in order, and an error comes with its step."""
    made, running = [], threading.Event()

    def make(step: int) -> int:
        if step == 3:
            raise InputError("no batch 3")
        made.append(step)
        if step == 1:
            running.set()
        return 10 * step

    found, batches = [], prefetched(make, range(5), ahead=True)
    for _ in range(3):
        step, batch, waited = next(batches)
        assert running.wait(10)  # batch 1 is made in step 0
        found.append((step, batch))
        assert waited >= 0
    with pytest.raises(InputError, match="no batch 3"):
        next(batches)
    assert found == [(0, 0), (1, 10), (2, 20)]
    assert made == [0, 1, 2]
    assert [b for _, b, _ in prefetched(lambda step: step, range(2, 4), ahead=False)] == [2, 3]
    assert list(prefetched(make, range(0), ahead=True)) == []


def test_another_split_of_the_text_may_hold_out_what_was_trained_on(store):
    sae = random_sae("top_k", store)
    sae.provenance = store.provenance
    other = replace(store.provenance, split_seed=store.provenance.split_seed + 1)
    check_match(sae.provenance, replace(other, text="another text"), "the SAE", "the store")
    check_match(sae.provenance, replace(other, split_seed=None), "the SAE", "the store")
    check_match(sae.provenance, other, "the SAE", "the store", allow_mismatch=True)
    with pytest.raises(InputError, match="another split of the text.*split_seed"):
        check_match(sae.provenance, other, "the SAE", "the store")
