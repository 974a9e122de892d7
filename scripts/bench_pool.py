"""What GlobalAveragePool saves in onnxruntime: networks exported with it and with PyTorch's own ReduceMean.

    python scripts/bench_pool.py [--space digits imagenet] [--batch 1 32] [--seconds 20] [--seed 0]

Each space gives one random network with squeeze-and-excite in every block and random weights, exported as
`tfnas export` does, in float32 and in int8 (calibrated on noise: only time is of interest). Both graphs run in turn on
one thread, in a new order each round. Printed per network, numbers and batch: the median of each in milliseconds of
that thread's processor time (other programs may run beside), median and quartiles of the ratio within a round, the
largest difference of logits, and how many nodes onnxruntime runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch

import tfnas
from tfnas.bench.benchmark_cases import random_architectures
from tfnas.data.image_sets import ArraySource, ImageSet
from tfnas.data.preprocessing import Preprocessing
from tfnas.export.export_images import SampledImages
from tfnas.export.exported_files import INPUT_NAME, onnx_bytes, quantized_bytes, trace
from tfnas.nn.network import Network
from tfnas.runs.model_file import TrainedModel
from tfnas.utils.devices import processor_name

CLASSES = 10
CALIBRATION_IMAGES = 16
LEAST_ROUNDS = 9


def main() -> None:
    """Export, run in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", nargs="+", default=["digits", "imagenet"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each pair runs, nine rounds at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{processor_name()}, onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, one thread")
    for name in arguments.space:
        graphs = exported_graphs(name, arguments.seed)
        for numbers, (reduce_mean, average_pool) in graphs.items():
            for batch in arguments.batch:
                compare(f"{name}, {numbers}, batch {batch}", reduce_mean, average_pool, batch, arguments.seconds)


def exported_graphs(space_name: str, seed: int) -> dict[str, tuple[bytes, bytes]]:
    """For float32 and int8: the graph with ReduceMean, and the one with GlobalAveragePool."""
    space = tfnas.space(space_name)
    space = dataclasses.replace(space, operations=tuple(operation for operation in space.operations if operation.se))
    (architecture,) = random_architectures(space, 1, CLASSES, seed)
    torch.manual_seed(seed)
    preprocessing = Preprocessing(space.image_size, space.image_size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    classes = tuple(str(number) for number in range(CLASSES))
    model = TrainedModel(architecture, Network(architecture).state_dict(), classes, preprocessing, "noise")
    noise = torch.randint(0, 256, (CALIBRATION_IMAGES, 3, space.image_size, space.image_size), dtype=torch.uint8)
    images = ImageSet((ArraySource(noise, [0] * CALIBRATION_IMAGES),), preprocessing.transform(), seed=0)
    calibration = SampledImages("noise", images, range(CALIBRATION_IMAGES), labelled=False)
    average_pool = onnx_bytes(trace(model, preprocessing, "float32", None), {})
    with mock.patch("tfnas.utils.onnx_export.use_global_average_pool"):
        reduce_mean = onnx_bytes(trace(model, preprocessing, "float32", None), {})
    assert operators(reduce_mean)["ReduceMean"] == operators(average_pool)["GlobalAveragePool"] > 0
    pair = (reduce_mean, average_pool)
    first, second = (quantized_bytes(graph, "int8", calibration, CALIBRATION_IMAGES, {}) for graph in pair)
    return {"float32": pair, "int8": (first, second)}


def compare(title: str, reduce_mean: bytes, average_pool: bytes, batch: int, seconds: float) -> None:
    """Run both on the same images in turn and print what they took."""
    sessions = [session(reduce_mean), session(average_pool)]
    size = sessions[0][0].get_inputs()[0].shape[-1]
    images = np.random.default_rng(0).random((batch, 3, size, size), dtype=np.float32)
    answers = [opened.run(None, {INPUT_NAME: images})[0] for opened, _ in sessions]
    calls = calls_of_fifty_milliseconds(sessions[0][0], images)
    milliseconds: list[list[float]] = [[], []]
    order, shuffler = [0, 1], random.Random(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(milliseconds[0]) < LEAST_ROUNDS:
        shuffler.shuffle(order)
        for index in order:
            start = time.thread_time()
            for _ in range(calls):
                sessions[index][0].run(None, {INPUT_NAME: images})
            milliseconds[index].append((time.thread_time() - start) * 1e3 / calls)
    ratios = [after / before for before, after in zip(*milliseconds, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    before, after = (statistics.median(row) for row in milliseconds)
    difference = float(np.abs(answers[0] - answers[1]).max()) / float(np.abs(answers[0]).max())
    nodes = " to ".join(str(count) for _, count in sessions)
    print(f"{title}: {before:.3f} to {after:.3f} ms, ratio {middle:.3f} ({low:.3f} to {high:.3f}) ", end="")
    print(f"in {len(ratios)} rounds, ", end="")
    print(f"largest difference {difference:.1e} of the largest logit, {nodes} nodes", flush=True)


def session(graph: bytes) -> tuple[onnxruntime.InferenceSession, int]:
    """A session on one thread, and the number of nodes that it runs once it has optimised the graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        opened = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(options.optimized_model_filepath)
    return opened, len(optimised.graph.node)


def calls_of_fifty_milliseconds(opened: onnxruntime.InferenceSession, images: np.ndarray) -> int:
    """How many calls take about 50 ms, one at least."""
    start = time.thread_time()
    opened.run(None, {INPUT_NAME: images})
    return max(1, round(0.05 / (time.thread_time() - start)))


def operators(graph: bytes) -> dict[str, int]:
    """How often each operator occurs."""
    names = [node.op_type for node in onnx.load_model_from_string(graph).graph.node]
    return {name: names.count(name) for name in {*names, "ReduceMean", "GlobalAveragePool"}}


if __name__ == "__main__":
    main()
