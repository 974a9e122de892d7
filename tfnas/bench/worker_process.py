"""A process that receives one program and answers in lines; every wait has a timeout.

Writing and both kinds of reading are interleaved, so that a process which does not read, or floods its standard error,
blocks nobody. The process has a session of its own: it cannot ask at the terminal, and it is killed with all
that it has started.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import IO

from tfnas.core.errors import InputError

_CHUNK = 2**16
_LAST_BYTES = 4096
_LAST_LINES = 5
_LONGEST_SHOWN = 300
_GRACE_S = 3.0
_TICK_S = 0.01


class WorkerError(Exception):
    """The worker died, hangs or violates the protocol; trying again may help."""


def printable(text: str, longest: int = _LONGEST_SHOWN) -> str:
    """Text of a worker as it may be shown on a terminal."""
    shown = "".join(character if character.isprintable() else " " for character in text).strip()
    return shown if len(shown) <= longest else f"{shown[:longest]}..."


class WorkerProcess:
    """A running command. Use it in a `with`: at its end the process is gone."""

    def __init__(self, arguments: Sequence[str], program: bytes) -> None:
        """Start the command, without a shell. Raises InputError when it cannot be started."""
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"--worker: {printable(arguments[0])} cannot be started: {why}") from error
        self._selector = selectors.DefaultSelector()
        self._killed = False
        self._status: int | None = None
        self._unsent = memoryview(program)
        self._received, self._last_words = bytearray(), bytearray()
        self.started = self._last_sent = time.monotonic()
        for stream, events in (
            (self._process.stdin, selectors.EVENT_WRITE),
            (self._process.stdout, selectors.EVENT_READ),
            (self._process.stderr, selectors.EVENT_READ),
        ):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, events)

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def line(self, patience_s: float, longest: int, since: float | None = None) -> bytes | None:
        """The next line that it prints, without its end; None where its output has ended.

        `since` (by `time.monotonic`; default: this call) is when waiting began. Raises WorkerError when nothing comes
        for `patience_s` from then, and from when it last took something of what it is sent, and when a line has more
        than `longest` bytes.
        """
        since = time.monotonic() if since is None else since
        while (end := self._received.find(b"\n")) < 0:
            self._check_length(len(self._received), longest)
            if not self._is_open(self._process.stdout):
                if self._received:
                    raise WorkerError("it ended in the middle of a line")
                return None
            left_s = max(since, self._last_sent) + patience_s - time.monotonic()
            if left_s <= 0:
                lazy = "it does not read its input" if self._unsent else "no answer"
                raise WorkerError(f"{lazy} for {patience_s:g} s")
            self._turn(left_s)
        self._check_length(end, longest)
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def finish(self, patience_s: float) -> int | None:
        """Give it so long to end, read what it still complains of, and kill it; None where it had not ended."""
        if self._killed:
            return self._status
        deadline = time.monotonic() + patience_s
        while (self._is_open(self._process.stdout) or self._is_open(self._process.stderr)) and (
            (left_s := deadline - time.monotonic()) > 0
        ):
            self._turn(left_s)
            self._received.clear()
        while not (ended := self._has_ended()) and time.monotonic() < deadline:
            time.sleep(_TICK_S)
        self.kill()
        self._status = self._process.returncode if ended else None
        return self._status

    @property
    def last_words(self) -> str:
        """The last lines of its standard error, in one line; empty where it said nothing."""
        lines = self._last_words.decode("utf-8", "replace").splitlines()
        return " | ".join([shown for line in lines if (shown := printable(line))][-_LAST_LINES:])

    def kill(self) -> None:
        """End it and what it has started, now."""
        if self._killed:
            return
        self._killed = True
        if self._process.returncode is None:  # not waited for yet: until then nobody else can be given its number
            self._kill_group()
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # of another user (sudo): its closed pipes end it
            self._process.wait(_GRACE_S)

    def _has_ended(self) -> bool:
        """Whether it has, without taking note of it, so that its number stays its own.

        Where that cannot be asked (macOS before Python 3.13), what it has started is killed as soon as note is taken.
        """
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if self._process.returncode is None and self._process.poll() is not None:
            self._kill_group()
        return self._process.returncode is not None

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _is_open(self, stream: IO[bytes] | None) -> bool:
        return stream is not None and not stream.closed

    def _turn(self, seconds: float) -> None:
        """Move what can be moved on any of the three pipes; waits at most so long for one to be ready."""
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._process.stdin:
                self._send(key.fd)
            else:
                self._receive(key)

    def _send(self, descriptor: int) -> None:
        try:
            sent = os.write(descriptor, self._unsent[:_CHUNK])
        except BlockingIOError:
            return
        except BrokenPipeError:  # it has said why on one of the other two, or its end will
            self._unsent = self._unsent[:0]
        else:
            self._unsent = self._unsent[sent:]
            self._last_sent = time.monotonic()
        if not self._unsent:
            self._end(self._process.stdin)

    def _receive(self, key: selectors.SelectorKey) -> None:
        try:
            data = os.read(key.fd, _CHUNK)
        except BlockingIOError:
            return
        stream = self._process.stdout if key.fileobj is self._process.stdout else self._process.stderr
        if not data:
            self._end(stream)
        elif stream is self._process.stdout:
            self._received += data
        else:
            self._last_words += data
            del self._last_words[:-_LAST_BYTES]

    def _end(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self._selector.unregister(stream)
        stream.close()

    @staticmethod
    def _check_length(length: int, longest: int) -> None:
        if length > longest:
            raise WorkerError(f"a line of more than {longest} bytes")
