"""Hypothesis strategies for search spaces and for architectures chosen from them."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from tfnas.core.mbconv_blocks import ACTIVATIONS
from tfnas.core.space import Operation, SearchSpace, Stage

_channels = st.integers(2, 40)
_operations = st.builds(Operation, st.sampled_from([1, 3, 5, 7]), st.integers(1, 8), st.booleans())


@st.composite
def stages(draw, in_channels):
    """One to four stages; a stage that keeps its shape may be skippable."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        channels, stride, blocks = draw(_channels), draw(st.sampled_from([1, 2])), draw(st.integers(1, 4))
        least = 0 if stride == 1 and channels == in_channels else 1
        made.append(
            Stage(channels, stride, blocks, draw(st.sampled_from(ACTIVATIONS)), draw(st.integers(least, blocks)))
        )
        in_channels = channels
    return tuple(made)


@st.composite
def search_spaces(draw):
    """Spaces of every shape."""
    second = draw(_channels)
    return SearchSpace(
        name="made",
        image_size=draw(st.integers(1, 256)),
        stem_channels=draw(_channels),
        stem_stride=draw(st.sampled_from([1, 2])),
        stem_activation=draw(st.sampled_from(ACTIVATIONS)),
        second_stem_channels=second,
        second_stem_se_channels=draw(st.integers(0, 8)),
        stages=draw(stages(second)),
        feature_mix_channels=draw(_channels),
        feature_mix_activation=draw(st.sampled_from(ACTIVATIONS)),
        operations=tuple(draw(st.lists(_operations, min_size=1, max_size=4, unique=True))),
        width_bounds=(Fraction(draw(st.integers(4, 7)), 7), Fraction(draw(st.integers(7, 14)), 7)),
        schedule={"epochs": draw(st.integers(11, 50)), "w_lr": draw(st.floats(1e-6, 1))},
    )


@st.composite
def architectures(draw):
    """Any architecture of any space."""
    space = draw(search_spaces())
    operations = [draw(st.integers(0, len(space.operations) - 1)) for _ in space.blocks]
    depths = [draw(st.sampled_from(choices)) for choices in space.depth_choices]
    widths = [
        draw(st.integers(*space.width_range(place, space.operations[index])))
        for place, index in zip(space.blocks, operations, strict=True)
    ]
    return space.architecture(operations, depths, widths, draw(st.integers(1, 1000)))
