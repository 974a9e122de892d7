"""Options of scores."""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tfnas.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from tfnas.proxies.network_preparation import RandomGenerator

IMAGE_SIZE = 224
NUM_CLASSES = 1000
INITIALISATIONS = ("normal", "kaiming", "kaiming_fan_out", "torch")


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreOptions:
    """Options of a score. Each score reads those that concern it."""

    image_size: int | None = None
    """Pixels a side. By default the architecture's own, and 224 for anything that has none."""
    batch_size: int = 16
    """Images in a batch."""
    num_classes: int | None = None
    """Classes of the classifier. By default the architecture's own, and 1000 for a structure."""
    frames: int | None = None
    """Frames of a clip, for three-dimensional networks. By default the architecture's own, and 16 for others."""
    seed: int = 0
    """Seed of random weights, images and labels."""
    variant: str | None = None
    """A definition of the score that is not its default."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:N or auto."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the passes. SynFlow is always computed in float64."""
    residuals: bool | None = None
    """Whether networks that are built have their shortcuts. By default what the score is defined on."""
    initialisation: str | None = None
    """Initialisation of weights: normal (variance 1), kaiming, kaiming_fan_out or torch. By default the score's own."""
    repeats: int = 1
    """zen: number of random weights and images to average over."""
    images: Tensor | None = None
    """A batch (N, channels, height, width) to use instead of Gaussian noise, for scores that need images."""
    labels: Tensor | None = None
    """Their classes (N), for scores that need labels."""
    stage_weights: tuple[float, ...] | None = None
    """Entropies: the weight of each stage."""
    depth_penalty: float = 10.0
    """entropy, incorporated: the factor of the penalty on unequal depths."""
    exponents: tuple[float, float] = (1.0, 1.0)
    """entropy: DeepMAD's alpha1 and alpha2, exponents of the channels and of the kernel's area in every fan-in."""
    bits: int | None = None
    """quantized_entropy: bits of all weights and activations of a network that states none."""
    weight_std: float = 4.0
    """quantized_entropy: standard deviation of weights, in quantisation steps."""
    activation_std: float = 5.0
    """quantized_entropy: standard deviation of activations, in quantisation steps."""
    incorporated_weights: tuple[float, float] = (0.9, 0.1)
    """incorporated: factors of the Zen-Score and of the entropy."""
    generator: RandomGenerator | None = None
    """Source of random numbers. By default one that starts from the seed."""

    def __post_init__(self) -> None:
        for name, lowest in (("image_size", 1), ("batch_size", 2), ("num_classes", 1), ("frames", 1), ("repeats", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < lowest):
                raise InputError(f"{name} must be a whole number of {lowest} or more, got {value!r}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be a whole number of 0 or more, got {self.seed!r}")
        if self.dtype not in ("float32", "float64"):
            raise InputError(f"dtype must be float32 or float64, got {self.dtype!r}")
        if self.initialisation not in (None, *INITIALISATIONS):
            raise InputError(f"initialisation must be one of {', '.join(INITIALISATIONS)}, got {self.initialisation!r}")
        if self.bits is not None and self.bits not in range(1, 33):
            raise InputError(f"bits must be 1 to 32, got {self.bits!r}")
        for name in ("weight_std", "activation_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a finite number above 0, got {getattr(self, name)!r}")
        if not 0 <= self.depth_penalty < math.inf:
            raise InputError(f"depth_penalty must be a finite number of 0 or more, got {self.depth_penalty!r}")
        for name, values in (
            ("stage_weights", self.stage_weights),
            ("incorporated_weights", self.incorporated_weights),
            ("exponents", self.exponents),
        ):
            if values is not None and not all(math.isfinite(value) for value in values):
                raise InputError(f"{name} must be finite numbers, got {values!r}")
        for name in ("incorporated_weights", "exponents"):
            if len(getattr(self, name)) != 2:
                raise InputError(f"{name} must be two numbers, got {getattr(self, name)!r}")

    @classmethod
    def of(cls, settings: dict[str, object]) -> ScoreOptions:
        """Options of keyword arguments. Raises InputError that names one that is not known."""
        if "draws" in settings:
            warnings.warn("the score option draws is called generator now", DeprecationWarning, stacklevel=3)
            settings = {"generator" if name == "draws" else name: value for name, value in settings.items()}
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise InputError(f"unknown score option {name!r}; available: {', '.join(known)}")
        return cls(**settings)  # type: ignore[arg-type]

    def random_generator(self) -> RandomGenerator:
        """The source of random numbers: `generator`, or one that starts from the seed."""
        from tfnas.proxies.network_preparation import RandomGenerator

        return RandomGenerator(self.seed) if self.generator is None else self.generator
