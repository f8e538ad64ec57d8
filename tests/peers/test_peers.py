"""Equality with the peers' own code on the same input: `make test-peers` runs this in an environment of its own."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from typing import Any

import pytest
import torch

import rsae
from rsae.formats import WRITERS
from rsae.sae import FAMILIES
from tests.peers import cases
from tests.rsae.helpers import random_sae
from tests.rsae.test_formats_golden import assert_same

# float32 products summed in another order
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("name", cases.CASES)
def test_what_a_peer_writes_we_read(name, tmp_path):
    made = cases.CASES[name](tmp_path / name)
    assert (made.code != 0).any()
    assert_same(rsae.load(tmp_path / name, **made.options), made.x, made.code, made.reconstruction)


def our_sae(family: str, subtract_b_dec: bool = True) -> rsae.SAE:
    sae = random_sae(family, d_in=cases.D, d_sae=cases.F)
    sae.subtract_b_dec = subtract_b_dec
    sae.W_dec.data *= torch.rand(cases.F, 1, generator=torch.Generator().manual_seed(2)) + 0.5
    return sae.eval()


def assert_peer_computes_what_we_do(sae: rsae.SAE, peer: cases.Made, rescaled: bool = False):
    with torch.no_grad():
        code = sae.encode(peer.x)
        if rescaled:
            code = code * sae.W_dec.norm(dim=1)
        torch.testing.assert_close(peer.code, code, **CLOSE)
        torch.testing.assert_close(peer.reconstruction, sae(peer.x), **CLOSE)
    assert (code != 0).any()


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_saelens_reads_every_family(family, subtract, tmp_path):
    import sae_lens

    import rsae.formats.saelens

    sae = our_sae(family, subtract)
    rsae.save(sae, tmp_path / "sae")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    assert_peer_computes_what_we_do(sae, cases.by_saelens(theirs))
    # and what it saves again we read again
    theirs.save_model(tmp_path / "again")
    x = cases.inputs()
    again = rsae.load(tmp_path / "again")
    with torch.no_grad():
        torch.testing.assert_close(again.encode(x), sae.encode(x), **CLOSE)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("family", ["top_k", "jump_relu", "sign_aware_gated", "rational_top_k"])
def test_saelens_reads_a_pursuit(family, subtract, tmp_path):
    import sae_lens

    import rsae.formats.saelens

    sae = rsae.pursuit(our_sae(family, subtract))
    rsae.save(sae, tmp_path)
    assert_peer_computes_what_we_do(sae, cases.by_saelens(sae_lens.SAE.load_from_disk(tmp_path)))
    rsae.save(rsae.plain(sae), tmp_path / "plain")  # for tools that know no pursuit
    assert_peer_computes_what_we_do(
        rsae.plain(sae), cases.by_saelens(sae_lens.SAE.load_from_disk(tmp_path / "plain"))
    )


@pytest.mark.parametrize("family", ["rational_jump_relu", "soft_rational"])
def test_saelens_with_a_custom_family(family, tmp_path):
    import sae_lens

    import rsae.formats.saelens

    rsae.save(our_sae(family), tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    assert theirs.cfg.architecture() == f"rsae_{family}"
    with pytest.raises(ValueError, match="cannot be folded"):
        theirs.fold_W_dec_norm()
    x = cases.inputs()
    scaled = theirs.decode(theirs.encode(0.7 * x)) / 0.7
    theirs.fold_activation_norm_scaling_factor(0.7)
    torch.testing.assert_close(theirs(x), scaled, **CLOSE)
    seen = []
    theirs.hook_sae_acts_post.add_hook(lambda z, hook: seen.append(z))
    theirs(x)
    assert seen[0].shape == (len(x), cases.F)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("family", sorted(WRITERS["dictionary_learning"][1]))
def test_dictionary_learning_reads_what_we_write(family, subtract, tmp_path):
    import json

    sae = our_sae(family, subtract)
    rsae.save(sae, tmp_path, format="dictionary_learning")
    name = json.loads((tmp_path / "config.json").read_text())["trainer"]["dict_class"]
    peer = cases.by_dictionary(cases.dictionary_classes()[name], tmp_path / "ae.pt")
    assert_peer_computes_what_we_do(sae, peer, rescaled=name == "AutoEncoder")


@pytest.mark.parametrize("subtract", [True, False])
def test_sparsify_reads_what_we_write(subtract, tmp_path):
    from sparsify import SparseCoder

    sae = our_sae("top_k", subtract)
    rsae.save(sae, tmp_path, format="sparsify")
    assert_peer_computes_what_we_do(sae, cases.by_sparsify(SparseCoder.load_from_disk(tmp_path)))


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("family", sorted(WRITERS["gemma_scope"][1]))
def test_the_gemma_scope_loader_of_saelens_reads_what_we_write(family, subtract, tmp_path):
    from unittest import mock

    from sae_lens.loading import pretrained_sae_loaders as loaders

    sae = our_sae(family, subtract)
    rsae.save(sae, tmp_path, format="gemma_scope")
    with mock.patch.object(loaders, "hf_hub_download", return_value=str(tmp_path / "params.npz")):
        cfg, state, _ = loaders.gemma_2_sae_huggingface_loader(
            "google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82"
        )
    assert_peer_computes_what_we_do(sae, cases.by_saelens_loader(cfg, state))
