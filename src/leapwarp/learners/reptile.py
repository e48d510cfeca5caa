"""First-order learners whose meta-gradient depends only on the end of each path: Reptile and first-order MAML."""

from leapwarp.given import check_given
from leapwarp.inner import Step, Stop
from leapwarp.learners.base import Learner, gradient_learner
from leapwarp.learners.leap import path_gradient
from leapwarp.optim import Optimizer
from leapwarp.problem import Problem
from leapwarp.trees import Params, map_tree


def displacement(total: Params, before: Step, after: Step) -> Params:
    """A fold whose total is theta_0 - theta_K. Leap's fold for the energy without loss equals it to the last bit."""
    return map_tree(lambda t, b, a: t - (a - b), total, before.params, after.params)


def last_gradient(total: Params, before: Step, after: Step) -> Params:
    """A fold whose total is the gradient at the last point, on a batch that no step has used."""
    return after.grads


@check_given
def reptile(
    problem: Problem, inner: Optimizer, outer: Optimizer, steps: int, size: int = 5, stop: Stop | None = None
) -> Learner:
    """Reptile (Nichol et al., 2018): the meta-gradient is theta_0 - theta_K, averaged over tasks."""
    return gradient_learner(path_gradient(problem, inner, steps, displacement, size, stop), outer, steps + 1)


@check_given
def fomaml(
    problem: Problem, inner: Optimizer, outer: Optimizer, steps: int, size: int = 5, stop: Stop | None = None
) -> Learner:
    """First-order MAML (Finn et al., 2017): the gradient of a fresh training batch at theta_K, averaged over tasks."""
    return gradient_learner(path_gradient(problem, inner, steps, last_gradient, size, stop), outer, steps + 1)
