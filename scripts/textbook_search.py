"""The search's two steps as one would write them down first: what `bench_search.py` measures against.

Contiguous tensors, x * sigmoid(x), every path through the stem, all activations of all operations kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.core.mbconv_blocks import Block, Conv
from tfnas.core.space import SearchSpace
from tfnas.latency.counted_table import counted_table
from tfnas.searching.differentiable.architecture_parameters import (
    ArchitectureParameters,
    operations_ms,
    sample_mixture_weights,
)
from tfnas.searching.differentiable.search_config import space_schedule
from tfnas.supernet.supernet import Path

NUM_CLASSES, TEMPERATURE = 100, 5.0


def middle_target(space: SearchSpace) -> float:
    """A cost in MACs within the space's range."""
    low, high = counted_table(space, "macs").range_ms(space)
    return (low + high) / 2


class Textbook:
    """The search's two steps as one would write them down first; weights by the names of the supernet's state."""

    def __init__(self, space: SearchSpace, state: Mapping[str, Tensor], architecture: ArchitectureParameters) -> None:
        self.space = space
        self.widths = [[space.initial_width(place, op) for op in space.operations] for place in space.blocks]
        table = counted_table(space, "macs")
        self.base = table.base_ms(NUM_CLASSES)
        self.table = operations_ms(space, table, self.widths).tolist()
        self.target = middle_target(space)
        self.weights = {
            name: value.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
            for name, value in state.items()
        }
        self.log_alphas = architecture.log_alphas.detach().clone().requires_grad_()
        self.betas = [betas.detach().clone().requires_grad_() for betas in architecture.betas]
        self.schedule = space_schedule(space)
        schedule = self.schedule
        self.sgd = torch.optim.SGD(
            self.weights.values(), lr=schedule.w_lr, momentum=schedule.w_mom, weight_decay=schedule.w_wd
        )
        self.adam = torch.optim.Adam(
            [self.log_alphas, *self.betas], lr=schedule.a_lr, betas=(0.5, 0.999), weight_decay=schedule.a_wd
        )

    def block(self, name: str, block: Block, features: Tensor) -> Tensor:
        """An MBConv of which the first channels are active."""
        width = block.mid_channels
        active = torch.arange(width, device=features.device)
        branch = features
        if block.expands:
            weight = self.weights[f"{name}.inverted_bottleneck.conv.weight"].index_select(0, active)
            branch = activate(normalize(functional.conv2d(branch, weight)), block.activation)
        weight = self.weights[f"{name}.depth_conv.conv.weight"].index_select(0, active)
        branch = functional.conv2d(branch, weight, None, block.stride, block.kernel_size // 2, groups=width)
        branch = activate(normalize(branch), block.activation)
        if block.se_channels:
            se = f"{name}.squeeze_excite"
            weight = self.weights[f"{se}.conv_reduce.weight"].index_select(1, active)
            gate = functional.conv2d(branch.mean((2, 3), keepdim=True), weight, self.weights[f"{se}.conv_reduce.bias"])
            weight = self.weights[f"{se}.conv_expand.weight"].index_select(0, active)
            bias = self.weights[f"{se}.conv_expand.bias"].index_select(0, active)
            gate = functional.conv2d(activate(gate, block.activation), weight, bias)
            branch = branch * torch.sigmoid(gate)
        weight = self.weights[f"{name}.point_linear.conv.weight"].index_select(1, active)
        branch = normalize(functional.conv2d(branch, weight))
        return features + branch if block.has_residual else branch

    def forward(self, images: Tensor, through: Callable[[int, Tensor], Tensor], depths: Sequence[Tensor]) -> Tensor:
        """Logits; `through` takes the number of a searchable block and its input."""
        space = self.space
        features = self.convolution("first_stem", space.first_stem, images)
        features = self.block("second_stem", space.second_stem, features)
        for stage, first, choices, weights in zip(
            space.stages, space.first_blocks, space.depth_choices, depths, strict=True
        ):
            outputs = {0: features}
            for position in range(stage.blocks):
                outputs[position + 1] = through(first + position, outputs[position])
            features = sum(weights[index] * outputs[depth] for index, depth in enumerate(choices))
        features = self.convolution("feature_mix_layer", space.feature_mix, features)
        pooled = features.mean((2, 3))
        return pooled @ self.weights["classifier.linear.weight"].t() + self.weights["classifier.linear.bias"]

    def convolution(self, name: str, conv: Conv, images: Tensor) -> Tensor:
        """First stem and feature mix."""
        weight = self.weights[f"{name}.conv.weight"]
        features = functional.conv2d(images, weight, stride=conv.stride, padding=conv.kernel_size // 2)
        return activate(normalize(features), conv.activation)

    def operation(self, number: int, index: int, features: Tensor) -> Tensor:
        """An operation of a searchable block at its initial width."""
        place, operation = self.space.blocks[number], self.space.operations[index]
        block = self.space.block(place, operation, self.widths[number][index])
        name = f"stage{place.stage + 1}.block{place.position + 1}.m_ops.{index}"
        return self.block(name, block, features)

    def weight_loss(self, images: Tensor, labels: Tensor, paths: Sequence[Path]) -> Tensor:
        """The sum of the paths' cross entropies."""
        total = images.new_zeros(())
        for path in paths:
            depths = [betas.detach().softmax(0) for betas in self.betas]
            logits = self.forward(images, lambda n, x, path=path: self.operation(n, path.operations[n], x), depths)
            total = total + functional.cross_entropy(logits, labels)
        return total

    def architecture_loss(self, images: Tensor, labels: Tensor, noise: torch.Generator) -> Tensor:
        """Cross entropy and the term of the expected cost, of a mixture of all operations."""
        mixture = sample_mixture_weights(self.log_alphas, TEMPERATURE, noise)
        depths = [betas.softmax(0) for betas in self.betas]

        def through(number: int, features: Tensor) -> Tensor:
            outputs = [mixture[number, index] * self.operation(number, index, features) for index in range(len(row))]
            return sum(outputs[1:], outputs[0])

        row = self.table[0]
        loss = functional.cross_entropy(self.forward(images, through, depths), labels)
        costs = (mixture * mixture.new_tensor(self.table)).sum(1)
        expected = costs.new_tensor(self.base)
        space = self.space
        for stage, first, choices, weights in zip(
            space.stages, space.first_blocks, space.depth_choices, depths, strict=True
        ):
            sums = [costs.new_zeros(()), *costs[first : first + stage.blocks].cumsum(0)]
            expected = expected + sum(weights[index] * sums[depth] for index, depth in enumerate(choices))
        return loss + self.schedule.lambda_lat * (expected / self.target - 1).abs()

    def weight_step(self, images: Tensor, labels: Tensor, paths: Sequence[Path], autocast: bool) -> None:
        """One SGD step."""
        self.sgd.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            loss = self.weight_loss(images, labels, paths)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights.values(), self.schedule.grad_clip)
        self.sgd.step()

    def architecture_step(self, images: Tensor, labels: Tensor, noise: torch.Generator, autocast: bool) -> None:
        """One Adam step; the weights are held fixed."""
        for weight in self.weights.values():
            weight.requires_grad_(False)
        self.adam.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            loss = self.architecture_loss(images, labels, noise)
        loss.backward()
        nn.utils.clip_grad_norm_([self.log_alphas, *self.betas], self.schedule.grad_clip)
        self.adam.step()
        with torch.no_grad():
            for parameter in (self.log_alphas, *self.betas):
                parameter.copy_(parameter.log_softmax(-1))
        for weight in self.weights.values():
            weight.requires_grad_(True)


def normalize(features: Tensor) -> Tensor:
    """Batch norm by the batch's own statistics, without affine parameters."""
    return functional.batch_norm(features, None, None, training=True)


def activate(features: Tensor, name: str) -> Tensor:
    """ReLU, or swish of two operations."""
    return functional.relu(features) if name == "relu" else features * torch.sigmoid(features)
