"""Accuracy and loss against sums by hand, in one process and in two."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy

from tests.made_networks import random_network
from tfnas.core.errors import InputError
from tfnas.evaluation.metrics import Judgement, judge, label_ranks

CPU = torch.device("cpu")


def logits_and_labels(count=61, classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)


def by_hand(logits, labels):
    """Top-1, top-5 (percent) and mean cross entropy, in numpy."""
    x, y = logits.double().numpy(), labels.numpy()
    order = np.argsort(-x, axis=1, kind="stable")
    probabilities = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    rows = range(len(y))
    return (
        100 * np.mean([order[i, 0] == y[i] for i in rows]),
        100 * np.mean([y[i] in order[i, :5] for i in rows]),
        -np.mean([np.log(probabilities[i, y[i]]) for i in rows]),
    )


def test_numbers_by_hand_and_by_torchmetrics():
    logits, labels = logits_and_labels()
    judgement = Judgement(7, CPU)
    for start in range(0, 61, 10):
        judgement.update(logits[start : start + 10], labels[start : start + 10])
    scores = judgement.compute()
    assert scores[:3] == pytest.approx(by_hand(logits, labels), rel=1e-12)
    assert scores.images == 61
    for k, value in ((1, scores.top1), (5, scores.top5)):
        assert value == pytest.approx(100 * multiclass_accuracy(logits, labels, 7, "micro", top_k=k).item(), rel=1e-6)


def test_few_classes_are_all_among_five():
    logits, labels = logits_and_labels(classes=4)
    judgement = Judgement(4, CPU)
    judgement.update(logits, labels)
    scores = judgement.compute()
    assert scores.top5 == 100.0
    assert scores.top1 == pytest.approx(by_hand(logits, labels)[0])


def test_equal_logits_and_no_numbers():
    same = torch.zeros(3, 6)
    assert label_ranks(same, torch.tensor([0, 4, 5])).tolist() == [0, 4, 5]
    spoiled = torch.tensor([[float("nan"), 1.0], [float("nan"), float("nan")]])
    assert label_ranks(spoiled, torch.tensor([1, 0])).tolist() == [2, 2]


def test_half_precision_is_summed_in_double():
    logits = torch.full((4096, 2), 0.5, dtype=torch.bfloat16)
    judgement = Judgement(2, CPU)
    for _ in range(3):
        judgement.update(logits, torch.zeros(4096, dtype=torch.int64))
    assert judgement.compute().loss == pytest.approx(np.log(2), rel=1e-14)


def test_no_images_and_other_classes():
    with pytest.raises(InputError, match="no images"):
        Judgement(3, CPU).compute()
    with pytest.raises(InputError, match="the network has 4 classes, the images have 3"):
        Judgement(3, CPU).update(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))


def test_judging_leaves_every_module_in_its_mode():
    network = random_network(dropout_rate=0.5)
    network.train()
    network.stage1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(9)
    scores = judge(network, [(images[:4], labels[:4]), (images[4:], labels[4:])], CPU, 10)
    assert network.training
    assert not network.stage1.training
    assert not network.stage1[0].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        logits = network.eval()(images)
    assert scores[:3] == pytest.approx(by_hand(logits, labels), rel=1e-6)


def test_the_mode_comes_back_after_a_failure():
    network = nn.Linear(3, 2)
    with pytest.raises(RuntimeError):
        judge(network, [(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))], CPU, 2)
    assert network.training
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore:.*multi-threaded")  # Python 3.12 and later warn of forking beside torch's threads
def test_two_processes_judge_as_one(tmp_path):
    """The first has 17 of the images, then none; each process must find the scores of all."""
    logits, labels = logits_and_labels()
    torch.save({"logits": logits, "labels": labels, "first": [17, 0]}, tmp_path / "data.pt")
    forking = multiprocessing.get_context("fork")  # starting anew takes ten seconds of imports
    running = [forking.Process(target=one_of_two, args=(tmp_path, rank)) for rank in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0, 0]
    whole = Judgement(7, CPU)
    whole.update(logits, labels)
    alone = whole.compute()
    for rank in range(2):
        for top1, top5, loss, images in torch.load(tmp_path / f"{rank}.pt"):
            assert (top1, top5, images) == (alone.top1, alone.top5, 61)
            assert loss == pytest.approx(alone.loss, rel=1e-14)


def one_of_two(folder, rank):
    """A process with the first so many of the images, or with the rest."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data = torch.load(folder / "data.pt")
    found = []
    for first in data["first"]:
        part = slice(None, first) if rank == 0 else slice(first, None)
        logits, labels = data["logits"][part], data["labels"][part]
        batches = [(logits[i : i + 8], labels[i : i + 8]) for i in range(0, len(labels), 8)]
        found.append(list(judge(nn.Identity(), batches, CPU, 7)))
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
