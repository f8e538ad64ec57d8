"""Complex samples: frequency responses of known systems, and best errors on the circle that are known."""

import numpy as np
import pytest

import approx
from approx import aaa


def system(seed: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Poles in the left half-plane and residues, in conjugate pairs."""
    rng = np.random.default_rng(seed)
    p = -rng.uniform(0.05, 1, order // 2) + 1j * rng.uniform(0.5, 9, order // 2)
    rho = rng.normal(size=order // 2) + 1j * rng.normal(size=order // 2)
    return np.r_[p, p.conj()], np.r_[rho, rho.conj()]


def response(z: np.ndarray, poles: np.ndarray, residues: np.ndarray) -> np.ndarray:
    return np.sum(residues / (z[:, None] - poles), axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_a_system_is_found_from_its_response(seed):
    poles, residues = system(seed, 8)
    z = 1j * np.linspace(0.1, 10, 400)
    fit = aaa(z, response(z, poles, residues), 8, real=True)
    assert fit.error < 1e-9
    assert fit.stable
    for p, rho in zip(poles, residues, strict=True):
        k = int(np.argmin(np.abs(fit.poles - p)))
        assert abs(fit.poles[k] - p) < 1e-6
        assert abs(fit.residues[k] - rho) < 1e-5
    r = fit.rational((0.1, 10))
    assert np.max(np.abs(r(z) - fit(z))) < 1e-9
    # the function is real: conjugate points have conjugate values
    assert fit(z.conj()) == pytest.approx(fit(z).conj(), abs=1e-12)


def test_stable_poles_on_request():
    rng = np.random.default_rng(0)
    z = 1j * np.linspace(0.1, 10, 500)
    y = response(z, *system(3, 6)) + 0.03 * (rng.normal(size=500) + 1j * rng.normal(size=500))
    free, stable = (aaa(z, y, 12, real=True, stable=s) for s in (False, True))
    assert stable.stable
    assert not free.stable  # or the test would show nothing
    assert stable.error < 1.0


@pytest.mark.parametrize(("n", "pole"), [(3, 2.0), (4, -1.5)])
def test_lawson_brings_the_error_down(n, pole):
    z = np.exp(2j * np.pi * np.arange(400) / 400)
    y = np.sqrt(1 - z / pole)
    start, better = aaa(z, y, n, lawson=0), aaa(z, y, n, lawson=60)
    assert better.error <= start.error
    size = np.abs(y - better(z))
    # the error of a best approximation on a circle is nearly one of constant modulus
    assert size.max() < 1.2 * np.median(size)


def test_a_million_samples():
    poles, residues = system(7, 10)
    z = 1j * np.linspace(0.01, 20, 10**6)
    fit = aaa(z, response(z, poles, residues), real=True)
    assert fit.error < 1e-8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([1, 2], [1]), "one shape"),
        (([1, np.nan], [1, 2]), "finite"),
        (([1, 2, 3], [1, 2, 3], -1), "degree"),
    ],
)
def test_wrong_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        aaa(*arguments)
    x = np.linspace(0, 1, 50)
    with pytest.raises(ValueError, match="real=True"):
        aaa(x, np.exp(1j * x), 3).rational()
    with pytest.raises(ValueError, match=r"approx\.aaa"):
        approx.minimax((x, np.exp(1j * x)), (3, 3))


@pytest.mark.parametrize("real", [True, False])
def test_the_error_is_that_of_all_samples_where_points_repeat(real):
    """Two values at a point cannot both be met: the least error is half their distance."""
    z = 1j * np.linspace(0.1, 10, 300)
    y = 1 / (z + 1)
    order = np.random.default_rng(0).permutation(600)
    points, values = np.r_[z, z][order], np.r_[y, y + 0.1][order]
    fit = aaa(points, values, degree=3, real=real)
    assert fit.error == pytest.approx(float(np.max(np.abs(values - fit(points)))), rel=1e-9)
    assert fit.error == pytest.approx(0.05, rel=0.02)
