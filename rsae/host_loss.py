"""What the host notices, as a training loss: KL(clean || spliced) of its predictions with the reconstruction in place.

The gradient passes through the suffix of the host, whose weights stay. As an objective beside the squared error, each
part brought to the same size: Karvonen 2025 (arXiv 2503.17272).
Shapes: B batch, P position, D d_in, O d_out, N counted predictions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch

from rsae.activations.harvest import sequences_like
from rsae.activations.hooks import HookPoint, pad, prefixes_at
from rsae.activations.host import Host, load_host
from rsae.activations.protocol import Activations
from rsae.activations.splicing import counted, predictions, replaceable
from rsae.activations.units import Units
from rsae.sae.base import SAE
from rsae.support import distributed
from rsae.support.errors import InputError
from rsae.support.files import bytes_of, digest


class HostLoss:
    """The host of some activations, on the text that they come from.

    Args:
        activations: What the SAE is trained on: they say the host, the hook points, the text and what was left out.
        transcodes: Whether the SAE predicts their target.
        host: The host, where it is loaded already.
        device: Where it is loaded otherwise: that of the SAE.

    Raises:
        InputError: The activations do not come from a host.
    """

    def __init__(
        self,
        activations: Activations,
        transcodes: bool,
        host: Host | None = None,
        device: torch.device | str = "cpu",
    ):
        provenance = activations.provenance
        model = provenance.known("model", "an objective of the host's predictions")
        self.host = host or load_host(model, str(device))
        point = HookPoint.parse(provenance.known("hook", "this"), self.host, provenance.head)
        self.points = [point]
        if transcodes:
            self.points.append(HookPoint.parse(provenance.known("target", "this"), self.host))
        self.norm_limit = float("inf") if provenance.norm_limit is None else provenance.norm_limit
        limit = provenance.target_norm_limit if transcodes else None
        self.target_limit = float("inf") if limit is None else limit
        self.excluded = torch.tensor(provenance.exclude_tokens or (), dtype=torch.long)
        self.sequences = sequences_like(provenance, self.host, "train", activations.tokens())
        self.longest = max(map(len, self.sequences))
        target = activations.target if transcodes else None
        self.units = Units(None, activations.scale), Units(None, (target or activations).scale)

    @property
    def identity(self) -> Any:
        """What tells it from another loss on the same activations: the text, and the host's weights as they are run."""
        weights = list(self.host.model.parameters())
        return [digest(self.sequences), self.host.mixed, [str(p.dtype) for p in weights], bytes_of(weights)]

    def __call__(
        self, sae: SAE, step: int, tokens: int, seed: int, units: tuple[Units, Units] | None = None
    ) -> torch.Tensor:
        """The mean KL of a step's predictions, in nats; a pure function of its arguments.

        Args:
            sae: The SAE, in the units of training.
            step: Number of the step.
            tokens: Tokens of the step, about, over all processes.
            seed: Of the order of the sequences.
            units: Those of training, of what is read and what is predicted; by default about 0.
        """
        here, there = units or self.units
        tokens_BP, mask_BP = pad(self._chosen(step, tokens, seed), self.host.device)
        prefixes = prefixes_at(self.host, self.points, tokens_BP, mask_BP)
        x_BPD, last = prefixes[0].x_BPD, prefixes[-1]
        kept_BP = mask_BP.bool() & ~torch.isin(tokens_BP, self.excluded.to(tokens_BP))
        movable_BP = kept_BP & (last.x_BPD.norm(dim=-1) <= self.target_limit)
        replaced_BP = replaceable(x_BPD, movable_BP, self.norm_limit)
        counted_BP = counted(mask_BP, kept_BP)
        x_BD = here.of(x_BPD[replaced_BP]).to(sae.W_enc.device)
        y_hat_BO = there.undone(sae.decode(sae.trained_code(x_BD), x_BD))
        y_BPO = last.x_BPD
        spliced = last._replace(x_BPD=y_BPO.index_put(replaced_BP.nonzero(as_tuple=True), y_hat_BO.to(y_BPO)))
        where = (self.host, self.points[-1], tokens_BP, mask_BP)
        with torch.no_grad():
            clean_NV = predictions(*where, last, counted_BP)
        kl_N = (clean_NV.exp() * (clean_NV - predictions(*where, spliced, counted_BP))).sum(-1)
        return kl_N.mean()

    def _chosen(self, step: int, tokens: int, seed: int) -> list[list[int]]:
        """This process's sequences of the step: each epoch is a fresh order."""
        count = max(1, tokens // self.longest) * distributed.size(distributed.DATA)
        if count > len(self.sequences):
            raise InputError(f"kl_tokens = {tokens} are more than the text's sequences hold; lower it")
        epoch, index = divmod(step, len(self.sequences) // count)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.sequences), generator=generator)[index * count : (index + 1) * count]
        return [self.sequences[i] for i in distributed.share(order).tolist()]
