"""The settings of an evolutionary search: one typed definition for Python, command line and YAML file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_yaml
from tfnas.data.data_config import DataConfig
from tfnas.runs.run_settings import RUN_MAY_CHANGE, RunSettings
from tfnas.searching.evolution.budget_settings import BudgetSettings

RESCUES = frozenset({"device"})
PATHS = ("init", "space", "lookup_path", "img_root", "train_list", "val_list", "class_names")
MAY_CHANGE = {*RUN_MAY_CHANGE, "resume", "workers", "jobs", "joblib_backend", "cluster", *PATHS, *RESCUES}
"""What may differ between a run and its resumption: what changes no result, and paths, of which the contents are
compared."""

_LARGEST_BATCH = 2**16


@dataclass(frozen=True, kw_only=True)
class EvolveConfig(RunSettings, DataConfig, BudgetSettings):
    """Settings of an evolutionary search."""

    space: str = "zen-xxbl"
    """What is searched: a space of structures (zen-xxbl, zen-idw, tinynas-k1kxk1, tinynas-k1kx, tinynas-kxkx,
    tinynas-k1dwk1, tinynas-k1dwsek1, tinynas-quant-k1dwk1, tinynas-3d-k1dwk1) or of MBConv blocks (imagenet, cifar,
    digits), a YAML file of your own of either kind, or an installed family of networks."""
    space_variant: Literal["default", "program"] = "default"
    """program: draw structures by the rules of the published program, its accidents included."""
    space_rules: str | None = None
    """Rules of a space of structures that replace its own, as they stand in its YAML file, such as "max_channels: 1024,
    monotone: true"."""
    init: str | None = None
    """Network to start from: a file, a run directory, a name of the zoo or an architecture's text. Default: that of the
    space."""
    image_size: int | None = None
    """Pixels a side of the images, for budgets and score. Default: that of the network to start from."""
    num_classes: int | None = None
    """Classes of the classifier. Default: those of --data, else of the network to start from."""
    data: Literal["digits", "digit_pairs", "list", "folder", "cifar10", "cifar100"] | None = None
    """Images, for scores that need real ones (zico), and for training the result. Default: none, or `list` if
    --img_root or a list is given."""
    score: str = "zen"
    """Score to search by, such as zen, naswot or entropy:tinynas (a variant), or a sum such as 0.9*zen+0.1*entropy. A
    score of which lower is better counts negatively."""
    combine: Literal["sum", "rank"] = "sum"
    """How several scores become one: their sum, or the sum of the logarithms of their ranks in the population."""
    batch_size: int = 16
    """Images in a batch of scores that are computed on images."""
    repeats: int = 1
    """zen: number of random weights and images to average over."""
    stage_weights: str | None = None
    """Entropies: the weight of each stage, such as 1,1,1,1,8."""
    depth_penalty: float = 10.0
    """entropy, incorporated: the factor of the penalty on unequal depths."""
    incorporated_weights: str | None = None
    """incorporated: the factors of the Zen-Score and of the entropy. Default: 0.9,0.1."""
    iterations: int = 480_000
    """Networks to draw, those included that exceed a budget or are members already."""
    population: int = 512
    """Most members of the population; the worst leave it."""
    children: int = 32
    """Networks drawn from the population before it changes; 1 is the order of the published programs."""
    jobs: int | None = None
    """Number of worker processes for scores that take passes through a network. Default: the number of cores on a CPU,
    1 on a GPU. The result does not depend on it."""
    joblib_backend: Literal["loky", "dask", "ray"] = "loky"
    """Where those scores are computed: loky (processes on this machine), or a cluster of dask's or ray's."""
    cluster: str | None = None
    """Address of the cluster, such as tcp://10.0.0.1:8786. Default: what dask's or ray's own settings name, else one
    that is started on this machine."""
    resume: str | None = None
    """Resume the interrupted run in this run directory, with its own settings."""
    seed: int = 2
    """Seed of the mutations, and of random weights and images of scores."""

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        DataConfig.__post_init__(self)
        BudgetSettings.__post_init__(self)
        for name in ("iterations", "population", "children", "repeats", "jobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be 1 or more, got {value}")
        if not 2 <= self.batch_size <= _LARGEST_BATCH:
            raise InputError(f"--batch_size must be 2 to {_LARGEST_BATCH}, got {self.batch_size}")
        if self.cluster is not None and self.joblib_backend == "loky":
            raise InputError("--cluster is for --joblib_backend dask or ray")
        if self.run_dir is not None and self.resume is not None:
            raise InputError("give --run_dir for a new run or --resume for an interrupted one, not both")

    @property
    def image_data(self) -> DataConfig | None:
        """The images that are named, if any are."""
        if (self.data, self.img_root, self.train_list, self.val_list) == (None, None, None, None):
            return None
        return DataConfig(**{item.name: getattr(self, item.name) for item in dataclasses.fields(DataConfig)})

    @property
    def score_factors(self) -> dict[str, tuple[float, ...]]:
        """`stage_weights` and `incorporated_weights` as numbers, those that are given. Raises InputError."""
        given = {name: getattr(self, name) for name in ("stage_weights", "incorporated_weights")}
        return {name: _numbers(name, text) for name, text in given.items() if text is not None}

    @property
    def overridden_rules(self) -> dict[str, Any] | None:
        """`space_rules` as fields of the space's file. Raises InputError where it is no mapping."""
        if self.space_rules is None:
            return None
        text = self.space_rules.strip()
        try:
            document = load_yaml(text if text.startswith("{") else f"{{{text}}}")
        except InputError as error:
            raise InputError(f"--space_rules is {error}") from error
        if not isinstance(document, dict):
            raise InputError(f"--space_rules must be rules such as max_channels: 1024, got {self.space_rules!r}")
        return document


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise InputError(f"--{name} must be numbers separated by commas, such as 1,1,1,1,8, got {text!r}") from error
