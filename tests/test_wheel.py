"""The wheel: everything it needs is inside, and it works where no source tree is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tfnas

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE", "tfnas", "latency_pkl")
COMMAND = [sys.executable, "-m", "tfnas"]


def run(command, folder, **environment):
    result = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def copied(room):
    """A copy of the sources, without what was compiled of them, whose compiler is quick: it does not optimize."""
    room.mkdir(exist_ok=True)
    for name in SOURCES:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, room / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(source, room / name)
    text = (room / "setup.py").read_text()
    assert text.count('"-O3"') == 1
    (room / "setup.py").write_text(text.replace('"-O3"', '"-O0"'))
    return room


def built(room, **environment):
    """A wheel of these sources, without the network."""
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    run([sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", "dist", "."], room, **environment)
    (wheel,) = (room / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built(copied(tmp_path_factory.mktemp("build")))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel)], folder
    )
    return folder


def test_it_holds_every_module_space_and_table(wheel):
    patterns = ("*.py", "*.yaml", "zoo.json")
    expected = {
        path.relative_to(PROJECT).as_posix() for pattern in patterns for path in (PROJECT / "tfnas").rglob(pattern)
    }
    expected |= {f"tfnas/latency_pkl/{path.name}" for path in (PROJECT / "latency_pkl").glob("*.json")}
    expected |= {"tfnas/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    missing = sorted(expected - names)
    assert not missing, f"not in the wheel (a new sub-package is listed in setup.cfg): {missing}"
    assert {name.split("/")[0] for name in names} == {"tfnas", f"tfnas-{tfnas.__version__}.dist-info"}


def test_it_holds_the_compiled_kernels(wheel, installed, tmp_path):
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler is here")
    assert "-cp310-abi3-" in wheel.name
    code = "from tfnas.supernet.cpu import _kernels; print(_kernels.__file__, len(_kernels.KERNELS))"
    file, number = run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(installed)).split()
    assert Path(file).is_relative_to(installed)
    assert int(number) > 0


def test_without_a_compiler_it_installs_all_the_same(tmp_path):
    room = copied(tmp_path / "room")
    wheel = built(room, CC="/bin/false", CXX="/bin/false")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(tmp_path / "site")
    code = "from tfnas.supernet.cpu import CpuKernels, row_ops; print(CpuKernels.compiled(), row_ops.level)"
    assert run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(tmp_path / "site")) == "False None\n"


def test_its_metadata_say_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"tfnas-{tfnas.__version__}.dist-info/METADATA").decode()
    lines = text.split("\n\n")[0].splitlines()
    assert "Requires-Python: >=3.10" in lines
    assert "Requires-Dist: torch>=2.11" in lines
    assert any(line in lines for line in ("License-Expression: MIT", "License: MIT"))
    assert f"Version: {tfnas.__version__}" in lines


def test_it_runs_in_an_empty_directory(installed, tmp_path):
    code = "import tfnas, tfnas.latency.default_table as l; print(tfnas.__file__, l.default_table_path('digits'))"
    module, table = run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(installed)).split()
    assert Path(module).is_relative_to(installed)
    assert Path(table).is_relative_to(installed)
    assert run([*COMMAND, "--version"], tmp_path, PYTHONPATH=str(installed)) == f"tfnas {tfnas.__version__}\n"
    script = run([str(installed / "bin" / "tfnas"), "--version"], tmp_path, PYTHONPATH=str(installed))
    assert script == f"tfnas {tfnas.__version__}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_search_works_in_an_empty_directory(installed, tmp_path):
    flags = ["search", "--target_lat", "15", "--epochs", "2", "--warmup_epochs", "1", "--run_dir", "found"]
    run([*COMMAND, *flags], tmp_path, PYTHONPATH=str(installed))
    summary = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert 0.995 * 15 <= summary["table_ms"] <= 15
    table = run([*COMMAND, "parse", "--model_path", "found"], tmp_path, PYTHONPATH=str(installed))
    assert "MACs" in table
