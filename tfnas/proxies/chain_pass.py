"""Two batches of images through a network without shortcuts, computed from its units: no module is built.

It is what the network's module computes in two passes with batch statistics, up to rounding, in less time on a CPU:

* both batches are one matrix of rows (pixels x channels), and batch norm treats its halves separately;
* a 1x1 convolution that widens needs no statistics of its output: var(w x) = w cov(x) w^T. Its batch norm is folded
  into its weights, and its wide output never exists whole: some images at a time are expanded, activated, and taken by
  the next convolution, while they are in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.core.architecture import Architecture
from tfnas.core.units import ConvShape, SqueezeExciteShape, Unit
from tfnas.nn.blocks import BATCH_NORM_EPS, to_maps, to_rows
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.spaces.mbconv.mbconv_family import architecture_units
from tfnas.spaces.zen.structure_network import StructureNetwork
from tfnas.spaces.zen.super_block import BATCH_NORM_EPSILON
from tfnas.spaces.zen.zen_family import StructureArchitecture
from tfnas.supernet.elastic import cpu_kernels
from tfnas.utils.devices import named_device

_BATCHES = 2
_TILE_BYTES = 2**19
_FEWEST_FOLDED = 2**14
_FOLDING_GAIN = 8


class ChainOutput(NamedTuple):
    """What two batches give."""

    features: tuple[Tensor, Tensor]
    """The last feature map of each batch, (N, numbers)."""
    variances: Tensor
    """Of each batch norm in the order of computing, for each batch, the mean over channels of the variance, which is
    the sum of squares over n - 1: (norms, 2), float64."""


class ChainDescription(NamedTuple):
    """Units in order with all their sizes, and the epsilon of their batch norms."""

    units: tuple[Unit, ...]
    epsilon: float


def describe_chain(scored: ScoredNetwork, options: ScoreOptions) -> ChainDescription | None:
    """The network without shortcuts as `pass_chain` takes it.

    None where only a module can say or do it: other modules than this package's, other families, videos, networks that
    are to keep their shortcuts or have no batch norm, other devices than the CPU.
    """
    if options.residuals or cpu_kernels(named_device(options.device)) is None:
        return None
    structure, architecture, module = scored.any_structure, scored.adapted(options), scored.module
    if structure is not None and not structure.is_video:
        use_se = isinstance(architecture, StructureArchitecture) and architecture.use_se
        if module is not None:
            assert isinstance(module, StructureNetwork)  # a module is described by what it was built from
            if not module.batch_norm:
                return None
            use_se = module.use_se
        units = structure.units(scored.image_size(options), use_se=use_se)
        return ChainDescription(units, BATCH_NORM_EPSILON[structure.notation])
    if isinstance(architecture, Architecture):
        return ChainDescription(architecture_units(architecture), BATCH_NORM_EPS)
    return None


def weight_shapes(chain: ChainDescription) -> Iterator[tuple[int, int, int, int]]:
    """The shapes of all weights in the order in which a network's module has them."""
    for unit in chain.units:
        for number, conv in enumerate(unit.convs):
            yield _weight_shape(conv)
            if unit.squeeze_excite is not None and unit.squeeze_excite.after == number:
                yield from map(_weight_shape, unit.squeeze_excite.convs)


def _weight_shape(conv: ConvShape) -> tuple[int, int, int, int]:
    return conv.out_channels, conv.in_channels // conv.groups, conv.kernel, conv.kernel


@torch.no_grad()
def pass_chain(chain: ChainDescription, weights: Sequence[Tensor], images: Tensor, changed: Tensor) -> ChainOutput:
    """Pass two batches (N, C, H, H) of the chain's image size through it, without shortcuts; biases are 0."""
    passing = _Pass(images, chain.epsilon, iter(weights))
    maps = _Maps(to_rows(torch.cat((images, changed))), images.shape[-1])
    for unit in chain.units:
        maps = passing.through(unit, maps)
    first, second = passing.whole(maps).view(_BATCHES, len(images), -1)
    return ChainOutput((first, second), passing.variances())


class _Expansion(NamedTuple):
    """A 1x1 convolution that is still to be computed: of either batch weights (in, out), batch norm folded, and means
    (out) to subtract."""

    weights: tuple[Tensor, ...]
    means: tuple[Tensor, ...]
    activation: str | None


class _Maps(NamedTuple):
    """Maps of `size` pixels a side as rows (2 * N * size^2, C), before the expansion."""

    rows: Tensor
    size: int
    expansion: _Expansion | None = None


class _Pass:
    def __init__(self, images: Tensor, epsilon: float, weights: Iterator[Tensor]) -> None:
        kernels = cpu_kernels(images.device)
        assert kernels is not None  # without them, no chain is described
        self.kernels = kernels
        self.images, self.epsilon, self.weights = len(images), epsilon, weights
        self.scales: list[Tensor] = []  # of each batch norm for either batch: 1 / standard deviation
        self.positions: list[int] = []  # and how many numbers each is of

    def through(self, unit: Unit, maps: _Maps) -> _Maps:
        """The output of a unit."""
        for number, conv in enumerate(unit.convs):
            last = number == len(unit.convs) - 1
            maps = self._layer(maps, conv, unit.activation if not last or unit.ends_in_activation else None)
            if unit.squeeze_excite is not None and unit.squeeze_excite.after == number:
                maps = self._excited(maps, unit.squeeze_excite, unit.activation)
        return maps

    def whole(self, maps: _Maps) -> Tensor:
        """The rows after the expansion, if there is one to come."""
        if maps.expansion is None:
            return maps.rows
        halves = zip(self._halves(maps.rows), *maps.expansion[:2], strict=True)
        rows = torch.cat([torch.addmm(mean, half, weight, beta=-1) for half, weight, mean in halves])
        return _activated(rows, maps.expansion.activation)

    def _halves(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.chunk(_BATCHES)

    def _layer(self, maps: _Maps, conv: ConvShape, activation: str | None) -> _Maps:
        """Convolution, batch norm, activation."""
        weight = next(self.weights)
        if _widens(conv, self.images * maps.size**2):
            rows = self.whole(maps)
            return _Maps(rows, maps.size, self._folded(rows, weight.flatten(1), activation))
        rows = self._convolved(maps, conv, weight)
        self._normalize(rows, activation)
        return _Maps(rows, conv.resolution_out)

    def _folded(self, rows: Tensor, weight: Tensor, activation: str | None) -> _Expansion:
        weights, means = [], []
        for half in self._halves(rows):
            mean, _ = self.kernels.statistics(half, self.epsilon)
            covariance = torch.addr(half.t() @ half, mean, mean, beta=1 / half.shape[0], alpha=-1)
            variance = ((weight @ covariance) * weight).sum(1).clamp_min_(0)
            scale = variance.add_(self.epsilon).rsqrt_()
            folded = weight * scale[:, None]
            weights.append(folded.t())
            means.append(folded @ mean)
            self._record(half, scale)
        return _Expansion(tuple(weights), tuple(means), activation)

    def _normalize(self, rows: Tensor, activation: str | None) -> None:
        """Batch norm of either batch and the activation, in place."""
        for half in self._halves(rows):
            mean, scale = self.kernels.statistics(half, self.epsilon)
            if activation is None:
                self.kernels.normalize(half, mean, scale)
            else:
                self.kernels.normalize_and_activate(half, mean, scale, half, activation == "relu")
            self._record(half, scale)

    def _record(self, half: Tensor, scale: Tensor) -> None:
        self.scales.append(scale)
        self.positions.append(half.shape[0])

    def variances(self) -> Tensor:
        """See `ChainOutput`; all at once, because norms are many and small."""
        biased = torch.cat(self.scales).double().pow_(-2).sub_(self.epsilon).clamp_min_(0)
        sizes = [scale.shape[0] for scale in self.scales]
        means = torch.stack([part.mean() for part in torch.split(biased, sizes)])
        positions = torch.tensor(self.positions, dtype=torch.float64)
        return (means * positions / (positions - 1)).view(-1, _BATCHES)

    def _convolved(self, maps: _Maps, conv: ConvShape, weight: Tensor) -> Tensor:
        weight = weight.contiguous(memory_format=torch.channels_last)
        if maps.expansion is None:
            return _convolve(maps.rows, maps.size, conv, weight)
        shifted = maps.expansion.activation == "relu" and _is_point(conv)
        expanded = self._expanded(maps, maps.expansion, shifted=shifted)
        parts = [_convolve(rows, maps.size, conv, weight) for rows in expanded]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _expanded(self, maps: _Maps, expansion: _Expansion, *, shifted: bool) -> Iterator[Tensor]:
        """Some images' expanded rows at a time, all in the same memory.

        `shifted`: with the means, for max(x - mean, 0) + mean = max(x, mean) is less work. After a 1x1 convolution they
        are a constant of each channel, which batch norm takes away.
        """
        pixels, channels = maps.size**2, expansion.means[0].shape[0]
        row_bytes = maps.rows.element_size() * channels
        tile = pixels * min(self.images, self.kernels.images_per_tile(_TILE_BYTES // row_bytes, pixels))
        buffer = maps.rows.new_empty(tile, channels)
        for half, weight, mean in zip(self._halves(maps.rows), *expansion[:2], strict=True):
            for rows in torch.split(half, tile):
                out = buffer[: rows.shape[0]]
                if shifted:
                    yield torch.mm(rows, weight, out=out).clamp_min_(mean)
                else:
                    yield _activated(torch.addmm(mean, rows, weight, beta=-1, out=out), expansion.activation)

    def _excited(self, maps: _Maps, squeeze: SqueezeExciteShape, activation: str) -> _Maps:
        rows = self.whole(maps)
        gates = rows.new_empty(_BATCHES * self.images, rows.shape[1])
        self.kernels.image_means(rows, gates)
        for conv, then in zip(squeeze.convs, (activation, None), strict=True):
            gates = gates @ next(self.weights).flatten(1).t()
            if conv.norm:
                self._normalize(gates, then)
            else:
                gates = _activated(gates, then)
        self.kernels.excite(rows, gates.sigmoid_())
        return _Maps(rows, maps.size)


def _widens(conv: ConvShape, pixels: int) -> bool:
    """Whether the moments of a convolution's input, of so many pixels in a batch, are less work than its output's."""
    if not _is_point(conv):
        return False
    inputs, outputs = conv.in_channels, conv.out_channels
    numbers = pixels * outputs
    return numbers >= _FEWEST_FOLDED and inputs**2 * (pixels + outputs) <= _FOLDING_GAIN * numbers  # measured


def _is_point(conv: ConvShape) -> bool:
    return (conv.kernel, conv.stride, conv.groups) == (1, 1, 1)


def _convolve(rows: Tensor, size: int, conv: ConvShape, weight: Tensor) -> Tensor:
    if _is_point(conv):
        return rows @ weight.flatten(1).t()
    maps = to_maps(rows, -1, size, size)
    return to_rows(functional.conv2d(maps, weight, None, conv.stride, conv.kernel // 2, 1, conv.groups))


def _activated(rows: Tensor, activation: str | None) -> Tensor:
    """In place."""
    if activation is None:
        return rows
    return rows.relu_() if activation == "relu" else functional.silu(rows, inplace=True)
