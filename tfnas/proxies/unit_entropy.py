"""Entropies of a network's units in closed form, from which the analytic scores are computed.

A convolution whose weights have variance 1 multiplies the variance of its input by its fan-in, so it adds
ln(fan_in) / 2 to the entropy of a feature. Shortcuts, batch norms, squeeze-and-excite and
activations are ignored. Sources: MAE-DET (ICML 2022, arXiv 2111.13336), DeepMAD (CVPR 2023, arXiv 2303.02165).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from tfnas.core.errors import InputError
from tfnas.core.units import PLAIN, ConvShape, StageEnd, Unit, stage_ends


@dataclass(frozen=True)
class Chain:
    """A network's units: one or more convolutions each, with or without a shortcut around them."""

    units: tuple[Unit, ...]
    is_video: bool = False

    @cached_property
    def stages(self) -> tuple[StageEnd, ...]:
        """Its stages: one ends before every change of resolution but the first layer's, and at the network's end."""
        return stage_ends(self.units)

    @cached_property
    def block_types(self) -> tuple[str, ...]:
        """The block type of every residual super-block, in order."""
        return tuple(block_type for block_type, _ in self._residual_blocks)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """The number of units of every residual super-block, in order. A stage of an architecture counts as one."""
        return tuple(depth for _, depth in self._residual_blocks)

    @cached_property
    def _residual_blocks(self) -> tuple[tuple[str, int], ...]:
        counts: dict[int, int] = {}
        names: dict[int, str] = {}
        for unit in self.units:
            if unit.block_type != PLAIN:
                counts[unit.block] = counts.get(unit.block, 0) + 1
                names[unit.block] = unit.block_type
        return tuple((names[block], count) for block, count in counts.items())


def fan_in(conv: ConvShape) -> int:
    """Numbers that make up one number of a convolution's output."""
    return conv.in_channels // conv.groups * conv.kernel**2 * conv.temporal_kernel


def fan_in_without_groups(conv: ConvShape) -> int:
    """As `fan_in`, but as if only depthwise convolutions had groups: how the TinyNAS program counts."""
    return (1 if conv.depthwise else conv.in_channels) * conv.kernel**2 * conv.temporal_kernel


FanIn = Callable[[ConvShape], float]


def with_exponents(conv_fan_in: FanIn, exponents: tuple[float, float]) -> FanIn:
    """The fan-in with its channels to the power of the first exponent, and the kernel's area to that of the second."""
    channels_exponent, area_exponent = exponents
    if exponents == (1.0, 1.0):
        return conv_fan_in

    def raised(conv: ConvShape) -> float:
        area = conv.kernel**2 * conv.temporal_kernel
        return float((conv_fan_in(conv) / area) ** channels_exponent * area**area_exponent)

    return raised


def unit_entropies(chain: Chain, conv_fan_in: FanIn = fan_in) -> list[float]:
    """Of every unit, half the sum of ln(fan_in)."""
    return [sum([math.log(conv_fan_in(conv)) for conv in unit.convs]) / 2 for unit in chain.units]


def stage_entropies(chain: Chain, entropies: Sequence[float]) -> list[float]:
    """The sum of the units' entropies from the beginning of the network to the end of each stage."""
    sums = list(accumulate(entropies))
    return [sums[stage.num_units - 1] for stage in chain.stages]


def chain_effectiveness(chain: Chain, conv_fan_in: FanIn = fan_in) -> float:
    """DeepMAD's rho: depth over the geometric mean of widths, the largest over the network up to each stage's end.

    Depth is the number of convolutions, the width of a unit is the product of its fan-ins.
    """
    logs = stage_entropies(chain, [2 * entropy for entropy in unit_entropies(chain, conv_fan_in)])
    ends = zip(chain.stages, logs, strict=True)
    return max(stage.num_convs * math.exp(-log / stage.num_convs) for stage, log in ends)


def unequal_depth_penalty(depths: Sequence[int], factor: float) -> float:
    """factor * exp(standard deviation of the depths): what unequal depths cost; nothing without depths."""
    if not depths:
        return 0.0
    mean = sum(depths) / len(depths)
    return factor * math.exp(math.sqrt(sum((depth - mean) ** 2 for depth in depths) / len(depths)))


def weights_of_stages(
    stages: int, defaults: tuple[float, ...], given: tuple[float, ...] | None, *, score: str, as_program: bool = False
) -> tuple[float, ...]:
    """One weight a stage: as given, else the defaults.

    For a network with another number of stages the defaults belong to its last stages, and the first default to all
    stages before. `as_program` refuses that instead, as TinyNAS does. Raises InputError where the numbers do not fit.
    """
    if given is None and not as_program:
        return (defaults[0],) * (stages - len(defaults)) + defaults[max(0, len(defaults) - stages) :]
    weights = defaults if given is None else given
    if len(weights) != stages:
        raise InputError(f"{score}: stage_weights must be {stages} numbers, one a stage, got {len(weights)}: {weights}")
    return weights
