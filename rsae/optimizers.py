"""What moves the parameters: Adam, Muon, Schedule-Free AdamW.

Adam is torch's. The others are our own, since the training loop asks more of them than torch's: exact resuming, weights
in parts of a dictionary, constraints after each step. Shapes: F latents (of a skip connection: its outputs), D inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

import torch
from torch.nn import Parameter

import approx
from rsae.sae.base import SAE

Name = Literal["adam", "muon", "schedule_free"]
State = dict[str, torch.Tensor]

#: Share of the steps in which the rate falls at the end, where none is given
LR_DECAY: dict[str, float] = {"adam": 0.3, "muon": 0.3, "schedule_free": 0.0}
#: Weights that are matrices of one linear map, by the dimension that is the longer one (latents)
_MATRICES = {"W_enc": 1, "W_dec": 0, "W_skip": 0}
#: Root mean square of Muon's update in units of the rate: that of a typical update of Adam
_RMS = 0.2
_EPS = 1e-8
#: Muon's chain brings singular values above this share of the largest near 1, in so many steps
_LOWER, _DEGREES = 1e-3, (5,) * 5


def optimizer(name: Name, sae: SAE, groups: list[dict[str, Any]], betas: tuple[float, float]) -> Optimizer:
    """An optimiser of an SAE's parameters.

    Args:
        name: Which.
        sae: The SAE.
        groups: Parameters with their rates, as torch's optimisers take them.
        betas: Decay of the mean of gradients and of their squares; what the first means is the optimiser's own.
    """
    if name == "adam":
        return Adam(groups, betas=betas, fused=True)
    return Muon(groups, betas, sae) if name == "muon" else ScheduleFree(groups, betas)


class Optimizer(torch.optim.Optimizer):
    """What the training loop asks of an optimiser beside torch's own."""

    def blank(self, p: Parameter) -> State:
        """What is kept of a parameter before its first step.

        Args:
            p: The parameter.
        """
        raise NotImplementedError

    def settle(self, change: Callable[[], None]) -> None:
        """After a step: bring the parameters where they have to be.

        Args:
            change: Changes them in place; it is called for each sequence of parameters that the optimiser keeps.
        """
        change()

    def finish_(self) -> None:
        """After the last step: parameters become what the training gives."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each parameter that has a gradient.

        Args:
            closure: Not used.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    if not self.state[p]:
                        self.state[p] = self.blank(p)
                    self._move(p, p.grad, self.state[p], group)

    def _move(self, p: Parameter, grad: torch.Tensor, state: State, group: Mapping[str, Any]) -> None:
        raise NotImplementedError


class Adam(torch.optim.Adam, Optimizer):
    """torch's Adam (Kingma and Ba 2015)."""

    def blank(self, p: Parameter) -> State:
        return _moments(p)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        given = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        lying = [p for p in given if p.ndim == 2 and not p.is_contiguous()]
        for p in lying:  # torch's fused step copies what is not contiguous: W_enc is, the other way round
            self._turn(p)
        try:
            super().step()
        finally:
            for p in lying:
                self._turn(p)

    def _turn(self, p: Parameter) -> None:
        """Transpose a parameter, its gradient and what is kept of it; nothing moves in memory."""
        grad, p.grad = p.grad, None
        p.data = p.data.T
        p.grad = None if grad is None else grad.T
        self.state[p].update({k: v.T for k, v in self.state[p].items() if v.ndim == 2})


class Muon(Optimizer):
    """Momentum made orthogonal, for encoder and decoder; Adam for all else.

    The direction of a matrix is the polar factor U V' of its momentum U S V' (with Nesterov's look ahead), times 0.2
    sqrt(max(F, D)), so that an entry moves about as far as under Adam at the same rate. The polar factor of a tall
    matrix X is X times a function of its Gram matrix X' X, which is small, and the sum over the parts of a dictionary:
    so it is that of the whole in each of them. The function is the best chain of five quintics, certified (`polar`).

    Args:
        groups: Parameters with their rates.
        betas: Decay of the momentum, and Adam's second.
        sae: The SAE.

    Source: Jordan et al. 2024 (Muon); Liu et al. 2025, arXiv 2502.16982 (the factor); Amsel et al. 2025, arXiv
        2505.16932 (best chains).
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], sae: SAE):
        super().__init__(groups, {"betas": betas})
        self.dim = {p: _MATRICES[name] for name, p in sae.named_parameters() if name in _MATRICES}
        self.shard = sae.shard

    def blank(self, p: Parameter) -> State:
        return {"exp_avg": torch.zeros_like(p)} if p in self.dim else _moments(p)

    def _move(self, p: Parameter, grad: torch.Tensor, state: State, group: Mapping[str, Any]) -> None:
        if p not in self.dim:
            _adam(p, grad, state, group)
            return
        beta = group["betas"][0]
        mean = state["exp_avg"].lerp_(grad, 1 - beta)
        ahead = grad.lerp(mean, beta)
        turned = self.dim[p] == 1
        direction_FD = polar(ahead.T if turned else ahead, self.shard.sum)
        rows, columns = direction_FD.shape
        size = _RMS * math.sqrt(max(self.shard.latents(rows), columns))
        p.add_(direction_FD.T if turned else direction_FD, alpha=-group["lr"] * size)


class ScheduleFree(Optimizer):
    """Schedule-Free AdamW (without decay of weights): no falling rate, and no end that has to be known.

    Three sequences: z moves by Adam's second moment alone, x is the mean of all z so far (weighted by the squared
    rate), and gradients are taken at y = (1 - beta1) z + beta1 x, which is what the parameters hold until the end; the
    training gives x.

    Args:
        groups: Parameters with their rates.
        betas: The weight of x in y, and Adam's second.

    Source: Defazio et al. 2024, arXiv 2405.15682, algorithm 1.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]):
        super().__init__(groups, {"betas": betas})

    def blank(self, p: Parameter) -> State:
        here = p.detach()
        zero = torch.zeros((), device=p.device)
        return {
            "step": torch.zeros(()),
            "exp_avg_sq": torch.zeros_like(p),
            "z": here.clone(),
            "x": here.clone(),
            "weight": zero,
        }

    def _move(self, p: Parameter, grad: torch.Tensor, state: State, group: Mapping[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        lr = group["lr"]
        z, x = state["z"], state["x"]
        z.addcdiv_(grad, _root(grad, state, beta2), value=-lr)
        state["weight"] += lr**2
        if lr:
            x.lerp_(z, (lr**2 / state["weight"]).to(x))
        torch.lerp(z, x, beta1, out=p.data)

    def settle(self, change: Callable[[], None]) -> None:
        kept = [(p, state) for p, state in self.state.items() if state]
        here = [p.data for p, _ in kept]
        for sequence in ("z", "x"):  # changed in place, in the parameters' stead
            for p, state in kept:
                p.data = state[sequence]
            change()
        for (p, _), data in zip(kept, here, strict=True):
            p.data = data
        change()

    @torch.no_grad()
    def finish_(self) -> None:
        for p, state in self.state.items():
            if state:
                p.copy_(state["x"])


def polar(X_FD: torch.Tensor, total: Callable[[torch.Tensor], torch.Tensor] = lambda G: G) -> torch.Tensor:
    """The polar factor U V' of X = U S V': its singular values are brought near 1.

    Those above 1e-3 of the largest (of a bound on it, `|X' X|_F^0.5`) end within 0.1135 of 1: proven for exact
    arithmetic, by `approx.composite_sign`. In float32 the smallest of them lose some digits more.

    Args:
        X_FD: The matrix, or the rows of it that lie here.
        total: Gives the sum over the parts of a dictionary of what is [D, D].
    """
    G_DD = total(X_FD.T @ X_FD)
    most = G_DD.norm().clamp_min(torch.finfo(G_DD.dtype).tiny)
    G_DD = G_DD / most
    eye_DD = torch.eye(len(G_DD), dtype=G_DD.dtype, device=G_DD.device)
    M_DD = last_DD = eye_DD
    # s -> s (a + b s^2 + c s^4) of singular values s is G -> q G q of their squares
    for number, (a, b, c) in enumerate(_chain()):
        if number:
            G_DD = last_DD @ G_DD @ last_DD
        last_DD = torch.addmm(b * G_DD + a * eye_DD, G_DD, G_DD, alpha=c)
        M_DD = M_DD @ last_DD if number else last_DD
    return X_FD @ (M_DD * most.rsqrt())


@cache
def _chain() -> list[tuple[float, float, float]]:
    steps = approx.composite_sign(_LOWER, _DEGREES, dtype="float32").coefficients()
    return [(a, b, c) for a, b, c in (step["num"] for step in steps)]


def _moments(p: Parameter) -> State:
    return {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}


def _root(grad: torch.Tensor, state: State, beta2: float) -> torch.Tensor:
    """Take notice of a gradient; the root of the mean of squares."""
    state["step"] += 1
    square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    return (square / (1 - beta2 ** state["step"].item())).sqrt_().add_(_EPS)


def _adam(p: Parameter, grad: torch.Tensor, state: State, group: Mapping[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    root = _root(grad, state, beta2)
    mean = state["exp_avg"].lerp_(grad, 1 - beta1)
    p.addcdiv_(mean, root, value=-group["lr"] / (1 - beta1 ** state["step"].item()))
