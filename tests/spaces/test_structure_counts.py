"""Counts of the original programs and true counts, against the original programs' own values."""

from __future__ import annotations

import pytest
import torch

import tfnas
from tfnas import InputError, zoo
from tfnas.core.units import Counts
from tfnas.spaces.zen.structure_counts import real_counts, reference_counts
from tfnas.spaces.zen.structure_network import StructureNetwork

# Of ZenNAS's program, with residuals and without: MACs, parameters; and the true ones: parameters, convolutions' MACs,
# their biases' (none without residuals), classifier's MACs.
ZENNAS = {
    "init_XXBL_cifar": {
        True: (6550784, 101721, 102572, 6709248, 29696, 12800),
        False: (6318080, 94761, 95260, 6250496, 0, 12800),
    },
    "zennet_cifar_model_size1M_res32": {
        True: (155216928, 1031185, 1040844, 159208448, 240000, 51200),
        False: (131012736, 897217, 905052, 129551360, 0, 51200),
    },
    "zennet_imagenet1k_flops400M_res224": {
        True: (399976216, 5673833, 5698208, 398165376, 205408, 2048000),
        False: (398356864, 5642561, 5666088, 391893376, 0, 2048000),
    },
    "zennet_imagenet1k_latency01ms_res224": {
        True: (1746251272, 30050273, 30068776, 1754240768, 302624, 2384000),
        False: (1715477312, 29448729, 29463760, 1711490816, 0, 2384000),
    },
    "init_IDW_imagenet": {
        True: (162396776, 2813889, 2824264, 157286080, 227360, 2048000),
        False: (158228640, 2782105, 2791504, 151867072, 0, 2048000),
    },
}
LAYERS = dict(zip(ZENNAS, (6, 18, 14, 10, 6), strict=True))

# Of TinyNAS's program: resolution, MACs, parameters, layers; true MACs of the convolutions, true parameters.
TINYNAS = {
    "deepmad-R18": (224, 1837323208, 11153088, 115, 1810902016, 11153088),
    "deepmad-R50": (224, 4087263656, 24208144, 157, 4041529408, 24208144),
    "deepmad-29M-224": (224, 4448877776, 26876956, 71, 4321976752, 26876956),
    "R50-like": (224, 3674831048, 18474592, 82, 3628113664, 18474592),
    "maedet_s": (480, 10992870000, 21233120, 79, 10883750400, 21233120),
    "mixed7d0G": (224, 106853001.5, 887208, 47, 236895008, 1409368),
    "E3D_S": (160, 1952849600, 1976232, 83, 1863680000, 1976232),
}


def classes_and_size(name):
    return (100, 32) if "cifar" in name else (1000, 224)


@pytest.mark.parametrize("name", ZENNAS)
@pytest.mark.parametrize("residuals", [True, False])
def test_zennas_counts(name, residuals):
    classes, size = classes_and_size(name)
    structure = zoo.facts(name).structure
    macs, params, true_params, conv, bias, linear = ZENNAS[name][residuals]
    book = reference_counts(structure, size, classes, residuals)
    assert (book.macs, book.params, book.layers) == (macs, params, LAYERS[name])
    pooled = structure.out_channels * (size // structure.total_stride) ** 2
    true_macs = conv + bias + linear + classes + pooled
    assert real_counts(structure, size, classes, residuals) == Counts(true_params, true_macs)


@pytest.mark.parametrize(
    ("name", "size", "macs"),
    [
        ("zennet_imagenet1k_flops400M_res224", 64, 34531936),
        ("zennet_imagenet1k_latency01ms_res224", 64, 144740512),
        ("init_IDW_imagenet", 64, 15137696),
    ],
)
def test_zennas_counts_at_another_size(name, size, macs):
    assert reference_counts(zoo.facts(name).structure, size, 1000).macs == macs


def test_zennas_counts_with_squeeze_and_excite():
    structure = zoo.facts("zennet_imagenet1k_flops400M_res224").structure
    book = reference_counts(structure, 224, 1000, use_se=True)
    assert (book.macs, book.params) == (403054632, 7441649)
    true_macs = 399911872 + 2048000 + 205408 + 1000 + 2048 * 49
    assert real_counts(structure, 224, 1000, use_se=True) == Counts(7466024, true_macs)


def test_parameters_follow_the_classes():
    assert reference_counts(zoo.facts("zennet_cifar_model_size1M_res32").structure, 32, 10).params == 985105


@pytest.mark.parametrize("name", TINYNAS)
def test_tinynas_counts(name):
    size, macs, params, layers, true_macs, true_params = TINYNAS[name]
    known = zoo.facts(name)
    book = reference_counts(known.structure, size, frames=known.frames)
    assert (book.macs, book.params, book.layers) == (macs, params, layers)
    assert real_counts(known.structure, size, frames=known.frames) == Counts(true_params, true_macs)


def test_published_figures_of_tinynas_are_with_a_classifier():
    """1000 classes: 18.47 M + 2.90 M = 21.37 M parameters, and 0.887 MB + 1.28 MB."""
    assert reference_counts(zoo.facts("R50-like").structure, 224, 1000).params == 18474592 + 2897 * 1000
    assert reference_counts(zoo.facts("mixed7d0G").structure, 224, 1000).params == 887208 + 1281 * 1000


def values(shared_data):
    import json

    return json.loads((shared_data / "oracles" / "zeroshot.json").read_text())


def test_book_counts_of_the_oracle(shared_data):
    from tfnas.spaces.zen.structure import Structure

    oracle = values(shared_data)
    for name, entry in oracle["zennas"].items():
        book, structure = entry["bookkeeping"], Structure.parse(entry["structure"])
        settings = structure, book["resolution"], book["num_classes"]
        found = reference_counts(*settings)
        assert (found.macs, found.params, found.layers) == (
            book["get_FLOPs"],
            book["get_model_size"],
            book["get_num_layers"],
        ), name
        plain = reference_counts(*settings, residuals=False)
        assert (plain.macs, plain.params) == (book["get_FLOPs_no_reslink"], book["get_model_size_no_reslink"]), name
        if "get_FLOPs_SE" in book:
            squeezed = reference_counts(*settings, use_se=True)
            assert (squeezed.macs, squeezed.params) == (book["get_FLOPs_SE"], book["get_model_size_SE"])
    for name, entry in oracle["incorporated"].items():
        classes = 100 if entry["resolution"] == 32 else 1000
        found = reference_counts(Structure.parse(entry["structure"]), entry["resolution"], classes)
        assert (found.macs, found.params) == (entry["get_FLOPs"], entry["get_model_size"]), name
    for name, entry in oracle["tinynas"].items():
        structure = Structure.from_tinynas(entry["structure"])
        for setting, macs in entry["flops"].items():
            size, _, frames = setting.partition("x")
            assert reference_counts(structure, int(size), frames=int(frames or 1)).macs == macs, name


def test_stages_of_the_oracle(shared_data):
    from tfnas.spaces.zen.structure import Structure

    oracle, seen = values(shared_data), 0
    for program in ("tinynas", "incorporated"):
        for name, entry in oracle[program].items():
            for key in [key for key in entry if key.startswith("stage_info")]:
                written = entry["structure"]
                structure = Structure.parse(written) if isinstance(written, str) else Structure.from_tinynas(written)
                stages, info = structure.stages(int(key.partition("info_")[2] or entry["resolution"])), entry[key]
                assert [stage.last_block for stage in stages] == info["idx"], name
                assert [stage.num_units for stage in stages] == info["block_num"], name
                convs = info["layer_num"] if program == "tinynas" else info["conv_layers"]
                assert [stage.num_convs for stage in stages] == convs, name
                assert [stage.channels for stage in stages] == info["channels"], name
                if name != "deepmad-29M-224":  # its program takes every map behind squeeze-and-excite for one pixel
                    assert [stage.resolution for stage in stages] == info["fmap"], name
                seen += 1
    assert seen >= 11


SMALL = [
    "init_XXBL_cifar",
    "init_IDW_imagenet",
    "init:classification/MBV2_FLOPs",
    "init:classification/deepmad_29M_288",
    "init:detection/R50_FLOPs",
    "init:quant/Mixed_7d0G",
]


def check_real_counts(name, size, frames=1, **settings):
    structure = zoo.facts(name).structure
    with torch.device("meta"):
        expected = tfnas.count(StructureNetwork(structure, **settings), size, frames)
    assert real_counts(structure, size, frames=frames, **settings) == expected, name


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("residuals", [True, False])
def test_closed_form_equals_the_walk_through_the_network(name, residuals):
    check_real_counts(name, 50, num_classes=7, residuals=residuals)  # 50 pixels: sizes are rounded
    check_real_counts(name, 64, residuals=residuals)


@pytest.mark.parametrize("name", ["init_XXBL_cifar", "init_IDW_imagenet"])
def test_closed_form_equals_the_walk_with_squeeze_and_excite(name):
    check_real_counts(name, 40, num_classes=3, use_se=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_closed_form_equals_the_walk_for_all(name):
    known = zoo.facts(name)
    frames = known.frames if known.structure.is_video else 1
    check_real_counts(name, known.resolution or 224, frames=frames, num_classes=1000)


@pytest.mark.parametrize("name", ["init:action_recognition/E3D_X3DS_FLOPs", "E3D_S"])
def test_closed_form_equals_the_walk_for_videos(name):
    check_real_counts(name, 50, frames=5)
    check_real_counts(name, 50, frames=5, num_classes=3, residuals=False)


def test_closed_form_of_twelve_channels():
    check_real_counts("init:damoyolo/damoyolo_kxkx_medium", 70)


def test_impossible_settings_are_refused():
    structure = zoo.facts("deepmad-R18").structure
    with pytest.raises(InputError, match="resolution must be 1 or more, got 0"):
        reference_counts(structure, 0)
    with pytest.raises(InputError, match="use_se is for notation zennas"):
        reference_counts(structure, 32, use_se=True)
    with pytest.raises(InputError, match="takes images, not videos of 4 frames"):
        real_counts(structure, 32, frames=4)
