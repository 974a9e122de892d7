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

import tfnas
from tfnas.core.errors import RunFailed, TfnasError

Found = TypeVar("Found")

_INTERRUPTED = 130
_BROKEN_PIPE = 141


class _OutputClosed(TfnasError):
    """Whoever reads the output has closed it: nobody is there to be told."""

    exit_status = _BROKEN_PIPE


class _Output:
    """Standard output, whose failures are told apart from those of files: a full disk is another thing.

    `failed` is whether it has refused anything.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream's. Raises RunFailed where it takes no more."""
        with self._failures_named():
            written: int = self._stream.write(text)
        return written

    def flush(self) -> None:
        """As the stream's. Raises RunFailed where it takes no more."""
        with self._failures_named():
            self._stream.flush()

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            self.failed = True
            raise _OutputClosed from error
        except OSError as error:
            self.failed = True
            raise RunFailed(f"the output cannot be written: {error.strerror or error}") from error


class Answered(TfnasError):
    """All that was asked for has been printed: the command ends here, well."""

    exit_status = 0


@dataclass
class Command:
    """A command that runs: its arguments, and after its body its exit status."""

    arguments: list[str]
    status: int = 0


@contextmanager
def running(prog: str, argv: Sequence[str] | None) -> Iterator[Command]:
    """Run the body as a command with these arguments (those of the process by default).

    What ends the body early becomes one message and the `status`; faults of the program are raised. `--help` and
    `--print_config` leave by SystemExit.
    """
    command = Command(sys.argv[1:] if argv is None else list(argv))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # torch.compile walks through all loaded modules, which jsonargparse takes for a use of its old names
        warnings.filterwarnings("ignore", message=r"\s*Only use the public API as described in .*jsonargparse")
        warnings.showwarning = lambda message, *_: print(f"{prog}: warning: {message}", file=sys.stderr)
        try:
            with _named_output(), _threads_named(prog), _flushed():
                yield command
        except TfnasError as error:
            if error.process is not None:
                print(f"{prog}: process {error.process}: {error}", file=sys.stderr)
            elif str(error) and os.environ.get("RANK", "0") == "0":  # of several processes the first speaks for all
                print(f"{prog}: {error}", file=sys.stderr)
            command.status = error.exit_status
        except KeyboardInterrupt:
            print(f"{prog}: interrupted", file=sys.stderr)
            command.status = _INTERRUPTED
        except BrokenPipeError:
            _forget_output()
            command.status = _BROKEN_PIPE


class ShownFirst(Generic[Found]):
    """Shows what was found before its files are written, which an output that fails must not prevent.

    It is called with what was found, and first ends the display of `progress`; `finish` afterwards raises what the
    output met.
    """

    def __init__(self, progress: ExitStack, show: Callable[[Found], None]) -> None:
        self._progress, self._show = progress, show
        self._failure: TfnasError | None = None

    def __call__(self, found: Found) -> None:
        """Show it."""
        self._progress.close()
        try:
            self._show(found)
        except TfnasError as error:
            self._failure = error

    def finish(self) -> None:
        """Raise RunFailed or the end of the output, where it could not be shown."""
        if self._failure is not None:
            raise self._failure


@contextmanager
def _named_output() -> Iterator[None]:
    """Standard output as one whose failures are named."""
    if sys.stdout is None:  # it was closed before the program began: nobody wants to read anything
        with open(os.devnull, "w") as nobody, redirect_stdout(nobody):  # noqa: PTH123 - a device
            yield
        return
    output = _Output(sys.stdout)
    try:
        with redirect_stdout(output):
            yield
    finally:
        if output.failed:
            _forget_output()


@contextmanager
def _threads_named(prog: str) -> Iterator[None]:
    """What ends a thread that writes files is one line; whoever waits for the thread meets it too."""
    before = threading.excepthook

    def tell(failure: threading.ExceptHookArgs) -> None:
        if isinstance(failure.exc_value, OSError):
            print(f"{prog}: warning: {failure.exc_value}", file=sys.stderr)
        else:
            before(failure)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def _flushed() -> Iterator[None]:
    """See the body's output off. Raises BrokenPipeError where nobody reads it any more."""
    try:
        yield
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


def show_version() -> NoReturn:
    """Answer `--version`. Raises Answered."""
    print(version_text(), flush=True)
    raise Answered
