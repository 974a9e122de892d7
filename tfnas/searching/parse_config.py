"""Settings of parsing, one typed definition for Python, command line and YAML."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tfnas.core.errors import InputError
from tfnas.runs.named_network import check_named_once
from tfnas.searching.reranking.rerank_config import DEFAULT_SCORES, RerankConfig, RerankOptions


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
    """Latency table. Default: the run's own, else the one shipped for the space if it fits."""
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
