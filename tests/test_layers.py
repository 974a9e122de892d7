"""The package's rules of structure, read from its source: who imports whom, what is named how, how large things are.

Imports count wherever they stand: at the top of a module, inside functions, and for type checkers only.
"""

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "tfnas"

# From the lowest tier up: a room imports rooms of its own and of lower tiers. The face, `tfnas` itself, names all of
# them; nobody imports it.
TIERS = (
    {"core", "utils"},
    {"nn", "spaces"},
    {"supernet", "latency", "data"},
    {"runs", "proxies", "bench"},
    {"export", "evaluation", "training", "searching"},
    {"report"},
    {"cli"},
)
FACE = {"tfnas", "tfnas.__main__", "tfnas.zoo"}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imported(module: str) -> frozenset[str]:
    """The package's modules that a module imports."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else node.module for name in names}
    return frozenset(name for name in found if name == "tfnas" or name.startswith("tfnas."))


def folder(module: str) -> str:
    return module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]


def tier(module: str) -> int:
    room = module.split(".")[1]
    return next(number for number, rooms in enumerate(TIERS) if room in rooms)


def inner() -> list[str]:
    return [module for module in modules() if module not in FACE]


def acyclic(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle: {' -> '.join(error.args[1])}")


def test_the_root_has_the_public_face_only():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "zoo.py"}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set().union(*TIERS)


def test_nobody_imports_the_face():
    assert [module for module in inner() if imported(module) & FACE] == []


def test_imports_run_down():
    upward = [
        f"{module} -> {other}"
        for module in inner()
        for other in sorted(imported(module) - FACE)
        if tier(other) > tier(module)
    ]
    assert upward == []


def test_core_imports_nothing_else_of_the_package():
    assert {other.split(".")[1] for module in inner() if tier(module) == 0 for other in imported(module)} <= TIERS[0]
    assert {other for module in inner() if module.startswith("tfnas.core") for other in imported(module)} <= {
        module for module in inner() if module.startswith("tfnas.core")
    }


def test_no_cycle_between_folders():
    graph = defaultdict(set)
    for module in inner():
        graph[folder(module)] |= {folder(other) for other in imported(module) - FACE} - {folder(module)}
    acyclic(graph)


def test_no_cycle_between_modules():
    acyclic({module: set(imported(module)) - {module} for module in inner()})


def test_jsonargparse_is_imported_in_the_command_line_only():
    for module in inner():
        names = {
            name.partition(".")[0]
            for node in ast.walk(tree(module))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert "jsonargparse" not in names or module.startswith("tfnas.cli."), module


def test_latency_needs_no_torch():
    names = sorted(module for module in inner() if module.startswith(("tfnas.latency", "tfnas.core")))
    code = f"import sys, {', '.join(names)}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "onnx", "onnxruntime", "openvino", "matplotlib", "jsonargparse", "tensorboard"}
    assert len(names) > 10 and {"numpy", "scipy"} <= set(done.stdout.split()) and not heavy & set(done.stdout.split())


def test_a_class_name_stands_once():
    counted = Counter(
        node.name for module in modules() for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef)
    )
    assert {name for name, times in counted.items() if times > 1} == set()


def test_a_file_name_stands_once():
    """It says what is inside without its folder; a command's file is called as the command."""
    counted = Counter(
        path.name for path in modules().values() if path.name != "__init__.py" and path.parent.name != "cli"
    )
    assert {name for name, times in counted.items() if times > 1} == set()


def test_sizes():
    files = [path for path in modules().values() if path.name != "__init__.py"]
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in files]
    assert sum(lines) / len(files) >= 170  # what is always read together is one file, however much is added
    assert {path: count for path, count in zip(files, lines, strict=True) if count > 400} == {}
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 80, (module, node.name)
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                assert len([name for name in names if name not in ("self", "cls")]) <= 7, (module, node.name)
