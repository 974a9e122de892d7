"""torch.hub from a local checkout; nothing here goes to the network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from made_networks import digits_architecture, random_network

from tfnas import InputError, TrainedModel
from tfnas.data.preprocessing import Preprocessing
from tfnas.nn.network import FeatureNetwork

PROJECT = str(Path(__file__).resolve().parents[1])


def load(entry, **settings):
    return torch.hub.load(PROJECT, entry, source="local", **settings)


def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def no_download(monkeypatch):
    """torch.hub.list and .help know repositories by name only: this project stands for the one that is named."""
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *_, **__: PROJECT)


@pytest.fixture
def network(tmp_path):
    """A network that is also in `tmp_path/model.pt`."""
    made = random_network()
    names = tuple("0123456789")
    preprocessing = Preprocessing(16, 18, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    TrainedModel(made.architecture, made.state_dict(), names, preprocessing, "digits").save(tmp_path / "model.pt")
    return made


def test_the_entry_points_are_these_and_no_others(no_download):
    assert sorted(torch.hub.list("owner/tfnas")) == ["tfnas", "tfnas_architecture"]


@pytest.mark.parametrize(("entry", "settings"), [
    ("tfnas", {"path", "features_only"}),
    ("tfnas_architecture", {"path", "num_classes", "dropout_rate", "drop_connect_rate"}),
])  # fmt: skip
def test_help_explains_every_setting(no_download, entry, settings):
    text = torch.hub.help("owner/tfnas", entry)
    assert {line.strip().partition(":")[0] for line in text.splitlines()} >= settings


def test_a_trained_network(tmp_path, network):
    for path in (tmp_path, str(tmp_path / "model.pt")):
        loaded = load("tfnas", path=path)
        assert not loaded.training
        assert torch.equal(loaded(images()), network(images()))


def test_its_features(tmp_path, network):
    loaded, expected = load("tfnas", path=tmp_path, features_only=True), FeatureNetwork(network)(images())
    assert len(expected) == len(loaded.strides)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(loaded(images()), expected, strict=True))


def test_an_architecture_without_weights(tmp_path):
    architecture = digits_architecture()
    (tmp_path / "architecture.json").write_text(json.dumps(architecture.to_json()))
    (tmp_path / "model.config").write_text(json.dumps(architecture.to_model_config()))
    for path in (tmp_path, tmp_path / "architecture.json", tmp_path / "model.config"):
        network = load("tfnas_architecture", path=path)
        assert network.training
        assert network.architecture.stages == architecture.stages
        assert network(images()).shape[0] == 2
    network = load("tfnas_architecture", path=tmp_path, num_classes=7, dropout_rate=0.2, drop_connect_rate=0.3)
    assert network(images()).shape == (2, 7)
    assert network.classifier.dropout.p == 0.2
    assert network.stage3[1].drop_connect.p == pytest.approx(0.3)


def test_a_path_without_a_network_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no model\.pt"):
        load("tfnas", path=tmp_path)
    with pytest.raises(InputError, match="no architecture at"):
        load("tfnas_architecture", path=tmp_path)


def test_what_it_depends_on_can_be_imported():
    spec = importlib.util.spec_from_file_location("hubconf", Path(PROJECT) / "hubconf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert all(importlib.util.find_spec(name) is not None for name in module.dependencies)
