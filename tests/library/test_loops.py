"""Heads for each task, resuming, several processes, and the errors for wrong uses of the fronts."""

import copy
import io
import warnings
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
import torch.multiprocessing
from cases import SmallWarped, small_warped
from test_fronts import STEPS, batch_of, follow, follow_warp, loss_of
from torch import distributed, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import leapwarp
from leapwarp import lift, optim
from leapwarp.fronts.warpgrad import moved
from leapwarp.modules import plain


def grads_of(net):
    return {name: leaf.grad.clone() for name, leaf in net.named_parameters() if leaf.grad is not None}


def test_heads_of_their_own_are_left_alone_and_no_part_of_the_path():
    _, _, tasks = small_warped(draws=STEPS + 1)
    net = SmallWarped().double()
    heads = [nn.Linear(4, 3).double() for _ in range(3)]
    begun = [copy.deepcopy(head.state_dict()) for head in heads]
    meta = leapwarp.Leap(net, exclude="head.*")
    body = copy.deepcopy({n: p.detach() for n, p in net.named_parameters() if not n.startswith("head")})
    lengths = []
    for t, head in enumerate(heads):
        net.head = head
        path = []
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 0.1)
            for k in range(STEPS):
                inner.zero_grad()
                loss = loss_of(net)(batch_of(tasks, t, k))
                task.backward(loss)
                path.append((torch.cat([dict(net.named_parameters())[n].detach().flatten() for n in body]), loss))
                inner.step()
            loss = loss_of(net)(batch_of(tasks, t, STEPS))
            path.append((torch.cat([dict(net.named_parameters())[n].detach().flatten() for n in body]), loss))
            task.finish(loss)
        segments = [((b - a).square().sum() + (g - f).square()).sqrt() for (a, f), (b, g) in pairwise(path)]
        lengths.append(sum(segments).item())
    seen = meta.backward()
    assert seen["length"] == pytest.approx(sum(lengths) / 3, rel=1e-12)
    assert set(grads_of(net)) == set(body)
    assert all(not torch.equal(head.weight, old["weight"]) for head, old in zip(heads, begun, strict=True))
    for name, leaf in body.items():
        torch.testing.assert_close(dict(net.named_parameters())[name].detach(), leaf, rtol=0, atol=0)


def test_heads_with_different_numbers_of_classes_and_a_replay_find_their_own():
    """If a head has been exchanged since, its points are replayed with their own values of the head."""
    torch.manual_seed(0)
    net = SmallWarped().double()
    found = []
    for replay in (None, 10):
        heads = [nn.Linear(4, classes).double() for classes in (3, 5)]
        for number, head in enumerate(heads):
            torch.manual_seed(number)
            head.reset_parameters()
        meta = leapwarp.WarpGrad(net, loss_of(net), warp="warp", inner=0.1, exclude="head", replay=replay)
        _, _, tasks = small_warped(draws=20)
        for t, head in enumerate(heads):
            net.head = head
            with meta.task() as task:
                inner = torch.optim.SGD(meta.task_parameters(), 0.1)
                for k in range(2):
                    inner.zero_grad()
                    batch, other = batch_of(tasks, t, k), batch_of(tasks, t, k + 5)
                    task.backward(loss_of(net)(batch), other, batch)
                    inner.step()
                task.finish(loss_of(net)(batch_of(tasks, t, 9)))
        summed = {}
        for _ in meta.replay(eta=100) if replay else ():
            summed = grads_of(net)
        meta.backward()
        found.append({name: (summed | grads_of(net))[name] for name in ("warp.0.weight", "task.0.weight")})
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


def test_parameters_of_the_task_alone_begin_anew_and_are_not_learnt():
    _, params, tasks = small_warped(draws=STEPS + 1)
    net = SmallWarped().double()
    meta = leapwarp.Leap(net, task_only=[net.head])
    follow(net, meta, loss_of(net), tasks)
    meta.backward()
    torch.testing.assert_close(net.head.weight.detach(), params["head.weight"], rtol=0, atol=0)
    assert net.head.weight.grad is None and net.task[0].weight.grad.abs().sum() > 0
    said = " ".join(str(meta.groups).splitlines()[1].split())
    assert said == "task_only 15 numbers in 2 tensors: head.weight, head.bias"


def test_a_bounded_replay_keeps_so_many_and_each_point_equally_often():
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    counts = torch.zeros(3)
    for seed in range(30):
        meta = leapwarp.WarpGrad(net, loss_of(net), warp="warp", inner=0.1, replay=5, replay_device="cpu", seed=seed)
        follow_warp(meta, loss_of(net), tasks)
        assert len(meta.points) == 5
        counts += torch.tensor([sum(point.task == t for point in meta.points) for t in range(3)])
        values = list(meta.replay(eta=2))
        assert len(values) == 3 and not meta.points
        meta.backward()
    assert (counts - 50).abs().max() < 15  # of 150, in equal parts


def test_a_task_that_fails_leaves_the_replay_as_it_was():
    """Its points take the places of earlier ones, and count in how probably later ones are kept."""
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    found = []

    def fail(meta):
        with meta.task() as task:
            for k in range(20):
                task.backward(meta.loss(batch_of(tasks, 0, k % STEPS)), *[batch_of(tasks, 0, STEPS)] * 2)
            assert any(point.task == 3 for point in meta.points)
            raise Killed

    for fails in (False, True):
        net = SmallWarped().double()
        meta = leapwarp.WarpGrad(net, loss_of(net), warp="warp", inner=0.1, replay=5)
        follow_warp(meta, loss_of(net), tasks)
        before = meta.state_dict()
        if fails:
            with pytest.raises(Killed):
                fail(meta)
        after = meta.state_dict()
        assert len(meta.points) == 5 and meta.met == 3 * STEPS and after["met"] == before["met"]
        assert all(a["theta"] is b["theta"] for a, b in zip(after["points"], before["points"], strict=True))
        follow_warp(meta, loss_of(net), tasks)  # the same points of later tasks are kept
        found.append(([point.task for point in meta.points], list(meta.replay())))
    assert found[0] == found[1] and max(found[0][0]) > 2


class Killed(Exception):
    pass


@pytest.mark.parametrize("replay", [None, 6])
def test_a_killed_run_resumes_to_the_same_numbers(replay):
    """The run is killed in the second task of the second meta-batch, and was saved after each task."""
    _, _, tasks = small_warped(draws=3 * STEPS + 1)

    def begin():
        net = SmallWarped().double()
        meta = leapwarp.WarpGrad(net, loss_of(net), warp="warp", inner=0.1, replay=replay)
        return net, meta, torch.optim.Adam(meta.parameters(), 0.01)

    def go_on(net, meta, outer, first=(0, 0), kill=None, saved=None):
        for k in range(first[0], 3):
            for t in range(first[1] if k == first[0] else 0, 3):
                with meta.task() as task:
                    inner = torch.optim.SGD(meta.task_parameters(), 0.1)
                    for i in range(STEPS):
                        inner.zero_grad()
                        batch, other = batch_of(tasks, t, i + k), batch_of(tasks, t, i + k + 5)
                        task.backward(loss_of(net)(batch), other, batch)
                        inner.step()
                        if (k, t, i) == kill:
                            raise Killed
                    task.finish(loss_of(net)(batch_of(tasks, t, 12)))
                if saved is not None:
                    file = io.BytesIO()
                    torch.save({"meta": meta.state_dict(), "outer": outer.state_dict(), "at": (k, t + 1)}, file)
                    saved[:] = [file.getvalue()]
            for _ in meta.replay(eta=2) if replay else ():
                outer.step()
            meta.backward()
            outer.step()
        return net.state_dict()

    whole, saved = go_on(*begin()), []
    with pytest.raises(Killed):
        go_on(*begin(), kill=(1, 1, 2), saved=saved)
    net, meta, outer = begin()
    with torch.no_grad():
        net.head.weight.zero_()
    state = torch.load(io.BytesIO(saved[0]), weights_only=True)
    assert state["at"] == (1, 1)
    meta.load_state_dict(state["meta"])
    outer.load_state_dict(state["outer"])
    torch.testing.assert_close(go_on(net, meta, outer, state["at"]), whole, rtol=0, atol=0)


def test_a_task_that_fails_counts_for_nothing():
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    found = []
    for fails in (False, True):
        net = SmallWarped().double()
        meta = leapwarp.WarpGrad(net, loss_of(net), warp="warp", inner=0.1, replay=50)
        before = copy.deepcopy(net.state_dict())
        if fails:

            def fail(task, inner, net=net):
                for k in range(2):
                    loss = loss_of(net)(batch_of(tasks, 0, k)) * (torch.nan if k == 0 else 1)
                    task.backward(loss, batch_of(tasks, 0, 5), batch_of(tasks, 0, 6))

            with pytest.raises(FloatingPointError, match="the loss of this task is nan at step 0; needed a finite one"):
                in_task(meta, fail)
            torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
        follow_warp(meta, loss_of(net), tasks)
        assert len(meta.points) == 3 * STEPS
        list(meta.replay())
        meta.backward()
        found.append(grads_of(net))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_a_task_begins_without_the_gradients_that_are_there():
    """A loop that calls zero_grad only after its steps would add the meta-gradient to the first step's gradient."""
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    found = []
    for left in (False, True):
        net = SmallWarped().double()
        meta = warp_of(net, order=1)
        for leaf in net.parameters() if left else ():
            leaf.grad = torch.ones_like(leaf)
        with meta.task() as task:
            inner = torch.optim.SGD(net.parameters(), 0.1)  # of the warps too, which must not move
            for k in range(STEPS):
                task.backward(loss_at(net, k), batch_of(tasks, 0, k + 5))
                inner.step()
                inner.zero_grad()
            task.finish(loss_at(net, STEPS))
        meta.backward()
        found.append(grads_of(net) | net.state_dict())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_an_optimizer_of_all_parameters_moves_no_warp():
    """After the loop's own backward the warps have gradients too."""
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    meta, before = warp_of(net), copy.deepcopy(net.state_dict())
    with meta.task() as task:
        inner = torch.optim.SGD(net.parameters(), 0.1)
        for k in range(STEPS):
            inner.zero_grad()
            loss = loss_at(net, k)
            loss.backward()
            task.step(loss, batch_of(tasks, 0, k + 5), batch_of(tasks, 0, k))
            inner.step()
        assert not torch.equal(net.head.weight, before["head.weight"])
        assert torch.equal(net.warp[0].weight, before["warp.0.weight"])
        task.finish(loss_at(net, STEPS))


def process(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    for replay in (None, 50):
        net = meta_steps(range(2) if rank == 0 else range(2, 3), replay, spoilt=rank == 1)
        torch.save(net.state_dict(), f"{folder}/{rank}-{replay}.pt")
    distributed.destroy_process_group()


def meta_steps(mine, replay, spoilt=False):
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    if spoilt:  # all processes use the first one's parameters
        nn.init.ones_(net.head.weight)
    meta = leapwarp.WarpGrad(net, loss_of(net), warp="warp", inner=0.1, replay=replay)
    outer = torch.optim.Adam(meta.parameters(), 0.01)
    own = tasks._replace(
        **{name: getattr(tasks, name)[mine.start : mine.stop] for name in ("index", "x", "y", "order")}
    )
    for _ in range(2):
        follow_warp(meta, loss_of(net), own)
        for _ in meta.replay(eta=5) if replay else ():
            outer.step()
        seen = meta.backward()
        assert seen["tasks"] == 3
        outer.step()
    return net


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_available() or not distributed.is_gloo_available(), reason="no gloo")
def test_two_processes_that_share_out_the_tasks_equal_one(tmp_path):
    torch.multiprocessing.spawn(process, (str(tmp_path),), nprocs=2)
    for replay in (None, 50):
        alone = meta_steps(range(3), replay).state_dict()
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}-{replay}.pt")
            torch.testing.assert_close(found, alone, rtol=1e-10, atol=1e-12)


def leap_of(net, **options):
    return leapwarp.Leap(net, **options)


def warp_of(net, **options):
    return leapwarp.WarpGrad(net, **({"loss": loss_of(net), "warp": "warp", "inner": 0.1} | options))


def in_task(meta, body):
    with meta.task() as task:
        body(task, torch.optim.SGD(meta.task_parameters(), 0.1))


def loss_at(net, k=0):
    return loss_of(net)(batch_of(small_warped(draws=3 * STEPS + 1)[2], 0, k))


def late(net, task, inner):
    loss = loss_at(net)
    loss.backward()
    inner.step()
    task.step(loss)


def late_and_fused(net, task, inner):
    """Such an optimizer leaves the version counters of the parameters as they were."""
    loss = loss_at(net)
    loss.backward()
    torch.optim.AdamW(task.meta.task_parameters(), 0.1, fused=True).step()
    task.step(loss)


def again(net, task, inner):
    loss = loss_at(net)
    loss.backward()
    task.backward(loss, batch_of(small_warped()[2], 0, 1))


def exchanged(net, task, inner, classes=5):
    task.backward(loss_at(net))
    net.head = nn.Linear(4, classes).double()
    task.finish(loss_at(net))


def moved_warps(net, task, inner):
    task.backward(loss_at(net), batch_of(small_warped()[2], 0, 1))
    with torch.no_grad():
        net.warp[0].weight.mul_(2)
    task.finish(loss_at(net))


def moved_by_fused(net, task, inner):
    """Such an optimizer leaves the version counters of the parameters as they were."""
    task.backward(loss_at(net), batch_of(small_warped()[2], 0, 1))
    net.warp.requires_grad_(True)
    (0.1 * loss_at(net)).backward()
    torch.optim.SGD(net.parameters(), 0.1, fused=True).step()
    task.finish(loss_at(net))


def thawed(net, task, inner):
    net.frozen.requires_grad_(True)
    task.backward(loss_at(net))


def not_finite(net, task, inner):
    loss = loss_at(net)
    loss.backward()
    net.head.weight.grad[0, 0] = torch.nan  # a loop that passes over such a step
    task.step(loss)
    task.finish(loss_at(net))


def with_frozen(net):
    net.frozen = nn.Linear(1, 1).requires_grad_(False)
    return leap_of(net)


def replayed_inside(net, task, inner):
    list(task.meta.replay())


def with_penalty(net):
    """A loss with a penalty on a list of parameters that was made outside of the loss."""
    listed = list(net.head.parameters())
    return warp_of(net, loss=lambda batch: loss_of(net)(batch) + sum(leaf.square().sum() for leaf in listed))


WRONG = {
    "a list of parameters": (
        with_penalty,
        lambda net, task, inner: task.backward(loss_at(net), batch_of(small_warped()[2], 0, 1)),
        "the loss that was given to WarpGrad takes head.bias, head.weight from elsewhere than the module",
    ),
    "a constant that moves": (with_frozen, thawed, "frozen.weight, frozen.bias: requires_grad was False when"),
    "a gradient that is not finite": (
        leap_of,
        not_finite,
        "a parameter or a gradient on this task's path is not finite",
    ),
    "a replay inside": (lambda net: warp_of(net, replay=3), replayed_inside, "a task is open; go through the replay"),
    "an objective without a graph": (
        lambda net: warp_of(net, loss=torch.no_grad()(loss_of(net))),
        lambda net, task, inner: task.backward(loss_at(net), batch_of(small_warped()[2], 0, 1)),
        "the loss depends on no parameter that is adapted. Needed one .* outside torch.no_grad",
    ),
    "no finish": (
        leap_of,
        lambda net, task, inner: task.backward(loss_at(net)),
        "the path has no end: call task.finish",
    ),
    "no step": (leap_of, lambda net, task, inner: task.finish(loss_at(net)), "the task has no step; needed"),
    "no backward": (
        leap_of,
        lambda net, task, inner: task.step(loss_at(net)),
        "no learnt parameter has a gradient here",
    ),
    "after the step, fused": (leap_of, late_and_fused, "the module has moved before the first point of the path"),
    "batches for a scaler": (
        leap_of,
        lambda net, task, inner: task.backward(loss_at(net), (0, 1)),
        "scaler is tuple; needed a torch.amp.GradScaler or None",
    ),
    "after the step": (leap_of, late, "the module has moved before the first point of the path"),
    "losses": (
        leap_of,
        lambda net, task, inner: task.step(torch.ones(3)),
        r"the loss has shape \[3\]; needed a tensor of one",
    ),
    "a number": (leap_of, lambda net, task, inner: task.step(1.0), "the loss has float; needed a tensor of one"),
    "a freed graph": (
        warp_of,
        again,
        "backward through the graph a second time.* Needed a loss that was computed inside",
    ),
    "warps that move": (
        warp_of,
        moved_warps,
        "warp.0.weight: warps that have moved inside the task, where they must stay fixed. Give the task's optimizer",
    ),
    "a loss without a graph": (
        leap_of,
        lambda net, task, inner: task.backward(loss_at(net).detach()),
        "the loss depends on no parameter that is adapted. Needed one that was computed from the module's outputs",
    ),
    "a head exchanged": (leap_of, exchanged, r"head.weight has shape \[5, 4\], but had \[3, 4\] when"),
    "the last loss again": (
        leap_of,
        lambda net, task, inner: (loss := loss_at(net), task.backward(loss), inner.step(), task.finish(loss)),
        "this is the loss of the last step, from before the optimizer moved the parameters. Needed that of one more",
    ),
    "warps that move by a fused optimizer": (
        lambda net: warp_of(net, order=1),
        moved_by_fused,
        "warp.0.weight, warp.0.bias, .*: warps that have moved inside the task",
    ),
    "a layer exchanged": (leap_of, lambda *all: exchanged(*all, 3), "Exclude parts that you exchange"),
    "losses of the objective": (
        lambda net: warp_of(net, loss=lambda batch: net(batch[0])),
        lambda net, task, inner: task.backward(loss_at(net), batch_of(small_warped()[2], 0, 1)),
        r"the loss has shape \[6, 3\]; needed a tensor of one number",
    ),
    "a loss of another module": (
        lambda net: warp_of(net, loss=loss_of(SmallWarped().double())),
        lambda net, task, inner: task.backward(loss_at(net), batch_of(small_warped()[2], 0, 1)),
        "the loss that was given to WarpGrad depends on no parameter of the module. Needed a function of a batch",
    ),
    "no task batch": (
        warp_of,
        lambda net, task, inner: (loss := loss_at(net), loss.backward(), task.step(loss, 0)),
        "no task_batch. Needed task.backward",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_use_inside_a_task_is_told_in_one_line(name):
    """Afterwards parameters have no gradient, and warps are what they were."""
    build, body, message = WRONG[name]
    net, begun = SmallWarped().double(), SmallWarped().double()
    with pytest.raises((TypeError, ValueError, RuntimeError, FloatingPointError), match=message) as error:
        in_task(build(net), lambda task, inner: body(net, task, inner))
    assert "\n" not in str(error.value) and not grads_of(net)
    torch.testing.assert_close(net.warp.state_dict(), begun.warp.state_dict(), rtol=0, atol=0)


MISUSE = {
    "nothing by that name": (lambda net: leap_of(net, exclude="heads.*"), "exclude: 'heads.*' is none of the module's"),
    "nothing left": (
        lambda net: leap_of(net.requires_grad_(False)),
        "no parameter is left to learn: of 10, 10 are frozen",
    ),
    "twice": (lambda net: warp_of(net, task_only="warp"), "warp.0.weight.* chosen as warp and as task_only"),
    "a warp forgotten": (
        lambda net: warp_of(net, warp="warp.0"),
        "warp.1.weight, warp.1.bias: the name says warp, but",
    ),
    "no warp": (lambda net: warp_of(net, warp=()), "no warp is chosen; needed"),
    "wrapped for processes": (
        lambda net: leap_of(object.__new__(nn.parallel.DistributedDataParallel)),
        "the module is wrapped in DistributedDataParallel; needed the module inside, net.module",
    ),
    "half a point": (
        lambda net: warp_of(net, replay=2.5),
        "replay 2.5; needed order 2, 1 or 0, and replay a whole number",
    ),
    "parameters as a choice": (
        lambda net: leap_of(net, exclude=list(net.head.parameters())),
        "exclude has Parameter; needed names, patterns such as",
    ),
    "a choice of nothing": (lambda net: leap_of(net, exclude=None), "exclude has NoneType; needed names, patterns"),
    "an empty pattern": (lambda net: leap_of(net, exclude=""), "exclude: '' is none of the module's parameters"),
    "order": (lambda net: warp_of(net, order=3), "order is 3 and replay None; needed order 2, 1 or 0"),
    "a frozen warp": (
        lambda net: warp_of((net.warp.requires_grad_(False), net)[1]),
        "warp.0.bias.*: chosen as warp, but requires_grad is False",
    ),
    "the loop's optimizer": (
        lambda net: warp_of(net, inner=torch.optim.SGD(net.parameters(), 0.1)),
        "inner is SGD; needed the learning rate",
    ),
    "any pair for an optimizer": (lambda net: warp_of(net, inner=(0.9, 0.99)), "inner is tuple; needed the learning"),
    "a function of an optimizer": (lambda net: warp_of(net, inner=optim.sgd), "inner is the function sgd; needed the"),
    "a criterion for a loss": (
        lambda net: warp_of(net, loss=nn.CrossEntropyLoss()),
        "loss is CrossEntropyLoss; needed a function of one batch that gives its loss: lambda batch",
    ),
    "a loss of inputs and targets": (
        lambda net: warp_of(net, loss=lambda x, y: nn.functional.cross_entropy(net(x), y)),
        "loss is the function <lambda>; needed a function of one batch",
    ),
    "a class for a loss": (lambda net: warp_of(net, loss=nn.MSELoss), "loss is the class MSELoss; needed a function"),
    "no device": (
        lambda net: warp_of(net, replay=3, replay_device="gpu"),
        "replay_device is 'gpu'; needed a device of PyTorch, such as 'cpu', or None",
    ),
    "half a point a turn": (lambda net: list(warp_of(net, replay=3).replay(1.5)), "eta is 1.5, points None, generator"),
    "a seed for a stream": (
        lambda net: list(warp_of(net, replay=3).replay(generator=0)),
        "generator int, and WarpGrad was made with replay=3; needed whole numbers",
    ),
    "a lifted module": (
        lambda net: leap_of(lift(net, warp="warp")),
        "the module is Lifted; needed a torch.nn.Module",
    ),
    "a class of modules": (lambda net: leap_of(type(net)), "the module is the class SmallWarped; needed a torch"),
    "parameters for a module": (lambda net: leap_of(net.parameters()), "the module is generator; needed a torch"),
    "no values": (
        lambda net: leap_of(net.to("meta")),
        "task.0.weight is on the device meta, without values; needed a parameter that can be trained",
    ),
    "made in inference mode": (
        lambda net: leap_of(torch.inference_mode()(lambda: SmallWarped())()),
        r"task.0.weight was made in torch.inference_mode\(\); needed a parameter that can be trained",
    ),
    "a path for a state": (lambda net: leap_of(net).load_state_dict("a.pt"), "the state is str; needed one of state_d"),
    "no state": (lambda net: warp_of(net).load_state_dict(None), "the state is NoneType; needed one of state_dict"),
    "a state of Leap": (
        lambda net: warp_of(net).load_state_dict(leap_of(net).state_dict()),
        "the state is one of Leap; needed one of WarpGrad",
    ),
    "no task": (lambda net: leap_of(net).backward(), "no task has ended since the last backward"),
    "an empty replay": (lambda net: list(warp_of(net, replay=3).replay()), "the replay is empty"),
    "online replay": (lambda net: list(warp_of(net).replay()), "WarpGrad was made with replay=None"),
    "another state": (
        lambda net: leap_of(net).load_state_dict({"total": {"odd": 0}, "module": {}, "tasks": 0, "seen": {}}),
        "the state and this Leap do not both learn head.bias, .*odd",
    ),
    "no module": (lambda net: leap_of(net.forward), "the module is the function forward; needed a torch.nn.Module"),
    "a lazy average": (
        lambda net: leap_of(nn.Sequential(nn.Linear(2, 2), nn.LazyBatchNorm1d(affine=False))),
        "1.running_mean has no shape yet; call the module once",
    ),
    "a rate below 0": (lambda net: warp_of(net, inner=-0.1), "inner is -0.1; needed the learning rate of the step"),
    "a rate that is none": (lambda net: warp_of(net, inner=float("nan")), "inner is nan; needed the learning rate"),
    "a state of another kind of learning": (
        lambda net: warp_of(net, replay=3).load_state_dict(warp_of(net).state_dict() | {"warp_points": 2}),
        "the state has 0 points of a replay and 2 of the online objective; needed one of WarpGrad with replay=3",
    ),
    "a state of more points": (
        lambda net: warp_of(net).load_state_dict(warp_of(net, replay=3).state_dict() | {"points": [0]}),
        "the state has 1 points of a replay and 0 of the online objective; needed one of WarpGrad with replay=None",
    ),
    "no state of a front": (
        lambda net: leap_of(net).load_state_dict(net.state_dict()),
        "the state has no module, seen, tasks, total; needed one of state_dict",
    ),
    "a state of another module": (
        lambda net: leap_of(net).load_state_dict(leap_of(nn.Linear(2, 2)).state_dict()),
        "the state is of another module: .*Missing key",
    ),
    "a lazy layer": (lambda net: leap_of(nn.LazyLinear(3)), "weight has no shape yet; call the module once"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_a_wrong_use_is_told_in_one_line(name):
    wrong, message = MISUSE[name]
    with pytest.raises((ValueError, RuntimeError, TypeError), match=message) as error:
        wrong(SmallWarped().double())
    assert "\n" not in str(error.value)


def test_a_part_that_is_frozen_in_a_task_keeps_no_gradient():
    """The next task, or another optimizer of the loop, would use it."""
    net = SmallWarped().double()
    with leap_of(net).task() as task:
        task.backward(loss_at(net))
        torch.optim.SGD(net.parameters(), 0.1).step()
        net.head.requires_grad_(False)
        task.finish(loss_at(net))
    assert not grads_of(net)


@dataclass(frozen=True)
class Record:
    x: torch.Tensor
    y: torch.Tensor


KINDS = {  # of batches that share memory with a buffer: tensors, and what a loss makes tensors of
    "tensors": lambda x, y: (x, y),
    "NumPy memory": lambda x, y: (torch.from_numpy(x.numpy()), torch.from_numpy(y.numpy())),
    "arrays": lambda x, y: (x.numpy(), y.numpy()),
    "a dataclass": Record,
    "a dictionary": lambda x, y: {"x": x, "more": [y]},
}


def parts_of(batch):
    if isinstance(batch, Record):
        return batch.x, batch.y
    if isinstance(batch, dict):
        return batch["x"], *batch["more"]
    return tuple(map(torch.as_tensor, batch))


@pytest.mark.parametrize("kind", KINDS)
def test_the_replay_has_batches_of_its_own(kind):
    """A loop may write each batch into the same memory."""
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    losses = []
    for reused in (False, True):
        net = SmallWarped().double()
        meta = warp_of(net, loss=lambda batch, net=net: loss_of(net)(parts_of(batch)), replay=50)
        buffers = [[part.clone() for part in batch_of(tasks, 0, 0)] for _ in range(2)]

        def given(k, place, reused=reused, buffers=buffers):
            if reused:
                for into, part in zip(buffers[place], batch_of(tasks, 0, k), strict=True):
                    into.numpy()[:] = part.numpy()
            return KINDS[kind](*(buffers[place] if reused else map(torch.clone, batch_of(tasks, 0, k))))

        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 0.1)
            for k in range(3):
                inner.zero_grad()
                batch = given(k, 0)
                task.backward(meta.loss(batch), given(k + 4, 1), batch)
                inner.step()
            task.finish(loss_at(net, 9))
        losses.append(list(meta.replay()))
    assert losses[0] == losses[1] and len(set(losses[0])) == 3


def test_a_head_of_other_layers_than_that_of_a_point_is_an_error():
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    meta = warp_of(net, replay=50, exclude="head")
    follow_warp(meta, loss_of(net), tasks)
    net.head = nn.Sequential(nn.Linear(4, 3)).double()
    with pytest.raises(ValueError, match="head.weight, head.bias: no longer in the module. Needed the parts that"):
        list(meta.replay(eta=100))


def test_batches_of_any_kind_keep_their_kind():
    packed = nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(1)])
    batch = defaultdict(list, {"text": ["a"], "packed": packed, "more": [{"x": torch.zeros(2)}, 5]})
    kept = moved(batch, torch.device("meta"))
    assert type(kept) is defaultdict and kept["more"][0]["x"].is_meta and kept["text"] == ["a"] and kept["more"][1] == 5
    assert type(kept["packed"]) is type(packed) and kept["packed"].data.is_meta and not packed.data.is_meta
    assert not batch["more"][0]["x"].is_meta


def test_a_tied_parameter_is_chosen_by_each_of_its_names():
    net = nn.ModuleDict({"embed": nn.Linear(2, 2), "body": nn.Linear(2, 2)})
    net["out"] = net["embed"]
    for choice in ("out", "out.weight", "*.out", net["out"]):
        assert "embed.weight" in leapwarp.groups(net, warp=choice).warp


def test_parameters_are_chosen_by_the_names_that_they_have_without_wrappers():
    net = nn.ModuleDict({"body": nn.Linear(2, 2), "warp": checkpoint_wrapper(nn.Linear(2, 2))})
    chosen = leapwarp.groups(torch.compile(net, backend="eager"), warp="warp.*")
    assert [plain(name) for name in chosen.warp] == ["warp.weight", "warp.bias"] != list(chosen.warp)
    assert [plain(name) for name in chosen.learnt] == ["body.weight", "body.bias"]


def test_sums_are_no_coarser_than_float32_and_the_report_of_a_resumed_run_is_the_same():
    """In bfloat16 a sum of 1 and 300 times 1/256 stays 1."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).bfloat16()
    meta = leapwarp.WarpGrad(
        net, lambda batch: net[1].weight.sum() * batch + 0 * net[0].weight.sum(), "1", 0.0, order=0
    )
    with meta.task() as task:
        for k in range(301):
            task.backward(meta.loss(1.0), 1.0 if k == 0 else 1 / 256)
            net[0].weight.data.neg_()
        task.finish(meta.loss(1.0))
    state, seen = meta.state_dict(), meta.backward()
    assert net[1].weight.grad.item() == pytest.approx(1 + 300 / 256, rel=1e-2)
    resumed = leapwarp.WarpGrad(net, meta.loss, "1", 0.0, order=0)
    resumed.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resumed.backward() == seen


def test_a_task_that_is_over_is_not_gone_on_with():
    net = SmallWarped().double()
    meta = leap_of(net)
    with pytest.raises(KeyError), meta.task() as first:
        raise KeyError
    with pytest.raises(ValueError, match="this task is over; use the one that"), meta.task():
        first.backward(loss_at(net))


@pytest.mark.parametrize("replay", [None, 9])
def test_an_objective_that_is_not_finite_counts_for_nothing(replay):
    net = SmallWarped().double()
    meta = warp_of(net, loss=lambda batch: loss_of(net)(batch) * torch.nan, replay=replay)
    _, _, tasks = small_warped(draws=3 * STEPS + 1)

    def train():
        follow_warp(meta, loss_of(net), tasks)
        list(meta.replay())

    with pytest.raises(FloatingPointError, match="the objective of the warps is nan; needed a finite one"):
        train()
    assert not meta.warp_total and not meta.points and net.warp[0].weight.grad is None


def test_an_optimizer_of_another_module_is_noticed():
    net = SmallWarped().double()
    meta = leap_of(net)

    def train(task, inner):
        for k in range(2):
            task.backward(loss_at(net, k))
            inner.step()
        task.finish(loss_at(net, 2))

    with pytest.warns(UserWarning, match="no learnt parameter has moved in this task. Give"):
        in_task(meta, lambda task, inner: train(task, torch.optim.SGD(SmallWarped().double().parameters(), 0.1)))


def test_parts_of_a_batch_that_are_taken_for_steps_are_noticed():
    net = SmallWarped().double()
    meta = leap_of(net)

    def train(task, inner):
        for k in range(4):
            task.backward(loss_at(net, k))
            if k % 2:
                inner.step()
        task.finish(loss_at(net, 4))

    with pytest.warns(
        UserWarning, match="at 2 of 4 steps of this task no learnt parameter has moved. If the learning rate"
    ):
        in_task(meta, train)


def test_a_state_goes_from_a_compiled_module_to_one_that_is_not_and_back():
    net, other = SmallWarped().double(), SmallWarped().double()
    with torch.no_grad():
        net.head.weight.add_(1)
    compiled, _, _, tasks = torch.compile(net, backend="eager"), *small_warped(draws=STEPS + 1)
    meta = leap_of(compiled)
    follow(compiled, meta, loss_of(net), tasks)
    leap_of(other).load_state_dict(meta.state_dict())
    torch.testing.assert_close(other.state_dict(), net.state_dict(), rtol=0, atol=0)
    state = leap_of(SmallWarped().double()).state_dict()
    meta.load_state_dict(state)
    torch.testing.assert_close(net.state_dict(), state["module"], rtol=0, atol=0)


def test_points_that_wait_in_the_replay_are_not_forgotten_silently():
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    meta = warp_of(net, replay=50)
    follow_warp(meta, loss_of(net), tasks)
    with pytest.raises(RuntimeError, match="12 points wait in the replay"):
        meta.backward()
    with pytest.raises(RuntimeError, match="a task is open already"), meta.task(), meta.task():
        pass


def test_a_replay_is_not_interrupted_by_tasks_or_states():
    """A state from the middle of a replay would replay its points twice."""
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    meta = warp_of(net, replay=50)
    for wrong in (meta.state_dict, lambda: meta.task().__enter__(), lambda: list(meta.replay())):
        follow_warp(meta, loss_of(net), tasks)
        turns = meta.replay()
        next(turns)
        with pytest.raises(RuntimeError, match="a replay goes on. Open tasks, take a state, and begin another replay"):
            wrong()
        turns.close()
        meta.discard()
        follow_warp(meta, loss_of(net), tasks)
        for _ in meta.replay():
            break
        assert not meta.state_dict()["points"]
        meta.discard()


@pytest.mark.parametrize("order", [None, 0, 1, 2])
def test_gradients_that_a_loop_does_not_clear_are_no_part_of_a_point(order):
    """The optimizer has the head alone, and clears the gradients of the head alone. Clearing all gives the same."""
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    found = []
    for clear_all in (False, True):
        net = SmallWarped().double()
        meta = leap_of(net) if order is None else warp_of(net, order=order)
        with meta.task() as task:
            inner = torch.optim.SGD(net.head.parameters(), 0.5)
            for k in range(STEPS):
                (net if clear_all else inner).zero_grad()
                loss = loss_of(net)(batch_of(tasks, 0, k))
                task.backward(loss, *() if order is None else (batch_of(tasks, 0, k + 5),))
                inner.step()
            task.finish(loss_of(net)(batch_of(tasks, 0, STEPS)))
        meta.backward()
        found.append(grads_of(net))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


def test_a_loop_sees_the_sum_of_gradients_that_it_does_not_clear():
    net = SmallWarped().double()
    expected = sum(torch.autograd.grad(loss_at(net, k), net.head.weight)[0] for k in range(2))
    for meta, more in ((leap_of(net), ()), (warp_of(net), (batch_of(small_warped()[2], 0, 1),))):
        with meta.task() as task:
            for k in range(2):
                task.backward(loss_at(net, k), *more)
            torch.testing.assert_close(net.head.weight.grad, expected, rtol=1e-12, atol=1e-14)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nothing has moved
                task.finish(loss_at(net, 2))


def test_a_loss_whose_memory_the_loop_reuses_is_kept_as_it_was():
    """A loop may write into its loss, or compute each loss in the same memory, as a captured graph does."""
    _, _, tasks = small_warped(draws=STEPS + 1)

    found = []
    for how in ("plain", "written", "reused"):
        net, memory = SmallWarped().double(), torch.zeros((), dtype=torch.float64)
        meta = leap_of(net)
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 0.5)
            for k in range(STEPS):
                inner.zero_grad()
                loss = loss_of(net)(batch_of(tasks, 0, k))
                if how == "reused":
                    loss.backward()
                    task.step(memory.copy_(loss.detach()))
                else:
                    task.backward(loss)
                if how == "written":
                    loss.detach().mul_(16)
                inner.step()
            task.finish(memory.copy_(loss_of(net)(batch_of(tasks, 0, STEPS)).detach()))
        found.append((meta.backward(), grads_of(net)))
    assert found[0][0] == found[1][0] == found[2][0]
    torch.testing.assert_close(found[1][1], found[0][1], rtol=0, atol=0)
    torch.testing.assert_close(found[2][1], found[0][1], rtol=0, atol=0)


@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize("what", ["frozen", "skipped", "heads"])
def test_a_point_of_the_replay_keeps_parts_that_have_no_gradient(what, order):
    """A layer that is frozen or skipped in some steps, and frozen heads of each task: offline equals online."""
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    found = []
    for replay in (None, 50):
        net = SmallWarped().double()

        def loss(batch, net=net):
            x, y, skip = batch
            if skip:  # the first layer, on which then no gradient depends
                return loss_of(lambda x: net.head(net.warp[1](torch.tanh(net.task[1](x)))))((x[:, [0, 1, 2, 0]], y))
            return loss_of(net)((x, y))

        meta = warp_of(net, loss=loss, replay=replay, order=order, exclude="head" if what == "heads" else ())
        torch.manual_seed(3)
        for t in range(3):
            if what == "heads":
                net.head = nn.Linear(4, 3).double().requires_grad_(False)
            with meta.task() as task:
                inner = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.5)
                for k in range(STEPS):
                    inner.zero_grad()
                    if what == "frozen":
                        net.task[0].requires_grad_(k < 2)
                    batch = *batch_of(tasks, t, k), what == "skipped" and k % 2
                    task.backward(loss(batch), (*batch_of(tasks, t, k + 5), False), batch)
                    inner.step()
                net.task[0].requires_grad_(True)
                task.finish(loss((*batch_of(tasks, t, STEPS), False)))
        if replay:
            for _ in meta.replay(eta=100):
                found.append({name: grad for name, grad in grads_of(net).items() if name.startswith("warp")})
        else:
            meta.backward()
            found.append({name: grad for name, grad in grads_of(net).items() if name.startswith("warp")})
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("build", [leap_of, warp_of])
def test_learnt_parts_that_are_exchanged_between_tasks_are_noticed(build):
    """The outer optimizer would go on with the old ones, and nothing would be learnt."""
    net = SmallWarped().double()
    meta = build(net)
    net.task[0] = nn.Linear(3, 4).double()
    with pytest.raises(ValueError, match="task.0.weight, task.0.bias: other parameters than when Leap was made"):
        in_task(meta, lambda task, inner: None)
    if build is warp_of:
        net = SmallWarped().double()
        meta = build(net)
        net.warp[0] = nn.Linear(4, 4).double()
        with pytest.raises(ValueError, match="warp.0.weight, warp.0.bias: warps that the module no longer has"):
            in_task(meta, lambda task, inner: None)


def test_reports_are_no_coarser_than_float32():
    """In bfloat16 a sum of ones stays 256."""
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)).bfloat16()
    meta = leapwarp.WarpGrad(net, lambda batch: 0 * net(batch).sum() + 1, "1", 0.0, order=0)
    x = torch.ones(1, 1, dtype=torch.bfloat16)
    with meta.task() as task:
        for _ in range(600):
            task.backward(meta.loss(x), x)
            net[0].weight.data.neg_()
        task.finish(meta.loss(x))
    seen = meta.backward()
    assert seen["loss"] == seen["warp_loss"] == 1


def test_names_with_brackets_are_chosen():
    net = nn.ModuleDict({"a[0]": nn.Linear(2, 2), "warp[1]": nn.Linear(2, 2)})
    chosen = leapwarp.groups(net, warp=["warp[1]"], exclude="a[0].bias")
    assert list(chosen.warp) == ["warp[1].weight", "warp[1].bias"] and list(chosen.exclude) == ["a[0].bias"]


@pytest.mark.parametrize("inner", [optim.adam(1e-2), optim.rmsprop(1e-2, 0.9, 1e-3)])
def test_a_unit_that_gives_zeros_does_no_harm_to_an_adaptive_step(inner):
    """The gradient is zero there, and the root of its square has no slope. Finite differences agree elsewhere."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        net[0].bias[0] = -100
    batch, other = (batch_of(small_warped()[2], 0, k) for k in (0, 1))

    def objective(order=2):
        meta = leapwarp.WarpGrad(net, loss_of(net), warp="2", inner=inner, order=order)
        with meta.task() as task:
            task.backward(meta.loss(batch), other)
            torch.optim.SGD(meta.task_parameters(), 0.1).step()
            task.finish(meta.loss(other))
        return meta.backward()["warp_loss"]

    objective()
    grads = grads_of(net)["2.weight"]
    assert grads.isfinite().all()
    for place in ((0, 1), (2, 3), (1, 0)):
        ends = []
        for change in (1e-6, -2e-6):
            with torch.no_grad():
                net[2].weight[place] += change
            ends.append(objective())
        with torch.no_grad():
            net[2].weight[place] += 1e-6
        assert grads[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-7)


def test_a_gradient_of_the_warps_that_is_not_finite_counts_for_nothing():
    """Here the loss has an infinite slope at the root of zero."""
    net = SmallWarped().double()
    meta = warp_of(
        net, loss=lambda batch: loss_of(net)(batch) + (0 * net.warp[0].weight).square().sum().sqrt(), order=0
    )
    with pytest.raises(FloatingPointError, match="the gradient of the warps warp.0.weight is not finite, though the"):
        in_task(
            meta,
            lambda task, inner: (
                task.backward(loss_at(net), batch_of(small_warped()[2], 0, 1)),
                inner.step(),
                task.finish(loss_at(net, 1)),
            ),
        )
    assert not meta.warp_total


class Shared(nn.Module):
    """Two parameters to which autograd gives one tensor as their gradient, and one with an expanded gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.warp = nn.Linear(3, 1)

    def forward(self, x):
        return self.warp(torch.tanh(x * (self.a + self.b))) + 0.01 * self.a.sum()


def test_gradients_that_share_memory_add_up_as_in_any_loop():
    net, x = Shared().double(), torch.rand(5, 3, dtype=torch.float64)
    meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="warp", inner=0.1)
    with meta.task() as task:
        expected = {name: torch.zeros(3, dtype=torch.float64) for name in ("a", "b")}
        for _ in range(2):
            loss = meta.loss(x)
            for name in expected:
                expected[name] += torch.autograd.grad(loss, getattr(net, name), retain_graph=True)[0]
            task.backward(loss, x)
            for name, grad in expected.items():
                torch.testing.assert_close(getattr(net, name).grad, grad, rtol=1e-12, atol=1e-14)
            with torch.no_grad():
                net.a.add_(0.1)
        assert net.a.grad.data_ptr() != net.b.grad.data_ptr()
        task.finish(meta.loss(x))


def test_complex_warps_and_sparse_gradients_beside_dense_ones_are_taken():
    torch.manual_seed(0)
    net = nn.ParameterDict({"w": torch.randn(3, dtype=torch.cdouble), "warp": torch.randn(3, dtype=torch.cdouble)})
    x = torch.randn(5, 3, dtype=torch.cdouble)
    for inner in (0.1, optim.adam(1e-3)):
        meta = leapwarp.WarpGrad(net, lambda batch: (batch * net["w"] * net["warp"]).abs().mean(), "warp", inner)
        in_task(
            meta,
            lambda task, inner, meta=meta: (task.backward(meta.loss(x), x), inner.step(), task.finish(meta.loss(x))),
        )
        meta.backward()
        assert net["warp"].grad.isfinite().all() and net["warp"].grad.abs().sum() > 0

    net = nn.Embedding(4, 3, sparse=True)
    meta = leap_of(net)
    with meta.task() as task:
        task.backward(net(torch.tensor([1])).square().sum())
        task.backward(net.weight.square().sum())
        expected = 2 * net.weight.detach()
        expected[1] *= 2
        torch.testing.assert_close(net.weight.grad.to_dense(), expected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing has moved
            task.finish(net.weight.square().sum())


@pytest.mark.filterwarnings("ignore:no ")  # no slope depends on the last bias
def test_a_point_keeps_what_a_copy_would_break():
    """Inputs by which the loss differentiates, a module in the batch, and objects that are no arrays but give one."""

    class Lazy:
        def __array__(self, dtype=None, copy=None):
            raise AssertionError

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def loss(batch):
        x, module, _ = batch
        slope = torch.autograd.grad(module(x).sum(), x, create_graph=True)[0]
        return (slope - 1).square().mean()

    batch = torch.rand(5, 1, dtype=torch.float64).requires_grad_(), net, Lazy()
    losses = []
    for replay in (None, 10):
        meta = leapwarp.WarpGrad(net, loss, warp="2", inner=0.1, replay=replay)
        in_task(
            meta,
            lambda task, inner: (task.backward(loss(batch), batch, batch), inner.step(), task.finish(loss(batch))),
        )
        losses.append(next(iter(meta.replay())) if replay else meta.backward()["warp_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_a_copy_from_the_middle_of_a_replay_can_be_used_and_a_state_is_not_loaded_there():
    _, _, tasks = small_warped(draws=3 * STEPS + 1)
    net = SmallWarped().double()
    meta = warp_of(net, replay=50)
    follow_warp(meta, loss_of(net), tasks)
    state = copy.deepcopy(meta.state_dict())
    turns = meta.replay()
    next(turns)
    made = copy.deepcopy(meta)
    with pytest.raises(RuntimeError, match="a replay goes on"):
        meta.load_state_dict(state)
    turns.close()
    made.discard()
    assert not made.state_dict()["points"]


def test_warps_that_are_written_after_the_end_of_the_path_are_noticed():
    net = SmallWarped().double()

    def train(task, inner):
        task.backward(loss_at(net), batch_of(small_warped()[2], 0, 1))
        inner.step()
        task.finish(loss_at(net, 1))
        net.warp[0].weight.data.clamp_(-0.01, 0.01)

    with pytest.raises(ValueError, match="warp.0.weight: warps that have moved inside the task"):
        in_task(warp_of(net), train)
    assert net.warp[0].weight.abs().max() > 0.01


WAYS = {"order 0": {"order": 0}, "order 1": {"order": 1}, "order 2": {}, "replay": {"replay": 9}}


def beside(kind):
    """A body in WarpGrad, with a head beside it, and a loss of both."""
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 5)), nn.Linear(5, 3)
    loss = lambda batch: nn.functional.cross_entropy(head(body(batch[0])), batch[1])  # noqa: E731
    return body, head, loss, leapwarp.WarpGrad(body, loss, warp="2", inner=0.1, **WAYS[kind])


def batches(n=3):
    stream = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 4, generator=stream), torch.arange(8) % 3) for _ in range(n)]


def took(task, loss, kind, meta_batch, task_batch):
    task.backward(loss, meta_batch, **({"task_batch": task_batch} if kind == "replay" else {}))


@pytest.mark.parametrize("kind", WAYS)
def test_backward_sets_the_gradients_that_a_plain_backward_sets(kind):
    body, head, loss, meta = beside(kind)
    x, y = batches()[0]
    x.requires_grad_()
    leaves = [body[0].weight, head.weight, head.bias, x]
    head.bias.grad = torch.ones(3)
    expected = torch.autograd.grad(loss((x, y)), leaves)
    with meta.task() as task:
        took(task, loss((x, y)), kind, *batches()[1:])
        for leaf, grad, older in zip(leaves, expected, (0, 0, 1, 0), strict=True):
            torch.testing.assert_close(leaf.grad - older, grad)
        assert all(leaf.grad is None for leaf in meta.warp_parameters())
        torch.optim.SGD(meta.task_parameters(), 0.1).step()
        task.finish(loss(batches()[2]))


@pytest.mark.filterwarnings("ignore:at 1 of 2 steps")
@pytest.mark.parametrize("kind", WAYS)
def test_hooks_run_in_backward_as_in_any_loop(kind):
    """A hook of the gradient doubles it, and one that runs afterwards then adds 1."""
    body, _, loss, meta = beside(kind)
    weight = body[0].weight
    (plain_one,) = torch.autograd.grad(loss(batches()[0]), [weight])
    weight.register_hook(lambda grad: 2 * grad)
    weight.register_post_accumulate_grad_hook(lambda leaf: setattr(leaf, "grad", leaf.grad + 1))
    with meta.task() as task:
        for times in (1, 2):  # the second time it is added to the first, since nothing is cleared
            took(task, loss(batches()[0]), kind, *batches()[1:])
            torch.testing.assert_close(weight.grad, times * (2 * plain_one + 1))
        torch.optim.SGD(meta.task_parameters(), 0.1).step()
        task.finish(loss(batches()[2]))


@pytest.mark.parametrize("kind", ["order 1", "order 2"])
@pytest.mark.parametrize("in_eval", [False, True])
def test_a_second_loss_of_the_same_step_has_its_own_backward(kind, in_eval):
    body, head, loss, meta = beside(kind)
    body[1].train(not in_eval)
    with meta.task() as task:
        first, second = loss(batches()[0]), body(batches()[1][0]).square().mean()
        took(task, first, kind, *batches()[1:])
        before, stats = body[0].weight.grad.clone(), body[1].running_mean.clone()
        (expected,) = torch.autograd.grad(second, [body[0].weight], retain_graph=True)
        second.backward()
        torch.testing.assert_close(body[0].weight.grad, before + expected)
        assert torch.equal(body[1].running_mean, stats)
        torch.optim.SGD([*meta.task_parameters(), *head.parameters()], 0.1).step()
        task.finish(loss(batches()[2]))


def test_a_point_of_the_replay_is_seen_in_the_modes_that_it_was_kept_in():
    def seen(first, then, old=False):
        body, _, loss, meta = beside("replay")
        body.train(first)
        with meta.task() as task:
            took(task, loss(batches()[0]), "replay", *batches()[1:])
            torch.optim.SGD(meta.task_parameters(), 0.1).step()
            task.finish(loss(batches()[2]))
        body.train(then)
        state = io.BytesIO()
        torch.save(meta.state_dict(), state)
        state.seek(0)
        loaded = torch.load(state)
        for point in loaded["points"] if old else ():
            del point["in_eval"]  # as version 1.0.0 had it
        meta.load_state_dict(loaded)
        turns = meta.replay()
        value, grad = next(turns), meta.warp_parameters()[0].grad.clone()
        turns.close()
        assert [part.training for part in body.modules()] == [then] * 4
        return value, grad

    (alike, grad), (found, other) = seen(True, True), seen(True, False)
    assert found == alike
    torch.testing.assert_close(other, grad, rtol=0, atol=0)
    assert seen(False, True)[0] == seen(False, False)[0] != alike
    assert seen(True, True, old=True)[0] == alike != seen(True, False, old=True)[0]
