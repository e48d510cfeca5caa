"""Multi-headed finetuning: one body is trained on all tasks together, and each task has its own head."""

from collections.abc import Sequence

import torch
from torch import Tensor

from leapwarp.given import check_given
from leapwarp.host import captured
from leapwarp.inner import fresh_stats, gradient
from leapwarp.learners.base import Info, Learner, State, check_streams
from leapwarp.optim import Optimizer
from leapwarp.problem import Problem, Task
from leapwarp.trees import TASK_ONLY, Params, partition, spread

OWN = ("head", TASK_ONLY)
"""the groups of parameters that each task has for itself"""


@check_given
def finetune(problem: Problem, optimizer: Optimizer, steps: int, n_tasks: int) -> Learner:
    """The finetuning baseline of both papers: plain training on the tasks' batches, shuffled together.

    A meta-step takes `steps` batches of each task of the meta-batch, in one random order, and makes one update with
    each. So it makes `steps * meta_batch` updates, where Leap makes one. Each task has its own head, the parameters
    named `head.*` and `task_only.*`. A new task starts from the random head that all training tasks started from.

    Args:
        problem: the family of tasks.
        optimizer: the optimizer of every update, without a state: `leapwarp.optim.sgd`.
        steps: batches of each task in a meta-step.
        n_tasks: number of training tasks, each of which has a head. A task finds its own by its `index`.

    Raises:
        ValueError: the optimizer has a state (in `init`), or the index of a task is not below `n_tasks` (in `step`).
    """

    def init(params: Params) -> State:
        # Heads are updated at different times, so that each would need its own state, with its own count of steps.
        if optimizer.init(params):
            raise ValueError(
                "the optimizer has a state, such as momentum; needed one without, leapwarp.optim.sgd(rate), since "
                "finetune keeps no state from one update to the next."
            )
        head, body = partition(params, *OWN)
        heads = {n: leaf.unsqueeze(1).repeat(1, n_tasks, *[1] * (leaf.dim() - 1)) for n, leaf in head.items()}
        return {"body": body, "head": head, "heads": heads}  # heads [run, training task, ...]

    def update(
        body: Params, heads: Params, stats: Params, tasks: Task, who: Tensor, draw: Tensor
    ) -> tuple[Params, Params, Tensor]:
        """One batch and one update of every run. -> body, heads, and the loss and accuracy of each run, [2, run]"""
        own = torch.arange(len(who), device=who.device), tasks.index[who]  # the heads of these tasks
        params = body | {name: leaf[own] for name, leaf in heads.items()}
        result, grads = gradient(problem, params, {}, stats, problem.draw(tasks, who, draw))
        params, _ = optimizer.update(params, grads, optimizer.init(params))
        head, body = partition(params, *OWN)
        heads = {name: leaf.index_put(own, head[name]) for name, leaf in heads.items()}
        return body, heads, torch.stack([result.loss, result.accuracy])

    advance = captured(update) if problem.capture else update

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        check_streams(state["body"], generators)
        runs, device = len(generators), tasks.order.device
        if (most := int(tasks.index.max())) >= n_tasks:
            raise ValueError(
                f"a task has the index {most}, and finetune has heads for {n_tasks} tasks, 0 to {n_tasks - 1}; needed "
                "finetune(n_tasks=...) with the number of all training tasks, or stack_tasks(index=...) with each "
                "task's number among them."
            )
        n = len(tasks.index) // runs
        body, heads, seen = state["body"], state["heads"], []
        stats = fresh_stats(problem, runs, device)
        orders = torch.stack([torch.randperm(n * steps, generator=generator) for generator in generators], 1).to(device)
        everyone, draws = torch.arange(runs, device=device) * n + orders // steps, orders % steps  # [update, run]
        for who, draw in zip(everyone, draws, strict=True):  # every run takes its next batch
            body, heads, looked = advance(body, heads, stats, tasks, who, draw)
            seen.append(looked)
        loss, accuracy = torch.empty(2, len(tasks.index), steps, dtype=seen[0].dtype, device=device)
        loss[everyone, draws], accuracy[everyone, draws] = torch.stack(seen, 1)
        info = {"loss": loss, "accuracy": accuracy, "steps": torch.full_like(tasks.index, steps)}
        return {"body": body, "head": state["head"], "heads": heads}, info

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        return spread(state["body"] | state["head"], len(tasks.index)), {}

    return Learner(init, step, start, steps)
