from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from evals.synthetic import anomaly, pairs, polarity, run
from evals.synthetic.contenders import CONTENDERS, config_of, fit
from evals.synthetic.worlds import NOISE, AxesWorld, samples, unit_directions
from rsae import AbsTopK, InputError, TopK

# --- worlds ------------------------------------------------------------------------------------------------


def test_directions_are_unit_and_orthogonal_where_there_is_room():
    few = unit_directions(8, 10, 3)
    torch.testing.assert_close(few @ few.T, torch.eye(8))
    many = unit_directions(30, 10, 3)
    torch.testing.assert_close(many.norm(dim=1), torch.ones(30))


def test_worlds_have_the_rate_the_gains_and_the_noise_that_they_say():
    axes = unit_directions(8, 10, 0)
    world = AxesWorld(axes, -axes, 0.25, (1.0, 0.5))
    c, x = world.draw(20_000, 0)
    assert (c != 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert (c > 0).sum().item() == pytest.approx((c < 0).sum().item(), rel=0.05)
    assert c[c > 0].mean().item() == pytest.approx(1.0, abs=0.02)
    assert c[c < 0].mean().item() == pytest.approx(-0.5, abs=0.02)
    assert (x - c @ axes).std().item() == pytest.approx(NOISE, rel=0.02)
    assert torch.equal(world.draw(20_000, 0)[1], x)


def test_no_sae_starts_from_the_truth():
    """An SAE and its world are often of one shape and one seed."""
    for count in (16, 24):
        plus = unit_directions(count, 16, 0)
        data = samples(*(AxesWorld(plus, -plus, 0.1).draw(500, s)[1] for s in (0, 1)))
        sae = CONTENDERS["sign_aware"].make(data, count, 0)
        assert (sae.W_dec @ plus.T).abs().diagonal().mean() < 0.5


@pytest.mark.parametrize("opposition", [0.0, 0.6, 1.0])
def test_poles_have_the_opposition_that_they_say(opposition):
    plus = unit_directions(20, 16, 0)
    minus = pairs.opposed(plus, opposition, 0)
    torch.testing.assert_close(minus.norm(dim=1), torch.ones(20))
    torch.testing.assert_close((plus * minus).sum(1), torch.full((20,), -opposition))


# --- metrics, on SAEs that are known to be right or wrong --------------------------------------------------


def exact(axes: torch.Tensor, signed: bool, active: int) -> TopK:
    """The dictionary of the truth: a latent an axis, or two without signs."""
    rows = axes if signed else torch.cat([axes, -axes])
    sae = (AbsTopK if signed else TopK)(axes.shape[1], len(rows), active).eval()
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return sae


@pytest.mark.parametrize("signed", [True, False])
def test_slopes_are_1_for_the_truth_and_0_for_what_is_not_seen(signed):
    world = polarity.world(0)
    c, x = world.draw(3000, 0)
    sae = exact(world.plus_MD, signed, 8)
    torch.testing.assert_close(
        polarity.slopes(sae, world.plus_MD, c, x), torch.ones(2, 16), atol=0.02, rtol=0.0
    )
    sae.W_enc.data[:, 0] *= 0.5
    assert polarity.slopes(sae, world.plus_MD, c, x)[0, 0].item() == pytest.approx(0.5, abs=0.02)


def test_auroc_is_the_share_of_ordered_pairs():
    rng = np.random.default_rng(0)
    score, label = rng.integers(0, 4, (40, 3)).astype(float), rng.random(40) < 0.4
    got = anomaly.auroc(score, label)
    for column, value in zip(score.T, got, strict=True):
        p, n = column[label][:, None], column[~label][None]
        assert value == pytest.approx(((p > n) + 0.5 * (p == n)).mean())


def test_detection_needs_a_latent_for_each_direction():
    axes = unit_directions(anomaly.AXES, anomaly.D, 0)
    world = AxesWorld(axes, -axes, anomaly.RATE)
    assert anomaly.detection(exact(axes, True, 4), world, 0).min() > 0.95
    one_sided = exact(axes, False, 4)
    assert anomaly.detection(one_sided, world, 0).min() > 0.95
    one_sided.W_enc.data[:, anomaly.AXES :] = 0  # the negative sides are blind
    found = anomaly.detection(one_sided, world, 0).reshape(-1, 2)
    assert found[:, 0].min() > 0.95
    assert found[:, 1].max() < 0.9


def test_consolidation_is_one_latent_for_both_poles():
    world = pairs.pairs(8, 1.0, 0)
    c, x = world.draw(2000, 0)
    found = pairs.represented(exact(world.plus_MD, True, 4), world, c, x)
    assert torch.equal(found[0], torch.eye(8))
    assert torch.equal(found[1], -torch.eye(8))
    apart = pairs.represented(exact(world.plus_MD, False, 4), world, c, x)
    assert (apart != 0).any(1).all()
    assert not (apart[0] * apart[1] < 0).any()


# --- trained -----------------------------------------------------------------------------------------------


def test_without_the_auxiliary_loss_the_gate_collapses():
    """With it a latent for each two opposite directions is enough, which it is not for Gated."""
    axes_MD = unit_directions(16, 16, 0)
    world = AxesWorld(axes_MD, -axes_MD, 0.15)
    data = samples(world.draw(8000, 0)[1], world.draw(2000, 1)[1])
    x = data.sample(2000, split="heldout")
    names = ("sign_aware", "no_auxiliary", "gated_h")
    saes = fit([(CONTENDERS[n], 16, config_of(400, 0, sparsity=1.0)) for n in names], data, 0, "test")
    with torch.no_grad():
        variance = (x - x.mean(0)).square().sum()
        whole, collapsed, one_signed = (1 - ((sae(x) - x).square().sum() / variance).item() for sae in saes)
        assert ((saes[0].encode(x) > 0).any(0) & (saes[0].encode(x) < 0).any(0)).float().mean() > 0.9
    assert whole > 0.95
    assert collapsed < 0.6
    assert one_signed < whole


# --- runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_a_protocol_runs_resumes_and_says_what_it_measured(name, tmp_path, monkeypatch, capsys):
    module = {"A": polarity, "B": anomaly, "C": pairs}[name]
    points = [p for p in module.PROTOCOL.points if p == pairs.TOY][:1] + list(module.PROTOCOL.points)[1:2]
    monkeypatch.setattr(module, "PROTOCOL", replace(module.PROTOCOL, points=points))
    for constant, value in (("TRAIN", 600), ("HELDOUT", 300)):
        monkeypatch.setattr(module, constant, value)
    path = run.run_protocol(name, tmp_path, seeds=2, steps=3)
    result = json.loads(path.read_text())
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert {row["seed"] for row in result["rows"]} == {0, 1}
    for row in result["summary"]:
        values = [
            r for r in result["rows"] if (r["contender"], r["point"]) == (row["contender"], row["point"])
        ]
        assert len(values) == 2
        for metric in ("mse", "l0") if "mse" in row else ():
            a, b = (v[metric] for v in values)
            assert row[metric] == pytest.approx([(a + b) / 2, abs(a - b) / 2])
    capsys.readouterr()
    assert run.run_protocol(name, tmp_path, seeds=2, steps=3) == path
    assert json.loads(path.read_text()) == result
    assert "reused" in capsys.readouterr().err


def test_mean_and_error():
    assert run.mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / math.sqrt(3)))
    assert run.mean_and_error([5.0]) == (5.0, 0.0)


def test_an_unknown_protocol_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="protocol 'D' is unknown; choose from A, B, C"):
        run.run_protocol("D", tmp_path)
