"""Time the two operations that take most of the time, a Leap step and an exact WarpGrad update, on one thread.

    python benchmarks/inner_loop.py [--filters 16 64] [--seconds 2]

Prints the matrix-product peak of the core, and for the project's network and for two plain ones (PyTorch's own
layers, looped over tasks or under torch.vmap) the milliseconds of

- a Leap step: augment a mini-batch, loss, gradient, SGD step and Leap's segment of the path, per task;
- an exact WarpGrad update: draw and augment two mini-batches, the gradient of equation 3, per task;

and efficiency = counted FLOPs / (time x peak). Counted are the multiply-adds (two FLOPs each) of convolutions and
head: a training step is 3 forward passes, an exact update 10. Every time is the fastest of repeated runs, since other
work on the machine can only slow a run down; the peak is measured before each one, for the same reason.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from leapwarp import host
from leapwarp.data.augment import affine
from leapwarp.inner import adapt
from leapwarp.learners.leap import leap_fold
from leapwarp.learners.warpgrad import warp_gradient
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import sgd
from leapwarp.problem import Model, Problem, Task, lift, map_tasks, supervised
from leapwarp.trees import partition, repeat, zeros_like
from leapwarp.worlds.alphabets import draw_batch

BATCH, STEPS = 20, 10


def fastest(run: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest of the runs that fit into `seconds`, after one that is not counted."""
    run()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def peak(seconds: float) -> float:
    """FLOPs a second of a large matrix product."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / fastest(lambda: a @ a, seconds)


def forward_flops(filters: int, warp: bool) -> int:
    """FLOPs of one forward pass of a mini-batch through the Omniglot network."""
    macs, inputs, side = 20 * filters, 1, 28
    for _ in range(4):
        macs += 9 * inputs * filters * side**2
        inputs, side = filters, side // 2
        macs += 9 * filters * filters * side**2 if warp else 0
    return 2 * BATCH * macs


class Plain(nn.Module):
    """The same network from PyTorch's layers."""

    def __init__(self, filters: int, warp: bool) -> None:
        super().__init__()
        sizes = [1] + [filters] * 3
        self.task = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, filters, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(filters), nn.ReLU())
            for n in sizes
        )
        self.warp = nn.ModuleList(nn.Conv2d(filters, filters, 3, padding=1) for _ in sizes if warp)
        self.head = nn.Linear(filters, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(1)
        for block, layer in enumerate(self.task):
            x = layer(x)
            x = self.warp[block](x) if len(self.warp) else x
        return self.head(x.flatten(1))


def made_up_tasks(n_tasks: int, draws: int = STEPS + 3) -> Task:
    stream = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n_tasks, 300, 28, 28), generator=stream, dtype=torch.uint8)
    y = torch.arange(20).repeat_interleave(15).expand(n_tasks, 300)
    order = torch.randint(300, (n_tasks, draws, BATCH), generator=stream)
    matrices = affine(stream, (n_tasks, draws, BATCH))
    return Task(torch.arange(n_tasks), x, y, order, x[:, :0], y[:, :0], matrices)


def leap_step(model: Model, n_tasks: int, size: int, seconds: float) -> float:
    """Seconds of a Leap step, for each task."""
    problem, tasks = leap_problem(model), made_up_tasks(n_tasks)
    params, fold = model.init(torch.Generator().manual_seed(0)), leap_fold()

    def one(tasks: Task, part: slice) -> object:
        start = repeat(params, len(tasks.index))
        return adapt(problem, sgd(0.1), start, {}, tasks, STEPS, fold, zeros_like(start)).total

    return fastest(lambda: map_tasks(one, tasks, size), seconds) / ((STEPS + 1) * n_tasks)


def warp_update(model: Model, n_tasks: int, size: int, seconds: float) -> float:
    """Seconds of an exact WarpGrad update, for each task."""
    problem, tasks = leap_problem(model), made_up_tasks(n_tasks)
    warp, theta = partition(model.init(torch.Generator().manual_seed(0)), "warp")

    def one(tasks: Task, part: slice) -> object:
        who = torch.arange(len(tasks.index))
        batches = (problem.draw(tasks, who, torch.full_like(who, k)) for k in (0, 1))
        return warp_gradient(problem, sgd(0.1), repeat(theta, len(who)), repeat(warp, 1), *batches)[0]

    return fastest(lambda: map_tasks(one, tasks, size), seconds) / n_tasks


def leap_problem(model: Model) -> Problem:
    return supervised(model, draw=draw_batch(released=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each measurement")
    options = parser.parse_args()
    host.settle()
    print(f"torch {torch.__version__}, one thread, batch {BATCH}\n")
    print(f"{'':50}{'ms a task':>10}{'GFLOP/s':>9}{'peak':>7}{'efficiency':>12}")
    for filters in options.filters:
        for title, measure, passes, warp in (
            ("Leap step", leap_step, 3, False),
            ("warp update", warp_update, 10, True),
        ):
            ours, plain = convnet(filters, warp=Warp() if warp else None), lift(Plain(filters, warp))
            rows = [("ours, 5 tasks at a time", ours, 5), ("ours, one task at a time", ours, 1)]
            rows += [("plain layers, loop", plain, 1), ("plain layers, torch.vmap", plain, 5)]
            for name, model, size in rows:
                top = peak(min(1.0, options.seconds))
                seconds = measure(model, 5, size, options.seconds)
                rate = passes * forward_flops(filters, warp) / seconds
                print(
                    f"{filters} filters, {title}: {name}".ljust(50)
                    + f"{seconds * 1e3:10.2f}{rate / 1e9:9.1f}{top / 1e9:7.1f}{rate / top:12.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
