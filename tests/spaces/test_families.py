"""Every family of networks keeps one protocol; a family from one file outside the package joins."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
from toy_family import FAMILY, ToyArchitecture

import tfnas
from tfnas import InputError, zoo
from tfnas.spaces import families
from tfnas.spaces.families import (
    architecture_counts,
    build_network,
    cost_parts,
    find_family,
    from_document,
    parse_architecture,
    part_counts,
    register_family,
    to_document,
)
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_network import StructureNetwork
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily
from tfnas.spaces.zen.zoo_networks import zoo_architecture

TINY_DEEPMAD = [
    {"class": "ConvKXBNRELU", "in": 3, "k": 3, "out": 8, "s": 2},
    {"class": "SuperResK1DWSEK1", "in": 8, "k": 3, "out": 16, "s": 2, "L": 2, "btn": 24},
    {"class": "ConvKXBNRELU", "in": 16, "k": 1, "out": 32, "s": 1},
]
FAMILIES = {
    "mbconv": MBConvFamily(tfnas.space("digits"), 10),
    "zen": ZenFamily(),
    "zen tinynas": ZenFamily(StructureArchitecture(Structure.from_tinynas(TINY_DEEPMAD), 24, 5)),
    "toy": FAMILY,
}
pytestmark = pytest.mark.usefixtures("toy_family")


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def drawn(family, number, seed=0):
    generator = np.random.default_rng(seed)
    return [family.sample(generator) for _ in range(number)]


def test_a_generator_decides(family):
    assert drawn(family, 4) == drawn(family, 4)
    assert len(set(drawn(family, 8))) > 4
    start = family.sample(np.random.default_rng(1))
    assert family.mutate(start, np.random.default_rng(2)) == family.mutate(start, np.random.default_rng(2))
    assert len({family.mutate(start, np.random.default_rng(seed)) for seed in range(20)}) >= 3


def test_text_and_json_come_back(family):
    for architecture in drawn(family, 5):
        assert parse_architecture(family.format(architecture)) == architecture
        assert parse_architecture(f"  {architecture.to_text()}\n") == architecture
        assert "\n" not in architecture.to_text()
        assert from_document(json.loads(json.dumps(to_document(architecture)))) == architecture
        assert find_family(architecture.family).name == architecture.family


def test_parts_count_what_the_network_has(family):
    """The closed form against the walk, whole and part by part."""
    for architecture in drawn(family, 2):
        network = build_network(architecture)
        assert architecture_counts(architecture) == tfnas.count(network, architecture.image_size)
        assert sum(part.counts.macs for part in cost_parts(architecture)) == architecture_counts(architecture).macs
        for name, counts in part_counts(architecture).items():
            module = network.get_submodule(name)
            assert counts.params == sum(parameter.numel() for parameter in module.parameters()), name
        images = torch.rand(2, architecture.in_channels, architecture.image_size, architecture.image_size)
        with torch.no_grad():
            assert build_network(architecture, 7).eval()(images).shape == (2, 7)
            assert network.eval()(images).shape == (2, architecture.num_classes)


def test_adapting_changes_images_and_classes_only(family):
    (architecture,) = drawn(family, 1)
    other = architecture.adapted(image_size=33, num_classes=4)
    assert (other.image_size, other.num_classes) == (33, 4)
    assert other.adapted(image_size=architecture.image_size, num_classes=architecture.num_classes) == architecture


def test_every_part_has_a_key_that_says_what_its_cost_depends_on(family):
    """Parts of equal key and width count alike, whatever network they are in."""
    seen = {}
    for architecture in drawn(family, 20):
        for part in cost_parts(architecture):
            assert seen.setdefault((part.key, part.width), part.counts) == part.counts, part.key


def test_a_family_joins_once():
    register_family(FAMILY)  # it is there already: nothing happens
    with pytest.raises(ValueError, match="there is a family 'zen' already"):
        register_family(type("Other", (), {"name": "zen"})())
    with pytest.raises(InputError, match="no family of networks 'zne': known are mbconv, zen, toy"):
        find_family("zne")


def test_installed_packages_bring_families(monkeypatch):
    monkeypatch.setattr(
        families, "_FAMILIES", {name: known for name, known in families._FAMILIES.items() if name != "toy"}
    )
    with pytest.raises(InputError, match="not the text form of an architecture"):
        parse_architecture("toy:8x2:4")
    entry = metadata.EntryPoint("toy", "toy_family:FAMILY", families.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [entry] if group == families.ENTRY_POINTS else [])
    assert parse_architecture("toy:8x2:4") == ToyArchitecture(8, 2, (4,))
    assert find_family("toy") is FAMILY


@pytest.mark.parametrize(("text", "message"), [
    ("i3x16_n10:mb_k3", "not the text form of an architecture"),
    ("i3x16_n10:conv_k3_s1_c16_relu:x:y", "expected mb_k5_s2_m90_w64-128_se32_c24_relu, got 'x'"),
    ("i3x32_n10:SuperResK3K3(8,16", "expected a block such as SuperResK3K3"),
    ("i1x32_n10:SuperConvK3BNRELU(3,8,1,1)", "its images have 1 channels, but its first block takes 3"),
    ("i3x0_n10:SuperConvK3BNRELU(3,8,1,1)", "image_size must be 1 or more, got 0"),
    ("i3x32_n10_se:[{'class': 'ConvKXBNRELU', 'in': 3, 'k': 3, 'out': 8}]", "can be added to notation zennas only"),
    ("SuperConvK3BNRELU(3,8,1)", "expected 4 numbers"),
    ("hello", "not the text form of an architecture: 'hello'"),
])  # fmt: skip
def test_malformed_texts_say_what_was_expected(text, message):
    with pytest.raises(InputError, match=message):
        parse_architecture(text)


@pytest.mark.parametrize(("change", "message"), [
    ({"family": "zne"}, "no family of networks 'zne'"),
    ({"family": 3}, "family must be text, got 3"),
    ({"text": "SuperConvK3"}, "expected a block such as"),
    ({"version": 2}, "expected format 'tfnas-architecture' version 1, got 'tfnas-architecture' version 2"),
    ({"extra": 1}, "expected the fields format, version, family and text, got format, version, family, text, extra"),
])  # fmt: skip
def test_a_wrong_document_says_what(change, message):
    document = to_document(parse_architecture("SuperConvK3BNRELU(3,8,1,1)")) | change
    with pytest.raises(InputError, match=message):
        from_document(document)


def test_squeeze_excite_is_part_of_the_text():
    text = "i3x32_n10_se:SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)"
    squeezed = parse_architecture(text)
    assert squeezed.use_se and squeezed.to_text() == text
    plain = parse_architecture(text.replace("_se", ""))
    assert architecture_counts(squeezed).params > architecture_counts(plain).params


@pytest.mark.parametrize("name", ["E3D_S", "init:action_recognition/E3D_X3DM_FLOPs"])
def test_videos_are_drawn_written_and_counted_but_not_built(name):
    known = zoo.facts(name)
    family = ZenFamily(zoo_architecture(name))
    assert (family.initial.frames, family.initial.image_size) == (known.frames, known.resolution)
    for architecture in drawn(family, 3):
        text = architecture.to_text()
        assert text.startswith(f"i3x{known.resolution}_f{known.frames}_n1000:[") or "best_structures" in text
        assert parse_architecture(text) == architecture
        assert from_document(json.loads(json.dumps(to_document(architecture)))) == architecture
        with pytest.raises(
            InputError, match=r"takes videos: .* not trained, tested or exported; tfnas.StructureNetwork"
        ):
            build_network(architecture)
    small = dataclasses.replace(family.initial, image_size=32, frames=2, num_classes=3)
    network = StructureNetwork(small.structure, num_classes=3)
    assert architecture_counts(small) == tfnas.count(network, 32, 2)
    for part_name, counts in part_counts(small).items():
        assert counts.params == sum(weight.numel() for weight in network.get_submodule(part_name).parameters())
    longer = dataclasses.replace(small, frames=4)
    assert {part.key for part in cost_parts(small)}.isdisjoint(part.key for part in cost_parts(longer))


def test_frames_are_of_videos():
    video = zoo.facts("E3D_S").structure
    assert StructureArchitecture(video).frames == 16
    assert StructureArchitecture(zoo.facts("deepmad-R18").structure).frames == 1
    with pytest.raises(InputError, match="takes images, not videos of 4 frames"):
        StructureArchitecture(zoo.facts("deepmad-R18").structure, frames=4)
    with pytest.raises(InputError, match="frames must be 1 or more, got 0"):
        parse_architecture(f"i3x32_f0_n10:{video.to_text()}")


def test_families_need_no_torch():
    code = (
        "import sys; from tfnas.spaces.families import parse_architecture as read; read('SuperConvK3BNRELU(3,8,1,1)')"
    )
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
