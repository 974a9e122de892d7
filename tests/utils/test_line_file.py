"""Files that grow by lines: what a killed process leaves, a second writer, a full disk."""

from __future__ import annotations

import json

import pytest

from tfnas.core.errors import InputError, RunFailed
from tfnas.utils.files import LineFile


def test_lines_are_there_again_but_for_one_that_was_cut_off(tmp_path):
    path = tmp_path / "lines"
    with LineFile.open(path) as file:
        assert file.lines == []
        file.append({"number": 1})
        file.append({"number": 2})
    path.write_bytes(path.read_bytes()[:-1])
    with LineFile.open(path) as file:
        assert [json.loads(line) for line in file.lines] == [{"number": 1}]
        file.append({"number": 3})
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_locked_file_refuses_a_second_writer_and_an_unlocked_one_does_not(tmp_path):
    path = tmp_path / "lines"
    with LineFile.open(path, in_use="it is in use"):
        with pytest.raises(InputError, match="it is in use"), LineFile.open(path, in_use="it is in use"):
            pass
        with LineFile.open(path):
            pass
    with LineFile.open(path, in_use="it is in use"):
        pass


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    with (
        pytest.raises(RunFailed, match=r"cannot write .*none/lines: No such file or directory; choose another path"),
        LineFile.open(tmp_path / "none/lines"),
    ):
        pass
    with LineFile.open(tmp_path / "lines") as file:
        monkeypatch.setattr(file, "_file", type("Full", (), {"write": lambda self, data: len(data) - 1})())
        with pytest.raises(RunFailed, match=r"lines cannot be written: No space left.*its contents are intact"):
            file.append({})
