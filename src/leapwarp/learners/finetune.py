"""Multi-headed finetuning: one body trained on all tasks at once, each with a head of its own."""

import torch

from leapwarp.inner import fresh_stats, gradient
from leapwarp.learners.base import Info, Learner, State
from leapwarp.optim import Optimizer
from leapwarp.problem import Problem, Task
from leapwarp.trees import Params, partition, repeat


def finetune(problem: Problem, optimizer: Optimizer, steps: int, n_tasks: int) -> Learner:
    """Finetuning as both papers compare with it: plain training on the tasks' batches, shuffled together.

    A meta-step takes `steps` batches of each task of the meta-batch, in one random order, and makes one update with
    each, so it makes `steps * meta_batch` updates where Leap makes one. The head, the parameters named `head.*`, is
    the task's own; a new task starts from the same random head that each training task once started from.

    Args:
        n_tasks: number of training tasks, each of which has a head.
    """

    def init(params: Params) -> State:
        head, body = partition(params, "head")
        return {
            "body": body,
            "head": head,
            "heads": {n: leaf.clone() for n, leaf in repeat(head, n_tasks).items()},
        }

    def step(state: State, tasks: Task, generator: torch.Generator) -> tuple[State, Info]:
        body = repeat(state["body"], 1)
        heads = {name: leaf.clone() for name, leaf in state["heads"].items()}
        stats = fresh_stats(problem, 1, tasks.x.device)
        loss = torch.full((len(tasks.index), steps), torch.nan, device=tasks.x.device)
        accuracy = torch.full_like(loss, torch.nan)
        for pair in torch.randperm(len(tasks.index) * steps, generator=generator).tolist():
            task, draw = divmod(pair, steps)
            index = int(tasks.index[task])
            params = body | {name: leaf[index : index + 1] for name, leaf in heads.items()}
            where = torch.tensor([[task], [draw]], device=tasks.x.device)
            result, grads = gradient(problem, params, {}, stats, problem.draw(tasks, *where))
            params, _ = optimizer.update(params, grads, optimizer.init(params))
            head, body = partition(params, "head")
            for name, leaf in head.items():
                heads[name][index] = leaf[0]
            loss[task, draw], accuracy[task, draw] = result.loss[0], result.accuracy[0]
        body = {name: leaf[0] for name, leaf in body.items()}
        info = {"loss": loss, "accuracy": accuracy, "steps": torch.full_like(tasks.index, steps)}
        return {"body": body, "head": state["head"], "heads": heads}, info

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        return repeat(state["body"] | state["head"], len(tasks.index)), {}

    return Learner(init, step, start, steps)
