"""What a search from the command line loads, and how far it is from there to its architecture step."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import yaml
from small_search import small_config

MOST_MODULES = 60
CODE = """
import json, pathlib, sys, traceback
import tfnas
from tfnas.cli import train_search
from tfnas.searching.differentiable import differentiable_search

package = pathlib.Path(tfnas.__file__).parent
calls, plain = [], differentiable_search.architecture_step

def seen(*given):
    frames = [(frame.name, frame.filename) for frame in traceback.extract_stack()]
    calls.append([frame for frame in frames if package in pathlib.Path(frame[1]).parents])
    return plain(*given)

differentiable_search.architecture_step = seen
for config in sys.argv[1:]:
    assert train_search.main(["--config", config]) == 0
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
print(json.dumps({"files": files, "calls": calls[0]}))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The files of all modules of a process that has searched twice, and the calls to its first architecture step."""
    folder = tmp_path_factory.mktemp("searches")
    short = {"epochs": 1, "warmup_epochs": 0, "batch_size": 360, "save_minutes": 60.0, "deterministic": True}
    files = [folder / "plain-search.yaml", folder / "low-memory-search.yaml"]
    for file in files:
        config = small_config(folder, file.stem, low_memory=file is files[1], **short)
        file.write_text(yaml.safe_dump(dataclasses.asdict(config)))
    command = [sys.executable, "-c", CODE, *map(str, files)]
    done = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_search_never_imports_the_compiler_nor_torchvision(ended):
    """PyTorch's optimizers, its checkpointing and its deterministic algorithms would, each at another time.

    Images in memory do not need torchvision, which would be waited for.
    """
    assert not {"torch._dynamo", "torch._inductor", "torchvision"} & set(ended["files"])


def test_a_search_loads_few_of_the_packages_modules(ended):
    loaded = [
        name for name, file in ended["files"].items() if name.startswith("tfnas.") and not file.endswith("__init__.py")
    ]
    assert 40 < len(loaded) <= MOST_MODULES, sorted(loaded)


def test_it_is_five_calls_through_three_files_to_the_architecture_step(ended):
    names, files = zip(*ended["calls"], strict=True)
    assert names == ("main", "search", "run_algorithm", "run", "step")
    assert len(set(files)) == 3
