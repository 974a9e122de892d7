"""How a run can end early: each way becomes one message that says what is saved and how to resume."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

import torch
from rich.console import Console

from tfnas.core.errors import InputError, Interrupted, NotResumable, RunFailed, TfnasError
from tfnas.runs.distributed import DistributedContext, ReportedElsewhere, peer_failure
from tfnas.runs.run_directory import CONFIG_FILE, Checkpoints
from tfnas.utils.text import say

SAVED = "the last saved state is intact"
PATIENCE_SECONDS = 2.0
SAVING = "stopping after this step and saving; interrupt again to stop at once without saving"


class Interruption:
    """Notes Ctrl-C and termination, for the run to save its state at the next step. A later one ends it at once."""

    def __init__(self, console: Console, words: str = SAVING) -> None:
        self.signal: int | None = None
        self.noted_at = 0.0
        self.console = console
        self.words = words

    def raise_if_asked(self, what_is_saved: str) -> None:
        """Raise Interrupted (130 for Ctrl-C, 143 for termination), with these words, if a signal came."""
        if self.signal is not None:
            word = "interrupted" if self.signal == signal.SIGINT else "terminated"
            raise Interrupted(f"{word}; {what_is_saved}", 128 + self.signal)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self.noted_at = number, now
            say(self.console, self.words)
        elif now - self.noted_at > PATIENCE_SECONDS:  # many press twice: that is one wish
            raise KeyboardInterrupt


@contextmanager
def watch_interruption(console: Console, words: str = SAVING) -> Iterator[Interruption]:
    """Catch SIGINT and SIGTERM for the duration (where Python allows it: in the main thread).

    `words` are said when the first comes.
    """
    watch = Interruption(console, words)
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            before[number] = signal.signal(number, watch._note)
        except ValueError:  # not in the main thread: the program around us handles signals
            break
    try:
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Remains:
    """What a run that ends early leaves behind, by what is in its directory then, and the command to resume it."""

    checkpoints: Checkpoints
    how_to_resume: str

    def __call__(self) -> str:
        """For the end of a message, beginning in lower case."""
        run_dir = self.checkpoints.run_dir
        try:
            if self.checkpoints.saved():
                return f"{SAVED}. {self.how_to_resume}"
            if (run_dir / CONFIG_FILE).is_file():
                return f"nothing was saved yet: resuming starts over. {self.how_to_resume}"
        except OSError as error:
            return f"the last saved state cannot be read ({error.strerror}). {self.how_to_resume}"
        return f"the saved state is lost because {run_dir} was removed or emptied: start a new run"


@contextmanager
def handle_errors(interruption: Interruption, remains: Callable[[], str], out_of_memory: str) -> Iterator[None]:
    """Run the body; what ends it early is raised as InputError, RunFailed or Interrupted with one message.

    `remains` says what is saved and how to resume, beginning in lower case; `out_of_memory` is that message.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        status = 128 + (interruption.signal or signal.SIGINT)
        raise Interrupted(f"ended at once; {remains()}", status) from error
    except NotResumable:
        raise
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}. Fix that first; {remains()}") from error
    except RunFailed as error:
        raise RunFailed(_with_remains(str(error).rstrip("."), remains)) from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RunFailed(out_of_memory) from error
    except RuntimeError as error:
        # on the CPU PyTorch has no class of its own for either
        if "can't allocate memory" in str(error):
            raise RunFailed(out_of_memory) from error
        if "DataLoader worker" in str(error):
            interruption.raise_if_asked(remains())
            raise RunFailed(_with_remains(f"a data loader process died ({error})", remains)) from error
        raise
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        raise RunFailed(_with_remains(f"system error: {error.strerror or error}{where}", remains)) from error


def _with_remains(message: str, remains: Callable[[], str]) -> str:
    left = remains()
    return f"{message}. {left[:1].upper()}{left[1:]}"


@contextmanager
def report_once(processes: DistributedContext) -> Iterator[None]:
    """Report an error raised in several processes once; one raised in another process than rank 0 alone names it."""
    try:
        yield
    except (ReportedElsewhere, Interrupted):
        raise
    except TfnasError as error:
        if not processes.may_report():
            raise ReportedElsewhere(error.exit_status) from error
        error.process = processes.rank or None
        raise


@contextmanager
def report_peer_failure(
    processes: DistributedContext, interruption: Interruption, remains: Callable[[], str]
) -> Iterator[None]:
    """Report a collective that failed because a peer has exited as that, unless the peer has reported why."""
    try:
        yield
    except RuntimeError as error:
        ending: TfnasError | None = peer_failure(error)
        if ending is None:
            raise
        if interruption.signal == signal.SIGINT:  # SIGTERM may be the launcher's, which ends all when one has died
            ending = Interrupted(f"interrupted; {remains()}")
        if not processes.may_report():
            raise ReportedElsewhere(ending.exit_status) from error
        ending.process = processes.rank or None
        raise ending from error


def end_together(interruption: Interruption, how_to_resume: str) -> NoReturn:
    """Raise Interrupted, the state saved: a signal came to this process, or to another, which all have heard of."""
    what_is_saved = f"the state is saved. {how_to_resume}"
    interruption.raise_if_asked(what_is_saved)
    raise Interrupted(f"another process of this run was terminated; {what_is_saved}", 128 + signal.SIGTERM)
