"""What Linux says of processors, in made-up descriptions with the flags of real ones."""

from __future__ import annotations

import pytest

from tfnas.utils import devices as processor

EPYC = "sse4_1 avx f16c fma avx2 bmi2"
SKYLAKE = f"{EPYC} avx512f avx512bw avx512vl"
SAPPHIRE_RAPIDS = f"{SKYLAKE} avx_vnni avx512_vnni avx512_bf16 amx_int8 amx_bf16"


@pytest.fixture
def described_as(tmp_path, monkeypatch):
    """Makes this machine one whose cpuinfo has these lines."""

    def described(machine, *lines):
        (tmp_path / "cpuinfo").write_text("processor\t: 0\n" + "".join(f"{line}\n" for line in lines) + "\n")
        monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(processor.platform, "machine", lambda: machine)

    return described


@pytest.mark.parametrize(
    ("machine", "line", "exact", "for_bytes"),
    [
        ("x86_64", f"flags\t\t: fpu {EPYC}", False, "avx2"),
        ("x86_64", f"flags\t\t: fpu {SKYLAKE}", False, "avx512bw"),
        ("x86_64", f"flags\t\t: fpu {EPYC} avx_vnni", True, "avx_vnni"),
        ("x86_64", f"flags\t\t: fpu {SAPPHIRE_RAPIDS}", True, "amx_int8"),
        ("aarch64", "Features\t: fp asimd evtstrm crc32", True, "asimd"),
        ("aarch64", "Features\t: fp asimd asimdhp asimddp", True, "asimddp"),
        ("x86_64", "", False, "x86_64"),  # nothing is known: better a warning too many
    ],
)
def test_products_of_bytes(described_as, machine, line, exact, for_bytes):
    described_as(machine, "model name\t: Made-up Processor 1", line, "model name\t: the second core")
    assert processor.processor_name() == "Made-up Processor 1"
    assert processor.has_exact_byte_products() is exact
    assert processor.byte_instructions() == for_bytes
    assert set(processor.instruction_sets()) <= set(line.split())


def test_only_sets_for_arithmetic_are_listed(described_as):
    described_as("x86_64", f"flags\t\t: fpu vme {EPYC} hypervisor")
    assert processor.instruction_sets() == ("sse4_1", "avx", "f16c", "fma", "avx2")
    described_as("aarch64", "Features\t: fp asimd sve i8mm bf16")
    assert processor.instruction_sets() == ("asimd", "i8mm", "bf16", "sve")
