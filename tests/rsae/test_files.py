"""Files that are whole or absent, wherever they go."""

import json
import os
import resource
import signal
import stat
import threading

import pytest
import torch

import rsae
from rsae.support.files import read_tensors, write_json, write_tensors, write_text, write_torch
from tests.rsae.helpers import random_sae


def test_a_link_stays_a_link_and_what_it_points_to_is_written(tmp_path):
    target, link = tmp_path / "far" / "there.json", tmp_path / "here.json"
    target.parent.mkdir()
    link.symlink_to(target)
    for value in (1, 2):  # missing at first, then replaced
        write_json(link, value)
        assert link.is_symlink()
        assert json.loads(target.read_text()) == value
    assert {f.name for f in target.parent.iterdir()} == {"there.json"}


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "words")
    reader.join(10)
    assert read == ["words"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_standard_output_takes_what_is_written(capfd):
    write_text("/dev/stdout", "words")
    assert capfd.readouterr().out == "words"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_weights_may_be_read_by_those_who_may_read_new_files(tmp_path, monkeypatch, mask):
    monkeypatch.setattr("approx.files._UMASK", mask)
    rsae.save(random_sae("top_k"), tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    file.chmod(0o640)
    rsae.save(random_sae("top_k"), tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640  # what was decided of it stays


def test_what_may_not_be_read_is_not_called_absent(tmp_path, monkeypatch):
    write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)})
    (tmp_path / "a.safetensors").chmod(0)

    def opened(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", opened)  # whoever runs the tests may read all
    with pytest.raises(rsae.InputError, match="a.safetensors: you may not read it"):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("write", [write_torch, write_tensors])
def test_a_full_disk_is_one_clear_line(tmp_path, write):
    write(tmp_path / "file", {"a": torch.zeros(3)})
    before = (tmp_path / "file").read_bytes()
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(rsae.InputError, match="cannot write .*file: .*File too large.*; free some space"):
            write(tmp_path / "file", {"a": torch.randn(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "file").read_bytes() == before
    assert {f.name for f in tmp_path.iterdir()} == {"file"}
