"""Continual sine regression: tasks, network, the meta-objective of equations 14 and 18, and measures."""

import math
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import pytest
import torch
from calls import REPO
from cases import DOUBLE, of_one
from torch import nn

from leapwarp import plan, trees
from leapwarp.experiments.base import SIMULATED, Run
from leapwarp.experiments.settings import of_size
from leapwarp.experiments.sine import report as experiment_report
from leapwarp.experiments.sine import run as experiment
from leapwarp.inner import adapt
from leapwarp.learners.continual import after_step, at_point, continual_warp, weights
from leapwarp.models.warped_mlp import warped_mlp
from leapwarp.optim import sgd
from leapwarp.problem import Batch, mean_square, supervised
from leapwarp.trees import leaves
from leapwarp.worlds import sine

SUBTASKS, STEPS, RATE = 5, 3, 0.05


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- the world


def test_functions_are_mixtures_of_two_sines():
    x = torch.linspace(-5, 5, 11, dtype=DOUBLE)
    drawn = sine.draw(2, stream()).double()
    for function, values in zip(drawn.tolist(), sine.value(drawn, x.expand(2, -1)), strict=True):
        a1, b1, a2, b2, o = function
        for at, value in zip(x.tolist(), values.tolist(), strict=True):
            share = 1 / (1 + math.exp(-(at + o)))
            assert value == pytest.approx(share * a1 * math.sin(at - b1) + (1 - share) * a2 * math.sin(at - b2))


def test_parts_of_functions_are_drawn_from_their_ranges():
    drawn = sine.draw(5000, stream())
    for column, (low, high) in enumerate([(0.1, 5), (0, math.pi), (0.1, 5), (0, math.pi), (-5, 5)]):
        part, span = drawn[:, column], high - low
        assert low <= part.min() < low + 0.01 * span and high - 0.01 * span < part.max() <= high
        assert part.mean().item() == pytest.approx((low + high) / 2, abs=0.02 * span)


@pytest.mark.parametrize("order", list(experiment.ORDERS.values()))
def test_a_subtask_sees_its_interval_alone(order):
    tasks = sine.tasks(sine.draw(7, stream()), stream(1), 5, STEPS, order, n_validation=4)
    assert tasks.order.shape == (7, SUBTASKS * STEPS, 5)
    for k in range(SUBTASKS * STEPS):
        low, high = sine.interval(order[k // STEPS])
        x = torch.stack([tasks.x[i, tasks.order[i, k]] for i in range(7)])
        assert high - low == 2 and (low <= x).all() and (x < high).all()
    held = tasks.x_test.unflatten(1, (SUBTASKS, 4))
    for i in range(SUBTASKS):
        assert (sine.interval(i)[0] <= held[:, i]).all() and (held[:, i] < sine.interval(i)[1]).all()
    assert len(tasks.x.unique()) == tasks.x.numel()  # online: every point is new
    torch.testing.assert_close(tasks.y[..., 0], sine.value(sine.draw(7, stream()), tasks.x[..., 0]))


def test_replay_draws_from_the_past_alone_and_multitask_batches_hold_every_subtask():
    function = sine.draw(200, stream())
    replayed = sine.tasks(function, stream(1), 5, STEPS, [0, 1, 2, 3, 4], 4, replay=5).order
    for k in range(1, SUBTASKS * STEPS):
        assert (replayed[:, k, :5] == torch.arange(5 * k, 5 * k + 5)).all()
        old = replayed[:, k, 5:]
        assert old.min() == 0 and old.max() == 5 * k - 1
    assert (replayed[:, 0] < 5).all()
    tasks = sine.tasks(function, stream(1), 5, STEPS, [0, 1, 2, 3, 4], 4, every=True)
    x = tasks.x[torch.arange(200)[:, None], tasks.order[:, 4], 0]
    counts = torch.stack([((x >= low) & (x < high)).sum(1) for low, high in map(sine.interval, range(5))])
    assert (counts == 5).all()


# ---------------------------------------------------------------- the network


class Plain(nn.Module):
    """The network from PyTorch's own layers."""

    def __init__(self, hidden, warp_hidden, params):
        super().__init__()
        widths = [1, hidden, hidden, hidden, 1]
        self.task = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(widths)])
        block = lambda: nn.Sequential(nn.Linear(hidden, warp_hidden), nn.Tanh(), nn.Linear(warp_hidden, hidden))  # noqa: E731
        self.warp = nn.ModuleList([block() for _ in range(3)])
        self.load_state_dict({name: params[rename(name)] for name in self.state_dict()})

    def forward(self, x):
        for layer, block in zip(self.task[:-1], self.warp, strict=True):
            h = torch.relu(layer(x))
            x = h + block(h)
        return self.task[-1](x)


def rename(name):
    """warp.0.2.weight -> warp.0.1.weight: the second linear layer of a block, counted without the tanh."""
    parts = name.split(".")
    return ".".join([*parts[:2], "1", parts[3]]) if parts[0] == "warp" and parts[2] == "2" else name


def small(n_tasks=3, seed=0):
    """-> problem, parameters of one task, tasks, in float64"""
    model = warped_mlp(hidden=6, warp_hidden=4)
    params = {name: leaf.double() for name, leaf in model.init(stream(seed)).items()}
    tasks = sine.tasks(sine.draw(n_tasks, stream(1)), stream(2), 4, STEPS, [0, 1, 2, 3, 4], n_validation=3)
    tasks = tasks._replace(**{name: getattr(tasks, name).double() for name in ("x", "y", "x_test", "y_test")})
    return supervised(model, mean_square), params, tasks


def test_the_network_equals_plain_layers_and_a_batch_of_tasks_its_single_tasks():
    problem, params, tasks = small()
    stack = {name: torch.stack([leaf, leaf + 0.1, 0.5 * leaf]) for name, leaf in params.items()}
    model = warped_mlp(6, 4)
    outputs, _ = model.apply(stack, {}, tasks.x_test, True)
    for i in range(3):
        mine = {name: leaf[i] for name, leaf in stack.items()}
        torch.testing.assert_close(outputs[i], Plain(6, 4, mine).double()(tasks.x_test[i]))
    loss = problem.loss(stack, {}, Batch(tasks.x_test, tasks.y_test)).loss
    torch.testing.assert_close(loss, 0.5 * (outputs - tasks.y_test).square().mean((1, 2)))  # equation 17


def test_networks_with_and_without_warps_start_at_the_same_task_layers():
    with_warp, without = warped_mlp(6, 4).init(stream()), warped_mlp(6, 4, warp=False).init(stream())
    assert without == {name: pytest.approx(with_warp[name]) for name in without} and len(with_warp) > len(without)


def test_losses_after_a_step_without_its_gradient_equal_those_with_it():
    """Values and gradients equal those of the slow, general implementation."""
    problem, params, tasks = small()
    warp = {name: leaf for name, leaf in params.items() if name.startswith("warp")}
    theta = {name: torch.stack([leaf, leaf + 0.1, leaf - 0.2]) for name, leaf in params.items() if name not in warp}
    batch = problem.draw(tasks, torch.arange(3), torch.full((3,), 2))
    held_out = Batch(*(part.unflatten(1, (SUBTASKS, -1)) for part in (tasks.x_test, tasks.y_test)))
    results = []
    for losses in (after_step(problem, sgd(RATE)), experiment.fast_losses(RATE)):
        leaves = {name: leaf[None].clone().requires_grad_() for name, leaf in warp.items()}
        value = losses(theta, leaves, batch, held_out)
        counted = (value * torch.arange(1, 6)).sum()
        results.append((value.detach(), torch.autograd.grad(counted, list(leaves.values()))))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- the meta-objective


def test_weights_are_those_of_the_explanation_and_the_printed_ones_are_not():
    n = 20
    for printed, sums in (False, [1.0] * 5), (True, [1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5, *[None] * 3, 1.0]):
        table = weights(5, n, printed)
        for i, total in enumerate(sums):
            assert total is None or (n * table[:, i].sum()).item() == pytest.approx(total)
        assert (table.triu(1) == 0).all()
    for t in range(5):
        for i in range(t + 1):  # here from 0
            assert weights(5, n)[t, i].item() == pytest.approx(1 / (n * (5 - i)))
            assert weights(5, n, printed=True)[t, i].item() == pytest.approx(1 / (n * (5 - t)))


def objective(problem, warp, path, tasks, step, printed):
    """Equations 14 and 18 written out point by point, with the losses after a step from each point or at the point."""
    total = 0.0
    for tau in range(len(tasks.index)):
        held = [part[tau].view(SUBTASKS, -1, 1) for part in (tasks.x_test, tasks.y_test)]
        for k in range(SUBTASKS * STEPS):
            theta = {name: leaf[tau : tau + 1].clone().requires_grad_() for name, leaf in path[k].items()}
            full, t = trees.repeat(warp, 1), k // STEPS + 1
            if step:
                rows = tasks.order[tau, k]
                loss = problem.loss(
                    {**theta, **full}, {}, Batch(tasks.x[tau : tau + 1, rows], tasks.y[tau : tau + 1, rows])
                ).loss
                grads = torch.autograd.grad(loss.sum(), list(theta.values()))
                theta = {name: leaf - RATE * g for (name, leaf), g in zip(theta.items(), grads, strict=True)}
            for i in range(1, t + 1):
                batch = Batch(held[0][i - 1][None], held[1][i - 1][None])
                loss = problem.loss({**theta, **full}, {}, batch).loss.item()
                total += loss / (STEPS * (SUBTASKS - (t if printed else i) + 1)) / len(tasks.index)
    return total


@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize("step", [True, False])
def test_the_meta_gradient_equals_finite_differences_of_the_objective(step, printed):
    problem, params, tasks = small()
    losses = experiment.fast_losses(RATE) if step else at_point(problem)
    learner = of_one(continual_warp)(problem, sgd(RATE), sgd(1.0), SUBTASKS, STEPS, losses, printed)
    state = learner.init(params)
    after, info = learner.step(state, tasks, stream())
    ours = trees.subtract(state["warp"], after["warp"])
    theta, fixed = learner.start(state, tasks)
    path = []
    adapt(
        problem, sgd(RATE), theta, fixed, tasks, SUBTASKS * STEPS, observe=lambda k, params, stats: path.append(params)
    )
    torch.testing.assert_close(after["params"], state["params"], rtol=0, atol=0)  # the initialisation is not learnt
    value = objective(problem, state["warp"], path, tasks, step, printed)
    assert info["replay_loss"].sum().item() / 3 == pytest.approx(value, rel=1e-10)
    direction = {name: torch.randn(leaf.shape, dtype=DOUBLE, generator=stream(9)) for name, leaf in ours.items()}
    plus, minus = (
        objective(problem, trees.add_scaled(state["warp"], scale, direction), path, tasks, step, printed)
        for scale in (1e-5, -1e-5)
    )
    slope = sum((ours[name] * direction[name]).sum().item() for name in ours)
    assert slope == pytest.approx((plus - minus) / 2e-5, rel=1e-6)


def test_the_meta_gradient_of_many_tasks_is_the_mean_of_those_of_each():
    problem, params, tasks = small()
    learner = of_one(continual_warp)(problem, sgd(RATE), sgd(1.0), SUBTASKS, STEPS, experiment.fast_losses(RATE))
    state = learner.init(params)

    def update(tasks):
        return trees.subtract(state["warp"], learner.step(state, tasks, stream())[0]["warp"])

    fields = {name: part for name, part in tasks._asdict().items() if part is not None}
    each = [update(tasks._replace(**{name: part[i : i + 1] for name, part in fields.items()})) for i in range(3)]
    mean = trees.map_tree(lambda *leaves: torch.stack(leaves).mean(0), *each)
    torch.testing.assert_close(update(tasks), mean, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- runs


def a_run(method="warpgrad", **changes):
    """A run of the smallest size."""
    size = plan.read_size(REPO / "workflow/sizes/smoke.yaml", ["sine"])
    found = of_size(experiment.EXPERIMENT, size.entries["sine"], "smoke")[method]
    found = found._replace(settings=replace(found.settings, **changes))
    return Run(SIMULATED, found, method, 0, 0, torch.device("cpu"), None, {})


def test_training_does_not_read_the_settings_of_evaluation():
    changes = {"n_test": 7, "n_points": 3, "n_tuning": 2, "rates": (0.1,), "chosen_by": "learnt_loss", "every": True}
    changes |= {"replay": 2, "n_examples": 1, "lattice": 5}
    assert changes.keys() == experiment.EVALUATION
    one, other = (experiment.train([a_run(**values)])[0] for values in ({}, changes))
    assert all(
        torch.equal(*pair) for pair in zip(leaves(one.state).values(), leaves(other.state).values(), strict=True)
    )


def test_evaluation_learns_under_the_warps_that_were_trained():
    run = a_run()
    state = experiment.train([run])[0].state
    assert experiment.judge(run, state) != experiment.judge(run, None)  # from the same random initialisation
    assert experiment.judge(run, experiment.train([a_run(meta_steps=0)])[0].state) == experiment.judge(run, None)


def test_the_rate_is_the_one_with_the_least_loss_among_those_that_stay_finite():
    losses = {0.1: 2.0, 0.3: 1.0, 1.0: math.inf}
    settings = replace(experiment.PUBLISHED, rates=tuple(losses))

    def tuning(rate):
        return torch.full((1, 11, SUBTASKS), losses[rate])

    rate, records = experiment.choose_rate(settings, tuning)
    assert rate == 0.3
    assert records == [("rate 0.1", None, "sweep_loss", 2.0), ("rate 0.3", None, "sweep_loss", 1.0)]
    with pytest.raises(FloatingPointError, match=r"no rate of 1\.0 keeps losses finite"):
        experiment.choose_rate(replace(settings, rates=(1.0,)), tuning)


# ---------------------------------------------------------------- what is measured


def test_measures_of_a_hand_worked_curve():
    """Each sub-task has two steps. Its loss falls from e to 1 while it is learnt, doubles in the first half of the
    next sub-task, and is 1.5 from the end of that one on."""
    loss = torch.full((1, 11, 5), math.e, dtype=DOUBLE)
    for i in range(5):
        loss[0, 2 * i + 2 :, i] = 1.0
        loss[0, 2 * i + 3 :, i] = 2.0
        loss[0, 2 * i + 4 :, i] = 1.5
    for order in experiment.ORDERS.values():
        shuffled = torch.empty_like(loss)
        shuffled[:, :, order] = loss  # position in the order -> sub-task
        found = {name: value.item() for name, value in experiment.measures(shuffled, order).items()}
        pairs = 4 + 3 + 2 + 1
        assert found == pytest.approx(
            {
                "final_loss": (4 * 1.5 + 1) / 5,
                "learnt_loss": 1.0,
                # A loss is lowest right after its sub-task. The last but one can only be compared with its own end.
                "forgetting": 0.5,
                "transfer": -0.5,
                "log_gain": 1.0,
                "log_forgetting": math.log(1.5),
                "log_spike": 4 * math.log(2) / pairs,  # one switch of each but the last; later the loss stays
                "log_recovery": 4 * math.log(2 / 1.5) / pairs,
            }
        )


@pytest.mark.parametrize("suffix", experiment_report.ORDERS)
def test_what_is_kept_leaves_out_the_last_subtask(suffix):
    """The first four gain 1 and lose log(1.5). The last gains 9, and nothing comes after it."""
    order, rows = experiment_report.ORDERS[suffix], []
    for s, i in enumerate(order):
        for k in range(11):
            loss = (10.0 if s == 4 else 2.0) if k < 2 * s + 2 else 1.0 if k == 2 * s + 2 else 1 + math.log(1.5)
            rows += [("warpgrad", 0, seed, f"subtask{i}", k, f"log_loss{suffix}", loss) for seed in (0, 1)]
    frame = pd.DataFrame(rows, columns=["method", "n_tasks", "seed", "task", "step", "metric", "value"])
    frame = frame.sample(frac=1, random_state=0).astype({"step": "Int64"})
    about = experiment_report.QUANTITIES[f"kept{suffix}"]
    found = about.select(frame, about.metric)
    assert found["seed"].tolist() == [0, 1] and found["step"].isna().all()
    assert found["value"].tolist() == pytest.approx([0.5 - math.log(1.5)] * 2)
    assert about.select(frame.iloc[:0], about.metric).empty


def test_a_learner_that_does_not_move_forgets_nothing():
    loss = (1 + torch.rand(3, 1, 5, dtype=DOUBLE, generator=stream())).expand(3, 101, 5)
    found = experiment.measures(loss, experiment.SEEN)
    for name in ("forgetting", "transfer", "log_gain", "log_forgetting", "log_spike", "log_recovery"):
        torch.testing.assert_close(found[name], torch.zeros(3, dtype=DOUBLE), rtol=0, atol=1e-14)


def test_forgetting_is_negative_where_the_last_subtask_helps():
    loss = torch.ones(1, 11, 5, dtype=DOUBLE)
    loss[0, -1] = 0.25
    found = experiment.measures(loss, experiment.SEEN)
    assert found["forgetting"].item() == pytest.approx(-0.75) and found["transfer"].item() == pytest.approx(0.75)
