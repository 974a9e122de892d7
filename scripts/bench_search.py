"""Time and memory of the search's steps, against a textbook implementation in the same run.

    python scripts/bench_search.py [--space imagenet] [--batch 8] [--image_size 224] [--steps 5] [--json FILE]

Every variant is a fresh process of its own; all of them do the same weight steps and architecture steps in turn, one
process at a time. A cycle is two weight steps (of two sampled paths each) and one architecture step. Beforehand all
variants are shown to compute the same losses and gradients, in float64 on small images.

From the seconds of its steps follows how long the project's search of ImageNet-100 takes (all epochs of the space's
schedule, warm-up steps taken for weight steps, without what comes between epochs), and how many images a second it
asks for; the loader's rate is measured on JPEG files of ImageNet's size that are written for it.

`textbook` is `textbook_search.py`: contiguous tensors, x * sigmoid(x), every path through the stem, all activations
kept. On a GPU (`--device cuda`) it also runs under autocast, and the project's search with `--amp`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path as FilePath
from typing import Any

import torch
from textbook_search import NUM_CLASSES, TEMPERATURE, Textbook, middle_target
from torch import Tensor

import tfnas
from tfnas.core.space import SearchSpace
from tfnas.latency.counted_table import counted_table
from tfnas.searching.differentiable.architecture_parameters import (
    ArchitectureParameters,
    sample_other_path,
    sample_path,
)
from tfnas.searching.differentiable.differentiable_search import architecture_step, weight_step
from tfnas.searching.differentiable.search_config import space_schedule
from tfnas.searching.differentiable.search_text import Forecast
from tfnas.searching.differentiable.supernet_learner import (
    SupernetLearner,
    architecture_loss,
    look_up,
    make_learner,
    weight_loss,
)
from tfnas.supernet.supernet import Path, Supernet
from tfnas.utils.devices import processor_name, runtime_settings, usable_cores

SEED = 1
IMAGENET100_IMAGES = 102_170  # of the part that weights learn from; architecture parameters learn from 25,550 others
VARIANTS = ("textbook", "project", "low_memory")
GPU_VARIANTS = ("textbook_autocast", "project_amp", "low_memory_amp")


# ---- the variants, each in a process ----------------------------------------------------------------------------


def make_project(space: SearchSpace, device: torch.device, dtype: torch.dtype, low_memory: bool) -> SupernetLearner:
    """The project's search at its beginning, as a search of this space and seed begins."""
    torch.manual_seed(SEED)
    supernet = Supernet(space, NUM_CLASSES, low_memory).to(device, dtype, memory_format=torch.channels_last)
    parameters = ArchitectureParameters(space).to(device, dtype)
    table = counted_table(space, "macs")
    learner = make_learner(supernet, parameters, space_schedule(space), table, middle_target(space))
    look_up(learner, table)
    return learner


@dataclasses.dataclass
class Steps:
    """What a variant does when it is asked for a step; the draws are those of all variants."""

    space: SearchSpace
    images: Tensor
    labels: Tensor
    noise: torch.Generator
    weight: Callable[[list[Path]], Any]
    architecture: Callable[[], Any]
    clock: Callable[[], float] = time.perf_counter

    def take(self, what: str) -> float:
        """Seconds of one step, to the end of what it has started on the device."""
        paths = draw_paths(self.space, self.noise)
        synchronize(self.images.device)
        start = self.clock()
        if what == "weight":
            self.weight(paths)
        else:
            self.architecture()
        synchronize(self.images.device)
        return self.clock() - start


def make_steps(variant: str, arguments: argparse.Namespace) -> Steps:
    """A variant, ready to take steps."""
    device, space = torch.device(arguments.device), space_at(arguments.space, arguments.image_size)
    generator = torch.Generator().manual_seed(SEED)
    size = arguments.image_size
    images = torch.randn(arguments.batch, 3, size, size, generator=generator).to(device)
    labels = torch.randint(NUM_CLASSES, (arguments.batch,), generator=generator).to(device)
    reduced = variant.endswith(("_autocast", "_amp"))
    project = make_project(space, device, torch.float32, variant.startswith("low_memory"))
    if variant.startswith("textbook"):
        plain = Textbook(space, dict(project.supernet.named_parameters()), project.parameters)
        return Steps(
            space,
            images,
            labels,
            generator,
            lambda paths: plain.weight_step(images, labels, paths, reduced),
            lambda: plain.architecture_step(images, labels, generator, reduced),
        )
    project.amp = reduced
    if device.type != "cpu":  # where an operation's first step makes what later ones use until widths change
        for index in range(len(space.operations)):
            weight_step(project, images, labels, [Path((index,) * len(space.blocks))])

    def placed() -> Tensor:
        return images.contiguous(memory_format=torch.channels_last)

    return Steps(
        space,
        images,
        labels,
        generator,
        lambda paths: weight_step(project, placed(), labels, paths),
        lambda: architecture_step(project, placed(), labels, TEMPERATURE, generator),
    )


def work(variant: str, arguments: argparse.Namespace, requests: Connection) -> None:
    """A process's life: build the variant, then take the steps asked for and tell their seconds."""
    with runtime_settings(arguments.threads or usable_cores(), deterministic=False):
        answer(make_steps(variant, arguments), requests)


def answer(steps: Steps, requests: Connection) -> None:
    """Take the steps that are asked for, until the end."""
    requests.send("ready")
    while (what := requests.recv()) != "end":
        requests.send(peak_bytes(steps.images.device) if what == "memory" else steps.take(what))


def peak_bytes(device: torch.device) -> int:
    """The most memory this process has held: on a GPU its tensors, else the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = FilePath("/proc/self/status")
    if status.exists():  # ru_maxrss of a new program may begin with that of the process that started it
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def space_at(name: str, image_size: int) -> SearchSpace:
    """The space at an image size."""
    return tfnas.space(name).at(image_size)


def draw_paths(space: SearchSpace, noise: torch.Generator) -> list[Path]:
    """Two paths for a weight step: uniform probabilities, as a search begins with."""
    first = sample_path(torch.zeros(len(space.blocks), len(space.operations)), noise)
    return [first, sample_other_path(first, len(space.operations), noise)]


# ---- showing that all compute the same ---------------------------------------------------------------------------


def check_equal(arguments: argparse.Namespace) -> None:
    """Assert equal losses and gradients of all variants, in float64 on small images."""
    size, device = 32, torch.device(arguments.device)
    space = shrunken(space_at(arguments.space, size))
    torch.manual_seed(SEED)
    images = torch.randn(4, 3, size, size, dtype=torch.float64, device=device)
    labels = torch.arange(4, device=device)
    for low_memory in (False, True):
        project = make_project(space, device, torch.float64, low_memory)
        supernet, parameters = project.supernet, project.parameters
        plain = Textbook(space, dict(supernet.named_parameters()), parameters)
        paths = draw_paths(space, torch.Generator().manual_seed(SEED))
        names = [name for name, _ in supernet.named_parameters()]
        compare(
            weight_loss(project, images, labels, paths)[0], list(supernet.parameters()),
            plain.weight_loss(images, labels, paths), [plain.weights[name] for name in names],
        )  # fmt: skip
        draws = [torch.Generator().manual_seed(SEED) for _ in range(2)]
        compare(
            architecture_loss(project, images, labels, TEMPERATURE, draws[0])[0], list(parameters.parameters()),
            plain.architecture_loss(images, labels, draws[1]), [plain.log_alphas, *plain.betas],
        )  # fmt: skip


def shrunken(space: SearchSpace) -> SearchSpace:
    """The space with a few channels: double precision is slow where convolutions are grouped."""
    stages = tuple(
        dataclasses.replace(stage, channels=4 + 2 * number + (stage.channels % 3))
        for number, stage in enumerate(space.stages)
    )
    return dataclasses.replace(
        space,
        stem_channels=6,
        second_stem_channels=4,
        second_stem_se_channels=2,
        stages=stages,
        feature_mix_channels=24,
    )


def compare(loss: Tensor, parameters: Sequence[Tensor], plain_loss: Tensor, plain_parameters: Sequence[Tensor]) -> None:
    """Assert equal losses and gradients, to 1e-9 of the largest entry."""
    assert torch.allclose(loss, plain_loss, rtol=1e-9, atol=0), f"losses differ: {loss} and {plain_loss}"
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    plain_gradients = torch.autograd.grad(plain_loss, plain_parameters, allow_unused=True)
    for number, (one, other) in enumerate(zip(gradients, plain_gradients, strict=True)):
        assert (one is None) == (other is None), f"only one has a gradient of parameter {number}"
        if one is not None and other is not None:
            difference = (one - other).abs().max() / other.abs().max().clamp_min(1e-6)
            assert difference < 1e-9, f"gradients of parameter {number} differ by {difference:.1e}"


# ---- the whole ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Check, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="imagenet")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=5, help="cycles that are timed, after one that is not")
    parser.add_argument("--threads", type=int, default=0, help="processor threads, 0 for all cores")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="file for ratios and raw times")
    arguments = parser.parse_args()
    check_equal(arguments)
    print("textbook, project and low_memory compute the same losses and gradients (float64, to 1e-9)", flush=True)
    variants = VARIANTS + (GPU_VARIANTS if arguments.device.startswith("cuda") else ())
    seconds, memory = measure(variants, arguments)
    report = summarize(seconds, memory)
    report["imagenet100"] = {
        variant: projected(steps, arguments) for variant, steps in seconds.items() if not variant.startswith("textbook")
    }
    report["conditions"] = {
        **vars(arguments),
        "processor": processor_name(),
        "gpu": torch.cuda.get_device_name(arguments.device) if arguments.device.startswith("cuda") else None,
        "torch": torch.__version__,
    }
    show(report)
    write(report, arguments.json)
    report["loader_images_per_second"] = loader_rate(arguments)
    print(f"the loader gives {report['loader_images_per_second']:.0f} images/s from JPEG files")
    write(report, arguments.json)


def write(report: Mapping[str, Any], file: str | None) -> None:
    """What is known so far."""
    if file:
        FilePath(file).write_text(json.dumps(report, indent=1))


def measure(
    variants: Sequence[str],
    arguments: argparse.Namespace,
    work: Callable[[str, argparse.Namespace, Connection], None] = work,
) -> tuple[dict[str, dict[str, list[float]]], dict[str, int]]:
    """Seconds of every step of every variant, and its peak memory in bytes; `work` is the life of its process."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for variant in variants:
        pipes[variant], far_end = context.Pipe()
        processes.append(context.Process(target=work, args=(variant, arguments, far_end), daemon=True))
        processes[-1].start()
        far_end.close()
        pipes[variant].recv()
    seconds: dict[str, dict[str, list[float]]] = {name: {"weight": [], "architecture": []} for name in variants}
    for cycle in range(arguments.steps + 1):
        for what in ("weight", "architecture", "weight"):
            for variant in variants if cycle % 2 else reversed(variants):
                pipes[variant].send(what)
                taken = pipes[variant].recv()
                if cycle:
                    seconds[variant][what].append(taken)
        print(f"cycle {cycle}/{arguments.steps}", flush=True)
    memory = {}
    for variant, process in zip(variants, processes, strict=True):
        pipes[variant].send("memory")
        memory[variant] = pipes[variant].recv()
        pipes[variant].send("end")
        process.join()
    return seconds, memory


def projected(seconds: Mapping[str, list[float]], arguments: argparse.Namespace) -> dict[str, float]:
    """Of a search of ImageNet-100 in steps of these seconds: hours, and the images a second that it asks for."""
    weight, architecture = (statistics.median(seconds[what]) for what in ("weight", "architecture"))
    schedule = space_schedule(space_at(arguments.space, arguments.image_size))
    forecast = Forecast(schedule, -(-IMAGENET100_IMAGES // arguments.batch), weight, weight, architecture)
    asked_for = 3 * arguments.batch / (2 * weight + architecture)  # a cycle's
    return {"hours": forecast.total / 3600, "images_per_second": asked_for}


def loader_rate(arguments: argparse.Namespace) -> float:
    """Images a second from JPEG files to the device: the median of three epochs after one."""
    from bench_loader import timed, write_files  # here: a variant's memory must not be that of libraries for images

    workers = usable_cores()
    images = max(256, 4 * arguments.batch * workers)
    settings = argparse.Namespace(images=images, width=500, height=375, quality=96, batch=arguments.batch, rounds=3)
    settings.workers, settings.image_size, settings.device = [workers], arguments.image_size, arguments.device
    with tempfile.TemporaryDirectory() as folder, runtime_settings(1, deterministic=False):
        rates = timed(write_files(FilePath(folder), settings), settings, ("tfnas",))
    return statistics.median(rates["tfnas"][workers])


def summarize(seconds: Mapping[str, Mapping[str, list[float]]], memory: Mapping[str, int]) -> dict[str, Any]:
    """Cycles, and how often each variant goes into the textbook's time and memory."""
    cycles = {
        variant: [first + second + last for first, second, last in zip(
            steps["weight"][::2], steps["weight"][1::2], steps["architecture"], strict=True
        )]
        for variant, steps in seconds.items()
    }  # fmt: skip
    ratios = {}
    for variant in cycles:
        for base in (name for name in cycles if name.startswith("textbook") and name != variant):
            if not variant.startswith("textbook"):
                ratios[f"{variant} / {base}"] = {
                    "cycle_ratios": [b / v for b, v in zip(cycles[base], cycles[variant], strict=True)],
                    "memory_ratio": memory[variant] / memory[base],
                }
    best = ratios["project / textbook"]
    return {
        "cycle_ratio": statistics.median(best["cycle_ratios"]),
        "memory_ratio": best["memory_ratio"],
        "ratios": ratios,
        "cycle_seconds": cycles,
        "step_seconds": seconds,
        "peak_bytes": memory,
    }


def show(report: Mapping[str, Any]) -> None:
    """Print what was measured."""
    print(f"{'variant':20s}{'weight step':>14s}{'arch. step':>14s}{'cycle':>12s}{'peak memory':>14s}")
    for variant, steps in report["step_seconds"].items():
        weight, architecture = (statistics.median(steps[what]) for what in ("weight", "architecture"))
        cycle = statistics.median(report["cycle_seconds"][variant])
        peak = report["peak_bytes"][variant] / 1e9
        print(f"{variant:20s}{weight:12.3f} s{architecture:12.3f} s{cycle:10.3f} s{peak:11.2f} GB")
    for name, ratio in report["ratios"].items():
        cycles = ratio["cycle_ratios"]
        spread = f"{statistics.median(cycles):.2f} times faster ({min(cycles):.2f} to {max(cycles):.2f})"
        print(f"{name}: cycle {spread}, {ratio['memory_ratio']:.3f} of its peak memory")
    for variant, search in report["imagenet100"].items():
        print(f"{variant}: all epochs on ImageNet-100 would take {search['hours']:.1f} h", end=" ")
        print(f"and {search['images_per_second']:.0f} images/s")


if __name__ == "__main__":
    main()
