import numpy as np
import pytest

import approx
from approx.plot import BLUE, error_curve, figure, plot_error


def test_the_curve_is_the_error(tmp_path):
    fit = approx.minimax(approx.jump_relu(), (5, 4))
    _made, axes = figure()
    error_curve(axes[0, 0], fit.rational, fit.target, fit.reference, BLUE, "error")
    curves = [line for line in axes[0, 0].get_lines() if len(line.get_xdata()) > 100]
    assert len(curves) == 2  # one an interval: nothing is drawn across the gap
    for line, (a, b) in zip(curves, fit.target.domain, strict=True):
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert a <= x.min() <= x.max() <= b
        assert np.allclose(y, fit.target(x) - fit.rational(x))
        assert np.max(np.abs(y)) <= fit.error * (1 + 1e-9)
    dots = axes[0, 0].get_lines()[-1]
    assert np.allclose(np.abs(np.asarray(dots.get_ydata())), fit.error, rtol=1e-6)
    assert plot_error(fit.rational, fit.target, tmp_path / "e.svg").read_text().startswith("<?xml")


def test_a_curve_below_rounding_is_the_error_too():
    fit = approx.minimax(approx.exp(), (9, 8))
    _made, axes = figure()
    error_curve(axes[0, 0], fit.rational, fit.target, fit.reference)
    curve, *_, dots = axes[0, 0].get_lines()
    assert np.max(np.abs(np.asarray(curve.get_ydata()))) == pytest.approx(fit.error, rel=1e-6)
    assert np.allclose(np.abs(np.asarray(dots.get_ydata())), fit.error, rtol=1e-6, atol=0)
    assert len(fit.reference) == 19


def test_a_relative_error_has_lines_and_dots_where_the_target_vanishes():
    """At the zero itself there is no relative error; all else is drawn."""
    fit = approx.minimax(approx.formula("sin(x)", (0, 2)).with_weight("relative"), (5, 0))
    _made, axes = figure()
    error_curve(axes[0, 0], fit.rational, fit.target, (0.0, *fit.reference))
    *_, low, high, dots = axes[0, 0].get_lines()
    for line, level in ((low, -fit.error), (high, fit.error)):
        assert np.allclose(line.get_ydata(), level, rtol=1e-3)
    assert np.all(np.isfinite(np.asarray(dots.get_ydata(), dtype=float)))


def test_the_title_is_what_was_typed(tmp_path):
    target = approx.formula("exp(-x)*2", (0, 1))
    drawn = plot_error(approx.minimax(target, (2, 1)).rational, target, tmp_path / "e.svg").read_text()
    assert "exp(-x)*2, type (2, 1)" in drawn
