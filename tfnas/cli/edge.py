"""The edge of every command: errors become one message on stderr and an exit status, never a traceback.

0 done; 1 the run failed; 2 wrong usage or input; 3 the target cannot be met; 130 and 143 interrupted and terminated;
141 the reader of the output closed it (as the shell counts a broken pipe).
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Sequence

import tfnas
from tfnas.errors import RunFailed, TfnasError

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def run_command(prog: str, body: Callable[[Sequence[str]], None], argv: Sequence[str] | None) -> int:
    """Run a command on its arguments (those of the process by default) and return its exit status.

    `--version` is answered here, before anything slow is imported. `--help` and `--print_config` leave by SystemExit.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if "--version" in arguments:
        print(version_text())
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # torch.compile walks through all loaded modules, which jsonargparse takes for a use of its old names
        warnings.filterwarnings("ignore", message=r"\s*Only use the public API as described in .*jsonargparse")
        warnings.showwarning = lambda message, *_: print(f"{prog}: warning: {message}", file=sys.stderr)
        try:
            _run_and_flush(body, arguments)
        except TfnasError as error:
            if error.process is not None:
                print(f"{prog}: process {error.process}: {error}", file=sys.stderr)
            elif str(error) and os.environ.get("RANK", "0") == "0":  # of several processes the first speaks for all
                print(f"{prog}: {error}", file=sys.stderr)
            return error.exit_status
        except KeyboardInterrupt:
            print(f"{prog}: interrupted", file=sys.stderr)
            return _INTERRUPTED
        except BrokenPipeError:
            _forget_output()
            return _BROKEN_PIPE
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            _forget_output()
            print(f"{prog}: the output cannot be written: {error.strerror}", file=sys.stderr)
            return RunFailed.exit_status
    return 0


def _run_and_flush(body: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> None:
    """Run a body and see its output off. Raises BrokenPipeError where nobody reads it any more."""
    try:
        body(arguments)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # rich meets one by leaving with status 1
            raise BrokenPipeError from leaving
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _forget_output() -> None:
    """Python would complain when it flushes what nobody takes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def say_loading(prog: str) -> None:
    """Tell a person at a terminal why nothing happens for the next seconds."""
    if sys.stderr.isatty():
        print(f"{prog}: loading PyTorch", file=sys.stderr)


def version_text() -> str:
    """What `--version` prints."""
    return f"tfnas {tfnas.__version__}"
