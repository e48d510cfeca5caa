"""Leap with the loss in the manifold, but the rise of a segment measured on one mini-batch (claim L6).

    .venv/bin/python benchmarks/same_batch.py --data results/data/alphabets.safetensors [--csv FILE]

Leap takes the rise of a segment as f(theta_{i+1}) - f(theta_i), where each loss is of its own mini-batch. So the rise
also has the difference of two batches. Here both losses are of batch i, which takes one more forward pass a step. All
else is `leap_ablation` at size `overnight`. For both measures this prints the share of segments that rise.
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from leapwarp.data.alphabets import load
from leapwarp.experiments.base import Run
from leapwarp.experiments.leap_ablation.run import PUBLISHED
from leapwarp.experiments.omniglot import Method, Settings, train
from leapwarp.inner import Step, Stop, adapt, fresh_stats
from leapwarp.learners import Learner
from leapwarp.learners.base import Info, gradient_learner, path_info
from leapwarp.learners.leap import leap_fold
from leapwarp.optim import sgd
from leapwarp.plan import read_size
from leapwarp.problem import Problem, Task, map_tasks
from leapwarp.trees import Params, mean_rows, n_runs, spread, take, zeros_like

REPO = Path(__file__).parents[1]
N_TASKS = 30

Rises = list[tuple[Tensor, Tensor]]
"""for each segment: which tasks rise with a batch for each loss, and which with one batch for both; [task] bool"""


def learner(length: bool, rises: Rises) -> Callable[[Problem, Settings, int, Stop | None], Learner]:
    def build(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
        inner, outer, steps = sgd(settings.inner_lr), sgd(settings.outer_lr), settings.inner_steps
        of_segment = leap_fold(length, loss=True, stabiliser=False)

        def meta_gradient(params: Params, tasks: Task) -> tuple[Params, Info]:
            starts = spread(params, len(tasks.index))

            def one(tasks: Task, part: slice) -> tuple[Params, Info]:
                who = torch.arange(len(tasks.index))
                stats = fresh_stats(problem, len(who), who.device)

                def fold(total: Params, before: Step, after: Step) -> Params:
                    batch = problem.draw(tasks, who, torch.full_like(who, before.number))
                    with torch.no_grad():
                        loss = problem.loss(after.params, stats, batch).loss
                    rises.append((after.loss > before.loss, loss > before.loss))
                    return of_segment(total, before, after._replace(loss=loss))

                start = take(starts, part)
                adapted = adapt(problem, inner, start, {}, tasks, steps, fold, zeros_like(start), stop)
                return adapted.total, path_info(adapted)

            total, info = map_tasks(one, tasks, settings.tasks_at_a_time)
            return mean_rows(total, n_runs(params)), info

        return gradient_learner(meta_gradient, outer, steps + 1)

    return build


def main() -> None:
    parser = argparse.ArgumentParser(description="Leap's loss term with the rise measured on one mini-batch.")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="alphabets.safetensors")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102])
    parser.add_argument("--meta-steps", type=int, metavar="N", help="default: those of the size")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a CSV to append to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    entry = read_size(REPO / "workflow/sizes/overnight.yaml", []).entries["leap_ablation"]
    settings = replace(PUBLISHED, **entry["settings"])
    settings = replace(settings, meta_steps=options.meta_steps or settings.meta_steps)
    data = load(options.data)
    for name, length in (("energy", False), ("length", True)):
        rises: Rises = []
        method = Method(settings, learner(length, rises))
        runs = [Run(data, method, name, N_TASKS, seed, torch.device("cpu"), None, {}) for seed in options.seeds]
        found = train(runs)
        with_two, with_one = (torch.cat(each).float().mean().item() for each in zip(*rises, strict=True))
        print(f"{name}: {100 * with_two:.1f} % of segments rise with two batches, {100 * with_one:.1f} % with one")
        last = settings.meta_steps - max(settings.meta_steps // 10, 1)
        lines = []
        for run, each in zip(runs, found, strict=True):
            losses = [value for _, step, metric, value in each.records if metric == "meta_loss" and (step or 0) >= last]
            lines.append(
                [name, "with loss, one batch", run.seed, settings.meta_steps, f"{sum(losses) / len(losses):.4f}"]
            )
            print(*lines[-1])
        if options.csv:
            new = not options.csv.exists()
            with options.csv.open("a", newline="") as file:
                head = ["objective", "path", "seed", "meta_steps", "final_meta_loss"]
                csv.writer(file, lineterminator="\n").writerows([head, *lines] if new else lines)


if __name__ == "__main__":
    main()
