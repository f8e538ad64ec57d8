"""The rational activation beside torch.relu, and training steps beside the encoder's matrix product.

    pytest tests/benchmarks/test_rsae_benchmarks.py --benchmark-only

The reference of each ratio is timed in turns with what it is the reference of; the ratio (of medians) stands in
`extra_info`, and the run fails above the bar. Where `sae-lens` is installed (in the environment of `make test-peers`),
its training steps are timed in the same way.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F

import approx
import rsae
from evals.metrics import losses_cpu
from evals.metrics.losses import Clean, against
from rsae import SAE, JumpReLU, RationalActivation, Store, TopK
from rsae.activations.harvest import plan_splits
from rsae.activations.hooks import pad
from rsae.activations.rows import Scaled
from rsae.activations.splicing import Logits
from rsae.activations.store import VERSION, Manifest, Shard
from rsae.optimizers import optimizer
from rsae.sae import family
from rsae.sae.sparse import decode_all
from rsae.support.devices import has_bfloat16
from rsae.support.files import write_tensors

B, D_IN, D_SAE, K = 2048, 576, 4608, 32
ROUNDS = 15


def in_turns(
    run: Callable[[], object], reference: Callable[[], object], rounds: int = ROUNDS, warm_up: int = 2
) -> tuple[list[float], float]:
    """Seconds of each run, and the ratio of the medians of `run` and `reference`, timed in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + warm_up):
        for which, job in enumerate((run, reference)):
            start = time.perf_counter()
            job()
            if number >= warm_up:
                seconds[which].append(time.perf_counter() - start)
    return seconds[0], statistics.median(seconds[0]) / statistics.median(seconds[1])


@pytest.fixture
def ratio(benchmark):
    """Time `run` in turns with `reference`; fail above `bar` times it."""

    def measure(run: Callable[[], object], reference: Callable[[], object], bar: float | None) -> None:
        _, found = in_turns(run, reference)
        benchmark.extra_info["ratio"] = round(found, 2)
        benchmark.pedantic(run, rounds=5)
        print(f"\n{benchmark.name}: {found:.2f} times the reference", end="")
        if bar is not None:
            assert found <= bar

    return measure


# --- the activation ------------------------------------------------------------------------------------------

FIT = partial(approx.minimax, approx.relu(), (9, 8))
ACTIVATIONS: dict[str, Callable[[], RationalActivation]] = {
    "partial": lambda: RationalActivation.from_fit(FIT(), torch.ones(D_SAE)),
    "safe": lambda: RationalActivation.from_fit(FIT(), torch.ones(D_SAE), form="safe"),
    "identity": lambda: RationalActivation.identity(4, torch.ones(D_SAE)),
    "identity-per-latent": lambda: RationalActivation.identity(4, torch.ones(D_SAE), D_SAE),
}


@pytest.mark.parametrize("form", ACTIVATIONS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward-backward"])
def test_activation(ratio, form, backward):
    """Type (9, 8), float32, 2048 x 4608, beside torch.relu; bars for one set of coefficients shared by all latents."""
    activation = ACTIVATIONS[form]()
    if form == "identity-per-latent":  # else the kernel would find that all latents have the same
        for parameter in activation.form.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
    h_BF, grad_BF = torch.randn(B, D_SAE), torch.randn(B, D_SAE)

    def run(f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        if backward:
            f(h_BF.detach().requires_grad_()).backward(grad_BF)
        else:
            with torch.no_grad():
                f(h_BF)

    # 2.2 and 1.5 where fresh memory came in small pages and cost torch.relu three times what it costs it now
    bar = None if form == "identity-per-latent" else 3.2 if backward else 1.8
    ratio(lambda: run(activation), lambda: run(torch.relu), bar)


# --- training steps ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def x_BD() -> torch.Tensor:
    """Low-rank activations with noise, of mean norm sqrt(D)."""
    torch.manual_seed(0)
    x = torch.randn(B, 48) @ torch.randn(48, D_IN) + 0.3 * torch.randn(B, D_IN)
    return x * (D_IN**0.5 / x.norm(dim=1).mean())


def product(x_BD: torch.Tensor) -> Callable[[], object]:
    """The encoder's matrix product."""
    W_FD = torch.randn(D_SAE, D_IN)
    return lambda: F.linear(x_BD, W_FD)


def sae_with_about_k_active(name: str, x_BD: torch.Tensor) -> SAE:
    """Started on the batch; a threshold is set so that about K latents a token are active."""
    settings: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE}
    if "top_k" in name:
        settings["k"] = K
    if name.startswith("rational"):
        settings["activation"] = RationalActivation.identity(4, torch.full((D_SAE,), 5.0))
    sae = family(name)(**settings)
    sae.initialise(x_BD)
    if isinstance(sae, JumpReLU):
        some_N = sae.pre_activations(x_BD).detach().flatten()[::97]
        sae.threshold.data.fill_(some_N.topk(B * K // 97).values[-1])
        sae.bandwidth = 0.1
    return sae.train()


BARS = {
    "top_k": 2.5,
    "rational_top_k": 2.5,
    "batch_top_k": None,
    "jump_relu": None,
    "rational_jump_relu": 2.5,
}


def step_of(sae: SAE, x_BD: torch.Tensor, rounds: bool = False) -> Callable[[], None]:
    """Forward, backward, Adam; with `rounds` the products are in bfloat16, as `precision="bfloat16"` has them."""
    # the rate is 0, so that the share of active latents stays what it is
    optimiser = optimizer("adam", sae, [{"params": [*sae.parameters()], "lr": 0.0}], (0.9, 0.999))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            loss = sae.loss(x_BD, 0.1)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        if (
            loss.entries is not None
        ):  # BatchTopK learns its threshold here, which its next selection starts from
            sae.observe_(loss.entries)

    return step


@pytest.mark.parametrize("name", BARS)
def test_training_step(ratio, name, x_BD):
    """Forward, backward, Adam, at D = 576, F = 4608, batch 2048, about 32 active latents a token."""
    ratio(step_of(sae_with_about_k_active(name, x_BD), x_BD), product(x_BD), BARS[name])


def dense_sae(name: str, x_BD: torch.Tensor) -> SAE:
    """As in the first steps: half of all latents are active; of `soft_rational`, all."""
    settings = (
        {"gate": "relu", "activation": RationalActivation.from_fit(FIT(), torch.ones(D_SAE))}
        if name == "soft_rational"
        else {}
    )
    sae = family(name)(D_IN, D_SAE, **settings)
    sae.initialise(x_BD)
    return sae.train()


@pytest.mark.parametrize("name", ["relu", "gated", "soft_rational"])
def test_training_step_of_a_dense_code(ratio, name, x_BD):
    """Five products are the least for ReLU, seven for Gated."""
    ratio(step_of(dense_sae(name, x_BD), x_BD), product(x_BD), None)


#: In multiples of the float32 product, where the processor multiplies in bfloat16
ROUNDED_BARS = {
    "top_k": 1.35,
    "batch_top_k": 1.35,
    "jump_relu": 1.3,
    "relu": 4.0,
    "gated": 4.0,
    "soft_rational": 4.0,
}


@pytest.mark.skipif(
    not has_bfloat16(torch.device("cpu")), reason="this processor has no products in bfloat16"
)
@pytest.mark.parametrize("name", ROUNDED_BARS)
def test_training_step_in_bfloat16(ratio, name, x_BD):
    sparse = "top_k" in name or name == "jump_relu"
    sae = sae_with_about_k_active(name, x_BD) if sparse else dense_sae(name, x_BD)
    ratio(step_of(sae, x_BD, rounds=True), product(x_BD), ROUNDED_BARS[name])


class Waiting:
    """Hears how long training waited."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def begin(self, runs: Sequence[Mapping[str, Any]]) -> None:
        pass

    def log(self, step: int, figures: Sequence[Mapping[str, float]]) -> None:
        self.shares += [line["waiting"] for line in figures]

    def end(self) -> None:
        pass


@pytest.mark.parametrize("name", ["top_k", "jump_relu"])
def test_training_beside_the_bare_step(benchmark, name, x_BD):
    """`rsae.train` as a whole (reading, norms, dead latents, history) beside as many bare steps."""
    steps = 20
    store = Store.of(torch.cat([x_BD] * 10), heldout=100)
    sae = sae_with_about_k_active(name, x_BD)
    sae.rescale_(1 / store.scale)
    config = rsae.TrainConfig(steps=steps, batch=B, lr=1e-12)  # the share of active latents stays what it is
    bare = sae_with_about_k_active(name, x_BD)
    optimiser = torch.optim.Adam(bare.parameters(), lr=0.0, fused=True)

    def reference() -> None:
        for _ in range(steps):
            loss = bare.loss(x_BD)
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()

    seconds, found = in_turns(lambda: rsae.train(sae, store, config), reference, rounds=3, warm_up=1)
    benchmark.extra_info["ratio"] = round(found, 2)
    benchmark.pedantic(lambda: None, rounds=1)
    print(
        f"\n{benchmark.name}: {found:.2f} times the bare step, {statistics.median(seconds) / steps:.3f} s",
        end="",
    )
    assert found <= 1.1


def test_harvest_beside_the_hosts_forward(benchmark, tmp_path):
    """5000 tokens of 12 blocks of the embedded host, beside these blocks alone on the same batches."""
    host = rsae.load_host()
    config = rsae.HarvestConfig(tokens=4000, heldout_tokens=1000)
    batches = []
    for split in plan_splits(host, config).values():  # of one shard each
        order = sorted((s.ids for s in split), key=len)
        batches += [pad(order[i : i + 16]) for i in range(0, len(order), 16)]
    blocks, numbers = host.blocks[:12], iter(range(100))

    def forward() -> None:
        with torch.no_grad():
            for tokens_BP, mask_BP in batches:
                body(input_ids=tokens_BP, attention_mask=mask_BP, use_cache=False)

    body = copy.copy(host.model.model)
    body._modules = dict(body._modules) | {"layers": torch.nn.ModuleList(blocks)}
    _, found = in_turns(
        lambda: rsae.harvest(config, tmp_path / str(next(numbers)), host), forward, rounds=2, warm_up=1
    )
    benchmark.extra_info["ratio"] = round(found, 2)
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\n{benchmark.name}: {found:.2f} times the host's own forward", end="")
    assert found <= 1.1


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_training_does_not_wait_for_a_warm_store(benchmark, tmp_path, dtype):
    """TopK at D = 576, F = 4608, batch 2048, from shards in the page cache: the share of the time that was waited."""
    x_ND = torch.randn(40_000, D_IN)
    shards = []
    for number, rows_ND in enumerate(x_ND.split(10_000)):
        scaled = Scaled.of(rows_ND)
        short = {"x_ND": scaled.q_ND, "scale_N": scaled.scale_N}
        write_tensors(tmp_path / f"{number}.safetensors", short if dtype == "int8" else {"x_ND": rows_ND})
        shards.append(Shard(f"{number}.safetensors", "train", len(rows_ND), ""))
    store = Store(tmp_path, Manifest(VERSION, D_IN, 1.0, shards))
    sae, waiting = rsae.new("top_k", store, d_sae=D_SAE, k=K), Waiting()
    config = rsae.TrainConfig(steps=50, batch=B)
    benchmark.pedantic(lambda: rsae.train(sae, store, config, monitors=[waiting]), rounds=1)
    benchmark.extra_info["waiting"] = waiting.shares
    print(f"\n{benchmark.name}: waited {max(waiting.shares):.2%} of the time", end="")
    assert max(waiting.shares) < 0.05


# --- pursuit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d_sae", "bar"), [(1536, 2.0), (12288, 1.5)])
def test_pursuit_beside_the_plain_code(ratio, x_BD, d_sae, bar):
    """`encode` of the pursuit with its defaults beside that of the same SAE, k = 32, inference."""
    plain = TopK(D_IN, d_sae, K)
    plain.initialise(x_BD)
    pursued = rsae.pursuit(plain.eval())

    def run(sae: SAE) -> None:
        with torch.no_grad():
            sae.encode(x_BD)

    ratio(lambda: run(pursued), lambda: run(plain), bar)


@pytest.mark.parametrize("name", ["top_k", "jump_relu"])
def test_pursuit_training_step_beside_the_plain_one(ratio, x_BD, name):
    plain = sae_with_about_k_active(name, x_BD)
    steps = []
    for sae in (rsae.pursuit(plain), plain):
        optimiser = torch.optim.Adam(sae.parameters(), lr=0.0, fused=True)

        def step(sae: SAE = sae, optimiser: torch.optim.Optimizer = optimiser) -> None:
            loss = sae.loss(x_BD, 0.1)
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()

        steps.append(step)
    ratio(*steps, 2.0)


class Predictions(NamedTuple):
    """A batch of predictions; all count."""

    tokens_BP: torch.Tensor
    counted_BP: torch.Tensor


@pytest.mark.parametrize(("d_in", "d_sae", "k"), [(576, 1536, 32), (576, 16384, 32), (2304, 16384, 64)])
def test_decoding_a_sparse_code(ratio, d_in, d_sae, k):
    """1024 tokens without gradients, beside the product of the whole code with the decoder."""
    z_BF = torch.zeros(1024, d_sae).scatter(1, torch.rand(1024, d_sae).topk(k).indices, torch.rand(1024, k))
    W_dec, b_dec = torch.randn(d_sae, d_in), torch.randn(d_in)
    with torch.no_grad():
        ratio(lambda: decode_all(z_BF, W_dec, b_dec), lambda: torch.addmm(b_dec, z_BF, W_dec), 0.6)


@pytest.mark.parametrize("way", ["compiled", "by torch"])
def test_losses_beside_the_unembedding(ratio, monkeypatch, way):
    """CE, KL and top-1 of 1016 predictions with the logits they come from, V = 49,152, D = 576, in bfloat16 where the
    processor has it; beside the logits alone."""
    if way == "by torch":
        monkeypatch.setattr(losses_cpu, "available", lambda _: False)
    half = has_bfloat16(torch.device("cpu"))
    run = Predictions(torch.randint(49_152, (8, 128)), torch.ones(8, 127, dtype=torch.bool))
    head = torch.nn.Linear(576, 49_152, bias=False)
    with torch.no_grad():
        logits = Logits(torch.randn(1016, 576), head, half)
        clean = Clean.of(Logits(torch.randn(1016, 576), head, half))
        ratio(
            lambda: against(run, clean, logits),
            lambda: [None for _ in logits.blocks(widened=False)],
            1.6 if way == "compiled" else None,
        )


@pytest.mark.parametrize("name", ["topk", "jumprelu", "standard"])
def test_training_step_of_saelens(ratio, name, x_BD):
    """The same step by SAELens's own training classes and Adam, as its trainer calls them."""
    sae_lens = pytest.importorskip("sae_lens")
    from sae_lens.saes.sae import TrainStepInput  # pyright: ignore[reportMissingImports]

    shared: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE}
    if name == "topk":  # its option `use_sparse_activations` fails on this torch
        cfg = sae_lens.TopKTrainingSAEConfig(**shared, k=K, use_sparse_activations=False)
        sae, coefficients = sae_lens.TopKTrainingSAE(cfg), {}
    elif name == "jumprelu":
        sae, coefficients = (
            sae_lens.JumpReLUTrainingSAE(sae_lens.JumpReLUTrainingSAEConfig(**shared)),
            {"l0": 1.0},
        )
        ours = sae_with_about_k_active("jump_relu", x_BD)
        assert isinstance(ours, JumpReLU)
        with torch.no_grad():
            for mine, theirs in ((ours.W_enc, sae.W_enc), (ours.W_dec, sae.W_dec), (ours.b_dec, sae.b_dec)):
                theirs.copy_(mine)
            sae.threshold.copy_(ours.threshold)
    else:
        sae, coefficients = (
            sae_lens.StandardTrainingSAE(sae_lens.StandardTrainingSAEConfig(**shared)),
            {"l1": 1.0},
        )
    optimiser = torch.optim.Adam(sae.parameters(), lr=0.0)

    def step() -> None:
        out = sae.training_forward_pass(TrainStepInput(x_BD, coefficients, None, 10, False))
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()

    ratio(step, product(x_BD), None)
