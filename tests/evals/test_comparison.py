"""Runs compared: with the control beside each figure, by the very teacher, against a reference."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest

import evals as library
from evals.comparison import Counts, compare, controls_of
from evals.measures import columns
from evals.report.text import comparison_tables, pairs_table
from evals.results import Role, dump, read_results, write_result
from evals.stats import Interval
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.evals.helpers import control, result, tuned


def test_no_figure_without_its_control(suite_run, tmp_path):
    done = evals("compare", "--markdown", "--brief", "--json", tmp_path / "c.json", suite_run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| gated |") >= 4
    found = library.compare([suite_run])
    written = json.loads((tmp_path / "c.json").read_text())
    assert written.pop("claims") == {suite_run.name: []}
    assert written == json.loads(json.dumps(dump(found)))
    # its l0 is the control's, but for zeros
    top_k = next(r for r in found.matched if r.group.family == "top_k")
    assert (top_k.upgrade, top_k.control, top_k.seeds) == ("gated", "control", 2)
    fvu = top_k.figures["fvu"]
    assert fvu.n == 2
    assert fvu.se is not None
    assert fvu.se >= 0
    by_place = {}
    for r in found.fronts:
        by_place.setdefault((r.group.family, r.x, r.y), set()).add(r.variant)
    assert all(variants == {"teacher", "gated", "control"} for variants in by_place.values())
    zone = found.sweet_zone[0]
    assert zone.figures.cells == zone.controls.cells == 4
    assert {r.against for r in found.tally if r.variant == "gated"} == {"control", "teacher"}
    assert all(r.win == r.loss == 0 for r in found.tally)  # two seeds claim nothing


def test_differences_are_at_the_same_l0_and_over_seeds(tmp_path):
    """The control's FVU is 4 / l0; the upgrade's is 10, 15 and 20 % below, by seed."""
    for seed in range(3):
        for level in (10, 20, 40):
            write_result(tmp_path, result(level=level, seed=seed, l0=level, fvu=5 / level, mse=50 / level))
            write_result(tmp_path, control(level=level, seed=seed, l0=level, fvu=4 / level, mse=40 / level))
            l0 = 1.5 * level
            fvu = (0.9 - 0.05 * seed) * 4 / l0
            write_result(tmp_path, tuned(level=level, seed=seed, l0=l0, fvu=fvu, mse=10 * fvu))
    found = compare([tmp_path])
    (matched,) = found.matched
    assert (matched.cells, matched.outside, matched.seeds) == (6, 3, 3)  # 60 is beyond the control's 40
    assert matched.figures["fvu"].mean == pytest.approx(-0.15)
    assert matched.figures["fvu"].se == pytest.approx(0.05 / 3**0.5)
    (zone,) = found.sweet_zone
    assert zone.figures == Counts(l0=0, alive=0, cells=9)
    tally = {(r.variant, r.against): r for r in found.tally if r.measure == "fvu"}
    # 20 % with a standard error of 6 %, at the two levels within reach
    assert (tally["gated", "control"].win, tally["gated", "control"].open) == (2, 0)
    assert tally["control", "teacher"].win == 3
    front = next(f for f in found.fronts if (f.variant, f.x, f.y) == ("control", "l0", "fvu"))
    assert [point.x for point in front.points] == [10, 20, 40]


#: An interval of two groups is so many times as wide as their range: Student's t with a degree of freedom, 12.7062
TWO_GROUPS = 2**0.5 * 12.7062 / 1.959964


def test_pairs_are_on_the_same_predictions(tmp_path):
    for seed in (0, 1):
        write_result(tmp_path, result(seed=seed))
        write_result(tmp_path, control(seed=seed, kl=0.3, dce=0.2))
        write_result(tmp_path, tuned(seed=seed, kl=0.2, dce=0.2))
    found = compare([tmp_path]).paired
    assert [(p.upgrade, p.control, p.seed) for p in found] == [
        ("gated", "control", 0),
        ("gated", "control", 1),
    ]
    assert found[0].kl.mean == pytest.approx(-0.1)
    # sequences of 50 predictions each lose 4 and 6 nats
    assert found[0].kl.interval is not None
    half = 0.02 * TWO_GROUPS
    assert (found[0].kl.interval.low, found[0].kl.interval.high) == pytest.approx((-0.1 - half, -0.1 + half))
    assert (found[0].dce.mean, found[0].dce.interval) == (0, Interval(0, 0))


@pytest.mark.parametrize("rounding", [None, 5e-4])
def test_what_rounding_costs_stands_above_the_differences(tmp_path, rounding):
    """Whoever reads a difference in KL sees how much of one bfloat16 makes by itself."""
    for made in (result(), control(kl=0.3), tuned(kl=0.2)):
        downstream = replace(made.metrics.downstream, precision_kl=rounding)
        write_result(tmp_path, replace(made, metrics=replace(made.metrics, downstream=downstream)))
    title = pairs_table(compare([tmp_path])).title
    assert ("bfloat16, which by itself is KL 0.0005" in title) == (rounding is not None)


def test_cells_are_compared_by_what_all_have(tmp_path):
    """Runs that probed with other numbers of latents, and a run that was stopped while it was measured anew."""
    for run, probed in (("a", ("k1", "k5")), ("b", ("k5",)), ("c", ())):
        for level, fvu in ((8, 0.5), (32, 0.3)):
            figures = dict.fromkeys(probed, 0.7) | {"l0": level, "level": level, "fvu": fvu}
            write_result(tmp_path / run, result(**figures))
            write_result(tmp_path / run, control(**figures))
            write_result(tmp_path / run, tuned(**figures))
    write_result(tmp_path / "c", control(level=8, l0=8, k1=0.7))
    found = compare([tmp_path / run for run in "abc"])
    common = {m.group.run: m.figures.keys() - {"mse", "fvu", "kl", "dce"} for m in found.matched}
    assert common == {"a": {"k1", "k5"}, "b": {"k5"}, "c": set()}
    assert found.fronts
    assert found.tally


def test_the_same_cells_of_two_runs(tmp_path):
    """Two runs with the same name in different places, too; cells of one run alone are left out."""
    first, second = tmp_path / "before" / "run", tmp_path / "after" / "run"
    for directory, kl in ((first, 0.3), (second, 0.2)):
        write_result(directory, control(seed=0, fvu=kl, kl=kl, dce=0.2))
    write_result(second, control(seed=1))
    found = compare([first, second])
    (one,) = found.between
    assert (one.group.run, one.minus) == (str(second), str(first))
    assert (one.variant, one.seed) == ("control", 0)
    assert one.fvu == pytest.approx(-1 / 3)
    assert one.kl is not None
    assert one.kl.interval is not None
    interval = (one.kl.interval.low, one.kl.interval.high)
    assert (one.kl.mean, *interval) == pytest.approx(
        (-0.1, -0.1 - 0.02 * TWO_GROUPS, -0.1 + 0.02 * TWO_GROUPS)
    )
    assert one.dce is not None
    assert one.dce.mean == 0
    assert compare([first]).between == ()
    done = evals("compare", first, second, "--brief")
    assert done.returncode == 0, done.stderr
    assert "-33.33%" in done.stdout


def test_every_row_of_several_runs_says_which_it_is_of(tmp_path):
    for run, better in (("one", 0.9), ("two", 0.5)):
        for seed, level in product(range(3), (8, 32)):
            own = {"level": level, "l0": level, "seed": seed}
            write_result(tmp_path / run, result(fvu=6 / level, mse=6 / level, **own))
            write_result(tmp_path / run, control(fvu=5 / level, mse=5 / level, **own))
            write_result(tmp_path / run, tuned(fvu=5 * better / level, mse=5 * better / level, **own))
    found = compare([tmp_path / "one", tmp_path / "two"])
    assert {r.run for r in found.tally} == {"one", "two"}
    tables = comparison_tables(found)
    assert len(tables) == 4
    for table in tables:
        rows = [tuple(line.texts[:2]) for line in table.lines]
        assert len(set(rows)) == len(rows)
        assert {row[0].split()[0] for row in rows} == {"one", "two"}
    alone = comparison_tables(compare([tmp_path / "one"]))
    assert not any("one" in line.texts[0].split() for table in alone for line in table.lines)


def test_a_control_is_that_of_the_same_teacher():
    cells = [
        tuned(seed=0),
        tuned(seed=1),
        control(seed=1),
        control(seed=1, level=4),
        result(Role.START, "gated", "control"),
    ]
    found = controls_of(cells)
    assert found == {cells[1].cell: cells[2]}


def test_columns_are_those_that_some_cell_has(suite_run):
    keys = [measure.key for measure in columns(read_results(suite_run))]
    assert keys[:3] == ["l0", "mse", "fvu"]
    assert {"k1", "k20", "dce"} <= set(keys)
    assert not {"bipolar", "opposition", "soft_fvu"} & set(keys)


def test_families_of_their_own_widths_without_upgrades(suite_file, tmp_path):
    text = suite_file.read_text()
    text = text.replace('["jump_relu", "top_k"]', '["top_k", "abs_top_k"]').replace("[0, 1]", "[0]")
    text = text.replace("d_sae = [48]", "d_sae = [48]\nwidths.abs_top_k = [24]")
    text = text.replace("[upgrades.gated]\ntype = [3, 2]\n", "")
    start = text.index("tasks = ")
    file = tmp_path / "signs.toml"
    file.write_text(text[:start] + "tasks = []\nintervention = 2\n")
    out = tmp_path / "run"
    done = evals("run", file, "--out", out)
    assert done.returncode == 0, done.stderr
    made = read_results(out)
    assert {(r.family, r.d_sae, r.role) for r in made} == {
        ("top_k", 48, Role.TEACHER),
        ("abs_top_k", 24, Role.TEACHER),
    }
    pushed = [r.metrics.intervention for r in made]
    assert all(p is not None and p.dials == 2 and (p.kl_plus or 0) > 0 for p in pushed)
    assert "opposition" in evals("compare", out, "--markdown").stdout
    wrong = evals("compare", out, "--brief", "--reference", "top_k-84")
    assert_one_clear_line(wrong, "'top_k-84'", "did you mean 'top_k-48'")
    (record,) = library.compare([out], "top_k-48").reference
    assert (record.group.family, record.cells, record.seeds) == ("abs_top_k", 2, 1)
    by_level = {(r.family, str(r.level)): r.metrics.reconstruction.r2 for r in made}
    gaps = [by_level["abs_top_k", k] - by_level["top_k", k] for k in ("k4", "k8")]
    assert record.figures["r2"].mean == pytest.approx(sum(gaps) / 2, abs=1e-3)  # k is the l0 of both
    assert record.verdicts["r2"] == "open"
    # trained SAEs alone have a report and a figure, too
    done = evals("report", out, "--reference", "top_k-48", "--figures", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (out / "report.html").read_text()
    assert "at matched l0, minus top_k-48" in text
    assert text.count("data-front=") == 1  # both families in the site's one panel
    assert '"name": "abs_top_k 24"' in text
    assert (tmp_path / "families.png").read_bytes().startswith(b"\x89PNG")
