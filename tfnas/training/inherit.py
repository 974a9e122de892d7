"""Starting from what the search has learned: the derived network's weights are the supernet's active channels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.nn.network import Network
from tfnas.runs.search_run import search_checkpoints
from tfnas.supernet.extract import estimate_batch_norm, extract_network, supernet_from_state
from tfnas.training.train_session import Session

ESTIMATION_IMAGES = 4096


def inherit_weights(session: Session, run_dir: Path) -> None:
    """Give the session's network the weights of a search; batch norm has no statistics then.

    Raises InputError when there is no search in the directory, or its space or classes do not fit the network.
    """
    state, _, _ = search_checkpoints(run_dir).load_latest()
    setup, learner = session.setup, session.learner
    if state["num_classes"] != setup.data.num_classes:
        raise InputError(
            f"--inherit {run_dir}: the search had {state['num_classes']} classes, the data has "
            f"{setup.data.num_classes}: its weights cannot be inherited"
        )
    if not isinstance(setup.architecture, Architecture):
        raise InputError(f"--inherit {run_dir}: the architecture is not of that search's space, but a structure")
    try:
        found = extract_network(supernet_from_state(state), setup.architecture)
    except InputError as error:
        raise InputError(f"--inherit {run_dir}: the architecture is not of that search's space: {error}") from error
    learner.network.load_state_dict(found.state_dict())


def settle_batch_norm(session: Session, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give batch norm the statistics of training batches, and the average of weights the network's state.

    With joint statistics the processes exchange in every batch norm, as in a step of training.
    """
    learner = session.learner
    assert isinstance(learner.network, Network)
    with torch.random.fork_rng(devices=[]):
        estimate_batch_norm(learner.network, (learner.place(images) for images, _ in batches))
    if learner.average is not None:
        learner.average.module.load_state_dict(learner.network.state_dict())
