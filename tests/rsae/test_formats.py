import contextlib
import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import rsae
from rsae import InputError, Provenance
from rsae.formats import WRITERS, detect
from rsae.sae import FAMILIES
from rsae.sae.input_norm import InputNorm
from tests.rsae.helpers import random_sae

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_round_trip(name, tmp_path):
    sae = random_sae(name).eval()
    sae.provenance = Provenance(model="tiny", hook="blocks.1.hook_resid_post")
    rsae.save(sae, tmp_path / "sae")
    again = rsae.load(tmp_path / "sae")
    x = torch.randn(20, sae.d_in)
    assert type(again) is type(sae)
    assert torch.equal(again.encode(x), sae.encode(x))
    assert torch.equal(again(x), sae(x))
    assert again.provenance.filled(sae.provenance) == again.provenance
    assert again.provenance.model == "tiny"
    assert again.settings() == sae.settings()


@pytest.mark.parametrize("name", ["relu", "jump_relu", "top_k", "gated"])
def test_a_saelens_directory_without_our_settings_loads(name, tmp_path):
    """SAELens version 6: the same layout, without the field `rsae`."""
    sae = random_sae(name).eval()
    rsae.save(sae, tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    del cfg["rsae"]
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    x = torch.randn(20, sae.d_in)
    assert torch.equal(rsae.load(tmp_path).encode(x), sae.encode(x))


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("format", sorted(set(WRITERS) - {"saelens", "circuit_tracer"}))
def test_foreign_formats_hold_the_same_function(format, subtract, tmp_path):
    """Whether b_dec is subtracted is made up for in the encoder's bias where the format fixes it."""
    for family in WRITERS[format][1]:
        sae = random_sae(family).eval()
        sae.subtract_b_dec = subtract
        sae.provenance = Provenance(model="tiny", hook="blocks.1.hook_resid_post")
        rsae.save(sae, tmp_path / family, format=format)
        assert detect(tmp_path / family) == format
        again = rsae.load(tmp_path / family)
        x = torch.randn(50, sae.d_in)
        with torch.no_grad():
            assert (sae.encode(x) != 0).any()
            torch.testing.assert_close(again.encode(x), sae.encode(x), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(again(x), sae(x), rtol=1e-4, atol=1e-5)
        if format == "dictionary_learning":
            assert again.provenance.model == "tiny"
            assert again.provenance.hook == sae.provenance.hook
            assert again.family == sae.family


def test_what_a_format_cannot_hold_is_said_with_those_that_can(tmp_path):
    with pytest.raises(InputError, match=r"'sparsify' cannot hold a 'gated' SAE; .*: saelens, dictionary_l"):
        rsae.save(random_sae("gated"), tmp_path / "x", format="sparsify")
    with pytest.raises(InputError, match=r"'gemma_scope' cannot hold a 'rational_relu' SAE; .*: saelens$"):
        rsae.save(random_sae("rational_relu"), tmp_path / "x", format="gemma_scope")
    with pytest.raises(
        InputError, match="format 'gguf' cannot be written; choose from circuit_tracer, dictionary_learning"
    ):
        rsae.save(random_sae("relu"), tmp_path / "x", format="gguf")
    assert not (tmp_path / "x").exists()


# --- input normalisation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["saelens_layer_norm", "saelens_constant_norm", "openai_topk"])
def test_normalisation_that_weights_cannot_hold_is_a_layer(name, tmp_path):
    sae = rsae.load(GOLDEN / name)
    assert sae.input_norm is not None
    x = torch.randn(30, sae.d_in) * 3 + 1
    rsae.save(sae, tmp_path / "again")
    again = rsae.load(tmp_path / "again")
    assert again.input_norm == sae.input_norm
    assert torch.equal(again(x), sae(x))
    with pytest.raises(InputError, match=r"its decoder needs the input; write sae.decode\(z, x\)"):
        sae.decode(sae.encode(x))
    with pytest.raises(InputError, match="cannot say that each token is normalised"):
        rsae.save(sae, tmp_path / "x", format="dictionary_learning")


def test_a_scale_that_the_file_does_not_hold_is_asked_for():
    with pytest.raises(InputError, match=r"expected_average_only_in.*give that number as input_scale"):
        rsae.load(GOLDEN / "saelens_expected_average")
    with pytest.raises(InputError, match="there is no scale to give"):
        rsae.load(GOLDEN / "saelens_standard", input_scale=2.0)
    with pytest.raises(InputError, match="does not apply to the format 'sparsify'"):
        rsae.load(GOLDEN / "sparsify_topk", input_scale=2.0)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("name", ["relu", "gated", "top_k"])
def test_whitened_input_is_folded_where_the_matrix_is_there(name, subtract, tmp_path):
    sae = random_sae(name).eval()
    sae.subtract_b_dec = subtract
    rsae.save(sae, tmp_path)
    edit_cfg(tmp_path / "cfg.json", normalize_activations="covariance_whitening")
    with pytest.raises(InputError, match="activation_whitening.safetensors is not beside it"):
        rsae.load(tmp_path)
    mean, M = torch.randn(12), torch.eye(12) + 0.2 * torch.randn(12, 12)
    inverse = torch.linalg.inv(M).contiguous()
    save_file(
        {"mean": mean, "matrix": M, "inverse_matrix": inverse}, tmp_path / "activation_whitening.safetensors"
    )
    x = torch.randn(40, 12)
    folded = rsae.load(tmp_path)
    torch.testing.assert_close(folded.encode(x), sae.encode((x - mean) @ M), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(folded(x), sae((x - mean) @ M) @ inverse + mean, rtol=1e-3, atol=1e-3)


def test_the_scale_beside_saelens_training_checkpoints_is_read(tmp_path):
    shutil.copytree(GOLDEN / "saelens_expected_average", tmp_path / "sae")
    (tmp_path / "sae" / "activation_scaler.json").write_text(
        '{"scaling_factor": 0.7, "has_whitening": false}'
    )
    x = torch.randn(9, 6)
    told = rsae.load(GOLDEN / "saelens_expected_average", input_scale=0.7)
    assert torch.equal(rsae.load(tmp_path / "sae")(x), told(x))


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_a_token_normalisation_is_undone(kind):
    x = torch.randn(5, 40) * 3 + 1
    norm = InputNorm(kind)
    y = norm.apply(x)
    assert y.norm(dim=1).numpy() == pytest.approx(40**0.5, rel=0.02)
    torch.testing.assert_close(norm.undo(y, x), x, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="did you mean 'layer_norm'"):
        InputNorm("layernorm")


def test_a_fine_tuned_scaling_factor_is_folded_into_the_decoder(tmp_path):
    shutil.copytree(GOLDEN / "saelens_flat_standard", tmp_path / "sae")
    weights = tmp_path / "sae" / "sae_weights.safetensors"
    factor = torch.rand(16) + 0.5
    edit_weights(weights, scaling_factor=factor)
    with pytest.raises(InputError, match="scaling_factor is not 1, but cfg.json does not say"):
        rsae.load(tmp_path / "sae")
    edit_cfg(tmp_path / "sae" / "cfg.json", finetuning_scaling_factor=True)
    plain, scaled = rsae.load(GOLDEN / "saelens_flat_standard"), rsae.load(tmp_path / "sae")
    z = plain.encode(torch.randn(9, 6))
    torch.testing.assert_close(scaled.decode(z), plain.decode(z * factor))


# --- what files say of themselves --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format", "family", "model", "hook"),
    [
        ("saelens_gated", "saelens", "gated", "gpt2-small", "blocks.2.hook_resid_pre"),
        ("saelens_flat_topk", "saelens", "top_k", "gpt2-small", "blocks.2.hook_resid_pre"),
        ("saelens_training_matryoshka", "saelens", "matryoshka_batch_top_k", None, None),
        ("sparsify_topk", "sparsify", "top_k", None, None),
        (
            "dictionary_batchtopk",
            "dictionary_learning",
            "batch_top_k",
            "EleutherAI/pythia-70m-deduped",
            "blocks.3.hook_resid_post",
        ),
        ("gemma_scope_npz", "gemma_scope", "jump_relu", None, None),
        ("gemma_scope_2", "gemma_scope", "jump_relu", "google/gemma-3-270m", "blocks.5.hook_resid_post"),
        ("openai_relu", "openai", "relu", None, None),
    ],
)
def test_format_family_and_metadata(name, format, family, model, hook):
    assert detect(GOLDEN / name) == format
    sae = rsae.load(GOLDEN / name)
    assert sae.family == family
    assert sae.provenance.model == model
    assert sae.provenance.hook == hook


def said(path, **options):
    """Host and hook point of an SAE."""
    known = rsae.load(path, **options).provenance
    return known.model, known.hook


def test_metadata_from_the_names_of_directories(tmp_path):
    gemma = tmp_path / "gemma-scope-2b-pt-res" / "layer_12" / "width_16k" / "average_l0_82"
    shutil.copytree(GOLDEN / "gemma_scope_npz", gemma)
    assert said(gemma) == ("google/gemma-2-2b", "blocks.12.hook_resid_post")
    second = tmp_path / "gemma-scope-2-1b-it" / "resid_post" / "layer_7_width_16k_l0_small"
    shutil.copytree(GOLDEN / "gemma_scope_2", second)
    (second / "config.json").unlink()
    assert said(second) == ("google/gemma-3-1b-it", "blocks.7.hook_resid_post")
    sparsify = tmp_path / "run" / "layers.5"
    shutil.copytree(GOLDEN / "sparsify_topk", sparsify)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-160m"}))
    assert said(sparsify) == ("EleutherAI/pythia-160m", "blocks.5.hook_resid_post")
    with pytest.raises(
        InputError, match=r"no SAE \(.*sae.safetensors.*there are some in its folders layers.5"
    ):
        rsae.load(tmp_path / "run")


def test_a_file_instead_of_its_directory(tmp_path):
    x = torch.randn(9, 6)
    for name, file in (
        ("openai_relu", "4.pt"),
        ("dictionary_gated", "ae.pt"),
        ("gemma_scope_npz", "params.npz"),
        ("sparsify_topk", "cfg.json"),
    ):
        assert torch.equal(rsae.load(GOLDEN / name / file)(x), rsae.load(GOLDEN / name)(x))
    shutil.copy(GOLDEN / "gemma_scope_npz" / "params.npz", tmp_path / "layer_3.npz")
    assert torch.equal(rsae.load(tmp_path / "layer_3.npz")(x), rsae.load(GOLDEN / "gemma_scope_npz")(x))


def test_not_an_sae(tmp_path):
    with pytest.raises(InputError, match="no such file or directory, and no name of a hub repository"):
        rsae.load(tmp_path / "nothing")
    with pytest.raises(InputError, match="no SAE"):
        rsae.load(tmp_path)


# --- malformed files: one clear error each, in every format --------------------------------------------------


class _Npz:
    """Reads and writes an .npz as the other formats' files are."""

    @staticmethod
    def read(file: Path) -> dict[str, Any]:
        return {k: torch.from_numpy(v) for k, v in np.load(file).items()}

    @staticmethod
    def write(tensors: dict[str, Any], file: Path) -> None:
        np.savez(file, **{k: v.numpy() for k, v in tensors.items()})


def _read_torch(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=True)


#: golden directory -> its weights, how they are read and written, and what in them is not needed
FORMATS: dict[str, tuple[str, Callable, Callable, tuple[str, ...]]] = {
    "saelens_jumprelu": ("sae_weights.safetensors", load_file, save_file, ()),
    "saelens_topk_rescaled": ("sae_weights.safetensors", load_file, save_file, ()),
    "sparsify_topk": ("sae.safetensors", load_file, save_file, ()),
    "dictionary_autoencoder": ("ae.pt", _read_torch, torch.save, ()),
    "dictionary_gated": ("ae.pt", _read_torch, torch.save, ()),
    "dictionary_topk": ("ae.pt", _read_torch, torch.save, ("k", "threshold")),
    "dictionary_matryoshka": ("ae.pt", _read_torch, torch.save, ("k",)),
    "gemma_scope_npz": ("params.npz", _Npz.read, _Npz.write, ()),
    "gemma_scope_2": ("params.safetensors", load_file, save_file, ()),
    "openai_relu": (
        "4.pt",
        _read_torch,
        torch.save,
        ("activation", "activation_state_dict", "stats_last_nonzero"),
    ),
}


@pytest.fixture(params=FORMATS)
def malformed(request, tmp_path):
    """A copy of a golden directory: its path, and a function that edits its tensors."""
    file, read, write, ignored = FORMATS[request.param]
    path = shutil.copytree(GOLDEN / request.param, tmp_path / "sae")
    needed = [k for k in read(path / file) if k not in ignored]

    def edit(change: Callable[[dict[str, Any]], None]) -> None:
        tensors = read(path / file)
        change(tensors)
        write(tensors, path / file)

    return path, file, needed, edit


def test_a_missing_tensor(malformed):
    path, file, needed, edit = malformed
    whole = (path / file).read_bytes()
    for name in needed:
        edit(lambda t, name=name: t.pop(name))
        with pytest.raises(InputError, match=rf"{file}: tensor '{name}' is missing"):
            rsae.load(path)
        (path / file).write_bytes(whole)


def test_a_tensor_of_another_shape(malformed):
    path, file, needed, edit = malformed
    whole = (path / file).read_bytes()
    for name in needed:
        for change in (
            lambda v: v[..., None],
            lambda v: torch.cat([v, v]) if v.ndim else v.expand(2).clone(),
        ):
            edit(lambda t, name=name, change=change: t.__setitem__(name, change(t[name])))
            with pytest.raises(InputError, match=rf"{file}|config.json"):
                rsae.load(path)
            (path / file).write_bytes(whole)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite(malformed, value):
    path, file, needed, edit = malformed
    whole = (path / file).read_bytes()
    for name in needed:
        if name == "group_sizes":
            continue  # whole numbers

        def spoil(t, name=name):
            t[name] = t[name].contiguous().clone()
            t[name].view(-1)[0] = value

        edit(spoil)
        with pytest.raises(InputError, match=rf"{file}: .* holds NaN or infinity"):
            rsae.load(path)
        (path / file).write_bytes(whole)


def test_an_unknown_tensor(malformed):
    path, file, _, edit = malformed
    edit(lambda t: t.__setitem__("extra", torch.zeros(1)))
    with pytest.raises(InputError, match=rf"{file}: unknown tensor 'extra'"):
        rsae.load(path)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_truncated_file(malformed, share):
    path, file, _, _ = malformed
    whole = (path / file).read_bytes()
    (path / file).write_bytes(whole[: int(share * len(whole))])
    try:
        with pytest.raises(InputError, match=rf"{file}: not a whole"):
            rsae.load(path)
    finally:
        (path / file).write_bytes(whole)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_loads_or_gives_one_clear_error(malformed, data):
    """Any byte of the weights changed: nothing but an InputError comes out."""
    path, file, _, _ = malformed
    whole = (path / file).read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (path / file).write_bytes(bytes(damaged))
    with contextlib.suppress(InputError):
        rsae.load(path)
    (path / file).write_bytes(whole)


def test_an_archive_that_asks_for_what_cannot_be_done(tmp_path):
    """An unknown compression, an encrypted member: errors of another kind than a torn archive's."""
    path = shutil.copytree(GOLDEN / "gemma_scope_npz", tmp_path / "sae")
    whole = (path / "params.npz").read_bytes()
    entry = whole.index(b"PK\x01\x02")  # of the first member, in the directory at the end
    for offset, value in ((10, 99), (8, 1)):  # its method of compression, its flags
        damaged = bytearray(whole)
        damaged[entry + offset] = value
        (path / "params.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="params.npz: not a whole .npz file"):
            rsae.load(path)


class Hostile:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_is_unpickled(malformed, tmp_path):
    """A pickle under the weights' name, or in a file that torch or numpy wrote, is refused, and nothing in it runs."""
    path, file, _, edit = malformed
    hostile = Hostile(tmp_path / "ran")
    attempts = [pickle.dumps(hostile)]
    if file.endswith(".pt"):
        edit(lambda t: t.__setitem__("extra", hostile))
        attempts.append((path / file).read_bytes())
    if file.endswith(".npz"):
        arrays = {k: v.numpy() for k, v in _Npz.read(path / file).items()}
        arrays["b_dec"] = np.array([hostile], dtype=object)
        np.savez(path / file, **arrays)  # type: ignore[arg-type]
        attempts.append((path / file).read_bytes())
    for content in attempts:
        (path / file).write_bytes(content)
        with pytest.raises(InputError, match=rf"{file}: not a whole"):
            rsae.load(path)
    assert not (tmp_path / "ran").exists()


def edit_weights(path, **changes):
    save_file(load_file(path) | changes, path)


def edit_cfg(path, **changes):
    cfg = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (cfg | changes).items() if v is not ...}))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("saelens_jumprelu", {"architecture": "jumprelo"}, "did you mean 'jumprelu'"),
        ("saelens_jumprelu", {"d_in": 7}, r"W_enc has shape \[6, 16\], cfg.json says \[7, 16\]"),
        ("saelens_jumprelu", {"d_sae": 10**12}, "cfg.json says"),
        ("saelens_jumprelu", {"d_sae": ...}, "cfg.json: d_sae: field required"),
        ("saelens_jumprelu", {"d_in": "many"}, "cfg.json: d_in: input should be a valid integer"),
        ("saelens_jumprelu", {"architecture": "standard"}, "unknown tensor 'threshold'"),
        ("saelens_standard", {"architecture": "jumprelu"}, "tensor 'threshold' is missing"),
        ("saelens_topk", {"k": ...}, "k = None is not a whole number"),
        ("saelens_topk", {"k": 99}, "cfg.json: k=99 must lie between 1 and d_sae=16"),
        (
            "saelens_flat_topk",
            {"activation_fn_str": "tanh-relu"},
            "activation_fn 'tanh-relu' is not supported",
        ),
        ("saelens_training_matryoshka", {"matryoshka_widths": [4, 99]}, "reach beyond d_sae = 16"),
        ("saelens_standard", {"rsae": {"family": "relu"}}, "`rsae` in the same file means None"),
        (
            "saelens_standard",
            {"rsae": {"family": "relu", "d_in": 6, "d_sae": 16, "color": 1}},
            "do not make a relu SAE",
        ),
        (
            "saelens_standard",
            {"rsae": {"family": "rely", "d_in": 6, "d_sae": 16}},
            "family 'rely' is unknown; did you mean 'relu'",
        ),
        ("sparsify_topk", {"d_in": 7}, r"W_enc has shape \[6, 16\], cfg.json says \[7, 16\]"),
        ("sparsify_topk", {"num_latents": 0}, r"cfg.json says \[6, 192\]"),
        ("sparsify_topk", {"k": 0}, "cfg.json: k: input should be greater than 0"),
        ("sparsify_topk", {"activation": "groupmax"}, "activation 'groupmax' is not supported"),
        ("sparsify_topk", {"signed": True}, "signed is not supported"),
        ("sparsify_topk", {"skip_connection": True}, "skip_connection without transcode"),
        ("sparsify_skip_transcoder", {"skip_connection": False}, "unknown tensor 'W_skip'"),
        ("saelens_skip_transcoder", {"d_out": 7}, r"W_dec has shape \[16, 5\], cfg.json says \[16, 7\]"),
        ("saelens_transcoder", {"d_out": None}, "d_out is missing"),
        ("saelens_transcoder", {"normalize_activations": "layer_norm"}, "of a transcoder is not supported"),
    ],
)
def test_cfg_that_does_not_fit(tmp_path, name, change, message):
    path = shutil.copytree(GOLDEN / name, tmp_path / "sae")
    edit_cfg(path / "cfg.json", **change)
    with pytest.raises(InputError, match=message):
        rsae.load(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("top_k", {"k": 3}),
        ("top_k", {"rescale_acts_by_decoder_norm": True}),
        ("abs_top_k", {"k": 3}),
        ("relu", {"d_out": 5}),
        ("relu", {"apply_b_dec_to_input": False}),
        ("relu", {"architecture": "topk"}),
    ],
)
def test_settings_that_another_reader_would_take_are_not_passed_over(tmp_path, name, change):
    """A file of ours says everything twice; SAELens reads the fields, and we our own."""
    rsae.save(random_sae(name), tmp_path)
    edit_cfg(tmp_path / "cfg.json", **change)
    with pytest.raises(InputError, match=f"{next(iter(change))} = .*`rsae` in the same file means"):
        rsae.load(tmp_path)


@pytest.mark.parametrize("format", ["saelens", "sparsify", "dictionary_learning"])
def test_what_could_not_be_read_is_not_written(tmp_path, format):
    """And leaves what lies there as it was."""
    sae = random_sae("top_k")
    rsae.save(sae, tmp_path / "sae", format)
    before = {file.name: file.read_bytes() for file in (tmp_path / "sae").iterdir()}
    broken = copy.deepcopy(sae)
    broken.W_dec.data[1, 2] = torch.nan
    with pytest.raises(InputError, match="not written, since W_dec holds NaN"):
        rsae.save(broken, tmp_path / "sae", format)
    assert {file.name: file.read_bytes() for file in (tmp_path / "sae").iterdir()} == before


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dictionary_topk", {"dict_class": "AutoEncoderTopk"}, "did you mean 'AutoEncoderTopK'"),
        ("dictionary_topk", {"dict_class": ...}, "config.json: trainer.dict_class: field required"),
        ("dictionary_topk", {"dict_class": "GatedAutoEncoder"}, "ae.pt: tensor 'decoder_bias' is missing"),
        ("dictionary_topk", {"dict_size": 17}, r"W_enc has shape \[6, 16\], config.json says \[6, 17\]"),
        ("dictionary_topk", {"k": 4}, "trainer.k = 4, but ae.pt says 3"),
        ("dictionary_topk", {"k": 0}, "trainer.k: input should be greater than 0"),
        ("dictionary_batchtopk", {"activation_dim": 5}, r"config.json says \[5, 16\]"),
    ],
)
def test_config_of_dictionary_learning_that_does_not_fit(tmp_path, name, change, message):
    path = shutil.copytree(GOLDEN / name, tmp_path / "sae")
    config = json.loads((path / "config.json").read_text())
    edit_cfg(
        path / "config.json", trainer={k: v for k, v in (config["trainer"] | change).items() if v is not ...}
    )
    with pytest.raises(InputError, match=message):
        rsae.load(path)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), "big", [1.0]])
def test_a_mid_run_file_with_an_impossible_factor(tmp_path, factor):
    path = shutil.copytree(GOLDEN / "dictionary_mid_run", tmp_path / "sae")
    torch.save(_read_torch(path / "ae.pt") | {"norm_factor": factor}, path / "ae.pt")
    with pytest.raises(InputError, match=r"ae.pt: norm_factor .* is no positive number"):
        rsae.load(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("openai_relu", {"activation": "Tanh"}, "activation 'Tanh' is not supported"),
        ("openai_topk", {"activation_state_dict": {}}, "does not say k"),
        (
            "openai_topk",
            {"activation_state_dict": {"k": 3, "postact_fn": "Identity"}},
            "postact_fn 'Identity'",
        ),
        ("openai_topk", {"activation_state_dict": {"k": 0}}, "k=0 must lie between"),
    ],
)
def test_openai_states_that_are_not_supported(tmp_path, name, change, message):
    path = shutil.copytree(GOLDEN / name, tmp_path / "sae")
    torch.save(_read_torch(path / "4.pt") | change, path / "4.pt")
    with pytest.raises(InputError, match=message):
        rsae.load(path)


def test_a_config_says_that_it_is_a_transcoder(tmp_path):
    path = shutil.copytree(GOLDEN / "gemma_scope_2", tmp_path / "sae")
    edit_cfg(
        path / "config.json",
        hf_hook_point_in="model.layers.5.pre_feedforward_layernorm.output",
        hf_hook_point_out="model.layers.5.post_feedforward_layernorm.output",
    )
    sae = rsae.load(path)
    assert sae.transcodes
    assert sae.provenance.hook == "blocks.5.hook_mlp_in"
    assert sae.provenance.target == "blocks.5.hook_mlp_out"
    edit_cfg(path / "config.json", architecture="topk")
    with pytest.raises(InputError, match="architecture 'topk' is not supported"):
        rsae.load(path)


def test_thresholds_of_a_batch_top_k_that_are_not_one(tmp_path):
    rsae.save(random_sae("batch_top_k"), tmp_path)
    edit_weights(tmp_path / "sae_weights.safetensors", threshold=torch.rand(40))
    with pytest.raises(InputError, match="threshold must hold one value 40 times"):
        rsae.load(tmp_path)
    edit_cfg(tmp_path / "cfg.json", rsae=...)
    assert rsae.load(tmp_path).family == "jump_relu"  # as the message says


@pytest.mark.parametrize("content", ["{", "[]", "3", '"cfg"', "null", "\xff", "[" * 100_000])
@pytest.mark.parametrize("name", ["saelens_standard", "sparsify_topk", "dictionary_gated", "gemma_scope_2"])
def test_a_config_that_is_no_object(tmp_path, name, content):
    path = shutil.copytree(GOLDEN / name, tmp_path / "sae")
    file = "cfg.json" if (path / "cfg.json").exists() else "config.json"
    (path / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=file):
        rsae.load(path)


def test_a_config_that_is_missing(tmp_path):
    for name, file in (("saelens_standard", "cfg.json"), ("dictionary_gated", "config.json")):
        path = shutil.copytree(GOLDEN / name, tmp_path / name)
        (path / file).unlink()
        with pytest.raises(InputError, match=f"{file}: no such file"):
            rsae.load(path)
