"""The Omniglot network for stacks of tasks and its warps, compared with PyTorch's layers and finite differences."""

import pytest
import reference
import torch
from cases import (
    image_tasks,
)

from leapwarp import optim, trees
from leapwarp.inner import adapt, gradient
from leapwarp.models.convnet import Warp, convnet
from leapwarp.problem import supervised


@pytest.mark.parametrize("warp", [False, True])
@pytest.mark.parametrize("n_tasks", [1, 3])
def test_the_stacked_network_equals_pytorch_layers(warp, n_tasks):
    torch.manual_seed(0)
    model = convnet(filters=4, classes=5, warp=Warp() if warp else None)
    problem = supervised(model)
    each = [model.init(torch.Generator().manual_seed(t)) for t in range(n_tasks)]
    params = {name: torch.stack([p[name] for p in each]).double() for name in each[0]}
    tasks = image_tasks(n_tasks, 6)
    adapted = adapt(problem, optim.sgd(0.05), params, {}, tasks, 6)
    outputs, _ = model.apply(adapted.params, adapted.stats, tasks.x_test, False)
    for t in range(n_tasks):
        plain = reference.load(reference.network(4, 5, warp).double(), each[t], warp)
        descent = torch.optim.SGD(plain.parameters(), lr=0.05)
        for k in range(6):
            picked = tasks.order[t, k]
            loss = torch.nn.functional.cross_entropy(plain(tasks.x[t, picked][:, None]), tasks.y[t, picked])
            torch.testing.assert_close(adapted.loss[t, k].double(), loss.detach(), rtol=1e-5, atol=1e-6)
            descent.zero_grad()
            loss.backward()
            descent.step()
        expected = plain.eval()(tasks.x_test[t][:, None])  # with running averages
        torch.testing.assert_close(outputs[t], expected, rtol=1e-8, atol=1e-8)


def test_the_initialisation_has_the_moments_of_pytorchs():
    ours = convnet(filters=64).init(torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    theirs = list(reference.network(64).parameters())
    assert sum(leaf.numel() for leaf in ours.values()) == 113_236  # the released network's
    bounds = {name: leaf.abs().max() for name, leaf in ours.items() if "norm" not in name}
    for leaf in theirs:
        if leaf.dim() == 4:
            name = "task.0.conv.weight" if leaf.shape[1] == 1 else "task.2.conv.weight"
            torch.testing.assert_close(bounds[name], leaf.abs().max(), rtol=0.05, atol=0)
    torch.testing.assert_close(bounds["head.weight"], theirs[-2].abs().max(), rtol=0.05, atol=0)
    warped = convnet(filters=64, warp=Warp()).init(torch.Generator().manual_seed(0))
    assert sum(leaf.numel() for name, leaf in warped.items() if name.startswith("warp")) == 147_712


WARPS = {
    "scaling": (Warp(kernel=0), 4 * 128),
    "1x1": (Warp(kernel=1), 4 * (64 * 64 + 64)),
    "relu": (Warp(relu=True), 147_712),
    "norm": (Warp(norm=True), 147_712 + 4 * 128),
    "residual": (Warp(norm=True, relu=True, residual=True), 147_712 + 8 * 128),
    "two layers": (Warp(layers=2, norm=True, relu=True, residual=True), 659_968),  # the released code's
    "embedded": (Warp(layers=2, norm=True, relu=True, residual=True, film=True), 659_968),
}


@pytest.mark.parametrize("name", WARPS)
def test_warps_of_all_kinds_equal_pytorch_layers(name):
    """A stack of two tasks with the same warp, against the layers written one after another for each task."""
    warp, count = WARPS[name]
    full = convnet(64, warp=warp).init(torch.Generator().manual_seed(0))
    assert sum(leaf.numel() for n, leaf in full.items() if n.startswith("warp")) == count
    model = convnet(3, 5, warp=warp)
    each = [model.init(torch.Generator().manual_seed(t)) for t in range(2)]
    stream = torch.Generator().manual_seed(7)
    params = {n: torch.stack([p[n] for p in each]).double() for n in each[0]}
    params = {n: p + 0.3 * torch.randn(p.shape, generator=stream, dtype=p.dtype) for n, p in params.items()}
    stats = trees.repeat({n: s.double() for n, s in model.stats().items()}, 2)
    tasks, seen = image_tasks(2, 2), {}
    model.apply(params, stats, tasks.x, True, lambda layer, h, out: seen.update({layer: (h, out)}))
    assert set(seen) == {"head", *(f"task.{b}.conv" for b in range(4)), *(f"warp.{b}" for b in range(4))}
    for block in range(4):
        before, after = (part.unflatten(1, (2, 3)) for part in seen[f"warp.{block}"])
        for t in range(2):
            mine = {n: p[t] for n, p in params.items()}
            torch.testing.assert_close(after[:, t], reference.warp(before[:, t], mine, block, warp))


def test_gradients_of_the_network_are_right_to_second_order():
    model = convnet(filters=2, classes=3, warp=Warp())
    problem, tasks = supervised(model), image_tasks(2, 2, classes=3)
    params = trees.repeat({n: p.double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}, 2)
    batch = problem.draw(tasks, torch.arange(2), torch.zeros(2, dtype=torch.long))
    stats = trees.repeat(problem.stats(), 2)
    names = ["task.1.conv.weight", "warp.1.conv.weight"]
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in params.items()}
    _, grads = gradient(
        problem,
        {n: leaves[n] for n in names},
        {n: p for n, p in leaves.items() if n not in names},
        stats,
        batch,
        differentiable=True,
    )
    direction = {n: torch.randn_like(grads[n]) for n in names}
    inner = sum((grads[n] * direction[n]).sum() for n in names)
    product = torch.autograd.grad(inner, [leaves[n] for n in names])

    def shifted(scale):
        moved = {n: leaf.detach() + (scale * direction[n] if n in names else 0) for n, leaf in leaves.items()}
        _, g = gradient(
            problem,
            {n: moved[n] for n in names},
            {n: p for n, p in moved.items() if n not in names},
            stats,
            batch,
        )
        return g

    plus, minus = shifted(1e-6), shifted(-1e-6)
    for name, leaf in zip(names, product, strict=True):
        torch.testing.assert_close(leaf, (plus[name] - minus[name]) / 2e-6, rtol=1e-4, atol=1e-5)
