"""Which units of structures are measured for a table: those of random networks, and points evenly over their ranges.

Nothing here knows the rules of a space: random networks say what kinds of units there are, and what channels they have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from tfnas.core.errors import InputError
from tfnas.spaces.zen.unit_shapes import CLASSIFIER, UnitShape, architecture_shapes, classifier_shape
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily

_NETWORKS = 200
_MULTIPLE = 8
_WIDENED = 2.0
_MOST_WEIGHTS = 2**24
_LEAST_MACS = 2.56e8
_TIMES_INITIAL = 4.0
_NEAR = 0.35
_TRIES = 200
_STEPS = 20
_CLASSES = (1, 10, 100, 1000)
_CLASSIFIER_WIDTHS = 5


def random_walk(family: ZenFamily, generator: np.random.Generator) -> Iterator[StructureArchitecture]:
    """Random networks without end: what mutations make of the initial one, from a few mutations to many."""
    while True:
        architecture = family.initial
        for _ in range(family.mutation.rules.sampling_mutations * len(architecture.structure.blocks)):
            architecture = family.mutate(architecture, generator)
            yield architecture


@dataclass(frozen=True)
class _ChannelRange:
    """The least and the largest logarithm of channels out, and of those in and inside over them.

    `given` are the channels in where all units have the same.
    """

    out: tuple[float, float]
    inputs: tuple[float, float]
    inside: tuple[float, float]
    given: int | None

    @classmethod
    def of(cls, shapes: Sequence[UnitShape]) -> _ChannelRange:
        """Of units of a kind; channels out are widened, to both sides, where they vary."""
        outputs, given = {shape.out_channels for shape in shapes}, {shape.in_channels for shape in shapes}
        widened = _WIDENED if len(outputs) > 1 else 1.0
        least = max(min(outputs) / widened, min(_MULTIPLE, *outputs))
        return cls(
            (math.log(least), math.log(max(outputs) * widened)),
            _limits([math.log(shape.in_channels / shape.out_channels) for shape in shapes]),
            _limits([math.log(shape.channels[1] / shape.out_channels) for shape in shapes]),
            given.pop() if len(given) == 1 and len(outputs) > 1 else None,
        )

    def place(self, out: float, inputs: float = 0.5, inside: float = 0.5) -> tuple[float, float, float]:
        """Channels in, inside and out, at shares of their ranges."""
        shares, ranges = (out, inputs, inside), (self.out, self.inputs, self.inside)
        logs = [low + float(share) * (high - low) for share, (low, high) in zip(shares, ranges, strict=True)]
        return math.exp(logs[0] + logs[1]), math.exp(logs[0] + logs[2]), math.exp(logs[0])

    def shape(self, kind: UnitShape, channels: Sequence[float]) -> UnitShape:
        """The unit of a kind with channels in, inside and out near these."""
        inputs, inside, out = channels
        step = math.lcm(_MULTIPLE, kind.groups)
        outputs = round(out) if self.out[0] == self.out[1] else _rounded(out, step)
        return kind._replace(
            in_channels=self.given or (outputs if self.inputs == (0.0, 0.0) else _rounded(inputs, step)),
            inside=_rounded(inside, step) if kind.inside else 0,
            out_channels=outputs,
        )


@dataclass(frozen=True, eq=False)
class UnitRanges:
    """The kinds of units of a family with their ranges of channels.

    Units of more than `most_macs` multiply-accumulates, for an image, are left out; classifiers have up to
    `num_classes`, and up to 1000 at least.
    """

    family: ZenFamily
    ranges: dict[UnitShape, _ChannelRange]
    most_macs: float
    num_classes: int

    @classmethod
    def of(cls, family: ZenFamily, seed: int, most_macs: float | None = None) -> UnitRanges:
        """Of random networks of a family; `most_macs` is four times those of the initial network, or 256 M if that is
        more, unless given.
        """
        walk = random_walk(family, np.random.default_rng((seed, 0)))
        by_kind: dict[UnitShape, list[UnitShape]] = {}
        for architecture in (family.initial, *(next(walk) for _ in range(_NETWORKS))):
            for shape, _ in architecture_shapes(architecture):
                by_kind.setdefault(shape.kind, []).append(shape)
        initial = sum(times * shape.counts.macs for shape, times in architecture_shapes(family.initial))
        return cls(
            family,
            {kind: _ChannelRange.of(shapes) for kind, shapes in by_kind.items()},
            most_macs or max(_LEAST_MACS, _TIMES_INITIAL * initial),
            family.initial.num_classes,
        )

    def allows(self, shape: UnitShape) -> bool:
        """Whether there is such a unit, of a known kind and within the limits."""
        if shape.kind not in self.ranges:
            return False
        try:
            counts = shape.counts
        except InputError:  # as of a projection that only a change of channels calls for
            return False
        return counts.params <= _MOST_WEIGHTS and counts.macs <= self.most_macs

    @property
    def enumerated(self) -> int:
        """How many units lie within the ranges, in steps of 8 channels, whatever their multiply-accumulates."""
        total = 0
        for kind, limits in self.ranges.items():
            ranges = (limits.out, limits.inputs, limits.inside) if kind.inside else (limits.out, limits.inputs)
            free = [high for low, high in ranges if high > low]
            total += math.prod(math.ceil(math.exp(limits.out[1]) / _MULTIPLE) for _ in free)
        return total

    def first_units(self, per_kind: int, seed: int) -> list[UnitShape]:
        """About so many units of every kind, and classifiers."""
        found: list[UnitShape] = []
        for kind in self.ranges:
            found += self._classifiers(kind) if kind.block_type == CLASSIFIER else self._even(kind, per_kind, seed)
        return found

    def _even(self, kind: UnitShape, count: int, seed: int) -> list[UnitShape]:
        """Units of a kind evenly over the logarithms of their channels, the smallest and the largest among them."""
        limits = self.ranges[kind]
        found: dict[UnitShape, None] = {}
        for share in (0.0, *(1 - step / _STEPS for step in range(_STEPS))):
            shape = limits.shape(kind, limits.place(share))
            if self.allows(shape):
                found[shape] = None
                if len(found) == 2:
                    break
        sobol = qmc.Sobol(3, seed=np.random.default_rng((seed, 1)))
        for row in sobol.random(2 ** math.ceil(math.log2(8 * count + 8))):
            shape = limits.shape(kind, limits.place(*row))
            if self.allows(shape) and len(found) < count:
                found[shape] = None
        return list(found)

    def _classifiers(self, kind: UnitShape) -> list[UnitShape]:
        limits = self.ranges[kind]
        low, high = (out + inputs for out, inputs in zip(limits.out, limits.inputs, strict=True))
        if high > low:
            low, high = max(math.log(_MULTIPLE), low - math.log(_WIDENED)), high + math.log(_WIDENED)
        widths = {_rounded(width, _MULTIPLE) for width in np.exp(np.linspace(low, high, _CLASSIFIER_WIDTHS))}
        counts = sorted({*_CLASSES, self.num_classes})
        return [
            classifier_shape(kind.notation, width, count, kind.size)
            for width in sorted(widths)
            for count in counts
            if width * count <= _MOST_WEIGHTS
        ]

    def near(self, shape: UnitShape, generator: np.random.Generator, without: Iterable[UnitShape]) -> UnitShape | None:
        """A unit of the same kind with channels a little more or less; None where none is found."""
        taken, limits = set(without), self.ranges[shape.kind]
        for _ in range(_TRIES):
            factors = np.exp(generator.uniform(-_NEAR, _NEAR, 3))
            channels = [channel * float(factor) for channel, factor in zip(shape.channels, factors, strict=True)]
            found = limits.shape(shape.kind, channels)
            if found not in taken and self.allows(found):
                return found
        return None

    def network_units(self, count: int, seed: tuple[int, int], without: Iterable[UnitShape] = ()) -> list[UnitShape]:
        """So many different units of random networks, or less where there are not more; of all kinds alike."""
        generator = np.random.default_rng(seed)
        taken, walk = set(without), random_walk(self.family, generator)
        by_kind: dict[UnitShape, list[UnitShape]] = {kind: [] for kind in self.ranges}
        for _ in range(_NETWORKS):
            for shape, _ in architecture_shapes(next(walk)):
                if shape not in taken and self.allows(shape):
                    taken.add(shape)
                    by_kind[shape.kind].append(shape)
        rows = [[shapes[place] for place in generator.permutation(len(shapes))] for shapes in by_kind.values()]
        found: list[UnitShape] = []
        while any(rows) and len(found) < count:
            for index in generator.permutation(len(rows)):
                if rows[index] and len(found) < count:
                    found.append(rows[index].pop())
        return found


def _limits(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _rounded(value: float, step: int) -> int:
    return max(1, round(float(value) / step)) * step
