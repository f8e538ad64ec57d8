"""What the host loses when the reconstruction takes the activation's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from evals.metrics.codes import codes, hook_of, norm_limit_of
from rsae import SAE, Host
from rsae.activations.hooks import HookPoint, Prefix, logits_from, pad, prefix_at
from rsae.support.errors import InputError
from rsae.support.progress import progress

Reconstruct = Callable[[torch.Tensor], torch.Tensor]

#: Recorded with every result: where the activation is replaced, and which predictions count.
POSITIONS = (
    "position 0 and tokens above the norm limit keep their activation; the predictions made at position 0 and at "
    "padding are not counted"
)


def downstream(
    sae: SAE | Mapping[str, SAE],
    host: Host,
    tokens: list[list[int]],
    hook: str | None = None,
    norm_limit: float | None = None,
    batch: int = 8,
) -> dict:
    """CE, KL and top-1 agreement with the reconstruction spliced in; for a mapping of SAEs one result by name.

    ce_clean, ce_zero (zeros spliced in), ce, dce = ce - ce_clean, loss_recovered = (ce_zero - ce) / (ce_zero -
    ce_clean), kl = mean KL(clean || spliced), kl_zero, top1 = share of predictions whose most likely token is the clean
    host's, predictions (how many), positions (which are left out). A `soft` rational SAE has the figures of its dense
    code beside them (`soft_ce`, `soft_kl`, ...). The host's prefix runs once a batch, the suffix once for the clean
    activation, once for zeros and once for each code of each SAE.
    `tokens`: sequences of token ids, of three tokens at least. `hook` and `norm_limit` (activations with a larger norm
    are left alone, as they were left out of training) are by default what the (first) SAE's metadata say.
    """
    if isinstance(sae, SAE):
        return downstream({"sae": sae}, host, tokens, hook, norm_limit, batch)["sae"]
    if not tokens or min(map(len, tokens)) < 3:
        raise InputError("downstream: every sequence needs three tokens at least (position 0 is not counted)")
    first = next(iter(sae.values()))
    hook, norm_limit = hook_of(first, hook), norm_limit_of(first, norm_limit)
    point = HookPoint.parse(hook, host)
    order = sorted(tokens, key=len)  # little padding in a batch
    # by (name, prefix of the figures); the first is the zero ablation
    variants: dict[tuple[str, str], Reconstruct | None] = {("", "zero"): None}
    for name, one in sae.items():
        for prefix, encode in codes(one).items():
            variants[name, prefix] = lambda x_BD, one=one, encode=encode: one.decode(encode(x_BD))
    ce = dict.fromkeys(variants, 0.0)
    kl = dict.fromkeys(variants, 0.0)
    agreed = dict.fromkeys(variants, 0)
    ce_clean, count = 0.0, 0
    with progress(sum(map(len, tokens)), f"downstream loss of {len(sae)} SAEs", "tok") as bar:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            tokens_BP, mask_BP = pad(chosen, host.device)
            prefix = prefix_at(host, point, tokens_BP, mask_BP)
            x_BPD = prefix.x_BPD
            counted_BP = counted(mask_BP)
            target_N1 = tokens_BP[:, 1:][counted_BP][:, None]
            clean_NV = predictions(host, point, tokens_BP, mask_BP, prefix, counted_BP)
            ce_clean -= clean_NV.gather(1, target_N1).double().sum().item()
            count += len(target_N1)
            best_N = clean_NV.argmax(-1)
            for key, variant in variants.items():
                spliced_BPD = splice(variant, x_BPD, mask_BP, norm_limit)
                spliced = prefix._replace(x_BPD=spliced_BPD)
                spliced_NV = predictions(host, point, tokens_BP, mask_BP, spliced, counted_BP)
                ce[key] -= spliced_NV.gather(1, target_N1).double().sum().item()
                kl[key] += (clean_NV.exp() * (clean_NV - spliced_NV)).sum(-1).double().sum().item()
                agreed[key] += int((spliced_NV.argmax(-1) == best_N).sum())
            bar.update(sum(map(len, chosen)))
    zero = ("", "zero")
    ce_clean, ce_zero, kl_zero = ce_clean / count, ce[zero] / count, kl[zero] / count
    if ce_zero == ce_clean:
        raise InputError(
            f"downstream: zeros at {hook} change nothing, so no token is spliced; raise norm_limit"
        )
    results: dict[str, dict] = {}
    for name, prefix in variants:
        if (name, prefix) == zero:
            continue
        loss = ce[name, prefix] / count
        figures = {
            "ce": loss,
            "dce": loss - ce_clean,
            "loss_recovered": (ce_zero - loss) / (ce_zero - ce_clean),
            "kl": kl[name, prefix] / count,
            "top1": agreed[name, prefix] / count,
        }
        shared = {"ce_clean": ce_clean, "ce_zero": ce_zero, "kl_zero": kl_zero}
        shared |= {"predictions": count, "positions": POSITIONS}
        results.setdefault(name, shared).update({prefix + key: value for key, value in figures.items()})
    return results


def counted(mask_BP: torch.Tensor) -> torch.Tensor:
    """Which predictions (of token p + 1, made at p) are measured: [batch, position - 1], none made at position 0."""
    counted_BP = mask_BP[:, 1:].bool().clone()
    counted_BP[:, 0] = False
    return counted_BP


def predictions(
    host: Host,
    point: HookPoint,
    tokens_BP: torch.Tensor,
    mask_BP: torch.Tensor,
    prefix: Prefix,
    counted_BP: torch.Tensor,
) -> torch.Tensor:
    """log p [counted predictions, vocabulary] with the prefix's x_BPD at the hook point."""
    return logits_from(host, point, tokens_BP, mask_BP, *prefix)[:, :-1][counted_BP].log_softmax(-1)


@torch.no_grad()
def splice(
    sae: Reconstruct | None, x_BPD: torch.Tensor, mask_BP: torch.Tensor, norm_limit: float
) -> torch.Tensor:
    """x with the reconstruction (zeros for None) but at the first position, padding and outlying norms."""
    replaced_BP = replaceable(x_BPD, mask_BP, norm_limit)
    out_BPD = x_BPD.clone()
    out_BPD[replaced_BP] = 0.0 if sae is None else sae(x_BPD[replaced_BP])
    return out_BPD


def replaceable(x_BPD: torch.Tensor, mask_BP: torch.Tensor, norm_limit: float) -> torch.Tensor:
    """Where the activation may be changed: not at the first position, padding and outlying norms."""
    replaced_BP = mask_BP.bool() & (x_BPD.norm(dim=-1) <= norm_limit)
    replaced_BP[:, 0] = False
    return replaced_BP
