"""The processor (its name, instruction sets and usable cores); where to compute (`--device`); and how.

How: threads, memory allocator, determinism and true float32, for the duration of a run.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.core.errors import InputError

if TYPE_CHECKING:
    import torch

_MOST_THREADS = 1024
_CPUINFO = Path("/proc/cpuinfo")
_LARGEST_PRIMING_BYTES = 31 * 2**20
_X86_MACHINES = ("x86_64", "amd64", "i386", "i686")
_ARITHMETIC = (
    *("sse4_1", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512vl"),
    *("avx_vnni", "avx512_vnni", "avx_vnni_int8", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16"),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
_VNNI = ("amx_int8", "avx512_vnni", "avx_vnni_int8", "avx_vnni")
_FOR_BYTES = (*_VNNI, "avx512bw", "avx2", "sse4_1", "i8mm", "asimddp", "asimd", "neon")


def processor_name() -> str:
    """The processor's name as Linux gives it, or what Python knows elsewhere."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_sets() -> tuple[str, ...]:
    """The processor's instruction sets for arithmetic on vectors, by Linux's names; none where the system tells none.

    On x86 such as `avx2`, `avx512_vnni`, `amx_int8`; on Arm `asimd`, `asimddp` (8-bit dot products), `i8mm`.
    """
    return instruction_sets_among(_cpuinfo("flags") or _cpuinfo("Features"))


def instruction_sets_among(flags: str) -> tuple[str, ...]:
    """Those for arithmetic on vectors among a processor's flags, which stand in one line as Linux writes them."""
    found = flags.split()
    return tuple(name for name in _ARITHMETIC if name in found)


def has_exact_byte_products() -> bool:
    """Whether this processor adds products of unsigned and signed bytes in 32 bits, where no sum is cut off.

    x86 processors without VNNI add neighbouring products in 16 bits, at most 32,767 (Intel's manual: VPMADDUBSW).
    """
    return platform.machine().lower() not in _X86_MACHINES or any(name in _VNNI for name in instruction_sets())


def byte_instructions() -> str:
    """The processor's widest instructions for products of bytes: `avx512_vnni`, `avx2`, `asimddp`; else its kind."""
    found = instruction_sets()
    return next((name for name in _FOR_BYTES if name in found), platform.machine())


def _cpuinfo(field: str) -> str:
    """The first value of a field of Linux's description of the processor; empty where there is none."""
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.is_file() else []
    values = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in values if name.strip() == field), "")


def device_names(kind: str) -> tuple[str, ...]:
    """The names of this machine's processor (`cpu`) or of its GPUs (`cuda`), each once."""
    if kind != "cuda":
        return (processor_name(),)
    import torch

    return tuple(sorted({torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}))


def device_name(device: torch.device) -> str:
    """The name of the processor, or of the GPU that a device is."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float | None:
    """The load average of the last minute; None where the system tells none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def check_thread_limit(threads: int) -> None:
    """Raise InputError for more threads than a process can be expected to start: PyTorch crashes where it cannot."""
    if threads > _MOST_THREADS:
        raise InputError(f"--threads must be at most {_MOST_THREADS}, got {threads}: give the number of cores")


def check_threads(threads: int) -> None:
    """Raise InputError for more threads than cores: they would take turns, and what is timed is of no machine."""
    cores = usable_cores()
    if threads > cores:
        raise InputError(
            f"{threads} threads need a core each, but this process may use {cores} only: measure with fewer threads, "
            "or where there are more cores"
        )


def named_device(name: str) -> torch.device:
    """The device of `cpu`, `cuda` or `cuda:N`, or with `auto` the first GPU if there is one. Raises InputError."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name} is not there: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


# ---- how to compute: for the duration of a run, or of a measurement --------------------------------------------------


def prime_allocator() -> None:
    """Make the C library keep freed tensors of up to 31 MiB for the next call instead of giving them to the system.

    glibc raises its thresholds for this to the largest block freed so far, up to 32 MiB; freeing one of nearly that
    size sets them for good. Without effect, and harmless, elsewhere.
    """
    import torch

    del_after = torch.empty(_LARGEST_PRIMING_BYTES, dtype=torch.uint8)
    del del_after


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads inside, and with as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread, and those that it starts, on so many of the cores it may use; afterwards as before.

    Without effect where the system cannot bind threads to cores, and where there are no more cores than threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def runtime_settings(threads: int, deterministic: bool, *, float32: bool = False) -> Iterator[None]:
    """Compute with so many threads and, if asked, with deterministic algorithms only; afterwards as before.

    `float32` keeps float32 what it is on a GPU too, where PyTorch by default rounds the numbers that convolutions
    multiply to TF32, with 10 bits of 23.
    """
    import torch

    before = torch.get_deterministic_debug_mode()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would import PyTorch's compiler
    prime_allocator()
    try:
        with torch_threads(threads), _true_float32() if float32 else nullcontext():
            yield
    finally:
        torch.set_deterministic_debug_mode(before)


def give_back_freed_memory() -> None:
    """Give memory that has been freed back to the system, of which glibc keeps much (a fifth of a search's)."""
    if trim := _trim():
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`, or None where the C library is another."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim


@contextmanager
def _true_float32() -> Iterator[None]:
    """Neither convolutions nor matrix products in TF32."""
    import torch

    cudnn: Any = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # a program has set them one by one, and then they can be read one by one only
        with _one_by_one((cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)):
            yield
        return
    cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


@contextmanager
def _one_by_one(kernels: Sequence[Any]) -> Iterator[None]:
    before = [kernel.fp32_precision for kernel in kernels]
    for kernel in kernels:
        kernel.fp32_precision = "ieee"
    try:
        yield
    finally:
        for kernel, precision in zip(kernels, before, strict=True):
            kernel.fp32_precision = precision
