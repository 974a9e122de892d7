"""Several processes must search as one: what decides the architecture is the same in all of them, or the run ends."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256

from torch import Tensor

from tfnas.errors import RunFailed
from tfnas.processes import Processes
from tfnas.searching.steps import Learner


def check_agreement(learner: Learner, processes: Processes) -> None:
    """Raise RunFailed in a process whose learner is not, bit for bit, that of the first one."""
    if processes.number == 1:
        return
    own = fingerprints(learner)
    said = processes.spread_bytes(json.dumps(own).encode() if processes.is_first else None)
    first: dict[str, str] = json.loads(said or b"{}")

    def compare() -> None:
        differing = [name for name in own if own[name] != first.get(name)]
        if differing:
            raise RunFailed(
                f"its {' and '.join(differing)} differ from those of the first process, so the two would derive "
                "different architectures: processors or versions of PyTorch that round differently are the usual "
                "cause. Run on machines that are alike"
            )

    processes.agreed(compare)


def fingerprints(learner: Learner) -> dict[str, str]:
    """Digests, by name, of everything that decides which architecture is derived."""
    alphas, *betas = learner.parameters.parameters()
    return {
        "operation probabilities (alphas)": _digest([alphas]),
        "depth probabilities (betas)": _digest(betas),
        "widths": _digest(active for row in learner.supernet.active_channels() for active in row),
        "weights": _digest(learner.supernet.parameters()),
    }


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(b"|")
    return digest.hexdigest()
