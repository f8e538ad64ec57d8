"""Text as people have it: JSON Lines to the letter, compressed, parquet, directories, one long document."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rsae
from rsae import InputError, harvest
from rsae.activations.text import Document, load_documents, split_documents
from tests.rsae.helpers import begun_harvest

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=8)


@given(texts=TEXTS, bom=st.booleans(), blank=st.booleans(), crlf=st.booleans(), ascii_=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_lines_hold_any_text(tmp_path, texts, bom, blank, crlf, ascii_):
    end = "\r\n" if crlf else "\n"
    body = (
        end.join(json.dumps({"text": t}, ensure_ascii=ascii_) for t in texts) + end + (end if blank else "")
    )
    file = tmp_path / "x.jsonl"
    file.write_bytes((b"\xef\xbb\xbf" if bom else b"") + body.encode())
    assert [d.text for d in load_documents(str(file))] == texts


@pytest.mark.parametrize("char", ["\u2028", "\u0085", "\u2029", "\x0b", "\x1c"])
def test_what_splitlines_takes_for_a_line_end_is_text(tmp_path, char):
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": f"a{char}b"}, ensure_ascii=False) + "\n")
    assert load_documents(str(tmp_path / "x.jsonl"))[0].text == f"a{char}b"


def test_compressed_parquet_arrow_and_directories(tmp_path):
    import pyarrow
    import pyarrow.parquet

    line = json.dumps({"text": "one", "title": "t"}).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(line))
    table = pyarrow.table({"text": ["two", "three"], "other": [1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    with pyarrow.ipc.new_stream(tmp_path / "d.arrow", table.schema) as writer:  # as `datasets` saves
        writer.write_table(table)
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "e.txt").write_text("four\n\nfive\n \nsix")
    texts = [d.text.strip() for d in load_documents(str(tmp_path))]
    assert texts == ["one", "one", "two", "three", "two", "three", "four", "five", "six"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": null}', r"x.jsonl:2: field 'text' is null, not a text"),
        ("x.jsonl", b'{"text": "a"}\n["text"]', r"x.jsonl:2: needs an object with a field 'text'"),
        ("x.jsonl", b'{"text": "a"}\n\n{"txt": 1}', r"x.jsonl:3: needs an object with a field 'text'"),
        ("x.jsonl", b'{"text": "a"', r"x.jsonl:1: not JSON"),
        ("x.jsonl", '{"text": "caf\xe9"}'.encode("latin-1"), r"x.jsonl:1: byte 13 is not UTF-8.*iconv"),
        ("x.txt", "caf\xe9".encode("latin-1"), r"x.txt: byte 3 is not UTF-8"),
        ("x.txt", "caf\xe9".encode("utf-16"), r"x.txt: byte 0 is not UTF-8.*iconv -f utf-16"),
        ("x.jsonl.gz", b"not gzip", r"x.jsonl.gz: not a whole compressed file"),
        ("x.jsonl.zst", b"not zstd", r"x.jsonl.zst: not a whole compressed file"),
        ("x.parquet", b"not parquet", r"x.parquet: not a whole file"),
        ("x.jsonl", b"", "holds no document"),
        ("x.csv", b"text\na", r"text comes as .txt, .jsonl"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_row(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_documents(str(tmp_path / name))


@given(words=st.integers(60, 4000), mark=st.sampled_from(["\n\n", "\n", " ", ""]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_long_document_is_split_inside_itself(tmp_path, words, mark):
    text = mark.join(f"w{i}" for i in range(words))
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": text}))
    parts = split_documents(load_documents(str(tmp_path / "x.jsonl")))
    assert all(parts.values())
    assert sorted("".join(d.text for part in parts.values() for d in part)) == sorted(text)


def test_many_documents_are_never_cut(text_file):
    documents = load_documents(str(text_file))
    parts = split_documents(documents)
    assert sorted(d.text for part in parts.values() for d in part) == sorted(d.text for d in documents)


@given(
    texts=st.lists(st.sampled_from([f"text {n} of a few" for n in range(60)]), min_size=25, max_size=200),
    spaces=st.lists(st.sampled_from(["", "\n", "  "]), min_size=1, max_size=7),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_is_in_two_parts(capsys, texts, spaces, seed):
    documents = [Document(str(n), t + spaces[n % len(spaces)]) for n, t in enumerate(texts)]
    parts = split_documents(documents, seed, tell=True)
    told = capsys.readouterr().err
    held = {name: [d.text.strip() for d in part] for name, part in parts.items()}
    train, heldout, probing = (set(held[name]) for name in ("train", "heldout", "probing"))
    assert len(train) + len(heldout) + len(probing) == len(set(texts))
    assert train | heldout | probing == set(texts)
    assert len(heldout) == len(held["heldout"])
    lost = len(texts) - sum(map(len, held.values()))
    assert told.startswith(f"{lost} of {len(texts)} texts repeat") if lost else not told
    # what repeats nothing is parted as it always was
    marked = [Document(str(n), f"{n} {t}") for n, t in enumerate(texts)]
    whole = split_documents(marked, seed)
    assert [d.title for d in whole["train"]] == [d.title for d in parts["train"]]
    assert sum(map(len, whole.values())) == len(texts)


def test_short_texts_are_told_and_named(harvest_config, host, tmp_path, capsys):
    rows = [{"text": text} for n in range(60) for text in (f"{n}", f"{n}: " + "a long enough text " * 3)]
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    harvest(replace(harvest_config, text=str(file), tokens=1200, heldout_tokens=50), tmp_path / "s", host)
    assert "texts have fewer than 8 tokens and are left out; the first is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": 65}, "65 is more than the 64 positions"),
        ({"tokens": 10**7}, "lower `tokens` or add text"),
        ({"heldout_tokens": 10**7}, "lower `tokens` or add text"),
        ({"hook": "blocks.9.hook_resid_pre"}, "is not in host"),
        ({"text": "nowhere.txt"}, "neither a file nor"),
        ({"exclude_tokens": ("two words",)}, "not one"),
        ({"exclude_tokens": (256,)}, "is no token id"),
        ({"bos": "on"}, "has no BOS token"),
    ],
)
def test_nothing_is_written_before_everything_is_checked(harvest_config, host, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        harvest(replace(harvest_config, **change), tmp_path / "s", host)
    assert not (tmp_path / "s").exists()
    assert harvest(harvest_config, tmp_path / "s", host).tokens() > 0  # the mended command is not refused


def test_a_directory_where_nothing_was_finished_takes_new_settings(
    harvest_config, host, tmp_path, monkeypatch
):
    from rsae.activations import harvest as module

    def dying(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "run_sequences", dying)
        with pytest.raises(KeyboardInterrupt):
            harvest(harvest_config, tmp_path / "s", host)
    harvest(replace(harvest_config, tokens=2000), tmp_path / "s", host)


@pytest.mark.parametrize("finished", [True, False])
def test_a_text_that_was_edited_is_another_text(harvest_config, host, tmp_path, finished, monkeypatch):
    """Neither is a finished store of the old text taken for one of the new, nor are their shards mixed."""
    file = tmp_path / "x.jsonl"
    rows = [{"text": f"{i} a long enough text " * 9} for i in range(200)]
    file.write_text("\n".join(map(json.dumps, rows)))
    config = replace(harvest_config, text=str(file), tokens=6000, heldout_tokens=50)
    begun_harvest(config, tmp_path / "s", host, finished, monkeypatch)
    text = file.read_text()
    file.write_text(text.replace("long", "short"))
    with pytest.raises(InputError, match=r"another version of the text .*x.jsonl; choose another directory"):
        harvest(config, tmp_path / "s", host)
    file.write_text(text)
    assert harvest(config, tmp_path / "s", host).tokens() > 0
    file.unlink()
    assert not finished or rsae.Store.open(tmp_path / "s").tokens() > 0


def test_excluded_tokens_do_not_reach_the_store(harvest_config, store, host, tmp_path):
    from rsae.support.files import read_tensors

    tokens = read_tensors(store.path / "train-00000.safetensors")["token_N"]
    common = int(tokens.bincount().argmax())
    kept = harvest(replace(harvest_config, exclude_tokens=(common,)), tmp_path / "s", host)
    found = read_tensors(kept.path / "train-00000.safetensors")["token_N"]
    assert len(found) == (tokens != common).sum()
    assert not (found == common).any()
    assert kept.provenance.exclude_tokens == (common,)


def test_half_a_character_is_named(tmp_path):
    """Valid JSON, but no text: a tokenizer would fail later."""
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "fine \\ud83d\\ude00"}\n{"text": "broken \\ud83d"}\n')
    with pytest.raises(InputError, match=r"t.jsonl:2: field 'text' holds half of a character"):
        load_documents(str(file))
