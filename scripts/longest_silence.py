"""How long a command leaves a person at a terminal without anything new: `longest_silence.py COMMAND [ARGUMENT ...]`.

Runs the command in a terminal of its own (100 columns), passes on what it shows, and tells at the end, as an error
output, behind which lines it was longest silent. A progress bar that is drawn again as it was is silence too.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from dataclasses import dataclass, field

_COLUMNS, _ROWS = 100, 40
_SHOWN = 5
_WORTH_SHOWING_SECONDS = 1.0
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x07")


@dataclass
class Watched:
    """What was shown so far, and the silences: seconds, when each began, and what stood there."""

    began: float
    last: str = "(nothing yet)"
    changed_at: float = 0.0
    silences: list[tuple[float, float, str]] = field(default_factory=list)

    def show(self, data: bytes, now: float) -> None:
        """Take in what the command has written; text that stood there already is nothing new."""
        for line in re.split(rb"[\r\n]+", _CONTROL.sub(b"", data)):
            text = line.decode(errors="replace").strip()
            if text and text != self.last:
                self.end_silence(now)
                self.last = text

    def end_silence(self, now: float) -> None:
        """Something new has come, or the end."""
        self.silences.append((now - self.changed_at, self.changed_at - self.began, self.last))
        self.changed_at = now


def watched(command: list[str]) -> tuple[Watched, int]:
    """Run a command in a terminal to its end; what was seen, and its exit status."""
    child, master = pty.fork()
    if child == 0:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]}: {error.strerror}")
        os._exit(127)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    seen = Watched(began=(now := time.monotonic()), changed_at=now)
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # what Linux says when the command has closed its end
            break
        if not data:
            break
        seen.show(data, time.monotonic())
        os.write(sys.stdout.fileno(), data)
    seen.end_silence(time.monotonic())
    return seen, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> int:
    """Run the command of the arguments and tell its longest silences; the exit status is the command's."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    seen, status = watched(sys.argv[1:])
    print(f"\n{seen.changed_at - seen.began:.1f} s in all; the longest silences:", file=sys.stderr)
    for seconds, since, line in sorted(seen.silences, reverse=True)[:_SHOWN]:
        if seconds >= _WORTH_SHOWING_SECONDS:
            print(f"{seconds:6.1f} s from {since:.1f} s on, behind: {line[-_COLUMNS:]}", file=sys.stderr)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
