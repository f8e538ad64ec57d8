"""SAEs with the same encoder meet an activation once, and give what each gives alone."""

from __future__ import annotations

import pytest
import torch

import rsae
from evals.metrics.codes import by_encoder, sharing_products
from evals.metrics.probing import ProbeData, probe, probe_all
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
