"""How much time a stack of runs would save for Multi-CV, whose runs are trained one after another.

    python benchmarks/unstacked.py [--size quick] [--runs 2 4] [--seconds 20]

It prints the milliseconds of a step of Leap for each run, for one run alone and for several runs in a stack, and how
many times as fast the stack is. Network and batch size are those of Multi-CV at a size. A stack of tasks stands for a
stack of runs. Times are processor times of the thread in the fastest of many rounds, in which all take turns (see
`stack.py`).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from stack import fastest
from torch import Tensor

from leapwarp import host, plan
from leapwarp.data.images import SIZE
from leapwarp.experiments.base import Experiment
from leapwarp.experiments.multicv import run as multicv
from leapwarp.experiments.settings import of_size
from leapwarp.inner import adapt
from leapwarp.learners.leap import leap_fold
from leapwarp.models.convnet import convnet
from leapwarp.optim import sgd
from leapwarp.problem import Batch, Task, supervised
from leapwarp.rng import generator
from leapwarp.trees import repeat, zeros_like
from leapwarp.worlds.image_sets import CHANNELS

SIZES = Path(__file__).parents[1] / "workflow/sizes"
STEPS = 10  # of a path of Leap


def settings_of(experiment: Experiment, name: str, method: str, size_name: str) -> Any:
    """The settings of a method at a size."""
    size = plan.read_size(SIZES / f"{size_name}.yaml", [name])
    return of_size(experiment, size.entries[name], size.name)[method].settings


def draw_images(tasks: Task, who: Tensor, number: Tensor) -> Batch:
    """As `worlds.image_sets.draw_from`, for several tasks at once."""
    who, rows = who[:, None], tasks.order[who, number]
    return Batch((tasks.x[who, rows].float() / 255 - 0.5) / 0.25, tasks.y[who, rows])


def multicv_paths(runs: list[int], size: str) -> dict[int, Callable[[], object]]:
    """A path of `STEPS` + 1 steps of as many runs, each at one task."""
    settings = settings_of(multicv.EXPERIMENT, "multicv", "leap", size)
    model, fold = convnet(settings.filters, channels=CHANNELS, size=SIZE), leap_fold()
    problem, params = supervised(model, draw=draw_images), model.init(generator(0))

    def path(n_runs: int) -> Callable[[], object]:
        stream = generator(0, "tasks")
        n = settings.most_train or 1000  # the images that a set has matter little
        x = torch.randint(256, (n_runs, n, CHANNELS, SIZE, SIZE), dtype=torch.uint8, generator=stream)
        y = torch.arange(n).remainder(20).expand(n_runs, -1)
        order = torch.randint(n, (n_runs, STEPS + 1, settings.batch), generator=stream)
        tasks, begin = Task(torch.arange(n_runs), x, y, order, x[:, :0], y[:, :0]), repeat(params, n_runs)
        return lambda: adapt(problem, sgd(0.1), begin, {}, tasks, STEPS, fold, zeros_like(begin)).total

    return {n: path(n) for n in (1, *runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="quick", help="a file of workflow/sizes by its name")
    parser.add_argument("--runs", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seconds", type=float, default=20.0, help="time for the rounds")
    options = parser.parse_args()
    host.settle()
    print(f"torch {torch.__version__}, one thread, {options.size}\n\n{'':32}{'ms a run':>9}{'times as fast':>15}")
    times = fastest({str(n): job for n, job in multicv_paths(options.runs, options.size).items()}, options.seconds)
    each = {n: times[str(n)][0] / (n * (STEPS + 1)) for n in (1, *options.runs)}
    for n, seconds in each.items():
        print(f"Multi-CV, step, {n} in a stack".ljust(32) + f"{seconds * 1e3:9.2f}{each[1] / seconds:15.2f}")


if __name__ == "__main__":
    main()
