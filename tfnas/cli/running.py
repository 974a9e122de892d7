"""Running a command: errors become one message on stderr and an exit status, never a traceback.

0 done; 1 the run failed; 2 wrong usage or input; 3 the target cannot be met; 130 and 143 interrupted and terminated;
141 the reader of the output closed it (as the shell counts a broken pipe).
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from tfnas.core import __version__
from tfnas.core.errors import Infeasible, RunFailed, TfnasError

Result = TypeVar("Result")

_INTERRUPTED = 130
_BROKEN_PIPE = 141


class _OutputClosed(TfnasError):
    """The reader of the output has closed it: there is nobody left to print an error for."""

    exit_status = _BROKEN_PIPE


class _Output:
    """Standard output, whose errors are distinguished from those of files: a full output is not a full disk.

    `failed` is whether a write has failed.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream's. Raises RunFailed where it cannot be written."""
        with self._translated_errors():
            written: int = self._stream.write(text)
        return written

    def flush(self) -> None:
        """As the stream's. Raises RunFailed where it cannot be written."""
        with self._translated_errors():
            self._stream.flush()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            self.failed = True
            raise _OutputClosed from error
        except OSError as error:
            self.failed = True
            raise RunFailed(f"the output cannot be written: {error.strerror or error}") from error


class Answered(TfnasError):
    """Everything that was asked for has been printed: the command ends here, successfully."""

    exit_status = 0


@dataclass
class Command:
    """A running command: its arguments and, once its body has ended, its exit status."""

    arguments: list[str]
    status: int = 0


@contextmanager
def running(prog: str, argv: Sequence[str] | None) -> Iterator[Command]:
    """Run the body as a command with these arguments (those of the process by default).

    An error of the user's, a failed run or an interruption becomes one message and the `status`; bugs are raised.
    `--help` and `--print_config` leave by SystemExit.
    """
    command = Command(sys.argv[1:] if argv is None else list(argv))
    is_first = os.environ.get("RANK", "0") == "0"  # of several processes, which all read the same arguments
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # torch.compile inspects all loaded modules, which jsonargparse takes for a use of its deprecated names
        warnings.filterwarnings("ignore", message=r"\s*Only use the public API as described in .*jsonargparse")
        warnings.showwarning = lambda message, category, *_: (
            print(f"{prog}: warning: {message}", file=sys.stderr)
            if is_first or category is not DeprecationWarning
            else None
        )
        try:
            with _checked_output(), _short_thread_errors(prog), _flushed():
                yield command
        except TfnasError as error:
            message = _explained(error)
            if error.process is not None:
                print(f"{prog}: process {error.process}: {message}", file=sys.stderr)
            elif message and is_first:
                print(f"{prog}: {message}", file=sys.stderr)
            command.status = error.exit_status
        except KeyboardInterrupt:
            print(f"{prog}: interrupted", file=sys.stderr)
            command.status = _INTERRUPTED
        except BrokenPipeError:
            _discard_output()
            command.status = _BROKEN_PIPE


def _explained(error: TfnasError) -> str:
    """The message of an error, and of a target that cannot be met the explanation with it."""
    if not isinstance(error, Infeasible):
        return str(error)
    from tfnas.report.range_report import explained

    return explained(error)


class ResultPrinter(Generic[Result]):
    """Prints a result before its files are written. An output that fails must not prevent the writing.

    Called with the result, it ends the display of `progress` and prints; `finish` then raises what the output raised.
    """

    def __init__(self, progress: ExitStack, show: Callable[[Result], None]) -> None:
        self._progress, self._show = progress, show
        self._error: TfnasError | None = None

    def __call__(self, result: Result) -> None:
        """Print it."""
        self._progress.close()
        try:
            self._show(result)
        except TfnasError as error:
            self._error = error

    def finish(self) -> None:
        """Raise the error of the output, if there was one."""
        if self._error is not None:
            raise self._error


@contextmanager
def _checked_output() -> Iterator[None]:
    """Let errors of standard output be distinguished from those of files."""
    if sys.stdout is None:  # it was closed before the program began
        with open(os.devnull, "w") as null, redirect_stdout(null):  # noqa: PTH123 - a device
            yield
        return
    output = _Output(sys.stdout)
    try:
        with redirect_stdout(output):
            yield
    finally:
        if output.failed:
            _discard_output()


@contextmanager
def _short_thread_errors(prog: str) -> Iterator[None]:
    """Print an error of a thread that writes files on one line; whoever joins the thread sees it too."""
    before = threading.excepthook

    def show(failure: threading.ExceptHookArgs) -> None:
        if isinstance(failure.exc_value, OSError):
            print(f"{prog}: warning: {failure.exc_value}", file=sys.stderr)
        else:
            before(failure)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def _flushed() -> Iterator[None]:
    """Flush the output after the body. Raises BrokenPipeError where its reader has closed it."""
    try:
        yield
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # rich answers one by leaving with status 1
            raise BrokenPipeError from leaving
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _discard_output() -> None:
    """Discard what is still buffered: Python would complain when it flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def say_loading(prog: str) -> None:
    """Tell a user at a terminal why nothing happens for the next few seconds."""
    if sys.stderr.isatty():
        print(f"{prog}: loading PyTorch", file=sys.stderr)


def version_text() -> str:
    """What `--version` prints."""
    return f"tfnas {__version__}"


def show_version() -> NoReturn:
    """Answer `--version`. Raises Answered."""
    print(version_text(), flush=True)
    raise Answered
