"""Contexts, detection and fuzzing with judges that know the answer, that guess, and that are wrong."""

from __future__ import annotations

import copy
import http.server
import json
import threading

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import rsae
from evals.delphi import write_cache
from evals.firings import Texts
from evals.interpretation import (
    Example,
    Material,
    by_tokens,
    endpoint_judge,
    host_judge,
    interpret,
    interpret_all,
    material,
    neighbours,
    token_judge,
)
from evals.latents import Vocabulary
from rsae import InputError
from tests.command import assert_one_clear_line
from tests.evals.conftest import evals
from tests.rsae.helpers import random_sae

AROUND = 4


@pytest.fixture(scope="module")
def sae(store):
    sae = random_sae("top_k", store)
    sae.provenance = store.provenance
    return sae


@pytest.fixture(scope="module")
def found(sae, store, host):
    return material(sae, store, Vocabulary(host, store.provenance), range(40), 3, 2, AROUND, split="train")


def test_contexts_are_of_the_text_and_of_their_quantile(sae, store, host, found):
    assert len(found) > 5
    texts, words = Texts(store, "train"), Vocabulary(host, store.provenance)
    whole = {
        s: [words.text(int(t)) for t in texts.token_N[texts.sequence_N == s]]
        for s in range(texts.sequence_N.max() + 1)
    }
    joined = ["\0".join(tokens) for tokens in whole.values()]
    for one in found:
        assert len(one.shown) <= 6
        assert len(one.firing) <= 6
        assert {e.quantile for e in (*one.shown, *one.firing)} == {0, 1, 2}
        largest = [max(e.values) for e in one.shown]
        assert largest == sorted(largest, reverse=True)
        assert all(max(e.values) > 0 for e in one.firing)
        assert all(max(e.values) == 0 and e.quantile is None for e in one.silent)
        assert not {e.tokens for e in one.shown} & {e.tokens for e in one.firing}
        for example in (*one.shown, *one.firing, *one.silent):
            assert len(example.tokens) <= 2 * AROUND + 1
            assert any("\0".join(example.tokens) in text for text in joined)
    assert any(e.hard for one in found for e in one.silent)


def test_neighbours_have_the_largest_cosines(sae):
    unit = torch.nn.functional.normalize(sae.W_dec, dim=1)
    for latent, row in zip((3, 9), neighbours(sae, [3, 9], 2), strict=True):
        cosine = (unit @ unit[latent]).tolist()
        order = sorted((i for i in range(40) if i != latent), key=lambda i: -cosine[i])
        assert row.tolist() == order[:2]


def example(values, quantile=None, hard=False):
    return Example(tuple(f" w{i}" for i in range(len(values))), tuple(values), quantile, hard)


def test_marks():
    one = example([0, 5, 4, 0.1, 2])
    assert one.on == (False, True, True, False, True)
    assert one.marked(one.on) == " w0<< w1 w2>> w3<< w4>>"
    assert one.text == " w0 w1 w2 w3 w4"


def truth(found: Material):
    """A judge that knows which texts and marks are the latent's."""
    texts = {e.text for e in found.firing}
    marks = {e.marked(e.on) for e in found.firing}
    return lambda kind, told, text: float(text in (texts if kind == "detection" else marks))


def test_judges_that_know_guess_and_err(found):
    for one in found[:6]:
        knows = interpret(one, "whatever", truth(one))
        for score in (knows.detection, knows.fuzzing):
            assert score.accuracy == score.auc == 1
            assert set(score.by_quantile) == {1.0}
            assert score.hard in (1, None)
        judge = truth(one)
        errs = interpret(one, "whatever", lambda *question, judge=judge: 1 - judge(*question))
        assert errs.detection.accuracy == errs.fuzzing.accuracy == 0
        same = interpret(one, "whatever", lambda *_: 1.0)
        assert same.detection.accuracy == same.detection.auc == 0.5
        assert knows.detection.texts == len(one.firing) + len(one.silent)


def test_the_explanation_by_tokens_is_read_by_its_judge():
    shown = (example([0, 0, 9], 2), example([0, 3, 0], 0))
    silent = (Example((" a", " b"), (0, 0), None), Example((" w2", " b"), (0, 0), None, True))
    one = Material(4, shown, (example([0, 0, 7], 2), example([0, 0.0, 1], 0)), silent)
    told = by_tokens(one)
    assert told == 'the tokens " w2", " w1"'
    got = interpret(one, by_tokens, token_judge)
    assert got.detection.accuracy == pytest.approx((1 + 0.5) / 2)  # one silent text holds w2
    assert got.detection.hard == 0
    assert token_judge("fuzzing", told, " w0<< w2>> b") == 1
    assert token_judge("fuzzing", told, "<< w0>> w2 b") == 0


def test_a_token_that_begins_a_word_is_the_whole_word():
    told = 'the tokens " in", "ing"'
    for text, there in (
        (" was in it", 1),
        (" inside it", 0),
        (" main", 0),
        (" run", 0),
        (" running", 1),
        (" in.", 1),
    ):
        assert token_judge("detection", told, text) == there


def test_a_token_with_a_comma_is_one_token():
    shown = (Example((" a, b", "c"), (1.0, 0.0), 0), Example((', "', "c"), (2.0, 0.0), 0))
    told = by_tokens(Material(0, shown, shown, shown))
    assert token_judge("detection", told, "x a, b c") == 1
    assert token_judge("detection", told, "x a b c") == 0


def test_what_gives_nothing_to_tell_is_left_out():
    """A latent that is on at each token, or in each context: no wrong mark, no silent text."""
    on, off = Example((" a",), (1.0,), 0), Example((" b",), (0.0,), None)
    for one in (
        Material(3, (on,), (on,), (off,)),
        Material(3, (on,), (), (off,)),
        Material(3, (on,), (on,), ()),
    ):
        with pytest.raises(InputError, match="nothing to tell it from"):
            interpret(one, by_tokens, token_judge)
        assert interpret_all([one], by_tokens, token_judge) == []


def test_a_judge_that_gives_no_probability(found):
    with pytest.raises(InputError, match="probability"):
        interpret(found[0], "x", lambda *_: 3.0)


def test_a_local_model_as_judge(host):
    config = copy.deepcopy(host.model.config)
    config.max_position_embeddings = 512  # the tiny host has 64, fewer than a question has bytes
    longer = rsae.Host("longer", type(host.model)(config).eval(), host.tokenizer)
    prompt = (
        "Explanation: x\nText: y\nDoes the text hold what the explanation says? Answer Yes or No.\nAnswer:"
    )
    with torch.no_grad():
        logits = longer.model(input_ids=torch.tensor([host.tokenizer(prompt)["input_ids"]])).logits[0, -1]
    yes, no = (host.tokenizer(word)["input_ids"][0] for word in (" Yes", " No"))
    expected = torch.softmax(logits[[yes, no]], 0)[0].item()
    assert host_judge(longer)("detection", "x", "y") == pytest.approx(expected)
    with pytest.raises(InputError, match="positions"):
        host_judge(host)("detection", "x", "y")


def test_an_endpoint_as_judge():
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((body, self.headers.get("Authorization")))
            said = "maybe" if "unsure" in body["messages"][0]["content"] else "1"
            reply = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        judge = endpoint_judge(f"http://127.0.0.1:{server.server_port}/v1", "small", "NO_SUCH_KEY")
        assert judge("detection", "about rivers", "a stone") == 1.0
        assert asked[0][0]["model"] == "small"
        assert "about rivers" in asked[0][0]["messages"][0]["content"]
        assert asked[0][1] is None
        with pytest.raises(InputError, match="not 0 or 1"):
            judge("fuzzing", "unsure", "a stone")
        server.shutdown()
    with pytest.raises(InputError, match="no answer"):
        judge("detection", "x", "y")


def test_the_command(sae, store, tmp_path):
    rsae.save(sae, tmp_path / "sae")
    here = ("interpret", tmp_path / "sae", "--activations", store.path)
    done = evals(*here, "--features", "12", "--json", tmp_path / "j", "--markdown")
    assert done.returncode == 0, done.stderr
    assert "| latent | explanation | detection accuracy |" in done.stdout
    assert {"material", "scores"} == json.loads((tmp_path / "j").read_text()).keys()
    (tmp_path / "told.json").write_text('{"3": "rivers"}')
    done = evals(*here, "--explanations", tmp_path / "told.json")
    assert_one_clear_line(done, "--judge host")
    assert_one_clear_line(evals(*here, "--latents", "99"), "0 to 39")


def test_delphis_cache(sae, store, tmp_path):
    """Every firing is where delphi's loader looks for it."""
    files = write_cache(sae, store, tmp_path)
    x = torch.cat(list(store.blocks("heldout")))
    with torch.no_grad():
        z = sae.encode(x)
    texts = Texts(store, "heldout")
    total = 0
    for file in files[:-1]:
        start, end = map(int, file.stem.split("_"))
        data = load_file(file)
        assert data["locations"].dtype == np.uint16
        assert data["activations"].dtype == np.float16
        total += len(data["activations"])
        for (sequence, position, latent), value in zip(
            data["locations"].astype(int), data["activations"], strict=True
        ):
            (row,) = np.flatnonzero((texts.sequence_N == sequence) & (texts.position_N == position))
            assert start <= start + latent <= end
            assert float(value) == pytest.approx(z[row, start + latent].item(), rel=2e-3)
            assert data["tokens"][sequence, position] == texts.token_N[row]
    assert total == int((z != 0).sum())
    config = json.loads(files[-1].read_text())
    assert config["cache_ctx_len"] == load_file(files[0])["tokens"].shape[1]
    rsae.save(sae, tmp_path / "sae")
    done = evals("report", tmp_path / "sae", "--activations", store.path, "--features", "1", "--out", tmp_path / "p",
                 "--export", "delphi", tmp_path / "cache", "--latents", "3,8")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (first,) = (tmp_path / "cache").glob("*/0_7.safetensors")
    assert set(load_file(first)["locations"][:, 2].tolist()) <= {3}
