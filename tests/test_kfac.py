"""KFAC is compared with exact solutions, slow references, and another library."""

import math
import warnings
from itertools import pairwise

import pytest
import reference
import torch
import torch.nn.functional as F
from cases import DOUBLE, image_tasks
from torch import nn

from leapwarp import trees
from leapwarp.inner import adapt, gradient
from leapwarp.kfac import empirical, expected, kfac
from leapwarp.models.convnet import convnet
from leapwarp.optim import sgd
from leapwarp.problem import Batch, Model, cross_entropy, mean_square, supervised

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports what torch has deprecated
    from curvlinops import FisherType, KFACLinearOperator

DAMPING = 0.3


def linear_network(*sizes):
    """Linear layers named by their number, with nothing between them."""

    def init(stream):
        draw = lambda *size: torch.randn(*size, generator=stream, dtype=DOUBLE)  # noqa: E731
        shapes = [(f"{i}", n, m) for i, (n, m) in enumerate(pairwise(sizes))]
        return {f"{i}.weight": draw(m, n) for i, n, m in shapes} | {f"{i}.bias": draw(m) for i, n, m in shapes}

    def apply(params, stats, x, train, tap=None):
        for i in range(len(sizes) - 1):
            out = torch.baddbmm(params[f"{i}.bias"].unsqueeze(1), x, params[f"{i}.weight"].mT)
            if tap:
                tap(f"{i}", x, out)
            x = out
        return x, stats

    return Model(init, dict, apply)


def convolutions():
    """Two convolutions of one channel, 3x3 and 1x1 (with and without padding). Logits are means over places."""

    def init(stream):
        draw = lambda *size: torch.randn(*size, generator=stream, dtype=DOUBLE)  # noqa: E731
        weights = {"0.weight": draw(2, 1, 3, 3), "1.weight": draw(3, 2, 1, 1)}
        return weights | {"0.bias": draw(2), "1.bias": draw(3)}

    def apply(params, stats, x, train, tap=None):
        n_tasks, batch = x.shape[:2]
        h = x.transpose(0, 1)  # [batch, task, 4, 4]: the tasks' only channels
        for name in ("0", "1"):
            weight, bias = params[f"{name}.weight"].flatten(0, 1), params[f"{name}.bias"].flatten()
            out = F.conv2d(h, weight, bias, padding=weight.shape[-1] // 2, groups=n_tasks)
            if tap:
                tap(name, h, out)
            h = torch.tanh(out)
        return h.mean((2, 3)).view(batch, n_tasks, 3).transpose(0, 1), stats

    def module(params):
        plain = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 3, 1), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten()
        ).double()
        order = ["0.weight", "0.bias", "1.weight", "1.bias"]
        for leaf, name in zip(plain.parameters(), order, strict=True):
            leaf.data.copy_(params[name][0])
        return plain

    return Model(init, dict, apply), module


def gaussian(outputs, layers, grads):
    """The exact Fisher matrix of a normal model, whose loss is `mean_square`."""
    n = outputs.shape[-1]
    for e in torch.eye(n, dtype=DOUBLE):
        column = e.expand_as(outputs) / math.sqrt(n) / outputs.shape[1]
        yield torch.autograd.grad(outputs, layers, column, retain_graph=True)


def start(model, n_tasks=1):
    each = [model.init(torch.Generator().manual_seed(t)) for t in range(n_tasks)]
    return {name: torch.stack([params[name] for params in each]).to(DOUBLE) for name in each[0]}


def plain_and_natural(model, loss, params, batch, damping, columns):
    """The loss with the plain and with the natural gradient."""
    problem = supervised(model, loss)
    stats = {name: leaf.to(DOUBLE) for name, leaf in trees.repeat(model.stats(), len(batch.x)).items()}
    each = (gradient, kfac(model.apply, loss, damping, columns))
    found = [direction(problem, params, {}, stats, batch, False) for direction in each]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0, equal_nan=True)
    return found[0][1], found[1][1]


def joint(grads, layer, task=0):
    """[output, input + 1]"""
    weight = grads[f"{layer}.weight"][task].flatten(1)
    return torch.cat([weight, grads[f"{layer}.bias"][task][:, None]], 1)


def dense_fisher(model, params, x, layer):
    """E[J'J] / outputs for a layer's [output, input + 1], of a stack of one task: the Fisher matrix of `gaussian`."""
    at = (params[f"{layer}.weight"], params[f"{layer}.bias"])

    def outputs(weight, bias):
        return model.apply(params | {f"{layer}.weight": weight, f"{layer}.bias": bias}, {}, x, True)[0][0]

    weight, bias = torch.autograd.functional.jacobian(outputs, at)  # [batch, class, 1, *shape]
    jacobian = torch.cat([weight[:, :, 0], bias[:, :, 0, :, None]], 3).flatten(2)
    return torch.einsum("nci,ncj->ij", jacobian, jacobian) / jacobian[..., 0].numel()


@pytest.mark.parametrize("layer", ["0", "1", "2"])
def test_for_linear_networks_and_square_loss_it_is_the_exact_natural_gradient_of_each_layer(layer):
    """KFAC's damping is not a damping of the whole matrix, so it is negligibly small here."""
    model = linear_network(3, 3, 3, 3)  # of one width, so that all factors have full rank
    params, stream = start(model), torch.Generator().manual_seed(1)
    batch = Batch(*(torch.randn(1, 30, 3, generator=stream, dtype=DOUBLE) for _ in range(2)))
    plain, natural = plain_and_natural(model, mean_square, params, batch, 1e-30, gaussian)
    fisher = dense_fisher(model, params, batch.x, layer)
    exact = torch.linalg.solve(fisher, joint(plain, layer).flatten())
    torch.testing.assert_close(joint(natural, layer).flatten(), exact, rtol=1e-8, atol=1e-8)


def test_damping_in_a_linear_network_adds_its_root_to_both_factors_of_the_exact_matrix():
    model = linear_network(3, 2)
    params, stream = start(model), torch.Generator().manual_seed(1)
    batch = Batch(*(torch.randn(1, 9, n, generator=stream, dtype=DOUBLE) for n in (3, 2)))
    plain, natural = plain_and_natural(model, mean_square, params, batch, DAMPING, gaussian)
    fisher = dense_fisher(model, params, batch.x, "0")
    ones = torch.cat([batch.x[0], torch.ones(9, 1, dtype=DOUBLE)], 1)
    a, s = ones.T @ ones / 9, torch.eye(2, dtype=DOUBLE) / 2
    torch.testing.assert_close(fisher, torch.kron(s, a))
    mixed = torch.kron(torch.eye(2, dtype=DOUBLE), a) + torch.kron(s, torch.eye(4, dtype=DOUBLE))
    damped = fisher + math.sqrt(DAMPING) * mixed + DAMPING * torch.eye(8, dtype=DOUBLE)
    exact = torch.linalg.solve(damped, joint(plain, "0").flatten())
    torch.testing.assert_close(joint(natural, "0").flatten(), exact, rtol=1e-10, atol=1e-12)


def test_a_batch_of_one_has_a_closed_form():
    """Both factors have rank one: (r + gg')^-1 g a' (r + aa')^-1 = g a' / (r + |g|^2) / (r + |a|^2)."""
    model = linear_network(4, 3)
    params, stream = start(model), torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(1, 1, 4, generator=stream, dtype=DOUBLE), torch.tensor([[2]]))
    plain, natural = plain_and_natural(model, cross_entropy, params, batch, DAMPING, empirical)
    r, grad = math.sqrt(DAMPING), joint(plain, "0")
    g, a = grad[:, -1], torch.cat([batch.x[0, 0], torch.ones(1, dtype=DOUBLE)])
    torch.testing.assert_close(joint(natural, "0"), grad / (r + g @ g) / (r + a @ a), rtol=1e-12, atol=1e-12)


def slow_direction(network, x, y, layer, columns):
    """The natural gradient of one layer of a plain module, by loops over examples and places."""
    met = {}
    handle = layer.register_forward_hook(lambda module, x, out: met.update(x=x[0], out=out))
    logits = network(x)
    handle.remove()
    labels = [(y, torch.ones(len(y), dtype=DOUBLE))]
    if columns is expected:
        p = logits.detach().softmax(1)
        labels = [(torch.full_like(y, c), p[:, c].sqrt()) for c in range(p.shape[1])]
    inputs, out, is_conv = met["x"].detach(), met["out"], isinstance(layer, nn.Conv2d)
    if is_conv:
        inputs = F.pad(inputs, (1, 1, 1, 1))
    places = [(i, j) for i in range(out.shape[2]) for j in range(out.shape[3])] if is_conv else [()]
    a = s = torch.zeros((), dtype=DOUBLE)
    n = len(x) * len(places)
    for example in range(len(x)):
        for place in places:
            i, j = place or (0, 0)
            seen = inputs[example, :, i : i + 3, j : j + 3].flatten() if is_conv else inputs[example]
            row = torch.cat([seen, torch.ones(1, dtype=DOUBLE)])
            a = a + torch.outer(row, row) / n
    for label, weight in labels:
        loss = (weight * F.cross_entropy(logits, label, reduction="none")).mean()
        (slope,) = torch.autograd.grad(loss, out, retain_graph=True)
        for example in range(len(x)):
            for place in places:
                g = len(x) * slope[(example, slice(None), *place)]
                s = s + torch.outer(g, g) / n
    weight, bias = torch.autograd.grad(F.cross_entropy(logits, y), [layer.weight, layer.bias])
    r, t = math.sqrt(DAMPING / len(places)), len(places)
    a, s = (matrix + r * torch.eye(len(matrix), dtype=DOUBLE) for matrix in (a, s))
    grad = torch.cat([weight.flatten(1), bias[:, None]], 1)
    return torch.linalg.solve(t * torch.kron(s, a), grad.flatten()).view_as(grad)


@pytest.mark.parametrize("columns", [empirical, expected])
def test_the_network_equals_loops_over_examples_and_places(columns):
    model, tasks = convnet(filters=2, classes=3), image_tasks(2, 1, batch=6, classes=3)
    params = start(model, 2)
    batch = supervised(model).draw(tasks, torch.arange(2), torch.zeros(2, dtype=torch.long))
    plain, natural = plain_and_natural(model, cross_entropy, params, batch, DAMPING, columns)
    network = reference.load(reference.network(2, 3).double(), {name: leaf[1] for name, leaf in params.items()})
    for name, layer in {"task.1.conv": network[4], "task.2.conv": network[8], "head": network[-1]}.items():
        slow = slow_direction(network, batch.x[1][:, None], batch.y[1], layer, columns)
        torch.testing.assert_close(joint(natural, name, task=1), slow, rtol=1e-8, atol=1e-10)
    for name in (name for name in params if "norm" in name):
        assert torch.equal(natural[name], plain[name])


@pytest.mark.parametrize("columns", [empirical, expected])
def test_factors_equal_those_of_curvlinops(columns):
    """Its matrix is for weight and bias together, [output, input + 1] flattened, as ours is."""
    model, module = convolutions()
    params, stream = start(model), torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(1, 7, 4, 4, generator=stream, dtype=DOUBLE), torch.tensor([[0, 1, 2, 0, 1, 2, 2]]))
    plain, natural = plain_and_natural(model, cross_entropy, params, batch, 1e-26, columns)
    network = module(params)
    theirs = KFACLinearOperator(
        network,
        nn.CrossEntropyLoss(),
        list(network.parameters()),
        [(batch.x[0][:, None], batch.y[0])],
        fisher_type=FisherType.EMPIRICAL if columns is empirical else FisherType.TYPE2,
        separate_weight_and_bias=False,
    )
    moved = theirs @ [natural[name][0] for name in ("0.weight", "0.bias", "1.weight", "1.bias")]
    for name, leaf in zip(("0.weight", "0.bias", "1.weight", "1.bias"), moved, strict=True):
        torch.testing.assert_close(leaf, plain[name][0], rtol=1e-5, atol=1e-8)


def test_a_stack_of_tasks_equals_one_at_a_time():
    model, tasks = convnet(filters=3, classes=5), image_tasks(3, 4, batch=10)
    problem, params = supervised(model), start(model, 3)
    natural = kfac(model.apply, cross_entropy, DAMPING)
    together = adapt(problem, sgd(0.5), params, {}, tasks, 4, gradient=natural)
    for t in range(3):
        one = slice(t, t + 1)
        mine = tasks._replace(**{name: leaf[one] for name, leaf in tasks._asdict().items() if leaf is not None})
        alone = adapt(problem, sgd(0.5), trees.take(params, one), {}, mine, 4, gradient=natural)
        torch.testing.assert_close(trees.take(together.params, one), alone.params, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(together.loss[one], alone.loss)


def test_one_step_solves_linear_regression_and_plain_descent_does_not():
    """The natural gradient of a normal model is Newton's step, so one step minimises the loss."""
    model, stream = linear_network(3, 2), torch.Generator().manual_seed(1)
    x, noise = (torch.randn(1, 40, n, generator=stream, dtype=DOUBLE) for n in (3, 2))
    y = x @ torch.randn(3, 2, generator=stream, dtype=DOUBLE) + 0.1 * noise
    batch, params = Batch(x, y), start(model)
    plain, natural = plain_and_natural(model, mean_square, params, batch, 1e-20, gaussian)
    ones = torch.cat([x[0], torch.ones(40, 1, dtype=DOUBLE)], 1)
    least = torch.linalg.lstsq(ones, y[0]).solution.T
    torch.testing.assert_close(joint(params, "0") - joint(natural, "0"), least, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(joint(params, "0") - joint(plain, "0"), least, atol=0.1)


def test_what_cannot_be_is_refused_by_name():
    model = linear_network(3, 3)
    with pytest.raises(ValueError, match="needs a damping above 0, got 0"):
        kfac(model.apply, cross_entropy, 0)
    params, x, y = start(model), torch.zeros(1, 4, 3, dtype=DOUBLE), torch.zeros(1, 4, dtype=torch.long)
    natural, problem = kfac(model.apply, cross_entropy, 0.1), supervised(model)
    with pytest.raises(ValueError, match="not differentiable"):
        natural(problem, params, {}, {}, Batch(x, y), True)
    with pytest.raises(FloatingPointError, match="of the layer 0 is not finite"):
        natural(problem, params, {}, {}, Batch(x + torch.inf, y), False)
