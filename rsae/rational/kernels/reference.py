"""What every kernel computes: phi(h) = c_out r(h / c_in), from one matrix of parameters, in plain torch.

`parameters_PF` has a column a latent (or one column for all) and a row a parameter: r's own, then 1 / c_in, then c_out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Shape(NamedTuple):
    """Which r: partial fractions with `pairs` pole pairs, or P/Q of degrees p and q with monomial coefficients.

    Partial fractions: c0 + c1 t + sum_j (alpha_j s_j + beta_j) / (s_j^2 + w_j), s_j = t - u_j, with the parameters in
    the order c0, c1, all alpha, all beta, all u, all w. P/Q: a_0 .. a_p, b_1 .. b_q; Q = 1 + sum b_j t^j, with |t| for
    t where `absolute` is 1, and 1 + |sum b_j t^j| where it is 2.
    """

    pairs: int = 0
    p: int = 0
    q: int = 0
    absolute: int = 0

    @property
    def polynomial(self) -> bool:
        """Whether it has no denominator; the fused kernels do not know these."""
        return not (self.pairs or self.q)

    def macros(self) -> dict[str, int]:
        """What the C++ kernel is compiled with."""
        if self.pairs:
            return {"PAIRS": self.pairs}
        return {"DEGREE_P": self.p, "DEGREE_Q": self.q, "ABSOLUTE": self.absolute}


def evaluate(h_BF: torch.Tensor, parameters_PF: torch.Tensor, shape: Shape) -> torch.Tensor:
    """phi(h_BF) = C_out r(h / C_in).

    Args:
        h_BF: Pre-activations.
        parameters_PF: The rational's parameters, laid out as `reference.Shape` says.
        shape: Which rational function it is.
    """
    return parameters_PF[-1] * rational(h_BF * parameters_PF[-2], parameters_PF, shape)


def rational(t_BF: torch.Tensor, p_PF: torch.Tensor, shape: Shape) -> torch.Tensor:
    """r(t_BF).

    Args:
        t_BF: Arguments.
        p_PF: The parameters of r.
        shape: Which rational function it is.
    """
    if shape.pairs:
        return _partial_fractions(t_BF, p_PF, shape.pairs)
    a_PF, b_PF = p_PF[: shape.p + 1], p_PF[shape.p + 1 : shape.p + 1 + shape.q]
    if shape.polynomial:
        return _horner(t_BF, a_PF)
    x_BF = t_BF.abs() if shape.absolute == 1 else t_BF
    sum_BF = x_BF * _horner(x_BF, b_PF)
    return _horner(t_BF, a_PF) / (1 + (sum_BF.abs() if shape.absolute == 2 else sum_BF))


def _partial_fractions(t_BF: torch.Tensor, p_PF: torch.Tensor, pairs: int) -> torch.Tensor:
    r_BF = torch.addcmul(p_PF[0], t_BF, p_PF[1])
    for j in range(2, 2 + pairs):
        alpha_F, beta_F, u_F, w_F = (p_PF[j + i * pairs] for i in range(4))
        s_BF = t_BF - u_F
        r_BF = torch.addcdiv(r_BF, torch.addcmul(beta_F, s_BF, alpha_F), torch.addcmul(w_F, s_BF, s_BF))
    return r_BF


def _horner(t_BF: torch.Tensor, c_PF: torch.Tensor) -> torch.Tensor:
    value_BF = c_PF[-1].expand_as(t_BF)
    for c_F in c_PF[:-1].flip(0):
        value_BF = torch.addcmul(c_F, value_BF, t_BF)
    return value_BF
