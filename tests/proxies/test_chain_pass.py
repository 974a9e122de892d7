"""The Zen-Score computed from units against the network's module, in both precisions."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_networks import digits_architecture, random_network

import tfnas
from tfnas.proxies import chain_pass, zen
from tfnas.proxies.network_preparation import RandomGenerator
from tfnas.proxies.score import score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.spaces.families import architecture_counts
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_network import StructureNetwork
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily

SCRIPTS = Path(__file__).parents[2] / "scripts"


def tinynas(*blocks):
    keys = ("class", "in", "out", "k", "s", "btn", "L")
    written = [dict(zip(keys, block, strict=False)) for block in blocks]
    return repr({"best_structures": [written], "space_arch": "CnnNet"})


STEM = ("ConvKXBNRELU", 3, 8, 3, 2)
TEXTS = {
    "kxkx": "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,2)SuperResK5K5(16,16,1,24,1)SuperConvK1BNRELU(16,40,1,1)",
    "k1kxk1": "SuperConvK3BNRELU(3,24,1,1)SuperResK1K7K1(24,64,2,8,2)SuperResK1K3K1(64,72,1,8,1)",
    "idw": "SuperConvK3BNRELU(3,8,2,1)SuperResIDWE4K5(8,16,2,16,1)SuperResIDWE1K3(16,24,1,24,2)",
    "conv": "SuperConvK5BNRELU(3,8,2,2)SuperConvK1BNRELU(8,96,1,1)SuperConvK1BNRELU(96,8,2,1)",
    "tinynas kxkx": tinynas(STEM, ("SuperResKXKX", 8, 16, 3, 2, 24, 2)),
    "tinynas k1kx": tinynas(STEM, ("SuperResK1KX", 8, 16, 5, 2, 48, 2)),
    "tinynas k1kxk1": tinynas(STEM, ("SuperResK1KXK1", 8, 64, 3, 2, 16, 2)),
    "tinynas k1dwk1": tinynas(STEM, ("SuperResK1DWK1", 8, 16, 5, 2, 64, 2)),
    "tinynas k1dwsek1": tinynas(STEM, ("SuperResK1DWSEK1", 8, 16, 3, 1, 64, 2)),
}


def by_module(monkeypatch, *arguments, **settings):
    with monkeypatch.context() as patched:
        patched.setattr(zen, "describe_chain", lambda *_: None)
        return score("zen", *arguments, **settings)


@pytest.fixture(params=["as measured", "all folded", "none folded"])
def folding(request, monkeypatch):
    """Small maps are not folded otherwise; tiles of one image."""
    if request.param == "all folded":
        monkeypatch.setattr(chain_pass, "_FEWEST_FOLDED", 0)
        monkeypatch.setattr(chain_pass, "_FOLDING_GAIN", math.inf)
        monkeypatch.setattr(chain_pass, "_TILE_BYTES", 1)
    elif request.param == "none folded":
        monkeypatch.setattr(chain_pass, "_FEWEST_FOLDED", math.inf)


@pytest.mark.parametrize("variant", ["default", "zennas"])
@pytest.mark.parametrize("name", TEXTS)
def test_every_block_type(monkeypatch, folding, name, variant):
    settings = {"variant": variant, "image_size": 18, "batch_size": 3, "repeats": 2}
    exact = by_module(monkeypatch, TEXTS[name], dtype="float64", **settings)
    assert math.isclose(score("zen", TEXTS[name], dtype="float64", **settings), exact, rel_tol=1e-10)
    assert math.isclose(score("zen", TEXTS[name], **settings), exact, rel_tol=1e-5)


@pytest.mark.parametrize("variant", ["default", "zennas"])
def test_with_compiled_kernels_and_without(monkeypatch, kernels_or_operators, variant):
    for subject in (TEXTS["k1kxk1"], TEXTS["tinynas k1dwsek1"], digits_architecture()):
        settings = {"variant": variant, "image_size": 17, "batch_size": 2, "dtype": "float64"}
        exact = by_module(monkeypatch, subject, **settings)
        assert math.isclose(score("zen", subject, **settings), exact, rel_tol=1e-10)


def test_random_structures(monkeypatch):
    """At the size of the search; of few MACs, so that they are not computed long."""
    family, generator = ZenFamily(), np.random.default_rng(3)
    drawn = family.initial
    for _ in range(12):
        for _ in range(4):
            child = family.mutate(drawn, generator)
            if architecture_counts(child).macs <= 50e6:
                drawn = child
        settings = {"batch_size": 2, "seed": int(generator.integers(100))}
        exact = by_module(monkeypatch, drawn, dtype="float64", **settings)
        assert math.isclose(score("zen", drawn, dtype="float64", **settings), exact, rel_tol=1e-9)
        assert math.isclose(score("zen", drawn, **settings), exact, rel_tol=1e-3)


def test_squeeze_and_excite_of_architectures_and_modules(monkeypatch):
    structure = Structure.parse(TEXTS["k1kxk1"])
    architecture = StructureArchitecture(structure, image_size=16, num_classes=10, use_se=True)
    settings = {"image_size": 16, "batch_size": 3, "dtype": "float64"}
    exact = by_module(monkeypatch, architecture, **settings)
    assert exact != by_module(monkeypatch, structure, **settings)
    module = StructureNetwork(structure, num_classes=3, use_se=True)
    for subject in (architecture, module):
        assert math.isclose(score("zen", subject, **settings), exact, rel_tol=1e-10)


def test_the_classifier_takes_no_part(monkeypatch):
    """Neither as a size nor by the numbers that are drawn for it, also where there are several draws."""
    settings = {"image_size": 16, "batch_size": 2, "repeats": 2}
    for way in (score, lambda *given, **more: by_module(monkeypatch, *given[1:], **more)):
        values = {way("zen", digits_architecture(), num_classes=classes, **settings) for classes in (2, 900)}
        assert len(values) == 1


def test_what_only_a_module_can_compute():
    def described(given, **options):
        return chain_pass.describe_chain(ScoredNetwork.of(given), ScoreOptions(**options))

    assert described(TEXTS["idw"]) is not None and described(digits_architecture()) is not None
    assert described(random_network()) is not None
    assert described(TEXTS["idw"], residuals=True) is None
    assert described("[{'class': 'Conv3DKXBNRELU', 'in': 3, 'out': 4, 'k': 3, 'kt': 1, 's': 2}]") is None
    assert described(torch.nn.Conv2d(3, 4, 3)) is None
    assert described(StructureNetwork(Structure.parse(TEXTS["idw"]), batch_norm=False)) is None


def test_a_dead_network_is_not_finite():
    """All weights zero: no variance, and a logarithm of 0."""

    class Zeros(RandomGenerator):
        def weight(self, place, shape):
            return torch.zeros(shape)

    with pytest.raises(tfnas.RunFailed, match="is not finite: -inf"):
        score("zen", TEXTS["kxkx"], image_size=16, generator=Zeros(0))


@pytest.mark.parametrize("name", ["kxkx", "k1kxk1", "idw"])
def test_the_benchmarks_textbook_gives_the_programs_score(monkeypatch, name):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import textbook_evolve

    structure, generator = Structure.parse(TEXTS[name]), RandomGenerator(5)
    network = textbook_evolve.ChainNetwork(structure, 7).double().train()
    textbook_evolve.draw_weights(network)
    convs = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    with torch.no_grad():
        for place, conv in enumerate(convs):
            conv.weight.copy_(generator.weight(place, conv.weight.shape))
    images = generator.images((4, 3, 16, 16)).double()
    changed = images + 0.01 * generator.images((4, 3, 16, 16)).double()
    settings = {"image_size": 16, "batch_size": 4, "seed": 5, "variant": "zennas", "dtype": "float64"}
    expected = score("zen", structure, **settings)
    assert math.isclose(textbook_evolve.sensitivity(network, images, changed), expected, rel_tol=1e-9)
    assert math.isfinite(textbook_evolve.zen_score(structure, 16, 4, 7))
    sys.modules.pop("textbook_evolve")
