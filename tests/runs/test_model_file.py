"""`model.pt`: what goes in comes out, bit for bit, and everything else is refused."""

from __future__ import annotations

import pickle
import random

import pytest
import torch
from made_networks import random_network

import tfnas
from tfnas import InputError, RunFailed, TrainedModel
from tfnas.data.preprocessing import Preprocessing
from tfnas.nn.network import Network

CLASS_NAMES = ("zero", "one", "two", "thrée", "four", "five", "six", "seven", "eight", "n/a")
PREPROCESSING = Preprocessing(16, 18, (0.5, 0.25, 0.125), (0.2, 0.3, 0.4))


def trained_model(network=None, **changes):
    network = network or random_network()
    fields = {
        "architecture": network.architecture,
        "state": network.state_dict(),
        "class_names": CLASS_NAMES,
        "preprocessing": PREPROCESSING,
        "data": "digits",
    }
    return TrainedModel(**{**fields, **changes})


def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_saved_network_gives_equal_outputs(tmp_path, as_folder):
    network = random_network()
    trained_model(network).save(tmp_path / "model.pt")
    loaded = tfnas.load(str(tmp_path) if as_folder else tmp_path / "model.pt")
    assert isinstance(loaded, Network)
    assert not loaded.training
    assert torch.equal(loaded(images()), network(images()))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_all_other_fields_come_back(tmp_path):
    model = trained_model()
    model.save(tmp_path / "model.pt")
    loaded = TrainedModel.load(tmp_path)
    for field in ("architecture", "class_names", "preprocessing", "data"):
        assert getattr(loaded, field) == getattr(model, field)
    assert loaded.state.keys() == model.state.keys()


def test_what_is_saved_is_as_it_was_then(tmp_path):
    """Views are saved alone, not with the whole they are a part of, and later changes do not reach the file."""
    network = random_network()
    whole = torch.randn(10_000, *network.first_stem.conv.weight.shape[1:])
    state = {**network.state_dict(), "first_stem.conv.weight": whole[: network.first_stem.conv.weight.shape[0]]}
    trained_model(network, state=state).save(tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < whole.numel() * whole.element_size()
    expected = state["first_stem.conv.weight"].clone()
    whole.zero_()
    assert torch.equal(tfnas.load(tmp_path).first_stem.conv.weight, expected)


def test_loading_and_building_draw_no_random_numbers(tmp_path):
    trained_model().save(tmp_path / "model.pt")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    tfnas.load(tmp_path)
    assert torch.equal(torch.rand(4), expected)


def test_the_file_loads_as_weights_too(tmp_path):
    trained_model().save(tmp_path / "model.pt")
    network = random_network(seed=1)
    tfnas.load_weights(network, tmp_path / "model.pt")
    assert torch.equal(network(images()), random_network()(images()))


def document(tmp_path):
    """What a good file holds."""
    trained_model().save(tmp_path / "good.pt")
    return torch.load(tmp_path / "good.pt", weights_only=True)


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        tfnas.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("changes", "match"), [
    ({"format": "tfnas-search-checkpoint"}, "is not a trained model of this program"),
    ({"version": 2}, "has version 2, this program reads version 1"),
    ({"version": None}, "has version None, this program reads version 1"),
    ({"class_names": ["cat", "dog"]}, "names 2 classes, its network has 10"),
    ({"class_names": 10}, "is not a valid trained model: 'int' object is not iterable"),
    ({"architecture": {"format": "tfnas-architecture", "version": 9}}, "is not a valid trained model: expected format"),
    ({"architecture": []}, "is not a valid trained model"),
    ({"state_dict": None}, "is not a valid trained model"),
    ({"state_dict": [1, 2]}, "is not a valid trained model"),
    ({"preprocessing": {"image_size": 16}}, "is not a valid trained model: the preprocessing is incomplete"),
])  # fmt: skip
def test_files_of_another_form_are_refused(tmp_path, changes, match):
    torch.save({**document(tmp_path), **changes}, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", match)


@pytest.mark.parametrize("name", ["architecture", "state_dict", "class_names", "preprocessing", "data"])
def test_a_missing_field_is_named(tmp_path, name):
    fields = document(tmp_path)
    del fields[name]
    torch.save(fields, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", f"is incomplete: it has no {name}$")


@pytest.mark.parametrize(("change", "match"), [
    ({"image_size": 16.5}, "the preprocessing is incomplete or wrong: .*float"),
    ({"image_size": 2**63}, "the preprocessing is wrong: image_size must be 65536 at most, got 9223372036854775808"),
    ({"short_side": 0}, "the preprocessing is wrong: short_side must be 1 or more, got 0"),
    ({"std": [0.3, float("nan"), 0.3]}, "the preprocessing is wrong: mean"),
    ({"mean": [10**400, 0, 0]}, "the preprocessing is incomplete or wrong: int too large"),
])  # fmt: skip
def test_numbers_that_no_preprocessing_has_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        Preprocessing.from_json({**PREPROCESSING.to_json(), **change})


def test_weights_of_another_architecture_are_refused(tmp_path):
    fields = document(tmp_path)
    fields["state_dict"]["classifier.linear.bias"] = torch.zeros(3)
    torch.save(fields, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"classifier\.linear\.bias has the shape 3, the network's has 10"):
        tfnas.load(tmp_path)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    trained_model().save(tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"PK\x03\x04") + 120] ^= 1  # in the pickle, which comes first
    for number, (content, match) in enumerate(
        (
            (b"", r"is empty: it was not written to its end"),
            (b"not a model", r"is no readable checkpoint: it does not begin as files of tensors"),
            (whole[500:], r"is no readable checkpoint: it does not begin as files of tensors"),
            (whole[: len(whole) // 2], r"is no readable checkpoint: it is damaged, or was cut short; copy"),
            (whole[:-300], r"is no readable checkpoint: it is damaged, or was cut short; copy"),
            (whole[:5], r"is no readable checkpoint: it is damaged, or was cut short; copy"),
            (bytes(flipped), r"is no readable checkpoint: it is damaged, or was cut short; copy"),
        )
    ):
        path = tmp_path / f"damaged{number}.pt"
        path.write_bytes(content)
        refused(path, match)
    torch.save({"format": "tfnas-model", "payload": random.Random(1)}, tmp_path / "object.pt")
    refused(tmp_path / "object.pt", "is no readable checkpoint: it contains objects other than tensors")
    (tmp_path / "list.pt").write_bytes(pickle.dumps([1, 2]))
    refused(tmp_path / "list.pt", "is no")
    refused(tmp_path / "none.pt", "cannot be read: No such file")


def test_a_run_without_a_trained_network_is_refused(tmp_path):
    """A search leaves an architecture, not a model."""
    (tmp_path / "architecture.json").write_text("{}")
    refused(
        tmp_path, r"has no model\.pt: it is not a finished training run\. Train a network first: .*python train_eval_"
    )


def test_a_file_that_cannot_be_written_is_a_failed_run(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFailed, match="file"):
        trained_model().save(tmp_path / "file" / "model.pt")
