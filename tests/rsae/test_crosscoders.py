"""Several hook points in one dictionary: joined activations, crosscoders, cross-layer transcoders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import evals
import rsae
from evals.cli import main as evals_main
from rsae import InputError, Store, TrainConfig
from rsae.activations.harvest import sequences_like
from rsae.activations.open import open_together
from rsae.cli import main
from rsae.support.files import read_tensors
from tests.command import assert_one_clear_line, run_command

HOOKS = ("blocks.0.hook_mlp_in", "blocks.1.hook_mlp_in")
TARGETS = ("blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out")


@pytest.fixture(scope="module")
def stores(harvest_config, host, tmp_path_factory):
    """With a norm limit so low that each point leaves out other tokens."""
    out = tmp_path_factory.mktemp("points")
    paths = {hook: out / hook for hook in (*HOOKS, *TARGETS)}
    return rsae.harvest_all(replace(harvest_config, hook=HOOKS[0], norm_limit=1.4, tokens=1500), paths, host)


@pytest.fixture(scope="module")
def joined(stores):
    return rsae.join({hook: stores[hook] for hook in HOOKS})


@pytest.fixture(scope="module")
def layers(stores):
    return rsae.join({h: stores[h] for h in HOOKS}, {t: stores[t] for t in TARGETS})


def by_token(store, host):
    """A store's rows by split, sequence and position: the host's own sequences tell which is which."""
    found = {}
    for split, tokens in (("train", 1500), ("heldout", 400)):
        sequences = sequences_like(store.provenance, host, split, tokens)
        shards = [read_tensors(store.path / s.file) for s in store.manifest.shards if s.split == split]
        columns = [(s["position_N"].tolist(), s["token_N"].tolist(), s["x_ND"]) for s in shards]
        told = [row for column in columns for row in zip(*column, strict=True)]
        rows = iter(told)
        row = next(rows, None)
        for number, ids in enumerate(sequences):
            for position in range(1, len(ids)):
                if row is not None and row[:2] == (position, ids[position]):
                    found[split, number, position] = row[2].float()
                    row = next(rows, None)
        assert row is None
    return found


def test_tokens_that_all_points_hold_stand_side_by_side(stores, layers, host):
    rows = [by_token(stores[name], host) for name in (*HOOKS, *TARGETS)]
    shared = [place for place in rows[0] if all(place in other for other in rows)]
    assert len(shared) < min(map(len, rows))  # each leaves out others
    for split in ("train", "heldout"):
        x, y = torch.cat([*layers.blocks(split)]), torch.cat([*layers.target.blocks(split)])
        mine = [place for place in shared if place[0] == split]
        assert len(x) == len(y) == len(mine)
        for n, place in enumerate(mine):
            want = [
                row[place] * stores[name].scale for row, name in zip(rows, (*HOOKS, *TARGETS), strict=True)
            ]
            torch.testing.assert_close(torch.cat([x[n], y[n]]), torch.cat(want))
    assert layers.provenance.hook == " + ".join(HOOKS)
    assert layers.provenance.target == " + ".join(TARGETS)


@pytest.mark.parametrize("family", ["top_k", "jump_relu", "relu"])
def test_a_crosscoder_reads_and_gives_all_points_in_the_hosts_units(family, stores, joined, host, tmp_path):
    own: dict[str, Any] = {"k": 6} if family == "top_k" else {}
    sae = rsae.new(family, joined, d_sae=48, **own)
    assert sae.layout is not None
    before = evals.by_point(sae, joined)
    rsae.train(sae, joined, TrainConfig(steps=60, batch=64, lr=3e-3))
    after = evals.by_point(sae, joined)
    assert list(after) == list(HOOKS)
    assert all(after[hook] < before[hook] for hook in HOOKS)
    # by hand, from the points' own stores
    rows = [by_token(stores[hook], host) for hook in HOOKS]
    shared = [place for place in rows[0] if place in rows[1] and place[0] == "heldout"]
    apart = {
        hook: torch.stack([row[place] for place in shared]) for hook, row in zip(HOOKS, rows, strict=True)
    }
    with torch.no_grad():
        given = sae.layout.written(sae(sae.layout.read(apart)))
    for hook, x in apart.items():
        fvu = (given[hook] - x).square().sum() / (x - x.mean(0)).square().sum()
        assert fvu.item() == pytest.approx(after[hook], rel=1e-3)
    rsae.save(sae, tmp_path / "sae")
    back = rsae.load(tmp_path / "sae")
    assert back.layout == sae.layout
    assert back.provenance.hook == " + ".join(HOOKS)
    x = joined.sample(20)
    assert torch.equal(back(x), sae(x))


def test_l1_weighs_a_latent_by_the_sum_of_its_rows_norms(joined):
    sae = rsae.new("relu", joined, d_sae=48)
    assert sae.layout is not None
    x = joined.sample(50)
    with torch.no_grad():
        plain, weighed = sae.loss(x, 0.0).total, sae.loss(x, 1.0).total
        z, width = sae.encode(x), joined.points[0].width
        norms = sae.W_dec[:, :width].norm(dim=1) + sae.W_dec[:, width:].norm(dim=1)
    assert (weighed - plain).item() == pytest.approx((z * norms).sum(1).mean().item(), rel=1e-4)
    torch.testing.assert_close(sae.layout.norms(sae.W_dec).sum(1), norms)


@pytest.mark.parametrize("family", ["top_k", "jump_relu"])
@pytest.mark.parametrize("skip", [False, True])
def test_latents_of_a_layer_read_it_alone_and_write_it_and_later_ones(family, skip, layers, tmp_path):
    own: dict[str, Any] = {"k": 6} if family == "top_k" else {}
    sae = rsae.new(family, layers, skip=skip, causal=True, d_sae=48, **own)
    first = evals.by_point(sae, layers)
    rsae.train(sae, layers, TrainConfig(steps=60, batch=64, lr=3e-3))
    assert all(fvu < first[name] for name, fvu in evals.by_point(sae, layers).items())
    width = layers.points[0].width
    assert not sae.W_enc[width:, :24].any()
    assert not sae.W_enc[:width, 24:].any()
    assert not sae.W_dec[24:, :width].any()
    assert sae.W_dec[:24, width:].any()
    x = layers.sample(20)
    moved = x.clone()
    moved[:, width:] += torch.randn(20, width)
    if family == "jump_relu":  # TopK compares the layers' latents with each other
        torch.testing.assert_close(sae(moved)[:, :width], sae(x)[:, :width])
        assert not torch.equal(sae(moved)[:, width:], sae(x)[:, width:])
    rsae.save(sae, tmp_path / "sae")
    back = rsae.load(tmp_path / "sae")
    assert back.layout == sae.layout
    assert torch.equal(back(x), sae(x))


def test_a_rational_crosscoder_keeps_its_layout(joined):
    sae = rsae.new("top_k", joined, d_sae=48, k=6)
    rsae.train(sae, joined, TrainConfig(steps=10, batch=64))
    new = rsae.upgrade(
        sae, joined, type=(3, 2), config=rsae.UpgradeConfig(tune=TrainConfig(steps=3, batch=64))
    )
    assert new.tuned.layout == sae.layout
    assert new.control is not None
    assert new.control.layout == sae.layout


def test_ones_own_activations_are_joined_row_by_row():
    x, y = torch.randn(200, 4), 30 * torch.randn(200, 6)
    joined = rsae.join({"a": Store.of(x), "b": Store.of(y)})
    (block,) = joined.blocks("heldout")
    assert joined.points is not None
    torch.testing.assert_close(block[:, :4] / joined.points[0].scale, x[180:])
    torch.testing.assert_close(block[:, 4:] / joined.points[1].scale, y[180:])
    assert joined.scale == pytest.approx(1, rel=0.05)  # each point counts by its width, whatever its norm


def test_a_crosscoder_meets_its_points_at_its_own_scales_or_is_refused():
    """Scales are measured on the rows at hand: those of other rows of the same points are others."""
    x, y = torch.randn(400, 4), 30 * torch.randn(400, 6)
    longer = torch.linspace(1, 3, 400)[:, None]
    here = rsae.join({"a": Store.of(x), "b": Store.of(y)})
    sae = rsae.new("top_k", here, d_sae=24, k=4)
    parts = {"a": Store.of(x * longer), "b": Store.of(y * longer)}
    for measure in (
        evals.by_point,
        evals.reconstruction,
        lambda s, a: rsae.train(s, a, TrainConfig(steps=1, batch=8)),
    ):
        with pytest.raises(InputError, match="at other scales.*layout=sae.layout"):
            measure(sae, rsae.join(parts))
        with pytest.raises(InputError, match="joined hook points.*rsae.join"):
            measure(sae, Store.of(torch.cat([x, y], 1)))
    with pytest.raises(InputError, match="joined hook points"):
        evals.reconstruction(sae, torch.cat([x, y], 1))
    with pytest.raises(InputError, match="joined hook points"):
        evals.reconstruction(rsae.new("top_k", Store.of(x), d_sae=24, k=4), rsae.join({"a": Store.of(x)}))
    again = rsae.join(parts, layout=sae.layout)
    assert sae.layout is not None
    assert again.points == sae.layout.reads
    (rows,) = again.blocks("heldout")
    raw = {"a": (x * longer)[360:], "b": (y * longer)[360:]}
    torch.testing.assert_close(rows, sae.layout.read(raw))
    with torch.no_grad():
        given = sae.layout.written(sae(rows))
    for name, fvu in evals.by_point(sae, again).items():
        off, spread = given[name] - raw[name], raw[name] - raw[name].mean(0)
        assert fvu == pytest.approx((off.square().sum() / spread.square().sum()).item(), rel=1e-4)
    with pytest.raises(InputError, match="the layout is of points"):
        rsae.join({"b": parts["b"], "a": parts["a"]}, layout=sae.layout)
    with pytest.raises(InputError, match="no activations of b"):
        sae.layout.read({"a": x})


def test_the_command_trains_on_at_the_scales_that_there_were(stores, tmp_path):
    train = ["train", "top_k", stores[HOOKS[0]].path]
    rest = ("--d-sae", 48, "--k", 6, "--steps", 5, "--batch", 64)
    both = ("--join", stores[HOOKS[1]].path)
    assert run_command(main, *train, tmp_path / "a", *both, *rest).returncode == 0
    other = rsae.load(tmp_path / "a")
    assert other.layout is not None
    other.layout = replace(
        other.layout,
        **dict.fromkeys(
            ("reads", "writes"), tuple(replace(point, scale=2 * point.scale) for point in other.layout.reads)
        ),
    )
    rsae.save(other, tmp_path / "b")
    done = run_command(main, *train, tmp_path / "c", *both, *rest[2:], "--from", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert rsae.load(tmp_path / "c").layout == other.layout
    wrong = run_command(main, *train, tmp_path / "d", *rest[2:], "--from", tmp_path / "b")
    assert_one_clear_line(wrong, "dimensions")


def test_the_command_trains_them(stores, tmp_path):
    paths = [stores[name].path for name in (*HOOKS, *TARGETS)]
    rest = ("--d-sae", 48, "--k", 6, "--steps", 5, "--batch", 64)
    done = run_command(main, "train", "top_k", paths[0], tmp_path / "cross", "--join", paths[1], *rest)
    assert done.returncode == 0, done.stderr
    layout = rsae.load(tmp_path / "cross").layout
    assert layout is not None
    assert [point.name for point in layout.writes] == [*HOOKS]
    predict = ("--predict", paths[2], "--predict", paths[3], "--causal")
    done = run_command(
        main, "train", "top_k", paths[0], tmp_path / "clt", "--join", paths[1], *predict, *rest
    )
    assert done.returncode == 0, done.stderr
    layout = rsae.load(tmp_path / "clt").layout
    assert layout is not None
    assert [point.name for point in layout.writes] == [*TARGETS]
    assert layout.causal
    done = run_command(evals_main, "splice", tmp_path / "clt", "--tokens", 100, "--each", "--markdown")
    assert done.returncode == 0, done.stderr
    assert all(place in done.stdout for place in ("all at once", *TARGETS))
    wrong = run_command(evals_main, "splice", tmp_path / "clt", tmp_path / "cross", "--tokens", 100)
    assert_one_clear_line(wrong, "several hook points")
    wrong = run_command(main, "train", "top_k", paths[0], tmp_path / "no", "--causal", *rest)
    assert_one_clear_line(wrong, "--predict")


def test_what_does_not_go_together_is_told(stores, joined, layers, host, tmp_path):
    with pytest.raises(InputError, match="of the same tokens"):
        rsae.join({"a": Store.of(torch.randn(200, 4)), "b": Store.of(torch.randn(100, 4))})
    with pytest.raises(InputError, match="give activations"):
        rsae.join({})
    with pytest.raises(InputError, match="cannot be parted"):
        rsae.new("top_k", layers, causal=True, d_sae=49, k=6)
    with pytest.raises(InputError, match="a target for each point"):
        rsae.new("top_k", joined, causal=True, d_sae=48, k=6)
    with pytest.raises(InputError, match="join what is read"):
        rsae.new("top_k", stores[HOOKS[0]], causal=True, d_sae=48, k=6)
    sae = rsae.new("top_k", joined, d_sae=48, k=6)
    with pytest.raises(InputError, match="'saelens' can"):
        rsae.save(sae, tmp_path / "x", "dictionary_learning")
    alone = rsae.new("top_k", rsae.join({HOOKS[0]: stores[HOOKS[0]]}), d_sae=48, k=6)
    for several in (sae, alone):
        with (
            pytest.raises(InputError, match="several hook points.*downstream_by_point"),
            rsae.attached(host, several),
        ):
            pass
    with pytest.raises(InputError, match="single hook point"):
        evals.by_point(rsae.new("top_k", stores[HOOKS[0]], d_sae=48, k=6), stores[HOOKS[0]])
    with pytest.raises(InputError, match="several hook points.*downstream_by_point"):
        evals.downstream(sae, host, [[1, 2, 3, 4]])
    with pytest.raises(InputError, match="single hook point"):
        evals.downstream_by_point(rsae.new("top_k", stores[HOOKS[0]], d_sae=48, k=6), host, [[1, 2, 3, 4]])
    own = rsae.new("top_k", rsae.join({"six": stores[HOOKS[0]], "twelve": stores[HOOKS[1]]}), d_sae=48, k=6)
    with pytest.raises(InputError, match=r"hook point .* is not in host"):
        evals.downstream_by_point(own, host, [[1, 2, 3, 4]])


def by_hand(sae, host, ids, at):
    """log p of one sequence, with what the SAE gives of the clean host's activations put at some points by plain
    PyTorch hooks on the modules."""
    modules = [block.mlp for block in host.blocks]
    points = [*dict.fromkeys(p.name for p in (*sae.layout.reads, *sae.layout.writes))]
    inside, clean, handles = {}, {}, []

    def keep(number):
        def hook(module, args, out):
            inside[f"blocks.{number}.hook_mlp_in"], clean[f"blocks.{number}.hook_mlp_out"] = args[0], out

        return hook

    def put(name):
        def hook(module, args, out):
            new = out.clone()
            new[0, replaced] = given[name]
            return new

        return hook

    def run(hooks):
        for number, hook in hooks:
            handles.append(modules[number].register_forward_hook(hook))
        with torch.no_grad():
            # in float64: KL of 1e-5 nats is a small difference
            log_p = host.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        while handles:
            handles.pop().remove()
        return log_p

    before = run([(number, keep(number)) for number in (0, 1)])
    every = inside | clean
    limits = {p.name: p.norm_limit for p in (*sae.layout.reads, *sae.layout.writes)}
    replaced = torch.stack([every[name][0].norm(dim=-1) <= limits[name] for name in points]).all(0)
    replaced[0] = False
    with torch.no_grad():
        x = sae.layout.read({p.name: every[p.name][0, replaced] for p in sae.layout.reads})
        given = sae.layout.written(sae(x))
    return before, run([(int(name.split(".")[1]), put(name)) for name in at])


@pytest.mark.parametrize("causal", [False, True])
def test_the_hosts_loss_at_each_point_and_at_all(layers, host, causal):
    """Beside plain PyTorch hooks; tokens of other norms than training saw stay; the batch does not matter."""
    sae = rsae.new("jump_relu", layers, d_sae=48, causal=causal)
    rsae.train(sae, layers, TrainConfig(steps=20, batch=64))
    sequences = [ids for ids in sequences_like(layers.provenance, host, "heldout", 300) if len(ids) > 2][:4]
    found = evals.downstream_by_point(sae, host, sequences, batch=3)
    assert list(found) == ["all at once", *TARGETS]
    for place, at in (("all at once", TARGETS), *((name, [name]) for name in TARGETS)):
        kl, ce = [], []
        for ids in sequences:
            before, after = by_hand(sae, host, ids, at)
            kl += (before.exp() * (before - after)).sum(-1)[1:-1].tolist()
            ce += [-after[n, ids[n + 1]].item() for n in range(1, len(ids) - 1)]
        assert found[place].predictions == len(kl)
        assert found[place].kl == pytest.approx(sum(kl) / len(kl), rel=5e-3)  # 1e-5 nats: the host is random
        assert found[place].ce == pytest.approx(sum(ce) / len(ce), rel=1e-5)
        assert found[place].kl > 0
    other = evals.downstream_by_point(sae, host, sequences, batch=1)
    assert [one.kl for one in other.values()] == pytest.approx([one.kl for one in found.values()], rel=5e-3)


def test_a_window_of_what_is_joined_is_refused(tmp_path):
    """It lies in memory and is shuffled whole: an option that does nothing is told."""
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32))
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    with pytest.raises(InputError, match="--window: .* leave it out"):
        open_together(paths, [], window=50)
    with pytest.raises(InputError, match="--window"):
        open_together(paths[:1], paths[1:], window=50)
    assert open_together(paths[:1], [], window=50).d_in == 6
    assert open_together(paths, []).d_in == 12
