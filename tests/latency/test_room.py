"""The room of tables and fitting is light: numpy and scipy compute in it, and nothing loads PyTorch."""

from __future__ import annotations

import subprocess
import sys

_HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "matplotlib", "jsonargparse", "tensorboard")
_PROGRAM = """
import importlib, pkgutil, sys
import tfnas.latency
names = [module.name for module in pkgutil.iter_modules(tfnas.latency.__path__)]
for name in names:
    importlib.import_module(f"tfnas.latency.{name}")
print(len(names), *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_no_module_of_the_room_loads_pytorch():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    count, *loaded = done.stdout.split()
    assert int(count) > 10 and "numpy" in loaded and "scipy" in loaded
    assert not set(_HEAVY) & set(loaded)
