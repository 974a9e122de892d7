"""Files are written whole, and never in the place of something that is no file."""

import contextlib
import errno
import os
import resource
import stat
from pathlib import Path

import pytest

from tfnas.core.errors import RunFailed
from tfnas.utils.files import check_writable, staged, write_whole

FULL = Path("/dev/full")  # a device; a file on a disk without room is tried by a limit on the size of files


def test_a_file_is_replaced_whole(tmp_path):
    for content in ("one", b"two"):
        write_whole(tmp_path / "deep" / "file", content)
    assert (tmp_path / "deep" / "file").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; free disk space"),
        (errno.EFBIG, r"File too large; raise the limit on file sizes \(ulimit -f\)"),
        (errno.EACCES, "Permission denied; choose another path"),
        (errno.ENOENT, "No such file or directory; choose another path"),
    ],
)
def test_a_message_says_what_to_do(tmp_path, monkeypatch, number, remedy):
    def refuse(*_args, **_named):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(RunFailed, match=rf"^cannot write \S*new: {remedy}$"):
        write_whole(tmp_path / "new", "content")


def test_a_folder_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, word in (("pipe", "device or pipe"), ("folder", "folder")):
        with pytest.raises(RunFailed, match=f"{name}: it is not a file but a {word}; choose another path"):
            write_whole(tmp_path / name, "content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_file_that_cannot_be_written_leaves_the_former_one(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("the former file")
    with (
        files_of_at_most(2000),
        pytest.raises(RunFailed, match=r"cannot write .*model\.onnx: File too large"),
        staged(path, bytes(3000)),
    ):
        raise AssertionError("the file was not written")
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


@contextlib.contextmanager
def files_of_at_most(size):
    """A limit on the size of files stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_where_a_file_cannot_be_written_is_known_beforehand(tmp_path):
    """Every refusal is the one that writing would end in, word for word; where it is well, nothing is left."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    refused = [tmp_path / "file" / "below", tmp_path / "folder", tmp_path / "pipe", tmp_path / ("long" * 70), FULL]
    for path in refused:
        with pytest.raises(RunFailed) as beforehand:
            check_writable(path)
        with pytest.raises(RunFailed) as afterwards:
            write_whole(path, bytes(5000))
        assert str(beforehand.value) == str(afterwards.value) and str(path) in str(beforehand.value)
    with files_of_at_most(1000), pytest.raises(RunFailed, match=r"cannot write .*new: File too large"):
        check_writable(tmp_path / "made" / "new")
    for path in (tmp_path / "file", tmp_path / "new", tmp_path / "made" / "for" / "it"):
        check_writable(path)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == "in the way"
