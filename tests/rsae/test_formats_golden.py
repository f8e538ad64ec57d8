"""Checkpoints that the peers' own code wrote, with what it computes from them (tests/peers/make_golden.py)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rsae

GOLDEN = Path(__file__).parent / "golden"
INDEX = json.loads((GOLDEN / "index.json").read_text())


@torch.no_grad()
def assert_same(sae: rsae.SAE, x: torch.Tensor, code: torch.Tensor, reconstruction: torch.Tensor) -> None:
    """Our code and reconstruction of x are the peer's, up to the order of float32 sums."""
    z = sae.encode(x)
    assert torch.equal(z != 0, code != 0)
    torch.testing.assert_close(z, code, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sae.decode(z, x), reconstruction, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(INDEX))
def test_same_code_and_reconstruction_as_the_peer(name):
    expected = load_file(GOLDEN / f"{name}.safetensors")
    assert (expected["code"] != 0).any()
    assert (expected["code"] == 0).any()
    sae = rsae.load(GOLDEN / name, **INDEX[name]["options"])
    assert_same(sae, expected["x"], expected["code"], expected["reconstruction"])
    assert not sae.training
