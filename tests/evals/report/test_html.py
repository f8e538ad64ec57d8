"""The report of a suite on a tiny host, read back as a browser would: tables, figures, what is missing."""

from __future__ import annotations

import json
import re

from evals.comparison import controls_of
from evals.config import SuiteConfig
from evals.gates import read_gate
from evals.report.html import missing, write_report
from evals.results import read_results
from tests.evals.conftest import evals
from tests.evals.report.conftest import Page


def test_the_page_stands_alone(report_run, page):
    markup = re.sub(r"<script.*?</script>", "", (report_run / "report.html").read_text(), flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=|@import|url\(|http-equiv", markup)
    assert "<script src" not in (report_run / "report.html").read_text()


def test_a_row_a_cell_and_the_control_under_each_figure(report_run, page):
    results = {r.cell: r for r in read_results(report_run)}
    rows = {a["data-cell"]: text.split() for a, text in page.rows if "data-cell" in a}
    assert rows.keys() == results.keys()
    for cell, r in results.items():
        if r.upgrade:
            control = controls_of(list(results.values()))[cell]
            own, theirs = (f"{c.metrics.reconstruction.fvu:.4f}" for c in (r, control))
            assert any(pair == (own, theirs) for pair in zip(rows[cell], rows[cell][1:], strict=False))


def test_figures_hold_every_cell(report_run, page):
    figures = json.loads(page.texts["figures"])
    results = read_results(report_run)
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


def test_the_start_of_soft_is_proven(report_run, page):
    gate = read_gate(report_run, "jump_relu", (3, 2))
    assert gate is not None
    text = (report_run / "report.html").read_text()
    proven = re.findall(r"proven: (\S+) &le; sup \|f &minus; r\| &le; (\S+)\.", text)
    assert proven == [(f"{gate.bounds.lower:.6e}", f"{gate.bounds.upper:.6e}")]


def test_a_report_only_reads(report_run, monkeypatch):
    """It loads no host, no SAE and no activations, and fits nothing."""
    import approx
    import rsae

    def never(*_, **__):
        raise AssertionError("a report only reads")

    for module, name in (
        (rsae, "load_host"),
        (rsae, "load"),
        (rsae, "harvest"),
        (approx, "minimax"),
        (approx, "certify"),
    ):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr(rsae.Store, "open", never)
    before = {f for f in report_run.rglob("*") if f.is_file()}
    write_report(report_run)
    assert {f for f in report_run.rglob("*") if f.is_file()} == before | {report_run / "report.html"}


def test_the_settings_can_be_run_again(report_run, page, tmp_path):
    (tmp_path / "again.toml").write_text(page.texts["config"])
    assert SuiteConfig.read(tmp_path / "again.toml") == SuiteConfig.read(report_run / "suite.toml")


def test_what_is_missing_is_said(report_run, page):
    assert "missing" not in page.texts
    lost = {f: f.read_text() for f in (report_run / "results").glob("*jump_relu*-control.json")}
    for file in lost:
        file.unlink()
    try:
        assert missing(report_run, read_results(report_run)).cells == len(lost) == 2
        assert evals("report", report_run).returncode == 0
        partial = Page((report_run / "report.html").read_text())
        assert "jump_relu-s0: 2 cells missing" in partial.texts["missing"]
        gated = [text for a, text in partial.rows if re.search("jump_relu.*gated$", a.get("data-cell") or "")]
        assert len(gated) == 2
        assert all("control (missing)" in text for text in gated)
        assert not any(" nan" in text for _, text in partial.rows)
        suite = (report_run / "suite.toml").read_text()
        (report_run / "suite.toml").write_text(suite.replace("[train]", "[trian]"))
        assert "unknown key 'trian'" in missing(report_run, read_results(report_run)).stale
        (report_run / "suite.toml").write_text(suite)
    finally:
        for file, text in lost.items():
            file.write_text(text)


def test_a_demo_shows_each_upgrade_beside_its_control(demo_run):
    write_report(demo_run)
    text = (demo_run / "report.html").read_text()
    page = Page(text)
    assert "one level of sparsity" in text
    for words in (
        "jump_relu soft",
        "top_k gated",
        "control-l1",
        "soft-init",
        "certified bound",
        "spam",
        "Proven",
    ):
        assert words in text
    rows = [text.split() for attributes, text in page.rows if "data-cell" not in attributes]
    assert (
        sum(
            row[:2] in ([f, u] for f in ("relu", "jump_relu", "top_k") for u in ("soft", "gated"))
            for row in rows
        )
        == 6
    )
