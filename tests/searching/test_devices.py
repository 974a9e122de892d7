"""The comparisons of test_gpu.py, of the CPU with itself: they run, hold where they must, and notice what is wrong."""

import contextlib

import pytest
import torch
from made_devices import check_equal, check_near, computed_on
from made_learners import random_batch, random_learner
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tfnas.searching.differentiable import architecture_parameters as sampling
from tfnas.searching.differentiable.supernet_learner import architecture_loss, weight_loss
from tfnas.supernet.supernet import Path


def test_low_memory_computes_the_same(tmp_path, float64):
    check_equal(computed_on("cpu", tmp_path), computed_on("cpu", tmp_path, low_memory=True), rtol=0, atol=0)


@pytest.mark.parametrize("low_memory", [False, True])
def test_several_threads_compute_the_same(tmp_path, float64, low_memory):
    alone = computed_on("cpu", tmp_path, low_memory=low_memory)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        check_equal(alone, computed_on("cpu", tmp_path, low_memory=low_memory))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_gpus_way_computes_the_same(tmp_path, float64, low_memory, request):
    expected = computed_on("cpu", tmp_path)
    request.getfixturevalue("as_on_a_gpu")
    check_equal(expected, computed_on("cpu", tmp_path, low_memory=low_memory))


@pytest.mark.parametrize("low_memory", [False, True])
def test_mixed_precision_is_near_single_precision(tmp_path, low_memory):
    check_near(computed_on("cpu", tmp_path), computed_on("cpu", tmp_path, amp=True, low_memory=low_memory))


def test_single_precision_is_not_taken_for_double(tmp_path):
    single = computed_on("cpu", tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        double = computed_on("cpu", tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(AssertionError, match="weight loss: "):
        check_equal(double, single)


def test_a_gradient_that_points_elsewhere_is_noticed(tmp_path):
    exact, mixed = computed_on("cpu", tmp_path), computed_on("cpu", tmp_path, amp=True)
    with pytest.raises(AssertionError, match="nothing was computed in mixed precision"):
        check_near(exact, exact)
    mixed["gradient of log_alphas"].mul_(
        torch.linspace(0.3, 3, mixed["gradient of log_alphas"].numel()).view_as(mixed["gradient of log_alphas"])
    )
    with pytest.raises(AssertionError, match="gradient of log_alphas"):
        check_near(exact, mixed)


class Multiplied(TorchDispatchMode):
    """Notes the types that products and convolutions have."""

    def __init__(self):
        super().__init__()
        self.types = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "addmm", "convolution"):
            self.types.add(made.dtype)
        return made


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("low_memory", [False, True])
def test_forward_passes_mix_no_devices(monkeypatch, amp, low_memory):
    """On a GPU that only has shapes: operators there refuse tensors of the CPU, which `meta` tensors do not."""
    monkeypatch.setattr(sampling, "gumbel_noise", lambda like, _: torch.zeros_like(like))  # there is no fake of it
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    torch._C._ensureCUDADeviceGuardSet()
    learner, (images, labels) = random_learner(), random_batch()
    for _, _, operation in learner.supernet.operations():
        operation.low_memory = low_memory
    learner.supernet.low_memory, learner.amp = low_memory, amp
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, contextlib.ExitStack() as stack:
        for module in (*learner.supernet.modules(), *learner.parameters.modules()):
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = torch.nn.Parameter(mode.from_tensor(parameter.detach()).to("cuda"))
            for name, buffer in module._buffers.items():
                module._buffers[name] = mode.from_tensor(buffer).to("cuda")
        images = mode.from_tensor(images).to("cuda", memory_format=torch.channels_last)
        labels = mode.from_tensor(labels).to("cuda")
        learner.table_ms = mode.from_tensor(learner.table_ms).to("cuda")
        learner.weight_optimizer.param_groups[0]["params"] = list(learner.supernet.parameters())
        if low_memory:  # whose gradients come with its losses, and there is nothing that could go back
            stack.enter_context(torch.no_grad())
        multiplied = stack.enter_context(Multiplied())
        found = weight_loss(learner, images, labels, [Path((0, 1, 0))]) if not low_memory else ()
        architecture, parts = architecture_loss(learner, images, labels, 5.0, torch.Generator().manual_seed(0))
        for scalar in (*found, architecture, *parts):
            assert (scalar.device.type, scalar.dtype) == ("cuda", torch.float32)
        assert multiplied.types == {torch.bfloat16 if amp else torch.float32}
