"""Does a transcoder answer to changes of its input as the MLP does? The cosine of their Jacobians on sampled tokens.

Neither Jacobian is made. With the orthonormal rows u_k of U, <J, K> = sum_o <e_o J, e_o K> is estimated as
(O / K) sum_k <u_k J, u_k K>: K gradients of each function a token. With as many rows as the target is wide it is exact.
Shapes: B tokens, D d_in, O d_out, K rows of U.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from evals.results import Jacobians
from evals.stats import ratio_interval
from rsae import SAE, Activations, Host, InputError
from rsae.activations.hooks import HookPoint, mlp_of
from rsae.activations.protocol import check_fits

#: Tokens at a time
_ROWS = 64


def jacobians(
    sae: SAE,
    host: Host,
    activations: Activations,
    tokens: int = 256,
    vectors: int = 32,
    seed: int = 0,
    allow_mismatch: bool = False,
) -> Jacobians:
    """The Jacobian of a transcoder beside that of the MLP that it stands for.

    Args:
        sae: A transcoder from a block's `hook_mlp_in` to its `hook_mlp_out`.
        host: The host; only that MLP runs.
        activations: What the transcoder reads: held-out tokens are sampled.
        tokens: How many.
        vectors: How many orthonormal directions of the target are pulled back through both; at most its width, which
            makes the figures exact.
        seed: Of the tokens and the directions.
        allow_mismatch: Accept a transcoder of another model or hook point.

    Returns:
        Cosines and norms, and the same of what is left of both Jacobians without their means over the tokens.

    Raises:
        InputError: It is no transcoder of an MLP, or does not fit.
    """
    if not sae.transcodes:
        raise InputError(
            "jacobians: the SAE is no transcoder; only what stands for an MLP is compared with one"
        )
    check_fits(sae, activations, allow_mismatch)
    known = activations.provenance.filled(sae.provenance)
    point = HookPoint.parse(known.known("hook", "jacobians"), host)
    mlp = mlp_of(host, point, HookPoint.parse(known.known("target", "jacobians"), host))
    x_BD = activations.sample(tokens, seed, "heldout").to(host.device)
    generator = torch.Generator().manual_seed(seed)
    gaussian_OK = torch.randn(sae.d_out, min(vectors, sae.d_out), generator=generator, dtype=torch.float64)
    u_KO = torch.linalg.qr(gaussian_OK).Q.T.float()
    device = sae.W_enc.device
    ours_BKD = _pulled_back(lambda x: sae(x.to(device)), x_BD, u_KO)
    mlps_BKD = _pulled_back(mlp, x_BD, u_KO)
    cosine_B = _cosine(ours_BKD, mlps_BKD, (1, 2))
    varying = [j_BKD - j_BKD.mean(0) for j_BKD in (ours_BKD, mlps_BKD)]
    return Jacobians(
        cosine=cosine_B.mean().item(),
        cosine_interval=ratio_interval(cosine_B.tolist(), [1] * len(cosine_B)),
        norm_ratio=(ours_BKD.norm() / mlps_BKD.norm()).item(),
        varying_cosine=_cosine(varying[0], varying[1], (0, 1, 2)).item(),
        varying_share=(varying[1].norm() / mlps_BKD.norm()).square().item(),
        tokens=len(x_BD),
    )


def _pulled_back(
    function: Callable[[torch.Tensor], torch.Tensor], x_BD: torch.Tensor, u_KO: torch.Tensor
) -> torch.Tensor:
    """u_k J for each token and row: [B, K, D] in float64 on the CPU."""
    found = []
    with torch.enable_grad():
        for rows_BD in x_BD.split(_ROWS):
            rows_BD = rows_BD.detach().requires_grad_()
            y_BO = function(rows_BD)
            # a token's output depends on its own input alone, so that the sum's gradient is each token's
            pulled = [
                torch.autograd.grad((y_BO @ u_O).sum(), rows_BD, retain_graph=True)[0]
                for u_O in u_KO.to(y_BO)
            ]
            found.append(torch.stack(pulled, 1).double().cpu())
    return torch.cat(found)


def _cosine(a: torch.Tensor, b: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """Cosine over some dimensions; 0 where one of both is 0."""
    product, norms = (a * b).sum(over), (a.square().sum(over) * b.square().sum(over)).sqrt()
    return torch.where(norms > 0, product / norms.clamp_min(1e-300), 0.0)
