import pytest

import approx
from approx import Rational

R = Rational.from_monomial([1, 2, 3], [1, 0.5], (0, 1))
TAKEN = {
    "python": ["class", "lambda", "None", "np", "abs", "a b", "1x", "", "print"],
    "torch": ["torch", "abs", "def"],
    "c": ["int", "double", "main", "fabs", "sin", "expf", "return", "größe", "a-b"],
}


@pytest.mark.parametrize(("to", "name"), [(to, name) for to, names in TAKEN.items() for name in names])
def test_names_that_are_not_free_are_refused(to, name):
    with pytest.raises(ValueError, match="name=") as refusal:
        approx.export(R, to, "float32", name=name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["TABLE", "np", "abs", "class"])
@pytest.mark.parametrize("to", ["python", "numpy", "torch"])
def test_names_in_chains_that_are_not_free_are_refused(to, name):
    with pytest.raises(ValueError, match="name="):
        approx.composite_sign(0.1, (3,)).export(to, name)


@pytest.mark.parametrize("name", ["f", "rational", "x", "t1", "gelu_9", "matching", "half"])
def test_other_names_are_taken(name):
    scope: dict = {}
    exec(approx.export(R, "python", name=name), scope)
    assert scope[name](0.5) == pytest.approx(R(0.5))
    assert f"double {name}(double x)" in approx.export(R, "c", name=name)
