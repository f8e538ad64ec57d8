"""What to measure of an SAE: its codes, and where in the host it belongs (by default what it says itself).

Shapes: B batch, P position, D dimensions, F latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from rsae import SAE, Host, InputError, Provenance
from rsae.activations.hooks import HookPoint
from rsae.activations.protocol import check_finite, check_one_point
from rsae.provenance import check_match

Encode = Callable[[torch.Tensor], torch.Tensor]


class Place(NamedTuple):
    """Where an SAE belongs, and what is left alone there."""

    #: the hook point
    point: HookPoint
    #: activations with a larger norm are left alone
    norm_limit: float
    #: ids of the tokens whose activations are left alone
    exclude_tokens: tuple[int, ...]

    def kept(self, tokens_BP: torch.Tensor, mask_BP: torch.Tensor) -> torch.Tensor:
        """True for the tokens that are neither padding nor excluded, [batch, position].

        Args:
            tokens_BP: Token ids.
            mask_BP: 1 for tokens, 0 for padding.
        """
        return mask_BP.bool() & ~torch.isin(tokens_BP, torch.tensor(self.exclude_tokens).to(tokens_BP))


def place_of(
    sae: SAE,
    host: Host,
    hook: str | None,
    norm_limit: float | None,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
) -> Place:
    """Where in a host an SAE belongs.

    Args:
        sae: The SAE.
        host: The model.
        hook: Hook point; None for the one that the SAE was trained at.
        norm_limit: Activations with a larger norm are left alone; None for the SAE's own limit (inf where it has none).
        allow_mismatch: Accept an SAE of another model or hook point.
        exclude_tokens: Tokens whose activations are left alone, by id or by text; None for the SAE's own.

    Returns:
        The hook point, the limit and the ids of the excluded tokens.

    Raises:
        InputError: where the hook point is not known, the SAE belongs to another model or hook point or has weights
            that are no numbers, or a token is none of the host's.
    """
    known = sae.provenance
    check_one_point(sae)
    name = hook or known.hook
    if not name:
        raise InputError(
            "the SAE does not say which hook point it belongs to; give hook='blocks.L.hook_resid_pre'"
        )
    point = HookPoint.parse(name, host, known.head if hook is None else None)
    here = Provenance(model=host.name, hook=point.name, head=point.head)
    check_match(known, here, "the SAE", f"host {host.name} at {point}", allow_mismatch)
    check_finite(sae)
    limit = known.norm_limit if norm_limit is None else norm_limit
    excluded = known.exclude_tokens or () if exclude_tokens is None else host.token_ids(exclude_tokens)
    return Place(point, float("inf") if limit is None else limit, tuple(excluded))


def row_unit(sae: SAE, x_BD: torch.Tensor) -> torch.Tensor | float:
    """What decoder rows are multiplied with when a token's own normalisation is undone, [B, 1]; 1 without one.

    Args:
        sae: The SAE.
        x_BD: Activations.
    """
    if sae.input_norm is None:
        return 1.0
    one_BD, zero_BD = torch.ones_like(x_BD), torch.zeros_like(x_BD)
    return (sae.input_norm.undo(one_BD, x_BD) - sae.input_norm.undo(zero_BD, x_BD))[:, :1].to(sae.W_enc)


def host_code(
    sae: SAE, x_BD: torch.Tensor, encode: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> torch.Tensor:
    """A code in whose units the decoder's rows are added to the host's activation, also where tokens are normalised.

    Args:
        sae: The SAE.
        x_BD: Activations.
        encode: Another reading of it than `sae.encode`.
    """
    return (encode or sae.encode)(x_BD) * row_unit(sae, x_BD)


def check_writes_back(sae: SAE, what: str) -> None:
    """Refuse a transcoder where a measure puts an SAE's rows to the activation that it reads.

    Args:
        sae: The SAE.
        what: What the measure does.

    Raises:
        InputError: It is one.
    """
    if sae.transcodes:
        raise InputError(
            f"{what} of an SAE at the hook point that it reads, and a transcoder writes to another; give an SAE"
        )


def row_norms(sae: SAE) -> np.ndarray:
    """Lengths of the decoder rows, float64 [F]: a code times these does not change with the scale of a latent.

    What a latent gives to its code and takes from its row leaves the function as it is.

    Args:
        sae: The SAE.
    """
    return sae.W_dec.detach().double().norm(dim=1).cpu().numpy()


def readings(sae: SAE) -> dict[str, Encode]:
    """The codes that can be read of an SAE's weights; `` is the one that is decoded and counted, and comes first."""
    return {name.removesuffix("_"): encode for name, encode in sae.readings().items()}


def by_encoder(saes: Mapping[str, SAE]) -> list[dict[str, SAE]]:
    """SAEs in groups that have the same pre-activations: a pursuit, the SAE that it reads, a start and its teacher.

    Args:
        saes: The SAEs by name.
    """
    groups: list[dict[str, SAE]] = []
    for name, sae in saes.items():
        for group in groups:
            if _same_encoder(next(iter(group.values())), sae):
                group[name] = sae
                break
        else:
            groups.append({name: sae})
    return groups


def _same_encoder(a: SAE, b: SAE) -> bool:
    def tensors(sae: SAE) -> list[torch.Tensor]:
        return [sae.W_enc, sae.encoder_bias, *([sae.b_dec] if sae.subtract_b_dec else [])]

    if (a.subtract_b_dec, a.input_norm, a.W_enc.dtype) != (b.subtract_b_dec, b.input_norm, b.W_enc.dtype):
        return False
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


@contextmanager
def sharing_products(group: Iterable[SAE]) -> Iterator[None]:
    """While the context is open, SAEs of a group (`by_encoder`) multiply an activation with their encoder once, where
    they are given it one after the other, and so do the readings of each.

    Args:
        group: The SAEs; their weights must not change meanwhile.
    """
    last: list[Any] = []  # the activation, its version, and what it gave
    members = list({id(sae): sae for sae in group}.values())
    for sae in members:
        sae._linear = partial(_product, last, sae._linear)  # hides the method
    try:
        yield
    finally:
        for sae in members:
            del sae._linear


def _product(last: list[Any], linear: Encode, x_BD: torch.Tensor) -> torch.Tensor:
    # kept with what it gave, so that no other tensor can lie in its place in memory
    if not last or not (_same_memory(last[0], x_BD) and last[1] == x_BD._version):
        last[:] = [x_BD, x_BD._version, linear(x_BD)]
    return last[2]


def _same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.data_ptr(), a.shape, a.stride(), a.dtype) == (b.data_ptr(), b.shape, b.stride(), b.dtype)
