import os
import stat
import threading

import pytest

import approx
from approx.files import check_writable, read_json, write_json


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("old.json")
    write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink()
    assert read_json(tmp_path / "old.json") == [1]
    (tmp_path / "dangling.json").symlink_to("new.json")
    write_json(tmp_path / "dangling.json", [2])
    assert read_json(tmp_path / "new.json") == [2]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    check_writable(pipe)
    write_json(pipe, [1])
    reader.join(10)
    assert read == ["[\n 1\n]\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_the_mode_is_that_of_the_file_before_or_of_new_files(tmp_path):
    (tmp_path / "plain").write_text("")
    write_json(tmp_path / "new.json", 1)
    assert (tmp_path / "new.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "new.json").chmod(0o640)
    write_json(tmp_path / "new.json", 2)
    assert stat.S_IMODE((tmp_path / "new.json").stat().st_mode) == 0o640


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    for place, says in ((tmp_path, "folder"), (tmp_path / "no" / "c.json", "no folder")):
        with pytest.raises(ValueError, match=says):
            check_writable(place)
    with pytest.raises(TypeError):
        write_json(tmp_path / "c.json", object())
    assert list(tmp_path.iterdir()) == []


def test_a_source_is_nothing_but_a_source(approx_cli, tmp_path):
    code, out, err = approx_cli(
        "composite", "--degrees", "3,3", "--lower", "0.1", "--to", "python", "-o", tmp_path / "c.json"
    )
    assert code == 0
    assert "written to" in err
    scope: dict = {}
    exec(out, scope)
    assert scope["sign"](0.5) == pytest.approx(1, abs=0.5)


def test_what_is_nested_too_deeply_is_one_line(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100000)
    with pytest.raises(ValueError, match=r"deep.json is none of this library's files"):
        approx.load(tmp_path / "deep.json")
