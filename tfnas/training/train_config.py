"""The settings of retraining: one typed definition for Python, command line and YAML file.

`Recipe` says how long and how strongly to train, with defaults for each kind of data; those for ImageNet are the
settings of TF-NAS (ECCV 2020).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tfnas.core.errors import InputError
from tfnas.data.data_config import DATA_PATHS, DataName, RetrainDataConfig
from tfnas.runs.named_network import check_named_once, named_flags
from tfnas.runs.run_settings import RUN_MAY_CHANGE, RunSettings
from tfnas.utils.devices import check_thread_limit

KIND = "train"
"""Of run directories and checkpoints."""

LARGE_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of stochastic gradient descent and of regularisation. `threads` 0 means all cores."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    weight_decay: float
    grad_clip: float = 5.0
    warmup_epochs: int = 0
    label_smooth: float = 0.1
    dropout_rate: float = 0.2
    drop_connect_rate: float = 0.2
    threads: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup_epochs", 0), ("threads", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be {least} or more, got {getattr(self, name)}")
        for name in ("lr", "grad_clip"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} must be a positive number, got {getattr(self, name)}")
        for name in ("momentum", "label_smooth", "dropout_rate", "drop_connect_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay must be 0 or more, got {self.weight_decay}")
        check_thread_limit(self.threads)


_IMAGENET = Recipe(epochs=250, batch_size=512, lr=0.2, weight_decay=1e-5)
_PHOTOS = Recipe(epochs=200, batch_size=64, lr=0.05, weight_decay=1e-4)  # thousands of images, not a million
_CIFAR = Recipe(epochs=200, batch_size=128, lr=0.1, weight_decay=5e-4)
_DIGITS = Recipe(
    epochs=20, batch_size=32, lr=0.1, weight_decay=5e-4, dropout_rate=0.0, drop_connect_rate=0.0, threads=1
)

RECIPES: dict[DataName, Recipe] = {
    "list": _IMAGENET,
    "folder": _PHOTOS,
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "digits": _DIGITS,
    "digit_pairs": _DIGITS,
}


def recipe_for(name: DataName, said: Mapping[str, Any]) -> Recipe:
    """The recipe of a kind of data with what was said (what is not None) in place.

    A batch of more than 256 images is warmed up for 5 epochs unless said otherwise. Raises InputError for values that
    do not fit.
    """
    recipe = dataclasses.replace(RECIPES[name], **{key: value for key, value in said.items() if value is not None})
    if said.get("warmup_epochs") is None and recipe.batch_size > LARGE_BATCH:
        recipe = dataclasses.replace(recipe, warmup_epochs=5)
    return recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Cosine decay over all epochs (counted from 0), times (epoch + 1) / warmup_epochs during the warm-up."""
    cosine = 0.5 * recipe.lr * (1 + math.cos(math.pi * epoch / recipe.epochs))
    return cosine * min(1.0, (epoch + 1) / recipe.warmup_epochs) if recipe.warmup_epochs else cosine


# What may differ between a run and its resumption: what changes no result, paths (of which what they name must be the
# same), and ways out of a failure.
RUN_PATHS = ("model_path", "config_path", "inherit", "teacher", "teacher_weights")
PATHS = (*DATA_PATHS, *RUN_PATHS)
RESCUES = frozenset({"lr", "grad_clip", "threads", "device", "opt_level", "loss_scale", "keep_batchnorm_fp32"})
MAY_CHANGE = {*RUN_MAY_CHANGE, "snapshot", "workers", *PATHS, *RESCUES}


DYNAMIC = "dynamic"  # of --loss_scale


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunSettings, RetrainDataConfig):
    """Settings of retraining. Fields that are None take the value of the recipe for the kind of data."""

    model_path: str | None = None
    """A search's run directory, or a checkpoint in it, which also provides data set, image size and classes."""
    config_path: str | None = None
    """The architecture alone, in place of --model_path: a file such as model.config, architecture.json or a structure's
    text."""
    arch: str | None = None
    """The architecture alone by its name in the zoo, such as deepmad-R18, or by its text."""
    inherit: str | None = None
    """Start from the supernet's weights of the search in this run directory."""
    snapshot: str | None = None
    """Resume the interrupted run in this run directory (or of this checkpoint in one), with its own settings."""
    seed: int = 2
    """Seed of initial weights, image order, augmentation, dropout and drop-connect."""
    device: str = "auto"
    """auto (the GPU of this process's local rank if there is one), cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of each process, 0 for PyTorch's own number."""
    epochs: int | None = None
    """Epochs over the training images."""
    batch_size: int | None = None
    """Images per step, over all processes."""
    lr: float | None = None
    """Learning rate (SGD), decayed to 0 by a cosine over all epochs."""
    momentum: float | None = None
    """Momentum."""
    weight_decay: float | None = None
    """Weight decay."""
    grad_clip: float | None = None
    """Maximum gradient norm."""
    warmup_epochs: int | None = None
    """Number of initial epochs of linear learning rate warm-up. Default: 5 if the batch is over 256, else 0."""
    label_smooth: float | None = None
    """Label smoothing of the training loss."""
    dropout_rate: float | None = None
    """Dropout before the classifier."""
    drop_connect_rate: float | None = None
    """Drop-connect of the last block; it increases linearly with depth."""
    opt_level: Literal["O0", "O1", "O2", "O3"] = "O0"
    """O0 float32; O1 autocast to float16 with loss scaling (on a CPU bfloat16); O2 autocast to bfloat16; O3 weights and
    updates in float16 too (on a CPU bfloat16)."""
    loss_scale: str | None = None
    """Factor on the loss before the backward pass: a number, or dynamic, which adapts to the gradients. Default:
    dynamic with float16 autocast, otherwise 1."""
    keep_batchnorm_fp32: bool | None = None
    """At --opt_level O3: keep batch norm weights in float32, as at the other levels. Default: no."""
    amp_backend: Literal["torch", "apex"] = "torch"
    """Implementation of mixed precision: PyTorch, or NVIDIA apex if installed."""
    sync_bn: bool = False
    """Batch statistics over all processes."""
    accumulate: int = 1
    """Number of micro-batches per step, to save memory; batch statistics are per micro-batch."""
    ema_decay: float = 0.0
    """Keep an exponential moving average of the weights with this decay (such as 0.999); evaluate and save the
    average."""
    auto_augment: Literal["none", "rand", "trivial"] = "none"
    """Further augmentation by torchvision: RandAugment or TrivialAugment."""
    random_erasing: float = 0.0
    """Probability of erasing a rectangle of an image."""
    mixup: float = 0.0
    """Alpha of MixUp (such as 0.2), 0 for none."""
    cutmix: float = 0.0
    """Alpha of CutMix (such as 1), 0 for none; with MixUp, one of the two at random."""
    compile: bool = False
    """Compile the network by torch.compile."""
    channels_last: bool = False
    """Lay out tensors as channels last."""
    teacher: str | None = None
    """Distil from a teacher: a torchvision model by name (with --teacher_weights), a model.pt, its run directory, or
    an exported .onnx."""
    teacher_weights: str | None = None
    """Weights of a torchvision teacher: a file with its state dict."""
    distill_weight: float = 0.5
    """Weight of the distillation term in the loss."""
    distill_temperature: float = 1.0
    """Softmax temperature in the distillation term."""

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        RetrainDataConfig.__post_init__(self)
        if self.snapshot is None:
            self._check_source()
        if self.accumulate < 1:
            raise InputError(f"accumulate must be 1 or more, got {self.accumulate}")
        if not self.distill_temperature > 0:
            raise InputError(f"distill_temperature must be above 0, got {self.distill_temperature}")
        for name in ("ema_decay", "random_erasing", "distill_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.ema_decay == 1:
            raise InputError("ema_decay must be below 1: at 1 the average never changes; use 0.999, for example")
        for name in ("mixup", "cutmix"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        self._check_pairs()

    def _check_source(self) -> None:
        if self.inherit is None or len(named_flags(self)) > 1:
            check_named_once(self, "RUN_DIR (of a search)", ", or --inherit RUN_DIR")

    def _check_pairs(self) -> None:
        if self.run_dir is not None and self.snapshot is not None:
            raise InputError("give --run_dir for a new run or --snapshot for an interrupted one, not both")
        if self.teacher_weights is not None and self.teacher is None:
            raise InputError("--teacher_weights is given without --teacher")
        if self.amp_backend == "apex" and self.opt_level == "O0":
            raise InputError("--amp_backend apex needs --opt_level O1, O2 or O3: O0 is float32")
        self._check_precision()

    def _check_precision(self) -> None:
        scale = self.static_loss_scale
        if scale is not None and not 0 < scale < math.inf:
            raise InputError(f"--loss_scale must be a number above 0, or dynamic, got {self.loss_scale}")
        if self.amp_backend == "apex":  # which has its own rules
            return
        if self.opt_level == "O3" and self.loss_scale == DYNAMIC:
            raise InputError(
                "--loss_scale dynamic needs weights in float32, which O3 does not have: give it a number, or O1"
            )
        if self.opt_level == "O3" and self.ema_decay:
            raise InputError("--ema_decay needs weights in float32, which --opt_level O3 does not have: use O1 or O2")
        if self.opt_level != "O3" and self.keep_batchnorm_fp32 is False:
            raise InputError(
                f"at --opt_level {self.opt_level} batch norm's weights stay in float32: only O3 has others"
            )

    @property
    def static_loss_scale(self) -> float | None:
        """The number that --loss_scale gives, if it gives one. Raises InputError where it is no number."""
        if self.loss_scale in (None, DYNAMIC):
            return None
        try:
            return float(self.loss_scale)
        except ValueError as error:
            raise InputError(f"--loss_scale must be a number above 0, or dynamic, got {self.loss_scale}") from error

    def recipe(self) -> Recipe:
        """The recipe for this kind of data with the values given here. Raises InputError for values that do not fit."""
        names = [item.name for item in dataclasses.fields(Recipe)]
        return recipe_for(self.data_kind, {name: getattr(self, name) for name in names})
