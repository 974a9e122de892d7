"""The authors' JSON form of an architecture (`model.config`): the keys and constants of their released program."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short
from tfnas.core.mbconv_blocks import Block, Conv

# What every layer of theirs says and our networks have too; a document that says otherwise is refused, not ignored.
_COMMON = {"groups": 1, "has_shuffle": False, "bias": False, "use_bn": True, "affine": True}
_CONV_CONSTANTS = {"name": "ConvLayer", **_COMMON, "ops_order": "weight_bn_act"}
_BLOCK_CONSTANTS = {"name": "MBInvertedResBlock", **_COMMON}
_STAGE_NAME = re.compile(r"stage[1-9]\d{0,3}", re.ASCII)
_CLASSIFIER_CONSTANTS = {
    "name": "LinearLayer",
    "bias": True,
    "use_bn": False,
    "affine": False,
    "act_func": None,
    "ops_order": "weight_bn_act",
}


def write_model_config(
    first_stem: Conv, second_stem: Block, stages: Sequence[Sequence[Block]], feature_mix: Conv, num_classes: int
) -> dict[str, Any]:
    """The document: keys `first_stem`, `second_stem`, `stage1`..., `feature_mix_layer`, `classifier`."""
    document: dict[str, Any] = {
        "first_stem": _write_conv(first_stem),
        "second_stem": _write_block(second_stem),
    }
    for stage, blocks in enumerate(stages, 1):
        document[f"stage{stage}"] = [_write_block(block) for block in blocks]
    document["feature_mix_layer"] = _write_conv(feature_mix)
    document["classifier"] = {
        "in_features": feature_mix.out_channels,
        "out_features": num_classes,
        **_CLASSIFIER_CONSTANTS,
    }
    return document


def read_model_config(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the architecture of a document, all but the image size.

    Raises InputError naming the key that is missing, unknown or not supported.
    """
    stage_names = sorted((key for key in document if _STAGE_NAME.fullmatch(key)), key=lambda key: int(key[5:]))
    expected = {"first_stem", "second_stem", "feature_mix_layer", "classifier", *stage_names}
    if stage_names != [f"stage{n}" for n in range(1, len(stage_names) + 1)] or not stage_names:
        raise InputError(f"expected keys stage1, stage2, ... without a gap, got {stage_names}")
    if set(document) != expected:
        missing, unknown = sorted(expected - set(document)), sorted(set(document) - expected)
        raise InputError(f"not a model.config: missing keys {missing}, unknown keys {unknown}")
    feature_mix = _read_conv(document["feature_mix_layer"], "feature_mix_layer")
    classifier = _read(document["classifier"], "classifier", _CLASSIFIER_CONSTANTS, ("in_features", "out_features"))
    if classifier["in_features"] != feature_mix.out_channels:
        raise InputError(
            f"classifier.in_features is {classifier['in_features']}, the feature mix gives {feature_mix.out_channels}"
        )
    return {
        "num_classes": classifier["out_features"],
        "first_stem": _read_conv(document["first_stem"], "first_stem"),
        "second_stem": _read_block(document["second_stem"], "second_stem", elastic=False),
        "stages": tuple(
            tuple(
                _read_block(block, f"{name}[{n}]", elastic=True) for n, block in enumerate(_list(document[name], name))
            )
            for name in stage_names
        ),
        "feature_mix": feature_mix,
    }


def _write_conv(conv: Conv) -> dict[str, Any]:
    return {
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "act_func": conv.activation,
        **_CONV_CONSTANTS,
    }


def _write_block(block: Block) -> dict[str, Any]:
    return {
        "in_channels": block.in_channels,
        "mid_channels": block.mid_channels,
        "se_channels": block.se_channels,
        "out_channels": block.out_channels,
        "kernel_size": block.kernel_size,
        "stride": block.stride,
        "act_func": block.activation,
        **_BLOCK_CONSTANTS,
    }


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{name} must be a list of blocks, got {type(value).__name__}")
    return value


def _read(fields: object, where: str, constants: Mapping[str, Any], numbers: tuple[str, ...]) -> dict[str, int]:
    """The whole-number fields of one layer, after checking that everything else says what our networks do."""
    if not isinstance(fields, dict):
        raise InputError(f"{where} must be an object, got {type(fields).__name__}")
    expected = {*constants, *numbers} | ({"act_func"} if "act_func" not in constants else set())
    if set(fields) != expected:
        missing, unknown = sorted(expected - set(fields)), sorted(set(fields) - expected)
        raise InputError(f"{where}: missing fields {missing}, unknown fields {unknown}")
    for name, value in constants.items():
        if fields[name] != value:
            raise InputError(f"{where}.{name} is {short(fields[name])}; only {value!r} is supported")
    for name in numbers:
        if not isinstance(fields[name], int) or isinstance(fields[name], bool):
            raise InputError(f"{where}.{name} must be a whole number, got {short(fields[name])}")
    return {name: fields[name] for name in numbers}


def _read_conv(fields: object, where: str) -> Conv:
    numbers = _read(fields, where, _CONV_CONSTANTS, ("kernel_size", "stride", "in_channels", "out_channels"))
    assert isinstance(fields, dict)
    try:
        return Conv(**numbers, activation=fields["act_func"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _read_block(fields: object, where: str, *, elastic: bool) -> Block:
    names = ("in_channels", "mid_channels", "se_channels", "out_channels", "kernel_size", "stride")
    numbers = _read(fields, where, _BLOCK_CONSTANTS, names)
    assert isinstance(fields, dict)
    mid = numbers["mid_channels"]
    mid_range = _infer_range(numbers["in_channels"], mid, numbers["se_channels"]) if elastic else (mid, mid)
    try:
        return Block(**numbers, activation=fields["act_func"], mid_range=mid_range)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _infer_range(in_channels: int, mid: int, se: int) -> tuple[int, int]:
    """The range of the operation the width came from (the paper's `e3` or `e6`); the document does not say which.

    SE width tells (in for e3, 2*in for e6); without SE the width does, except that 4*in is both the largest e3 and
    the smallest e6: the wider choice is taken there only when the SE width says so. A width outside stays fixed.
    """
    small, large = (2 * in_channels, 4 * in_channels), (4 * in_channels, 8 * in_channels)
    is_large = se == 2 * in_channels if se else mid > 4 * in_channels
    low, high = large if is_large else small
    return (low, high) if low <= mid <= high else (mid, mid)
