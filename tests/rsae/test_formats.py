import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import rsae
from rsae import InputError
from rsae.sae import FAMILIES
from tests.rsae.helpers import random_sae


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_round_trip(name, tmp_path):
    sae = random_sae(name).eval()
    sae.metadata = {"model_name": "tiny", "hook_name": "blocks.1.hook_resid_post"}
    rsae.save(sae, tmp_path / "sae")
    again = rsae.load(tmp_path / "sae")
    x = torch.randn(20, sae.d_in)
    assert type(again) is type(sae)
    assert torch.equal(again.encode(x), sae.encode(x))
    assert torch.equal(again(x), sae(x))
    assert again.metadata == sae.metadata
    assert again.settings() == sae.settings()


@pytest.mark.parametrize("name", ["relu", "jump_relu", "top_k"])
def test_a_saelens_directory_without_our_settings_loads(name, tmp_path):
    """SAELens version 6: the same layout, without the field `rsae`."""
    sae = random_sae(name)
    rsae.save(sae, tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    del cfg["rsae"]
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    x = torch.randn(20, sae.d_in)
    assert torch.equal(rsae.load(tmp_path).encode(x), sae.encode(x))


def saved(tmp_path, name="jump_relu"):
    rsae.save(random_sae(name), tmp_path)
    return tmp_path / "sae_weights.safetensors", tmp_path / "cfg.json"


def edit_weights(path, **changes):
    tensors = load_file(path)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, path)


def edit_cfg(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_missing_tensor(tmp_path):
    weights, _ = saved(tmp_path)
    edit_weights(weights, threshold=None)
    with pytest.raises(InputError, match="sae_weights.safetensors: tensor 'threshold' is missing"):
        rsae.load(tmp_path)


def test_wrong_shape(tmp_path):
    weights, _ = saved(tmp_path)
    edit_weights(weights, b_enc=torch.zeros(3))
    with pytest.raises(InputError, match=r"b_enc has shape \[3\], cfg.json says \[40\]"):
        rsae.load(tmp_path)


def test_nan(tmp_path):
    weights, _ = saved(tmp_path)
    edit_weights(weights, b_dec=torch.full((12,), float("nan")))
    with pytest.raises(InputError, match="b_dec holds NaN or infinity"):
        rsae.load(tmp_path)


def test_unknown_tensor(tmp_path):
    weights, _ = saved(tmp_path)
    edit_weights(weights, extra=torch.zeros(1))
    with pytest.raises(InputError, match="unknown tensor 'extra'"):
        rsae.load(tmp_path)


def test_truncated_file(tmp_path):
    weights, _ = saved(tmp_path)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        rsae.load(tmp_path)


def test_pickle_is_not_opened(tmp_path):
    """A pickle under the weights' name is refused, and nothing in it runs."""
    import pickle

    weights, _ = saved(tmp_path)

    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    weights.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(InputError, match="not a whole safetensors file"):
        rsae.load(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "jumprelo"}, "did you mean 'jumprelu'"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations = 'layer_norm' is not supported"),
        ({"rsae": {"d_in": 12}}, "the settings do not make a jump_relu SAE"),
        ({"rsae": {"d_in": 12, "d_sae": 39}}, "cfg.json says"),
    ],
)
def test_cfg_that_does_not_fit(tmp_path, change, message):
    _, cfg = saved(tmp_path)
    edit_cfg(cfg, **change)
    with pytest.raises(InputError, match=message):
        rsae.load(tmp_path)


def test_cfg_that_is_no_json(tmp_path):
    _, cfg = saved(tmp_path)
    cfg.write_text("{")
    with pytest.raises(InputError, match="cfg.json: not readable as JSON"):
        rsae.load(tmp_path)


def test_not_an_sae(tmp_path):
    with pytest.raises(InputError, match="no cfg.json, so no SAE"):
        rsae.load(tmp_path / "nothing")


def test_unknown_format(tmp_path):
    with pytest.raises(InputError, match="only 'saelens' can"):
        rsae.save(random_sae("relu"), tmp_path, format="gguf")
