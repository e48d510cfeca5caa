"""The experiment on Leap's Theorem 1: its meta-gradient compared with slow references in float64, tasks and counts."""

from dataclasses import replace

import pytest
import sizes
import torch
from cases import DOUBLE

from leapwarp.experiments.theorem1.run import (
    PUBLISHED,
    distance,
    gradient_of_length,
    hessians,
    limits,
    measure,
    meta_gradient,
    methods,
    walk,
    world,
)
from leapwarp.learners.leap import leap_fold

CPU = torch.device("cpu")
SMALL = replace(PUBLISHED, n_tasks=3, points=5, inner_steps=6, ripple=0.3)


def objective(settings, theta, far, length):
    """The length or energy with frozen ends of segments, by plain steps that autograd can differentiate."""
    problem, tasks, _ = world(settings, 0, CPU)
    who, total = torch.arange(settings.n_tasks), torch.zeros((), dtype=DOUBLE)
    point = theta.expand(settings.n_tasks, 2)
    for k, end in enumerate(far):
        batch = problem.draw(tasks, who, torch.full_like(who, k))
        loss = problem.loss({"theta": point}, {}, batch).loss
        (slope,) = torch.autograd.grad(loss.sum(), point, create_graph=True)
        gap = torch.cat([end.params["theta"] - point, (end.loss - loss)[:, None]], 1)
        total = total + (gap.norm(dim=1) if length else gap.square().sum(1)).sum()
        point = point - settings.inner_lr * slope
    return total / settings.n_tasks


@pytest.mark.parametrize("length", [True, False])
def test_exact_meta_gradient_equals_autograd_through_all_steps(length):
    problem, tasks, start = world(SMALL, 0, CPU)
    path = walk(problem, start, tasks, SMALL.inner_lr, SMALL.inner_steps)
    theta = start["theta"].clone().requires_grad_()
    value = objective(SMALL, theta, [after for _, after in path], length)
    (expected,) = torch.autograd.grad(value, theta)
    fold = leap_fold(length, True, False)
    ours = meta_gradient(problem, path, tasks, SMALL.inner_lr, fold, exact=True)["theta"]
    constant = 1 if length else 2  # the fold leaves the energy's factor to the meta learning rate
    torch.testing.assert_close(constant * ours, expected, rtol=1e-11, atol=1e-12)
    identity = meta_gradient(problem, path, tasks, SMALL.inner_lr, fold, exact=False)["theta"]
    assert (identity - ours).norm() > 0.01 * ours.norm()
    near = [before for before, _ in path]
    torch.testing.assert_close(distance(near, [after for _, after in path], length), value.detach())


@pytest.mark.parametrize("length", [True, False])
def test_the_gradient_of_the_whole_length_is_that_of_finite_differences(length):
    settings = replace(SMALL, length=length)
    problem, tasks, start = world(settings, 0, CPU)

    def value(theta):
        path = walk(problem, {"theta": theta}, tasks, settings.inner_lr, settings.inner_steps)
        return float(distance([before for before, _ in path], [after for _, after in path], length))

    ours = gradient_of_length(problem, start, tasks, settings)
    for bump in 1e-6 * torch.eye(2, dtype=DOUBLE):
        expected = (value(start["theta"] + bump) - value(start["theta"] - bump)) / 2e-6
        assert float(ours @ bump) / 1e-6 == pytest.approx(expected, rel=1e-7)


def test_hessians_equal_those_of_autograd():
    problem, tasks, start = world(SMALL, 0, CPU)
    path = walk(problem, start, tasks, SMALL.inner_lr, SMALL.inner_steps)
    ours = hessians(problem, path, tasks)
    for step, task in ((0, 0), (4, 2)):
        who, number = torch.tensor([task]), torch.tensor([step])
        batch = problem.draw(tasks, who, number)
        expected = torch.autograd.functional.hessian(
            lambda theta, batch=batch: problem.loss({"theta": theta[None]}, {}, batch).loss.sum(),
            path[step].before.params["theta"][task],
        )
        torch.testing.assert_close(ours[step, task], expected, rtol=1e-12, atol=1e-13)


def test_one_basin_is_convex_and_its_limit_point_a_minimum():
    settings = replace(PUBLISHED, inner_steps=5)
    problem, tasks, start = world(settings, 0, CPU)
    path = walk(problem, start, tasks, settings.inner_lr, settings.inner_steps)
    assert torch.linalg.eigvalsh(hessians(problem, path, tasks)).min() > 0.15  # 0.5 less the ripple's 0.31
    ends = limits(problem, path, tasks, settings)
    still = problem.loss({"theta": ends.requires_grad_()}, {}, problem.draw(tasks, tasks.index, 0 * tasks.index)).loss
    (slope,) = torch.autograd.grad(still.sum(), ends)
    assert slope.abs().max() < 1e-6
    wavy = replace(settings, ripple=methods(settings)["many_basins"].settings.ripple)
    problem, tasks, start = world(wavy, 0, CPU)
    path = walk(problem, start, tasks, settings.inner_lr, settings.inner_steps)
    assert torch.linalg.eigvalsh(hessians(problem, path, tasks)).min() < -0.5


def summary(name, **changes):
    """The records of one seed at smoke; and by metric those of the whole run."""
    records = measure(sizes.one_run(None, "theorem1", name, **changes), None).records
    return records, {metric: value for task, step, metric, value in records if step is None and not task}


def test_small_steps_shorten_the_path_at_first_and_large_ones_lengthen_it():
    _, small = summary("beta_0.003", meta_steps=10, inner_steps=20)
    assert small["rises"] == small["criterion_broken"] == 0 and small["shortening"] < 0.9
    _, large = summary("beta_0.3", meta_steps=10, inner_steps=20)
    assert large["criterion_broken"] > 0 and large["rises"] > 0
    records, found = summary("beta_0.3", meta_steps=20, outer_lr=50.0)
    assert found["rises"] >= 19 and found["rise_share"] <= 1  # after a divergence every meta-step counts
    assert all(value == value and abs(value) != float("inf") for *_, value in records)


def test_runs_repeat_and_batches_change_only_the_update():
    (first, _), (again, _) = summary("beta_0.01"), summary("beta_0.01")
    assert first == again
    noisy, _ = summary("batch_1")
    lengths = [[value for _, step, metric, value in records if metric == "path_length"] for records in (first, noisy)]
    assert lengths[0][0] == lengths[1][0] and lengths[0][1] != lengths[1][1]
    assert len(lengths[0]) == sizes.methods("theorem1")["beta_0.01"].settings.meta_steps + 1


def test_the_direction_of_a_converged_update_does_not_count():
    small = {"n_tasks": 3, "points": 5, "inner_steps": 6, "ripple": 0.05, "limit_every": 1, "limit_steps": 1}
    runs = [sizes.one_run(None, "theorem1", "beta_0.1", seed=1, **small, meta_steps=steps) for steps in (100, 200)]
    shares = [{metric: value for *_, metric, value in measure(run, None).records}["uphill"] for run in runs]
    assert shares[0] == shares[1] == pytest.approx(27 / 35)  # after 35 meta-steps only rounding is left
