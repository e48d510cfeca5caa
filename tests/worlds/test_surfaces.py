"""The surfaces of WarpGrad's appendix E: minima, the explicit warp, and Algorithm 1."""

import math
from dataclasses import replace

import pytest
import torch
from calls import REPO
from cases import DOUBLE, of_one

from leapwarp import plan, trees
from leapwarp.experiments.base import SIMULATED, Run
from leapwarp.experiments.settings import of_size
from leapwarp.experiments.surfaces import run as experiment
from leapwarp.inner import adapt
from leapwarp.learners.online import online_warp
from leapwarp.learners.warpgrad import warp_gradient
from leapwarp.models.omega import init, jacobian, omega, preimage
from leapwarp.optim import adam, sgd
from leapwarp.problem import Batch
from leapwarp.rng import generator
from leapwarp.worlds import surfaces


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def surface(**factors):
    zero = dict.fromkeys(surfaces.FACTORS, 0.0) | {"s": 1.0}
    return torch.tensor(list((zero | factors).values()), dtype=DOUBLE)


def lowest(shape, begin, peaks):
    """The point where gradient descent from `begin` ends, and its height."""
    problem = surfaces.problem(peaks)
    start = torch.tensor([begin], dtype=DOUBLE)
    tasks = surfaces.tasks(shape[None], start, 1000)
    end = adapt(problem, sgd(0.05), {"x": start}, {}, tasks, 1000).params["x"]
    return end[0], surfaces.height(end, shape[None], peaks)[0]


MINIMA = {  # factors, reading, start, minimum (None: a coordinate that does not matter), value
    "bowl": ({"a1": 1, "a2": 1, "b1": 5}, False, (0.4, -0.7), (1.0, None), 0.0),
    "hill upside down": ({"a2": -1, "b1": -5}, False, (0.6, 0.8), (1.0, 1.0), -5 / math.e),
    "hole as printed": ({"a3": 1, "b3": 5}, False, (0.1, 0.3), (-0.5, None), -5 * math.exp(-0.5)),
    "hole of peaks": ({"a3": 1, "b3": 5}, True, (-0.7, 0.3), (-1.0, 0.0), -5.0),
    "peaks": (
        {"a1": 1, "a2": 1, "a3": 1, "b1": 3, "b2": 10, "b3": 1 / 3, "s": 5},
        True,
        (0.1, -1.4),
        (0.2283, -1.6255),
        -6.5511,
    ),
}


@pytest.mark.parametrize("name", MINIMA)
def test_gradient_descent_finds_the_analytic_minimum(name):
    factors, peaks, begin, where, value = MINIMA[name]
    end, height = lowest(surface(**factors), begin, peaks)
    assert height == pytest.approx(value, abs=1e-4)
    for found, known in zip(end.tolist(), where, strict=True):
        assert known is None or found == pytest.approx(known, abs=1e-3)


def test_the_two_readings_differ_in_the_last_two_terms_alone():
    x = torch.randn(50, 2, dtype=DOUBLE, generator=stream())
    for factors, same in ({"b1": 3, "a1": 1}, True), ({"b2": 3}, False), ({"b3": 3}, False):
        readings = [surfaces.height(x, surface(**factors), peaks) for peaks in (False, True)]
        assert torch.equal(*readings) == same
    on_axis = torch.cat([x[:, :1], torch.ones(50, 1, dtype=DOUBLE)], 1)  # where x_2^3 = x_2^5
    torch.testing.assert_close(*(surfaces.height(on_axis, surface(b2=3), peaks) for peaks in (False, True)))


def test_factors_are_those_of_the_paper_and_starts_fill_the_domain():
    drawn, start = surfaces.draw(4000, stream()), surfaces.starts(4000, stream())
    for column, values in ((slice(0, 3), range(-1, 2)), (slice(3, 6), range(-5, 6)), (slice(6, 7), range(1, 11))):
        found = drawn[:, column].flatten().long()
        assert sorted(set(found.tolist())) == list(values)
        counts = torch.bincount(found - min(values)) / len(found)
        torch.testing.assert_close(counts, torch.full_like(counts, 1 / len(values)), atol=0.02, rtol=0)
    assert start.abs().max() <= 3 and start.abs().max() > 2.99 and start.mean(0).abs().max() < 0.1


def test_heights_of_a_batch_are_those_of_single_surfaces():
    drawn, x = surfaces.draw(20, stream()).double(), surfaces.starts(20, stream(1)).double()
    for peaks in (False, True):
        together = surfaces.height(x, drawn, peaks)
        torch.testing.assert_close(
            together, torch.stack([surfaces.height(*pair, peaks) for pair in zip(x, drawn, strict=True)])
        )
        low, high = surfaces.extremes(drawn.float(), peaks)
        points = surfaces.grid(31)
        one = surfaces.height(points, drawn[3].float(), peaks)
        assert low[3] <= one.min() and one.max() <= high[3]


# ---------------------------------------------------------------- the explicit warp


def warp_stack(kind, n=6, seed=0, scale=1.0):
    warps = [init(kind, stream(seed + i)) for i in range(n)]
    return {name: scale * torch.stack([warp[name] for warp in warps]).double() for name in warps[0]}


@pytest.mark.parametrize("kind", ["residual", "plain"])
def test_the_jacobian_of_the_warp_is_that_of_autograd(kind):
    params, theta, skip = warp_stack(kind), torch.randn(6, 2, dtype=DOUBLE, generator=stream()), kind == "residual"
    full = torch.autograd.functional.jacobian(lambda t: omega(params, t, skip), theta)
    torch.testing.assert_close(jacobian(params, theta, skip), torch.stack([full[i, :, i] for i in range(6)]))
    points = theta[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(omega(params, points, skip)[:, 2], omega(params, theta, skip))


@pytest.mark.parametrize("scale", [1.0, 3.0])  # at 3, the warp folds the plane over
def test_every_start_has_a_preimage_under_a_residual_warp(scale):
    params, x = warp_stack("residual", 200, scale=scale), surfaces.starts(200, stream(3)).double()
    theta = preimage(params, x)
    torch.testing.assert_close(omega(params, theta), x, atol=1e-5, rtol=0)
    assert scale == 1.0 or torch.linalg.det(jacobian(params, x)).min() < 0


def test_the_image_of_a_plain_warp_does_not_hold_the_domain():
    params, x = warp_stack("plain", 100), surfaces.starts(100, stream(3)).double()
    gap = (omega(params, preimage(params, x, skip=False), skip=False) - x).norm(dim=1)
    assert (gap < 1e-3).any() and (gap > 0.1).any()


def test_a_warp_that_is_the_identity_changes_nothing():
    shapes, start = surfaces.draw(5, stream()).double(), surfaces.starts(5, stream(1)).double()
    tasks, warp = surfaces.tasks(shapes, start, 20), warp_stack("identity", 5)
    warped = surfaces.problem(place=lambda params: omega(params, params["x"]))
    plain = adapt(surfaces.problem(), sgd(0.1), {"x": start}, {}, tasks, 20)
    under = adapt(warped, sgd(0.1), {"x": preimage(warp, start)}, warp, tasks, 20)
    torch.testing.assert_close(under.params, plain.params)


def test_a_step_under_the_warp_is_preconditioned_to_second_order_in_the_step_size():
    """(L o omega)(theta - a D theta) = L(gamma - a G^-1 grad L(gamma)) + O(a^2), WarpGrad equation 6."""
    shape, params = surfaces.draw(1, stream(4)).double(), warp_stack("residual", 1)
    theta = torch.tensor([[0.5, -0.3]], dtype=DOUBLE, requires_grad=True)
    gamma = omega(params, theta).detach().requires_grad_()
    (slope,) = torch.autograd.grad(surfaces.height(omega(params, theta), shape).sum(), theta)
    (native,) = torch.autograd.grad(surfaces.height(gamma, shape).sum(), gamma)
    d = jacobian(params, theta)
    moved = (d @ d.mT @ native[..., None])[..., 0]

    def error(rate):
        left = surfaces.height(omega(params, theta - rate * slope), shape)
        return (left - surfaces.height(gamma - rate * moved, shape)).abs().item()

    ratios = [error(rate) / error(rate / 2) for rate in (2e-3, 1e-3)]
    assert all(3.9 < ratio < 4.1 for ratio in ratios), ratios


# ---------------------------------------------------------------- Algorithm 1


def pieces(steps=6):
    shapes, start = surfaces.draw(4, stream(7)).double(), surfaces.starts(4, stream(8)).double()
    problem = surfaces.problem(place=lambda params: omega(params, params["x"]))
    warp = {name: leaf[0] for name, leaf in warp_stack("residual").items()}

    def begin(warp, tasks):
        return {"x": preimage(warp, tasks.x)}

    return problem, surfaces.tasks(shapes, start, steps), warp, begin


def test_all_points_at_once_give_algorithm_1s_sum_over_tasks_and_steps():
    problem, tasks, warp, begin = pieces()
    learner = of_one(online_warp)(problem, sgd(0.1), sgd(1.0), 6, begin)
    after, _ = learner.step(learner.init(warp), tasks, stream())
    ours = trees.subtract(warp, after["warp"])
    total = trees.zeros_like(warp)
    for i in range(4):
        theta = begin(trees.repeat(warp, 1), surfaces.tasks(tasks.y[i : i + 1], tasks.x[i : i + 1], 6))["x"]
        batch = Batch(tasks.x[i : i + 1], tasks.y[i : i + 1])
        for _ in range(6):
            _, grads = warp_gradient(problem, sgd(0.1), {"x": theta}, trees.alone(warp), batch, batch)
            total = trees.add_scaled(total, 1.0, trees.pick(grads, 0))
            point = theta.clone().requires_grad_()
            (slope,) = torch.autograd.grad(surfaces.height(omega(trees.repeat(warp, 1), point), batch.y).sum(), point)
            theta = theta - 0.1 * slope
    torch.testing.assert_close(ours, total, rtol=1e-9, atol=1e-10)


def test_the_meta_gradient_equals_finite_differences_of_equation_3():
    problem, tasks, warp, begin = pieces()
    learner = of_one(online_warp)(problem, sgd(0.1), sgd(1.0), 6, begin)
    after, _ = learner.step(learner.init(warp), tasks, stream())
    ours = trees.subtract(warp, after["warp"])
    path = []
    fixed = trees.repeat(warp, 4)
    adapt(
        problem,
        sgd(0.1),
        begin(fixed, tasks),
        fixed,
        tasks,
        6,
        observe=lambda k, params, stats: path.append(params["x"]),
    )

    def objective(warp):
        total, under = 0.0, trees.repeat(warp, 4)
        for theta in path[:-1]:
            point = theta.clone().requires_grad_()
            (slope,) = torch.autograd.grad(surfaces.height(omega(under, point), tasks.y).sum(), point)
            total += surfaces.height(omega(under, theta - 0.1 * slope), tasks.y).sum().item()
        return total

    direction = {name: torch.randn(leaf.shape, dtype=DOUBLE, generator=stream(9)) for name, leaf in warp.items()}
    plus, minus = (objective(trees.add_scaled(warp, scale, direction)) for scale in (1e-5, -1e-5))
    slope = sum((ours[name] * direction[name]).sum().item() for name in warp)
    assert slope == pytest.approx((plus - minus) / 2e-5, rel=1e-6)


def test_warps_trained_side_by_side_are_those_trained_alone():
    problem, tasks, warp, begin = pieces()
    rates = torch.tensor([0.01, 0.1], dtype=DOUBLE)
    both = tasks._replace(
        **{name: torch.cat([part, part]) for name, part in tasks._asdict().items() if part is not None}
    )
    outer = experiment.each_at_its_rate(adam(1.0), rates)
    together = of_one(lambda: experiment.in_sets(online_warp(problem, sgd(0.1), outer, 6, begin), 2))()
    state = together.init(trees.map_tree(torch.clone, trees.repeat(warp, 2)))
    alone = [of_one(online_warp)(problem, sgd(0.1), adam(rate), 6, begin) for rate in rates.tolist()]
    states = [learner.init(warp) for learner in alone]
    for _ in range(3):
        state, _ = together.step(state, both, stream())
        states = [learner.step(each, tasks, stream())[0] for learner, each in zip(alone, states, strict=True)]
    for i, each in enumerate(states):
        mine = {name: leaf[i] for name, leaf in state["warp"].items()}
        torch.testing.assert_close(mine, each["warp"], rtol=1e-6, atol=1e-8)
    assert not torch.allclose(states[0]["warp"]["warp.1.weight"], states[1]["warp"]["warp.1.weight"])


# ---------------------------------------------------------------- runs


def a_run(method="warpgrad", **changes):
    """A run of the smallest size."""
    size = plan.read_size(REPO / "workflow/sizes/smoke.yaml", ["surfaces"])
    found = of_size(experiment.EXPERIMENT, size.entries["surfaces"], "smoke")[method]
    found = found._replace(settings=replace(found.settings, **changes))
    return Run(SIMULATED, found, method, 0, 0, torch.device("cpu"), None, {})


def test_training_does_not_read_the_settings_of_evaluation():
    changes = {"n_test": 7, "n_validation": 3, "n_examples": 2, "lattice": 5}
    assert changes.keys() == experiment.EVALUATION
    one, other = (experiment.train([a_run(**values)])[0].state["warp"] for values in ({}, changes))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_warps_that_were_not_trained_follow_gradient_descent():
    """Each rate has its own warp. Before training all are the identity, so all learners follow gradient descent."""
    untrained = experiment.train([a_run(meta_steps=0)])[0].state
    under = {record[:3]: record[3] for record in experiment.judge(a_run(), untrained).records}
    plain = {record[:3]: record[3] for record in experiment.judge(a_run("gd"), None).records}
    for key, value in plain.items():
        if not key[0].startswith("rate") and key[2] != "rate":
            assert under[key] == pytest.approx(value, abs=1e-4), key
    sweep = [value for (_, _, metric), value in under.items() if metric == "sweep_area"]
    assert len(sweep) == 7 and len(set(sweep)) == 1


def test_a_warp_that_does_not_reach_the_starts_is_not_chosen():
    run = a_run("warpgrad_plain", n_validation=1)
    task = surfaces.draw_tasks(1, generator(0, "validation"), 10, torch.device("cpu"))
    lattice = surfaces.grid(121)
    lowest = lattice[surfaces.height(lattice, task.y[0]).argmin()]
    warps = {name: torch.zeros_like(leaf) for name, leaf in experiment.train([run])[0].state["warp"].items()}
    warps["warp.1.bias"][:] = lowest  # all but one map every point to the lowest one
    warps["warp.1.bias"][3] = 0  # and this one leaves points where they are
    warps["warp.0.weight"][3, :2], warps["warp.1.weight"][3, :, :2] = 0.01 * torch.eye(2), 100 * torch.eye(2)
    found = {record[:3]: record[3] for record in experiment.judge(run, {"warp": warps}).records}
    assert found["rate 0.001", None, "sweep_area"] == 0 and found["rate 0.001", None, "sweep_reached"] == 0
    assert found["rate 0.003", None, "sweep_area"] > 0 and found["rate 0.003", None, "sweep_reached"] == 1
    assert found["", None, "rate"] == run.method.settings.rates[3] == 0.003
