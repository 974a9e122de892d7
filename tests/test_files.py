"""Files are written whole, and never in the place of something that is no file."""

import os
import resource
import stat

import pytest

from tfnas.errors import RunFailed
from tfnas.files import staged, write_whole


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


def test_a_file_that_cannot_be_written_leaves_the_former_one(tmp_path):
    """A limit on the size of files stands for a full disk."""
    path = tmp_path / "model.onnx"
    path.write_text("the former file")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(RunFailed, match=r"cannot write .*model\.onnx: File too large"), staged(path, bytes(3000)):
            raise AssertionError("the file was not written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "the former file" and list(tmp_path.iterdir()) == [path]
    with staged(path, b"the new file") as temporary:
        assert temporary.read_bytes() == b"the new file" and path.read_text() == "the former file"
    assert path.read_text() == "the new file" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(RunFailed, match="wrong"), staged(path, b"a wrong file"):
        raise RunFailed("its check says that it is wrong")
    assert path.read_text() == "the new file" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_file_is_as_private_as_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", "content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_the_file_and_its_new_name_are_flushed_to_disk(tmp_path, monkeypatch):
    """In this order: the content, then the name."""
    flushed = []

    def note(handle):
        inode = os.fstat(handle).st_ino
        flushed.append(("folder" if inode == tmp_path.stat().st_ino else "file", sorted(tmp_path.iterdir())))

    monkeypatch.setattr(os, "fsync", note)
    write_whole(tmp_path / "file", "content")
    (first, hidden), (second, renamed) = flushed
    assert (first, second) == ("file", "folder") and hidden != renamed == [tmp_path / "file"]


def test_an_error_of_the_body_is_not_called_one_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError, match="other"), staged(tmp_path / "file", b"content"):
        (tmp_path / "other").read_text()
    assert list(tmp_path.iterdir()) == []
