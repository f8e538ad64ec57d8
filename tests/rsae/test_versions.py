"""A store is not taken for one of another host that lies where its own lay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsae import InputError, harvest
from rsae.activations.versions import weights_digest
from tests.rsae.helpers import begun_harvest


@pytest.mark.parametrize("finished", [True, False])
def test_a_host_that_was_trained_on_is_another_host(harvest_config, host, tmp_path, finished, monkeypatch):
    there = tmp_path / "host"
    there.mkdir()
    weights = np.random.default_rng(0).bytes(3000)
    (there / "model.safetensors").write_bytes(weights)
    config = replace(harvest_config, host=str(there), tokens=6000, heldout_tokens=50)
    begun_harvest(config, tmp_path / "s", host, finished, monkeypatch)
    (there / "README.md").write_text("what a page says is no weight")
    (there / "model.safetensors").write_bytes(weights[::-1])
    with pytest.raises(InputError, match="another version of the host"):
        harvest(config, tmp_path / "s", host)
    (there / "model.safetensors").write_bytes(weights)
    assert harvest(config, tmp_path / "s", host).tokens() > 0


@settings(max_examples=20)
@given(st.integers(1, 10**7), st.integers(0, 2**32 - 1))
def test_weights_that_are_trained_on_have_another_digest(tmp_path_factory, size, seed):
    """Large files are looked at in blocks: training moves weights all over them."""
    there = tmp_path_factory.mktemp("host")
    weights = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    (there / "model.safetensors").write_bytes(weights.tobytes())
    first = weights_digest(str(there))
    assert weights_digest(str(there)) == first
    weights[np.random.default_rng(seed + 1).random(size) < 0.01] ^= 1
    weights[:1] ^= 1
    (there / "model.safetensors").write_bytes(weights.tobytes())
    assert weights_digest(str(there)) != first
    assert weights_digest("smollm2-135m") is None
