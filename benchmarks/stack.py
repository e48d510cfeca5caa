"""Time one run alone against five runs in one stack, each with its own warps, on one thread.

    python benchmarks/stack.py [--filters 8 16 64] [--seconds 20]

Prints, for each run (or task), the milliseconds of

- an exact update of the warps with eta = 1: draw and augment two mini-batches, the gradient of WarpGrad's equation 3,
  and the outer SGD step; five runs are five points in one stack;
- a step of Leap: augment a mini-batch, loss, gradient, SGD step and Leap's segment of the path; of one task, of five,
  and of five runs of five tasks;

and efficiency = counted FLOPs / (time x peak), counted as in `inner_loop.py`. All cases, and the matrix product that
measures the peak, take turns in one process, and the fastest of each counts, since other work on the machine can only
slow a run down. Efficiency uses the processor time of the thread, which does not include waiting for a core. The time
by the clock is shown beside it.
"""

import argparse
import time
from collections.abc import Callable

import torch
from inner_loop import BATCH, STEPS, forward_flops, leap_problem, made_up_tasks

from leapwarp import host
from leapwarp.inner import adapt
from leapwarp.learners.leap import leap_fold
from leapwarp.learners.warpgrad import warp_gradient
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import sgd
from leapwarp.trees import map_tree, partition, repeat, zeros_like

SIDE = 1024  # of the matrices whose product measures the peak


def warp_update(filters: int, n_runs: int) -> Callable[[], object]:
    """An exact update at one point of each run, and the outer step."""
    model = convnet(filters, warp=Warp())
    problem, tasks, outer, who = leap_problem(model), made_up_tasks(n_runs), sgd(0.1), torch.arange(n_runs)
    trees = partition(model.init(torch.Generator().manual_seed(0)), "warp")
    warp, theta = (map_tree(torch.clone, repeat(tree, n_runs)) for tree in trees)

    def update() -> object:
        task_batch, meta_batch = (problem.draw(tasks, who, torch.full_like(who, k)) for k in (0, 1))
        _, grads = warp_gradient(problem, sgd(0.1), theta, warp, task_batch, meta_batch)
        return outer.update(warp, grads, outer.init(warp))

    return update


def leap_path(filters: int, n_tasks: int) -> Callable[[], object]:
    """A path of `STEPS` + 1 steps of all tasks."""
    model = convnet(filters)
    problem, tasks, fold = leap_problem(model), made_up_tasks(n_tasks), leap_fold()
    start = repeat(model.init(torch.Generator().manual_seed(0)), n_tasks)
    return lambda: adapt(problem, sgd(0.1), start, {}, tasks, STEPS, fold, zeros_like(start)).total


def fastest(jobs: dict[str, Callable[[], object]], seconds: float) -> dict[str, tuple[float, float]]:
    """Seconds of the fastest of many rounds, in which all jobs take turns: (processor, clock)."""
    for job in jobs.values():
        job()
    best = dict.fromkeys(jobs, (float("inf"), float("inf")))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, job in jobs.items():
            clock, processor = time.perf_counter(), time.thread_time()
            job()
            spent = time.thread_time() - processor, time.perf_counter() - clock
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--seconds", type=float, default=20.0, help="time for the rounds of each comparison")
    options = parser.parse_args()
    host.settle()
    a = torch.randn(SIDE, SIDE)
    print(f"torch {torch.__version__}, one thread, batch {BATCH}\n")
    print(f"{'':42}{'ms, processor':>14}{'clock':>9}{'GFLOP/s':>9}{'peak':>7}{'efficiency':>12}")
    for title, make, stacks, passes, calls, warp in (
        ("exact update", warp_update, {"alone": 1, "five runs": 5}, 10, 1, True),
        ("Leap step", leap_path, {"one task": 1, "five": 5, "five runs of five": 25}, 3, STEPS + 1, False),
    ):
        for filters in options.filters:
            jobs = {name: make(filters, size) for name, size in stacks.items()}
            times = fastest(jobs | {"peak": lambda: a @ a}, options.seconds)
            peak = 2 * SIDE**3 / times.pop("peak")[0]
            for name, spent in times.items():
                processor, clock = (part / (calls * stacks[name]) for part in spent)
                rate = passes * forward_flops(filters, warp) / processor
                print(
                    f"{filters} filters, {title}: {name}".ljust(42)
                    + f"{processor * 1e3:14.2f}{clock * 1e3:9.2f}{rate / 1e9:9.1f}{peak / 1e9:7.1f}{rate / peak:12.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
