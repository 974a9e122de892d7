"""8-bit files on a processor: answers and time of float32, int8 and int8_vnni, on this machine or on another.

    python scripts/bench_int8.py make --model_path RUN FOLDER     export all three, with the test images of the run
    python scripts/bench_int8.py run FOLDER [--json FILE]         what they answer here, and how fast

`run` needs Python >= 3.8, numpy and onnxruntime only, so that FOLDER and this file can be taken to a board, or run in
an emulator of another processor (`qemu-x86_64 -cpu Haswell python ...`, where times mean nothing). Printed per file:
top-1, the share of images with PyTorch's float32 class, the same without 8-bit arithmetic, and for batches of 1 and 32
on one thread the median of calls in turn, with the median and quartiles of its ratio to float32 within a round.
"""

import argparse
import json
import platform
import random
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime

KINDS = ("float32", "int8", "int8_vnni")
IMAGES = "images.npz"
BATCHES = (1, 32)


def main() -> None:
    """Make the files, or run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("--model_path", required=True)
    run = commands.add_parser("run")
    run.add_argument("--seconds", type=float, default=20.0, help="how long each batch size is timed; 0 for not at all")
    run.add_argument("--images", type=int, default=10**9, help="test images to run, fewer in a slow emulator")
    run.add_argument("--no_reference", action="store_true", help="leave out the slow run without 8-bit arithmetic")
    run.add_argument("--json", type=Path)
    for command in (make, run):
        command.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "make":
        make_files(arguments.model_path, arguments.folder)
        return
    result = run_files(arguments.folder, arguments.images, arguments.seconds, not arguments.no_reference)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def make_files(model_path: str, folder: Path) -> None:
    """The three files, the images as the network gets them, their labels, and PyTorch's logits."""
    import torch

    from tfnas.evaluation.evaluation_config import EvaluationConfig
    from tfnas.evaluation.tested_model import open_evaluated_model, open_test_set
    from tfnas.export.export_config import ExportConfig
    from tfnas.export.exporting import export_model

    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        quantize = None if kind == "float32" else kind
        export_model(ExportConfig(model_path=model_path, quantize=quantize, out=str(folder / f"{kind}.onnx")))
    subject = open_evaluated_model(EvaluationConfig(model_path=model_path, device="cpu"))
    (source,) = open_test_set(EvaluationConfig(model_path=model_path, device="cpu"), subject).images.sources
    pixels = torch.stack([source.read(index) for index in range(len(source.labels))])
    with torch.inference_mode():
        logits = subject.network(subject.preprocessing.normalise(pixels))
    np.savez(folder / IMAGES, images=(pixels.float() / 255).numpy(), labels=source.labels, logits=logits.numpy())


def run_files(folder: Path, most_images: int, seconds: float, with_reference: bool) -> dict:
    """Answers and times, printed and as JSON."""
    data = np.load(folder / IMAGES)
    images, labels, logits = (data[name][:most_images] for name in ("images", "labels", "logits"))
    result = {"processor": processor(), "onnxruntime": onnxruntime.__version__, "images": len(images), "files": {}}
    print(f"{result['processor']}, onnxruntime {onnxruntime.__version__}, one thread, {len(images)} images")
    for kind in KINDS:
        path = folder / f"{kind}.onnx"
        found = answers(session(path), images)
        figures = {
            "bytes": path.stat().st_size,
            "top1": 100 * float((found.argmax(1) == labels).mean()),
            "same_top1": 100 * float((found.argmax(1) == logits.argmax(1)).mean()),
            "largest_difference": float(np.abs(found - logits).max()),
        }
        if with_reference:
            meant = answers(session(path, optimized=False), images)
            figures["reference_same_top1"] = 100 * float((meant.argmax(1) == logits.argmax(1)).mean())
        result["files"][kind] = figures
        print(kind, ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
    for batch in BATCHES if seconds > 0 else ():
        for kind, figures in times({kind: session(folder / f"{kind}.onnx") for kind in KINDS}, images[:batch], seconds):
            result["files"][kind][f"batch_{batch}"] = figures
            print(kind, f"batch {batch}", ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    return result


def times(sessions: dict, images: np.ndarray, seconds: float) -> list:
    """For each kind the median in milliseconds, and its ratio to float32 within a round, with quartiles."""
    rounds, order, shuffler = [], list(sessions), random.Random(0)
    for kind in order:
        answers(sessions[kind], images)
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(rounds) < 9:
        shuffler.shuffle(order)
        row = {}
        for kind in order:
            start = time.perf_counter()
            answers(sessions[kind], images)
            row[kind] = 1000 * (time.perf_counter() - start)
        rounds.append(row)
    found = []
    for kind in sessions:
        low, middle, high = statistics.quantiles([row[kind] / row["float32"] for row in rounds], n=4)
        median_ms = statistics.median(row[kind] for row in rounds)
        found.append((kind, {"ms": median_ms, "ratio": middle, "ratio_q1": low, "ratio_q3": high}))
    return found


def session(path: Path, optimized: bool = True) -> onnxruntime.InferenceSession:
    """A file on one thread; not `optimized`, without 8-bit arithmetic."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def answers(opened: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    """Logits, in batches of 32 at most."""
    parts = [images[start : start + 32] for start in range(0, len(images), 32)]
    return np.concatenate([opened.run(None, {"images": part})[0] for part in parts])


def processor() -> str:
    """Its name and, of the instructions that matter here, those that it has."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    wanted = ("avx2", "avx512bw", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
    return " ".join([fields.get("model name", platform.machine()), *(name for name in wanted if name in flags)])


if __name__ == "__main__":
    main()
