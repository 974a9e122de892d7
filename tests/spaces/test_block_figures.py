"""Figures of blocks in plain arithmetic against the same by units, on random structures of every kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_structures import random_structure

from tfnas import InputError, zoo
from tfnas.core.units import peak_activations
from tfnas.proxies.unit_entropy import (
    Chain,
    chain_effectiveness,
    fan_in,
    fan_in_without_groups,
    stage_entropies,
    unit_entropies,
)
from tfnas.spaces.zen.block_figures import block_figures
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_counts import real_counts, reference_counts
from tfnas.spaces.zen.structure_figures import StructureFigures
from tfnas.spaces.zen.zen_family import StructureArchitecture

KINDS = {
    "zennas": ("zennas", {}, False),
    "zennas with squeeze-and-excite": ("zennas", {}, True),
    "tinynas": ("tinynas", {}, False),
    "quantised": ("tinynas", {"quantized": True}, False),
    "videos": ("tinynas", {"video": True}, False),
}


def structures(kind, count=60):
    notation, options, use_se = KINDS[kind]
    generator = np.random.default_rng(sum(map(ord, kind)))
    for _ in range(count):
        yield random_structure(generator, notation, **options), int(generator.integers(9, 80)), use_se


# ---- what the programs count, unit by unit ---------------------------------------------------------------------------


def zennas_by_units(structure, size, classes, residuals, use_se):
    params, macs = structure.out_channels * classes + 1, structure.out_channels * classes
    for unit in structure.units(size, use_se=use_se, floor=True):
        for conv in unit.convs:
            area = conv.resolution_in**2
            params += conv.num_weights + conv.out_channels
            macs += conv.in_channels * conv.out_channels * conv.kernel**2 * area // conv.stride**2 // conv.groups
            macs += conv.out_channels * conv.resolution_out**2
        if unit.squeeze_excite is not None:
            wide, narrow = unit.squeeze_excite.channels, unit.squeeze_excite.squeezed
            params += 2 * wide * narrow + 2 * narrow + 2 * wide
            macs += 2 * wide * narrow + wide + wide * unit.convs[unit.squeeze_excite.after].resolution_out ** 2
        if unit.projection is not None and residuals:
            weights = unit.in_channels * unit.out_channels + unit.out_channels
            params += weights
            macs += weights * (unit.resolution_out / unit.stride) ** 2
    return params, macs


def tinynas_by_units(structure, size, frames, residuals):
    params, macs, area = 0.0, 0.0, float(size**2)
    for unit in structure.units(size, frames):
        convs = [*unit.convs]
        projects = residuals and unit.projection is not None
        params += sum(c.num_weights * (c.weight_bits or 8) / 8 + 2 * c.out_channels for c in convs)
        if projects:
            params += unit.projection.num_weights * (unit.projection.weight_bits or 8) / 8 + 2 * unit.out_channels
        if unit.squeeze_excite is not None:
            wide, narrow = unit.squeeze_excite.channels, unit.squeeze_excite.squeezed
            params += 2 * wide * narrow + 2 * narrow + 2 * wide
        if residuals and unit.shortcut is not None and unit.shortcut.pools:
            macs += unit.in_channels * area
        for conv in convs:
            area /= conv.stride**2
            bits = (conv.weight_bits or 8) * (conv.activation_bits or 8) / 64
            macs += (conv.num_weights * bits + 3 * conv.out_channels) * area
        if projects:
            bits = (convs[0].weight_bits or 8) * (convs[0].activation_bits or 8) / 64
            macs += (unit.projection.num_weights * bits + 3 * unit.out_channels) * area
    return params, macs * frames


@pytest.mark.parametrize("kind", KINDS)
def test_true_counts_equal_those_by_units(kind):
    for structure, size, use_se in structures(kind):
        frames, side, params, macs, peak, units, convs = 3 if structure.is_video else 1, size, 0, 0, 0, 0, 0
        for block in structure.blocks:
            found = block_figures(block, structure.notation, side, frames=frames, use_se=use_se)
            params, macs, peak = params + found.params, macs + found.macs, max(peak, found.peak_activations)
            units, convs, side = units + found.units, convs + found.convs, found.size_out
        counts = real_counts(structure, size, frames=frames, use_se=use_se)
        assert (params, macs) == (counts.params, counts.macs), structure.to_text()
        expected = structure.units(size, frames, use_se=use_se)
        assert (units, convs) == (len(expected), sum(len(unit.convs) for unit in expected))
        assert (peak, side) == (peak_activations(expected), expected[-1].resolution_out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("residuals", [True, False])
def test_what_programs_count_equals_the_same_by_units(kind, residuals):
    for structure, size, use_se in structures(kind, 40):
        frames = 3 if structure.is_video else 1
        found = reference_counts(structure, size, 7, residuals, use_se, frames)
        if structure.notation == "zennas":
            expected = zennas_by_units(structure, size, 7, residuals, use_se)
            layers = sum(block.layers for block in structure.blocks)
        else:
            expected = tinynas_by_units(structure, size, frames, residuals)
            expected = tuple(
                count + 7 * structure.out_channels + extra for count, extra in zip(expected, (7, 0), strict=True)
            )
            layers = sum(len(unit.convs) for unit in structure.units(size))
        assert (found.params, found.macs) == pytest.approx(expected, rel=1e-12), structure.to_text()
        assert found.layers == layers


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_structures_equal_the_plain_ones(kind):
    """Twice: counted, and remembered."""
    counted, as_programs = StructureFigures(), StructureFigures(reference=True)
    for structure, size, use_se in [*structures(kind), *structures(kind)]:
        frames = 3 if structure.is_video else 1
        architecture = StructureArchitecture(structure, size, 11, use_se, frames)
        units = structure.units(size, frames, use_se=use_se)
        counts = real_counts(structure, size, 11, use_se=use_se, frames=frames)
        program = reference_counts(structure, size, None, frames=frames)
        found, reference = counted.figures(architecture), as_programs.figures(architecture)
        assert (found["params"], found["macs"]) == (counts.params, counts.macs)
        assert all(isinstance(found[name], int) for name in ("params", "macs", "layers", "memory"))
        if structure.notation == "zennas":
            program = reference_counts(structure, size, 11)
        assert (reference["params"], reference["macs"]) == pytest.approx((program.params, program.macs), rel=1e-12)
        assert found["layers"] == reference["layers"] == program.layers
        assert found["memory"] == reference["memory"] == 4 * peak_activations(units, 11)
        chain = Chain(units)
        assert found["effectiveness"] == pytest.approx(chain_effectiveness(chain, fan_in), rel=1e-12)
        assert reference["effectiveness"] == pytest.approx(chain_effectiveness(chain, fan_in_without_groups), rel=1e-12)
        stages, depths = counted.stages(architecture)
        assert [stage[:2] for stage in stages] == [(end.channels, end.resolution) for end in chain.stages]
        entropies = stage_entropies(chain, unit_entropies(chain))
        assert [stage.log_width / 2 for stage in stages] == pytest.approx(entropies, rel=1e-12)
        assert tuple(depths) == chain.depths


def test_effectiveness_of_one_block_by_hand():
    structure = Structure.parse("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,16,1,4,2)")
    logs = math.log(27) + math.log(72) + math.log(36) + math.log(144) + math.log(36)
    found = StructureFigures().figures(StructureArchitecture(structure, 32, 10))
    assert found["effectiveness"] == pytest.approx(5 * math.exp(-logs / 5), rel=1e-14)


def test_figures_are_the_same_after_everything_was_forgotten(monkeypatch):
    monkeypatch.setattr("tfnas.spaces.zen.structure_figures._MOST_BLOCKS", 7)
    few, many = StructureFigures(), StructureFigures()
    for structure, size, use_se in structures("zennas", 30):
        monkeypatch.setattr("tfnas.spaces.zen.structure_figures._MOST_BLOCKS", 7)
        found = few.figures(StructureArchitecture(structure, size, 10, use_se))
        monkeypatch.setattr("tfnas.spaces.zen.structure_figures._MOST_BLOCKS", 10**6)
        assert found == many.figures(StructureArchitecture(structure, size, 10, use_se))


def test_a_structure_is_counted_anew_for_other_images_and_classes():
    figures = StructureFigures()
    for structure, _, _ in structures("zennas", 5):
        for classes, size, use_se in ((10, 32, False), (100, 32, False), (100, 33, False), (100, 33, True)):
            architecture = StructureArchitecture(structure, size, classes, use_se)
            for _ in range(2):
                found = figures.figures(architecture)
                counts = real_counts(structure, size, classes, use_se=use_se)
                assert (found.pop("params"), found.pop("macs")) == (counts.params, counts.macs)


def test_peak_feature_of_the_published_networks():
    """As the TinyNAS program says at 224 pixels."""
    figures = StructureFigures()
    for name, peak in {"mixed7d0G": 564480, "mixed19d2G": 1254400}.items():
        assert figures.peak_feature(StructureArchitecture(zoo.facts(name).structure)) == peak


def test_peak_feature_by_hand():
    """The sum of the second unit, at 4 bits, is kept while its depthwise convolution reads 24 channels at 5 bits."""
    bits = {"nbitsA": [6, 4, 4, 4, 5, 3], "nbitsW": [4] * 6}
    block = {"class": "SuperQuantResK1DWK1", "in": 8, "out": 16, "k": 3, "s": 2, "L": 2, "btn": 24} | bits
    structure = Structure.from_tinynas(
        [{"class": "ConvKXBNRELU", "in": 3, "out": 8, "k": 3, "nbitsA": 8, "nbitsW": 8}, block]
    )
    stem = (8 * 3 * 32**2 + 8 * 32**2 * 6) / 8
    first = [(8 * 6 + 24 * 4) * 32**2 / 8, (24 * 4 * 32**2 + 16**2 * 4) / 8, (24 * 4 + 16 * 4) * 16**2 / 8]
    second = [(16 * 4 + 24 * 5) * 16**2 / 8, (24 * 5 + 3 + 16 * 4) * 16**2 / 8, (24 * 3 + 16 * 8) * 16**2 / 8]
    found = StructureFigures().peak_feature(StructureArchitecture(structure, 32, 10))
    assert found == max(stem, *first, *second) == 18432


@pytest.mark.parametrize("name", ["deepmad-R18", "init:classification/MBV2_FLOPs", "init_IDW_imagenet"])
def test_peak_feature_is_of_quantised_depthwise_structures(name):
    with pytest.raises(InputError, match="max_feature is what the TinyNAS program counts of quantised depthwise"):
        StructureFigures().peak_feature(StructureArchitecture(zoo.facts(name).structure))
