"""Time and parameters of Multi-CV's methods against the number of tasks that were trained before.

    python benchmarks/multicv.py [--filters 64] [--tasks 2 4 8 16] [--rounds 5]

It times a training step of a task (batch 32, 32 x 32 x 3, 10 classes) on one thread, after training on several numbers
of tasks. Leap and finetuning have one encoder, HAT one with masks, and Progressive Nets a column for each task. Times
are the fastest of the rounds, in which the methods take turns.
"""

import argparse
import time

import torch

from leapwarp.experiments.multicv.run import ENCODER, HAT, PROGRESSIVE, Kind, Settings
from leapwarp.inner import adapt
from leapwarp.learners.base import State
from leapwarp.models.convnet import convnet
from leapwarp.trees import partition
from leapwarp.worlds.image_sets import Images, Part, batches, task_stack

KINDS = {"Leap, finetuning": ENCODER, "HAT": HAT, "Progressive Nets": PROGRESSIVE}
STEPS = 3


def made_up(n: int) -> list[Images]:
    stream = torch.Generator().manual_seed(0)
    x, y = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8, generator=stream), torch.arange(64) % 10
    half = torch.full((3, 1, 1), 0.5)
    part = Part(x, y, half, half)
    return [Images(part, part, 10) for _ in range(n)]


def step_seconds(kind: Kind, n_tasks: int, settings: Settings) -> float:
    """Seconds of a step on the last of `n_tasks` tasks, after all others were trained."""
    stream = torch.Generator().manual_seed(0)
    sets, before = made_up(n_tasks), n_tasks - 1
    _, sharing = kind.network(sets, before - 1, settings.filters)
    own = {str(i): sharing.new(10, stream) for i in range(before)}
    encoder, _ = partition(convnet(settings.filters, channels=3, size=32).init(stream), "task")
    state: State = {"shared": encoder, "own": own, "met": torch.ones(before)}
    problem, sharing = kind.network(sets, before, settings.filters)
    params, fixed = sharing.join(state, None, sharing.new(10, stream), batches(sets[-1], settings.batch))
    task = task_stack(sets, [before], [STEPS], settings.batch, stream)
    optimizer = sharing.inner(settings.inner_lr, STEPS)
    began = time.perf_counter()
    adapt(problem, optimizer, params, fixed, task, STEPS, gradient=sharing.gradient)
    return (time.perf_counter() - began) / STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 4, 8, 16], help="2 or more")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(filters=options.filters)
    best: dict[tuple[str, int], float] = {}
    for _ in range(options.rounds):
        for n_tasks in options.tasks:
            for name, kind in KINDS.items():
                seconds = step_seconds(kind, n_tasks, settings)
                best[name, n_tasks] = min(best.get((name, n_tasks), seconds), seconds)
    print(f"torch {torch.__version__}, one thread, {options.filters} filters: ms a step, parameters without heads")
    print("tasks  " + "  ".join(f"{name:>24}" for name in KINDS))
    for n_tasks in options.tasks:
        cells = [
            f"{1000 * best[name, n_tasks]:9.1f} {kind.parameters(options.filters, n_tasks):14,}"
            for name, kind in KINDS.items()
        ]
        print(f"{n_tasks:>5}  " + "  ".join(cells))


if __name__ == "__main__":
    main()
