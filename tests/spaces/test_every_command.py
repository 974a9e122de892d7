"""Whatever command takes an architecture takes one of any family: the road on digits and on a folder of images."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image

import tfnas
from tfnas.cli.main import main
from tfnas.data.preprocessing import Preprocessing
from tfnas.spaces.families import architecture_counts, parse_architecture
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_network import StructureNetwork, published_names

ZENNET = "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)SuperResIDWE2K3(16,24,2,16,1)SuperConvK1BNRELU(24,32,1,1)"
DEEPMAD = (
    "[{'class':'ConvKXBNRELU','in':3,'k':3,'out':8,'s':2},{'class':'SuperResK1DWSEK1','in':8,'k':3,'out':16,'s':2,"
    "'L':2,'btn':24},{'class':'SuperResK1KXK1','in':16,'k':3,'out':24,'s':2,'L':2,'btn':16},"
    "{'class':'ConvKXBNRELU','in':24,'k':1,'out':32,'s':1}]"
)
QUICK_EXPORT = ("--check_images", 8, "--measure_batch", 1)
pytestmark = pytest.mark.usefixtures("toy_family")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with a folder of smooth pictures of uneven sizes for each of three classes."""
    root, noise = tmp_path_factory.mktemp("images") / "photos", np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee", "cow")):
        (root / name).mkdir(parents=True)
        for number in range(14):
            coarse = noise.integers(0, 120, (3, 3, 3), dtype=np.uint8)
            coarse[..., label] += 120
            size = tuple(int(side) for side in noise.integers(34, 50, 2))
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(root / name / f"{number}.png")
    return root


def ran(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


def trained(run, arch, images, *flags):
    few = ("--epochs", 1, "--batch_size", 8 if "folder" in images else 96, "--workers", 0, "--device", "cpu")
    ran("train", "--arch", arch, *images, *few, *flags, "--run_dir", run)
    return json.loads((run / "summary.json").read_text())


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """The directory of a training run on digits, to be read or copied, and its summary."""
    run = tmp_path_factory.mktemp("digits") / "run"
    return run, trained(run, f"i3x16_n10:{ZENNET}", ("--data", "digits"))


@pytest.mark.parametrize(("arch", "family", "original"), [
    (f"i3x16_n10_se:{ZENNET}", "zen", "structure.txt"),
    ("toy:16x10:6,8", "toy", None),
])  # fmt: skip
def test_the_road_on_digits(tmp_path, arch, family, original):
    walk_the_road(tmp_path, arch, ("--data", "digits"), 16, family, original)


@pytest.mark.parametrize("arch", [
    DEEPMAD,
    pytest.param("zennet_imagenet1k_flops400M_SE_res224", marks=pytest.mark.slow),
    pytest.param("deepmad-R18", marks=pytest.mark.slow),
])  # fmt: skip
def test_the_road_on_a_folder_of_images(tmp_path, photos, arch):
    images = ("--data", "folder", "--train_root", photos, "--image_size", 32, "--test_ratio", 0.25, "--num_classes", 3)
    walk_the_road(tmp_path, arch, images, 32, "zen", "structure.txt", photos / "bee" / "0.png")


def walk_the_road(tmp_path, arch, images, size, family, original, picture=None):
    run, onnx = tmp_path / "run", tmp_path / "network.onnx"
    summary = trained(run, arch, images)
    architecture = tfnas.load_architecture(run)
    assert architecture.family == family and architecture.image_size == size
    assert summary["architecture"] == architecture.to_text()
    network = tfnas.load(run)
    counts = tfnas.count(network, size)
    assert (summary["params"], summary["macs"]) == (counts.params, counts.macs)
    assert not (run / "model.config").exists()
    if original is not None:
        assert Structure.load(run / original) == architecture.structure

    ran("test", "--model_path", run, "--workers", 0, "--device", "cpu")
    assert json.loads((run / "test" / "test.json").read_text())["top1"] == pytest.approx(summary["top1"], abs=0.01)
    if picture is None:
        picture = tmp_path / "digit.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(picture)
    ran("predict", "--model_path", run, "--device", "cpu", picture)
    ran("export", "--model_path", run, *QUICK_EXPORT, "--out", onnx)
    check_onnx(onnx, run, network, size)
    ran("predict", "--model_path", onnx, picture)
    quick = ("--epsilon", "50%", "--time_budget", "0.2s")
    for file in (run, onnx):
        ran("latency", "certify", file, *quick, "--out", tmp_path / "certificate.json")
        certificate = json.loads((tmp_path / "certificate.json").read_text())
        assert certificate["architecture"] == architecture.to_text() and certificate["bytes"] > 0
    ran("latency", "certify", "--config_path", run / "architecture.json", *quick)
    assert (run / "architecture.json.certificate.json").is_file()
    ran("parse", "--model_path", run)
    assert tfnas.load_architecture(run) == architecture
    assert tfnas.score("flops", architecture.to_text()) == counts.macs
    assert tfnas.score("zen", architecture, batch_size=2) != 0


def check_onnx(path, run, network, size):
    """ONNX Runtime's answers against PyTorch's, on images normalised here, by the file alone."""
    preprocessing = Preprocessing.from_json(torch.load(run / "model.pt", weights_only=True)["preprocessing"])
    images = torch.rand(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    with torch.no_grad():
        expected = network((images - mean) / std).numpy()
    session = onnxruntime.InferenceSession(str(path))
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-3 * max(1, np.abs(expected).max()))


def test_a_killed_run_goes_on_and_other_architectures_are_refused(digits_run, tmp_path, capsys):
    run = shutil.copytree(digits_run[0], tmp_path / "run")
    (run / "model.pt").unlink()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["arch"] == f"i3x16_n10:{ZENNET}" and config["config_path"] is None
    ran("train", "--snapshot", run)
    assert (run / "model.pt").is_file()
    assert main(["train", "--snapshot", str(run), "--arch", f"i3x16_n10:{DEEPMAD}"]) == 2
    assert "--arch" in capsys.readouterr().err


def test_an_architecture_alone_goes_with_weights(digits_run, tmp_path, capsys):
    """A file, a name and a text name the same network; weights are ours, or as the program publishes them."""
    run, summary = digits_run
    structure = tmp_path / "mine.txt"
    structure.write_text(f"# found on a Sunday\n{ZENNET}\n")
    network = tfnas.load(run)
    assert isinstance(network, StructureNetwork)
    published = tmp_path / "published.pth"
    names = published_names(network)
    torch.save(
        {"state_dict": {f"module.{names[name]}": value for name, value in network.state_dict().items()}}, published
    )
    bare = tmp_path / "bare.pth"
    torch.save(network.state_dict(), bare)
    picture = tmp_path / "digit.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(picture)
    answers = set()
    for named in (
        ("--config_path", structure),
        ("--arch", f"i3x16_n10:{ZENNET}"),
        ("--model_path", run / "structure.txt"),
    ):
        capsys.readouterr()
        ran("predict", *named, "--weights", run / "model.pt", "--device", "cpu", "--json", picture)
        answers.add(capsys.readouterr().out)
    assert len(answers) == 1 and '"probability"' in answers.pop()
    exported = []
    for weights in (published, bare):
        file = tmp_path / f"{weights.stem}.onnx"
        ran("export", "--arch", f"i3x16_n10:{ZENNET}", "--weights", weights, *QUICK_EXPORT, "--out", file)
        session = onnxruntime.InferenceSession(str(file))
        exported.append(session.run(None, {session.get_inputs()[0].name: np.full((1, 3, 16, 16), 0.3, np.float32)})[0])
    np.testing.assert_array_equal(*exported)
    assert summary["top1"] is not None


def test_a_network_of_videos_is_parsed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran("parse", "--arch", "E3D_S")
    shown = capsys.readouterr().out
    assert "13 frames of 160 x 160 pixels, 1000 classes" in shown and "per video" in shown
    again = tfnas.load_architecture("architecture.json")
    assert (again.structure, again.frames) == (tfnas.zoo.facts("E3D_S").structure, 13)


def test_a_network_of_the_zoo_is_parsed_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran("parse", "--arch", "zennet_cifar10_model_size05M_res32")
    shown = capsys.readouterr().out
    known = tfnas.zoo.facts("zennet_cifar_model_size05M_res32").structure
    assert "network of the zoo" in shown and "32 x 32 pixels, 10 classes" in shown
    counts = tfnas.count(tfnas.zoo.build("zennet_cifar10_model_size05M_res32"), 32)
    assert f"({counts.params:,})" in shown and f"({counts.macs:,})" in shown
    assert Structure.load("structure.txt") == known
    ran(
        "parse",
        "--config_path",
        "structure.txt",
        "--image_size",
        "48",
        "--num_classes",
        "7",
        "--save_path",
        "other.txt",
    )
    again = tfnas.load_architecture("other.json")
    assert (again.structure, again.image_size, again.num_classes) == (known, 48, 7)
    assert main(["parse", "--arch", "deepmad-R18"]) == 2
    assert "already exists with different contents" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["parse"], "which network? Give --model_path RUN, --config_path FILE"),
    (["parse", "--arch", "a", "--model_path", "b"], "give --model_path or --arch, not both"),
    (["parse", "--arch", "zennet_imagenet1k_flops400_res224"], "zennet_imagenet1k_flops400M_res224"),
    (["parse", "--arch", "SuperConvK3BNRELU(3,8,1)"], "--arch: character 1, block 1"),
    (["train", "--arch", "E3D_S", "--data", "digits"], "takes videos: it can be searched, scored and counted"),
    (["parse", "--arch", "E3D_S", "--save_path", "e3d.txt", "--print_lat", "true"], "takes videos: it can be searched"),
    (["parse", "--arch", "deepmad-R18", "--lookup_path", "x"], "latency table x cannot be read"),
    (["parse", "--arch", "deepmad-R18", "--space", "digits"], "is not a network of space digits"),
    (["train", "--data", "digits"], "which network? Give --model_path RUN_DIR (of a search)"),
    (["train", "--arch", "a", "--config_path", "b"], "give --config_path or --arch, not both"),
    (["train", "--arch", "init:damoyolo/damoyolo_k1kx_tiny", "--data", "digits"], "takes images of 12 channels"),
    (["train", "--arch", "toy:16x7:4", "--data", "digits"], "has 7 classes, the data (digits) has 10"),
    (["test", "--arch", "deepmad-R18"], "--arch deepmad-R18 says the network alone: give its weights too"),
    (["predict", "--arch", "deepmad-R18", "x.png"], "give its weights too, with --weights FILE"),
    (["export", "--arch", "deepmad-R18"], "give its weights too, with --weights FILE"),
    (["export", "--config_path", "x", "--arch", "y", "--weights", "z"], "not both: each says which network"),
    (["latency", "certify", "--arch", "deepmad-R18"], "give --out"),
    (["latency", "certify", "x.onnx", "--arch", "deepmad-R18"], "got 2; --help says more"),
    (["latency", "close", "--model_path", "architecture.json"], "widths of networks of MBConv blocks"),
])  # fmt: skip
def test_refused(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    document = {"format": "tfnas-architecture", "version": 1, "family": "zen", "text": f"i3x16_n10:{ZENNET}"}
    (tmp_path / "architecture.json").write_text(json.dumps(document))
    assert main(arguments) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert message in shown and "Traceback" not in shown, shown


@pytest.mark.parametrize("text", [ZENNET, f"i3x24_n5:{DEEPMAD}", "toy:8x4:6"])
def test_scores_take_any_form(text):
    architecture = parse_architecture(text)
    size = architecture.image_size
    assert tfnas.score("flops", text, image_size=size, num_classes=architecture.num_classes) == (
        architecture_counts(architecture).macs
    )
    settings = {"batch_size": 2, "image_size": 16, "seed": 3}
    assert tfnas.score("zen", text, **settings) == tfnas.score("zen", architecture, **settings)


def test_scores_take_names_of_the_zoo():
    name = "zennet_cifar_model_size05M_res32"
    known = tfnas.zoo.facts(name)
    assert tfnas.score("entropy", name) == tfnas.score("entropy", known.structure, image_size=32)
    squeezed = tfnas.score("params", "zennet_imagenet1k_flops400M_SE_res224")
    assert squeezed == tfnas.count(tfnas.zoo.build("zennet_imagenet1k_flops400M_SE_res224"), 224).params
