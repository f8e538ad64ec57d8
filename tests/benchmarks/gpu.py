"""What the Triton kernels give on a GPU: python tests/benchmarks/gpu.py [--quick] writes a table of medians.

Each row is one operation by our kernel and by torch's own, in one process, in turns; and training steps in units of
the encoder's product x W_enc. Shapes: B batch, D d_in, F d_sae, N entries.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import rsae
from rsae.rational.kernels import cuda, reference
from rsae.rational.kernels.reference import Shape
from rsae.sae import pursuit_cuda, sparse_cuda
from rsae.sae.sparse import Pattern, decode_at, products_at

K = 32


def milliseconds(*runs: Callable[[], object], rounds: int = 20) -> list[float]:
    """Median time of each, one after the other in turn."""
    for run in runs:
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, times, strict=True):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            taken.append(start.elapsed_time(end))
    return [statistics.median(taken) for taken in times]


class Torchs:
    """Within it torch's own products are used."""

    def __enter__(self) -> None:
        self.own = sparse_cuda.available, pursuit_cuda.available
        sparse_cuda.available, pursuit_cuda.available = lambda x: False, lambda x, candidates: False

    def __exit__(self, *_: object) -> None:
        sparse_cuda.available, pursuit_cuda.available = self.own


def by_torch(run: Callable[[], object]) -> Callable[[], object]:
    def wrapped() -> object:
        with Torchs():
            return run()

    return wrapped


def forward_backward(make: Callable[[], torch.Tensor], inputs: list[torch.Tensor]) -> Callable[[], object]:
    def run() -> object:
        out = make()
        return torch.autograd.grad(out.square().sum(), inputs)

    return run


def kernels(B: int, D: int, F: int) -> dict[str, list[float]]:
    """Ours and torch's."""
    x_BD = torch.randn(B, D, device="cuda")
    W_FD = torch.randn(F, D, device="cuda", requires_grad=True)
    b_F = torch.zeros(F, device="cuda")
    pattern = Pattern.of_columns(torch.rand(B, F, device="cuda").topk(K, dim=1).indices, F)
    _ = pattern.by_latent
    z_N = torch.randn(B * K, device="cuda", requires_grad=True)
    found = {}
    decode = forward_backward(lambda: decode_at(z_N, W_FD, None, pattern), [z_N, W_FD])
    found["decode, forward and backward"] = milliseconds(decode, by_torch(decode))
    products = forward_backward(lambda: products_at(x_BD, W_FD, pattern), [W_FD])
    found["products at places, forward and backward"] = milliseconds(products, by_torch(products))
    with torch.no_grad():
        found["the k largest of x W + b"] = milliseconds(
            lambda: sparse_cuda.largest(x_BD, W_FD, b_F, K),
            lambda: torch.nn.functional.linear(x_BD, W_FD, b_F).topk(K, dim=1, sorted=False),
        )
    return found


def rational(B: int, D: int, F: int) -> dict[str, list[float]]:
    """The fused rational activation and the plain one."""
    h_BF = torch.randn(B, F, device="cuda", requires_grad=True)
    found = {}
    for name, shape in (("partial (9,8)", Shape(pairs=4)), ("standard (3,2)", Shape(p=3, q=2))):
        rows = 2 + 4 * shape.pairs if shape.pairs else shape.p + 1 + shape.q
        parameters_PF = torch.cat([torch.rand(rows, F), torch.ones(2, F)]).cuda().requires_grad_()
        ours, plain = (
            forward_backward(lambda e=e, s=shape, p=parameters_PF: e(h_BF, p, s), [h_BF, parameters_PF])
            for e in (cuda.evaluate, reference.evaluate)
        )
        found[f"rational, {name}, forward and backward"] = milliseconds(ours, plain, rounds=5)
    return found


def pursuits(B: int, D: int, F: int) -> dict[str, list[float]]:
    """Codes of a TopK and a JumpReLU and of their pursuits, the latter by our kernel and by torch."""
    x_BD = torch.randn(B, D, device="cuda")
    store = rsae.Store.of([x_BD.cpu().numpy()] * 2, heldout=B)
    plain = rsae.new("top_k", store, d_sae=F, k=K).cuda()
    gates = rsae.new("jump_relu", store, d_sae=F).cuda()
    with torch.no_grad():
        h_BF = gates.pre_activations(x_BD)
        assert isinstance(gates, rsae.JumpReLU)
        gates.threshold.fill_(float(h_BF.flatten()[: 10**6].quantile(1 - K / F)))
    found = {}
    with torch.no_grad():
        for name, sae in (("TopK", plain), ("JumpReLU", gates)):
            code = rsae.pursuit(sae)
            most = int((sae.encode(x_BD) != 0).sum(1).max())
            found[f"code of {name}, at most {most}"] = milliseconds(
                *[lambda s=sae: s.encode(x_BD)] * 2, rounds=10
            )
            run = lambda c=code: c.encode(x_BD)  # noqa: E731
            found[f"pursuit of {name}"] = milliseconds(run, by_torch(run), rounds=10)
    return found


def steps(B: int, D: int, F: int) -> dict[str, list[float]]:
    """A training step (loss, backward, Adam) with our kernels and with torch's, in encoder products; and ours with
    products in bfloat16."""
    x_BD = torch.randn(B, D, device="cuda")
    found = {}
    store = rsae.Store.of([x_BD.cpu().numpy()] * 2, heldout=B)
    W_FD = torch.randn(F, D, device="cuda")
    (product,) = milliseconds(lambda: x_BD @ W_FD.T)
    for name in ("top_k", "pursuit_top_k", "batch_top_k", "jump_relu", "relu", "gated", "sign_aware_gated"):
        settings: Any = {"k": K} if "top_k" in name else {}
        sae = rsae.new(name.removeprefix("pursuit_"), store, d_sae=F, **settings).cuda()
        sae = (rsae.pursuit(sae) if "pursuit" in name else sae).train()
        optimiser = torch.optim.Adam(sae.parameters(), lr=0.0, fused=True)

        def step(sae: rsae.SAE = sae, optimiser: torch.optim.Adam = optimiser, rounds: bool = False) -> None:
            with torch.autocast("cuda", torch.bfloat16, enabled=rounds):
                loss = sae.loss(x_BD, 1.0, sae.penalties[0])
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()

        with torch.no_grad():
            l0 = float((sae.encode(x_BD) != 0).sum(1).float().mean())
        found[f"training step of {name}, l0 {l0:.0f}, in encoder products"] = [
            t / product for t in milliseconds(step, by_torch(step), rounds=10)
        ]
        (rounded,) = milliseconds(lambda: step(rounds=True), rounds=10)
        found["   and in bfloat16 " + " " * len(found)] = [rounded / product] * 2
        del sae, optimiser
    return found | {"encoder product (ms)": [product, product]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small size alone")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    record: dict[str, dict[str, list[float]]] = {}
    sizes = [(2048, 576, 4608), (4096, 2304, 16384)]
    for B, D, F in sizes[: 1 if given.quick else 2]:
        title = f"{torch.cuda.get_device_name()}: B = {B}, D = {D}, F = {F}, k = {K}"
        print(f"\n{title}\n{'':60} {'ours':>8} {'torch':>8} ratio")
        record[title] = {}
        for part in (kernels, pursuits, rational, steps):
            for name, (ours, torchs) in part(B, D, F).items():
                record[title][name] = [ours, torchs]
                print(f"{name:60} {ours:8.3f} {torchs:8.3f} {ours / torchs:5.2f}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
