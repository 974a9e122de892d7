"""Processes of their own, to be killed or to work together, that start quickly.

A server process has imported the package once, and forks each of them: importing takes longer than what they do.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["tfnas.searching.differentiable.differentiable_search", "tfnas.training.retraining", "sklearn.datasets"]
)
_STORES = []


def _run(work, arguments, said, environment):
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    import torch

    torch.set_num_threads(1)
    work(*arguments)


class RealProcess:
    """A process that calls `work` (a function of a module) with these arguments; `said` takes its standard error."""

    def __init__(self, work, *arguments, said: Path, **environment: str) -> None:
        self.said_in = said
        self.process = _SERVER.Process(target=_run, args=(work, arguments, str(said), environment))
        self.process.start()

    def is_running(self) -> bool:
        return self.process.is_alive()

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """`kill -9`, in the middle of whatever it does; it must have been running."""
        self.send(signal.SIGKILL)
        assert self.end(60) == -signal.SIGKILL, "it had ended by itself"

    def end(self, seconds: float) -> int:
        """Wait for its end; the exit status, or minus the number of the signal that ended it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it goes on after {seconds:g} s: {self.said()}")
        return self.process.exitcode

    def said(self) -> str:
        return self.said_in.read_text() if self.said_in.exists() else ""


def start_together(
    work, *arguments, folder: Path, number: int = 2, launcher_keeps_the_store: bool = True
) -> list[RealProcess]:
    """Start processes that work together, as torchrun would; what they say goes into the folder.

    As there, the store that they meet at lives as long as who has started them; or, as with other launchers, the first
    of them keeps it.
    """
    from torch.distributed import TCPStore

    together = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    if launcher_keeps_the_store:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        _STORES.append(store)
        together |= {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        together |= {"TORCHELASTIC_RESTART_COUNT": "0"}
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            together |= {"MASTER_PORT": str(free.getsockname()[1])}
    return [
        RealProcess(
            *(work, *arguments),
            said=folder / f"said-{rank}.txt",
            **{**together, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(number)
    ]


def run_together(work, *arguments, folder: Path, number: int = 2, launcher_keeps_the_store: bool = True) -> None:
    """Run them to their end; all must succeed."""
    processes = start_together(
        work, *arguments, folder=folder, number=number, launcher_keeps_the_store=launcher_keeps_the_store
    )
    assert [process.end(240) for process in processes] == [0] * number, [process.said() for process in processes]
