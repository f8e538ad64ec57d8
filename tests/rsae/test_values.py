import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.results import Level
from rsae import InputError
from rsae.grid import Grid
from rsae.support.values import numeral, parse_settings, parse_value, parse_values

NUMBERS = st.integers(-(2**80), 2**80) | st.floats(-1e300, 1e300)
#: Neighbours, which short forms do not tell apart
NEAR = NUMBERS.flatmap(
    lambda v: st.tuples(st.just(v), st.sampled_from([v + 1, math.nextafter(v, math.inf), v * 1.0000001]))
)


@given(st.tuples(NUMBERS, NUMBERS) | NEAR)
def test_numbers_are_written_alike_only_where_they_are_one(pair):
    a, b = pair
    assert (numeral(a) == numeral(b)) == (a == b) or {a, b} == {0}
    for value in pair:
        assert json.loads(numeral(value)) == value


@pytest.mark.parametrize(
    ("value", "text"), [(32, "32"), (0.1, "0.1"), (2.0, "2"), (1e-5, "1e-05"), (0.003, "0.003")]
)
def test_ordinary_numbers_keep_their_short_form(value, text):
    assert numeral(value) == text


@given(NEAR)
def test_directories_and_cells_tell_values_apart(pair):
    a, b = pair
    if a == b:
        return
    assert str(Level("sparsity", a)) != str(Level("sparsity", b))
    for option in ("k", "sparsity", "l0", "seed"):
        grid = Grid(**{option: [a, b]}) if option == "seed" else Grid(**{option: [a, b], "seed": [0, 1]})
        labels = [grid.label(point) for point in grid.points()]
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        (".5", 0.5),
        ("3.e-3", 0.003),
        ("1e-3", 0.001),
        ("kl", "kl"),
        ("mse+kl", "mse+kl"),
        ('"kl"', "kl"),
        ("True", True),
        ("false", False),
        ("null", None),
        ("None", None),
        ("[16,32]", [16, 32]),
        ("[.5,.9]", [0.5, 0.9]),
        ("[True, False,kl]", [True, False, "kl"]),
        ("[[.5,1],[2,None]]", [[0.5, 1], [2, None]]),
        ('["a,b]",.5]', ["a,b]", 0.5]),
    ],
)
def test_a_value_is_read_alike_in_all_places(text, value):
    assert parse_value(text) == value
    assert parse_settings("--setting", [f"a={text}"]) == {"a": value}
    assert parse_values("--vary", [f"a={text}"]) == {"a": [value]}


@given(st.text())
def test_any_text_is_read_or_told(text):
    for parse in (parse_settings, parse_values):
        with suppress(InputError):
            (name,) = parse("--setting", [text])
            assert text.startswith(f"{name}=")


LISTS = st.recursive(
    st.sampled_from([(".5", 0.5), ("3", 3), ("True", True), ("None", None), ("kl", "kl"), ('"a,]"', "a,]")]),
    lambda inner: st.lists(inner, min_size=1, max_size=4).map(
        lambda some: (f"[{','.join(text for text, _ in some)}]", [value for _, value in some])
    ),
)


@given(st.lists(LISTS, min_size=2, max_size=4))
def test_the_list_that_a_message_advises_is_read(some):
    given = ",".join(text for text, _ in some)
    with pytest.raises(InputError) as refused:
        parse_settings("--setting", [f"a={given}"])
    advised = str(refused.value).split("a list as ")[1]
    values = [value for _, value in some]
    assert parse_settings("--setting", [advised]) == {"a": values}
    assert parse_values("--then", [advised]) == {"a": [values]}
    if all(value not in values[:i] for i, value in enumerate(values)):
        assert parse_values("--then", [f"a={given}"]) == {"a": values}


@pytest.mark.parametrize("text", ["a=[.5,1", "a=.5,1]", "a=[.5}", "a=[", "a=[.5],1]"])
def test_brackets_that_do_not_match_are_told(text):
    for parse in (parse_settings, parse_values):
        with pytest.raises(InputError, match="close brackets"):
            parse("--setting", [text])


def test_brackets_of_any_depth_are_read_or_told():
    for text in ("[" * 5000 + "]" * 5000, "[" * 5000 + ".5" + "]" * 5000, "[" * 5000):
        with suppress(InputError):
            parse_settings("--setting", [f"a={text}"])


def test_several_values():
    assert parse_values("--vary", ["a=1,.5,x", "b=[1,2],[3]"]) == {"a": [1, 0.5, "x"], "b": [[1, 2], [3]]}
