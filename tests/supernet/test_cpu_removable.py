"""The fast path of CPUs is behind one function, and can be taken away."""

from __future__ import annotations

import ast
import os
import pathlib
import shutil
import subprocess
import sys

import torch
from made_learners import random_batch, random_learner

import tfnas
from tfnas.searching.differentiable.differentiable_search import architecture_step, weight_step
from tfnas.supernet.elastic import cpu_kernels
from tfnas.supernet.supernet import Path

PACKAGE = pathlib.Path(tfnas.__file__).parent
FOLDER = PACKAGE / "supernet" / "cpu"
STRUCTURE = "SuperConvK3BNRELU(3,8,1,1)SuperResIDWE6K3(8,16,2,8,1)SuperConvK1BNRELU(16,32,1,1)"


def imported(file):
    """Names of the modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_one_module_outside_imports_it_and_it_imports_nothing_of_the_supernet():
    inside, outside = set(), set()
    for file in PACKAGE.rglob("*.py"):
        for name in imported(file):
            if FOLDER in file.parents:
                inside.add(name)
            elif name.startswith("tfnas.supernet.cpu"):
                outside.add(file.relative_to(PACKAGE).as_posix())
    assert outside == {"supernet/elastic.py"}
    of_package = {name for name in inside if name.startswith("tfnas.") and not name.startswith("tfnas.supernet.cpu")}
    assert not {name for name in of_package if name.startswith(("tfnas.supernet", "tfnas.searching"))}


def test_it_is_for_cpus_in_full_precision():
    assert cpu_kernels(torch.device("cpu")) is not None
    assert cpu_kernels(torch.device("cuda")) is None
    assert cpu_kernels(torch.device("meta")) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert cpu_kernels(torch.device("cpu")) is None


def after_steps():
    """The parameters of a search after a weight step along two paths and an architecture step, and a score."""
    learner, (images, labels) = random_learner(w_lr=0.1), random_batch()
    for module in (learner.supernet, learner.parameters):
        module.double()
    learner.table_ms, images = learner.table_ms.double(), images.double()
    count, blocks = len(learner.supernet.space.operations), len(learner.supernet.space.blocks)
    paths = [Path(tuple((start + block) % count for block in range(blocks))) for start in (0, 1)]
    weight_step(learner, images, labels, paths)
    architecture_step(learner, images, labels, 3.0, torch.Generator().manual_seed(4))
    named = [*learner.supernet.named_parameters(), *learner.parameters.named_parameters()]
    zen = torch.tensor(tfnas.score("zen", STRUCTURE, image_size=16, num_classes=10, dtype="float64", batch_size=4))
    return {"zen": zen, **{name: parameter.detach() for name, parameter in named}}


def test_without_its_folder_and_that_call_a_search_takes_the_same_steps_and_scores_are_the_same(tmp_path):
    """A copy of the package that has neither, in a process of its own, against this one."""
    shutil.copytree(PACKAGE, tmp_path / "tfnas", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.rmtree(tmp_path / "tfnas" / "supernet" / "cpu")
    elastic = tmp_path / "tfnas" / "supernet" / "elastic.py"
    text = elastic.read_text()
    for call in ("from tfnas.supernet.cpu import CpuKernels\n", "CpuKernels if use_cpu_kernels(device) else "):
        assert text.count(call) == 1
        text = text.replace(call, "")
    elastic.write_text(text)
    tests = pathlib.Path(__file__).parents[1]
    (tmp_path / "test_cpu_removable.py").write_text(pathlib.Path(__file__).read_text())
    code = "import tfnas, torch, test_cpu_removable as t; print(tfnas.__file__); torch.save(t.after_steps(), 'found')"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(tests)])},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.startswith(str(tmp_path))
    found, expected = torch.load(tmp_path / "found", weights_only=True), after_steps()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-8, atol=1e-10)
