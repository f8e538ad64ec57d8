"""An SAE inside its host: features, steering, the error term and gradients of ordinary forward passes.

>>> with rsae.attached(host, sae) as inside:
...     inside.add(1234, 8.0)                       # steer
...     logits = host.model(input_ids=ids).logits   # the host's own call, or generate
...     inside.features                             # z_BPF of the last forward pass

Shapes: B batch, P position, D d_in, O d_out, F d_sae.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rsae.activations.hooks import HookPoint, hooked
from rsae.activations.host import Host
from rsae.activations.protocol import check_one_point
from rsae.provenance import Provenance, check_match
from rsae.sae import SAE
from rsae.support.errors import InputError


@dataclass(frozen=True)
class _Edit:
    kind: str
    latent: int
    value: float


class Attached:
    """What an attached SAE shows of the last forward pass, and how it is steered.

    Args:
        sae: The SAE.
        error: Add back what the SAE does not reconstruct.
    """

    def __init__(self, sae: SAE, error: bool):
        self.sae, self.error = sae, error
        limits = (sae.provenance.norm_limit, sae.provenance.target_norm_limit if sae.transcodes else None)
        #: activations of larger norms, of what is read or of the target, keep their value, and so do first tokens
        self.norm_limit, self.target_limit = (float("inf") if limit is None else limit for limit in limits)
        #: the code z_BPF of the last forward pass, before it was edited
        self.features: torch.Tensor | None = None
        #: the activation x_BPD at the hook point
        self.input: torch.Tensor | None = None
        #: what the SAE does not reconstruct, x - x_hat, [B, P, D], or a transcoder does not predict, y - y_hat; no
        #: gradient passes through it
        self.residual: torch.Tensor | None = None
        self._edits: list[_Edit] = []
        # of the call that the host is in: how many tokens its cache holds, and which of these and its own are there
        self._past = 0
        self._mask_BT: torch.Tensor | None = None

    def set(self, latent: int, value: float) -> None:
        """Give a latent a value at every position.

        Args:
            latent: Its number.
            value: Its value; of either sign, though the codes of an unsigned family have no negative ones.

        Raises:
            InputError: There is no such latent, or no finite number is given.
        """
        self._edit("set", latent, value)

    def add(self, latent: int, value: float) -> None:
        """Add to a latent at every position.

        Args:
            latent: Its number.
            value: What is added; may be negative.

        Raises:
            InputError: There is no such latent, or no finite number is given.
        """
        self._edit("add", latent, value)

    def scale(self, latent: int, factor: float) -> None:
        """Multiply a latent where it is active; 0 ablates it.

        Args:
            latent: Its number.
            factor: The factor.

        Raises:
            InputError: There is no such latent, or no finite number is given.
        """
        self._edit("scale", latent, factor)

    def clear(self) -> None:
        """Take all steering back."""
        self._edits = []

    def _edit(self, kind: str, latent: int, value: float) -> None:
        try:
            number, to = operator.index(latent), float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"{kind}({latent!r}, {value!r}): give the latent's number, a whole one, and a number"
            ) from None
        if not 0 <= number < self.sae.d_sae:
            raise InputError(f"latent {latent} is not one of the SAE's {self.sae.d_sae} (from 0)")
        if not math.isfinite(to):
            raise InputError(
                f"{kind}({latent}, {value}): give a finite number; the host's output would be none"
            )
        self._edits.append(_Edit(kind, number, to))

    def _edited(self, z_BPF: torch.Tensor) -> torch.Tensor:
        if not self._edits:
            return z_BPF
        z_BPF = z_BPF.clone()
        for edit in self._edits:
            if edit.kind == "set":
                z_BPF[..., edit.latent] = edit.value
            elif edit.kind == "add":
                z_BPF[..., edit.latent] += edit.value
            else:
                z_BPF[..., edit.latent] *= edit.value
        return z_BPF

    def _called(self, given: dict[str, Any]) -> None:
        """Note what the host is called with; its cache grows while it runs."""
        past, mask_BT = given.get("past_key_values"), given.get("attention_mask")
        self._past = int(past.get_seq_length()) if past is not None and hasattr(past, "get_seq_length") else 0
        self._mask_BT = mask_BT if isinstance(mask_BT, torch.Tensor) and mask_BT.dim() == 2 else None

    def _first(self, x_BPD: torch.Tensor) -> torch.Tensor:
        """Where each sequence's first token is: behind the padding on its left, and in the cache once it has passed."""
        B, P = x_BPD.shape[:2]
        first_B = torch.zeros(B, dtype=torch.long, device=x_BPD.device)
        if self._mask_BT is not None and len(self._mask_BT) == B:
            first_B = self._mask_BT.to(x_BPD.device).ne(0).int().argmax(1)
        place_P = self._past + torch.arange(P, device=x_BPD.device)
        return place_P == first_B[:, None]

    def _replace(self, x_BPD: torch.Tensor, y_BPO: torch.Tensor) -> torch.Tensor:
        """What takes the place of y, which is x but for a transcoder."""
        self.input = x_BPD
        z_BPF = self.sae.encode(x_BPD)
        if z_BPF.requires_grad:
            z_BPF.retain_grad()
        elif torch.is_grad_enabled():
            z_BPF.requires_grad_()
        self.features = z_BPF
        y_hat_BPO = self.sae.decode(self._edited(z_BPF), x_BPD)
        with torch.no_grad():
            self.residual = y_BPO - self.sae.decode(z_BPF.detach(), x_BPD)
        new_BPO = y_hat_BPO + self.residual if self.error else y_hat_BPO
        kept_BP = x_BPD.detach().norm(dim=-1) > self.norm_limit
        kept_BP |= y_BPO.detach().norm(dim=-1) > self.target_limit
        kept_BP |= self._first(x_BPD)
        return torch.where(kept_BP[..., None], y_BPO, new_BPO)


@contextmanager
def attached(
    host: Host,
    sae: SAE,
    hook: str | None = None,
    error: bool = True,
    allow_mismatch: bool = False,
) -> Iterator[Attached]:
    """Put an SAE's reconstruction in the place of the host's activation while the context is open.

    A transcoder's prediction takes the place of its target. With `error` the host computes what it always does until a
    latent is steered: the residual x - x_hat is added back. The first token of every sequence (behind padding on the
    left, and not again with each part that a cache is continued by) and activations above the norm limit of the SAE's
    training keep their value, as they were left out of training. Gradients of a loss pass to
    `features` (`inside.features.grad`) where gradients are enabled.

    Args:
        host: The host; call its `model` as ever, `generate` included.
        sae: The SAE.
        hook: The hook point; by default the one that the SAE says that it belongs to.
        error: Add back what the SAE does not reconstruct.
        allow_mismatch: Accept an SAE that says that it belongs to another host or hook point.

    Yields:
        Features, steering and the error term.

    Raises:
        InputError: The SAE names no hook point and none is given, is of several, belongs elsewhere, or does not fit;
            in a forward pass, if a transcoder's target comes before what it reads.
    """
    check_one_point(sae)
    name = hook or sae.provenance.known("hook", "attaching an SAE")
    point = HookPoint.parse(name, host, sae.provenance.head)
    here = Provenance(model=host.name, hook=point.name)
    check_match(sae.provenance, here, "the SAE", f"host {host.name!r} at {point}", allow_mismatch)
    inside = Attached(sae, error)

    def replace(x_BPD: torch.Tensor) -> torch.Tensor:
        check(x_BPD, sae.d_in, point)
        return inside._replace(x_BPD, x_BPD)

    def check(x_BPD: torch.Tensor, width: int, where: HookPoint) -> None:
        if x_BPD.shape[-1] != width:
            raise InputError(f"the SAE takes {width} dimensions, {where} has {x_BPD.shape[-1]}")

    read: list[torch.Tensor] = []

    def keep(x_BPD: torch.Tensor) -> torch.Tensor:
        check(x_BPD, sae.d_in, point)
        read[:] = [x_BPD]
        return x_BPD

    def predict(y_BPO: torch.Tensor) -> torch.Tensor:
        check(y_BPO, sae.d_out, target)
        if not read:
            raise InputError(
                f"the host computes {target} before {point}: a prediction cannot take its place as it runs; measure it "
                "with evals.downstream"
            )
        return inside._replace(read.pop(), y_BPO)

    target = point
    if sae.transcodes:
        target = HookPoint.parse(sae.provenance.known("target", "attaching a transcoder"), host)

    names = inspect.signature(host.model.forward)
    called = host.model.register_forward_pre_hook(
        lambda _, args, kwargs: inside._called(names.bind_partial(*args, **kwargs).arguments),
        with_kwargs=True,
    )
    trained = [p for p in sae.parameters() if p.requires_grad]
    for parameter in trained:  # gradients are the features', not the weights'
        parameter.requires_grad_(False)
    try:
        if sae.transcodes:
            with hooked(host, point, keep), hooked(host, target, predict):
                yield inside
        else:
            with hooked(host, point, replace):
                yield inside
    finally:
        called.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
