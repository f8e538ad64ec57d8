"""Every family as a transcoder: it learns another activation, and everything that holds for an SAE holds for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import rsae
from rsae import InputError, Store, TrainConfig, UpgradeConfig
from rsae.sae import FAMILIES, Target
from rsae.sae.transcoding import aimed
from rsae.upgrading.config import Variant
from tests.rsae.helpers import random_sae

D, O, F = 12, 7, 40
PLAIN = sorted(name for name, cls in FAMILIES.items() if not cls.rational)
ALL = sorted(FAMILIES)


def random_transcoder(name: str, skip: bool, seed: int = 0) -> rsae.SAE:
    """Every parameter in use, decoder rows of unequal norms."""
    like = random_sae(name, seed=seed)
    sae = type(like).from_settings(like.settings() | {"target": {"d_out": O, "skip": skip}})
    generator = torch.Generator().manual_seed(seed)
    sae.load_state_dict({k: v for k, v in like.state_dict().items() if "dec" not in k}, strict=False)
    for parameter in (sae.W_dec, sae.b_dec, sae.W_skip):
        if parameter is not None:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return sae.eval()


def pairs(rows: int = 3000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """x, and a sparse function of it beside a linear one."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, D, generator=generator)
    W, V, A = (torch.randn(a, b, generator=generator) for a, b in ((D, 30), (30, O), (D, O)))
    return x, (x @ W - 3).relu() @ V + x @ A + 1


@pytest.fixture(scope="module")
def given_pairs():
    x, y = pairs()
    return Store.of(4 * x, heldout=500, target=0.1 * y)


def fvu(sae: rsae.SAE, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return ((sae(x) - y).square().sum() / (y - y.mean(0)).square().sum()).item()


def heldout(activations) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([*activations.blocks("heldout")]), torch.cat([*activations.target.blocks("heldout")])


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_it_is_code_times_decoder_and_the_way_past(name, skip):
    sae, x = random_transcoder(name, skip), torch.randn(20, D)
    assert sae.transcodes
    assert sae.d_out == O
    y = sae.encode(x) @ sae.W_dec + sae.b_dec
    if skip:
        assert sae.W_skip is not None
        y = y + x @ sae.W_skip.T
        with pytest.raises(InputError, match="has a skip connection"):
            sae.decode(sae.encode(x))
    torch.testing.assert_close(sae(x), y)
    assert not torch.equal(sae.encode(x), torch.zeros(20, F))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ALL)
@given(factor=st.floats(0.01, 100), out=st.floats(0.01, 100))
@settings(max_examples=5)
@torch.no_grad()
def test_units(name, skip, factor, out):
    sae, x = random_transcoder(name, skip), torch.randn(20, D)
    torch.testing.assert_close(
        sae.in_units(factor, out)(factor * x), out * sae(x), rtol=2e-3, atol=2e-3 * out
    )


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_save_and_load(name, skip, tmp_path):
    sae, x = random_transcoder(name, skip), torch.randn(20, D)
    rsae.save(sae, tmp_path)
    again = rsae.load(tmp_path)
    assert again.target == sae.target == Target(O, skip)
    assert torch.equal(again(x), sae(x))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("target", ["blocks.3.hook_mlp_out", "blocks.5.hook_resid_post"])
def test_gemma_scope_tells_a_transcoder_by_its_config(skip, target, tmp_path):
    """Its weights alone look like those of an SAE, which would then be compared with its own input."""
    sae = random_transcoder("jump_relu", skip)
    sae.provenance = rsae.Provenance(hook="blocks.3.hook_mlp_in", target=target)
    rsae.save(sae, tmp_path / "sae", "gemma_scope")
    again = rsae.load(tmp_path / "sae")
    assert again.target == sae.target
    assert (again.provenance.hook, again.provenance.target) == ("blocks.3.hook_mlp_in", target)
    rsae.save(random_transcoder("jump_relu", skip), tmp_path / "nowhere", "gemma_scope")
    assert rsae.load(tmp_path / "nowhere").target == sae.target
    rsae.save(random_sae("jump_relu", d_in=6), tmp_path / "nowhere", "gemma_scope")  # over it
    assert not rsae.load(tmp_path / "nowhere").transcodes


@pytest.mark.parametrize(("format", "name"), [("sparsify", "top_k"), ("gemma_scope", "jump_relu")])
@pytest.mark.parametrize("skip", [False, True])
@torch.no_grad()
def test_other_formats(format, name, skip, tmp_path):
    sae, x = random_transcoder(name, skip), torch.randn(20, D)
    rsae.save(sae, tmp_path / "sae", format)
    again = rsae.load(tmp_path / "sae", kind="transcoder")
    assert again.target == sae.target
    torch.testing.assert_close(again(x), sae(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="cannot hold a .* transcoder; these can: saelens"):
        rsae.save(sae, tmp_path / "other", "dictionary_learning")


@torch.no_grad()
def test_circuit_tracers_directory(tmp_path):
    """Layer by layer; computed as its published code computes it, from the file alone."""
    sae = random_sae("relu")
    with pytest.raises(InputError, match="cannot hold a 'relu' SAE; these can: saelens"):
        rsae.save(sae, tmp_path, "circuit_tracer")
    for layer, (name, skip) in enumerate([("jump_relu", True), ("jump_relu", False), ("relu", True)]):
        sae, x = random_transcoder(name, skip, layer), torch.randn(20, D)
        mlp = f"blocks.{layer}.hook_mlp"
        sae.provenance = rsae.Provenance(model="gpt2", hook=f"{mlp}_in", target=f"{mlp}_out")
        rsae.save(sae, tmp_path, "circuit_tracer")
        file = load_file(tmp_path / f"layer_{layer}.safetensors")
        h = torch.nn.functional.linear(x, file["W_enc"], file["b_enc"])
        threshold = file.get("activation_function.threshold", torch.zeros(F))
        y = h * (h > threshold) @ file["W_dec"] + file["b_dec"]
        y = y + x @ file["W_skip"].T if skip else y
        torch.testing.assert_close(sae(x), y, rtol=1e-4, atol=1e-4)
        again = rsae.load(tmp_path / f"layer_{layer}.safetensors")
        assert (again.family, again.target) == (sae.family, sae.target)
        torch.testing.assert_close(again(x), sae(x))
        assert again.provenance.hook == f"{mlp}_in"
        assert again.provenance.target == f"{mlp}_out"
    with pytest.raises(InputError, match="name one's file, such as .*layer_0"):
        rsae.load(tmp_path)
    sae.provenance = rsae.Provenance(
        model="gpt2", hook="blocks.3.hook_resid_mid", target="blocks.3.hook_mlp_out"
    )
    with pytest.raises(
        InputError, match="feature_input_hook is 'mlp.hook_in', the transcoder's 'hook_resid_mid'"
    ):
        rsae.save(sae, tmp_path, "circuit_tracer")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model_kind: cross_layer_transcoder", "model_kind 'cross_layer_transcoder' is not supported"),
        ("activation: topk", "activation 'topk' is not supported, which passes negative values"),
        ("- a list", "is no mapping"),
        ("a: b: c", "not readable as YAML"),
    ],
)
def test_circuit_tracers_configs_that_are_not_read(tmp_path, config, message):
    sae = random_transcoder("relu", False)
    sae.provenance = rsae.Provenance(hook="blocks.0.hook_mlp_in", target="blocks.0.hook_mlp_out")
    rsae.save(sae, tmp_path, "circuit_tracer")
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(InputError, match=message):
        rsae.load(tmp_path / "layer_0.safetensors")


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_gradients_of_the_loss(name, skip):
    """Against finite differences of the loss itself, in the decoder, its bias and the skip connection."""
    sae = random_transcoder(name, skip)
    x, y = (t[:30] for t in pairs())
    sae.loss(x, 0.1, y_BO=y).total.backward()
    for parameter in (sae.W_dec, sae.b_dec, sae.W_skip):
        if parameter is None:
            continue
        gradient = parameter.grad
        assert gradient is not None
        if name in ("gated", "sign_aware_gated"):
            continue  # their auxiliary loss holds all of this fixed
        step = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-2 * step
                values.append(sae.loss(x, 0.1, y_BO=y).total.item())
                parameter -= sign * 1e-2 * step
        assert (values[0] - values[1]) / 2e-2 == pytest.approx(
            (gradient * step).sum().item(), rel=0.02, abs=0.05
        )


@pytest.mark.parametrize("name", PLAIN)
def test_beside_a_skip_connection_the_code_begins_as_a_help(name, given_pairs):
    """Random images would be noise beside it, and training would begin by shutting the gates."""
    settings: dict[str, Any] = {"k": 8} if "top_k" in name else {}
    sae = rsae.new(name, given_pairs, 0, True, d_sae=F, **settings)
    x, y = heldout(given_pairs)
    assert sae.W_skip is not None
    linear = x @ sae.W_skip.detach().T
    rest = y - linear - (y - linear).mean(0)
    with torch.no_grad():
        left = (y - sae(x)).square().sum() / rest.square().sum()
    assert left < (1.02 if sae.signed else 0.97)  # an odd code says little of an even rest
    norms = sae.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, norms[:1].expand_as(norms))


@given(seed=st.integers(0, 1000), each=st.booleans())
@settings(max_examples=20)
def test_images_are_those_of_least_squares(seed, each):
    generator = torch.Generator().manual_seed(seed)
    z, W = torch.rand(400, 6, generator=generator), torch.randn(6, O, generator=generator)
    z[:, 5] = 0  # a latent that does not fire keeps its image
    kept = torch.nn.functional.normalize(torch.randn(6, O, generator=generator), dim=1)
    found, norms = aimed(z, z @ W + 3, kept, each, steps=60)
    torch.testing.assert_close(found.norm(dim=1), norms)
    cosines = torch.nn.functional.cosine_similarity(found, torch.cat([W[:5], kept[5:]]))
    torch.testing.assert_close(cosines, torch.ones(6), rtol=0, atol=1e-3)
    if each:
        torch.testing.assert_close(found[:5], W[:5], rtol=0, atol=5e-3)
    else:
        directions = torch.nn.functional.normalize(found, dim=1)
        p, rest = ((t - t.mean(0)).flatten() for t in (z @ directions, z @ W))
        torch.testing.assert_close(norms, (p @ rest / (p @ p)).expand(6), rtol=1e-3, atol=0)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_training_learns_the_target(name, skip, given_pairs):
    settings_: dict[str, Any] = {"k": 8} if FAMILIES[name].sparsity_by == "k" else {}
    sae = rsae.new(name, given_pairs, d_sae=64, skip=skip, **settings_)
    x, y = heldout(given_pairs)
    config = TrainConfig(steps=400, batch=256, lr=3e-3, sparsity=0.0 if settings_ else 0.01)
    start = fvu(sae, x, y)
    rsae.train(sae, given_pairs, config)
    assert fvu(sae, x, y) < 0.7 * start
    if sae.signed:
        return  # these features have one sign
    beta = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y).solution
    linear = (torch.cat([x, torch.ones(len(x), 1)], 1) @ beta - y).square().sum() / (
        y - y.mean(0)
    ).square().sum()
    assert fvu(sae, x, y) < (0.8 * linear if skip else 0.5)


@pytest.mark.parametrize(("skip", "lr"), [(False, 1e-2), (True, 5e-3)])
def test_the_rate_beside_a_skip_connection_is_lower(given_pairs, skip, lr):
    """At 1e-2 ReLU, JumpReLU and Gated transcoders lost half of their l0 beside one."""
    own, other = (rsae.new("relu", given_pairs, d_sae=64, skip=skip) for _ in range(2))
    rsae.train(own, given_pairs, TrainConfig(steps=3, batch=64))
    rsae.train(other, given_pairs, TrainConfig(steps=3, batch=64, lr=lr))
    for key, value in own.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@pytest.mark.parametrize("variant", ["gated", "soft"])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", PLAIN)
def test_one_tiny_step_of_an_upgrade_changes_nothing(name, skip, variant: Variant, given_pairs):
    teacher = random_transcoder(name, skip)
    if variant == "soft" and teacher.gate_target() is None:
        pytest.skip("no rational gate")
    x, y = heldout(given_pairs)
    tune = TrainConfig(steps=1, batch=64, lr=1e-6, sparsity=0.05, sparsity_warmup=0.0)
    config = UpgradeConfig(variant=variant, type=(3, 2), tune=tune, calibration_tokens=512)
    new = rsae.upgrade(teacher, given_pairs, config=config)
    assert new.control is not None
    assert fvu(new.control, x, y) == pytest.approx(fvu(teacher, x, y), rel=0.01)
    if variant == "gated":
        assert fvu(new.initial, x, y) == pytest.approx(fvu(teacher, x, y), rel=1e-3)
        assert fvu(new.tuned, x, y) == pytest.approx(fvu(new.initial, x, y), rel=0.01)
    assert new.tuned.target == new.initial.target == teacher.target


def test_what_does_not_fit_is_said(given_pairs, store):
    sae = random_transcoder("top_k", False)
    with pytest.raises(InputError, match="does not see what it predicts"):
        rsae.pursuit(sae)
    with pytest.raises(InputError, match="give that, too"):
        sae.loss(torch.randn(5, D))
    narrow = Store.of(torch.randn(300, D))
    with pytest.raises(InputError, match="is a transcoder, and the given activations holds no target"):
        rsae.train(sae, narrow, TrainConfig(steps=1, batch=16))
    other = Store.of(torch.randn(300, D), target=torch.randn(300, O + 1))
    with pytest.raises(InputError, match="predicts 7 dimensions, the given activations has 8"):
        rsae.train(sae, other, TrainConfig(steps=1, batch=16))
    with pytest.raises(InputError, match="the target has 299 rows, the activations have 300"):
        Store.of(torch.randn(300, D), target=torch.randn(299, O))
    with pytest.raises(InputError, match="skip: the given activations has no target"):
        rsae.new("top_k", narrow, d_sae=F, k=3, skip=True)


# --- activations in pairs --------------------------------------------------------------------------------------

IN, OUT = "blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out"


@pytest.fixture(scope="module")
def pair_config(harvest_config):
    return replace(harvest_config, hook=IN, target=OUT, norm_limit=1.2)


def test_a_harvested_pair_is_the_mlp_itself(pair_config, host, tmp_path):
    """The MLP of the host, run on the stored input, gives the stored target, row by row, in every order."""
    store = rsae.harvest(pair_config, tmp_path, host)
    assert store.target is not None
    assert store.provenance.target == OUT
    beyond = [shard.excluded_by_norm for shard in store.manifest.shards]
    assert sum(beyond) > 0
    mlp = host.blocks[1].mlp
    with torch.no_grad():
        for x, y in zip(store.blocks("train"), store.target.blocks("train"), strict=True):
            torch.testing.assert_close(mlp(x), y, rtol=1e-3, atol=1e-5)
        x, y = store.batch(3, 32, 5), store.target.batch(3, 32, 5)
        torch.testing.assert_close(mlp(x), y, rtol=1e-3, atol=1e-5)
        x, y = store.sample(50, 2), store.target.sample(50, 2)
        torch.testing.assert_close(mlp(x), y, rtol=1e-3, atol=1e-5)


def test_a_killed_harvest_of_a_pair_goes_on(pair_config, host, tmp_path):
    whole = rsae.harvest(pair_config, tmp_path, host)
    assert whole.target is not None
    before = torch.cat([*whole.target.blocks("train")])
    shard = tmp_path / "target" / whole.target.manifest.shards[0].file
    shard.unlink()
    with pytest.raises(InputError, match="the shard is missing"):
        Store.open(tmp_path)
    again = rsae.harvest(pair_config, tmp_path, host)
    assert again.target is not None
    assert torch.equal(torch.cat([*again.target.blocks("train")]), before)


def test_a_streamed_pair_is_the_mlp_itself(pair_config, host):
    stream = rsae.Stream(pair_config, host, window=500)
    assert stream.target is not None
    mlp = host.blocks[1].mlp
    with torch.no_grad():
        for step in range(6):
            x, y = stream.batch(step, 64, 0), stream.target.batch(step, 64, 0)
            torch.testing.assert_close(mlp(x), y, rtol=1e-3, atol=1e-5)
        x, y = stream.sample(40), stream.target.sample(40)
        torch.testing.assert_close(mlp(x), y, rtol=1e-3, atol=1e-5)
        for x, y in zip(stream.blocks("heldout"), stream.target.blocks("heldout"), strict=True):
            torch.testing.assert_close(mlp(x), y, rtol=1e-3, atol=1e-5)


def test_a_transcoder_belongs_to_its_target(pair_config, host, tmp_path):
    store = rsae.harvest(pair_config, tmp_path / "pair", host)
    sae = rsae.new("top_k", store, d_sae=32, k=4)
    rsae.train(sae, store, TrainConfig(steps=2, batch=32))
    rsae.save(sae, tmp_path / "sae")
    assert rsae.load(tmp_path / "sae").provenance.target == OUT
    other = rsae.harvest(replace(pair_config, target="blocks.1.hook_attn_out"), tmp_path / "other", host)
    with pytest.raises(InputError, match="belongs to target 'blocks.1.hook_mlp_out'"):
        rsae.train(sae, other, TrainConfig(steps=1, batch=16))


@torch.no_grad()
def test_attached_it_takes_the_place_of_its_target(pair_config, host, tmp_path):
    store = rsae.harvest(replace(pair_config, norm_limit=1e6), tmp_path, host)
    sae = rsae.new("top_k", store, d_sae=32, k=4, skip=True)
    tokens = torch.arange(1, 13)[None]
    clean = host.model(input_ids=tokens).logits
    with rsae.attached(host, sae, error=True) as inside:
        torch.testing.assert_close(host.model(input_ids=tokens).logits, clean, rtol=1e-4, atol=1e-4)
    assert inside.input is not None
    assert inside.features is not None
    torch.testing.assert_close(inside.features, sae.encode(inside.input))
    y = host.blocks[1].mlp(inside.input)
    torch.testing.assert_close(inside.residual, y - sae(inside.input), rtol=1e-4, atol=1e-5)
    with rsae.attached(host, sae, error=False):
        spliced = host.model(input_ids=tokens).logits

    def by_hand(module, args, output):
        return torch.cat([output[:, :1], sae(args[0])[:, 1:]], 1)

    handle = host.blocks[1].mlp.register_forward_hook(by_hand)
    try:
        torch.testing.assert_close(host.model(input_ids=tokens).logits, spliced, rtol=1e-4, atol=1e-4)
    finally:
        handle.remove()
    assert (spliced - clean).abs().max() > 1e-3


@torch.no_grad()
def test_a_target_before_the_input_cannot_be_attached(pair_config, host, tmp_path):
    store = rsae.harvest(replace(pair_config, hook=OUT, target=IN, norm_limit=1e6), tmp_path, host)
    sae = rsae.new("top_k", store, d_sae=32, k=4)
    for _ in range(2):  # nothing of an earlier pass is used
        with (
            rsae.attached(host, sae),
            pytest.raises(InputError, match="computes blocks.1.hook_mlp_in before blocks.1.hook_mlp_out"),
        ):
            host.model(input_ids=torch.arange(1, 9)[None])
