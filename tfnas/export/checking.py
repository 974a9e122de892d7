"""Whether an exported graph gives what the network gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tfnas.data.preprocessing import Preprocessing
from tfnas.errors import RunFailed
from tfnas.export.images import Pictures
from tfnas.export.report import Check
from tfnas.nn import Network

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
    network: Network, preprocessing: Preprocessing, graphs: dict[str, Call], pictures: Pictures, batch: int | None
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
