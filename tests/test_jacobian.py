"""Jacobians in forward mode are compared with closed forms and PyTorch's dense Jacobians in float64."""

import weakref

import pytest
import torch
from cases import DOUBLE, image_tasks, quadratic, quadratic_tasks, random_quadratics, small_warped
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leapwarp.inner import adapt
from leapwarp.jacobian import departures, relative_precision
from leapwarp.models.convnet import convnet
from leapwarp.optim import sgd
from leapwarp.problem import supervised
from leapwarp.trees import repeat


def first(tasks):
    """The stack of the first task alone."""
    return tasks._replace(**{name: field[:1] for name, field in tasks._asdict().items() if field is not None})


def dense(problem, params, task, names, rate, steps):
    """J - I by differentiating through all steps in reverse mode."""

    def train(flat):
        pieces = flat.split([params[name].numel() for name in names])
        block = {name: piece.reshape(params[name].shape) for name, piece in zip(names, pieces, strict=True)}
        start = {name: leaf.clone().requires_grad_() for name, leaf in params.items()} | block
        end = adapt(problem, sgd(rate), start, {}, task, steps, differentiable=True).params
        return torch.cat([end[name].flatten() for name in names])

    flat = torch.cat([params[name].flatten() for name in names])
    return torch.autograd.functional.jacobian(train, flat) - torch.eye(len(flat), dtype=flat.dtype)


def convolutional(draws):
    """A narrow Omniglot network in float64, with train-mode batch norm, and a task of random images."""
    model = convnet(filters=2, classes=5)
    params = {name: leaf.double() for name, leaf in model.init(torch.Generator().manual_seed(0)).items()}
    return supervised(model), repeat(params, 1), first(image_tasks(1, draws))


def test_jacobians_equal_dense_ones_of_a_smooth_network():
    problem, params, tasks = small_warped()
    task, params = first(tasks), repeat(params, 1)
    for names in (["task.0.weight", "task.0.bias"], ["head.weight", "head.bias"], list(params)):
        ours = departures(problem, params, task, names, 0.5, [1, 4], chunk=7)
        for steps, departure in zip((1, 4), ours, strict=True):
            expected = dense(problem, params, task, names, 0.5, steps)
            torch.testing.assert_close(departure, expected, rtol=1e-11, atol=1e-13)


def test_jacobians_equal_dense_ones_of_the_omniglot_network():
    problem, params, task = convolutional(3)
    for names in (["task.0.conv.weight", "task.0.conv.bias"], ["task.2.norm.weight"], ["head.weight"]):
        (ours,) = departures(problem, params, task, names, 0.1, [3], chunk=16)
        expected = dense(problem, params, task, names, 0.1, 3)
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
        assert ours.abs().max() > 1e-3  # else the identity would pass


def test_jacobian_of_a_quadratic_is_a_matrix_power():
    matrices, centres = random_quadratics(1, 5)
    problem, task = quadratic(matrices, centres), quadratic_tasks(1, 9)
    ours = departures(problem, {"w": torch.ones(1, 5, dtype=DOUBLE)}, task, ["w"], 0.2, [1, 3, 9], chunk=5)
    shrink = torch.eye(5, dtype=DOUBLE) - 0.2 * matrices[0]
    expected = torch.stack([torch.linalg.matrix_power(shrink, steps) for steps in (1, 3, 9)]) - torch.eye(
        5, dtype=DOUBLE
    )
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)


def test_precision_of_a_symmetric_jacobian_is_a_ratio_of_sums_of_eigenvalues():
    matrices, _ = random_quadratics(2, 6)
    values = torch.linalg.eigvalsh(matrices)
    expected = (1 - values).abs().sum(-1) / values.sum(-1)
    eye = torch.eye(6, dtype=DOUBLE)
    torch.testing.assert_close(relative_precision(matrices - eye), expected, rtol=1e-12, atol=0)
    assert relative_precision(torch.zeros(3, 3)) == 0


def test_departures_far_below_the_rounding_of_one_are_kept():
    matrices, centres = random_quadratics(1, 5)
    problem, task = quadratic(matrices.float(), centres.float()), quadratic_tasks(1, 3)
    ours = departures(problem, {"w": torch.ones(1, 5)}, task, ["w"], 1e-10, [3], chunk=5)[0]
    torch.testing.assert_close(ours, -3e-10 * matrices[0].float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_chunk_changes_nothing(chunk):
    problem, params, task = convolutional(2)
    names = ["task.0.conv.weight", "task.0.conv.bias"]
    expected = departures(problem, params, task, names, 0.1, [2], chunk=20)
    ours = departures(problem, params, task, names, 0.1, [2], chunk=chunk)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


class Live(TorchDispatchMode):
    """The largest number of bytes that the tensors made under this mode had at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[tuple[weakref.ref, int]] = []
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.alive = [entry for entry in self.alive if entry[0]() is not None]
        self.alive += [(weakref.ref(leaf), leaf.numel() * leaf.element_size()) for leaf in made]
        self.most = max(self.most, sum(size for _, size in self.alive))
        return result


def test_memory_does_not_grow_with_steps():
    problem, params, task = convolutional(12)

    def forward(steps):
        departures(problem, params, task, ["task.0.norm.weight"], 0.1, [steps], chunk=2)

    def backward(steps):
        start = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
        adapt(problem, sgd(0.1), start, {}, task, steps, differentiable=True)

    def growth(run):
        most = []
        for steps in (2, 12):
            with Live() as live:
                run(steps)
            most.append(live.most)
        return most[1] / most[0]

    assert growth(forward) < 1.05
    assert growth(backward) > 5  # the graph through all steps is counted


def test_what_cannot_be_asked_is_refused():
    matrices, centres = random_quadratics(2, 2)
    problem, start = quadratic(matrices, centres), torch.ones(2, 2, dtype=DOUBLE)
    with pytest.raises(ValueError, match="one task, got a stack of 2"):
        departures(problem, {"w": start}, quadratic_tasks(2, 3), ["w"], 0.1, [1], 2)
    for at in ([], [0], [2, 1], [4]):
        with pytest.raises(ValueError, match="increasing steps from 1 to the task's 3 draws"):
            departures(problem, {"w": start[:1]}, quadratic_tasks(1, 3), ["w"], 0.1, at, 2)
    with pytest.raises(FloatingPointError, match="after 400 steps is not finite: lower the learning rate 100"):
        departures(problem, {"w": start[:1]}, quadratic_tasks(1, 400), ["w"], 100.0, [1, 400], 2)
