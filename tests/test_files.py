"""Files are written whole, and never in the place of something that is no file."""

import os

import pytest

from tfnas.errors import RunFailed
from tfnas.files import write_whole


def test_a_file_is_replaced_whole(tmp_path):
    for content in ("one", b"two"):
        write_whole(tmp_path / "deep" / "file", content)
    assert (tmp_path / "deep" / "file").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_a_folder_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, word in (("pipe", "device or pipe"), ("folder", "folder")):
        with pytest.raises(RunFailed, match=f"{name}: it is not a file but a {word}"):
            write_whole(tmp_path / name, "content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]
