"""The fronts give the results of the learners on the same draws, for any module and optimizer."""

import gc
import warnings
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from cases import DOUBLE, SmallWarped, small_warped
from torch import nn

import leapwarp
from leapwarp import optim
from leapwarp.inner import Step
from leapwarp.learners import leap, warp_leap, warp_leap_online
from leapwarp.learners.leap import leap_fold
from leapwarp.problem import lift, supervised
from leapwarp.trees import alone, pick, zeros_like

STEPS = 4


def batch_of(tasks, t, draw):
    rows = tasks.order[t, draw]
    return tasks.x[t, rows], tasks.y[t, rows]


def loss_of(net):
    return lambda batch: F.cross_entropy(net(batch[0]), batch[1])


def assert_params(net, expected, **tolerance):
    own = dict(net.named_parameters())
    for name, leaf in expected.items():
        torch.testing.assert_close(own[name].detach(), leaf, rtol=1e-10, atol=1e-10, **tolerance)


def follow(net, meta, loss, tasks, steps=STEPS, rate=0.1, own_optimizer=None):
    """A user's loop over the tasks, for Leap."""
    for t in range(len(tasks.index)):
        with meta.task() as task:
            inner = (own_optimizer or (lambda params: torch.optim.SGD(params, rate)))(meta.task_parameters())
            for k in range(steps):
                inner.zero_grad()
                value = loss(batch_of(tasks, t, k))
                value.backward()
                task.step(value)
                inner.step()
            task.finish(loss(batch_of(tasks, t, steps)))


def follow_warp(meta, loss, tasks, steps=STEPS, own_batch=True, rate=0.1):
    """A user's loop over the tasks for WarpGrad, with the draws of `warp_leap`."""
    for t in range(len(tasks.index)):
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), rate)
            for k in range(steps):
                inner.zero_grad()
                task_batch, meta_batch = (batch_of(tasks, t, steps + i + 2 * k) for i in (1, 2))
                task.backward(loss(batch_of(tasks, t, k)), meta_batch, task_batch if own_batch else None)
                inner.step()
            task.finish(loss(batch_of(tasks, t, steps)))


@pytest.mark.parametrize("options", [{}, {"length": False}, {"loss": False}, {"stabiliser": False}])
def test_leap_equals_the_learner(options):
    problem, params, tasks = small_warped(draws=STEPS + 1)
    net = SmallWarped().double()
    learner = leap(problem, optim.sgd(0.1), optim.adam(0.01), STEPS, **options)
    state = learner.init(alone(params))
    meta = leapwarp.Leap(net, **options)
    outer = torch.optim.Adam(meta.parameters(), 0.01)
    for _ in range(3):
        state, info = learner.step(state, tasks, [torch.Generator()])
        follow(net, meta, loss_of(net), tasks)
        seen = meta.backward()
        outer.step()
        assert_params(net, pick(state["params"], 0))
        assert seen["tasks"] == 3 and seen["loss"] == pytest.approx(info["loss"].mean().item(), rel=1e-6)


def test_leap_equals_the_fold_under_any_task_optimizer():
    """With Adam, clipping and a schedule in the task: the fold sees the same points."""
    _, params, tasks = small_warped(n_tasks=1, draws=STEPS + 1)
    net = SmallWarped().double()
    meta = leapwarp.Leap(net)
    points, fold = [], leap_fold()
    with meta.task() as task:
        inner = torch.optim.AdamW(meta.task_parameters(), 0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(inner, STEPS)
        for k in range(STEPS + 1):
            inner.zero_grad()
            loss = loss_of(net)(batch_of(tasks, 0, k))
            loss.backward()
            here = {n: p.detach().clone()[None] for n, p in net.named_parameters()}
            points.append((here, {n: p.grad.clone()[None] for n, p in net.named_parameters()}, loss.detach()[None]))
            if k == STEPS:
                task.finish(loss)
                break
            task.step(loss)
            nn.utils.clip_grad_norm_(meta.task_parameters(), 0.1)
            inner.step()
            schedule.step()
    meta.backward()
    steps = [Step(k, *point) for k, point in enumerate(points)]
    total = zeros_like(steps[0].params)
    for before, after in pairwise(steps):
        total = fold(total, before, after)
    for name, leaf in net.named_parameters():
        torch.testing.assert_close(leaf.grad, total[name][0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(leaf.detach(), params[name], rtol=0, atol=0)  # the initialisation again


@pytest.mark.parametrize("order", [2, 1, 0])
def test_online_equals_the_learner(order):
    problem, params, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    learner = warp_leap_online(
        problem, optim.sgd(0.1), optim.adam(0.01), optim.momentum_sgd(0.01, 0.9), STEPS, order=order
    )
    state = learner.init(alone(params))
    meta = leapwarp.WarpGrad(net, loss_of(net), warp=["warp.*"], inner=0.1, order=order)
    outer = torch.optim.Adam(meta.initial_parameters(), 0.01)
    warps = torch.optim.SGD(meta.warp_parameters(), 0.01, momentum=0.9)
    for _ in range(3):
        state, info = learner.step(state, tasks, [torch.Generator()])
        follow_warp(meta, loss_of(net), tasks)
        seen = meta.backward()
        outer.step()
        warps.step()
        assert_params(net, pick(state["params"] | state["warp"], 0))
        assert seen["warp_loss"] == pytest.approx(info["replay_loss"].mean().item(), rel=1e-10)


def test_the_loss_of_the_loop_serves_as_the_task_loss():
    """Without a task batch the objective's step uses the loop's own loss, as if that batch were given again."""
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    found = []
    for again in (False, True):
        net = SmallWarped().double()
        loss = loss_of(net)
        meta = leapwarp.WarpGrad(net, loss, warp="warp", inner=optim.adam(0.1))
        for t in range(3):
            with meta.task() as task:
                inner = torch.optim.SGD(meta.task_parameters(), 0.1)
                for k in range(STEPS):
                    inner.zero_grad()
                    batch, other = batch_of(tasks, t, k), batch_of(tasks, t, k + 5)
                    if again:
                        value = loss(batch)
                        value.backward()
                        task.step(value, other, batch)
                    else:
                        task.backward(loss(batch), other)
                    inner.step()
                task.finish(loss(batch_of(tasks, t, STEPS)))
        meta.backward()
        found.append([leaf.grad for leaf in meta.parameters()])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
    assert all(grad.abs().sum() > 0 for grad in found[0])


@pytest.mark.parametrize(("eta", "points", "order"), [(1, None, 2), (5, None, 2), (1, 4, 1)])
def test_offline_equals_the_learner(eta, points, order):
    problem, params, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    learner = warp_leap(problem, optim.sgd(0.1), optim.adam(0.01), STEPS, eta=eta, points=points, order=order)
    state = learner.init(alone(params))
    meta = leapwarp.WarpGrad(net, loss_of(net), warp="warp", inner=0.1, replay=100, replay_device="cpu", order=order)
    outer = torch.optim.Adam(meta.parameters(), 0.01)
    for k in range(2):
        state, info = learner.step(state, tasks, [torch.Generator().manual_seed(k)])
        follow_warp(meta, loss_of(net), tasks)
        losses = []
        for value in meta.replay(eta, points, torch.Generator().manual_seed(k)):
            losses.append(value)
            outer.step()
        meta.backward()
        outer.step()
        assert_params(net, pick(state["params"] | state["warp"], 0))
        if eta == 1:
            assert losses == pytest.approx(info["replay_loss"].tolist(), rel=1e-9)


@pytest.mark.parametrize("front", ["leap", "online"])
def test_parameters_of_the_task_alone_are_as_in_the_learners(front):
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    model = lift(net, warp="warp" if front == "online" else (), task_only="head")
    rates = optim.sgd(0.1), optim.adam(0.01)
    if front == "leap":
        learner, meta = leap(supervised(model), *rates, STEPS), leapwarp.Leap(net, task_only="head")
    else:
        learner = warp_leap_online(supervised(model), *rates, optim.adam(0.01), STEPS)
        meta = leapwarp.WarpGrad(net, loss_of(net), "warp", 0.1, task_only="head")
    state, _ = learner.step(learner.init(alone(model.init(torch.Generator()))), tasks, [torch.Generator()])
    outer = torch.optim.Adam(meta.parameters(), 0.01)
    if front == "leap":
        follow(net, meta, loss_of(net), tasks)
    else:
        follow_warp(meta, loss_of(net), tasks)
    meta.backward()
    outer.step()
    learnt = model.state_dict(pick(state["params"] | state.get("warp", {}), 0))
    torch.testing.assert_close(net.state_dict(), learnt, rtol=1e-10, atol=1e-10)


class Odd(nn.Module):
    """Sparse gradients, a weight that is computed from others, and a layer that is not used."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 4, sparse=True)
        self.body = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.unused, self.head = nn.Linear(2, 2), nn.Linear(4, 3)

    def forward(self, words):
        return self.head(torch.tanh(self.body(self.words(words).mean(1))))


def test_an_unused_layer_is_named_once_and_sparse_gradients_are_taken():
    torch.manual_seed(0)
    net = Odd()
    meta = leapwarp.Leap(net)
    words = torch.randint(9, (6, 5))
    for told in (True, False):
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 0.1)
            for _ in range(2):
                inner.zero_grad()
                task.backward(F.cross_entropy(net(words), words[:, 0] % 3))
                inner.step()
            task.finish(F.cross_entropy(net(words), words[:, 0] % 3))
        if told:
            with pytest.warns(UserWarning, match="no task's loss depends on unused.bias, unused.weight, which Leap"):
                meta.backward()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                meta.backward()
    assert net.words.weight.grad.abs().sum() > 0 and net.unused.weight.grad.abs().sum() == 0
    assert net.body.parametrizations.weight.original0.grad.abs().sum() > 0


class Waves(nn.Module):
    """Complex weights, or the same as pairs of real numbers, with integer and complex buffers."""

    def __init__(self, real):
        super().__init__()
        weight = torch.randn(3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
        self.weight, self.real = nn.Parameter(torch.view_as_real(weight) if real else weight), real
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("turn", torch.ones(1, dtype=torch.complex128))
        self.warp = nn.Linear(3, 1).double()
        nn.init.constant_(self.warp.weight, 0.5)
        nn.init.zeros_(self.warp.bias)

    def forward(self, x):
        self.calls += 1
        self.turn = self.turn * 1j
        return self.warp((x * (torch.view_as_complex(self.weight) if self.real else self.weight) * self.turn).abs())


def test_complex_parameters_learn_as_pairs_of_real_ones():
    x, found = torch.rand(5, 6, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)), []
    for real in (True, False):
        net = Waves(real)
        meta = leapwarp.WarpGrad(net, lambda batch, net=net: (net(batch) - 1).square().mean(), "warp", 0.1)
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 0.1)
            for k in range(3):
                inner.zero_grad()
                task.backward(meta.loss(x[k]), x[3])
                inner.step()
            task.finish(meta.loss(x[4]))
        seen = meta.backward()
        grad = net.weight.grad if real else torch.view_as_real(net.weight.grad)
        found.append([grad, net.warp.weight.grad, torch.tensor(list(seen.values()), dtype=DOUBLE)])
        assert net.calls == 0 and net.turn == 1
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_warps_that_no_objective_depends_on_are_named_once():
    torch.manual_seed(0)
    net, x = (
        nn.ModuleDict({"body": nn.Linear(2, 2), "warp": nn.Linear(2, 2), "warp_2": nn.Linear(2, 2)}),
        torch.rand(3, 5, 2),
    )
    meta = leapwarp.WarpGrad(
        net, lambda batch: net["warp"](net["body"](batch)).square().mean(), ["warp", "warp_2"], 0.1
    )
    with meta.task() as task:
        task.backward(meta.loss(x[0]), x[1])
        torch.optim.SGD(meta.task_parameters(), 0.1).step()
        task.finish(meta.loss(x[2]))
    with pytest.warns(UserWarning, match="no objective depends on the warps warp_2.bias, warp_2.weight. Freeze"):
        meta.backward()
    assert not meta.untouched


@pytest.mark.parametrize("front", [leapwarp.Leap, lambda net: leapwarp.WarpGrad(net, lambda batch: 0.0, "1", 0.1)])
def test_a_task_that_is_not_opened_says_that_with_is_needed(front):
    meta = front(nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1)))
    task = meta.task()
    for name in ("backward", "step", "finish"):
        with pytest.raises(AttributeError, match=f"has no {name}; needed `with meta.task.. as task:`, and task.{name}"):
            getattr(task, name)


def held():
    """Bytes of all tensors, each memory once, without what earlier tests have left to the garbage collector."""
    gc.collect()
    found = [each for each in gc.get_objects() if type(each) in (torch.Tensor, nn.Parameter) and each.is_cpu]
    found += [each.grad for each in found if each.is_leaf and each.grad is not None]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}.values())


def test_leap_holds_four_copies_of_the_parameters_and_five_from_the_second_task_on():
    """After six steps: the initialisation, the last point, its gradient, and a sum or two."""
    net, x = nn.Linear(300, 300), torch.rand(2, 300)
    meta, size = leapwarp.Leap(net), 300 * 301 * 4
    before = held()
    for copies in (4, 5):
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 1e-3)
            for k in range(6):
                task.backward(net(x).square().mean())
                inner.step()
                inner.zero_grad()
                if k == 5:
                    assert (held() - before) / size == pytest.approx(copies, abs=0.01)
            task.finish(net(x).square().mean())


def test_without_the_loss_no_gradient_is_kept_and_the_energy_telescopes():
    """With identity Jacobians, the energy of a path of parameters gives Reptile's update, from its start to its end."""
    _, params, tasks = small_warped(n_tasks=1, draws=STEPS + 1)
    net = SmallWarped().double()
    meta = leapwarp.Leap(net, length=False, loss=False)
    with meta.task() as task:
        inner = torch.optim.SGD(meta.task_parameters(), 0.1)
        for k in range(STEPS):
            inner.zero_grad()
            task.backward(loss_of(net)(batch_of(tasks, 0, k)))
            inner.step()
        task.finish(loss_of(net)(batch_of(tasks, 0, STEPS)))
        end = {name: leaf.detach().clone() for name, leaf in net.named_parameters()}
        assert task.path.grads == []
    meta.backward()
    for name, leaf in net.named_parameters():
        torch.testing.assert_close(leaf.grad, params[name] - end[name], rtol=1e-10, atol=1e-12)
