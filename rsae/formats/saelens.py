"""Importing this module teaches `sae_lens` to read the families that it does not know: `SAE.load_from_disk(path)`.

It needs `sae_lens`; nothing else in this package does. What SAELens reads without it is said in rsae.formats.native.
"""

# sae_lens is no dependency: the checker does not see it
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sae_lens
import torch
import torch.nn.functional as F
from sae_lens.registry import SAE_CLASS_REGISTRY

from rsae.formats.native import architecture
from rsae.sae import FAMILIES, PursuitSAE, family
from rsae.sae.pursuit import pursuit_form


@dataclass
class _Config(sae_lens.SAEConfig):
    """SAELens's config with our settings in it."""

    rsae: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def architecture(cls) -> str:
        raise NotImplementedError  # each family's own class says it


class _SAE(sae_lens.SAE[_Config]):
    """One of our SAEs in the clothes of SAELens's; `rsae` is it.

    Decoder norms are not folded away: a rational activation is not homogeneous.
    """

    def initialize_weights(self) -> None:
        settings = dict(self.cfg.rsae)
        inner = family(settings.pop("family")).from_settings(settings)
        self.rsae = inner.to(device=self.device, dtype=self.dtype).eval()

    @property
    def W_enc(self) -> torch.Tensor:
        return self.rsae.W_enc

    @property
    def W_dec(self) -> torch.Tensor:
        return self.rsae.W_dec

    @property
    def b_dec(self) -> torch.Tensor:
        return self.rsae.b_dec

    @property
    def b_enc(self) -> torch.Tensor:
        return self.rsae.encoder_bias

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        centred = self.process_sae_in(x)
        if isinstance(self.rsae, PursuitSAE):  # it looks at the activation itself, not at h alone
            own = centred + self.b_dec if self.cfg.apply_b_dec_to_input else centred
            return self.hook_sae_acts_post(self.rsae.encode(own))
        h = centred @ self.W_enc + self.b_enc
        return self.hook_sae_acts_post(self.rsae.activate(self.hook_sae_acts_pre(h)))

    def decode(self, feature_acts: torch.Tensor) -> torch.Tensor:
        recons = self.hook_sae_recons(F.linear(feature_acts, self.W_dec.T, self.b_dec))
        if self.rsae.transcodes:
            return recons
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(recons), self.d_head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rsae.W_skip is None:
            return super().forward(x)
        return self.decode(self.encode(x)) + F.linear(x, self.rsae.W_skip)

    def fold_W_dec_norm(self) -> None:
        raise ValueError("decoder norms cannot be folded into an SAE whose activation is not homogeneous")

    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        for name in list(state_dict):
            state_dict[f"rsae.{name}"] = state_dict.pop(name)

    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        for name in list(state_dict):
            state_dict[name.removeprefix("rsae.")] = state_dict.pop(name).contiguous()


def _register(architecture: str) -> None:
    config = dataclass(type("Config", (_Config,), {"architecture": classmethod(lambda cls: architecture)}))
    sae_lens.register_sae_class(architecture, type("SAE", (_SAE,), {}), config)


for _architecture in map(architecture, [*FAMILIES.values(), *map(pursuit_form, list(FAMILIES.values()))]):
    if _architecture.startswith("rsae_") and _architecture not in SAE_CLASS_REGISTRY:
        _register(_architecture)
