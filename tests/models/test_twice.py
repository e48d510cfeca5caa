"""Convolution and batch norm that are differentiated twice, against PyTorch's own, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from leapwarp.models import products, twice
from leapwarp.models.norm import EPSILON, normalise

KERNELS = [(3, 4, 3), (1, 1, 3), (2, 1, 3), (2, 3, 1), (2, 4, 5)]  # tasks, pixels, kernel


def stream(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def convolution_inputs(tasks, pixels, kernel):
    return stream((2, tasks * 2, pixels, pixels), (tasks, 3, 2, kernel, kernel), (tasks, 3))


def plain(h, weight, bias):
    bias = None if bias is None else bias.flatten()
    return F.conv2d(h, weight.flatten(0, 1), bias, padding=weight.shape[-1] // 2, groups=len(weight))


def derivatives(function, inputs):
    """The value, the derivatives of a nonlinear function of it, and those of a nonlinear function of these."""
    out = function(*inputs)
    first = torch.autograd.grad(out.pow(3).sum(), inputs, create_graph=True)
    return out, first, torch.autograd.grad(sum(g.pow(3).sum() for g in first), inputs)


@pytest.fixture(params=[False, True], ids=["grouped", "products"])
def way(request, monkeypatch):
    """Use the convolutions of a CPU, and those of a GPU."""
    monkeypatch.setattr(twice, "_as_products", lambda h: request.param)


@pytest.mark.parametrize("inside", [lambda call: call, torch.func.vmap], ids=["plain", "transformed"])
def test_one_value_has_no_variance(inside):
    """A mini-batch of one image, whose last layer has one pixel."""
    ones = torch.ones(2)
    call = inside(lambda h: normalise(h, ones, ones, ones, ones, True)[0])
    with pytest.raises(ValueError, match="one value for each channel, in activations of shape .*Needed larger"):
        call(torch.ones(1, 2, 1, 1) if inside is not torch.func.vmap else torch.ones(3, 1, 2, 1, 1))


@pytest.mark.parametrize("shape", KERNELS)
def test_convolution_and_its_derivatives_equal_pytorchs(shape, way):
    inputs = convolution_inputs(*shape)
    ours, theirs = (derivatives(function, inputs) for function in (twice.convolve, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-10)
    without = lambda h, weight: twice.convolve(h, weight, None)  # noqa: E731
    theirs = derivatives(lambda h, weight: plain(h, weight, None), inputs[:2])
    torch.testing.assert_close(derivatives(without, inputs[:2]), theirs, rtol=1e-11, atol=1e-10)


@pytest.fixture
def as_products(monkeypatch):
    monkeypatch.setattr(twice, "_as_products", lambda h: True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 2, 4])  # copies move 16 bytes at once if they divide the channels
def test_products_take_any_images(channels, dtype, as_products):
    """Six images, not square, in either order of memory."""
    generator = torch.Generator().manual_seed(0)
    h, weight, bias, grad = (
        torch.randn(*shape, generator=generator, dtype=dtype)
        for shape in ((7, 3 * channels, 3, 5), (3, 8, channels, 3, 3), (3, 8), (6, 24, 3, 5))
    )
    h = h[1:]  # a view that does not start at the beginning of its memory
    for images in (h, h.contiguous(memory_format=torch.channels_last)):
        images, kernels = images.detach().requires_grad_(), weight.detach().requires_grad_()
        ours = twice.convolve(images, kernels, bias)
        theirs = plain(images, kernels, bias)
        torch.testing.assert_close(ours, theirs)
        both = [torch.autograd.grad(out, (images, kernels), grad) for out in (ours, theirs)]
        torch.testing.assert_close(*both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tiles", "parts"), [(1, 1), (5, 2), (9, 3), (100, 6)])
def test_a_sum_over_pixels_is_taken_in_parts_of_the_batch(tiles, parts, monkeypatch):
    monkeypatch.setattr(products, "TILES", tiles)
    split, seen = products._split, []
    monkeypatch.setattr(products, "_split", lambda rows, n: (seen.append(n), split(rows, n))[1])
    h, weight, grad = (each.detach() for each in stream((6, 6, 4, 4), (3, 3, 2, 3, 3), (6, 9, 4, 4)))
    made = products.weight_gradient(grad, products.unfold(h, 3, 3), 3)
    weight.requires_grad_()
    (expected,) = torch.autograd.grad(plain(h, weight, None), weight, grad)
    torch.testing.assert_close(made, expected.flatten(0, 1))
    assert set(seen) == {parts}


def test_a_third_derivative_by_products_is_refused(as_products):
    h, weight, bias = convolution_inputs(2, 4, 3)
    (first,) = torch.autograd.grad(twice.convolve(h, weight, bias).pow(3).sum(), h, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first.pow(3).sum(), h, create_graph=True)


@pytest.mark.parametrize(("learnt", "times"), [(False, 0), (True, 9)])
def test_unfolded_images_are_kept_for_kernels_that_are_learnt_alone(learnt, times, as_products):
    h, weight, _ = convolution_inputs(2, 4, 3)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        twice.convolve(h, weight if learnt else weight.detach(), None)
    assert sum(kept) == h.numel() + weight.numel() + times * h.numel()


def test_products_are_for_gpus():
    on = lambda device: twice._as_products(torch.empty(2, 3, 4, 4, device=device))  # noqa: E731
    assert on("meta") and not on("cpu")  # `meta` is what tests have for a GPU


@pytest.mark.parametrize("shape", KERNELS)
def test_derivatives_of_a_convolution_are_right(shape, way):
    inputs = convolution_inputs(*shape)
    assert gradcheck(twice.convolve, inputs)
    assert gradgradcheck(twice.convolve, inputs)


def norm_inputs():
    h, weight, bias = stream((4, 3, 2, 5), (3,), (3,))
    return (h.detach() * 2 + 1).requires_grad_(), weight, bias


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_and_its_derivatives_equal_pytorchs(train):
    inputs = norm_inputs()
    mean, variance = torch.tensor([0.3, -1.0, 0.0]).double(), torch.tensor([0.5, 1.0, 2.0]).double()
    after_mean, after_variance = mean.clone(), variance.clone()
    theirs = derivatives(
        lambda h, weight, bias: F.batch_norm(h, after_mean, after_variance, weight, bias, train, 0.1, EPSILON), inputs
    )

    def ours(h, weight, bias):
        return normalise(h, weight, bias, mean, variance, train)[0]

    torch.testing.assert_close(derivatives(ours, inputs), theirs, rtol=1e-10, atol=1e-9)
    _, new_mean, new_variance = normalise(*inputs, mean, variance, train)
    torch.testing.assert_close((new_mean, new_variance), (after_mean, after_variance), rtol=1e-12, atol=1e-12)
    assert mean.tolist() == torch.tensor([0.3, -1.0, 0.0]).double().tolist()  # the arguments are not changed in place
    assert gradcheck(ours, inputs)
    assert gradgradcheck(ours, inputs)


def test_third_derivatives_of_batch_norm_are_refused():
    h, weight, bias = norm_inputs()
    out = normalise(h, weight, bias, torch.zeros(3), torch.ones(3), True)[0]
    (first,) = torch.autograd.grad(out.pow(3).sum(), h, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad(first.pow(3).sum(), h, create_graph=True)


def test_under_transforms_of_functions_the_derivatives_are_the_same():
    """The Jacobians of training take a directional derivative of the gradient, for many directions in one call."""
    h, weight, bias = convolution_inputs(2, 4, 3)
    scale, shift = stream((6,), (6,))

    def loss(weight):
        out = twice.convolve(h, weight, bias)
        return normalise(out, scale, shift, torch.zeros(6), torch.ones(6), True)[0].pow(3).sum()

    (slope,) = torch.autograd.grad(loss(weight), weight, create_graph=True)
    (ours,) = torch.autograd.grad(slope.sum(), weight)
    both = torch.stack([torch.ones_like(weight), 2 * torch.ones_like(weight)]).detach()
    curve = lambda tangent: torch.func.jvp(torch.func.grad(loss), (weight.detach(),), (tangent,))[1]  # noqa: E731
    torch.testing.assert_close(torch.func.vmap(curve)(both), torch.stack([ours, 2 * ours]), rtol=1e-10, atol=1e-9)


class Masks(TorchDispatchMode):
    """Records which gradients each backward pass of a convolution had to compute: (input, weight)."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.seen.append(tuple(args[-1][:2]))
        return func(*args, **(kwargs or {}))


def test_gradients_that_nobody_asked_for_are_not_computed():
    """The objective of the warps has an inner gradient of the task's weight and an outer one of the warp's."""
    x, task, warp = stream((2, 4, 3, 3), (2, 2, 2, 3, 3), (2, 2, 2, 3, 3))
    x = x.detach()
    with Masks() as masks:
        out = twice.convolve(twice.convolve(x, task, None), warp * 1, None)
        (inner,) = torch.autograd.grad(out.pow(3).sum(), task, create_graph=True)
        assert masks.seen == [(True, False), (False, True)]
        masks.seen.clear()
        torch.autograd.grad(inner.pow(3).sum(), warp)
    # Only the warp's weight, through its input's gradient and its output; not the images or the task's weight.
    assert masks.seen == [(False, True), (False, True)]


def test_products_that_nobody_asked_for_are_not_computed(as_products, monkeypatch):
    """As in the test above, where each derivative is one product."""
    x, task, warp = stream((2, 4, 3, 3), (2, 2, 2, 3, 3), (2, 2, 2, 3, 3))
    x, made = x.detach(), []
    for name in ("convolve", "weight_gradient"):
        function = getattr(products, name)
        monkeypatch.setattr(products, name, lambda *a, f=function, n=name: (made.append(n), f(*a))[1])
    out = twice.convolve(twice.convolve(x, task, None), warp * 1, None)
    (inner,) = torch.autograd.grad(out.pow(3).sum(), task, create_graph=True)
    assert made == ["convolve"] * 3 + ["weight_gradient"]  # two layers; the gradients of the images and the task
    made.clear()
    torch.autograd.grad(inner.pow(3).sum(), warp)
    assert made.count("weight_gradient") == 2
