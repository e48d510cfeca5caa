"""Early stopping by the held-out error, areas under curves, and the precision of curves."""

from fractions import Fraction

import pytest
import torch
from cases import DOUBLE, quadratic, quadratic_tasks, random_quadratics

from leapwarp.evaluate import area, error_below, evaluate, points
from leapwarp.inner import adapt
from leapwarp.learners import scratch
from leapwarp.optim import sgd
from leapwarp.problem import Loss, Problem, Task, cross_entropy, lift, mean_square, stack_tasks, supervised
from leapwarp.trees import alone


@pytest.mark.parametrize("n", [20, 50, 60, 100, 300])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_task_has_been_learnt_only_below_the_error_and_not_at_it(n, dtype):
    wrong = torch.arange(n + 1)  # one task for each number of wrong answers
    y = (torch.arange(n) < wrong[:, None]).long()
    outputs = torch.tensor([1.0, 0.0], dtype=dtype).expand(n + 1, n, 2)  # always the class 0
    problem = Problem(None, None, lambda params, stats, batch: Loss(*cross_entropy(outputs, batch.y), {}), dict)
    tasks = Task(wrong, None, y, None, None, y)
    for error in ("0.01", "0.02", "0.05", "0.07", "0.1"):
        learnt = error_below(problem, float(error), 1).is_learnt({}, {}, tasks)
        assert learnt.tolist() == [Fraction(k, n) < Fraction(error) for k in range(n + 1)], error


def test_stopping_by_error_needs_a_loss_with_an_accuracy():
    model, rng = lift(torch.nn.Linear(2, 3)), torch.Generator().manual_seed(0)
    problem = supervised(model, torch.nn.functional.cross_entropy)
    tasks = stack_tasks([(torch.rand(6, 2), torch.arange(6) % 3)], 2, 3, rng)
    with pytest.raises(ValueError, match="the problem's loss has no accuracy; needed leapwarp.cross_entropy"):
        adapt(problem, sgd(0.1), alone(model.init(rng)), {}, tasks, 2, stop=error_below(problem, 0.1, 1))


def test_the_area_of_a_line_is_its_mean_wherever_it_is_measured():
    at = points(52, 5)
    assert at[-2:] == [50, 52]
    line = torch.tensor([at, [7.0] * len(at)], dtype=DOUBLE)
    assert area(line, at).tolist() == pytest.approx([26, 7])
    even = points(50, 5)
    curve = torch.rand(3, len(even), dtype=DOUBLE)
    torch.testing.assert_close(area(curve, even), area(curve))
    assert area(line[:, :1], [0]).tolist() == [0, 7]


def test_an_update_that_leaves_no_finite_loss_is_an_error_though_all_losses_before_it_were_finite():
    model, rng = lift(torch.nn.Linear(1, 1)), torch.Generator().manual_seed(0)
    problem, learner, x = supervised(model, mean_square), scratch(), torch.rand(2, 6, 1, generator=rng)
    state = learner.init(alone(model.init(rng)))
    tasks = stack_tasks(list(zip(x, 2 * x, strict=True)), 2, 3, rng)
    good = evaluate(learner, state, problem, sgd(0.1), tasks, 1, 2, 1)
    assert good.loss_curve.isfinite().all()
    with pytest.raises(FloatingPointError, match="held-out loss of task number 0 is inf after the last step"):
        evaluate(learner, state, problem, sgd(1e30), tasks, 1, 2, 1)


def test_curves_of_a_problem_in_float64_are_in_float64():
    matrices, centres = random_quadratics(2, 3)
    problem, tasks = quadratic(1e45 * matrices, centres), quadratic_tasks(2, 4)
    start = {"w": torch.ones(2, 3, dtype=DOUBLE)}
    adapted = adapt(problem, sgd(1e-50), start, {}, tasks, 3)
    batch = problem.draw(tasks, tasks.index, torch.zeros(2, dtype=torch.long))
    assert adapted.loss.dtype == adapted.accuracy.dtype == DOUBLE
    assert torch.equal(adapted.loss[:, 0], problem.loss(start, {}, batch).loss)
    assert adapted.loss.isfinite().all() and adapted.loss.max() > 1e40
