"""The processes of a run: one, or as many as torchrun has started, on one machine or several.

nccl connects GPUs, gloo CPUs. Errors that all processes share (wrong settings, missing files) are reported by
rank 0 only.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from tfnas.core.errors import InputError, RunFailed, TfnasError
from tfnas.data.image_batches import Share
from tfnas.utils.devices import named_device

T = TypeVar("T")
_TURNS = itertools.count()
_ABSENT = "the environment sets WORLD_SIZE but not {}: start the processes with torchrun"


class ReportedElsewhere(TfnasError):
    """This process ends because of an error that another one reports."""

    def __init__(self, exit_status: int) -> None:
        super().__init__("")
        self.exit_status = exit_status


class Counter(Protocol):
    """What of a store of torch is used here."""

    def add(self, key: str, amount: int) -> int:
        """Raise the number called `key` (0 at first) and return it."""


@dataclass(frozen=True)
class DistributedContext:
    """Which process this is, of how many, and the device it computes on."""

    rank: int
    world_size: int
    device: torch.device
    store: Counter | None = None
    """Counts for all of them, also when one is gone."""

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    @property
    def launcher(self) -> str | None:
        """What starts such processes; None where there is one alone."""
        if self.world_size == 1:
            return None
        here = max(1, _from_environment("LOCAL_WORLD_SIZE", self.world_size))  # those on this machine
        machines = f"--nnodes={self.world_size // here} " if here < self.world_size else ""
        return f"torchrun {machines}--nproc_per_node={here}"

    @property
    def share(self) -> Share:
        """This process's part of every batch."""
        return Share(self.rank, self.world_size)

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """The sums of these numbers over all processes. Raises RunFailed when one of them is gone."""
        if self.world_size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(together)
        found: list[float] = together.tolist()
        return found

    def all_reduce_mean(self, tensors: Sequence[Tensor], count: int, numbers: Sequence[Tensor | float]) -> list[float]:
        """Replace tensors, in place, by their means over the images of all processes, of which this one has `count`.

        Returns the sums of further numbers over all processes, and behind them that of the images. All of it goes in
        one exchange, in a buffer whose layout is the same each time, and so is its rounding.
        """
        first = tensors[0]
        further = [torch.as_tensor(number).detach().to(first).reshape(1) for number in (*numbers, float(count))]
        flat = torch.cat([*(tensor.reshape(-1) for tensor in tensors), *further])
        means = flat[: -len(further)].mul_(count)
        if self.world_size > 1:
            dist.all_reduce(flat)
        means /= flat[-1]
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, mean in zip(tensors, torch.split(means, sizes), strict=True):
            tensor.copy_(mean.view_as(tensor))
        sums: list[float] = flat[-len(further) :].tolist()
        return sums

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Copy the values of rank 0 to all processes, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                dense = tensor.contiguous()  # a view of something larger cannot be sent as it is
                dist.broadcast(dense, 0)
                tensor.copy_(dense)

    def broadcast_bytes(self, data: bytes | None) -> bytes | None:
        """The bytes of rank 0 (or None), in every process."""
        if self.world_size == 1:
            return data
        size = torch.tensor([-1 if data is None else len(data)], device=self.device)
        dist.broadcast(size, 0)
        if int(size) < 0:
            return None
        content = torch.empty(int(size), dtype=torch.uint8, device=self.device)
        if data is not None:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(content, 0)
        return content.cpu().numpy().tobytes()

    def barrier(self, work: Callable[[], T]) -> T:
        """Run `work` in every process behind a barrier; if it fails in any, all end and one message is printed.

        Raises what the work raised in the first process that failed, and ReportedElsewhere in the others.
        """
        try:
            result, problem = work(), None
        except TfnasError as error:
            problem = error
        own = 0.0 if problem is None else float(problem.exit_status)
        statuses = self.all_reduce_sum([own if rank == self.rank else 0.0 for rank in range(self.world_size)])
        failed = [rank for rank, status in enumerate(statuses) if status]
        if not failed:
            return result
        if problem is not None and failed[0] == self.rank:
            problem.process = self.rank or None
            raise problem
        raise ReportedElsewhere(int(statuses[failed[0]]))

    def from_rank_zero(self, make: Callable[[], str]) -> str:
        """The text that rank 0 makes, in every process. Raises as `barrier` does."""
        text = self.barrier(lambda: make().encode() if self.is_rank_zero else None)
        return (self.broadcast_bytes(text) or b"").decode()

    def may_report(self) -> bool:
        """Whether this process is the first that asks, and so reports for those that end alike; it may ask again."""
        if self.store is None:
            return True
        own = f"reported by {self.rank}"
        try:
            return self.store.add(own, 0) > 0 or (self.store.add("reported", 1) == 1 and self.store.add(own, 1) > 0)
        except RuntimeError:  # the process that served the store is gone, and reported nothing
            return True


@contextmanager
def distributed_context(device: str, local_rank: int | None, timeout_seconds: float) -> Iterator[DistributedContext]:
    """Join the processes that a launcher has started (environment WORLD_SIZE, RANK, LOCAL_RANK), or be the only one.

    `local_rank` is what older launchers say in place of LOCAL_RANK. One program may do so again and again, as long as
    all processes do it equally often. Raises InputError where the environment is incomplete or the device is not there.
    """
    number = _from_environment("WORLD_SIZE", 1)
    if number == 1:
        yield DistributedContext(0, 1, named_device(device))
        return
    rank = _from_environment("RANK", None)
    if rank >= number:
        raise InputError(f"the environment sets RANK to {rank}, but WORLD_SIZE to {number}: ranks count from 0")
    local = _from_environment("LOCAL_RANK", local_rank)
    try:
        own = _own_device(device, local)
    except InputError as error:  # the others may have their devices, and could not say it
        error.process = rank or None
        raise
    if "MASTER_ADDR" not in os.environ:
        raise InputError(_ABSENT.format("MASTER_ADDR"))
    _from_environment("MASTER_PORT", None)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    backend = "nccl" if own.type == "cuda" else "gloo"
    timeout = datetime.timedelta(seconds=timeout_seconds)
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    turn = next(_TURNS)
    try:
        rendezvoused = _rendezvous_store(where, rank, number, timeout)
        # what an earlier turn has left in the store, such as its addresses, must not be taken for this one's
        store = dist.PrefixStore(f"turn {turn}", rendezvoused)  # type: ignore[attr-defined]  # it is public all the same
        dist.init_process_group(backend, store=store, rank=rank, world_size=number, timeout=timeout)
    except (RuntimeError, ValueError) as error:  # DistError is a RuntimeError
        detail = " ".join(str(error).split())[:300]
        failed = RunFailed(f"cannot join the other processes of this run at {where} ({detail})")
        failed.process = rank or None
        raise failed from error
    try:
        prefixed = dist.PrefixStore("tfnas", store)  # type: ignore[attr-defined]
        yield DistributedContext(rank, number, own, prefixed)
    except BaseException:
        if backend == "gloo":  # nccl would wait for those that are gone
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


@functools.cache
def _rendezvous_store(_where: str, rank: int, number: int, timeout: datetime.timedelta) -> Any:
    """The store at the address that the environment says, which is `_where`.

    It stays open until the program ends: rank 0 may serve it, and another may be in the next turn while rank 0 is still
    leaving this one.
    """
    store, _, _ = next(rendezvous("env://", rank, number, timeout=timeout))
    return store


def _own_device(device: str, local_rank: int) -> torch.device:
    """The GPU of this process's local rank, or the CPU; processes do not share a GPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{local_rank}"
    elif device.startswith("cuda:"):
        raise InputError(
            f"--device {device} names one GPU for several processes: use --device cuda, and each process takes its own"
        )
    return named_device(device)


def _from_environment(name: str, default: int | None) -> int:
    text = os.environ.get(name)
    if text is None:
        if default is None:
            raise InputError(_ABSENT.format(name))
        return default
    if not text.isdecimal():
        raise InputError(f"the environment variable {name} must be a whole number, got {text!r}")
    return int(text)


def peer_failure(error: RuntimeError) -> RunFailed | None:
    """What a failed exchange between processes means; None for any other error."""
    text = str(error)
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL", "ProcessGroup")
    if dist.is_initialized() and (isinstance(error, dist.DistError) or any(sign in text for sign in signs)):
        detail = re.sub(r"^\[\S+:\d+\] ", "", text).partition(". ")[0]  # without the library's source line and advice
        return RunFailed(f"another process of this run has exited or does not respond ({detail})")
    return None
