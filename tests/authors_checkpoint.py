"""Search checkpoints made up in the form of the TF-NAS authors' program, for a small space."""

from __future__ import annotations

import torch

from tfnas.core.space import Operation, SearchSpace, Stage


def small_space(**changes):
    fields = {
        "name": "small",
        "image_size": 16,
        "stem_channels": 4,
        "stem_stride": 2,
        "stem_activation": "relu",
        "second_stem_channels": 4,
        "second_stem_se_channels": 2,
        "stages": (Stage(6, 2, 1, "relu"), Stage(8, 1, 2, "swish")),
        "feature_mix_channels": 12,
        "feature_mix_activation": "swish",
        "operations": (Operation(3, 3, False), Operation(5, 6, True)),
    }
    return SearchSpace(**{**fields, **changes})


# The shapes are written out here from the description of the authors' files, not taken from the package.
SHAPES = {
    "first_stem.conv.weight": (4, 3, 3, 3),
    "second_stem.depth_conv.conv.weight": (4, 1, 3, 3),
    "second_stem.squeeze_excite.conv_reduce.weight": (2, 4, 1, 1),
    "second_stem.squeeze_excite.conv_reduce.bias": (2,),
    "second_stem.squeeze_excite.conv_expand.weight": (4, 2, 1, 1),
    "second_stem.squeeze_excite.conv_expand.bias": (4,),
    "second_stem.point_linear.conv.weight": (4, 4, 1, 1),
    "feature_mix_layer.conv.weight": (12, 8, 1, 1),
    "classifier.linear.weight": (7, 12),
    "classifier.linear.bias": (7,),
}
BLOCKS = {"stage1.block1": (4, 6), "stage2.block1": (6, 8), "stage2.block2": (8, 8)}
ALPHAS = {"stage1.block1": (0.3, 0.7), "stage2.block1": (0.8, 0.2), "stage2.block2": (0.1, 0.9)}
WIDTHS = {"stage1.block1": (12, 27), "stage2.block1": (19, 30), "stage2.block2": (24, 61)}


def block_shapes(in_channels, out_channels):
    """Names and shapes of the two operations of `small_space` in one block."""
    for index, (kernel_size, width, se) in enumerate(((3, 4 * in_channels, 0), (5, 8 * in_channels, 2 * in_channels))):
        prefix = f"m_ops.{index}"
        yield f"{prefix}.inverted_bottleneck.conv.weight", (width, in_channels, 1, 1)
        yield f"{prefix}.depth_conv.conv.weight", (width, 1, kernel_size, kernel_size)
        if se:
            yield f"{prefix}.squeeze_excite.conv_reduce.weight", (se, width, 1, 1)
            yield f"{prefix}.squeeze_excite.conv_reduce.bias", (se,)
            yield f"{prefix}.squeeze_excite.conv_expand.weight", (width, se, 1, 1)
            yield f"{prefix}.squeeze_excite.conv_expand.bias", (width,)
        yield f"{prefix}.point_linear.conv.weight", (out_channels, width, 1, 1)


def authors_document(prefix="module.", seed=0):
    """A checkpoint whose best operations are 1, 0, 1, whose depths are 1 and 2, and whose widths are `WIDTHS`."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    masks = {"stage1": {}, "stage2": {}}
    for block, (in_channels, out_channels) in BLOCKS.items():
        for name, shape in block_shapes(in_channels, out_channels):
            state[f"{block}.{name}"] = torch.randn(shape, generator=generator)
        state[f"{block}.log_alphas"] = torch.tensor(ALPHAS[block]).log()
        stage, position = block.split(".")
        masks[stage][position] = {}
        for index, (width, top) in enumerate(zip(WIDTHS[block], (4 * in_channels, 8 * in_channels), strict=True)):
            mask = torch.zeros(top)
            mask[torch.randperm(top, generator=generator)[:width]] = 1.0
            masks[stage][position][index] = mask
    state["stage1.betas"] = torch.zeros(1)
    state["stage2.betas"] = torch.tensor([0.4, 0.6]).log()
    return {"state_dict": {prefix + name: value for name, value in state.items()}, "mc_mask_dddict": masks}


IMAGENET_IN_CHANNELS = ((16, 24), (24, 40, 40), (40, 80, 80, 80), (80, 112, 112, 112), (112, 192, 192, 192), (192,))


def imagenet_document(operation=1):
    """Of their own space, what says the architecture: one operation leads everywhere, stages are at their deepest.

    Operations 0, 2, 4 and 6 have 4 times as many channels as come in at most, the others 8 times; half are active.
    """
    state, masks = {"classifier.linear.bias": torch.zeros(100)}, {}
    for stage, blocks in enumerate(IMAGENET_IN_CHANNELS, 1):
        masks[f"stage{stage}"] = {}
        for block, in_channels in enumerate(blocks, 1):
            log_alphas = torch.full((8,), 0.1)
            log_alphas[operation] = 0.3
            state[f"stage{stage}.block{block}.log_alphas"] = log_alphas.log()
            tops = [in_channels * (4, 8)[index % 2] for index in range(8)]
            masks[f"stage{stage}"][f"block{block}"] = {
                index: (torch.arange(top) < top // 2).float() for index, top in enumerate(tops)
            }
        state[f"stage{stage}.betas"] = torch.arange(float(len(blocks)))
    return {"state_dict": {f"module.{name}": value for name, value in state.items()}, "mc_mask_dddict": masks}
