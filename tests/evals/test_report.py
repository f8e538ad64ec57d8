"""The report of a suite on a tiny host, read back as a browser would: tables, figures, cards, what is missing."""

from __future__ import annotations

import json
import re
import tomllib
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.path import Path as Outline

import rsae
from evals.cli import main
from evals.config import SuiteConfig, to_toml
from evals.report.cards import by_density, load_sae
from evals.report.figures import limits, planes, sweet_zone
from evals.report.html import missing
from evals.report.table import read_results
from tests.command import assert_one_clear_line, run_command
from tests.evals.test_suite import SUITE

_VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Elements with an id, table rows and list items, as text; whatever does not nest is an error."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, str] = {}
        self.rows: list[tuple[dict[str, str | None], str]] = []
        self.items: list[str] = []
        self._ids: list[str | None] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag in _VOID:
            return
        self.open.append(tag)
        self._ids.append(dict(attrs).get("id"))
        if tag == "tr":
            self.rows.append((dict(attrs), ""))
        if tag == "li":
            self.items.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._ids.pop()

    def handle_data(self, data):
        for name in filter(None, self._ids):
            self.texts[name] = self.texts.get(name, "") + data
        if "tr" in self.open:
            attributes, text = self.rows.pop()
            self.rows.append((attributes, text + " " + data))
        if "li" in self.open:
            self.items[-1] += data


def evals(*arguments):
    return run_command(main, *arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory, host_directory):
    """Two families, one of them signed, two levels, one seed; words that would break a page that did not escape."""
    directory = tmp_path_factory.mktemp("report")
    text = directory / "text.jsonl"
    words = ["</script><b>", "&amp;", "river", "stone", "'light\"", "zeta", "wave"]
    rng = np.random.default_rng(0)
    rows = [{"text": " ".join(rng.choice(words, 10))} for _ in range(160)]
    text.write_text("\n".join(map(json.dumps, rows)))
    task = directory / "task.csv"
    task.write_text(
        "\n".join(["text,label", *(f"{'red' if i % 2 else 'blue'} {i},{i % 2}" for i in range(120))])
    )
    suite = SUITE.format(host=host_directory, text=text, task=task)
    for old, new in (
        ('"top_k"', '"sign_aware_gated"'),
        ("[0, 1]", "[0]"),
        ("[tune]", '[upgrades.soft]\ntype = [3, 2]\nvariant = "soft"\n[tune]'),
    ):
        suite = suite.replace(old, new)
    file = directory / "suite.toml"
    # `soft` has no gate for the signed family: a suite of its own in the same directory
    signed, unsigned = suite.replace('"jump_relu", ', ""), suite.replace(', "sign_aware_gated"', "")
    for text_ in (re.sub(r"\[upgrades.soft\][^[]*(\[3, 2\])[^[]*", "", signed), unsigned):
        file.write_text(text_)
        done = evals("run", file, "--out", directory / "run")
        assert done.returncode == 0, done.stderr
    return directory / "run"


@pytest.fixture(scope="module")
def page(run):
    done = evals("report", run, "--figures", run / "figures")
    assert done.returncode == 0, done.stderr
    return Page((run / "report.html").read_text())


def test_the_page_stands_alone(run, page):
    markup = re.sub(r"<script.*?</script>", "", (run / "report.html").read_text(), flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=|@import|url\(|http-equiv", markup)
    assert "<script src" not in (run / "report.html").read_text()


def test_a_row_a_cell_and_the_control_under_each_figure(run, page):
    results = {r["cell"]: r for r in read_results(run)}
    rows = {a["data-cell"]: text.split() for a, text in page.rows if "data-cell" in a}
    assert rows.keys() == results.keys()
    for cell, r in results.items():
        if r["control"]:
            control = cell.removesuffix(r["variant"]) + r["control"]
            own, theirs = (f"{results[c]['metrics']['reconstruction']['fvu']:.4f}" for c in (cell, control))
            assert any(pair == (own, theirs) for pair in zip(rows[cell], rows[cell][1:], strict=False))


def test_figures_hold_every_cell(run, page):
    figures = json.loads(page.texts["figures"])
    results = read_results(run)
    for plane in ("mse-l0", "fvu-l0", "dce-l0", "k1-l0", "mse-alive"):
        drawn = [f for name, f in figures.items() if name.endswith(plane)]
        assert len(drawn) == 2  # families
        points = [t for f in drawn for t in f["data"] if t["mode"] == "markers"]
        assert sum(len(t["x"]) for t in points) == len(results)
    gates = [f for name, f in figures.items() if name.startswith("gate-")]
    assert len(gates) == 3  # gated twice, soft
    names = {t["name"] for f in gates for t in f["data"]}
    assert {"certified start", "teacher's gate", "start: the identity", "trained, l0_4"} <= names
    # beside a variant's colour stands a marker of its own
    front = next(f for name, f in figures.items() if name.endswith("mse-l0"))
    looks = {t["name"]: t["marker"] for t in front["data"] if t["mode"] == "markers"}
    assert len({look["symbol"] for look in looks.values()}) == len(looks)


def test_the_start_of_soft_is_proven(run, page):
    import approx

    approx.verify(run / "fits" / "jump_relu-3-2.certificate.json")
    soft = next(r for r in read_results(run) if r["variant"] == "soft")
    text = (run / "report.html").read_text()
    assert f"The run records an error of {soft['how']['start']['error']:.6e}" in text
    proven = re.findall(r"proven: (\S+) &le; sup \|f &minus; r\| &le; (\S+)\.", text)
    assert proven
    assert float(proven[0][0]) <= soft["how"]["start"]["error"] * (1 + 1e-6)
    assert soft["how"]["start"]["error"] <= float(proven[0][1]) * (1 + 1e-6)


def test_the_settings_can_be_run_again(run, page):
    config = SuiteConfig.model_validate(tomllib.loads(page.texts["config"]))
    newest = max((run / "results").glob("*.json"), key=lambda f: f.stat().st_mtime_ns)
    assert config.model_dump(mode="json") == json.loads(newest.read_text())["config"]
    odd = {
        "a": 'quote " and \\',
        "part": {"x": [1, 2.5], "inner": {"y": False}},
        "rows": [{"z": 1}, {"z": 2}],
    }
    assert tomllib.loads(to_toml(odd | {"none": None})) == odd


def test_what_is_missing_is_said(run, page):
    assert "missing" not in page.texts
    lost = {f: f.read_text() for f in (run / "results").glob("*jump_relu*-control.json")}
    for file in lost:
        file.unlink()
    try:
        assert missing(run, read_results(run))["cells"] == len(lost) == 2
        assert evals("report", run).returncode == 0
        partial = Page((run / "report.html").read_text())
        assert "jump_relu-s0: 2 cells missing" in partial.texts["missing"]
        gated = [text for a, text in partial.rows if re.search("jump_relu.*gated$", a.get("data-cell") or "")]
        assert len(gated) == 2
        assert all("control (missing)" in text for text in gated)
        assert not any(" nan" in text for _, text in partial.rows)
    finally:
        for file, text in lost.items():
            file.write_text(text)


def test_images(run, page):
    (image,) = (run / "figures").glob("fronts-*-blocks-1-hook-resid-post.png")
    assert image.read_bytes().startswith(b"\x89PNG")


def test_the_sweet_zone_is_what_dominates_a_teacher():
    rng = np.random.default_rng(0)
    rows = [
        {"variant": "teacher" if i < 6 else "gated", "k1": rng.uniform(0.5, 1)}
        | {key: rng.uniform(1, 50) for key in ("l0", "mse", "fvu", "dce")}
        | {"alive": rng.uniform(0.1, 1)}
        for i in range(300)
    ]
    for axes in planes(rows):
        outline = Outline(np.column_stack(sweet_zone(rows, axes)))
        every = [axes.cost(r) for r in rows[:6]]
        teachers = [p for p in every if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in every)]
        inside = [outline.contains_point((r[axes.x], r[axes.y])) for r in rows[6:]]
        wanted = [any(x < a and y < b for a, b in teachers) for x, y in map(axes.cost, rows[6:])]
        assert inside == wanted
        assert any(inside)
        assert not all(inside)
    low, high = limits(rows, "l0", log=True)
    assert low < min(r["l0"] for r in rows) < max(r["l0"] for r in rows) < high


# --- feature cards -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cards(run):
    done = evals("report", run, "--features", "2")
    assert done.returncode == 0, done.stderr
    return {f.stem: json.loads(f.read_text())["result"]["cards"] for f in (run / "cards").glob("*.json")}


def test_cards_show_a_rational_cell_and_its_control(run, cards):
    results = {r["cell"]: r for r in read_results(run)}
    assert sorted(results[cell]["variant"] for cell in cards) == ["control", "control", "gated", "gated"]
    for family in ("jump_relu", "sign_aware_gated"):
        pair = [made for cell, made in cards.items() if results[cell]["family"] == family]
        assert [c["latent"] for c in pair[0]] == [c["latent"] for c in pair[1]]
        signs = {tuple(side["sign"] for side in card["sides"]) for made in pair for card in made}
        assert signs == ({(1, -1)} if family == "sign_aware_gated" else {(1,)})


def test_cards_agree_with_the_codes(run, cards, host):
    """The store's held-out activations are those of the articles that the cards are of."""
    results = {r["cell"]: r for r in read_results(run)}
    head_VD = host.model.get_output_embeddings().weight
    for cell, made in cards.items():
        sae = load_sae(run, results[cell])
        assert sae.family == ("rational_" if results[cell]["control"] else "") + results[cell]["family"]
        store = rsae.Store.open(next(run.glob("sites/*/activations")))
        z_NF = sae.encode(store.sample(10**6, split="heldout"))
        for card in made:
            z_N = z_NF[:, card["latent"]]
            assert card["density"] == pytest.approx((z_N != 0).double().mean().item(), abs=0.01)
            for side in card["sides"]:
                size_N = (side["sign"] * z_N).clamp_min(0)
                assert abs(side["max"]) == pytest.approx(size_N.max().item(), rel=1e-4, abs=1e-6)
                values = [abs(c["value"]) for c in side["contexts"]]
                assert values == sorted(values, reverse=True)
                assert not values or values[0] == pytest.approx(abs(side["max"]))
                effect_V = head_VD @ (side["sign"] * sae.W_dec[card["latent"]])
                assert side["promotes"][0][1] == pytest.approx(effect_V.max().item(), rel=1e-4)
                assert side["suppresses"][0][1] == pytest.approx(effect_V.min().item(), rel=1e-4)


def test_text_is_shown_as_it_is(run, cards):
    shown = Page((run / "report.html").read_text()).items
    sides = [side for made in cards.values() for card in made for side in card["sides"]]
    texts = ["".join(context["tokens"]).strip() for side in sides for context in side["contexts"]]
    assert any("</" in text for text in texts)
    assert all(any(item.strip().endswith(text) for item in shown) for text in texts)


def test_cards_are_kept(run, cards):
    done = evals("report", run, "--features", "2")
    assert done.stderr.count("reused") >= 4
    assert "held-out articles" not in done.stderr
    assert evals("report", run).returncode == 0
    assert (run / "report.html").read_text().count('class="card"') == 8


def test_chosen_latents(run, cards):
    cell = next(c for c in cards if c.endswith("gated") and "jump_relu" in c)
    teacher = cell.removesuffix("gated") + "teacher"
    done = evals("report", run, "--latents", "3, 7", "--cell", teacher)
    assert done.returncode == 0, done.stderr
    made = json.loads((run / "cards" / f"{teacher}.json").read_text())["result"]["cards"]
    assert [card["latent"] for card in made] == [3, 7]
    (run / "cards" / f"{teacher}.json").unlink()


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
        (["--cell", "a"], ("--features N",)),
    ],
)
def test_mistakes(run, arguments, words):
    assert_one_clear_line(evals("report", run, *arguments), *words)
