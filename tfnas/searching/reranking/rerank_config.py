"""Settings of parsing and re-ranking, one typed definition each for Python, command line and YAML."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from tfnas.core.errors import InputError
from tfnas.runs.named_network import check_named_once

INHERITED = "inherited"
"""Accuracy with inherited weights, which can be combined like a score."""
DEFAULT_SCORES = "zen,naswot"
FEWEST_CALIBRATED = 6


@dataclass(frozen=True, kw_only=True)
class RerankOptions:
    """Re-ranking settings shared by `tfnas rerank` and `tfnas parse`."""

    num_candidates: int = 64
    """Number of distinct networks to rank, all inside the latency band of the search's target, including the derived
    one."""
    pick: Literal["derived", "rank"] = "derived"
    """Network that model.config and architecture.json contain afterwards: the derived one, or the first of the combined
    ranking."""
    score_batch: int = 16
    """Batch size of scores computed on a batch of images."""
    jobs: int | None = None
    """Number of worker processes. Default: the number of cores on a CPU, 1 on a GPU. A cluster uses all of its
    workers."""
    joblib_backend: Literal["loky", "dask", "ray"] = "loky"
    """Where scores are computed: loky (processes on this machine), or a cluster of dask's or ray's."""
    cluster: str | None = None
    """Address of the cluster, such as tcp://10.0.0.1:8786. Default: what dask's or ray's own settings name, else one
    that is started on this machine."""
    calibrate: int = 0
    """Number of candidates to train from scratch to determine which scores predict accuracy; 0 for none."""
    calibrate_epochs: int = 30
    """Epochs of each calibration training."""
    calibrate_images: int | None = None
    """Number of training images for calibration, stratified by class. With fewer, accuracies differ more. Default: the
    whole weights part."""
    calibrate_seeds: int = 1
    """Number of trainings of each candidate, with different initial weights; their mean counts."""

    def __post_init__(self) -> None:
        for name in ("num_candidates", "score_batch", "calibrate_epochs", "calibrate_seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("jobs", "calibrate_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be 1 or more, got {value}")
        if self.calibrate != 0 and self.calibrate < FEWEST_CALIBRATED:
            raise InputError(
                f"--calibrate must be {FEWEST_CALIBRATED} or more (fewer networks are not significant), or 0 for none, "
                f"got {self.calibrate}"
            )
        if self.calibrate > self.num_candidates:
            raise InputError(
                f"--calibrate is {self.calibrate}, but there are only {self.num_candidates} candidates: "
                "raise --num_candidates"
            )
        if self.cluster is not None and self.joblib_backend == "loky":
            raise InputError("--cluster is for --joblib_backend dask or ray")


@dataclass(frozen=True, kw_only=True)
class RerankConfig(RerankOptions):
    """Settings of the re-ranking command."""

    model_path: str
    """The run directory of a finished search."""
    scores: str = DEFAULT_SCORES
    """Scores to rank by, separated by commas, also spelled --rerank: of zen, naswot, synflow, grad_norm, te_nas,
    zico, az_expressivity, az_progressivity, az_trainability, az_complexity, entropy, multiscale_entropy, incorporated,
    flops, params, random and those of installed packages; `inherited` is the accuracy with inherited weights."""
    lookup_path: str | None = None
    """The search's latency table, if it has been moved."""
    device: str = "auto"
    """Where to compute: auto (the first GPU if there is one), cpu, cuda or cuda:N."""
    seed: int = 2
    """Seed of the candidates, the inputs of scores, and the weights of trained candidates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must be 0 to 2**63 - 1, got {self.seed}")
        names = self.score_names
        if not all(names):
            raise InputError(
                f"{self.scores_flag} must be names separated by commas, such as {DEFAULT_SCORES}, got {self.scores!r}"
            )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{self.scores_flag} names {twice} twice: {self.scores}")

    @property
    def scores_flag(self) -> str:
        """Name of the flag with which the scores were given."""
        return "--scores"

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names as a tuple."""
        return tuple(name.strip() for name in self.scores.split(","))


@dataclass(frozen=True, kw_only=True)
class ParseConfig:
    """Settings of the parsing command."""

    model_path: str | None = None
    """A run directory, a checkpoint of a search (ours or the TF-NAS authors'), model.config or architecture.json."""
    config_path: str | None = None
    """A file with the architecture alone: model.config, architecture.json or a structure's text."""
    arch: str | None = None
    """A network of the zoo by its name, such as deepmad-R18, or an architecture by its text."""
    save_path: str | None = None
    """File for the authors' JSON format, or for the text of a structure; ours is written next to it as
    architecture.json, or under the same name ending in .json. Default: the run directory of a finished run, nothing for
    an unfinished search, otherwise ./model.config or ./structure.txt unless that contains another network."""
    lookup_path: str | None = None
    """Latency table. Default: the run's own, else the one bundled for the space if it fits."""
    print_lat: bool = False
    """Also time the network on this machine: batch sizes 1, 32 and that of the table, on one CPU thread and on the GPU
    if there is one."""
    device: str = "auto"
    """Where to time: auto (the CPU, and the GPU if there is one), cpu, cuda or cuda:N."""
    seed: int = 2
    """Seed of the random weights and images that are timed."""
    space: str | None = None
    """Search space that the network must be of: imagenet, cifar, digits or a YAML file. The authors' checkpoints are
    read as networks of imagenet unless another is given."""
    image_size: int | None = None
    """Side of the input in pixels. Default: as stored; for a model.config alone that of the space, or 224, as for a
    structure's text."""
    num_classes: int | None = None
    """Classes of the network written out. Default: as stored."""

    def __post_init__(self) -> None:
        check_named_once(self, "RUN")
        for name in ("image_size", "num_classes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be 1 or more, got {value}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be 0 to 2**63 - 1, got {self.seed}")


class _ParsingRerankConfig(RerankConfig):
    """Re-ranking settings of the parsing command."""

    @property
    def scores_flag(self) -> str:
        return "--rerank"


@dataclass(frozen=True, kw_only=True)
class ParseAndRerankConfig(ParseConfig, RerankOptions):
    """Settings of the parsing command, which can re-rank first."""

    rerank: str | None = None
    """Rank networks of the same latency by these scores first, separated by commas (zen,naswot)."""

    def __post_init__(self) -> None:
        ParseConfig.__post_init__(self)
        RerankOptions.__post_init__(self)
        if self.rerank is None:
            options = dataclasses.fields(RerankOptions)
            unused = [item.name for item in options if getattr(self, item.name) != item.default]
            if unused:
                raise InputError(f"--{unused[0]} is for re-ranking: add --rerank {DEFAULT_SCORES}")
            return
        if self.model_path is None:
            raise InputError("--rerank ranks networks of a search: give its run directory, --model_path RUN")
        self.rerank_config()
        changed = [name for name in ("space", "image_size", "num_classes") if getattr(self, name) is not None]
        if changed:
            raise InputError(
                f"--{changed[0]} and --rerank do not go together: candidates are in the space of the search"
            )

    def rerank_config(self) -> RerankConfig:
        """The settings of the re-ranking alone."""
        assert self.rerank is not None
        shared: dict[str, Any] = {item.name: getattr(self, item.name) for item in dataclasses.fields(RerankOptions)}
        shared |= {name: getattr(self, name) for name in ("model_path", "lookup_path", "device", "seed")}
        return _ParsingRerankConfig(scores=self.rerank, **shared)
