"""How many operators the search's steps start on a GPU, beside those of a textbook implementation.

    python scripts/count_operators.py [--space imagenet] [--json FILE]

A GPU that is faster than the program that asks it for one operator after the other waits for the program: then a step
takes as long as its operators are many. They are counted here without a GPU, the same on every machine: tensors have
shapes but no numbers (device `meta`), so nothing is computed. Views, which start nothing, are not counted. Counted are
a weight step whose paths have been taken before and an architecture step, each after others: what is made once, while
widths stay, is made. `waits` is how often a step asks the device for numbers, or hands it some, for which it must have
computed all that it was asked before.

The textbook is that of `bench_search.py`. Without tensor cores or fast memory in sight, this is no measurement of time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench_search import Steps, draw_paths, make_steps
from torch import Tensor
from torch.optim import optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode

VARIANTS = ("textbook", "project", "low_memory")
NOT_STARTED = {"empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "detach", "_unsafe_view"}


class Counted(TorchDispatchMode):
    """Counts operators by name while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: Counter[str] = Counter()
        self.handed_over = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        made = func(*args, **(kwargs or {}))
        if not func.is_view and name not in NOT_STARTED and func.namespace == "aten":
            self.numbers[name] += 1
            if name in ("_to_copy", "copy_") and args[1 if name == "copy_" else 0].is_cpu and made.is_meta:
                self.handed_over += 1
        return made


@contextlib.contextmanager
def on_meta() -> Iterator[list[str]]:
    """Lets steps run on tensors without numbers, as on a GPU; yields a list of what they are asked for."""
    asked: list[str] = []

    def answer(name: str, value: Any) -> Any:
        real = getattr(Tensor, name)

        def of(tensor: Tensor, *arguments: Any) -> Any:
            if not tensor.is_meta:
                return real(tensor, *arguments)
            asked.append(name)
            return [float(value)] * tensor.numel() if name == "tolist" else value

        return patch.object(Tensor, name, of)

    with contextlib.ExitStack() as stack:
        for name, value in (("tolist", 1), ("item", 1.0), ("__float__", 1.0), ("__int__", 1), ("__bool__", True)):
            stack.enter_context(answer(name, value))
        real = Tensor.new_tensor

        def new_tensor(tensor: Tensor, *arguments: Any, **settings: Any) -> Tensor:
            if tensor.is_meta:
                asked.append("new_tensor")
            return real(tensor, *arguments, **settings)

        stack.enter_context(patch.object(Tensor, "new_tensor", new_tensor))
        for name in ("tensor", "as_tensor"):
            stack.enter_context(patch.object(torch, name, made_there(getattr(torch, name), asked)))
        # There is no autocast for meta; and operators for many tensors are for some devices
        stack.enter_context(patch.object(torch, "autocast", lambda *_, **__: contextlib.nullcontext()))
        stack.enter_context(patch.object(torch, "is_autocast_enabled", lambda *_: False))
        for module in (_foreach_utils, optimizer):
            stack.enter_context(patch.object(module, "_get_foreach_kernels_supported_devices", lambda: ["meta"]))
        yield asked


def made_there(real: Callable[..., Tensor], asked: list[str]) -> Callable[..., Tensor]:
    """A function that makes tensors of numbers, and tells when they are for the device."""

    def make(*arguments: Any, **settings: Any) -> Tensor:
        made = real(*arguments, **settings)
        if made.is_meta and not (arguments and isinstance(arguments[0], Tensor) and arguments[0].is_meta):
            asked.append(real.__name__)
        return made

    return make


def count(variant: str, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By step: how many operators it starts, how often it waits, and operators by name."""
    with on_meta() as asked:
        steps = make_steps(variant, arguments)
        found = {}
        for what, again in again_and_again(steps):
            again()  # makes what is made once
            asked.clear()
            with Counted() as counted:
                again()
            found[what] = {
                "operators": counted.numbers.total(),
                "waits": len(asked) + counted.handed_over,
                "by_name": dict(counted.numbers.most_common()),
            }
    return found


def again_and_again(steps: Steps) -> Iterator[tuple[str, Any]]:
    """Both steps, as functions that do the same each time."""
    paths = draw_paths(steps.space, steps.noise)
    yield "weight", lambda: steps.weight(paths)
    yield "architecture", steps.architecture


def main() -> None:
    """Count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="imagenet")
    parser.add_argument("--json", help="also write the numbers, with those of every operator, to this file")
    arguments = parser.parse_args()
    arguments.image_size, arguments.batch, arguments.device = 64, 2, "meta"  # which change no number
    found = {variant: count(variant, arguments) for variant in VARIANTS}
    print(f"{'variant':12s}{'weight step':>14s}{'arch. step':>14s}{'cycle':>10s}{'of textbook':>14s}{'waits':>8s}")
    totals = {}
    for variant, steps in found.items():
        weight, architecture = (steps[what]["operators"] for what in ("weight", "architecture"))
        totals[variant] = 2 * weight + architecture
        share = totals[variant] / totals["textbook"]
        waits = 2 * steps["weight"]["waits"] + steps["architecture"]["waits"]
        print(f"{variant:12s}{weight:14d}{architecture:14d}{totals[variant]:10d}{share:14.2f}{waits:8d}")
    if arguments.json:
        report = {"space": arguments.space, "torch": torch.__version__, **found}
        Path(arguments.json).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
