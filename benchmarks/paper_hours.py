"""Estimate the GPU and core hours of the Omniglot and few-shot experiments at `paper`, which has never been run.

    python benchmarks/paper_hours.py

It counts, on a CPU, the operations that PyTorch starts and the FLOPs of each kind of step, and multiplies them by the
number of such steps in a run. Times follow from the assumptions that it prints: on a GPU a step takes as long as
starting its operations or as its arithmetic, whichever is longer. Nothing was measured on a GPU.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from inner_loop import leap_problem, made_up_tasks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from leapwarp import host, plan
from leapwarp.check import read_yaml
from leapwarp.experiments.few_shot import run as few_shot
from leapwarp.experiments.inner_cost import run as inner_cost
from leapwarp.experiments.omniglot import Settings
from leapwarp.experiments.settings import of_size
from leapwarp.inner import adapt
from leapwarp.learners.leap import leap_fold
from leapwarp.learners.warpgrad import warp_gradient
from leapwarp.models.conv4 import conv4
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import sgd
from leapwarp.problem import supervised
from leapwarp.trees import partition, repeat, zeros_like

GPU = {"fast": (5e-6, 10e12), "slow": (10e-6, 2e12)}  # seconds to start an operation, FLOP/s in float32
CORE = 75e9  # FLOP/s that one core reached on these steps (benchmarks/README.md)
# Assumed meta-steps of omniglot_leap until its early stopping, which are not known; the settings allow 5,000.
STOPPED = {"fast": 50, "slow": 500}
ROOT = Path(__file__).parents[1]
OMNIGLOT = ("omniglot_warp", "omniglot_leap", "leap_ablation", "warp_ablation", "natural_gradient")
FEW_SHOT = ("few_shot", "few_shot_tiered")


class Cost(NamedTuple):
    operations: int
    flops: float
    kind: str = "step"
    """"step" of task training, or "update" of the warps"""
    stack: int = 1
    """tasks of one run that make this step together"""
    shared: bool = True
    """whether the runs of a job make it in one stack"""
    captured: bool = True
    """whether a GPU runs it as a CUDA graph"""


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.operations += 1
        return function(*arguments, **(keywords or {}))


def _counted(run: Callable[[], object]) -> Cost:
    with _Count() as count, FlopCounterMode(display=False) as flops:
        run()
    return Cost(count.operations, flops.get_total_flops())


@cache
def training_step(filters: int, n_tasks: int, batch: int, warp: Warp | None) -> Cost:
    """One step of `n_tasks` tasks in one stack, with Leap's segment: the difference of five steps and four."""
    model = convnet(filters, warp=warp)
    problem, tasks = leap_problem(model), made_up_tasks(n_tasks)
    params = model.init(torch.Generator().manual_seed(0))
    warps, params = partition(params, "warp") if warp else ({}, params)
    start, fixed = repeat(params, n_tasks), repeat(warps, n_tasks)

    def steps(n: int) -> Cost:
        return _counted(lambda: adapt(problem, sgd(0.1), start, fixed, tasks, n, leap_fold(), zeros_like(start)))

    more, less = steps(5), steps(4)
    # The FLOPs are those of one task times their number: the counter takes the gradient of a grouped convolution for
    # that of a full one.
    flops = more.flops - less.flops if n_tasks == 1 else n_tasks * training_step(filters, 1, 20, warp).flops
    return Cost(more.operations - less.operations, flops * batch / 20)


@cache
def warp_update(filters: int, warp: Warp, order: int) -> Cost:
    """One update of the warps, from one point of the buffer."""
    model = convnet(filters, warp=warp)
    problem, tasks = leap_problem(model), made_up_tasks(1)
    warps, theta = partition(model.init(torch.Generator().manual_seed(0)), "warp")
    zero = torch.zeros(1, dtype=torch.long)
    batches = [problem.draw(tasks, zero, torch.full_like(zero, k)) for k in (0, 1)]
    found = _counted(lambda: warp_gradient(problem, sgd(0.1), repeat(theta, 1), repeat(warps, 1), *batches, order))
    return found._replace(kind="update")


def steps_of(name: str, settings: Settings, warp: Warp | None, meta_steps: int) -> Iterator[tuple[float, Cost]]:
    """(number of steps, cost) of each kind of step in one run."""
    s = settings
    looks = 1 + 100 / 20 / 3 if s.stop_error else 1.0  # stopping evaluates 100 held-out images after every step
    if meta_steps and name.startswith("finetune"):  # one task after the other
        yield meta_steps * s.inner_steps * s.meta_batch, training_step(s.filters, 1, s.batch, warp)
    elif meta_steps:
        # Differentiating through an inner loop costs about twice as much as the loop itself.
        factor = 3 if name == "maml" else looks
        each = training_step(s.filters, s.meta_batch, s.batch, warp)
        yield factor * meta_steps * s.inner_steps, each._replace(stack=s.meta_batch, captured=name != "maml")
    if warp:
        # Offline, one point after the other; online, all tasks of a meta-batch at once: in fewer operations.
        each, online = warp_update(s.filters, warp, s.order), name.startswith("warp_leap_online")
        at_once = s.meta_batch if online else s.eta
        each = each._replace(flops=at_once * each.flops * s.batch / 20, stack=at_once, captured=not online)
        yield meta_steps * s.inner_steps * s.meta_batch / at_once, each
    if meta_steps and s.validate_every:
        each = training_step(s.filters, s.n_validation, s.batch, warp)
        each = each._replace(stack=s.n_validation, shared=False)
        yield looks * meta_steps / s.validate_every * s.inner_steps, each
    each = training_step(s.filters, s.n_test, s.batch, warp)
    yield looks * s.eval_steps, each._replace(stack=s.n_test, shared=False)


def few_shot_meta_step(method: few_shot.Method) -> Cost:
    """One meta-step, counted with 8 and 16 filters: the FLOPs of f filters are a f + b f^2."""
    s, counts = method.settings, []
    sizes = inner_cost.Settings(size=s.size, shots=s.train_shots, queries=s.queries)
    for filters in (8, 16):
        model = conv4(filters, few_shot.WAYS, s.size, method.extra(s))
        learner = method.learner(supervised(model), s)
        state = learner.init(repeat(model.init(torch.Generator().manual_seed(0)), 1))
        tasks = inner_cost.draw_task(sizes, learner.draws, 0, torch.device("cpu"))
        counts.append(_counted(lambda: learner.step(state, tasks, [torch.Generator()])))  # noqa: B023
    square = (counts[1].flops - 2 * counts[0].flops) / (16**2 - 2 * 8**2)
    line = (counts[0].flops - square * 8**2) / 8
    return Cost(counts[1].operations, line * s.filters + square * s.filters**2)


def hours(found: list[tuple[float, Cost]], start: float, speed: float) -> float:
    return sum(n * max(cost.operations * start, cost.flops / speed) for n, cost in found) / 3600


def planned_at_paper() -> tuple[plan.Size, dict[str, plan.Jobs]]:
    path, asked = ROOT / "workflow" / "sizes" / "paper.yaml", [*OMNIGLOT, *FEW_SHOT]
    config = read_yaml(ROOT / "config.yaml", "what to run") | {"experiments": asked}
    return plan.read_size(path, asked), plan.jobs(config, path)


def at_paper(experiment: str, stopped: int) -> Iterator[tuple[str, int, Settings, list[tuple[float, Cost]]]]:
    """(method, runs, settings, steps of a run) of an experiment on Omniglot; KFAC is not counted.

    Args:
        stopped: meta-steps until early stopping, if the settings have it.
    """
    size, planned = planned_at_paper()
    jobs = planned[experiment]
    methods = of_size(jobs.about.module("run").EXPERIMENT, size.entries[experiment], experiment)
    for name in jobs.methods:
        if name.startswith("kfac"):
            continue
        method, trains = methods[name], jobs.about.methods[name].trains
        settings = method.settings
        meta_steps = min(settings.meta_steps, stopped) if settings.patience else settings.meta_steps
        runs = len(jobs.seeds) * (len(jobs.n_tasks) if trains else 1)
        yield name, runs, settings, list(steps_of(name, settings, method.warp, meta_steps if trains else 0))


def main() -> None:
    host.settle()
    size, planned = planned_at_paper()
    for speed, (start, flops) in GPU.items():
        print(f"GPU, {speed}: {start * 1e6:.0f} us to start an operation, {flops / 1e12:.0f} TFLOP/s")
    print(f"core: {CORE / 1e9:.0f} GFLOP/s")
    for title, cost in (
        ("step of 20 tasks", training_step(64, 20, 20, None)),
        ("step of one task", training_step(64, 1, 20, None)),
        ("update of the warps", warp_update(64, Warp(), 2)),
    ):
        print(f"{title}: {cost.operations} operations, {cost.flops / 1e9:.1f} GFLOP")
    print(f"omniglot_leap stops after {STOPPED['fast']} meta-steps (fast) or {STOPPED['slow']} (slow, and core).\n")
    print("| experiment | method | runs | jobs | GPU hours a run | GPU hours, all | core hours a run |")
    print("|---|---|---|---|---|---|---|")
    for experiment in OMNIGLOT:
        jobs, total, jobs_total, runs_total = planned[experiment], [0.0, 0.0], 0, 0
        fast, slow = (list(at_paper(experiment, STOPPED[speed])) for speed in GPU)
        for (name, runs, _, few), (*_, found) in zip(fast, slow, strict=True):
            n_jobs = len(plan.state_files(jobs, name, jobs.seeds[0], jobs.seeds[-1]))
            n_jobs += sum(evaluated == name for evaluated, _, _ in plan.evaluations(jobs))
            each = {speed: hours(steps, *GPU[speed]) for speed, steps in (("fast", few), ("slow", found))}
            core = hours(found, 0.0, CORE)
            total = [total[0] + runs * each["fast"], total[1] + runs * each["slow"]]
            jobs_total, runs_total = jobs_total + n_jobs, runs_total + runs
            print(f"| {experiment} | {name} | {runs} | {n_jobs} | {each['fast']:.2f} to {each['slow']:.2f} | "
                  f"{runs * each['fast']:.0f} to {runs * each['slow']:.0f} | {core:.1f} |")  # fmt: skip
        print(f"| **{experiment}** | | {runs_total} | {jobs_total} | | **{total[0]:.0f} to {total[1]:.0f}** | |")
    print("\nfew-shot, meta-training alone (validation takes up to a third of it again):\n")
    print("| experiment | method | runs | GPU hours a run | core hours a run |")
    print("|---|---|---|---|---|")
    for experiment in FEW_SHOT:
        jobs = planned[experiment]
        methods = of_size(jobs.about.module("run").EXPERIMENT, size.entries[experiment], experiment)
        for name in jobs.methods:
            method = methods[name]
            found = [(float(method.settings.meta_steps), few_shot_meta_step(method))]
            fast, slow = (hours(found, start, flops) for start, flops in GPU.values())
            core, runs = hours(found, 0.0, CORE), len(jobs.seeds)
            print(f"| {experiment} | {name} | {runs} | {fast:.1f} to {slow:.1f} | {core:.0f} |")


if __name__ == "__main__":
    main()
