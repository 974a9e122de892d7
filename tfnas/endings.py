"""How a run can end early: every such ending becomes one message that says what is kept and how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch

from tfnas.errors import InputError, Interrupted, RunFailed, TfnasError
from tfnas.processes import Processes, ToldElsewhere, lost_process
from tfnas.run import Interruption

LAST_KEPT = "what was saved last is kept"


@contextmanager
def told_endings(interruption: Interruption, how_to_resume: str, out_of_memory: str) -> Iterator[None]:
    """Run the body; what ends it early is raised as InputError, RunFailed or Interrupted with these words."""
    try:
        yield
    except KeyboardInterrupt as error:
        status = 128 + (interruption.signal or signal.SIGINT)
        raise Interrupted(f"ended at once; {LAST_KEPT}. {how_to_resume}", status) from error
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}. The state is kept. {how_to_resume}") from error
    except RunFailed as error:
        raise RunFailed(f"{str(error).rstrip('.')}. What was saved before is kept. {how_to_resume}") from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RunFailed(out_of_memory) from error
    except RuntimeError as error:
        # on the CPU PyTorch has no class of its own for either
        if "can't allocate memory" in str(error):
            raise RunFailed(out_of_memory) from error
        if "DataLoader worker" in str(error):
            interruption.raise_if_asked(f"{LAST_KEPT}. {how_to_resume}")
            raise RunFailed(f"a loader process died ({error}). {how_to_resume}") from error
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise RunFailed(
            f"the system refused: {error.strerror or error}{where}. What was saved before is kept. {how_to_resume}"
        ) from error


@contextmanager
def told_once(processes: Processes) -> Iterator[None]:
    """Of an error that several processes meet, one tells; one that only another than the first has met names it."""
    try:
        yield
    except (ToldElsewhere, Interrupted):
        raise
    except TfnasError as error:
        if not processes.may_tell():
            raise ToldElsewhere(error.exit_status) from error
        error.process = processes.rank or None
        raise


@contextmanager
def noticing_lost_processes(processes: Processes, interruption: Interruption, how_to_resume: str) -> Iterator[None]:
    """An exchange that fails because another process has ended is told as that, unless that one has told why."""
    try:
        yield
    except RuntimeError as error:
        ending: TfnasError | None = lost_process(error)
        if ending is None:
            raise
        if interruption.signal == signal.SIGINT:  # SIGTERM may be the launcher's, which ends all when one has died
            ending = Interrupted(f"interrupted; {LAST_KEPT}. {how_to_resume}")
        if not processes.may_tell():
            raise ToldElsewhere(ending.exit_status) from error
        ending.process = processes.rank or None
        raise ending from error


def end_together(interruption: Interruption, how_to_resume: str) -> NoReturn:
    """Raise Interrupted, the state saved: a signal came to this process, or to another, on which all have agreed."""
    what_is_kept = f"the state is saved. {how_to_resume}"
    interruption.raise_if_asked(what_is_kept)
    raise Interrupted(f"another process of this run was terminated; {what_is_kept}", 128 + signal.SIGTERM)
