"""Every meta-learner is compared with closed forms, finite differences, or a slow reference in float64."""

import io
from itertools import pairwise

import pytest
import reference
import torch
from cases import (
    DOUBLE,
    SmallWarped,
    image_tasks,
    modulated_world,
    of_one,
    quadratic,
    quadratic_tasks,
    random_quadratics,
    small_warped,
    stream_world,
    visited_world,
    warped_world,
)
from torch.func import functional_call

from leapwarp import learners, trees
from leapwarp.inner import Step, adapt
from leapwarp.learners import recurrent, warpgrad
from leapwarp.learners.base import gradient_learner
from leapwarp.learners.continual import after_step, continual_warp
from leapwarp.learners.leap import leap_fold
from leapwarp.learners.online import online_warp
from leapwarp.learners.visits import Training, Visit, leap_encoder, sequential
from leapwarp.learners.warpgrad import Rates
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import adam, cosine_sgd, momentum_sgd, rmsprop, sgd
from leapwarp.problem import Batch, join_tasks, lift, supervised
from leapwarp.worlds.alphabets import draw_heldout

STEPS, SUBTASKS = 6, 3
TRAINING = Training(0.1, patience=1000, every=1)
finetune, fomaml, leap, maml, metasgd = map(
    of_one, (learners.finetune, learners.fomaml, learners.leap, learners.maml, learners.metasgd)
)
reptile, scratch, tnets = map(of_one, (learners.reptile, learners.scratch, learners.tnets))
warp_leap, warp_leap_online, warp_maml = map(
    of_one, (learners.warp_leap, learners.warp_leap_online, learners.warp_maml)
)
BUILD = {
    "scratch": lambda problem, size: learners.scratch(),
    "finetune": lambda problem, size: learners.finetune(problem, sgd(0.1), STEPS, 3),
    "reptile": lambda problem, size: learners.reptile(problem, sgd(0.1), sgd(0.5), STEPS, size),
    "fomaml": lambda problem, size: learners.fomaml(problem, sgd(0.1), sgd(0.1), STEPS, size),
    "maml": lambda problem, size: learners.maml(problem, sgd(0.1), sgd(0.5), STEPS, size),
    "maml_first_order": lambda problem, size: learners.maml(problem, sgd(0.1), sgd(0.5), STEPS, size, order=1),
    "metasgd": lambda problem, size: learners.metasgd(problem, 0.1, sgd(0.5), STEPS, size),
    "tnets": lambda problem, size: learners.tnets(problem, sgd(0.1), sgd(0.5), STEPS, size),
    "warp_maml": lambda problem, size: learners.warp_maml(problem, sgd(0.1), sgd(0.5), sgd(0.02), STEPS, size),
    "leap": lambda problem, size: learners.leap(problem, sgd(0.1), sgd(0.1), STEPS, size),
    "warp_leap": lambda problem, size: learners.warp_leap(problem, sgd(0.1), sgd(0.1), STEPS, size),
    "warp_leap_rates": lambda problem, size: learners.warp_leap(
        problem, sgd(0.1), sgd(0.1), STEPS, size, rates=Rates(0.1, 0.5, outer_lr=0.1)
    ),
    "warp_leap_online": lambda problem, size: learners.warp_leap_online(
        problem, sgd(0.1), sgd(0.1), sgd(0.01), STEPS, size
    ),
    "cavia": lambda problem, size: learners.cavia(problem, sgd(0.1), sgd(0.5), STEPS, size),
    "online_warp": lambda problem, size: online_warp(problem, sgd(0.1), sgd(0.1), STEPS, where_tasks_begin),
    "continual_warp": lambda problem, size: continual_warp(
        problem, sgd(0.1), sgd(1.0), SUBTASKS, STEPS // SUBTASKS, after_step(problem, sgd(0.1))
    ),
    "recurrent_stream": lambda gradient, size: recurrent.stream(gradient, sgd(0.1), sgd(0.1), 4, lambda grads: grads),
    "leap_encoder": lambda about, size: leap_encoder(about.problem, about.sharing, TRAINING, adam(0.01), visits(about)),
    "finetune_encoder": lambda about, size: in_turn(about),
    "hat": lambda about, size: in_turn(about),
    "progressive": lambda about, size: in_turn(about, shares=False),
}
WORLDS = {  # learners that do not use the warped network
    "cavia": lambda: modulated_world(STEPS),
    "online_warp": lambda: warped_world(STEPS, group="warp"),
    "recurrent_stream": stream_world,
    "leap_encoder": lambda: visited_world("encoder", STEPS, meta_steps=40),
    "finetune_encoder": lambda: visited_world("encoder", STEPS),
    "hat": lambda: visited_world("hat", STEPS),
    "progressive": lambda: visited_world("progressive", STEPS),
}
IN_TURN = {"leap_encoder", "finetune_encoder", "hat", "progressive"}  # one run at a time
WHOLE = {*WORLDS, "continual_warp"} - {"cavia"}  # they take a meta-batch whole, or its tasks one by one


OWN = {"x", "y", "batches"}  # the parts of a meta-batch in which runs must differ


def rolled(part, i):
    """A meta-batch with the data of each task or batch in another order."""
    return part.roll(i, 1) if isinstance(part, torch.Tensor) else [part[(k + i) % len(part)] for k in range(len(part))]


def world_of(name):
    return WORLDS[name]() if name in WORLDS else warped_world(STEPS)


def where_tasks_begin(warp, tasks):
    _, params, _ = small_warped()
    return trees.repeat({name: leaf for name, leaf in params.items() if not name.startswith("warp")}, len(tasks.index))


def visits(about):
    return [Visit(STEPS, 3, 5, lambda params, stats: torch.tensor(0.5)) for _ in about.owned]


def in_turn(about, shares=True):
    return sequential(about.problem, about.sharing, TRAINING, visits(about), about.owned, shares)


def warp_gradient(problem, inner, theta, warp, task_batch, meta_batch, rates=None, **options):
    """The warp gradient of one run, without the run axis."""
    stacked = trees.alone(warp), task_batch, meta_batch
    options["rates"] = rates and trees.alone(rates)
    loss, grads = warpgrad.warp_gradient(problem, inner, theta, *stacked, **options)
    return loss, trees.pick(grads, 0)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def unit_step(learner, params, tasks):
    """The meta-gradient of a learner whose outer optimizer is sgd(1)."""
    state = learner.init(params)
    after, _ = learner.step(state, tasks, stream())
    return trees.subtract(state["params"], after["params"])


# ---------------------------------------------------------------- what holds for all of them


@pytest.mark.parametrize("name", sorted(BUILD.keys() - WHOLE))
@pytest.mark.parametrize("size", [1, 2])
def test_how_many_tasks_are_adapted_at_a_time_changes_nothing(name, size):
    world, end = world_of(name), {}
    for at_a_time in (size, 3):
        learner = of_one(BUILD[name])(world.problem, at_a_time)
        state = learner.init(world.params)
        for step in range(3):
            state, _ = learner.step(state, world.tasks, stream(step))
        end[at_a_time] = trees.leaves(state)
    torch.testing.assert_close(end[size], end[3], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(BUILD.keys() - IN_TURN))
@pytest.mark.parametrize("size", [2, 9])
def test_each_run_of_a_stack_learns_as_alone(name, size):
    """This holds up to rounding, for any other runs and for any order of the runs."""
    world = world_of(name)
    starts = [trees.map_tree(lambda leaf, i=i: leaf * (1 + 0.2 * i), world.params) for i in range(3)]
    fields = {key: part for key, part in world.tasks._asdict().items() if part is not None}
    of_run = [
        world.tasks._replace(**{key: rolled(part, i) if key in OWN else part for key, part in fields.items()})
        for i in range(3)
    ]

    def trained(runs):
        learner = BUILD[name](world.problem, size)
        state, infos = learner.init(trees.stack([starts[i] for i in runs])), []
        mine = join_tasks([of_run[i] for i in runs])
        for k in range(3):
            state, info = learner.step(state, mine, [stream(10 * i + k) for i in runs])
            infos.append({key: value.unflatten(0, (len(runs), -1)) for key, value in info.items()})
        begin, fixed = learner.start(state, mine)
        begin = {key: leaf.unflatten(0, (len(runs), -1)) for key, leaf in (begin | fixed).items()}
        return state, infos, begin

    together = trained([2, 0, 1])
    for row, i in enumerate((2, 0, 1)):
        for found, alone in zip(together, trained([i]), strict=True):
            pairs = zip(found, alone, strict=True) if isinstance(found, list) else [(found, alone)]
            for ours, theirs in pairs:
                mine = trees.leaves(trees.pick(ours, row))
                torch.testing.assert_close(mine, trees.leaves(trees.pick(theirs, 0)), rtol=1e-9, atol=1e-12)
    assert len({leaf.sum().item() for leaf in next(iter(trees.leaves(together[0]).values()))}) == 3


# First-order MAML drops what makes MAML's step a descent, and need not pass (nor does it here).
@pytest.mark.parametrize("name", sorted(BUILD.keys() - {"scratch", "fomaml"}))
def test_meta_training_lowers_the_loss_after_adaptation(name):
    world = world_of(name)
    learner = of_one(BUILD[name])(world.problem, 3)
    first = state = learner.init(world.params)
    for step in range(world.meta_steps):
        state, info = learner.step(state, world.tasks, stream(step))
    assert world.loss(learner, state) < 0.9 * world.loss(learner, first)
    assert info["loss"].shape == (len(world.tasks.index), STEPS) and info["loss"].isfinite().all()


@pytest.mark.parametrize("name", BUILD)
def test_a_step_depends_on_its_arguments_alone_and_leaves_them_as_they_are(name):
    """So a saved state continues as the original does."""
    world = world_of(name)
    learner = of_one(BUILD[name])(world.problem, 3)
    state, _ = learner.step(learner.init(world.params), world.tasks, stream(1))
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    after, _ = learner.step(state, world.tasks, stream(2))
    torch.testing.assert_close(trees.leaves(state), trees.leaves(saved), rtol=0, atol=0)
    again, _ = of_one(BUILD[name])(world.problem, 3).step(saved, world.tasks, stream(2))
    torch.testing.assert_close(trees.leaves(again), trees.leaves(after), rtol=0, atol=0)


def test_scratch_learns_nothing():
    _, params, tasks = small_warped()
    learner = scratch()
    state, _ = learner.step(learner.init(params), tasks, stream())
    start, fixed = learner.start(state, tasks)
    torch.testing.assert_close(start, trees.repeat(params, 3))
    assert not fixed


# ---------------------------------------------------------------- Leap


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize(("loss", "stabiliser"), [(False, False), (True, False), (True, True)])
def test_leap_equals_equation_8_written_slowly(length, loss, stabiliser):
    matrices, centres = random_quadratics(4, 5)
    matrices[0] *= 6  # so steep that the loss rises, which the stabiliser has to handle
    problem, tasks = quadratic(matrices, centres), quadratic_tasks(4, 9)
    start = torch.randn(5, dtype=DOUBLE)
    learner = leap(problem, sgd(0.3), sgd(1.0), 8, length=length, loss=loss, stabiliser=stabiliser)
    expected, rose = torch.zeros(5, dtype=DOUBLE), False
    for a, c in zip(matrices, centres, strict=True):

        def value(w, k, a=a, c=c):
            return 0.5 * (w - c) @ a @ (w - c), a @ (w - c)

        points = reference.path(start, value, 0.3, 8)
        rose |= any(q[1] > p[1] for p, q in pairwise(points))
        expected += reference.leap_gradient(points, length, loss, stabiliser) / 4
    assert rose
    torch.testing.assert_close(unit_step(learner, {"w": start}, tasks)["w"], expected, rtol=1e-10, atol=1e-12)


def test_the_simplest_leap_is_reptile_exactly():
    problem, params, tasks = small_warped()
    simplest = leap(problem, sgd(0.1), sgd(1.0), STEPS, length=False, loss=False, stabiliser=False)
    of_leap = unit_step(simplest, params, tasks)
    of_reptile = unit_step(reptile(problem, sgd(0.1), sgd(1.0), STEPS), params, tasks)
    torch.testing.assert_close(of_leap, of_reptile, rtol=0, atol=0)


def pull_forward(start, matrices, centres, rate, steps):
    """Leap's objective with exact Jacobians of theta_i and the end of each segment fixed (p = 1)."""
    total = 0.0
    for a, c in zip(matrices, centres, strict=True):
        theta = start
        for _ in range(steps):
            after = theta - rate * (a @ (theta - c))
            f, f_after = (0.5 * (w - c) @ a @ (w - c) for w in (theta, after))
            far = torch.cat([after, f_after[None]]).detach()
            total = total + (far - torch.cat([theta, f[None]])).norm()
            theta = after
    return total / len(matrices)


def test_the_error_of_the_identity_jacobian_falls_at_first_order_in_the_step_size():
    matrices, centres = random_quadratics(3, 4)
    problem, tasks = quadratic(matrices, centres), quadratic_tasks(3, 6)
    start = torch.randn(4, dtype=DOUBLE, generator=stream(5))

    def error(rate):
        point = start.clone().requires_grad_()
        (exact,) = torch.autograd.grad(pull_forward(point, matrices, centres, rate, 5), point)
        ours = unit_step(leap(problem, sgd(rate), sgd(1.0), 5), {"w": start}, tasks)["w"]
        return (ours - exact).norm().item()

    ratios = [error(rate) / error(rate / 2) for rate in (2e-3, 1e-3)]
    assert all(1.9 < ratio < 2.1 for ratio in ratios), ratios


def test_a_segment_of_no_length_adds_nothing():
    still = {"w": torch.ones(2, 3, dtype=DOUBLE)}
    here = Step(0, still, trees.zeros_like(still), torch.ones(2, dtype=DOUBLE))
    for length in (True, False):
        total = leap_fold(length)(trees.zeros_like(still), here, here._replace(number=1))
        assert (total["w"] == 0).all()


# ---------------------------------------------------------------- Reptile and the MAMLs


def after_steps(matrices, centres, start, rate, steps):
    shrink = torch.linalg.matrix_power(torch.eye(len(start), dtype=DOUBLE) - rate * matrices, steps)
    return shrink, centres + (shrink @ (start - centres)[..., None])[..., 0]


@pytest.mark.parametrize("steps", [1, 5])
def test_closed_forms_on_quadratics(steps):
    matrices, centres = random_quadratics(3, 4)
    problem, tasks = quadratic(matrices, centres), quadratic_tasks(3, steps + 1)
    start = torch.randn(4, dtype=DOUBLE)
    shrink, end = after_steps(matrices, centres, start, 0.1, steps)
    slope = (matrices @ (end - centres)[..., None])[..., 0]
    expected = {
        reptile: start - end.mean(0),
        fomaml: slope.mean(0),
        maml: (shrink.mT @ slope[..., None])[..., 0].mean(0),
    }
    for build, gradient in expected.items():
        # the data of a quadratic are its number, so MAML's held-out data are the task itself
        ours = unit_step(build(problem, sgd(0.1), sgd(1.0), steps), {"w": start}, tasks._replace(x_test=tasks.y_test))
        torch.testing.assert_close(ours["w"], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("build", [leap, maml])
def test_what_is_learnt_is_finite_where_no_error_is_raised(build):
    """One step of a very large rate: the loss before it is finite, the loss after it is not."""
    problem, params, tasks = small_warped()
    learner = build(problem, sgd(1e300), sgd(1.0), 1)
    with pytest.raises(FloatingPointError, match="what was learnt is not finite after this step"):
        learner.step(learner.init(params), tasks, stream())


def test_maml_equals_finite_differences_through_all_updates():
    problem, params, tasks = small_warped()
    ours = unit_step(maml(problem, sgd(0.3), sgd(1.0), STEPS), params, tasks)

    def objective(params):
        adapted = adapt(problem, sgd(0.3), trees.repeat(params, 3), {}, tasks, STEPS)
        batch = Batch(tasks.x_test, tasks.y_test)
        return problem.loss(adapted.params, adapted.stats, batch).loss.mean().item()

    direction = {name: torch.randn_like(leaf) for name, leaf in params.items()}
    plus, minus = (objective(trees.add_scaled(params, scale, direction)) for scale in (1e-5, -1e-5))
    slope = sum((ours[name] * direction[name]).sum().item() for name in params)
    assert slope == pytest.approx((plus - minus) / 2e-5, rel=1e-6)
    first_order = unit_step(fomaml(problem, sgd(0.3), sgd(1.0), STEPS), params, tasks)
    assert not torch.allclose(ours["task.0.weight"], first_order["task.0.weight"], rtol=1e-2)


def test_held_out_data_of_different_sizes_is_refused_where_it_has_equal_parts():
    problem, params, tasks = small_warped()
    learner = of_one(lambda: BUILD["continual_warp"](problem, 3))()
    padded = tasks._replace(n_test=torch.tensor([9, 6, 9]))
    with pytest.raises(ValueError, match=r"the held-out sets have \[6, 9\] rows; needed the same number for all tasks"):
        learner.step(learner.init(params), padded, stream())


# ---------------------------------------------------------------- finetuning


def test_finetuning_equals_plain_training_with_a_head_for_each_task():
    problem, params, tasks = small_warped()
    keep = {n: p for n, p in params.items() if not n.startswith("warp")}

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.task = SmallWarped().double().task
            self.head = torch.nn.Linear(4, 3).double()

        def forward(self, x):
            for layer in self.task:
                x = torch.tanh(layer(x))
            return self.head(x)

    plain = Plain()
    problem = supervised(lift(plain))
    learner = finetune(problem, sgd(0.1), STEPS, n_tasks=3)
    state, _ = learner.step(learner.init(keep), tasks, stream(4))
    body = {n: p.clone().requires_grad_() for n, p in keep.items() if n.startswith("task")}
    heads = [{n: keep[n].clone().requires_grad_() for n in ("head.weight", "head.bias")} for _ in range(3)]
    descent = torch.optim.SGD([*body.values(), *(p for head in heads for p in head.values())], lr=0.1)
    for pair in torch.randperm(3 * STEPS, generator=stream(4)).tolist():
        t, k = divmod(pair, STEPS)
        rows = tasks.order[t, k]
        descent.zero_grad(set_to_none=True)  # the other heads must not move
        logits = functional_call(plain, body | heads[t], (tasks.x[t, rows],))
        torch.nn.functional.cross_entropy(logits, tasks.y[t, rows]).backward()
        descent.step()
    torch.testing.assert_close(state["body"], {n: p.detach() for n, p in body.items()})
    for t in range(3):
        torch.testing.assert_close(state["heads"]["head.weight"][t], heads[t]["head.weight"].detach())
    assert not torch.equal(state["heads"]["head.bias"][0], state["heads"]["head.bias"][1])
    start, _ = learner.start(state, tasks)
    torch.testing.assert_close(start["head.weight"][0], keep["head.weight"])  # a new task has a fresh head


def test_finetuning_trains_the_head_of_a_tasks_number_and_no_other():
    problem, params, tasks = small_warped()
    learner = finetune(problem, sgd(0.1), STEPS, n_tasks=7)
    some = tasks._replace(index=torch.tensor([6, 0, 3]))
    before = learner.init(params)
    state, _ = learner.step(before, some, stream())
    assert (state["heads"]["head.bias"] != before["heads"]["head.bias"]).any(1).nonzero().flatten().tolist() == [
        0,
        3,
        6,
    ]
    same, _ = learner.step(before, tasks, stream())  # with other numbers, the same three heads elsewhere
    torch.testing.assert_close(state["heads"]["head.bias"][[6, 0, 3]], same["heads"]["head.bias"][:3], rtol=0, atol=0)
    few = finetune(problem, sgd(0.1), STEPS, n_tasks=3)
    with pytest.raises(ValueError, match="a task has the index 6, and finetune has heads for 3 tasks, 0 to 2; needed"):
        few.step(few.init(params), some, stream())


@pytest.mark.parametrize("optimizer", [momentum_sgd(0.1, 0.9), adam(0.1), cosine_sgd(0.1, 9), rmsprop(0.1, 0.9, 1e-8)])
def test_finetuning_takes_no_optimizer_with_a_state(optimizer):
    problem, params, _ = small_warped()
    with pytest.raises(ValueError, match="the optimizer has a state, such as momentum; needed one without, leapwarp"):
        finetune(problem, optimizer, STEPS, n_tasks=3).init(params)


def test_finetuning_keeps_what_belongs_to_the_task_alone_as_it_keeps_heads():
    _, params, tasks = small_warped()
    renamed = lift(SmallWarped().double(), task_only="task.1")
    learner = finetune(supervised(renamed), sgd(0.1), STEPS, n_tasks=3)
    before = learner.init(renamed.init(stream()))
    name = "task_only.task.1.weight"
    state, _ = learner.step(before, tasks, stream())
    torch.testing.assert_close(learner.start(state, tasks)[0][name], params["task.1.weight"].repeat(3, 1, 1))
    assert name not in state["body"] and all((state["heads"][name][i] != before["head"][name]).any() for i in range(3))


# ---------------------------------------------------------------- WarpGrad


def warp_parts():
    problem, params, tasks = small_warped()
    warp = {n: p for n, p in params.items() if n.startswith("warp")}
    theta = {n: torch.stack([p, p + 0.1, p - 0.2]) for n, p in params.items() if n not in warp}
    task_batch, meta_batch = (problem.draw(tasks, torch.arange(3), torch.full((3,), k)) for k in (0, 1))
    return problem, theta, warp, task_batch, meta_batch


def equation_3(problem, theta, warp, task_batch, meta_batch, rate, first=None):
    """The objective of equation 3. The inner gradient uses the warps `first`, if they are given."""
    leaves = {n: p.detach().requires_grad_() for n, p in theta.items()}
    inner = problem.loss(leaves | trees.repeat(first or warp, 3), {}, task_batch).loss.sum()
    grads = torch.autograd.grad(inner, list(leaves.values()))
    stepped = {n: p.detach() - rate * g for (n, p), g in zip(leaves.items(), grads, strict=True)}
    return problem.loss(stepped | trees.repeat(warp, 3), {}, meta_batch).loss.sum().item()


def test_the_warp_gradient_is_that_of_equation_3_to_second_order():
    problem, theta, warp, task_batch, meta_batch = warp_parts()
    rate, step = 0.5, 1e-5
    _, ours = warp_gradient(problem, sgd(rate), theta, warp, task_batch, meta_batch)
    _, first_order = warp_gradient(problem, sgd(rate), theta, warp, task_batch, meta_batch, order=1)
    for name, leaf in warp.items():
        exact, detached = torch.zeros_like(leaf), torch.zeros_like(leaf)
        for i in range(leaf.numel()):
            bump = torch.zeros(leaf.numel(), dtype=DOUBLE)
            bump[i] = step
            ends = [warp | {name: leaf + sign * bump.view_as(leaf)} for sign in (1, -1)]
            for target, first in ((exact, None), (detached, warp)):
                values = [equation_3(problem, theta, end, task_batch, meta_batch, rate, first) for end in ends]
                target.view(-1)[i] = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(ours[name], exact, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(first_order[name], detached, rtol=1e-6, atol=1e-8)
        # The released code's "full" objective leaves out the path through the inner gradient: ours must not.
        assert not torch.allclose(ours[name], detached, rtol=1e-2)


def test_the_released_objective_is_the_one_to_first_order():
    """The released code differentiates the inner loss with `create_graph`. Then it calls `backward` on the parameters
    with that gradient, so the step has its values and not its graph."""
    problem, theta, warp, task_batch, meta_batch = warp_parts()
    leaves, phi = ({n: p.detach().clone().requires_grad_() for n, p in tree.items()} for tree in (theta, warp))
    inner = problem.loss(leaves | trees.repeat(phi, 3), {}, task_batch).loss.sum()
    grads = torch.autograd.grad(inner, list(leaves.values()), create_graph=True)
    for leaf, grad in zip(leaves.values(), grads, strict=True):
        leaf.backward(grad)
    stepped = {n: p.detach() - 0.5 * p.grad.detach() for n, p in leaves.items()}
    outer = problem.loss(stepped | trees.repeat(phi, 3), {}, meta_batch).loss.sum()
    expected = dict(zip(phi, torch.autograd.grad(outer, list(phi.values())), strict=True))
    _, ours = warp_gradient(problem, sgd(0.5), theta, warp, task_batch, meta_batch, order=1)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)


def test_without_the_step_the_objective_is_the_loss_where_the_task_stands():
    problem, theta, warp, task_batch, meta_batch = warp_parts()
    loss, ours = warp_gradient(problem, sgd(0.5), theta, warp, task_batch, meta_batch, order=0)
    phi = {n: p.detach().requires_grad_() for n, p in warp.items()}
    there = problem.loss(theta | trees.repeat(phi, 3), {}, meta_batch).loss
    torch.testing.assert_close(loss, there.detach())
    torch.testing.assert_close(ours, dict(zip(phi, torch.autograd.grad(there.sum(), list(phi.values())), strict=True)))


def test_learned_rates_have_the_gradients_of_equation_3_with_momentum():
    problem, theta, warp, task_batch, meta_batch = warp_parts()
    velocity = {n: torch.randn(p.shape, dtype=DOUBLE, generator=stream(7)) for n, p in theta.items()}
    rates = {"learning_rate": torch.tensor(0.3, dtype=DOUBLE), "momentum": torch.tensor(0.6, dtype=DOUBLE)}

    def value(rates, warp):
        leaves = {n: p.detach().requires_grad_() for n, p in theta.items()}
        inner = problem.loss(leaves | trees.repeat(warp, 3), {}, task_batch).loss.sum()
        grads = dict(zip(leaves, torch.autograd.grad(inner, list(leaves.values())), strict=True))
        stepped = {n: theta[n] - rates["learning_rate"] * (rates["momentum"] * velocity[n] + grads[n]) for n in theta}
        return problem.loss(stepped | trees.repeat(warp, 3), {}, meta_batch).loss.sum().item()

    _, ours = warp_gradient(problem, sgd(9), theta, warp, task_batch, meta_batch, rates=rates, velocity=velocity)
    for name in rates:
        plus, minus = (value(rates | {name: rates[name] + bump}, warp) for bump in (1e-5, -1e-5))
        assert ours[name].item() == pytest.approx((plus - minus) / 2e-5, rel=1e-6)
    direction = {n: torch.randn(p.shape, dtype=DOUBLE, generator=stream(8)) for n, p in warp.items()}
    plus, minus = (value(rates, trees.add_scaled(warp, bump, direction)) for bump in (1e-5, -1e-5))
    slope = sum((ours[n] * direction[n]).sum().item() for n in warp)
    assert slope == pytest.approx((plus - minus) / 2e-5, rel=1e-6)


def test_learned_rates_replay_the_momentum_of_each_point(monkeypatch):
    """The objective uses the momentum from the buffer, which the optimizer had at that point."""
    problem, params, tasks = small_warped()
    rates = Rates(0.2, 0.7, outer_lr=0.5, clip=1e-3)
    learner = warp_leap(problem, sgd(9), sgd(0.1), 4, eta=100, rates=rates)
    seen, original = {}, warpgrad.warp_gradient

    def spy(problem, inner, theta, warp, task_batch, meta_batch, order, learnt, velocity, **options):
        seen.update(theta=theta, velocity=velocity)
        return original(problem, inner, theta, warp, task_batch, meta_batch, order, learnt, velocity, **options)

    monkeypatch.setattr("leapwarp.learners.warpgrad.warp_gradient", spy)
    state = learner.init(params)
    after, _ = learner.step(state, tasks, stream(3))
    for i, point in enumerate(torch.randperm(12, generator=stream(3)).tolist()):
        t, k = divmod(point, 4)
        start, fixed = learner.start(state, tasks)
        velocity, theta = trees.zeros_like(start), start
        for j in range(k):
            leaves = {n: p.detach().requires_grad_() for n, p in theta.items()}
            batch = problem.draw(tasks, torch.arange(3), torch.full((3,), j))
            value = problem.loss(leaves | fixed, {}, batch).loss.sum()
            grads = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))
            velocity = {n: 0.7 * velocity[n] + grads[n] for n in grads}
            theta = {n: theta[n] - 0.2 * velocity[n] for n in theta}
        for name in theta:
            torch.testing.assert_close(seen["theta"][name][i], theta[name][t].detach(), rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(seen["velocity"][name][i], velocity[name][t], rtol=1e-9, atol=1e-12)
    for name, first in (("learning_rate", 0.2), ("momentum", 0.7)):  # one update, clipped
        assert abs(after["rates"][name].item() - first) == pytest.approx(0.5 * 1e-3)
    leaf = torch.ones(2, dtype=DOUBLE)
    moved, _ = learner.optimizer(after).update({"w": leaf}, {"w": leaf}, {"w": leaf})
    expected = leaf - after["rates"]["learning_rate"] * (after["rates"]["momentum"] + 1)
    torch.testing.assert_close(moved["w"], expected)


@pytest.mark.parametrize("held_out", [False, True])
def test_online_is_one_step_along_the_sum_over_all_points(held_out):
    """Algorithm 1 must agree with Algorithm 2 if that has the same points, all in one update."""
    problem, params, tasks = small_warped()
    if held_out:  # L_meta on other data, as in the test above
        tasks = tasks._replace(x_test=tasks.x.flip(1), y_test=tasks.y.flip(1))
        problem = problem._replace(draw_meta=draw_heldout)
    online = warp_leap_online(problem, sgd(0.2), sgd(0.3), sgd(0.01), 5)
    offline = warp_leap(problem, sgd(0.2), sgd(0.3), 5, eta=10_000)
    ours, info = online.step(online.init(params), tasks, stream(9))
    theirs, replayed = offline.step(offline.init(params), tasks, stream(9))
    torch.testing.assert_close(ours["params"], theirs["params"], rtol=1e-10, atol=1e-12)
    for name, leaf in ours["warp"].items():
        change = (params[name] - theirs["warp"][name]) / 0.3
        torch.testing.assert_close(params[name] - leaf, 0.01 * change, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(info["replay_loss"].sort().values, replayed["replay_loss"].sort().values)


def test_task_embeddings_are_adapted_and_begin_at_zero_for_ever():
    warp = Warp(layers=2, norm=True, relu=True, residual=True, film=True)
    model = convnet(2, 5, warp=warp)
    problem, tasks = supervised(model), image_tasks(2, 10)
    learner = warp_leap(problem, sgd(0.1), sgd(0.1), 3)
    params = {n: p.double() for n, p in model.init(stream()).items()}
    state, _ = learner.step(learner.init(params), tasks, stream())
    embedding = {n: p for n, p in state["params"].items() if n.startswith("embedding")}
    assert len(embedding) == 8 and all((leaf == 0).all() for leaf in embedding.values())
    assert not torch.equal(state["params"]["task.0.conv.weight"], params["task.0.conv.weight"])
    start, fixed = learner.start(state, tasks)
    adapted = adapt(problem, sgd(0.1), start, fixed, tasks, 3)
    assert all(adapted.params[name].abs().max() > 0 for name in embedding)
    assert not [name for name in fixed if name.startswith("embedding")]


def test_identity_warps_make_plain_gradient_descent():
    problem, params, tasks = small_warped()
    eye = {
        n: torch.eye(4, dtype=DOUBLE) if n.endswith("weight") else torch.zeros(4, dtype=DOUBLE)
        for n in params
        if n.startswith("warp")
    }
    theta = {n: p for n, p in params.items() if n not in eye}

    class Unwarped(SmallWarped):
        def forward(self, x):
            for task in self.task:
                x = torch.tanh(task(x))
            return self.head(x)

    plain = supervised(lift(Unwarped().double()))
    warped = adapt(problem, sgd(0.1), trees.repeat(theta, 3), trees.repeat(eye, 3), tasks, 10)
    unwarped = adapt(plain, sgd(0.1), trees.repeat(theta, 3), trees.repeat(eye, 3), tasks, 10)
    torch.testing.assert_close(warped.params, unwarped.params, rtol=1e-12, atol=1e-12)


def test_a_linear_warp_on_a_quadratic_is_the_preconditioner_that_it_implies():
    """With gamma = W theta, descent in theta moves gamma by W W' grad f(gamma) (WarpGrad equation 5)."""
    matrices, centres = random_quadratics(2, 3)
    plain, tasks = quadratic(matrices, centres), quadratic_tasks(2, 5)
    w = torch.randn(3, 3, dtype=DOUBLE)

    def loss(params, stats, batch):
        return plain.loss({"w": torch.einsum("tij,tj->ti", params["warp.w"], params["theta"])}, stats, batch)

    problem = plain._replace(loss=loss)
    theta = torch.randn(2, 3, dtype=DOUBLE)
    ended = adapt(problem, sgd(0.05), {"theta": theta}, {"warp.w": trees.repeat({"w": w}, 2)["w"]}, tasks, 5)
    gamma = theta @ w.T
    for _ in range(5):
        slope = torch.einsum("tij,tj->ti", matrices, gamma - centres)
        gamma = gamma - 0.05 * slope @ (w @ w.T)
    torch.testing.assert_close(ended.params["theta"] @ w.T, gamma, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("eta", "points", "held_out", "released"),
    [
        (1, None, False, False),
        (4, None, False, False),
        (4, 10, False, False),
        (100, None, False, False),
        (4, 10, True, False),
        (1, None, False, True),
    ],
)
def test_warp_leap_equals_algorithm_2_written_out(eta, points, held_out, released):
    problem, params, tasks = small_warped()
    if held_out:  # L_meta on other data, which here are the tasks in another order
        tasks = tasks._replace(x_test=tasks.x.flip(1), y_test=tasks.y.flip(1))
        problem = problem._replace(draw_meta=draw_heldout)
    rate, outer, steps = 0.2, 0.3, 5
    path = None
    if released:  # the path of the parameters alone, without its last segment
        alone = leap_fold(loss=False)
        path = lambda total, *ends: total if ends[0].number == steps - 1 else alone(total, *ends)  # noqa: E731
    learner = warp_leap(problem, sgd(rate), sgd(outer), steps, eta=eta, points=points, scale=0.7, path=path)
    state, info = learner.step(learner.init(params), tasks, stream(9))

    module = SmallWarped().double()
    warp = {n: p.clone() for n, p in params.items() if n.startswith("warp")}
    theta0 = {n: p.clone() for n, p in params.items() if n not in warp}

    def loss(theta, warp, t, draw, x=tasks.x, y=tasks.y):
        rows = tasks.order[t, draw]
        return torch.nn.functional.cross_entropy(functional_call(module, theta | warp, (x[t, rows],)), y[t, rows])

    meta_data = (tasks.x_test, tasks.y_test) if held_out else (tasks.x, tasks.y)
    buffer, leap_total = {}, {n: torch.zeros_like(p) for n, p in theta0.items()}
    for t in range(3):
        theta, before = theta0, None
        for k in range(steps + 1):
            leaves = {n: p.detach().requires_grad_() for n, p in theta.items()}
            value = loss(leaves, warp, t, k)
            grads = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))
            if before and not (released and k == steps):
                d_f = 0.0 if released else -abs(value.item() - before[1])
                d = {n: theta[n] - before[0][n] for n in theta}
                norm = (sum((leaf**2).sum().item() for leaf in d.values()) + d_f**2) ** 0.5
                for n in theta:
                    leap_total[n] -= (d[n] + d_f * before[2][n]) / norm / 3
            before = (theta, value.item(), grads)
            buffer[t, k] = theta
            theta = {n: p - rate * grads[n] for n, p in theta.items()}
    total, since = {n: torch.zeros_like(p) for n, p in warp.items()}, 0
    order = torch.randperm(3 * steps, generator=stream(9))[: points or 3 * steps].tolist()
    for i, point in enumerate(order):
        t, k = divmod(point, steps)
        phi = {n: p.detach().requires_grad_() for n, p in warp.items()}
        theta = {n: p.detach().requires_grad_() for n, p in buffer[t, k].items()}
        grads = torch.autograd.grad(loss(theta, phi, t, steps + 1 + 2 * k), list(theta.values()), create_graph=True)
        stepped = {n: p - rate * g for (n, p), g in zip(theta.items(), grads, strict=True)}
        meta = loss(stepped, phi, t, steps + 2 + 2 * k, *meta_data)
        for n, g in zip(phi, torch.autograd.grad(meta, list(phi.values())), strict=True):
            total[n] += g
        since += 1
        if since == eta or i == len(order) - 1:
            warp = {n: (p - outer * total[n]).detach() for n, p in warp.items()}
            total, since = {n: torch.zeros_like(p) for n, p in warp.items()}, 0
    torch.testing.assert_close(state["warp"], warp, rtol=1e-9, atol=1e-11)
    expected = {n: p - outer * 0.7 * leap_total[n] for n, p in theta0.items()}
    torch.testing.assert_close(state["params"], expected, rtol=1e-9, atol=1e-11)
    assert info["replay_loss"].shape == (len(order),)
    start, fixed = learner.start(state, tasks)
    assert set(fixed) == set(warp) and set(start) == set(theta0)


def test_a_meta_gradient_that_mixes_the_runs_is_refused():
    _, params, tasks = small_warped()
    learner = gradient_learner(
        lambda params, tasks: ({n: leaf.mean(0, keepdim=True) for n, leaf in params.items()}, {}), sgd(0.1), STEPS
    )
    state = learner.init(trees.repeat(params, 2))
    with pytest.raises(ValueError, match=r"has shape \[1, .*; needed \[2, .*a mean over all tasks mixes the runs"):
        learner.step(state, join_tasks([tasks, tasks]), [stream(0), stream(1)])


def test_warp_leap_refuses_a_network_without_warps():
    problem, params, _ = small_warped()
    learner = warp_leap(problem, sgd(0.1), sgd(0.1), STEPS)
    with pytest.raises(ValueError, match="needed parameters named warp.* found 0 and"):
        learner.init({n: p for n, p in params.items() if not n.startswith("warp")})
