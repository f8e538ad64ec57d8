"""The page of one SAE, as the command writes it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import rsae
from evals.dashboard import Subject, dashboard
from evals.metrics.reconstruction import reconstruction
from rsae.activations.open import open_activations
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.evals.report.conftest import Page
from tests.rsae.helpers import random_sae


@pytest.fixture(scope="module", params=["top_k", "sign_aware_gated"])
def saved(request, store, tmp_path_factory) -> Path:
    sae = random_sae(request.param, store)
    with torch.no_grad():
        sae.W_enc[:, 4] = 0  # a latent that never fires
        sae.encoder_bias[4] = -1e-3 if request.param == "top_k" else 0.0
    sae.provenance = store.provenance
    path = tmp_path_factory.mktemp("saes") / request.param
    rsae.save(sae, path)
    return path


def test_the_page_says_what_was_measured(saved, store, tmp_path):
    page = tmp_path / "page.html"
    done = evals("report", saved, "--activations", store.path, "--latents", "3,8", "--out", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    Page(text)  # it nests
    markup = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    assert "<script" not in text
    assert not re.search(r"(src|href)\s*=|@import|url\(|http-equiv", markup)
    sae = rsae.load(saved)
    fit = reconstruction(sae, store)
    for words in (
        f"{fit.fvu:.4f}",
        f"{fit.l0:.2f}",
        sae.family,
        "saelens",
        store.provenance.hook,
        "40 latents",
    ):
        assert words in text
    assert re.findall(r'id="latent-(\d+)"', text) == ["3", "8"]
    assert ("negative side" in text) is sae.signed
    dead = re.search(r'class="numbers">([\d ]+)<', text)
    assert dead is not None
    assert "4" in dead[1].split()


def test_what_is_counted(saved, store, host):
    subject = Subject(str(saved), store)
    found = dashboard(subject, features=6)
    with torch.no_grad():
        z = subject.sae.encode(torch.cat(list(store.blocks("heldout"))))
    fired = (z != 0).sum(0)
    assert found.dead == tuple((fired == 0).nonzero()[:, 0].tolist())
    assert len(found.dead) == round((1 - found.reconstruction.alive) * subject.sae.d_sae)
    assert sum(found.densities.counts) == subject.sae.d_sae - len(found.dead)
    logs = np.log10(fired[fired > 0].double().numpy() / len(z))
    width = (found.densities.high - found.densities.low) / len(found.densities.counts)
    for centre, bar in zip(found.densities.centres, found.densities.counts, strict=True):
        inside = ((logs >= centre - width / 2 - 1e-9) & (logs <= centre + width / 2 + 1e-9)).sum()
        assert inside >= bar
    assert len(found.cards) == 6
    assert found.notes == ()


@pytest.mark.parametrize(("given", "words"), [("none", "no host was wanted"), (None, "no store with tokens")])
def test_without_text_it_says_why(saved, store, tmp_path, given, words):
    np.save(tmp_path / "x.npy", torch.cat(list(store.blocks("heldout"))).numpy())
    place = store.path if given else tmp_path / "x.npy"
    found = dashboard(Subject(str(saved), open_activations(place), given), features=2)
    assert any(words in note for note in found.notes)
    assert all(not side.contexts and not side.promotes for card in found.cards for side in card.sides)


def test_a_host_that_cannot_be_loaded_is_a_note_unless_it_was_asked_for(saved, store, tmp_path, monkeypatch):
    import evals.dashboard as module

    def missing(name):
        raise rsae.InputError(f"host {name!r} cannot be loaded")

    monkeypatch.setattr(module, "load_host", missing)
    assert "cannot be loaded" in dashboard(Subject(str(saved), store), features=1).notes[0]
    done = evals("report", saved, "--activations", store.path, "--host", "nowhere", "--out", tmp_path / "p")
    assert_one_clear_line(done, "nowhere")
    assert not (tmp_path / "p").exists()


def test_each_sae_has_a_page_of_its_own(saved, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        shutil.copytree(saved, Path("saes", name))
        done = evals("report", f"saes/{name}", "--activations", store.path, "--features", 1)
        assert done.stdout.strip() == f"saes_{name}.html"
    assert {f.name for f in tmp_path.glob("*.html")} == {"saes_one.html", "saes_two.html"}


def test_mistakes(saved, store, tmp_path):
    here = ("--activations", store.path, "--out", tmp_path / "p.html")
    assert_one_clear_line(evals("report", saved, *here, "--latents", "3;x"), "such as 3,17,40")
    assert_one_clear_line(evals("report", saved, *here, "--latents", "40"), "has the latents 0 to 39")
    assert_one_clear_line(evals("report", tmp_path / "none", *here), "no such file or directory")
    assert_one_clear_line(evals("report", saved), "an SAE, no run", "--activations")
    done = evals("report", saved, *here, "--export", "neuronpdia", tmp_path / "e")
    assert_one_clear_line(done, "neuronpdia", "did you mean 'neuronpedia'")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert_one_clear_line(
        evals("report", saved, *here, "--export", "neuronpedia", tmp_path / "full"), "not empty"
    )
    assert not (tmp_path / "p.html").exists()
