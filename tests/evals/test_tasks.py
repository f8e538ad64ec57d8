"""Labelled sets: balanced, parted by source, from packages, files and the hub."""

from __future__ import annotations

import json

import numpy as np
import pytest

import evals
from evals.tasks import Example, load_task, split_task
from rsae import InputError


def test_split_is_balanced_and_without_leakage():
    examples = [Example(f"text {i}", i % 2, f"source {i // 4}") for i in range(400)]
    examples += [
        Example(f" TEXT  {i} ", i % 2, f"copy {i}") for i in range(400)
    ]  # duplicates but for case and space
    task = split_task("t", examples, 100, 40, seed=0)
    norm = lambda texts: {" ".join(t.casefold().split()) for t in texts}  # noqa: E731
    train, test = norm(task.train[0]), norm(task.test[0])
    assert len(train) == 100
    assert len(test) == 40
    assert not train & test
    assert task.train[1].sum() == 50
    assert task.test[1].sum() == 20


def test_a_source_is_on_one_side_only():
    examples = [Example(f"{source} {i}", i % 2, source) for source in map(str, range(60)) for i in range(4)]
    task = split_task("t", examples, 80, 20, seed=0)
    sides = [{t.split()[0] for t in texts} for texts in (task.train[0], task.test[0])]
    assert not sides[0] & sides[1]


def test_small_sets_shrink_in_proportion():
    task = split_task("t", [Example(f"t{i}", i % 2, f"t{i}") for i in range(200)], 400, 100, seed=0)
    assert len(task.train[0]) / len(task.test[0]) == pytest.approx(4, rel=0.1)
    with pytest.raises(InputError, match="fewer than 10 examples"):
        split_task("t", [Example(f"t{i}", i % 2, f"t{i}") for i in range(30)], 400, 100, seed=0)


def test_embedded_tasks():
    task = evals.load_task("agnews_sports", train=60, test=20)
    again = evals.load_task("agnews_sports", train=60, test=20)
    assert task.train[0] == again.train[0]
    lengths = [np.mean([len(t) for t, y in zip(*task.train, strict=True) if y == label]) for label in (0, 1)]
    assert 0.5 < lengths[0] / lengths[1] < 2  # the set's own negatives are ten times as long


def test_wiki_tasks_use_articles_that_no_sae_saw():
    from rsae.activations.text import split_documents, wikipedia

    seen = {d.text for d in split_documents(wikipedia())["train"]}
    task = evals.load_task("wiki_people", train=60, test=20)
    assert not seen & set(task.train[0] + task.test[0])


def test_unknown_task():
    with pytest.raises(InputError, match="did you mean 'spam'"):
        evals.load_task("spm")


def test_tasks_from_files(tmp_path):
    """A .csv and a .jsonl with the same rows are the same task; sources are kept together."""
    rows = [
        {"text": f"text, number {i}", "label": ["a", "b", "c"][i % 3], "source": f"s{i // 5}"}
        for i in range(300)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = [f'"{r["text"]}",{r["label"]},{r["source"]}' for r in rows]
    (tmp_path / "t.csv").write_text("\n".join(["text,label,source", *lines]))
    one, other = (load_task(f"{tmp_path}/t.{kind}#b", 60, 20) for kind in ("csv", "jsonl"))
    assert one.train[0] == other.train[0]
    source = {r["text"]: r["source"] for r in rows}
    label = {r["text"]: int(r["label"] == "b") for r in rows}
    assert not {source[t] for t in one.train[0]} & {source[t] for t in one.test[0]}
    for texts, labels in (one.train, one.test):
        assert [label[t] for t in texts] == labels.tolist()


@pytest.mark.parametrize("char", ["\u2028", "\u0085", "\x0b"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_lines_end_where_the_format_says(tmp_path, char, bom):
    """Characters at which `str.splitlines` would split stand inside texts; a directory's name may hold a #."""
    path = tmp_path / "c# sets"
    path.mkdir()
    rows = [{"text": f"text{char}number {i}", "label": i % 2} for i in range(300)]
    raw = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    (path / "t.jsonl").write_bytes(bom + raw.encode())
    task = load_task(f"{path}/t.jsonl", 60, 20)
    assert set(task.train[0]) < {row["text"] for row in rows}
    assert load_task(f"{path}/t.jsonl#0", 60, 20).train[1].mean() == 0.5


def test_task_from_a_data_set_on_the_hub(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def download(repository, file, repo_type):
        asked.append((repository, file, repo_type))
        if repository == "nobody/nothing":
            raise LocalEntryNotFoundError("no network")
        return str(tmp_path / "t.csv")

    lines = [f"{'a' if n % 2 else 'b'} text {n},{'a' if n % 2 else 'b'}" for n in range(200)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines]))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    one, other = (load_task(name, 60, 20) for name in ("me/set:data/t.csv#a", f"{tmp_path}/t.csv#a"))
    assert asked == [("me/set", "data/t.csv", "dataset")]
    assert one.train[0] == other.train[0]
    assert (one.test[1] == other.test[1]).all()
    with pytest.raises(InputError, match=r"nobody/nothing:x\.csv: the hub does not give it \(no network\)"):
        load_task("nobody/nothing:x.csv", 60, 20)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "text,lable\nx,1\n", "row 1 has no `label`"),
        ("t.csv", "text,label\nx,a\ny\n", "row 2 has no `label`"),
        ("t.csv", "text,label\nx,a\ny,b\nz,c\n", "a, b, c: name one"),
        ("t.csv", "text,label\nx,a\n", "labels a"),
        ("t.jsonl", "{'text': 1}", "t.jsonl:1: not JSON"),
        ("t.jsonl", '{"text": "x", "label": null}', "row 1 has no `label`"),
        ("t.jsonl", '{"text": 3, "label": 1}', "row 1: `text` is 3, not a text"),
        ("t.jsonl", "[1]", "row 1 has no `text` and no `label`"),
        ("t.txt", "", "neither embedded nor a .csv or .jsonl"),
    ],
)
def test_mistakes_in_task_files(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        load_task(str(tmp_path / name))


def test_topics_and_languages_are_balanced_tasks_parted_by_article():
    for name in ("wiki_mathematics", "spanish_not_french"):
        task = load_task(name, 60, 20)
        assert task.train[1].mean() == task.test[1].mean() == 0.5
        assert not set(task.train[0]) & set(task.test[0])
