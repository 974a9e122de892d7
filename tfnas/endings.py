"""How a run can end early: every such ending becomes one message that says what is kept and how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tfnas.errors import InputError, Interrupted, RunFailed
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
