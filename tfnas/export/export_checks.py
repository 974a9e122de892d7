"""Whether an exported graph gives what the network gives.

Whether an 8-bit file is fit to ship: what it loses, here and on every other processor, and what it gains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tfnas.core.errors import RunFailed
from tfnas.data.preprocessing import Preprocessing
from tfnas.export.export_images import Pictures
from tfnas.export.export_report import Accuracy, Check, Latency

CHECK_BATCH = 32
RELATIVE_TOLERANCE = 1e-4
"""Of the largest logit, or of 1 where that is smaller: ten times what rounding does to these networks in float32."""

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Answers:
    """Logits of the network in PyTorch and of graphs, N x classes each, and the batch sizes that were called."""

    network: Tensor
    graphs: dict[str, Tensor]
    batch_sizes: tuple[int, ...]


def answers(
    network: nn.Module, preprocessing: Preprocessing, graphs: dict[str, Call], pictures: Pictures, batch: int | None
) -> Answers:
    """Run the network, as it was trained, and the graphs, which normalise and may have folded, on the same pictures.

    Graphs for any batch size (`batch` None) get one picture first, then batches of CHECK_BATCH.
    """
    expected: list[Tensor] = []
    given: dict[str, list[Tensor]] = {name: [] for name in graphs}
    sizes: list[int] = []
    for pixels in pictures.pixels(CHECK_BATCH):
        with torch.inference_mode():
            expected.append(network(preprocessing.normalise(pixels)))
        images = pixels.float() / 255
        alone = batch is None and not sizes and len(images) > 1
        parts = [images[:1], images[1:]] if alone else [images]
        sizes += [batch or len(part) for part in parts]
        for name, call in graphs.items():
            given[name] += [call(part) for part in parts]
    return Answers(
        torch.cat(expected), {name: torch.cat(rows) for name, rows in given.items()}, tuple(sorted(set(sizes)))
    )


def checked(found: Answers, name: str, kind: str, words: str, instructions: str | None = None) -> Check:
    """How far the graph called `name` among the answers, which computes in `kind`, is from the network.

    `instructions` multiplied its bytes, where it has any.

    Raises RunFailed when float32 is further away than rounding explains, or any logit is no finite number.
    """
    expected, given = found.network, found.graphs[name]
    if not given.isfinite().all():
        raise RunFailed(
            f"the exported file gives logits that are not finite in {kind}: its activations leave the range of these "
            "numbers, or its weights are damaged. Nothing was written; try --dtype float32"
        )
    difference, largest = float((given - expected).abs().max()), float(expected.abs().max())
    tolerance = RELATIVE_TOLERANCE * max(1.0, largest) if kind == "float32" else None
    if tolerance is not None and difference > tolerance:
        raise RunFailed(
            f"the exported file is wrong: its logits differ from PyTorch's by up to {difference:.3g}, more than "
            f"{tolerance:.3g}, on {len(given)} {words}. Nothing was written"
        )
    return Check(
        kind=kind,
        instructions=instructions,
        images=words,
        count=len(given),
        batch_sizes=found.batch_sizes,
        max_abs_difference=difference,
        largest_logit=largest,
        same_top1=float((given.argmax(1) == expected.argmax(1)).double().mean()),
        tolerance=tolerance,
    )


def top1_percent(logits: Tensor, labels: Tensor) -> float:
    """Percent of the rows whose largest logit is at their label."""
    return 100 * float((logits.argmax(1) == labels).double().mean())


FEWEST_IMAGES = 32
MOST_DROP_POINTS = 1.0
LEAST_SAME_TOP1 = 0.97
"""An 8-bit file is right where top-1 falls by at most so many points and so large a share of images keeps its class."""


def shipping_warnings(
    checks: Sequence[Check],
    accuracy: Accuracy | None,
    latency: Sequence[Latency],
    file_bytes: int,
    float32_bytes: int,
    calibration_images: int,
) -> tuple[str, ...]:
    """What the user of an 8-bit file should know before shipping it, and what to do; nothing where all is well.

    The checks are those of the float32 graph, of the file on this processor and of the file without 8-bit arithmetic.
    """
    float32, here, reference = checks
    here_drop = None if accuracy is None else accuracy.drop_points
    true_drop = None
    if accuracy is not None and accuracy.reference_top1 is not None:
        true_drop = accuracy.float32_top1 - accuracy.reference_top1
    found = []
    if calibration_images < FEWEST_IMAGES:
        found.append(
            f"int8 was calibrated on {calibration_images} images only, and what it saw there is all that it can tell "
            f"apart: give {FEWEST_IMAGES} or more, as varied as those to come (--calibration_images, --img_root)"
        )
    if not _is_right(reference.same_top1, true_drop):
        found.append(
            "8 bits are too few for this network as it was calibrated: "
            f"{_loss_text(reference.same_top1, true_drop)}, on every processor. Calibrate on more images, like those "
            "to come (--calibration_images, --img_root), or ship float32 (leave out --quantize)"
        )
    elif not _is_right(here.same_top1, here_drop):
        found.append(
            f"the file is right, but this processor ({here.instructions}) computes it wrongly: "
            f"{_loss_text(here.same_top1, here_drop)}. {_cause(here.kind)}"
        )
    lossy = accuracy.drop_points > 0 if accuracy is not None else here.same_top1 < float32.same_top1
    if file_bytes >= float32_bytes and lossy:
        found.append(
            f"the file is larger than in float32 ({file_bytes} bytes, {float32_bytes} in float32) and less accurate, "
            f"{_speed_text(latency, here.kind)}: ship float32 (leave out --quantize) unless its speed is what you need"
        )
    return tuple(found)


def _is_right(same_top1: float, drop_points: float | None) -> bool:
    return same_top1 >= LEAST_SAME_TOP1 and (drop_points is None or drop_points <= MOST_DROP_POINTS)


def _loss_text(same_top1: float, drop_points: float | None) -> str:
    drop = "" if drop_points is None else f", and top-1 falls by {drop_points:.2f} points"
    return f"{100 * same_top1:.2f} % of the images keep the class that float32 gives them{drop}"


def _cause(kind: str) -> str:
    if kind == "int8_vnni":
        return "int8_vnni is for x86 with VNNI and for Arm; --quantize int8 is right on every processor"
    return "Its weights are such that no sum can overflow, so this is a fault of the runtime: try another version of it"


def _speed_text(latency: Sequence[Latency], kind: str) -> str:
    """By how much it is faster or slower than float32 in the same runtime, for each batch size."""
    return " and ".join(_ratios(latency, kind)) + " of float32's time"


def _ratios(latency: Sequence[Latency], kind: str) -> Iterator[str]:
    for own in latency:
        for other in latency:
            alike = (own.batch_size, own.runtime) == (other.batch_size, other.runtime)
            if alike and own.kind == kind and other.kind == "float32":
                yield f"at batch {own.batch_size} in {own.median_ms / other.median_ms:.2f}"
