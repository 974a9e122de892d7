"""Operations on rows, by compiled kernels for every instruction set of this processor and by operators, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.dlpack import to_dlpack

from tfnas.searching.differentiable.optimizers import ElasticSGD
from tfnas.supernet.cpu import row_ops
from tfnas.supernet.elastic import ActiveSlice, take_active

MODULE = row_ops.load_kernels()
compiled_only = pytest.mark.skipif(MODULE is None, reason="no compiled kernels here: they need a C compiler")
LEVELS = [None, *range(0 if MODULE is None else MODULE.LEVELS)]
EPS = 1e-5
ACTIVATIONS = {True: functional.relu, False: functional.silu}
# rows and columns: fewer and more than are summed at a time, more numbers than one thread gets, odd ends
SHAPES = [(7, 1), (1, 5), (131, 17), (150, 300), (700, 257)]


@pytest.fixture(params=LEVELS, ids=["operators", "plain", "avx2", "avx512"][: len(LEVELS)])
def way(request, monkeypatch):
    monkeypatch.setattr(row_ops, "level", request.param)


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=[torch.float32, torch.float64])
def dtype(request):
    return request.param


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(found, expected):
    tolerance = {"rtol": 2e-5, "atol": 2e-5} if found.dtype is torch.float32 else {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(found, expected.to(found.dtype), **tolerance)


def summed(gradient, values):
    """What `column_sums` is to give."""
    return torch.stack((gradient.double().sum(0), (gradient.double() * values.double()).sum(0)))


def sums_close(found, expected, dtype):
    assert found.dtype is torch.float64
    close(found.to(dtype) / 100, expected / 100)


@compiled_only
def test_the_best_instruction_set_of_this_processor_is_used():
    levels = range(MODULE.LEVELS)
    assert row_ops.level == levels[-1] and "excite" in MODULE.KERNELS
    for level in levels:
        run("excite", *good_arguments("excite"), level=level)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [True, False])
def test_activation_and_its_gradient(way, threads, dtype, shape, relu):
    values, gradient = 3 * random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
    exact = values.double().clone().requires_grad_()
    activated = ACTIVATIONS[relu](exact)
    (expected,) = torch.autograd.grad(activated, exact, gradient.double())

    found = torch.empty_like(values)
    row_ops.activate(values, found, relu)
    close(found, activated.detach())
    sums = torch.ones(2, shape[1], dtype=torch.float64)
    row_ops.activation_gradient(gradient, values, found, relu, sums)
    close(found, expected)
    sums_close(sums - 1, summed(expected, values), dtype)
    row_ops.activation_gradient(gradient, values, gradient, relu, sums)  # in place
    assert torch.equal(gradient, found)


@pytest.mark.parametrize("relu", [True, False])
def test_activation_into_a_map_with_gaps(way, threads, dtype, relu):
    values = random(2 * 6 * 7, 500, dtype=dtype)
    wide = torch.full((2, 6, 9, 500), 5.0, dtype=dtype)
    row_ops.activate_to_maps(values, wide[:, :, 2:].permute(0, 3, 1, 2), relu)
    close(wide[:, :, 2:], ACTIVATIONS[relu](values.double()).view(2, 6, 7, 500))
    assert (wide[:, :, :2] == 5).all()


def test_swish_is_exact_to_the_last_digits_wherever_it_is(way):
    values = torch.cat((torch.linspace(-100, 100, 40001), torch.tensor([1e30, -1e30, 1e-30, 0.0])))
    values = torch.where(values < -85, -85.0, values)[None]  # beyond, x / (1 + exp(-x)) is next to nothing
    found = torch.empty_like(values)
    row_ops.activate(values, found, relu=False)
    torch.testing.assert_close(found.double(), functional.silu(values.double()), rtol=5e-7, atol=0)
    far = torch.tensor([[-100.0, -1e4]])
    row_ops.activate(far, far, relu=False)
    assert (far.abs() < 1e-33).all()


@pytest.mark.parametrize("relu", [True, False])
def test_what_is_not_finite_stays_so(way, dtype, relu):
    values = torch.ones(4, 20, dtype=dtype)
    values[1, 2], values[2, 3] = torch.nan, torch.inf
    found, sums = torch.empty_like(values), torch.zeros(2, 20, dtype=torch.float64)
    row_ops.activate(values, found, relu)
    assert found.isfinite().logical_not().nonzero().tolist() == [[1, 2], [2, 3]]
    row_ops.activation_gradient(values, torch.ones_like(values), found, relu, sums)
    assert found.isfinite().logical_not().nonzero().tolist() == [[1, 2], [2, 3]]
    assert sums.isfinite().logical_not().any(0).nonzero().flatten().tolist() == [2, 3]
    _, scale = row_ops.statistics(values, EPS)
    assert not scale[2].isfinite()
    assert scale[0].isfinite()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [True, False])
def test_batch_norm_forward_and_back(way, threads, dtype, shape, relu):
    values, gradient = 2 * random(*shape, dtype=dtype) + 5, random(*shape, dtype=dtype, seed=1)
    if len(values) == 1:
        values.fill_(3)  # batch statistics of one row: 0
    exact = values.double().clone().requires_grad_()
    normalized = (exact - exact.mean(0)) * (exact.var(0, correction=0) + EPS).rsqrt()
    (expected,) = torch.autograd.grad(normalized, exact, gradient.double())

    mean, scale = row_ops.statistics(values, EPS)
    again = values.clone()
    row_ops.normalize(again, mean, scale)
    close(again, normalized.detach())
    found = torch.empty_like(values)
    row_ops.normalize_and_activate(values, mean, scale, found, relu)
    assert torch.equal(values, again)
    close(found, ACTIVATIONS[relu](normalized.detach()))

    sums = row_ops.column_sums(gradient, values)
    sums_close(sums, summed(gradient, normalized.detach()), dtype)
    half = len(values) // 2  # some rows at a time
    for some in (slice(half), slice(half, None)):
        row_ops.normalization_gradient(gradient[some], values[some], scale, sums, gradient[some], len(values))
    if len(values) > 1:
        close(gradient, expected)


def test_statistics_of_a_large_mean_do_not_cancel(way, dtype):
    values = random(5000, 3, dtype=dtype) + 1000
    mean, scale = row_ops.statistics(values, 0.0)
    torch.testing.assert_close(mean.double(), values.double().mean(0), rtol=5e-6, atol=0)
    torch.testing.assert_close(1 / scale.double(), values.double().std(0, correction=0), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("images", "pixels", "channels"), [(1, 1, 1), (3, 5, 17), (5, 30, 300)])
@pytest.mark.parametrize("relu", [True, False])
def test_squeeze_and_excite(way, threads, dtype, images, pixels, channels, relu):
    shape = images * pixels, channels
    values, gradient = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)
    gates, to_means = (random(images, channels, dtype=dtype, seed=seed) for seed in (2, 3))
    exact, exact_gates = values.double().clone().requires_grad_(), gates.double().clone().requires_grad_()
    activated = ACTIVATIONS[relu](exact).view(images, pixels, channels)
    excited = activated * exact_gates[:, None]
    means = activated.mean(1)
    arriving = gradient.double().view_as(excited)
    expected, to_gates = torch.autograd.grad(
        (excited * arriving).sum() + (means * to_means.double()).sum(), [exact, exact_gates]
    )

    found = torch.empty_like(values)
    row_ops.activate(values, found, relu)
    found_means = torch.empty_like(gates)
    row_ops.image_means(found, found_means)
    close(found_means, means.detach())
    row_ops.excite(found, gates)
    close(found, excited.detach().view(shape))
    close(row_ops.gate_gradient(gradient, values, gates, relu), to_gates)
    sums = torch.zeros(2, channels, dtype=torch.float64)
    row_ops.excitation_gradient(gradient, values, gates, to_means / pixels, found, relu, sums)
    close(found, expected)
    sums_close(sums, summed(expected, values), dtype)


@pytest.mark.parametrize(
    ("shape", "dim"), [((9, 4, 1, 1), 0), ((9, 4, 1, 1), 1), ((90, 7, 80), 1), ((700, 60), 1), ((9,), 0)]
)
def test_active_entries_are_taken_out_and_put_back(dtype, shape, dim):
    parameter = random(*shape, dtype=dtype).requires_grad_()
    indices = torch.randperm(shape[dim], generator=torch.Generator().manual_seed(1))[: max(1, shape[dim] // 2)]
    indices = indices.sort().values
    expected = parameter.index_select(dim, indices)
    found = take_active(parameter, dim, indices)
    assert torch.equal(found, expected)
    gradient = random(*found.shape, dtype=dtype, seed=2)
    (one,), (other,) = (torch.autograd.grad(each, parameter, gradient) for each in (found, expected))
    assert torch.equal(one, other)
    assert torch.equal(take_active(parameter.detach(), dim, indices), expected)


@pytest.mark.parametrize(("shape", "dim"), [((9, 4, 1, 1), 0), ((9, 4, 1, 1), 1), ((300, 200), 1), ((200, 300), 0)])
def test_the_optimizer_moves_what_is_in_use(threads, dtype, shape, dim):
    size = shape[dim]
    places = torch.arange(0, size, 2)
    parameter = nn.Parameter(random(*shape, dtype=dtype))
    before = parameter.detach().clone()
    small = nn.Parameter(parameter.detach().index_select(dim, places))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    ours = ElasticSGD([parameter], lambda: {parameter: ActiveSlice(dim, places)}, **settings)
    theirs = torch.optim.SGD([small], **settings)
    for seed in range(1, 4):
        parameter.grad = random(*shape, dtype=dtype, seed=seed)
        small.grad = parameter.grad.index_select(dim, places)
        ours.step()
        theirs.step()
    rest = torch.arange(1, size, 2)
    close(parameter.detach().index_select(dim, places), small.detach())
    assert torch.equal(parameter.index_select(dim, rest), before.index_select(dim, rest))
    assert not ours.state[parameter]["momentum_buffer"].index_select(dim, rest).any()


@compiled_only
def test_only_what_they_fit_is_given_to_them():
    whole = torch.zeros(4, 6)
    assert row_ops.kernel_for("excite", whole, whole) is not None
    assert row_ops.kernel_for("excite", whole[:, ::2]) is None
    assert row_ops.kernel_for("excite", whole, whole.double()) is None
    assert row_ops.kernel_for("excite", whole.to(torch.bfloat16)) is None
    assert row_ops.kernel_for("excite", whole.to("meta")) is None


def run(kernel, *arguments, level=0, threads=1):
    """A call of the module's one entry."""
    given = [to_dlpack(one) if isinstance(one, torch.Tensor) else one for one in arguments]
    MODULE.run(MODULE.KERNELS.index(kernel) if isinstance(kernel, str) else kernel, level, threads, *given)


def good_arguments(kernel):
    """Arguments of every kernel that fit: three images of two pixels, five channels."""
    rows, images, vector, sums = (6, 5), (3, 5), (5,), torch.zeros(2, 5, dtype=torch.float64)
    maps = (3, 2, 5)
    shapes = {
        "activate": (1, rows, rows),
        "activation_gradient": (0, rows, rows, rows, sums),
        "column_sums": (rows, rows, sums),
        "statistics": (EPS, rows, sums, vector, vector),
        "normalize": (rows, vector, vector),
        "normalize_and_activate": (1, rows, vector, vector, rows),
        "normalization_gradient": (6.0, rows, rows, vector, sums, rows),
        "image_means": (maps, images),
        "excite": (maps, images),
        "gate_gradient": (0, maps, maps, images),
        "excitation_gradient": (1, maps, maps, images, images, maps, sums),
    }
    return [torch.ones(one) if isinstance(one, tuple) else one for one in shapes[kernel]]


KERNELS = [] if MODULE is None else MODULE.KERNELS


FREE = {"statistics": (1, 0), "normalize": (0, 0), "image_means": (0, 1), "excite": (0, 1)}
"""Argument and dimension whose size no other tensor has."""


def misfits(kernel, place):
    """Tensors that do not fit in place of one argument, with why."""
    good = good_arguments(kernel)
    one = good[place]
    for dtype in (torch.int64, torch.bfloat16, torch.complex64):
        yield "another type", one.to(dtype)
    if sum(isinstance(each, torch.Tensor) and each.dtype is one.dtype for each in good) > 1:
        yield "another type", one.to(torch.float64 if one.dtype is torch.float32 else torch.float32)
    yield "another number of dimensions", one[None]
    yield "another number of dimensions", one[0]
    for dim in range(one.dim()):
        if FREE.get(kernel) != (place, dim):
            yield "another shape", torch.cat([one, one], dim)
            yield "another shape", one.narrow(dim, 0, 0)
    twice = torch.cat([one, one], -1)
    yield "gaps", twice[..., ::2]
    if one.dim() > 1 and (kernel, place) != ("activate", 2):
        yield "gaps", twice[..., : one.shape[-1]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_tensor_of_a_kernel_is_checked(kernel):
    """Another type, shape or layout of any one tensor is refused, and then nothing has been written."""
    run(kernel, *good_arguments(kernel))
    tensors = [place for place, one in enumerate(good_arguments(kernel)) if isinstance(one, torch.Tensor)]
    for place, why, wrong in [(number, *misfit) for number in tensors for misfit in misfits(kernel, number)]:
        arguments = good_arguments(kernel)
        arguments[place] = wrong.clone() if wrong.is_contiguous() else wrong
        with pytest.raises(ValueError, match=f"argument . of kernel {kernel} .*: it has (another|gaps)"):
            run(kernel, *arguments)
        arguments[place] = good_arguments(kernel)[place]
        for one, before in zip(arguments, good_arguments(kernel), strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(before)), why


@compiled_only
def test_rows_that_are_apart_must_not_overlap():
    memory = torch.zeros(40)
    apart, overlapping = memory.as_strided((6, 5), (7, 1)), memory.as_strided((6, 5), (4, 1))
    run("activate", 1, torch.ones(6, 5), apart)
    assert memory.sum() == 30 and apart.eq(1).all()
    with pytest.raises(ValueError, match=r"argument 3 of kernel activate .*: its rows overlap"):
        run("activate", 1, torch.ones(6, 5), overlapping)


@compiled_only
@pytest.mark.parametrize(
    ("kernel", "options", "error"),
    [
        (-1, {}, ValueError),
        (len(KERNELS), {}, ValueError),
        ("excite", {"level": -1}, ValueError),
        ("excite", {"level": 0 if MODULE is None else MODULE.LEVELS}, ValueError),
        ("excite", {"threads": 0}, ValueError),
        ("excite", {"threads": 2**40}, ValueError),
        ("excite", {"level": "0"}, TypeError),
    ],
)
def test_a_kernel_or_level_that_is_not_there_is_refused(kernel, options, error):
    with pytest.raises(error):
        run(kernel, *good_arguments("excite"), **options)


@compiled_only
def test_other_arguments_than_a_kernel_has_are_refused():
    maps, images = good_arguments("excite")
    with pytest.raises(TypeError, match=r"kernel excite \(T:IPC T:IC\) got 1 arguments"):
        run("excite", maps)
    with pytest.raises(ValueError, match=r"argument 3 of kernel excite .* too many"):
        run("excite", maps, images, images)
    with pytest.raises(ValueError):
        run("excite", maps, 7)
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        run("activate", 2, torch.ones(6, 5), torch.ones(6, 5))
    with pytest.raises(TypeError):
        run("statistics", "x", *good_arguments("statistics")[1:])
    with pytest.raises(ValueError):
        MODULE.run()
