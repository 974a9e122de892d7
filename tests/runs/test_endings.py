"""What is said of a run that ends early is true of its directory at that moment, and no message contradicts itself."""

import errno

import pytest
from rich.console import Console

from tfnas.core.errors import InputError, Interrupted, NotResumable, RunFailed
from tfnas.runs.endings import Interruption, Remains, handle_errors
from tfnas.runs.run_directory import Checkpoints

RESUME = "Resume with: python train_search.py --resume run"


@pytest.fixture
def remains(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 2\n")
    return Remains(Checkpoints(tmp_path / "run", "search"), RESUME)


def ended_by(error, remains):
    """The message that an error ends with."""
    with (
        pytest.raises((InputError, RunFailed, Interrupted)) as ended,
        handle_errors(Interruption(Console(quiet=True)), remains, "out of memory"),
    ):
        raise error
    return ended.value, str(ended.value)


FAILURES = [
    (RunFailed("the loss is nan: lower --w_lr."), "the loss is nan: lower --w_lr. "),
    (OSError(errno.ENOSPC, "No space left on device", b"run/events"), "No space left on device (run/events). "),
    (InputError("its table was 'a' when it was saved, and is 'b' now"), "Fix that first; "),
    (KeyboardInterrupt(), "ended at once; "),
    (RuntimeError("DataLoader worker (pid 1) is killed"), "a data loader process died "),
]


@pytest.mark.parametrize(("error", "words"), FAILURES)
def test_what_is_left_is_what_is_there(remains, tmp_path, error, words):
    run_dir = tmp_path / "run"
    remains.checkpoints.save({}, 1, 2)
    _, message = ended_by(error, remains)
    assert words in message and message.lower().endswith(f"the last saved state is intact. {RESUME}".lower())
    (path,) = remains.checkpoints.saved()
    path.unlink()
    _, message = ended_by(error, remains)
    assert words in message and message.lower().endswith(
        f"nothing was saved yet: resuming starts over. {RESUME}".lower()
    )
    (run_dir / "config.yaml").unlink()
    for folder in (run_dir / "checkpoints", run_dir):
        folder.rmdir()
        _, message = ended_by(error, remains)
        assert words in message and message.endswith(f"because {run_dir} was removed or emptied: start a new run")
        assert "intact" not in message and "Resume" not in message


def test_a_run_that_cannot_be_resumed_is_not_told_how(remains):
    remains.checkpoints.save({}, 1, 2).write_bytes(b"damaged")
    with pytest.raises(NotResumable) as unreadable:
        remains.checkpoints.load_latest()
    ended, message = ended_by(unreadable.value, remains)
    assert isinstance(ended, InputError) and message.endswith("start a new run") and "Resume" not in message
