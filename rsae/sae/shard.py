"""A part of a dictionary that does not fit into one process: latents, their weights and moments lie in D processes.

Each process holds an ordinary SAE of the family with its own latents. Gates of single latents need no more. What needs
all latents asks `sae.shard`: the reconstruction is the sum of the parts' decodes, a choice among latents is made in two
stages (the largest k here, then of all parts' largest), sums and norms are added up. `Whole` is the part that is all.

Gradients follow Megatron's pair of operators (Shoeybi et al. 2019, arXiv 1909.08053, section 3): `sum` adds forward and
is the identity backward, `spread` is the identity forward and adds backward. So what all parts share (b_dec) has the
same gradient everywhere. Shapes: B batch, D d_in, F latents here, K of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from rsae.sae.sparse import Pattern
from rsae.support import distributed
from rsae.support.distributed import LATENTS
from rsae.support.errors import InputError

#: Parameters that all latents share
_SHARED = ("b_dec", "W_skip")
#: Rows of a random start that are drawn at a time, by every part: each keeps its own
_ROWS = 4096


class Whole:
    """All latents are here."""

    #: how many processes hold the dictionary
    parts = 1
    #: whether this process writes files beside the weights; of several, one does
    writes = True

    def latents(self, here: int) -> int:
        """Latents of all parts.

        Args:
            here: Latents of this one.
        """
        return here

    def random_rows_(self, W_FD: torch.Tensor, generator: torch.Generator) -> None:
        """Fill rows with normal random numbers, the same for a latent wherever it lies.

        Args:
            W_FD: The rows of the latents here.
            generator: Of the numbers of all latents.
        """
        _random_rows_(W_FD, generator, 0, len(W_FD))

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over the parts; each takes the whole gradient."""
        return value

    def spread(self, value: torch.Tensor) -> torch.Tensor:
        """A value that all parts share, where each part's use of it differs: its gradients are added."""
        return value

    def largest(self, h_BF: torch.Tensor, k: int) -> Pattern:
        """Places of the k largest entries of each row of all parts, those that lie here.

        Args:
            h_BF: The entries here.
            k: How many of all parts.
        """
        return Pattern.of_largest(h_BF, k)

    def clip_(self, parameters: Mapping[str, nn.Parameter], most: float) -> None:
        """Scale gradients to a norm over all parts of `most`, where it is larger.

        Args:
            parameters: Some parameters, by name.
            most: The largest norm.
        """
        torch.nn.utils.clip_grad_norm_(parameters.values(), most)


WHOLE = Whole()


class Shard(Whole):
    """This process's part: `here` latents from number `first`, as DTensor parts a dimension (equal but for the last).

    Args:
        d_sae: Latents of all parts.

    Raises:
        InputError: There are too few latents for the processes.
    """

    def __init__(self, d_sae: int):
        self.parts = distributed.size(LATENTS)
        self.writes = distributed.is_first()
        most = -(-d_sae // self.parts)
        if (self.parts - 1) * most >= d_sae:
            raise InputError(f"d_sae {d_sae} is too small for {self.parts} shards; use fewer")
        self.d_sae = d_sae
        self.first = distributed.place(LATENTS) * most
        #: how many latents the last part has, and how many are here
        self.fewest = d_sae - (self.parts - 1) * most
        self.here = min(d_sae, self.first + most) - self.first

    def __deepcopy__(self, memo: dict) -> Shard:
        return self  # a place among processes, which a copy of the SAE shares

    def latents(self, here: int) -> int:
        return self.d_sae

    def random_rows_(self, W_FD: torch.Tensor, generator: torch.Generator) -> None:
        _random_rows_(W_FD, generator, self.first, self.d_sae)

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        return _Sum.apply(value)  # type: ignore[return-value]

    def spread(self, value: torch.Tensor) -> torch.Tensor:
        return _Spread.apply(value)  # type: ignore[return-value]

    def largest(self, h_BF: torch.Tensor, k: int) -> Pattern:
        here = min(k, h_BF.shape[1])
        top = h_BF.topk(here, dim=1, sorted=False)
        value_BK = torch.nn.functional.pad(top.values, (0, k - here), value=-torch.inf)
        best_BK = torch.cat(distributed.each(value_BK, LATENTS), dim=1).topk(k, dim=1, sorted=False).indices
        chosen_BK = torch.zeros(len(h_BF), self.parts * k, dtype=torch.bool, device=h_BF.device)
        chosen_BK.scatter_(1, best_BK, True)
        own = distributed.place(LATENTS) * k
        row_N, place_N = chosen_BK[:, own : own + here].nonzero(as_tuple=True)
        return Pattern.of_places(row_N, top.indices[row_N, place_N], h_BF.shape)

    def clip_(self, parameters: Mapping[str, nn.Parameter], most: float) -> None:
        moved = {name: p for name, p in parameters.items() if p.grad is not None}
        if not moved:  # in all processes alike
            return
        squares = next(iter(moved.values())).new_zeros(2)  # of the latents here; of what all parts share
        for name, p in moved.items():
            assert p.grad is not None
            squares[int(latent_dimension(name, p) is None)] += p.grad.square().sum()
        distributed.total(squares[:1], LATENTS)
        torch.nn.utils.clip_grads_with_norm_(moved.values(), most, squares.sum().sqrt())

    def placed(self, value: torch.Tensor, dim: int | None) -> torch.Tensor:
        """A tensor as the part of all processes' that it is; both share their memory.

        Args:
            value: What lies here.
            dim: The dimension that counts latents; None where all latents share it.
        """
        if dim is None:
            return value.detach()
        from torch.distributed.tensor import DTensor, Replicate  # here: it takes seconds to import
        from torch.distributed.tensor import Shard as Along

        shape = torch.Size([self.d_sae if i == dim else n for i, n in enumerate(value.shape)])
        stride = torch.empty(shape, device="meta").stride()
        place = (Replicate(), Along(dim))
        local = value.detach()
        return DTensor.from_local(
            local, distributed.mesh(), place, run_check=False, shape=shape, stride=stride
        )


def latent_dimension(name: str, value: torch.Tensor) -> int | None:
    """Which dimension of a parameter or buffer counts latents; None where all latents share it.

    Args:
        name: Its name.
        value: It.
    """
    if name in _SHARED or not value.ndim:
        return None
    return 0 if name == "W_dec" else value.ndim - 1


def _random_rows_(W_FD: torch.Tensor, generator: torch.Generator, first: int, total: int) -> None:
    """All rows are drawn, some at a time; those from `first` are kept."""
    for start in range(0, total, _ROWS):
        drawn = torch.randn(min(_ROWS, total - start), W_FD.shape[1], generator=generator)
        low, high = max(start, first), min(start + len(drawn), first + len(W_FD))
        if low < high:
            W_FD[low - first : high - first] = drawn[low - start : high - start]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):  # type: ignore[override]
        return distributed.total(value.clone(), LATENTS)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        return grad


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):  # type: ignore[override]
        return value.view_as(value)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        return distributed.total(grad.clone(), LATENTS)
