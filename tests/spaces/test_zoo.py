"""The zoo: every published network is there, builds, and says what is known of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from tfnas import InputError, zoo
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_counts import reference_counts
from tfnas.spaces.zen.structure_network import StructureNetwork

NAMES = {"zennet_cifar_model_size05M_res32", "ezennet_imagenet1k_flops800M_res224_s", "deepmad-89M", "R152-like"}
NAMES |= {"maedet_l", "mixed19d2G", "E3D_L", "init:damoyolo/damoyolo_k1kx_tiny", "init_IDW_imagenet"}


def test_names():
    assert len(zoo.names()) == len(set(zoo.names())) == 59
    assert set(zoo.names()) >= NAMES


def test_it_has_every_published_structure(shared_data):
    document = json.loads((shared_data / "structures.json").read_text())
    entries = {**document["zennas"], **document["incorporated"], **document["tinynas"]}
    assert set(zoo.names()) == {*entries, "init_XXBL_imagenet"}
    for name, entry in entries.items():
        written = entry["structure"]
        structure = Structure.parse(written) if isinstance(written, str) else Structure.from_tinynas(written)
        assert zoo.facts(name).structure == structure
        figures = {key for key in entry["published"] or {} if key in ("params_m", "macs_m", "cifar10_top1", "box_ap")}
        for key in figures:
            assert zoo.facts(name).published[key] == entry["published"][key], name
        if "top1" in (entry["published"] or {}):
            assert zoo.facts(name).published["imagenet1k_top1"] == entry["published"]["top1"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in NAMES else pytest.mark.slow) for name in zoo.names()]
)
def test_every_network_builds(name):
    known = zoo.facts(name)
    with torch.device("meta"):
        network = zoo.build(name)
    assert isinstance(network, StructureNetwork)
    assert network.structure == known.structure
    assert known.source
    assert known.resolution or "damoyolo" in name


def test_facts_of_a_network():
    known = zoo.facts("zennet_imagenet1k_flops400M_res224")
    assert (known.program, known.resolution, known.squeeze_excite, known.frames) == ("ZenNAS", 224, True, 1)
    assert known.published["imagenet1k_top1"] == 78.0
    assert (known.published["params_m"], known.published["macs_m"]) == (5.7, 410)
    assert "idstcv/ZenNAS" in known.source
    assert known.note is not None
    with pytest.raises(TypeError):
        known.published["imagenet1k_top1"] = 100.0
    assert (zoo.facts("E3D_S").frames, zoo.facts("E3D_S").resolution) == (13, 160)
    assert "configs/quant/Mixed_7d0G.py" in zoo.facts("mixed7d0G").source


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.facts(name).program == "ZenNAS"])
def test_published_figures_of_zennets_are_those_of_their_structures(name):
    known = zoo.facts(name)
    if not known.published:
        return
    classes = 10 if "cifar" in name else 1000
    use_se = name.startswith("zennet_imagenet1k_flops900M")
    counts = reference_counts(known.structure, known.resolution, classes, use_se=use_se)
    assert counts.params / 1e6 == pytest.approx(known.published["params_m"], rel=0.03)
    assert counts.macs / 1e6 == pytest.approx(known.published["macs_m"], rel=0.05)


@pytest.mark.parametrize("name", ["E3D_S", "E3D_M", "E3D_L"])
def test_published_macs_of_videos_are_those_of_their_frames(name):
    known = zoo.facts(name)
    counts = reference_counts(known.structure, known.resolution, frames=known.frames)
    assert counts.macs / 1e6 == pytest.approx(known.published["macs_m"], rel=0.04)


def test_names_of_published_weights_say_classes_and_squeeze_and_excite():
    with torch.device("meta"):
        ten, hundred = (zoo.build(f"zennet_cifar{n}_model_size05M_res32") for n in (10, 100))
        squeezed = zoo.build("zennet_imagenet1k_flops400M_SE_res224")
        plain = zoo.build("zennet_imagenet1k_flops400M_res224", num_classes=5, use_se=False)
    assert (ten.classifier.out_features, hundred.classifier.out_features) == (10, 100)
    assert (squeezed.classifier.out_features, squeezed.use_se) == (1000, True)
    assert (plain.classifier.out_features, plain.use_se) == (5, False)
    assert zoo.facts("zennet_cifar100_model_size05M_res32").name == "zennet_cifar_model_size05M_res32"
    assert zoo.build("init_XXBL_cifar").classifier is None


@pytest.mark.parametrize("name", ["zennet_cifar10", "deepmad-R81", "", "zennet_cifar_model_size1M_SE_res32"])
def test_unknown_names_are_refused(name):
    with pytest.raises(InputError, match=r"the zoo has no network .*names\(\) lists its 59"):
        zoo.build(name)


def test_a_near_name_is_suggested():
    with pytest.raises(InputError, match="near are deepmad-R18"):
        zoo.facts("deepmad-R81")


def test_facts_need_no_torch():
    code = (
        "import sys; from tfnas import zoo; zoo.facts('E3D_S').structure.units(160, 13); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
