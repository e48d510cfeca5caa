"""Trees, optimizers, the inner loop, and mapping over tasks."""

import gc

import pytest
import reference
import torch
from cases import (
    DOUBLE,
    image_tasks,
    quadratic,
    quadratic_tasks,
    random_quadratics,
    small_warped,
)
from hypothesis import given
from hypothesis import strategies as st

from leapwarp import optim, trees
from leapwarp.inner import Stop, adapt
from leapwarp.learners.leap import leap_fold
from leapwarp.models.convnet import convnet
from leapwarp.problem import lift, map_tasks, supervised


@given(st.lists(st.tuples(st.sampled_from(["task", "warp", "warped"]), st.integers(0, 9)), unique=True))
def test_partition_is_one_and_merging_inverts_it(names):
    tree = {f"{group}.{number}": torch.tensor(float(number)) for group, number in names}
    groups = [group for group, _ in names]
    if "warp" not in groups or set(groups) == {"warp"}:
        with pytest.raises(ValueError, match=r"needed parameters named warp\.\* and others"):
            trees.partition(tree, "warp")
        return
    inside, outside = trees.partition(tree, "warp")
    assert all(name.startswith("warp.") for name in inside) and not any(name.startswith("warp.") for name in outside)
    assert not inside.keys() & outside.keys() and inside | outside == tree


def test_trees_of_different_names_do_not_add():
    with pytest.raises(ValueError, match="differ in names: \\['b'\\]"):
        trees.subtract({"a": torch.zeros(1)}, {"a": torch.zeros(1), "b": torch.zeros(1)})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.sgd(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (optim.momentum_sgd(0.1, 0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (optim.adam(0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
        (optim.adam(0.3, 0.5, 0.9, 1e-3), lambda p: torch.optim.Adam(p, lr=0.3, betas=(0.5, 0.9), eps=1e-3)),
    ],
)
def test_optimizers_equal_torch_optim(ours, theirs):
    start = torch.randn(5, dtype=DOUBLE)
    param = start.clone().requires_grad_()
    other, tree, state = theirs([param]), {"w": start}, ours.init({"w": start})
    for step in range(20):
        grad = torch.sin(param.detach() + step)
        param.grad = grad.clone()
        other.step()
        tree, state = ours.update(tree, {"w": grad}, state)
    torch.testing.assert_close(tree["w"], param.detach(), rtol=1e-12, atol=1e-12)


def test_adapt_is_gradient_descent_on_a_quadratic():
    matrices, centres = random_quadratics(3, 4)
    problem, tasks = quadratic(matrices, centres), quadratic_tasks(3, 7)
    start = torch.randn(3, 4, dtype=DOUBLE)
    end = adapt(problem, optim.sgd(0.1), {"w": start}, {}, tasks, 7)
    shrink = torch.linalg.matrix_power(torch.eye(4, dtype=DOUBLE) - 0.1 * matrices, 7)
    expected = centres + (shrink @ (start - centres)[..., None])[..., 0]
    torch.testing.assert_close(end.params["w"], expected, rtol=1e-12, atol=1e-12)
    assert end.steps.tolist() == [7, 7, 7]


def test_a_fold_sees_every_segment_of_the_path():
    matrices, centres = random_quadratics(2, 3)
    problem, tasks = quadratic(matrices, centres), quadratic_tasks(2, 6)
    seen = []

    def fold(total, before, after):
        seen.append((before.number, after.number))
        return trees.map_tree(lambda t, a, b: t + b - a, total, before.params, after.params)

    start = {"w": torch.randn(2, 3, dtype=DOUBLE)}
    end = adapt(problem, optim.sgd(0.1), start, {}, tasks, 5, fold, trees.zeros_like(start))
    assert seen == [(k, k + 1) for k in range(5)]
    torch.testing.assert_close(end.total["w"], end.params["w"] - start["w"])


def test_adapt_refuses_too_few_draws():
    problem, tasks = quadratic(*random_quadratics(2, 3)), quadratic_tasks(2, 5)
    start = {"w": torch.zeros(2, 3, dtype=DOUBLE)}
    with pytest.raises(ValueError, match="5 steps need 6 draws a task .* there are 5"):
        adapt(problem, optim.sgd(0.1), start, {}, tasks, 5, leap_fold(), start)


def test_early_stopping_freezes_each_task_where_it_alone_would_stop():
    matrices, centres = random_quadratics(3, 4)
    problem, tasks = quadratic(matrices, centres), quadratic_tasks(3, 61)
    start = {"w": 3 + torch.zeros(3, 4, dtype=DOUBLE)}
    levels = torch.tensor([5.0, 0.5, -1.0], dtype=DOUBLE)  # the third task never reaches it

    def is_learnt(params, stats, tasks):
        batch = problem.draw(tasks, torch.arange(len(tasks.index)), torch.zeros_like(tasks.index))
        return problem.loss(params, stats, batch).loss < levels[tasks.index]

    stop = Stop(is_learnt, patience=3)
    fold, zero = leap_fold(), trees.zeros_like(start)
    together = adapt(problem, optim.sgd(0.1), start, {}, tasks, 60, fold, zero, stop)
    assert together.steps[0] < together.steps[1] < together.steps[2] == 60
    for t in range(3):
        alone_task = quadratic_tasks(3, 61)._replace(index=torch.tensor([t]), order=tasks.order[:1])
        steps = int(together.steps[t])
        one = {"w": start["w"][:1]}
        alone = adapt(problem, optim.sgd(0.1), one, {}, alone_task, steps, fold, trees.zeros_like(one))
        torch.testing.assert_close(together.params["w"][t], alone.params["w"][0])
        torch.testing.assert_close(together.total["w"][t], alone.total["w"][0])
        assert together.loss[t, :steps].isfinite().all() and together.loss[t, steps:].isnan().all()
        # the last three looks were good, the one before was not
        assert (together.loss[t, steps - 3] >= levels[t]) or steps == 60


def test_memory_of_leap_does_not_grow_with_steps():
    problem, params, tasks = small_warped(draws=60)
    live = []
    fold = leap_fold()

    def watched(total, before, after):
        total = fold(total, before, after)
        held = [after.loss, *after.params.values(), *after.grads.values(), *total.values()]
        assert not any(leaf.requires_grad for leaf in held)  # no graph is kept alive
        gc.collect()
        live.append(sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()))
        return total

    start = trees.repeat(params, 3)
    gc.freeze()  # existing objects need not be searched after each step
    try:
        adapt(problem, optim.sgd(0.1), start, {}, tasks, 50, watched, trees.zeros_like(start))
    finally:
        gc.unfreeze()
    assert max(live[10:]) <= max(live[2:10])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_mapping_loop_chunks_and_stack_are_equal(size):
    model = convnet(filters=4, classes=5)
    problem, tasks = supervised(model), image_tasks(5, 4)
    params = {n: p.double() for n, p in model.init(torch.Generator().manual_seed(0)).items()}

    def one(tasks, part):
        start = trees.repeat(params, len(tasks.index))
        return adapt(problem, optim.sgd(0.1), start, {}, tasks, 3, leap_fold(), trees.zeros_like(start))

    whole, mapped = one(tasks, slice(0, 5)), map_tasks(one, tasks, size)
    for tree in ("params", "stats", "total"):
        torch.testing.assert_close(getattr(whole, tree), getattr(mapped, tree), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(whole.loss, mapped.loss)


def test_a_lifted_module_under_vmap_equals_a_loop_and_the_stacked_network():
    """A lifted nn.Module with batch norm is compared with the network that has the task axis."""
    plain = reference.network(4, 5).double()
    lifted = lift(torch.nn.Sequential(torch.nn.Unflatten(1, (1, 28)), plain))
    model = convnet(filters=4, classes=5)
    single = {n: p.double() for n, p in model.init(torch.Generator().manual_seed(3)).items()}
    reference.load(plain, single)
    tasks, start = image_tasks(3, 5), lifted.init(torch.Generator())
    ours = adapt(supervised(model), optim.sgd(0.1), trees.repeat(single, 3), {}, tasks, 5)

    def one(tasks, part):
        return adapt(supervised(lifted), optim.sgd(0.1), trees.repeat(start, len(tasks.index)), {}, tasks, 5)

    stacked, looped = map_tasks(one, tasks, 3), map_tasks(one, tasks, 1)
    torch.testing.assert_close(stacked.params, looped.params, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(stacked.stats, looped.stats, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.loss, stacked.loss, rtol=1e-5, atol=1e-6)
    outputs = {m: m.apply(a.params, a.stats, tasks.x_test, False)[0] for m, a in ((model, ours), (lifted, stacked))}
    torch.testing.assert_close(outputs[model], outputs[lifted], rtol=1e-8, atol=1e-8)
    assert int(stacked.stats["1.2.num_batches_tracked"][0]) == 5  # buffers are the task's own
