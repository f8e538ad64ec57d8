"""What an SAE is, its own fields say; a path only where whole names are the release's own; doubt is an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import rsae
from rsae import InputError, Provenance
from rsae.provenance import canonical_hook, canonical_model, check_match
from tests.rsae.helpers import random_sae

GOLDEN = Path(__file__).parent / "golden"


def said(path, **options):
    known = rsae.load(path, **options).provenance
    return known.model, known.hook


def gemma(root: Path, *parts: str) -> Path:
    return Path(shutil.copytree(GOLDEN / "gemma_scope_npz", root.joinpath(*parts), dirs_exist_ok=True))


@pytest.mark.parametrize(
    ("parts", "model", "hook"),
    [
        (("gemma-scope-2b-pt-res", "layer_20", "width_16k"), "google/gemma-2-2b", "blocks.20.hook_resid_post"),
        (("my-results", "gemma-scope-2b-pt-mlp", "layer_5"), "google/gemma-2-2b", "blocks.5.hook_mlp_out"),
        (("layer_3_study", "gemma-scope-9b-it-res", "layer_20"), "google/gemma-2-9b-it", "blocks.20.hook_resid_post"),
        (("gemma-scope-2b-pt-att", "layer_7"), "google/gemma-2-2b", "blocks.7.attn.hook_z"),
        (
            ("models--google--gemma-scope-2b-pt-res", "snapshots", "abc", "layer_1"),
            "google/gemma-2-2b",
            "blocks.1.hook_resid_post",
        ),
        (("my-gemma-scope-2b-pt-res-copy", "layer_4"), None, None),
        (("layer_9", "mlp"), None, None),
        (("gemma-scope-2b-pt-res",), "google/gemma-2-2b", None),
    ],
)  # fmt: skip
def test_names_of_a_release_count_as_wholes(tmp_path, parts, model, hook):
    assert said(gemma(tmp_path, *parts)) == (model, hook)


@given(
    noise=st.lists(
        st.sampled_from(["layer_3x", "res", "-res", "mlp", "layer", "gemma-scope", "a-res-b"]), max_size=4
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_other_directories_say_nothing(tmp_path, noise):
    path = gemma(tmp_path, *noise, "gemma-scope-2b-pt-mlp", "layer_6", "average_l0_3")
    assert said(path) == ("google/gemma-2-2b", "blocks.6.hook_mlp_out")


@pytest.mark.parametrize(
    "parts",
    [
        ("gemma-scope-2b-pt-transcoders", "layer_5"),
        ("gemma-scope-2-270m-pt", "transcoder", "layer_5_width_16k"),
    ],
)
def test_a_transcoder_by_name(tmp_path, parts):
    path = gemma(tmp_path, *parts)
    sae = rsae.load(path)
    assert sae.transcodes
    assert sae.provenance.hook == "blocks.5.hook_mlp_in"
    assert sae.provenance.target == "blocks.5.hook_mlp_out"
    assert not rsae.load(path, kind="sae").transcodes


def test_several_layers_in_one_are_asked_about(tmp_path):
    path = gemma(tmp_path, "gemma-scope-2-270m-pt", "clt", "layer_5_width_16k")
    with pytest.raises(InputError, match=r"a clt, which reads or predicts several layers.*kind='transcoder'"):
        rsae.load(path)


def test_an_embedding_sae_has_its_scale(tmp_path):
    plain = rsae.load(GOLDEN / "gemma_scope_npz")
    embedding = rsae.load(gemma(tmp_path, "gemma-scope-2b-pt-res", "embedding", "width_4k"))
    torch.testing.assert_close(embedding.W_enc * 6**0.5, plain.W_enc)
    torch.testing.assert_close(embedding.W_dec / 6**0.5, plain.W_dec)


def test_a_config_that_disagrees_with_the_name_is_an_error(tmp_path):
    path = tmp_path / "gemma-scope-2-270m-pt" / "resid_post" / "layer_7_width_16k"
    shutil.copytree(GOLDEN / "gemma_scope_2", path)  # its config says model.layers.5
    with pytest.raises(InputError, match=r"hf_hook_point_in means blocks.5.*name blocks.7.*hook="):
        rsae.load(path)
    assert said(path, hook="blocks.5.hook_resid_post")[1] == "blocks.5.hook_resid_post"


@pytest.mark.parametrize(
    ("changes", "hook"),
    [
        ({"submodule_name": None}, None),
        ({"submodule_name": "resid_post_layer_3"}, "blocks.3.hook_resid_post"),
        ({"submodule_name": "mlp_out_layer_3"}, "blocks.3.hook_mlp_out"),
        ({"submodule_name": "my_resid_post_thing"}, None),
        ({"submodule_name": "model.layers.4.mlp"}, "blocks.4.hook_mlp_out"),
    ],
)
def test_dictionary_learning_says_its_submodule(tmp_path, changes, hook):
    path = shutil.copytree(GOLDEN / "dictionary_batchtopk", tmp_path / "sae")
    config = json.loads((path / "config.json").read_text())
    config["trainer"] |= {"layer": 3} | changes
    (path / "config.json").write_text(json.dumps(config))
    assert rsae.load(path).provenance.hook == hook


def test_dictionary_learning_whose_layer_and_submodule_disagree(tmp_path):
    path = shutil.copytree(GOLDEN / "dictionary_batchtopk", tmp_path / "sae")
    config = json.loads((path / "config.json").read_text())
    config["trainer"] |= {"layer": 3, "submodule_name": "resid_post_layer_4"}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="disagree"):
        rsae.load(path)


# --- other public formats ------------------------------------------------------------------------------------


def test_goodfires_linear_layers(tmp_path):
    W_enc, W_dec, b_enc, b_dec = torch.randn(6, 16), torch.randn(16, 6), torch.randn(16), torch.randn(6)
    state = {
        "encoder_linear.weight": W_enc.T.contiguous(),
        "encoder_linear.bias": b_enc,
        "decoder_linear.weight": W_dec.T.contiguous(),
        "decoder_linear.bias": b_dec,
    }
    torch.save(state, tmp_path / "Llama-3.3-70B-Instruct-SAE-l50.pt")
    x = torch.randn(9, 6)
    sae = rsae.load(tmp_path)
    torch.testing.assert_close(sae(x), (x @ W_enc + b_enc).relu() @ W_dec + b_dec)
    torch.save(state, tmp_path / "other.pth")
    assert torch.equal(rsae.load(tmp_path / "other.pth")(x), sae(x))


@pytest.mark.parametrize("act_fn", [None, "jumprelu", "relu", "topk"])
@pytest.mark.parametrize("with_norms", [False, True])
@pytest.mark.parametrize("subtracts", [False, True])
@pytest.mark.parametrize("norm", [None, "dataset-wise", "token-wise", "inference"])
def test_llama_scope(tmp_path, act_fn, with_norms, subtracts, norm):
    """The fields that Language-Model-SAEs writes, against its encode and decode in a few lines."""
    W_enc, W_dec, b_enc, b_dec = torch.randn(6, 16), torch.randn(16, 6), torch.randn(16), torch.randn(6)
    hyper = {
        "d_model": 6,
        "d_sae": 16,
        "jump_relu_threshold": 0.4,
        "dataset_average_activation_norm": {"in": 4.0, "out": 4.0},
        "hook_point_in": "blocks.9.hook_resid_post",
        "hook_point_out": "blocks.9.hook_resid_post",
        "sparsity_include_decoder_norm": with_norms,
        "apply_decoder_bias_to_pre_encoder": subtracts,
        "top_k": 3,
    }
    hyper |= {k: v for k, v in (("act_fn", act_fn), ("norm_activation", norm)) if v is not None}
    (tmp_path / "hyperparams.json").write_text(json.dumps(hyper))
    (tmp_path / "checkpoints").mkdir()
    tensors = {
        "encoder.weight": W_enc.T.contiguous(),
        "encoder.bias": b_enc,
        "decoder.weight": W_dec.T.contiguous(),
        "decoder.bias": b_dec,
    }
    save_file(tensors, tmp_path / "checkpoints" / "final.safetensors")
    sae, x = rsae.load(tmp_path), torch.randn(40, 6) * 3
    s = 6**0.5 / {"token-wise": x.norm(dim=1, keepdim=True), "inference": 6**0.5}.get(norm or "", 4.0)
    h = (s * x - (b_dec if subtracts else 0)) @ W_enc + b_enc
    norms = W_dec.norm(dim=1) if with_norms else torch.ones(16)
    edge = 0.4 * (s if norm in (None, "dataset-wise") else 1.0)  # it stands in the activations' own units
    kept = {
        "relu": h > 0,
        "topk": (h * norms >= (h * norms).topk(3).values[:, -1:]) & (h > 0),
    }.get(act_fn or "", h * norms > edge)
    z = torch.where(kept, h, 0.0)
    torch.testing.assert_close((sae.encode(x) != 0), z != 0)
    torch.testing.assert_close(sae(x), (z @ W_dec + b_dec) / s, rtol=1e-4, atol=1e-4)
    assert sae.provenance.hook == "blocks.9.hook_resid_post"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"act_fn": "batchtopk"}, "act_fn"),
        ({"norm_activation": "batch-wise"}, "norm_activation"),
        ({"use_glu_encoder": True}, "use_glu_encoder"),
        ({"act_fn": "topk"}, "needs top_k"),
        ({"dataset_average_activation_norm": None}, "dataset_average_activation_norm"),
    ],
)
def test_a_llama_scope_that_is_another_function_is_refused(tmp_path, change, says):
    hyper = {"d_model": 6, "d_sae": 16, "dataset_average_activation_norm": {"in": 4.0}, "hook_point_in": "x"}
    (tmp_path / "hyperparams.json").write_text(json.dumps(hyper | change))
    (tmp_path / "checkpoints").mkdir()
    shapes = {
        "encoder.weight": (16, 6),
        "encoder.bias": (16,),
        "decoder.weight": (6, 16),
        "decoder.bias": (6,),
    }
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "checkpoints" / "final.safetensors")
    with pytest.raises(InputError, match=says):
        rsae.load(tmp_path)


@pytest.mark.parametrize("keys", [["a", "b"], ["encoder.weight", "decoder.weight"]])
def test_an_unknown_torch_file_is_not_guessed_at(tmp_path, keys):
    torch.save({k: torch.zeros(3, 3) for k in keys}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"no known format|dictionary_learning's; name it ae.pt"):
        rsae.load(tmp_path)


def test_circuit_tracers_directory_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("model_name: x")
    with pytest.raises(InputError, match="a transcoder for each layer: name one's file, which is not there"):
        rsae.load(tmp_path)


def test_sharded_weights(tmp_path):
    path = shutil.copytree(GOLDEN / "saelens_topk", tmp_path / "sae")
    weights = load_file(path / "sae_weights.safetensors")
    shards = {k: f"sae_weights-0000{i}.safetensors" for i, k in enumerate(weights)}
    for key, name in shards.items():
        save_file({key: weights[key]}, path / name)
    (path / "sae_weights.safetensors").unlink()
    index = path / "sae_weights.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    x = torch.randn(9, 6)
    assert torch.equal(rsae.load(path)(x), rsae.load(GOLDEN / "saelens_topk")(x))
    index.write_text(json.dumps({"weight_map": shards | {"W_dec": "../../etc/x.safetensors"}}))
    with pytest.raises(InputError, match="not a file beside it"):
        rsae.load(path)


#: One golden directory a way of reading tensors, and its file
READERS = [
    ("saelens_topk", "sae_weights.safetensors"),
    ("sparsify_topk", "sae.safetensors"),
    ("gemma_scope_2", "params.safetensors"),
    ("dictionary_topk", "ae.pt"),
]


@pytest.mark.parametrize(("name", "file"), READERS)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8, torch.complex64]
)
def test_weights_are_floats_of_any_width_and_nothing_else(tmp_path, name, file, dtype):
    path = shutil.copytree(GOLDEN / name, tmp_path / "sae")
    of_torch = file.endswith(".pt")
    tensors = torch.load(path / file, weights_only=True) if of_torch else load_file(path / file)
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    (torch.save if of_torch else save_file)(tensors, path / file)
    if dtype.is_floating_point:
        assert {p.dtype for p in rsae.load(path).parameters()} == {torch.float32}
        return
    with pytest.raises(InputError, match=rf"{file}: tensor '.*' is of {dtype}, not of floats; dequantise"):
        rsae.load(path)


def test_json_is_read_as_others_write_it(tmp_path):
    """A byte order mark, and NaN, which Python writes and nobody else reads."""
    path = shutil.copytree(GOLDEN / "saelens_topk", tmp_path / "sae")
    cfg = json.loads((path / "cfg.json").read_text())
    cfg["metadata"] |= {"their_loss": float("nan"), "their_limit": float("inf"), "note": "Łódź"}
    (path / "cfg.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(cfg, ensure_ascii=False).encode())
    rsae.save(rsae.load(path), tmp_path / "again")
    again = json.loads((tmp_path / "again" / "cfg.json").read_text())
    assert again["metadata"]["their_loss"] is None
    assert again["metadata"]["note"] == "Łódź"


@pytest.mark.parametrize("architecture", ["jumprelu", "standard"])
def test_a_field_of_another_architecture_is_passed_over(tmp_path, architecture):
    """SAELens reads `rescale_acts_by_decoder_norm` for TopK and its kin alone."""
    path = shutil.copytree(GOLDEN / f"saelens_{architecture}", tmp_path / "sae")
    x = torch.randn(9, 6)
    before = rsae.load(path)(x)
    cfg = json.loads((path / "cfg.json").read_text())
    (path / "cfg.json").write_text(json.dumps(cfg | {"rescale_acts_by_decoder_norm": True}))
    assert torch.equal(rsae.load(path)(x), before)


def test_the_architecture_by_our_own_name_is_read_too(tmp_path):
    rsae.save(random_sae("abs_top_k"), tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert cfg["architecture"] == "abstopk"
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | {"architecture": "rsae_abs_top_k"}))
    assert rsae.load(tmp_path).family == "abs_top_k"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number(scale):
    with pytest.raises(InputError, match="is no positive number"):
        rsae.load(GOLDEN / "saelens_expected_average", input_scale=scale)


def test_a_kind_that_the_files_contradict():
    with pytest.raises(InputError, match=r"is an SAE by its own files: leave kind='transcoder' out"):
        rsae.load(GOLDEN / "saelens_topk", kind="transcoder")
    with pytest.raises(InputError, match="kind 'clt' is unknown"):
        rsae.load(GOLDEN / "gemma_scope_npz", kind="clt")  # type: ignore[arg-type]


def test_a_directory_that_holds_several(tmp_path):
    shutil.copytree(GOLDEN / "openai_topk", tmp_path / "a" / "b")
    with pytest.raises(InputError, match="no SAE"):
        rsae.load(tmp_path)  # one .pt of no known name, deeper down
    shutil.copytree(GOLDEN / "saelens_topk", tmp_path / "c" / "d")
    (tmp_path / "e").symlink_to("/proc")
    with pytest.raises(InputError, match=r"in its folders c/d"):
        rsae.load(tmp_path)
    for name in ("x.pt", "y.pt"):
        torch.save({}, tmp_path / name)
    with pytest.raises(InputError, match=r"of its torch files x.pt, y.pt name one"):
        rsae.load(tmp_path)


def test_fields_that_mean_nothing_here_survive(tmp_path):
    path = shutil.copytree(GOLDEN / "saelens_standard", tmp_path / "sae")
    cfg = json.loads((path / "cfg.json").read_text())
    cfg |= {"reshape_activations": "hook_z", "their_field": {"a": [1, 2]}}
    cfg["metadata"] |= {"neuronpedia_id": "x/1", "hook_head_index": 3}
    (path / "cfg.json").write_text(json.dumps(cfg))
    for _ in range(2):
        rsae.save(rsae.load(path), tmp_path / "again")
        path = tmp_path / "again"
    again = json.loads((path / "cfg.json").read_text())
    assert again["reshape_activations"] == "hook_z"
    assert again["their_field"] == {"a": [1, 2]}
    assert again["metadata"]["neuronpedia_id"] == "x/1"
    assert again["metadata"]["hook_head_index"] == 3
    assert {"context_size", "prepend_bos"} <= again["metadata"].keys()


# --- provenance ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("google/gemma-2-2b", "gemma-2-2b", True),
        ("gpt2-small", "openai-community/gpt2", True),
        ("/models/gpt2/", "gpt2", True),
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("HuggingFaceTB/SmolLM2-135M", "smollm2-135m", False),
        ("gpt2", "gpt2-medium", False),
    ],
)
def test_names_of_models(a, b, same):
    assert (canonical_model(a) == canonical_model(b)) is same


@given(layer=st.integers(1, 99))
def test_the_stream_before_a_block_is_that_after_the_one_before(layer):
    assert canonical_hook(f"blocks.{layer}.hook_resid_pre") == canonical_hook(
        f"blocks.{layer - 1}.hook_resid_post"
    )
    assert canonical_hook(f"blocks.{layer}.hook_mlp_out") == f"blocks.{layer}.hook_mlp_out"


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["gpt2", "a/b"]),
        "hook": st.sampled_from(["blocks.1.hook_resid_post", "blocks.2.hook_mlp_out"]),
        "context": st.integers(1, 9),
        "bos": st.booleans(),
        "norm_limit": st.floats(1, 9),
        "exclude_tokens": st.lists(st.integers(0, 9), max_size=3).map(tuple),
        "extra": st.dictionaries(st.sampled_from(["x", "y"]), st.integers()),
    },
)


@given(fields=FIELDS)
def test_provenance_survives_as_metadata(fields):
    made = Provenance(**fields)
    assert Provenance.from_metadata(json.loads(json.dumps(made.metadata()))) == made
    check_match(made, made, "a", "b")
    check_match(made, Provenance(), "a", "b")


def test_bos_that_differs_is_a_warning():
    with pytest.warns(UserWarning, match="BOS token in front"):
        check_match(Provenance(bos=True), Provenance(bos=False), "the SAE", "the store")


@pytest.mark.parametrize("value", [{"hook_name": 3}, {"context_size": "long"}, {"prepend_bos": "maybe"}])
def test_metadata_of_the_wrong_kind_is_named(tmp_path, value):
    rsae.save(random_sae("relu"), tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    cfg["metadata"] |= value
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(InputError, match=r"cfg.json: metadata of"):
        rsae.load(tmp_path)


def test_a_format_is_never_written_over_another(tmp_path):
    """Formats share names: sparsify's cfg.json would leave SAELens's weights without theirs."""
    sae = random_sae("top_k")
    for first, then in [
        ("saelens", "sparsify"),
        ("sparsify", "saelens"),
        ("dictionary_learning", "gemma_scope"),
    ]:
        if first == "dictionary_learning":
            sae = random_sae("jump_relu")
        rsae.save(sae, tmp_path / first, format=first)
        before = {f: f.read_bytes() for f in (tmp_path / first).iterdir()}
        with pytest.raises(InputError, match=f"holds an SAE as {first} .*; choose another directory"):
            rsae.save(sae, tmp_path / first, format=then)
        assert {f: f.read_bytes() for f in (tmp_path / first).iterdir()} == before
        rsae.save(sae, tmp_path / first, format=first)
