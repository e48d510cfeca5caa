"""MAML, to second order, through the same inner loop as everything else."""

import torch

from leapwarp.inner import Stop, adapt, fresh_stats
from leapwarp.learners.base import Info, Learner, gradient_learner, path_info
from leapwarp.optim import Optimizer
from leapwarp.problem import Batch, Problem, Task, map_tasks
from leapwarp.trees import Params, mean_tasks, repeat


def maml(
    problem: Problem, inner: Optimizer, outer: Optimizer, steps: int, size: int = 5, stop: Stop | None = None
) -> Learner:
    """MAML (Finn et al., 2017): the gradient through all updates of the loss on the task's held-out data.

    Held-out data are normalised by their own statistics, as the steps' batches are. Memory grows with `steps`.
    """

    def meta_gradient(params: Params, tasks: Task) -> tuple[Params, Info]:
        def one(tasks: Task, part: slice) -> tuple[Params, Info]:
            n_tasks = len(tasks.index)
            start = {n: leaf.detach().requires_grad_() for n, leaf in repeat(params, n_tasks).items()}
            adapted = adapt(problem, inner, start, {}, tasks, steps, stop=stop, differentiable=True)
            stats = fresh_stats(problem, n_tasks, tasks.x.device)
            query = problem.loss(adapted.params, stats, Batch(tasks.x_test, tasks.y_test))
            grads = torch.autograd.grad(query.loss.sum(), list(start.values()))
            return dict(zip(start, grads, strict=True)), path_info(adapted)

        grads, info = map_tasks(one, tasks, size)
        return mean_tasks(grads), info

    return gradient_learner(meta_gradient, outer, steps)
