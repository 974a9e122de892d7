"""The random numbers behind the oracle's exact values: its `meta` says how they were made."""

from __future__ import annotations

import json
import math

import numpy as np
import torch

from tfnas.proxies.network_preparation import RandomGenerator


class ExactDraws(RandomGenerator):
    """Numbers of numpy seeds: 1000 + k for the k-th layer, j for the j-th batch, 2000 + j for j-th signs, 7 for labels.

    `single`: weights rounded to single precision, as where the program draws them before it goes on in double.
    """

    def __init__(self, *, single=False):
        super().__init__(0)
        self.batches = self.drawn_signs = 0
        self.single = single

    def images(self, shape):
        self.batches += 1
        return _normal(self.batches, shape)

    def weight(self, place, shape):
        numbers = _normal(1000 + place, shape)
        return numbers.float() if self.single else numbers

    def signs(self, shape):
        self.drawn_signs += 1
        return _normal(2000 + self.drawn_signs, shape).sign()

    def labels(self, num_classes, count):
        return torch.from_numpy(np.random.RandomState(7).randint(0, num_classes, size=[count]))


def _normal(seed, shape):
    numbers = np.random.RandomState(seed).standard_normal(math.prod(shape))
    return torch.from_numpy(numbers.reshape(tuple(shape)))


def zeroshot_values(shared_data):
    """The whole document."""
    return json.loads((shared_data / "oracles" / "zeroshot.json").read_text())
