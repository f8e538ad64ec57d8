"""SAEs with the same encoder meet an activation once, and give what each gives alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import evals
import rsae
from evals.metrics.codes import by_encoder, host_code, sharing_products
from evals.metrics.probing import ProbeData, probe, probe_all
from rsae.sae.input_norm import InputNorm
from tests.rsae.helpers import random_sae

FAMILIES = [
    "relu",
    "jump_relu",
    "top_k",
    "batch_top_k",
    "gated",
    "sign_aware_gated",
    "soft_rational",
    "rational_top_k",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_products_are_shared_and_nothing_else_changes(name):
    sae = random_sae(name).eval()
    group = {"plain": sae, "pursuit": rsae.pursuit(sae), "other": random_sae(name, seed=1).eval()}
    assert [list(found) for found in by_encoder(group)] == [["plain", "pursuit"], ["other"]]
    encodes = [encode for one in group.values() for encode in one.readings().values()]
    blocks = [torch.randn(30, 12), torch.randn(30, 12)]
    with torch.no_grad():
        alone = [[encode(x) for encode in encodes] for x in blocks]
        products = []
        for one in group.values():  # every product, on the way to whoever shares it
            own = one._linear
            one._linear = lambda x, own=own: (products.append(1), own(x))[1]
        for found in by_encoder(group):
            members = [encode for one in found.values() for encode in one.readings().values()]
            with sharing_products(found.values()):
                together = [[encode(x) for encode in members] for x in blocks]
                blocks[0].add_(0)  # changed in place: to be read anew, wherever it lies
                again = members[0](blocks[0])
            at = 0 if "plain" in found else len(encodes) - len(members)
            for x, y in zip(alone, together, strict=True):
                assert all(map(torch.equal, x[at : at + len(members)], y))
            assert torch.equal(again, alone[0][at])
    assert len(products) == 6  # two groups, of three activations each


def test_probes_of_a_group_are_those_of_each(store):
    sae = random_sae("top_k", store).eval()
    group = {"plain": sae, "pursuit": rsae.pursuit(sae)}
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(60) % 2
    x_ND = store.sample(1200)
    x_ND += label.repeat_interleave(20)[:, None] * torch.randn(store.d_in, generator=generator)
    data = ProbeData(
        x_ND, torch.arange(60).repeat_interleave(20).int(), label.numpy(), (torch.arange(60) < 40).numpy()
    )
    together = probe_all(group, data, (1, 5))
    assert together == {name: probe(one, data, (1, 5)) for name, one in group.items()}
    assert together["pursuit"].others["plain"] == together["plain"].accuracy
    assert "_linear" not in vars(sae)


@pytest.mark.parametrize("kind", [None, "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("name", ["top_k", "jump_relu", "sign_aware_gated"])
def test_a_host_code_is_what_is_added_to_the_host(name, kind):
    """Whatever each token's normalisation is: x_hat is the code times the rows, beside what no latent gives."""
    sae = random_sae(name).eval()
    sae.input_norm = kind and InputNorm(kind)
    x = 30 * torch.randn(40, 12) + 5
    with torch.no_grad():
        nothing = sae.decode(torch.zeros(40, sae.d_sae), x)
        torch.testing.assert_close(host_code(sae, x) @ sae.W_dec + nothing, sae(x), rtol=1e-4, atol=1e-3)


def test_a_transcoder_is_no_sae_of_the_point_that_it_reads(host):
    own = rsae.Store.of(torch.randn(200, host.d_model), target=torch.randn(200, host.d_model))
    transcoder = rsae.new("top_k", own, d_sae=20, k=3)
    where: dict[str, Any] = {"hook": "blocks.1.hook_resid_pre"}
    texts = evals.load_classes("wiki_topics", 40, 20)
    for measure in (
        lambda: evals.intervention(transcoder, host, [[1, 2, 3]], **where),
        lambda: evals.absorption(transcoder, host, **where),
        lambda: evals.targeted_perturbation(transcoder, host, texts, **where),
    ):
        with pytest.raises(rsae.InputError, match="a transcoder writes to another"):
            measure()
