"""State dicts of wrapped networks, and under the keys of other programs' checkpoints."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from made_networks import digits_architecture, random_network
from torch import nn
from torch.optim.swa_utils import AveragedModel

import tfnas
from tfnas.core.errors import InputError
from tfnas.evaluation.evaluation_config import EvaluationConfig
from tfnas.evaluation.tested_model import open_evaluated_model
from tfnas.nn.weights import KEYS, WeightsWarning, find_state


def arrived(network, trained):
    return all(torch.equal(value, trained.state_dict()[name]) for name, value in network.state_dict().items())


def compiled(network):
    return torch.compile(network, backend="eager")


def with_a_part_compiled(network):
    network.feature_mix_layer = compiled(network.feature_mix_layer)
    return network


WRAPPERS = {
    "compiled": compiled,
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "compiled, then parallel": lambda network: nn.DataParallel(compiled(network)),
    "parallel, then compiled": lambda network: compiled(nn.DataParallel(network)),
    "all": lambda network: compiled(nn.DataParallel(AveragedModel(compiled(network)))),
    "a part": with_a_part_compiled,
    "a part, then parallel": lambda network: nn.DataParallel(with_a_part_compiled(network)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_weights_of_wrapped_networks_arrive(tmp_path, wrap):
    """The wrappers are torch's own, so that the names are those that it makes."""
    trained = random_network()
    torch.save(wrap(random_network()).state_dict(), tmp_path / "weights.pt")
    network = random_network(seed=1)
    tfnas.load_weights(network, tmp_path / "weights.pt")
    assert arrived(network, trained)


def test_a_wrapped_network_takes_weights(tmp_path):
    torch.save(nn.DataParallel(random_network()).state_dict(), tmp_path / "weights.pt")
    for wrap in (lambda network: network, compiled, with_a_part_compiled, nn.DataParallel):
        network = wrap(random_network(seed=1))
        tfnas.load_weights(network, tmp_path / "weights.pt")
        assert arrived(network, wrap(random_network()))


@pytest.mark.parametrize("key", [*KEYS, "model.state_dict", "network.model"])
@pytest.mark.parametrize("prefix", ["", "module._orig_mod."])
def test_weights_under_keys_arrive(tmp_path, key, prefix):
    trained = random_network(num_classes=7)
    document = {prefix + name: value for name, value in trained.state_dict().items()}
    for name in reversed(key.split(".")):
        document = {"epoch": 3, "best": torch.tensor(75.2), name: document, "optimizer": {"state": {}}}
    torch.save(document, tmp_path / "weights.pt")
    network = random_network(num_classes=7, seed=1)
    tfnas.load_weights(network, tmp_path / "weights.pt")
    assert arrived(network, trained)
    (tmp_path / "model.config").write_text(json.dumps(digits_architecture().to_model_config()))
    config = EvaluationConfig(
        config_path=str(tmp_path / "model.config"), weights=str(tmp_path / "weights.pt"), val_root="none"
    )
    assert arrived(open_evaluated_model(config).network, trained)  # with the classes of the weights


def test_of_several_state_dicts_the_first_is_read_and_the_others_are_told(tmp_path):
    trained, averaged, network = (random_network(seed=seed) for seed in range(3))
    torch.save({"state_dict_ema": averaged.state_dict(), "state_dict": trained.state_dict()}, tmp_path / "w.pt")
    with pytest.warns(WeightsWarning, match=r"w\.pt contains weights under state_dict and under state_dict_ema: those"):
        tfnas.load_weights(network, tmp_path / "w.pt")
    assert arrived(network, trained)


@pytest.mark.parametrize("outer", [lambda held: held, lambda held: {"state_dict": held}])
def test_tensors_beside_such_a_key_are_told(tmp_path, outer):
    trained, network = random_network(), random_network(seed=1)
    torch.save(outer({"model": trained.state_dict(), "b": torch.ones(2), "rng": torch.get_rng_state()}), tmp_path / "w")
    with pytest.warns(
        WeightsWarning, match=r"w contains other tensors \(b\) in addition to the weights under model, which are used"
    ):
        tfnas.load_weights(network, tmp_path / "w")
    assert arrived(network, trained)


def test_settings_beside_weights_do_not_hide_them():
    state = {"model": {"name": "mine"}, "a.weight": torch.ones(2)}
    assert find_state(state, "the file") == state


def test_settings_under_such_a_key_are_no_weights(tmp_path):
    """And are not told as others."""
    trained = random_network()
    for key in ("network", "state_dict_ema"):
        torch.save({"model": {"name": "mine", "depth": 3}, key: trained.state_dict()}, tmp_path / "w.pt")
        network = random_network(seed=1)
        tfnas.load_weights(network, tmp_path / "w.pt")
        assert arrived(network, trained)


def refused(document, folder, match):
    torch.save(document, folder / "w.pt")
    network = random_network()
    with warnings.catch_warnings(), pytest.raises(InputError, match=match):
        tfnas.load_weights(network, folder / "w.pt")
    assert arrived(network, random_network())


def test_what_does_not_fit_says_what_was_found(tmp_path):
    state = random_network().state_dict()
    refused(
        {"state_dict": {f"encoder.net.{name}": value for name, value in state.items()}},
        tmp_path,
        r"first_stem\.conv\.weight.*Its names begin with 'encoder\.net\.': save the state dict of that part",
    )
    refused(
        {"epoch": 3, "weights": state}, tmp_path, "It contains no tensors, but epoch, weights; weights are looked for"
    )
    name = next(iter(state))
    refused({**state, f"module.{name}": state[name]}, tmp_path, rf"w\.pt contains {name} twice, with and without")
    refused([], tmp_path, "contains no weights: it is a list")


def test_a_document_that_holds_itself_ends(tmp_path):
    document = {}
    document["model"] = document
    refused(document, tmp_path, "It contains no tensors, but model")
