"""The hub, with its client's network calls replaced: what is asked of it, and what comes of what it gives."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

import rsae
from rsae import InputError
from tests.rsae.helpers import random_sae

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub in a directory: OWNER/NAME/...; it records what it was asked for."""
    asked = []

    def snapshot_download(repo_id, **kwargs):
        asked.append((repo_id, kwargs))
        if not (tmp_path / repo_id).exists():
            raise FileNotFoundError("404 not found")
        files = [str(f.relative_to(tmp_path / repo_id)) for f in (tmp_path / repo_id).rglob("*.*")]
        patterns = {k: v for k, v in kwargs.items() if k.endswith("_patterns")}
        snapshot = tmp_path / "snapshots" / repo_id
        for file in huggingface_hub.utils.filter_repo_objects(files, **patterns):
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / repo_id / file, snapshot / file)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return SimpleNamespace(path=tmp_path, asked=asked)


def test_load_from_the_hub(hub):
    shutil.copytree(GOLDEN / "saelens_topk", hub.path / "somebody" / "saes" / "layer_3")
    sae = rsae.load("somebody/saes", subfolder="layer_3", revision="v1")
    (repo, configs), (again, weights) = hub.asked
    assert repo == again == "somebody/saes"
    assert configs["revision"] == weights["revision"] == "v1"
    told = {f"layer_3/*.{e}" for e in ("json", "yaml")}
    assert set(configs["allow_patterns"]) == told
    assert set(weights["allow_patterns"]) == told | {
        f"layer_3/*.{e}" for e in ("safetensors", "npz", "pt", "pth")
    }
    assert sae.provenance.extra["repository"] == "somebody/saes"
    x = torch.randn(9, 6)
    assert torch.equal(sae(x), rsae.load(GOLDEN / "saelens_topk")(x))


def test_options_reach_the_file(hub):
    shutil.copytree(GOLDEN / "saelens_expected_average", hub.path / "a" / "b")
    with pytest.raises(InputError, match="give that number as input_scale"):
        rsae.from_pretrained("a/b")
    assert rsae.load("a/b", input_scale=0.7).family == "top_k"


def test_what_the_hub_does_not_have(hub):
    with pytest.raises(InputError, match=r"no/where: no such directory, and the hub does not give it \(404"):
        rsae.load("no/where")
    shutil.copytree(GOLDEN / "saelens_topk", hub.path / "a" / "b" / "c")
    with pytest.raises(InputError, match="no SAE in its folder 'd', revision main; name the one"):
        rsae.load("a/b", subfolder="d")
    with pytest.raises(InputError, match="no SAE in its top folder"):
        rsae.load("a/b")


def test_the_folders_below_are_not_fetched(hub):
    """A repository may hold hundreds of SAEs in folders."""
    for place in ("", "more", "more/still"):
        shutil.copytree(GOLDEN / "saelens_topk", hub.path / "a" / "b" / place, dirs_exist_ok=True)
    snapshot = hub.path / "snapshots" / "a" / "b"
    for subfolder in (None, "more"):
        shutil.rmtree(snapshot, ignore_errors=True)
        rsae.load("a/b", subfolder=subfolder)
        fetched = {f.relative_to(snapshot) for f in snapshot.rglob("*.*")}
        assert fetched == {Path(subfolder or "") / f for f in ("cfg.json", "sae_weights.safetensors")}


@pytest.mark.parametrize("top", ["", "folder", "folder/of/folders"])
def test_every_golden_file_loads_from_the_hub_as_from_here(hub, top):
    """Those with weights in a folder of their own, and one file of several, too."""
    shutil.copytree(GOLDEN, hub.path / "a" / "b" / top)
    count = 0
    for place in sorted(
        p for p in GOLDEN.rglob("*") if p.is_dir() or p.suffix in (".safetensors", ".pt", ".npz")
    ):
        try:
            here = rsae.load(place)
        except InputError:
            continue
        there = rsae.load("a/b", subfolder=(Path(top) / place.relative_to(GOLDEN)).as_posix())
        assert there.family == here.family
        for name, value in here.state_dict().items():
            assert torch.equal(there.state_dict()[name], value)
        count += 1
    assert count > 10


def test_of_a_set_of_layers_one_is_named(hub):
    (hub.path / "a" / "b" / "set").mkdir(parents=True)
    (hub.path / "a" / "b" / "set" / "config.yaml").write_text("model_kind: transcoder_set")
    (hub.path / "a" / "b" / "set" / "layer_0.safetensors").write_text("large")
    with pytest.raises(InputError, match=r"name one's file, such as subfolder='set/layer_0.safetensors'"):
        rsae.load("a/b", subfolder="set")
    assert not list((hub.path / "snapshots").rglob("*.safetensors"))
    with pytest.raises(
        InputError, match=r"holds a transcoder for each layer: name one's file, such as rsae.load"
    ):
        rsae.load(hub.path / "a" / "b" / "set")


def test_push_and_load_again(hub, monkeypatch):
    calls = []

    class Api:
        def create_repo(self, repo_id, **kwargs):
            calls.append(("create", repo_id, kwargs))

        def upload_folder(self, *, repo_id, folder_path, path_in_repo, **kwargs):
            calls.append(("upload", repo_id, kwargs))
            shutil.copytree(folder_path, hub.path / repo_id / (path_in_repo or ""), dirs_exist_ok=True)
            return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    sae = random_sae("rational_top_k").eval()
    sae.provenance = rsae.Provenance(model="tiny", hook="blocks.1.hook_mlp_out")
    assert rsae.push_to_hub(sae, "me/sae", private=True, message="first") == "https://hub/commit/1"
    assert calls[0] == ("create", "me/sae", {"private": True, "exist_ok": True})
    assert calls[1][2]["commit_message"] == "first"
    again = rsae.load("me/sae")
    x = torch.randn(9, sae.d_in)
    assert torch.equal(again(x), sae(x))
    card = (hub.path / "me" / "sae" / "README.md").read_text()
    for words in (
        "rational_top_k",
        "blocks.1.hook_mlp_out",
        'rsae.load("me/sae")',
        "import rsae.formats.saelens",
    ):
        assert words in card


def test_a_hub_that_refuses(monkeypatch):
    class Api:
        def create_repo(self, *_args, **_kwargs):
            raise OSError("401 unauthorised")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(InputError, match=r"me/sae: the hub refuses \(401 unauthorised\); is your login"):
        rsae.push_to_hub(random_sae("relu"), "me/sae")


def test_without_a_network():
    """What the client itself raises offline becomes one line."""
    with pytest.raises(InputError, match="nobody/nothing: no such directory"):
        rsae.load("nobody/nothing")
    with pytest.raises(InputError, match="no such directory"):
        rsae.load("not a name/at all")
