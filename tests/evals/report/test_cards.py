"""Feature cards against the codes of the store's held-out activations, and in the page."""

from __future__ import annotations

import re
import shutil

import pytest

from evals.cards import read_cards
from evals.latents import by_density
from evals.metrics.stability import stability
from evals.results import read_results
from evals.site import load_sae, open_store
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.evals.report.conftest import Page


@pytest.fixture(scope="module")
def cards(report_run):
    done = evals("cards", report_run, "--features", "2")
    assert done.returncode == 0, done.stderr
    return read_cards(report_run, read_results(report_run))


def test_cards_show_a_rational_cell_and_its_control(report_run, cards):
    results = {r.cell: r for r in read_results(report_run)}
    assert sorted(results[cell].variant for cell in cards) == ["control", "control", "gated", "gated"]
    for family in ("jump_relu", "sign_aware_gated"):
        pair = [made for cell, made in cards.items() if results[cell].family == family]
        assert [c.latent for c in pair[0]] == [c.latent for c in pair[1]]
        signs = {tuple(side.sign for side in card.sides) for made in pair for card in made}
        assert signs == ({(1, -1)} if family == "sign_aware_gated" else {(1,)})


def test_cards_agree_with_the_codes(report_run, cards, host):
    """The store's held-out activations are those of the articles that the cards are of."""
    results = {r.cell: r for r in read_results(report_run)}
    head_VD = host.model.get_output_embeddings().weight
    for cell, made in cards.items():
        sae = load_sae(report_run, results[cell])
        assert sae.family == ("rational_" if results[cell].upgrade else "") + results[cell].family
        store = open_store(report_run, results[cell])
        z_NF = sae.encode(store.sample(10**6, split="heldout"))
        for card in made:
            z_N = z_NF[:, card.latent]
            assert card.density == pytest.approx((z_N != 0).double().mean().item(), abs=0.01)
            for side in card.sides:
                size_N = (side.sign * z_N).clamp_min(0)
                assert abs(side.max) == pytest.approx(size_N.max().item(), rel=1e-4, abs=1e-6)
                values = [abs(c.value) for c in side.contexts]
                assert values == sorted(values, reverse=True)
                assert not values or values[0] == pytest.approx(abs(side.max))
                effect_V = head_VD @ (side.sign * sae.W_dec[card.latent])
                assert side.promotes[0].logit == pytest.approx(effect_V.max().item(), rel=1e-4)
                assert side.suppresses[0].logit == pytest.approx(effect_V.min().item(), rel=1e-4)


def test_text_is_shown_as_it_is(report_run, cards):
    shown = Page((report_run / "report.html").read_text()).items
    sides = [side for made in cards.values() for card in made for side in card.sides]
    texts = ["".join(context.tokens).strip() for side in sides for context in side.contexts]
    assert any("</" in text for text in texts)
    assert all(any(item.strip().endswith(text) for item in shown) for text in texts)


def test_cards_are_kept(report_run, cards):
    done = evals("cards", report_run, "--features", "2")
    assert done.stderr.count("reused") >= 4
    assert "held-out articles" not in done.stderr
    assert evals("report", report_run).returncode == 0
    assert (report_run / "report.html").read_text().count('class="card"') == 8


def test_chosen_latents(report_run, cards):
    cell = next(c for c in cards if c.endswith("gated") and "jump_relu" in c)
    teacher = cell.removesuffix("gated") + "teacher"
    done = evals("cards", report_run, "--latents", "3, 7", "--cell", teacher)
    assert done.returncode == 0, done.stderr
    made = read_cards(report_run, read_results(report_run))[teacher]
    assert [card.latent for card in made] == [3, 7]
    (report_run / "cards" / f"{teacher}.json").unlink()


def test_latents_are_spread_over_densities():
    import torch

    count_F = torch.tensor([0, 5, 1, 9, 0, 3])
    assert by_density(count_F, 2) == [5, 3]
    assert by_density(count_F, 10) == [2, 5, 1, 3]
    assert by_density(torch.zeros(4, dtype=torch.int64), 2) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--latents", "3,x"], ("--latents", "such as 3,17,40")),
        (["--latents", "48"], ("--latents 48", "0 to 47")),
        (["--features", "1", "--cell", "nonsense"], ("--cell 'nonsense'", "choose from")),
    ],
)
def test_mistakes(report_run, arguments, words):
    assert_one_clear_line(evals("cards", report_run, *arguments), *words)


def test_cards_stand_side_by_side(report_run, cards):
    """One row a latent, a card of each cell in it."""
    assert evals("report", report_run).returncode == 0
    page = (report_run / "report.html").read_text()
    rows = page.split('<div class="beside">')[1:]
    assert len(rows) == 4  # two groups, two latents
    for row in rows:
        assert "-gated</strong>" in row
        assert "-control</strong>" in row
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_what_changed_most_beside_the_teacher(report_run, cards, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(report_run, run)
    shutil.rmtree(run / "cards")
    done = evals("cards", run, "--features", "2", "--changed")
    assert done.returncode == 0, done.stderr
    results = {r.cell: r for r in read_results(run)}
    made = read_cards(run, list(results.values()))
    assert sorted(results[cell].variant for cell in made) == ["gated", "gated", "teacher", "teacher"]
    for cell, shown in made.items():
        if results[cell].variant == "gated":
            teacher = next(
                r
                for r in results.values()
                if r.cell in made and (r.family, r.variant) == (results[cell].family, "teacher")
            )
            found = stability(load_sae(run, results[cell]), load_sae(run, teacher), open_store(run, teacher))
            known = sorted(overlap for overlap in found.overlap_F if overlap is not None)
            assert [found.overlap_F[card.latent] for card in shown] == known[:2]
            assert [card.latent for card in made[teacher.cell]] == [card.latent for card in shown]
