"""Sign-conditioned intervention: one latent pushed either way, or two opposite latents pushed one at a time.

A signed latent that uses both signs is a *dial* of one direction. A family without signs has two latents for that: a
pair whose decoder rows are most opposite. Both are pushed by their own typical magnitudes, and measured alike.

Shapes: B batch, P position, D dimensions, F latents, N counted predictions, L dials, V vocabulary, 2 the polarities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from evals.metrics.codes import Place, check_writes_back, host_code, place_of
from evals.results import Intervention
from rsae import SAE, Host
from rsae.activations.hooks import Prefix, pad, prefix_at
from rsae.activations.splicing import counted, predictions, replaceable
from rsae.support.progress import progress

#: Minimum number of tokens on which a polarity must be active
_LEAST = 5


class _Dials(NamedTuple):
    """Two polarities a dial, plus and minus: [2, L]. For a signed SAE both are of one latent."""

    latent_2L: torch.Tensor
    sign_2L: torch.Tensor
    magnitude_2L: torch.Tensor
    eligible: int

    def on(self, z_NF: torch.Tensor) -> torch.Tensor:
        """Where each polarity is on, [2, L, N], 1 or 0."""
        return (z_NF.T[self.latent_2L] * self.sign_2L[..., None] > 0).float()


class _Batch(NamedTuple):
    tokens_BP: torch.Tensor
    mask_BP: torch.Tensor
    prefix: Prefix
    pushed_BP: torch.Tensor  # where the activation is changed
    counted_BP: torch.Tensor  # whose predictions are measured, [batch, position - 1]


@torch.no_grad()
def intervention(
    sae: SAE,
    host: Host,
    tokens: list[list[int]],
    latents: int = 16,
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
    allow_mismatch: bool = False,
    exclude_tokens: Sequence[int | str] | None = None,
) -> Intervention:
    """What the host predicts with `magnitude * decoder row` added at the hook point, one polarity at a time.

    Dials are latents that use both signs (those with the most tokens of the rarer sign), or, for a family without
    signs, disjoint pairs of latents (those with the most opposite decoder rows). A polarity has to be on for 5 of the
    tokens; its magnitude is its mean over those. The push is added to the host's own activation at every position but
    the first, padding, excluded tokens and those above the norm limit.

    Args:
        sae: The SAE.
        host: The model.
        tokens: Sequences of token ids.
        latents: How many dials to push at most.
        hook: Hook point; by default the one that the SAE was trained at.
        norm_limit: Activations with a larger norm are left alone; by default the SAE's.
        batch: Sequences at a time; the result does not depend on it.
        allow_mismatch: Accept an SAE of another model or hook point.
        exclude_tokens: Tokens, by id or by text, whose activations are left alone; by default the SAE's.

    Returns:
        Means over dials; KL in nats a token. Each dial's mean changes of the log-probabilities are centred over the
        vocabulary. The figures are None where there is no dial.
    """
    check_writes_back(sae, "intervention pushes latents")
    place = place_of(sae, host, hook, norm_limit, allow_mismatch, exclude_tokens)
    point = place.point
    order = sorted(tokens, key=len)
    batches = [_batch(host, place, order[i : i + batch]) for i in range(0, len(order), batch)]
    code_NF = torch.cat([_codes(sae, one) for one in batches])
    dials = _signed(code_NF, latents) if sae.signed else _pairs(code_NF, sae.W_dec, latents)
    count = dials.latent_2L.shape[1]
    if not count:
        return Intervention(0, dials.eligible)
    push_2LD = (dials.sign_2L * dials.magnitude_2L)[..., None] * sae.W_dec[dials.latent_2L]
    vocabulary = host.model.config.get_text_config().vocab_size
    change_2LV = torch.zeros(2, count, vocabulary, device=host.device)
    context_2LV, kl_2L = torch.zeros_like(change_2LV), torch.zeros(2, count, dtype=torch.float64)
    with progress(len(batches) * 2 * count, f"pushing {count} dials either way", "push") as bar:
        for one in batches:
            clean_NV = predictions(host, point, one.tokens_BP, one.mask_BP, one.prefix, one.counted_BP)
            context_2LV += dials.on(_codes(sae, one)) @ clean_NV
            for side in range(2):
                for dial in range(count):
                    x_BPD = one.prefix.x_BPD + one.pushed_BP[..., None] * push_2LD[side, dial]
                    pushed = one.prefix._replace(x_BPD=x_BPD)
                    now_NV = predictions(host, point, one.tokens_BP, one.mask_BP, pushed, one.counted_BP)
                    change_2LV[side, dial] += (now_NV - clean_NV).sum(0)
                    kl_2L[side, dial] += (clean_NV.exp() * (clean_NV - now_NV)).sum().item()
                    bar.update()
    context_2LV /= dials.on(code_NF).sum(-1, keepdim=True)
    change_2LV -= change_2LV.mean(-1, keepdim=True)
    plus_D, minus_D = F.normalize(push_2LD, dim=-1)
    kl_2 = kl_2L.mean(1) / len(code_NF)
    agreement_LL = _correlations(change_2LV[0] - change_2LV[1], context_2LV[0] - context_2LV[1])
    own = agreement_LL.diagonal()
    others = (agreement_LL.sum() - own.sum()) / (count * (count - 1)) if count > 1 else None
    return Intervention(
        dials=count,
        eligible=dials.eligible,
        kl_plus=kl_2[0].item(),
        kl_minus=kl_2[1].item(),
        opposition=F.cosine_similarity(change_2LV[0], change_2LV[1], dim=-1).mean().item(),
        row_cosine=(plus_D * minus_D).sum(-1).mean().item(),
        agreement=own.mean().item(),
        agreement_others=None if others is None else others.item(),
    )


def _batch(host: Host, place: Place, sequences: list[list[int]]) -> _Batch:
    tokens_BP, mask_BP = pad(sequences, host.device)
    prefix = prefix_at(host, place.point, tokens_BP, mask_BP)
    kept_BP = place.kept(tokens_BP, mask_BP)
    pushed_BP = replaceable(prefix.x_BPD, kept_BP, place.norm_limit)
    return _Batch(tokens_BP, mask_BP, prefix, pushed_BP, counted(mask_BP, kept_BP))


def _codes(sae: SAE, batch: _Batch) -> torch.Tensor:
    """The codes behind the counted predictions [N, F]; 0 where the activation is above the norm limit."""
    z_NF = host_code(sae, batch.prefix.x_BPD[:, :-1][batch.counted_BP])
    return z_NF * batch.pushed_BP[:, :-1][batch.counted_BP][:, None]


def _signed(code_NF: torch.Tensor, most: int) -> _Dials:
    """Latents that use both signs, those with the most tokens of the rarer sign."""
    rarer_F = torch.stack([(code_NF > 0).sum(0), (code_NF < 0).sum(0)]).min(0).values
    eligible = int((rarer_F >= _LEAST).sum())
    latent_L = rarer_F.argsort(descending=True, stable=True)[: min(most, eligible)]
    latent_2L = latent_L.expand(2, -1)
    sign_2L = torch.ones_like(latent_2L)
    sign_2L[1] = -1
    return _with_magnitudes(code_NF, latent_2L, sign_2L, eligible)


def _pairs(code_NF: torch.Tensor, W_dec: torch.Tensor, most: int) -> _Dials:
    """Disjoint pairs of latents, the most opposite decoder rows first."""
    alive_A = ((code_NF > 0).sum(0) >= _LEAST).nonzero()[:, 0]
    unit_AD = F.normalize(W_dec[alive_A], dim=-1)
    cosine_AA = unit_AD @ unit_AD.T
    pairs = []
    eligible = len(alive_A) // 2
    for _ in range(min(most, eligible)):
        pair = divmod(int(cosine_AA.argmin()), len(alive_A))
        pairs.append(pair)
        for latent in pair:
            cosine_AA[latent], cosine_AA[:, latent] = torch.inf, torch.inf
    latent_2L = alive_A[torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T]
    return _with_magnitudes(code_NF, latent_2L, torch.ones_like(latent_2L), eligible)


def _with_magnitudes(
    code_NF: torch.Tensor, latent_2L: torch.Tensor, sign_2L: torch.Tensor, eligible: int
) -> _Dials:
    """Each polarity's magnitude: its mean over the tokens that it is on for.

    Plus is the polarity that is on for more tokens (in a tie, the one that is larger): which of two signs a latent has,
    and which of two latents stands first, is arbitrary.
    """
    value_2LN = (code_NF.T[latent_2L] * sign_2L[..., None]).clamp_min(0)
    count_2L, total_2L = (value_2LN > 0).sum(-1), value_2LN.sum(-1)
    turned_L = (count_2L[1] > count_2L[0]) | ((count_2L[1] == count_2L[0]) & (total_2L[1] > total_2L[0]))
    latent_2L, sign_2L, count_2L, total_2L = (
        torch.where(turned_L, of_2L.flip(0), of_2L) for of_2L in (latent_2L, sign_2L, count_2L, total_2L)
    )
    return _Dials(latent_2L, sign_2L, total_2L / count_2L, eligible)


def _correlations(a_LV: torch.Tensor, b_LV: torch.Tensor) -> torch.Tensor:
    """The correlation over V of every row of a with every row of b, [L, L]."""
    a_LV, b_LV = (F.normalize(y - y.mean(-1, keepdim=True), dim=-1) for y in (a_LV, b_LV))
    return a_LV @ b_LV.T
