import numpy as np
import pytest

import approx
from approx.paper.table import PRIMITIVES, TYPES, rebuild


@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_entry_is_proven_best(name):
    for type in TYPES:
        entry = approx.table(name, type)
        entry.verify()
        assert entry.type == type
        assert entry.pole_free
        assert entry.target.to_json() == PRIMITIVES[name]().to_json()
        assert entry.best_lower <= entry.lower <= entry.upper <= entry.best_lower * (1 + 1e-8)


def test_it_is_what_the_fitter_gives():
    entry, fit = approx.table("jump_relu", (9, 8)), approx.minimax(approx.jump_relu(0.1, margin=0.01), (9, 8))
    x = np.linspace(-1, 1, 101)
    assert entry.rational(x) == pytest.approx(fit.rational(x), abs=1e-9)
    assert entry.upper == pytest.approx(4.678540127070067e-4, rel=1e-8)


def test_rebuild_writes_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("approx.paper.table.TYPES", [(3, 2)])
    rebuild(tmp_path, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{n}_3_2.json" for n in PRIMITIVES)
    assert approx.verify(tmp_path / "relu_3_2.json").upper == approx.table("relu", (3, 2)).upper


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="name"):
        approx.table("softplus", (3, 2))
    with pytest.raises(ValueError, match="type"):
        approx.table("relu", (4, 4))
