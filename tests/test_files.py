"""A file or folder is there whole or not at all, whatever interrupts its writing."""

import math
import os
import signal
import subprocess
import sys

import pytest

from embodied.files import atomic_file, atomic_folder, read_json, write_json, write_text


def test_text_and_json_come_back(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "grün\n")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "grün\n"
    write_json(tmp_path / "c.json", {"x": [1, 2.5, None, "é"]})
    assert read_json(tmp_path / "c.json") == {"x": [1, 2.5, None, "é"]}


def test_an_error_while_writing_leaves_the_old_content_and_no_rubbish(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_is_replaced_only_when_the_new_one_is_complete(tmp_path):
    folder = tmp_path / "run"
    with atomic_folder(folder) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "1").write_text("first")
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "2").write_text("second")
        raise RuntimeError
    assert [f.name for f in tmp_path.iterdir()] == ["run"]
    assert (folder / "deep" / "1").read_text() == "first"
    with atomic_folder(folder) as temporary:
        (temporary / "2").write_text("second")
    assert [f.name for f in folder.iterdir()] == ["2"]


def test_a_process_killed_while_writing_leaves_the_old_content(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    code = f"""
import time
from embodied.files import atomic_file
with atomic_file({str(tmp_path / "a.txt")!r}) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_number_json_cannot_say_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(ValueError, match=r"a\.json cannot be written as JSON"):
        write_json(tmp_path / "a.json", {"x": math.nan})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\xfe\x00", b""])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")
