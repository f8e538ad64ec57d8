import pickle

import numpy as np
import pytest

from approx import Samples


def test_samples_are_sorted_and_weighted():
    s = Samples([3, 1, 2], [30, 10, 20], errors=[3, 1, 2])
    assert list(s.x) == [1, 2, 3]
    assert list(s.y) == [10, 20, 30]
    assert list(s.w) == [1, 0.5, 1 / 3]
    assert s.hull == (1, 3)
    assert s(np.array([1.5])) == pytest.approx(15)
    assert list(s.with_weight("relative").w) == pytest.approx([0.1, 0.05, 1 / 30])
    assert list(s.with_weight(lambda x: x).w) == [1, 2, 3]
    assert list(s.with_domain((0, 2.5)).w) == [1, 0.5]
    again = pickle.loads(pickle.dumps(s))
    assert np.array_equal(again.w, s.w)
    assert np.array_equal(again.y, s.y)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([1, 2], [1]), "one shape"),
        (([[1, 2]], [[1, 2]]), "one shape"),
        (([1, 2], [1j, 2]), "approx.aaa"),
        (([1, np.nan], [1, 2]), "finite"),
        (([1, 1], [1, 2]), "two different"),
        (([], []), "two different"),
        (([1, 2], [1, 2], 0.0), "positive"),
        (([1, 2], [1, 2], None, [1, -1]), "positive"),
        (([1, 2], [0, 2], None, "relative"), "positive"),
        (([1, 2], [0, 2], 1.0, [1, 1]), "not both"),
        (([1, 2], [0, 2], None, [1, 1, 1]), r"weight= has shape \(3,\); expected \(2,\)"),
        (([1, 2], [0, 2], [1, 1, 1]), r"errors= has shape \(3,\); expected \(2,\)"),
        (([1, 2], [0, 2], None, "exp(x)"), "weight='exp\\(x\\)': expected real numbers"),
    ],
)
def test_what_is_no_sample_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        Samples(*arguments)


def test_csv_files(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("x,y,sigma\n# a comment\n0,1,0.5\n1,2,0.5\n\n2,3,0.25\n")
    s = Samples.read(path)
    assert list(s.y) == [1, 2, 3]
    assert list(s.w) == [2, 2, 4]
    for text, says in (
        ("0,1\n1\n", "line 2"),
        ("0,1\na,b\n", "line 2"),
        ("x,y\n", "no samples"),
        ("1\n", "line 1"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=says):
            Samples.read(path)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("x,y\n0,1\n1,2\n", 2),
        ("\ufeff0,1\n1,2\n", 2),
        ("\ufeffx,y\n0,1\n1,2\n", 2),
        ("# a comment\n\nx,y\n0,1\n1,2\n", 2),
        (" , \n0,1\n\n1,2\n", 2),
    ],
)
def test_headings_comments_and_marks_lose_no_sample(tmp_path, text, count):
    (tmp_path / "s.csv").write_text(text, encoding="utf-8")
    assert len(Samples.read(tmp_path / "s.csv").x) == count


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("0,\n1,2\n2,5\n", 1),
        ("1e,5\n1,2\n2,5\n", 1),
        ("0,1;\n1,2\n2,5\n", 1),
        ("x,\n1,2\n2,5\n", 1),
        ("x,y\na,b\n1,2\n", 2),
        ("x,y\n0,nan\n1,2\n", 2),
        ("0,1\n1,inf\n", 2),
        ("0,1\n1,2,3\n", 2),
    ],
)
def test_a_broken_line_is_named_and_never_dropped(tmp_path, text, line):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"s.csv, line {line}: expected "):
        Samples.read(tmp_path / "s.csv")


@pytest.mark.parametrize("mark", [";", "\t", " "])
def test_another_mark_between_columns_is_told(tmp_path, mark):
    (tmp_path / "s.csv").write_text(f"x{mark}y\n0{mark}1\n1{mark}2\n")
    with pytest.raises(ValueError, match="line 2: expected finite numbers with commas between"):
        Samples.read(tmp_path / "s.csv")


def test_the_number_of_columns_is_told(tmp_path):
    (tmp_path / "s.csv").write_text("0,1,2,3\n")
    with pytest.raises(ValueError, match="expected x,y or x,y,error, found 4 columns"):
        Samples.read(tmp_path / "s.csv")


def test_another_encoding_is_named(tmp_path):
    (tmp_path / "s.csv").write_text("x,y\n0,1\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"s.csv: not readable as CSV .*save it as UTF-8"):
        Samples.read(tmp_path / "s.csv")
