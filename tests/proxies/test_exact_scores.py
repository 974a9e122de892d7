"""Scores of the ZenNAS program in exact mode: weights and images from numpy seeds, so that many digits compare."""

from __future__ import annotations

import math

import oracle
import pytest
from exact_draws import ExactDraws, zeroshot_values
from torch.nn import functional

from tfnas.proxies.score import score

INIT = (
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,1,8,1)SuperResK3K3(16,32,2,16,1)SuperResK3K3(32,64,2,32,1)"
    "SuperResK3K3(64,64,2,32,1)SuperConvK1BNRELU(64,128,1,1)"
)
INIT_VALUES = {
    "zen_float32": 15.408218383789062,
    "zen_float64": 15.408219247240035,
    "naswot_float32": 165.72738658565066,
    "gradnorm_float64": 9.875121135991606,
    "synflow": -141.31483530800404,
    "synflow_noBN_log": 54.86526154189969,
    "te_ntk_kaiming_float64": -2.169284724762485,
}
SETTINGS = {  # score and settings, relative and absolute tolerance, as the oracle's `meta` gives them
    "zen_float32": ("zen", {"variant": "zennas"}, 0, 0.02),
    "zen_float64": ("zen", {"variant": "zennas", "dtype": "float64"}, 0, 1e-8),
    "naswot_float32": ("naswot", {"variant": "zennas"}, 0, 2e-3),
    "gradnorm_float64": ("grad_norm", {"variant": "zennas", "dtype": "float64"}, 1e-6, 0),
    "synflow": ("synflow", {"variant": "zennas"}, 1e-8, 0),
    "synflow_noBN_log": ("synflow", {"variant": "zennas_no_batch_norm"}, 1e-8, 0),
    "te_ntk_kaiming_float64": (
        "te_nas",
        {"variant": "zennas", "initialisation": "kaiming", "dtype": "float64"},
        1e-7,
        0,
    ),
}
OF_CIFAR = ("init_XXBL_cifar", "zennet_cifar_model_size1M_res32")
OF_IMAGENET = ("init_IDW_imagenet", "zennet_imagenet1k_flops400M_res224", "zennet_imagenet1k_latency01ms_res224")


@pytest.fixture(autouse=True)
def quick_depthwise(monkeypatch):
    monkeypatch.setattr(functional, "conv2d", oracle.conv2d)


def check(value_name, structure, expected, *, cifar, absolute=None):
    name, settings, relative, tolerance = SETTINGS[value_name]
    size, classes = (32, 100) if cifar else (64, 1000)
    draws = ExactDraws(single=name == "synflow")
    value = score(name, structure, image_size=size, num_classes=classes, generator=draws, **settings)
    assert math.isclose(value, expected, rel_tol=relative, abs_tol=absolute or tolerance), (value, expected)


@pytest.mark.parametrize("value_name", SETTINGS)
def test_small_network(value_name):
    check(value_name, INIT, INIT_VALUES[value_name], cifar=True)


@pytest.mark.parametrize("value_name", ["zen_float32", "naswot_float32", "synflow"])
@pytest.mark.parametrize("structure", OF_CIFAR[:1] + OF_IMAGENET[:1])
def test_networks_of_the_oracle(shared_data, structure, value_name):
    compare(shared_data, structure, value_name)


@pytest.mark.slow
@pytest.mark.parametrize("value_name", SETTINGS)
@pytest.mark.parametrize("structure", OF_CIFAR + OF_IMAGENET)
def test_every_network_of_the_oracle(shared_data, structure, value_name):
    compare(shared_data, structure, value_name)


def compare(shared_data, structure, value_name):
    entry = zeroshot_values(shared_data)["zennas"][structure]
    if value_name not in entry["exact"]:
        pytest.skip(f"the oracle has no {value_name} of {structure}")
    expected = entry["exact"][value_name]
    expected = expected["score"] if isinstance(expected, dict) else expected
    deep = structure == "zennet_cifar_model_size1M_res32"
    absolute = 0.05 if deep and value_name == "zen_float32" else None
    check(value_name, entry["structure"], expected, cifar=structure in OF_CIFAR, absolute=absolute)


def test_zen_of_other_seeds_is_distributed_as_the_programs():
    values = [score("zen", INIT, image_size=32, seed=seed, variant="zennas") for seed in range(4)]
    assert all(abs(value - 15.4355) < 5 * 0.0486 for value in values)
    assert len(set(values)) == 4


def test_repeats_drift_as_in_the_program():
    value = score("zen", INIT, image_size=32, variant="zennas", repeats=16)
    assert abs(value - 21.455) < 0.15  # one repeat: 15.4; the sixteenth: 23.0


def test_zen_of_the_program_with_shortcuts():
    value = score("zen", INIT, image_size=32, variant="zennas", residuals=True)
    assert abs(value - 18.9099) < 5 * 0.0648


def test_naswot_of_other_seeds():
    value = score("naswot", INIT, image_size=32, variant="zennas", seed=5)
    assert abs(value - 165.814) < 0.2


def test_synflow_of_the_program_fails_where_maps_are_single_pixels():
    from tfnas.proxies.score import ScoreFailed

    with pytest.raises(ScoreFailed, match="Expected more than 1 value per channel"):
        score("synflow", INIT, image_size=8, variant="zennas")
