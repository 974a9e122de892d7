"""Everything a user can say about a search: one typed definition for Python, command line and YAML file."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from tfnas.core.cost import COSTS, COUNTED
from tfnas.core.errors import InputError
from tfnas.data.data_config import DataConfig
from tfnas.searching.differentiable.schedule import Schedule, papers_schedule

DEFAULT_TARGET_MS = 15.0
LONGEST_TIMEOUT_SECONDS = 1e9  # what the library can count in nanoseconds
_TARGETS = {"macs": "300e6", "params": "5e6"}

# What may differ between a run and its resumption: what changes no result, paths (what they name is compared), and
# ways out of a failure. Every other setting is compared.
PATHS = ("space", "lookup_path", "img_root", "train_list", "val_list", "class_names")
RESCUES = frozenset({"w_lr", "a_lr", "grad_clip", "threads", "device"})
MAY_CHANGE = {
    *("resume", "workers", "print_freq", "save_minutes", "run_dir", "save", "note", "local_rank", "rank_timeout"),
    "low_memory",
    *PATHS,
    *RESCUES,
}


@dataclass(frozen=True, kw_only=True)
class SearchConfig(DataConfig):
    """Settings of a search. Fields that are None take the search space's own value."""

    target_lat: float = DEFAULT_TARGET_MS
    """Target, also spelled --target: milliseconds per batch, as the latency table was measured; or a number of what
    --cost counts."""
    cost: Literal["ms", "macs", "params"] | None = None
    """What the target is: milliseconds of a latency table, or multiply-accumulates or parameters of the network, which
    are counted and need no table. Default: what the table holds, ms."""
    lookup_path: str | None = None
    """Latency table: our JSON or the authors' .pkl. Default: the table shipped for the space."""
    space: str | None = None
    """Search space: imagenet, cifar, digits, or a YAML file of your own. Default: the one made for the data."""
    width_multiple: int | None = None
    """Search only widths that are a multiple of this, which some devices like: 8, for instance. Default: the space's
    own, 1."""
    save: str = "runs"
    """Folder in which the run directory is made."""
    note: str = ""
    """A word for the run directory's name."""
    run_dir: str | None = None
    """The run directory itself, in place of one made under --save; it must be empty or not exist."""
    resume: str | None = None
    """Go on with the interrupted run in this run directory, with its own settings."""
    seed: int = 2
    """Decides initial weights, the order of images, augmentation and sampling."""
    device: str = "auto"
    """auto (the first GPU if there is one; of several processes each takes its own), cpu, cuda or cuda:N."""
    threads: int | None = None
    """Processor threads of each process, 0 for all cores. Results are bit-equal only at the same number."""
    deterministic: bool = False
    """On a GPU: deterministic algorithms only, so that a resumed run is bit-equal (slower)."""
    low_memory: bool = False
    """Keep no feature map inside an operation: the backward pass computes them again. Less memory, more time, the same
    losses and gradients."""
    amp: bool = False
    """On a GPU: compute losses in mixed precision (bfloat16), weights and updates in float32."""
    print_freq: int = 100
    """Log the training state every so many weight steps."""
    save_minutes: float = 5.0
    """Save the state every so many minutes inside an epoch, besides at every epoch's end."""
    local_rank: int | None = None
    """Set by older launchers; torchrun needs no flag."""
    rank_timeout: float = 600.0
    """Seconds after which a process that no longer answers ends the run; one that has died ends it at once."""
    recipe: Literal["paper"] | None = None
    """paper: the procedure of the TF-NAS paper in place of the space's own, which is how weights and architecture
    parameters start and learn: all settings of the two schedules below. Their length (--epochs, --warmup_epochs), the
    --batch_size and --threads stay the space's own. Single flags win over it. Default: the space's own procedure."""
    epochs: int | None = None
    """Epochs over the weight-training images."""
    warmup_epochs: int | None = None
    """First epochs, which train weights only."""
    batch_size: int | None = None
    """Images per step over all processes, for weights and architecture alike."""
    w_lr: float | None = None
    """Learning rate of the weights (SGD), decayed to 0 by a cosine over all epochs."""
    w_mom: float | None = None
    """Momentum of the weights."""
    w_wd: float | None = None
    """Weight decay of the weights."""
    a_lr: float | None = None
    """Learning rate of the architecture parameters (Adam)."""
    a_wd: float | None = None
    """Weight decay of the architecture parameters."""
    a_beta1: float | None = None
    """First Adam coefficient of the architecture parameters."""
    a_beta2: float | None = None
    """Second Adam coefficient of the architecture parameters."""
    grad_clip: float | None = None
    """Largest gradient norm, of weights and of architecture parameters."""
    T: float | None = None
    """First temperature of the Gumbel-softmax."""
    T_decay: float | None = None
    """Factor on the temperature after each epoch that trained the architecture."""
    lambda_lat: float | None = None
    """Weight of the latency term while searching. The target is met for every value: there is nothing to tune."""
    shared_weights: bool | None = None
    """The operations of a block share weights: narrower ones are slices of the widest, smaller kernels the centre of
    the largest. Sampled paths learn many times faster."""
    sampled_depth: bool | None = None
    """Weights learn from paths that leave every stage at a depth drawn uniformly, as derived networks do, in place of
    the sink, which weighs all depths. The architecture parameters learn at the sinks in either case."""
    candidates: int | None = None
    """At the end, judge so many networks, drawn from what was learned and brought to the target, with inherited weights
    on the held-out part, and take the one of lowest loss. 1: the derived one, unjudged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        words = COSTS[self.cost or "ms"].target_words
        if not (math.isfinite(self.target_lat) and self.target_lat > 0):
            raise InputError(f"target_lat must be a positive number of {words}, got {self.target_lat}")
        if self.cost in COUNTED and self.target_lat == DEFAULT_TARGET_MS:
            raise InputError(f"--cost {self.cost} needs a --target, a number of {words}, such as {_TARGETS[self.cost]}")
        if self.width_multiple is not None and self.width_multiple < 1:
            raise InputError(f"width_multiple must be 1 or more, got {self.width_multiple}")
        if self.print_freq < 1:
            raise InputError(f"print_freq must be 1 or more, got {self.print_freq}")
        for name in ("save_minutes", "rank_timeout"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.rank_timeout > LONGEST_TIMEOUT_SECONDS:
            raise InputError(f"rank_timeout must be at most {LONGEST_TIMEOUT_SECONDS:g}, got {self.rank_timeout}")
        if self.local_rank is not None and self.local_rank < 0:
            raise InputError(f"local_rank must be 0 or more, got {self.local_rank}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be 0 to 2**63 - 1, got {self.seed}")
        if self.run_dir is not None and self.resume is not None:
            raise InputError("give --run_dir for a new run or --resume for an interrupted one, not both")

    def schedule(self, of_space: Schedule) -> Schedule:
        """The recipe's or the space's schedule with the values given here in place.

        Raises InputError for values that do not fit.
        """
        if self.recipe == "paper":
            of_space = papers_schedule(of_space)
        names = [field.name for field in dataclasses.fields(Schedule)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(of_space, **given)
