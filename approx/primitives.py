"""The built-in targets, one row each in `PRIMITIVES`, which files and the command line read too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import fmpq_poly
from scipy import special

from approx.domain import Domain
from approx.formulas import formula
from approx.functions import Functions
from approx.target import Target

_ZERO, _ONE, _X = fmpq_poly([]), fmpq_poly([1]), fmpq_poly([0, 1])


def relu(domain: Any = (-1, 1)) -> Target:
    """max(x, 0).

    Args:
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
    """
    return Target.of_branches("relu", lambda x: np.maximum(x, 0.0), [_ZERO, _X], domain, relu, kinks=(0,))


def absolute(domain: Any = (-1, 1)) -> Target:
    """|x|.

    Args:
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
    """
    return Target.of_branches("absolute", np.abs, [-_X, _X], domain, absolute, kinks=(0,))


def sqrt(domain: Any = (0, 1)) -> Target:
    """The square root.

    Args:
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.

    Raises:
        ValueError: when the domain reaches below 0.
    """
    if Domain(domain).hull[0] < 0:
        raise ValueError(f"domain={domain!r}: sqrt needs a domain in [0, inf)")
    return Target.of_branches("sqrt", np.sqrt, [Functions.sqrt], domain, sqrt)


def _without(domain: Any, low: float, high: float, names: str) -> Domain:
    """The domain without the open interval (low, high) around a jump."""
    whole = Domain(domain)
    a, b = whole.hull
    if not a < low < high < b:
        raise ValueError(f"{names}: the gap from {low} to {high} must not be empty and lie inside ({a}, {b})")
    return whole.without(low, high)


def sign(delta: float = 0.1, domain: Any = (-1, 1)) -> Target:
    """sign(x) on the domain without (-delta, delta).

    Args:
        delta: half-width of the gap around 0, inside (0, 1).
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.

    Raises:
        ValueError: when this gap is not inside it.
    """
    return _sign(delta, _without(domain, -delta, delta, f"delta={delta}"))


def _sign(delta: float, domain: Any) -> Target:
    return Target.of_branches(
        "sign", np.sign, [-_ONE, _ONE], domain, _sign, jumps=(0,), params={"delta": float(delta)}
    )


def gate(theta: float = 0.0, margin: float = 0.01, domain: Any = (-1, 1)) -> Target:
    """The Heaviside gate 1[h > theta] on the domain without (theta - margin, theta + margin).

    Args:
        theta: the threshold.
        margin: half-width of the gap that is left out around each jump.
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.

    Raises:
        ValueError: when this gap is not inside the domain. `with_domain` puts the jump back: no rational
            function is closer to it than half its height.
    """
    names = f"theta={theta}, margin={margin}"
    return _gate(theta, margin, _without(domain, theta - margin, theta + margin, names))


def _gate(theta: float, margin: float, domain: Any) -> Target:
    params = {"theta": float(theta), "margin": float(margin)}
    return Target.of_branches(
        "gate", lambda x: (x > theta) * 1.0, [_ZERO, _ONE], domain, _gate, jumps=(theta,), params=params
    )


def jump_relu(theta: float = 0.1, margin: float = 0.01, domain: Any = (-1, 1)) -> Target:
    """h 1[h > theta] on the domain without (theta - margin, theta + margin).

    Args:
        theta: the threshold.
        margin: half-width of the gap that is left out around each jump.
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.

    Raises:
        ValueError: as `gate` does.
    """
    names = f"theta={theta}, margin={margin}"
    return _jump_relu(theta, margin, _without(domain, theta - margin, theta + margin, names))


def _jump_relu(theta: float, margin: float, domain: Any) -> Target:
    params = {"theta": float(theta), "margin": float(margin)}
    return Target.of_branches(
        "jump_relu", lambda x: x * (x > theta), [_ZERO, _X], domain, _jump_relu, jumps=(theta,), params=params
    )


def bi_jump_relu(theta: float = 0.1, margin: float = 0.01, domain: Any = (-1, 1)) -> Target:
    """h 1[|h| > theta] (arXiv 2605.28149) on the domain without gaps of theta +- margin on either side of 0.

    On a symmetric domain it is odd, and so is its best approximation.

    Args:
        theta: the threshold.
        margin: half-width of the gap that is left out around each jump.
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.

    Raises:
        ValueError: as `gate` does, and where the two gaps leave nothing of the dead zone between them.
    """
    names = f"theta={theta}, margin={margin}"
    if not theta > margin:
        raise ValueError(
            f"{names}: theta must be larger than margin, or no dead zone is left between the gaps"
        )
    for jump in (-theta, theta):
        domain = _without(domain, jump - margin, jump + margin, names)
    return _bi_jump_relu(theta, margin, domain)


def _bi_jump_relu(theta: float, margin: float, domain: Any) -> Target:
    return Target.of_branches(
        "bi_jump_relu",
        lambda x: x * (np.abs(x) > theta),
        [_X, _ZERO, _X],
        domain,
        _bi_jump_relu,
        jumps=(-theta, theta),
        params={"theta": float(theta), "margin": float(margin)},
    )


def exp(domain: Any = (-1, 1)) -> Target:
    """The exponential.

    Args:
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
    """
    return Target.of_branches("exp", np.exp, [Functions.exp], domain, exp)


def tanh(domain: Any = (-1, 1)) -> Target:
    """The hyperbolic tangent.

    Args:
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
    """
    return Target.of_branches("tanh", np.tanh, [Functions.tanh], domain, tanh)


def sigmoid(domain: Any = (-1, 1)) -> Target:
    """1/(1 + exp(-x)).

    Args:
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
    """
    return Target.of_branches("sigmoid", special.expit, [Functions.sigmoid], domain, sigmoid)


def _silu(x: Any) -> Any:
    return x * Functions.sigmoid(x)


def _gelu(x: Any) -> Any:
    return x * Functions.normal_cdf(x)


def silu(domain: Any = (-1, 1)) -> Target:
    """x/(1 + exp(-x)), also called swish.

    Args:
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
    """
    return Target.of_branches("silu", _silu, [_silu], domain, silu)


def gelu(domain: Any = (-1, 1)) -> Target:
    """x times the standard normal distribution function.

    Args:
        domain: (a, b), or [(a, b), (c, d), ...]; where the function is to be used.
    """
    return Target.of_branches("gelu", _gelu, [_gelu], domain, gelu)


@dataclass(frozen=True)
class Primitive:
    """A row of the registry."""

    make: Callable[..., Target]
    """The public function that makes the target."""
    options: tuple[str, ...] = ()
    """Names of its parameters besides the domain."""
    whole: Callable[..., Target] | None = None
    """The same on a domain that is given whole, as a file gives it; None where `make` cuts nothing out."""


PRIMITIVES: dict[str, Primitive] = {
    "relu": Primitive(relu),
    "absolute": Primitive(absolute),
    "sqrt": Primitive(sqrt),
    "sign": Primitive(sign, ("delta",), _sign),
    "gate": Primitive(gate, ("theta", "margin"), _gate),
    "jump_relu": Primitive(jump_relu, ("theta", "margin"), _jump_relu),
    "bi_jump_relu": Primitive(bi_jump_relu, ("theta", "margin"), _bi_jump_relu),
    "exp": Primitive(exp),
    "tanh": Primitive(tanh),
    "sigmoid": Primitive(sigmoid),
    "silu": Primitive(silu),
    "gelu": Primitive(gelu),
}


def target_from_json(data: Any) -> Target:
    """The inverse of `Target.to_json`.

    Args:
        data: the record of a built-in target or a formula.

    Returns:
        The target.

    Raises:
        ValueError: that says what is wrong with the record.
    """
    try:
        name = data["name"]
        params = {k: v if k == "text" else _decode(v) for k, v in data["params"].items()}
        domain = [(float.fromhex(a), float.fromhex(b)) for a, b in data["domain"]]
        row = Primitive(formula) if name == "formula" else PRIMITIVES[name]
        weight = data["weight"]
        weight = target_from_json(weight) if isinstance(weight, dict) else weight
        return (row.whole or row.make)(**params, domain=domain).with_weight(weight)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"malformed record of a target: {type(error).__name__}: {error}") from None


def _decode(item: Any) -> Any:
    return [float.fromhex(v) for v in item] if isinstance(item, list) else float.fromhex(item)
