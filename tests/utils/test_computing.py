"""What holds while a run computes, and that it is afterwards as before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tfnas.utils.devices import _trim, give_back_freed_memory, runtime_settings


def settings():
    products = torch.backends.cuda.matmul.allow_tf32
    return torch.backends.cudnn.allow_tf32, products, torch.get_float32_matmul_precision()


@pytest.fixture(autouse=True)
def as_before():
    kernels = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    before, precisions = settings(), [kernel.fp32_precision for kernel in kernels]
    yield
    for kernel, precision in zip(kernels, precisions, strict=True):
        kernel.fp32_precision = precision
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[2])
    assert settings() == before


@pytest.mark.parametrize("before", [(True, True, "high"), (True, False, "highest"), (False, True, "medium")])
def test_float32_is_not_rounded_to_tf32(before):
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[2])
    assert settings() == before
    with runtime_settings(1, deterministic=False):
        assert settings() == before
    with pytest.raises(RuntimeError, match="stop"), runtime_settings(1, deterministic=False, float32=True):
        assert settings() == (False, False, "highest")
        raise RuntimeError("stop")
    assert settings() == before


@pytest.mark.parametrize("before", [["tf32", "ieee", "ieee"], ["tf32", "tf32", "tf32"]])
def test_precisions_that_a_program_has_set_one_by_one(before):
    kernels = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    for kernel, precision in zip(kernels, before, strict=True):
        kernel.fp32_precision = precision
    with runtime_settings(1, deterministic=False, float32=True):
        assert [kernel.fp32_precision for kernel in kernels] == ["ieee"] * 3
    assert [kernel.fp32_precision for kernel in kernels] == before


@pytest.mark.parametrize("before", [0, 1, 2])
def test_only_deterministic_algorithms_where_asked_for(before):
    torch.set_deterministic_debug_mode(before)
    try:
        for asked, inside in ((False, before), (True, 2)):
            with runtime_settings(1, deterministic=asked):
                assert torch.get_deterministic_debug_mode() == inside
            assert torch.get_deterministic_debug_mode() == before
    finally:
        torch.set_deterministic_debug_mode(0)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def check_freed_memory():
    with runtime_settings(1, deterministic=False):  # large pieces come from the heap, too
        size = 2**20
        pieces = [torch.ones(size // 4) for _ in range(200)]
        full = resident_bytes()
        del pieces[:-1]  # the last one stays, above all the others
        assert resident_bytes() > full - 50 * size
        give_back_freed_memory()
        assert resident_bytes() < full - 150 * size
        assert pieces[0].sum() == size // 4


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_freed_memory_is_given_back():
    """In a process of its own: a heap with holes of other tests' memory is filled anywhere."""
    if _trim() is None:
        pytest.skip("this C library has no malloc_trim")
    program = "from tests.utils.test_computing import check_freed_memory as check; check()"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
