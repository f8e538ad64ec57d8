"""Exports have the fields that the sources of SAEDashboard name, and the values of the cards.

The lists of fields are copied from the classes' constructors at github.com/jbloomAus/SAEDashboard, commit db4839a:
`NeuronpediaDashboardBatch`, `-Feature` and `-Activation` in sae_dashboard/neuronpedia/neuronpedia_dashboard.py;
`Activation`, `Feature`, `Model`, `Source`, `SourceRelease` and `SourceSet` in neuronpedia_export.py.
"""

from __future__ import annotations

import gzip
import json

import pytest
import torch

import rsae
from evals.dashboard import Subject
from evals.firings import Texts
from evals.latents import Extent
from evals.neuronpedia import EXPORTED, Source, feature
from rsae import InputError, Provenance
from tests.evals.conftest import evals
from tests.rsae.helpers import random_sae

BATCH = "model_id layer sae_set sae_id_suffix features"
FEATURE = """feature_index neuron_alignment_indices neuron_alignment_values neuron_alignment_l1
    correlated_neurons_indices correlated_neurons_l1 correlated_neurons_pearson correlated_features_indices
    correlated_features_l1 correlated_features_pearson neg_str neg_values pos_str pos_values frac_nonzero
    freq_hist_data_bar_values freq_hist_data_bar_heights logits_hist_data_bar_heights logits_hist_data_bar_values
    n_prompts_total n_tokens_in_prompt dataset activations decoder_weights_dist vector"""
PLACE = "bin_min bin_max bin_contains tokens values qualifying_token_index"
#: all fields, and those without a default
IMPORTED = {
    "features": (
        """modelId layer index creatorId createdAt maxActApprox hasVector vector vectorLabel
        vectorDefaultSteerStrength hookName topkCosSimIndices topkCosSimValues neuron_alignment_indices
        neuron_alignment_values neuron_alignment_l1 correlated_neurons_indices correlated_neurons_pearson
        correlated_neurons_l1 correlated_features_indices correlated_features_pearson correlated_features_l1 neg_str
        neg_values pos_str pos_values frac_nonzero freq_hist_data_bar_heights freq_hist_data_bar_values
        logits_hist_data_bar_heights logits_hist_data_bar_values decoder_weights_dist sourceSetName""",
        "modelId layer index",
    ),
    "activations": (
        """id tokens index layer modelId maxValue maxValueTokenIndex minValue values creatorId dataSource dataIndex
        dfaValues dfaTargetIndex dfaMaxValue createdAt lossValues logitContributions binMin binMax binContains
        qualifyingTokenIndex zIndices zValues""",
        "id tokens index layer modelId maxValue maxValueTokenIndex minValue values creatorId",
    ),
    "model": (
        """id instruct creatorId displayNameShort displayName tlensId dimension visibility defaultSourceSetName
        defaultSourceId inferenceEnabled layers neuronsPerLayer createdAt owner updatedAt website""",
        "id instruct creatorId",
    ),
    "source": (
        """id modelId setName creatorId hasDashboards inferenceEnabled inferenceHosts saelensConfig saelensRelease
        saelensSaeId hfRepoId hfFolderId visibility defaultOfModelId hasUmap hasUmapLogSparsity hasUmapClusters
        num_prompts num_tokens_in_prompt dataset notes createdAt""",
        "id modelId setName creatorId",
    ),
    "release": (
        """name description creatorName creatorId visibility isNewUi featured descriptionShort urls creatorEmail
        creatorNameShort defaultSourceSetName defaultSourceId defaultUmapSourceIds createdAt""",
        "name description creatorName creatorId",
    ),
    "sourceset": (
        """modelId name creatorId hasDashboards visibility description type creatorName urls creatorEmail releaseName
        defaultOfModelId defaultRange defaultShowBreaks showDfa showCorrelated showHeadAttribution showUmap
        createdAt""",
        "modelId name creatorId",
    ),
}


@pytest.fixture(scope="module")
def saved(store, tmp_path_factory):
    sae = random_sae("sign_aware_gated", store)
    path = tmp_path_factory.mktemp("saes") / "signed"
    rsae.save(sae, path)
    return path


@pytest.fixture(scope="module")
def exported(saved, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports")
    for form in ("saedashboard", "neuronpedia"):
        page = ("--features", "1", "--out", out / "page.html")
        done = evals("report", saved, "--activations", store.path, *page, "--export", form, out / form)
        assert done.returncode == 0, done.stderr
    return out


def test_batches_of_saedashboard(exported, saved, store):
    subject = Subject(str(saved), store)
    for sign, place in ((1, exported / "saedashboard"), (-1, exported / "saedashboard" / "negative")):
        batch = json.loads((place / "batch-0.json").read_text())
        assert set(batch) == set(BATCH.split())
        assert (batch["layer"], batch["sae_set"].endswith("-negative")) == (1, sign < 0)
        found = {one["feature_index"]: one for one in batch["features"]}
        for latent, one in found.items():
            assert set(one) == set(FEATURE.split())
            for activation in one["activations"]:
                assert set(activation) == set(PLACE.split())
                assert len(activation["tokens"]) == len(activation["values"])
                peak = activation["values"][activation["qualifying_token_index"]]
                assert peak > 0
                if activation["bin_min"] >= 0:
                    low, high = activation["bin_min"], activation["bin_max"]
                    assert low - 1e-4 <= peak <= high + 1e-4
            row = sign * subject.sae.W_dec[latent].detach()
            assert one["vector"] == pytest.approx(row.tolist())
            assert one["neuron_alignment_indices"] == row.topk(3).indices.tolist()
            share = (row.topk(3).values.abs() / row.abs().sum()).tolist()
            assert one["neuron_alignment_l1"] == pytest.approx(share, abs=1e-5)
            (card,) = (c for c in subject.cards([latent], Extent(contexts=1, logits=10)))
            side = next(s for s in card.sides if s.sign == sign)
            assert one["frac_nonzero"] == side.density
            assert one["activations"][0]["bin_max"] == pytest.approx(abs(side.max), abs=1e-5)
            assert one["pos_str"] == [e.token for e in side.promotes]
            assert sum(one["freq_hist_data_bar_heights"]) == round(side.density * store.tokens("heldout"))
        skipped = json.loads((place / "skipped_indexes.json").read_text())
        assert sorted([*found, *skipped["skipped_indexes"]]) == list(range(subject.sae.d_sae))
        assert set(skipped) == {"model_id", "layer", "sae_set", "log_sparsity", "skipped_indexes"}


def test_the_bulk_import_of_neuronpedia(exported):
    for batch_file, suffix in (("batch-0.json", ""), ("negative/batch-0.json", "-negative")):
        batch = json.loads((exported / "saedashboard" / batch_file).read_text())
        (place,) = exported.glob(f"neuronpedia/*/1-sign_aware_gated-40{suffix}")
        rows = {}
        for name, (every, needed) in IMPORTED.items():
            file = next(f for f in (place / f"{name}.jsonl", place / name / "batch-0.jsonl.gz") if f.exists())
            text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
            rows[name] = [json.loads(line) for line in text.splitlines()]
            for row in rows[name]:
                assert set(row) <= set(every.split()), name
                assert set(needed.split()) <= set(row), name
        assert [row["index"] for row in rows["features"]] == [f["feature_index"] for f in batch["features"]]
        places = [(f["feature_index"], a) for f in batch["features"] for a in f["activations"]]
        assert len(places) == len(rows["activations"])
        for (latent, theirs), ours in zip(places, rows["activations"], strict=True):
            assert (ours["index"], ours["tokens"], ours["values"]) == (
                latent,
                theirs["tokens"],
                theirs["values"],
            )
            assert ours["values"][ours["maxValueTokenIndex"]] == ours["maxValue"] == max(ours["values"])
        ids = [row["id"] for row in rows["activations"]]
        assert len(set(ids)) == len(ids)
        assert {len(one) for one in ids} == {25}
        assert rows["source"][0]["id"] == rows["features"][0]["layer"] == place.name


def test_the_sequences_are_those_of_the_store(exported, store):
    """Not as many full ones as the tokens make: documents end anywhere."""
    texts = Texts(store, "heldout")
    count = len(set(texts.sequence_N.tolist()))
    assert count > -(-store.tokens("heldout") // (store.provenance.context - 1))
    (source,) = exported.glob("neuronpedia/*/1-sign_aware_gated-40/source.jsonl")
    assert json.loads(source.read_text().splitlines()[0])["num_prompts"] == count
    batch = json.loads((exported / "saedashboard" / "batch-0.json").read_text())
    assert {one["n_prompts_total"] for one in batch["features"]} == {count}


def test_an_export_of_chosen_latents(saved, store, tmp_path):
    here = ("--activations", store.path, "--out", tmp_path / "p.html", "--latents", "3,8", "--name", "mine")
    done = evals("report", saved, *here, "--export", "saedashboard", tmp_path / "e")
    assert done.returncode == 0, done.stderr
    batch = json.loads((tmp_path / "e" / "batch-0.json").read_text())
    assert batch["sae_set"] == "mine"
    assert {f["feature_index"] for f in batch["features"]} <= {3, 8}


def test_a_feature_without_contexts_is_valid():
    from evals.latents import Side

    side = Side(1, 0.0, 0.0, (), (), ())
    one = feature(3, side, torch.zeros(8), Source("m", 1, "hook", "s", 1, 2, "", 9))
    assert set(one) == set(FEATURE.split())
    assert json.loads(json.dumps(one, allow_nan=False)) == one


def test_a_source_needs_a_numbered_block(saved):
    sae = rsae.load(saved)
    known = Provenance(model="m", hook="model.norm", context=8)
    with pytest.raises(InputError, match="no numbered block"):
        Source.of(sae, known, "", 10)
    with pytest.raises(InputError, match="host model"):
        Source.of(sae, Provenance(hook="blocks.1.hook_resid_pre", context=8), "", 10)
    assert EXPORTED.intervals == 10
