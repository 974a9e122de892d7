"""Accuracy and loss against sums by hand, in one process and in two."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import nn

from tests.made_networks import random_network
from tfnas.core.errors import InputError
from tfnas.nn.classification_metrics import MetricSums, evaluate_batches, evaluate_networks, evaluating, label_ranks
from tfnas.runs.distributed import DistributedContext

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


def found_in(logits, labels, num_classes):
    """The metrics of logits given in one batch."""
    return evaluate_batches(nn.Identity(), [(logits, labels)], CPU, num_classes=num_classes)


def test_numbers_by_hand_and_by_scikit_learn():
    logits, labels = logits_and_labels()
    batches = [(logits[start : start + 10], labels[start : start + 10]) for start in range(0, 61, 10)]
    metrics = evaluate_batches(nn.Identity(), batches, CPU, num_classes=7)
    assert metrics[:3] == pytest.approx(by_hand(logits, labels), rel=1e-12)
    assert metrics.images == 61
    for k, value in ((1, metrics.top1), (5, metrics.top5)):
        assert value == pytest.approx(100 * top_k_accuracy_score(labels, logits, k=k, labels=range(7)), rel=1e-12)


def test_several_networks_see_every_batch():
    logits, labels = logits_and_labels()
    batches = [(logits[:20], labels[:20]), (logits[20:20], labels[20:20]), (logits[20:], labels[20:])]
    found = evaluate_networks(lambda images: (factor * images for factor in (1, -2, 3)), 3, batches, CPU)
    for metrics, factor in zip(found, (1, -2, 3), strict=True):
        assert metrics[:3] == pytest.approx(by_hand(factor * logits, labels), rel=1e-6)
        assert metrics.images == 61
    with pytest.raises(ValueError, match="zip"):
        evaluate_networks(lambda images: (images, images), 3, batches, CPU)


def test_few_classes_are_all_among_five():
    logits, labels = logits_and_labels(classes=4)
    metrics = found_in(logits, labels, 4)
    assert metrics.top5 == 100.0
    assert metrics.top1 == pytest.approx(by_hand(logits, labels)[0])


def test_equal_logits_and_no_numbers():
    same = torch.zeros(3, 6)
    assert label_ranks(same, torch.tensor([0, 4, 5])).tolist() == [0, 4, 5]
    spoiled = torch.tensor([[float("nan"), 1.0], [float("nan"), float("nan")]])
    assert label_ranks(spoiled, torch.tensor([1, 0])).tolist() == [2, 2]


def test_half_precision_is_summed_in_double():
    sums = MetricSums(CPU, num_classes=2)
    for _ in range(3):
        sums.update([torch.full((4096, 2), 0.5, dtype=torch.bfloat16)], torch.zeros(4096, dtype=torch.int64))
    assert sums.metrics()[0].loss == pytest.approx(np.log(2), rel=1e-14)


def test_no_images_and_other_classes():
    with pytest.raises(InputError, match="no evaluation images"):
        evaluate_batches(nn.Identity(), [], CPU)
    with pytest.raises(InputError, match="the network has 4 classes, the images have 3"):
        found_in(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), 3)


def test_evaluating_leaves_every_module_in_its_mode():
    network = random_network(dropout_rate=0.5)
    network.train()
    network.stage1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(9)
    with evaluating(network):
        metrics = evaluate_batches(network, [(images[:4], labels[:4]), (images[4:], labels[4:])], CPU, num_classes=10)
    assert network.training
    assert not network.stage1.training
    assert not network.stage1[0].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        logits = network.eval()(images)
    assert metrics[:3] == pytest.approx(by_hand(logits, labels), rel=1e-6)


def test_the_mode_comes_back_after_a_failure():
    network = nn.Linear(3, 2)
    with pytest.raises(RuntimeError), evaluating(network):
        evaluate_batches(network, [(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))], CPU)
    assert network.training
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore:.*multi-threaded")  # Python 3.12 and later warn of forking beside torch's threads
def test_two_processes_evaluate_as_one(tmp_path):
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
    alone = found_in(logits, labels, 7)
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
        all_reduce = DistributedContext(rank, 2, CPU).all_reduce_sum
        found.append(list(evaluate_batches(nn.Identity(), batches, CPU, all_reduce=all_reduce)))
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
