"""What holds for every score: nothing of the caller's changes, seeds decide, failures say what failed."""

from __future__ import annotations

import copy
import math
import pickle
import random

import numpy as np
import pytest
import torch
from made_networks import random_network
from torch import nn

import tfnas
from tfnas.core.errors import InputError, RunFailed
from tfnas.proxies.score import ScoreFailed, find_score, score, score_names
from tfnas.spaces.zen.structure import Structure

KINDS = ("analytic", "forward", "gradient")
SMALL = tfnas.Architecture.parse(
    "i3x16_n10:conv_k3_s2_c6_relu:mb_k3_s1_m6_se2_c6_relu:"
    "mb_k3_s2_m18_c8_relu,mb_k3_s1_m24_se4_c8_swish:mb_k5_s1_m20_c10_swish:conv_k1_s1_c16_swish"
)
VIDEO = "[{'class': 'Conv3DKXBNRELU', 'in': 3, 'out': 4, 'k': 3, 'kt': 1, 's': 2}]"
SIZE = {"image_size": 16, "batch_size": 4}
MAY_FAIL = [("synflow", "zennas")]  # it needs maps of more than one pixel


class Plain(nn.Module):
    """Someone else's module, with a shortcut, dropout, in-place activations, and an activation that is a function."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.inside = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, 5)

    def forward(self, images):
        features = self.stem(images)
        features = torch.relu(features + self.inside(features))
        return self.head(self.dropout(features.mean((2, 3))))


def settings_of(name):
    settings = {**SIZE, **({"bits": 4} if name == "quantized_entropy" else {})}
    if find_score(name).needs_data:
        generator = torch.Generator().manual_seed(8)
        settings["images"] = torch.randn(8, 3, 16, 16, generator=generator)
        settings["labels"] = torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])
    return settings


def subject_of(name):
    return VIDEO if name == "spatiotemporal_entropy" else SMALL


def can_score_any_module(name):
    return name in (
        "flops",
        "params",
        "random",
        "zen",
        "naswot",
        "synflow",
        "grad_norm",
        "te_nas",
        "zico",
        "az_complexity",
    )


# ---- the module that is handed in ----------------------------------------------------------------------------------


def snapshot(module):
    """All that a score must leave as it was."""
    parts = dict(module.named_modules())
    return {
        "state": copy.deepcopy(module.state_dict()),
        "modes": {name: part.training for name, part in parts.items()},
        "grads": {name: (p.grad, None if p.grad is None else p.grad.clone()) for name, p in module.named_parameters()},
        "asks": {name: parameter.requires_grad for name, parameter in module.named_parameters()},
        "identities": {name: id(value) for name, value in module.state_dict(keep_vars=True).items()},
        "settings": {name: (getattr(part, "momentum", None), getattr(part, "p", None)) for name, part in parts.items()},
        "hooks": {
            (name, kind): list(getattr(part, kind).items())
            for name, part in parts.items()
            for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        },
        "random": (torch.get_rng_state().clone(), random.getstate(), str(np.random.get_state())),
        "globals": (torch.get_default_dtype(), torch.is_grad_enabled()),
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, value in before["state"].items():
        assert torch.equal(value, after["state"][name]), name
    for name, (gradient, copied) in before["grads"].items():
        assert after["grads"][name][0] is gradient
        assert copied is None or torch.equal(copied, gradient)
    assert torch.equal(before["random"][0], after["random"][0])
    assert before["random"][1:] == after["random"][1:]
    for key in ("modes", "asks", "identities", "settings", "hooks", "globals"):
        assert before[key] == after[key], key


def make_busy(module):
    """Hooks, gradients, mixed modes and a frozen weight; returns what the hooks have seen."""
    seen = []
    for part in module.modules():
        part.register_forward_hook(lambda *_: seen.append("forward"))
        part.register_forward_pre_hook(lambda *_: seen.append("before"))
        part.register_full_backward_hook(lambda *_: seen.append("backward"))
    for number, parameter in enumerate(module.parameters()):
        parameter.requires_grad_(number % 3 != 0)
        if number % 3 == 1:
            parameter.grad = torch.full_like(parameter, 0.5)
    module.train()
    next(iter(module.children())).eval()
    return seen


def modules_for(name):
    from tfnas.spaces.zen.structure_network import StructureNetwork

    if name == "spatiotemporal_entropy":
        return [StructureNetwork(Structure.parse(VIDEO), num_classes=3)]
    structure = Structure.parse("SuperConvK3BNRELU(3,4,1,1)SuperResK3K3(4,6,2,4,1)SuperConvK1BNRELU(6,8,1,1)")
    modules = [random_network(SMALL), StructureNetwork(structure, num_classes=3, use_se=True)]
    return modules + ([Plain()] if can_score_any_module(name) else [])


@pytest.mark.parametrize("name", score_names())
def test_leaves_the_module_as_it_was(name):
    found = find_score(name)
    for module in modules_for(name):
        seen = make_busy(module)
        for variant in found.variants:
            before = snapshot(module)
            try:
                score(name, module, variant=variant, **settings_of(name))
            except InputError as error:  # a program's variant that this network cannot support
                assert "structure" in str(error) or "stage_weights" in str(error), error
            except ScoreFailed:
                assert (name, variant) in MAY_FAIL
            assert_same(before, snapshot(module))
            assert seen == []


def test_a_failing_score_leaves_the_module_as_it_was():
    class Fails(Plain):
        def forward(self, images):
            super().forward(images)
            raise KeyError("no such thing")

    module = Fails()
    before = snapshot(module)
    with pytest.raises(ScoreFailed, match="no such thing") as caught:
        score("zen", module, **SIZE)
    assert caught.value.architecture == "Fails"
    assert_same(before, snapshot(module))


def test_surroundings_do_not_matter(float64):
    module = Plain()
    with torch.no_grad():
        alone = score("grad_norm", module, **SIZE)
    with torch.inference_mode():
        assert score("grad_norm", module, **SIZE) == alone
    torch.manual_seed(99)
    assert score("grad_norm", module.train(), **SIZE) == alone


# ---- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", score_names())
def test_a_seed_decides(name):
    subject, settings = subject_of(name), settings_of(name)
    first = score(name, subject, seed=3, **settings)
    assert score(name, subject, seed=3, **settings) == first
    other = score(name, subject, seed=4, **settings)
    assert (other == first) == (find_score(name).cost == "analytic" and name != "random")


@pytest.mark.parametrize("name", score_names())
def test_text_and_description_score_alike(name):
    subject = Structure.parse(VIDEO) if name == "spatiotemporal_entropy" else SMALL
    assert score(name, subject.to_text(), **settings_of(name)) == score(name, subject, **settings_of(name))


@pytest.mark.parametrize("name", ["zen", "naswot", "synflow", "grad_norm", "te_nas", "az_progressivity"])
def test_a_network_scores_as_its_architecture(name):
    network = random_network(SMALL).train()
    assert score(name, network, batch_size=4) == score(name, SMALL, batch_size=4)


def test_a_network_without_shortcuts_stays_so():
    plain = tfnas.Network(SMALL, residuals=False)
    expected = score("grad_norm", SMALL, batch_size=4, residuals=False)
    assert score("grad_norm", plain, batch_size=4) == expected
    assert score("grad_norm", SMALL, batch_size=4) != expected
    assert score("zen", plain, batch_size=4) == score("zen", SMALL, batch_size=4)
    assert score("zen", SMALL, batch_size=4, residuals=True) != score("zen", SMALL, batch_size=4)


def test_random_numbers_differ_between_networks():
    text = SMALL.to_text()
    others = [text, text.replace("m18", "m19"), text.replace("k5", "k3")]
    assert len({score("random", other) for other in others}) == 3
    assert 0 <= score("random", others[0], variant="tinynas") <= 100
    assert len({score("random", module) for module in (nn.Linear(2, 3), nn.Linear(3, 2))}) == 2


# ---- the registry --------------------------------------------------------------------------------------------------


def test_every_score_says_what_it_is():
    for name in score_names():
        found = find_score(name)
        assert found.name == name
        assert found.cost in KINDS
        assert ("gradient" in found.needs) == (found.cost == "gradient")
        assert found.summary and "\n" not in found.summary
        assert found.chosen_variant(None) == found.variants[0]


def test_analytic_scores_run_no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a network was built or run")

    monkeypatch.setattr(nn.Module, "__init__", refuse)
    monkeypatch.setattr(nn.Module, "__call__", refuse)
    analytic = [name for name in score_names() if find_score(name).cost == "analytic"]
    assert len(analytic) == 8
    for name in analytic:
        assert np.isfinite(score(name, subject_of(name), **settings_of(name)))


# ---- failures ------------------------------------------------------------------------------------------------------


def test_unknown_names():
    with pytest.raises(InputError, match=r"no score 'naswott'.*zen, naswot, .*Did you mean naswot\?"):
        score("naswott", SMALL)
    with pytest.raises(InputError, match="has no variant 'paper': give one of default, zennas"):
        score("zen", SMALL, variant="paper")
    with pytest.raises(InputError, match="unknown score option 'batchsize'"):
        score("zen", SMALL, batchsize=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 1}, "batch_size must be a whole number of 2 or more, got 1"),
        ({"image_size": 0}, "image_size must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": True}, "seed must be"),
        ({"dtype": "float16"}, "dtype must be float32 or float64"),
        ({"initialisation": "xavier"}, "initialisation must be one of"),
        ({"device": "tpu"}, "device must be"),
        ({"stage_weights": (1, float("nan"))}, "stage_weights must be finite"),
        ({"depth_penalty": -1.0}, "depth_penalty must be"),
        ({"weight_std": 0.0}, "weight_std must be"),
        ({"bits": 0}, "bits must be"),
        ({"incorporated_weights": (1.0,)}, "incorporated_weights must be two"),
        ({"exponents": (1.0, 1.0, 1.0)}, "exponents must be two"),
        ({"exponents": (1.0, math.inf)}, "exponents must be finite"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        score("zen", SMALL, **settings)


def test_subjects_that_are_none():
    with pytest.raises(InputError, match="cannot score a int"):
        score("zen", 3)
    with pytest.raises(InputError, match="block"):
        score("zen", "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(9,16,1,8,1)")
    with pytest.raises(InputError):
        score("zen", "i3x16_n10:nonsense")


def test_networks_that_cannot_support_a_score():
    silent = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    with pytest.raises(InputError, match=r"naswot needs activation modules .* but Sequential has none"):
        score("naswot", silent, **SIZE)
    with pytest.raises(InputError, match=r"cannot determine that of 1 \(GroupNorm\)"):
        score("zen", nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), **SIZE)
    with pytest.raises(InputError, match=r"grad_norm needs logits .* returns \(4, 4, 14, 14\)"):
        score("grad_norm", nn.Conv2d(3, 4, 3), **SIZE)
    with pytest.raises(InputError, match="has no feature map"):
        score("zen", nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.ReLU()), **SIZE)
    with pytest.raises(InputError, match="main path cannot be distinguished"):
        score("entropy", silent)
    with pytest.raises(InputError, match="labels must be 4 whole numbers"):
        score("grad_norm", SMALL, batch_size=4, labels=torch.tensor([0, 1, 2, 10]))


def test_what_is_not_finite_is_no_score():
    with pytest.raises(ScoreFailed, match=r"naswot of i3x16.* is not finite: -inf") as caught:
        score("naswot", SMALL, images=torch.ones(4, 3, 16, 16))  # all codes are equal
    assert caught.value.architecture == SMALL.to_text()
    assert isinstance(caught.value, RunFailed)
    with pytest.raises(ScoreFailed, match="-inf"):
        score("te_nas", SMALL, images=torch.ones(4, 3, 16, 16), dtype="float64", residuals=False)


def test_failures_travel_between_processes():
    sent = pickle.loads(pickle.dumps(ScoreFailed("it is not finite", "i3x16_n10:...")))
    assert (str(sent), sent.architecture) == ("it is not finite", "i3x16_n10:...")


def test_weights_that_cannot_be_drawn():
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU())
    with pytest.raises(InputError, match="uses a parametrization"):
        score("zen", normed, **SIZE)
    with pytest.raises(InputError, match="uses a parametrization"):
        score("zen", nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU()), **SIZE)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["zen", "naswot", "synflow", "grad_norm", "te_nas", "az_trainability"])
def test_a_gpu_gives_the_same(name):
    settings = {"batch_size": 4, "dtype": "float64", "seed": 1}
    before = torch.cuda.get_rng_state()
    value = score(name, SMALL, device="cuda", **settings)
    assert value == pytest.approx(score(name, SMALL, **settings), rel=1e-6)
    assert torch.equal(before, torch.cuda.get_rng_state())
