"""Time and memory of Multi-CV's methods against the number of tasks that they have met.

    python benchmarks/multicv.py [--filters 64] [--tasks 2 4 8 16] [--rounds 5]

A training step of a task (batch 32, 32 x 32 x 3, 10 classes) on one thread, when so many tasks have been met: Leap and
finetuning have one encoder, HAT one with masks, Progressive Nets a column for each task. Times are the fastest of the
rounds, in which the methods take turns.
"""

import argparse
import time

import torch

from leapwarp.experiments import multicv
from leapwarp.experiments.multicv import Images, Settings, batches, count, set_up, task_stack, without_heads
from leapwarp.inner import adapt
from leapwarp.learners.base import State
from leapwarp.models.convnet import convnet

KINDS = {"leap": "Leap, finetuning", "hat": "HAT", "progressive": "Progressive Nets"}
STEPS = 3


def made_up(n: int) -> list[Images]:
    stream = torch.Generator().manual_seed(0)
    x, y = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8, generator=stream), torch.arange(64) % 10
    half = torch.full((3, 1, 1), 0.5)
    return [Images(x, y, x, y, x, y, half, half, 10) for _ in range(n)]


def step_seconds(kind: str, n_tasks: int, settings: Settings) -> float:
    """Of a step on the last of so many tasks, when all others have been met."""
    stream = torch.Generator().manual_seed(0)
    setup = set_up(kind, made_up(n_tasks), settings)
    encoder = convnet(settings.filters, channels=3, size=32).init(stream)
    encoder = {name: leaf for name, leaf in encoder.items() if name.startswith("task.")}
    before = n_tasks - 1
    new = multicv.training_column(settings, before) if kind == "progressive" else setup.sharing.new
    own = {str(i): new(10, stream) for i in range(before)}
    state: State = {"shared": encoder, "own": own, "met": torch.ones(before)}
    in_epoch = batches(setup.sets[-1], settings)
    params, fixed = setup.sharing.join(state, None, setup.sharing.new(10, stream), in_epoch)
    task = task_stack(setup.sets, [before], [STEPS], settings.batch, stream)
    optimizer = setup.sharing.inner(settings.inner_lr, STEPS)
    began = time.perf_counter()
    adapt(setup.heldout, optimizer, params, fixed, task, STEPS, gradient=setup.sharing.gradient)
    return (time.perf_counter() - began) / STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 4, 8, 16], help="2 or more")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(filters=options.filters)
    encoder = convnet(options.filters, channels=3, size=32).init(torch.Generator())
    size = count({name: leaf for name, leaf in encoder.items() if name.startswith("task.")})
    best: dict[tuple[str, int], float] = {}
    for _ in range(options.rounds):
        for n_tasks in options.tasks:
            for kind in KINDS:
                seconds = step_seconds(kind, n_tasks, settings)
                best[kind, n_tasks] = min(best.get((kind, n_tasks), seconds), seconds)
    print(f"torch {torch.__version__}, one thread, {options.filters} filters: ms a step, parameters without heads")
    print("tasks  " + "  ".join(f"{name:>24}" for name in KINDS.values()))
    for n_tasks in options.tasks:
        cells = [
            f"{1000 * best[kind, n_tasks]:9.1f} {without_heads(kind, options.filters, size, n_tasks):14,}"
            for kind in KINDS
        ]
        print(f"{n_tasks:>5}  " + "  ".join(cells))


if __name__ == "__main__":
    main()
