"""Weights from files: the trained checkpoints of the authors' program, ours, and what is refused."""

from __future__ import annotations

import json
import pickle

import oracle
import pytest
import torch
from made_networks import digits_architecture, random_network
from torch.nn import functional

import tfnas
from tfnas import Architecture, InputError
from tfnas.nn.network import Network


def authors_checkpoint(network, path, zipped=True):
    """A `checkpoint.pth.tar` with what the authors' training programs write into it."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-5)
    sum(parameter.sum() for parameter in network.parameters()).backward()
    state = {f"module.{name}": value.clone() for name, value in network.state_dict().items()}
    optimizer.step()  # momentum buffers are in the file too; the weights in it are those before
    document = {
        "epoch": 250,
        "state_dict": state,
        "best_acc_top1": torch.tensor(75.2),
        "best_acc_top5": 92.1,
        "optimizer": optimizer.state_dict(),
        "amp": None,
    }
    torch.save(document, path, _use_new_zipfile_serialization=zipped)
    return {name.removeprefix("module."): value for name, value in state.items()}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_trained_checkpoint_gives_the_authors_logits(shared_data, float64, monkeypatch, tmp_path, zipped):
    """The oracle's weights, written as the authors' program writes them, through a file, into another network."""
    monkeypatch.setattr(functional, "conv2d", oracle.conv2d)
    nets = [net for net in oracle.values(shared_data)["nets"] if net["model_config"] is not None]
    net = nets[int(zipped)]
    (tmp_path / "model.config").write_text(json.dumps(net["model_config"]))
    architecture = Architecture.load(tmp_path / "model.config")
    made = Network(architecture)
    oracle.fill_network(made)
    authors_checkpoint(made, tmp_path / "checkpoint.pth.tar", zipped)
    network = Network(architecture).eval()
    tfnas.load_weights(network, tmp_path / "checkpoint.pth.tar")
    with torch.no_grad():
        logits = network(oracle.images(96))
    torch.testing.assert_close(logits[:, :8], torch.tensor(net["exact_logits_96px_batch2"]), rtol=1e-9, atol=0)
    assert logits.sum().item() == pytest.approx(net["exact_logit_sum"], rel=1e-9)


@pytest.mark.parametrize("zipped", [True, False])
def test_every_entry_of_a_checkpoint_arrives(tmp_path, zipped):
    state = authors_checkpoint(random_network(), tmp_path / "model_best.pth.tar", zipped)
    network = random_network(seed=1)
    tfnas.load_weights(network, str(tmp_path / "model_best.pth.tar"))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_bare_state_dict_loads(tmp_path, prefix):
    trained, network = random_network(), random_network(seed=1)
    torch.save({prefix + name: value for name, value in trained.state_dict().items()}, tmp_path / "weights.pt")
    tfnas.load_weights(network, tmp_path / "weights.pt")
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in network.state_dict().items())


def refused(network, path, match):
    """The weights at the path are refused with this message, and the network keeps its own."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=match):
        tfnas.load_weights(network, path)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_another_width_is_refused_with_layer_and_both_shapes(tmp_path):
    architecture = digits_architecture()
    other = architecture.with_widths({(1, 0): architecture.stages[1][0].mid_channels + 1})
    authors_checkpoint(random_network(other), tmp_path / "c.pth.tar")
    own, theirs = (a.stages[1][0].mid_channels for a in (architecture, other))
    channels = architecture.stages[1][0].in_channels
    refused(
        random_network(),
        tmp_path / "c.pth.tar",
        rf"c\.pth\.tar contains the weights of another architecture: stage2\.0\.inverted_bottleneck\.conv\.weight has "
        rf"the shape {theirs} x {channels} x 1 x 1, the network's has {own} x {channels} x 1 x 1",
    )


def test_other_depths_are_refused_with_the_layer(tmp_path):
    deep, shallow = random_network(), random_network(digits_architecture(depths=(1, 2, 1)))
    authors_checkpoint(deep, tmp_path / "deep.pth.tar")
    authors_checkpoint(shallow, tmp_path / "shallow.pth.tar")
    refused(
        shallow,
        tmp_path / "deep.pth.tar",
        r"it contains stage3\.1\.depth_conv\.bn\.bias, which the network does not have",
    )
    refused(
        deep,
        tmp_path / "shallow.pth.tar",
        r"stage3\.1\.inverted_bottleneck\.conv\.weight is missing, which has the shape \d+ x \d+ x 1 x 1 in the",
    )


def test_other_classes_are_refused(tmp_path):
    authors_checkpoint(random_network(), tmp_path / "c.pth.tar")
    refused(
        random_network(num_classes=7), tmp_path / "c.pth.tar", r"classifier\.linear\.weight has the shape 10 x \d+,"
    )


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_unrun(tmp_path, zipped):
    document = {"state_dict": random_network().state_dict(), "optimizer": Bomb(tmp_path / "ran")}
    torch.save(document, tmp_path / "c.pth.tar", _use_new_zipfile_serialization=zipped)
    refused(random_network(), tmp_path / "c.pth.tar", "refused because loading them could run code")
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(document["optimizer"]))
    refused(random_network(), tmp_path / "bare.pkl", "refused because loading them could run code")
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "bare.pkl").read_bytes()).close()  # the bomb works
    assert (tmp_path / "ran").exists()


def test_files_without_weights_are_refused(tmp_path):
    network = random_network()
    refused(network, tmp_path / "none.pth.tar", r"none\.pth\.tar cannot be read: No such file")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    refused(network, tmp_path / "list.pt", r"contains no weights: it is a list, not a dict of tensors by name")
    torch.save({"state_dict": {**network.state_dict(), "first_stem.bn.bias": 3}}, tmp_path / "number.pt")
    refused(network, tmp_path / "number.pt", r"first_stem\.bn\.bias is a int, not a tensor")
    whole = tmp_path / "whole.pt"
    torch.save(network.state_dict(), whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:-500])
    refused(network, tmp_path / "cut.pt", "is no readable checkpoint: it is damaged")
