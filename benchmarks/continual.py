"""Time a meta-step of continual sine regression and its parts, on one thread.

    python benchmarks/continual.py [--size paper] [--steps 5] [--operations]

Prints for a size of the experiment

- the seconds of a meta-step and of its two parts: the paths of all tasks, which are 100 steps one after another, and
  the gradient of the meta-objective at all their points, which go through the network at once;
- the same with the general objective, which computes the gradient and the parameters after the step at every point;
- the same for each of four runs that share a stack;
- the largest memory of the process; FLOPs a second, beside those of a matrix product; and the hours of `paper`.

Every time is the CPU time of the fastest of `--steps` meta-steps, so that other work on the machine is not counted.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch

from leapwarp import host, plan
from leapwarp.experiments.settings import of_size
from leapwarp.experiments.sine import run as experiment
from leapwarp.inner import adapt
from leapwarp.learners.continual import after_step, continual_warp
from leapwarp.models.warped_mlp import warped_mlp
from leapwarp.optim import adam, sgd
from leapwarp.problem import join_tasks, mean_square, supervised
from leapwarp.rng import generator
from leapwarp.trees import alone, stack
from leapwarp.worlds import sine

SIZES = Path(__file__).parents[1] / "workflow/sizes"
RUNS = 4  # in a stack
PAPER_META_STEPS = experiment.PUBLISHED.meta_steps


def fastest(run: Callable[[], object], times: int) -> float:
    """CPU seconds of the fastest of some calls, after one that is not counted."""
    run()
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def flops(settings: experiment.Settings) -> tuple[float, float]:
    """FLOPs of the paths and of the meta-gradient, two for each multiply-add of the linear layers.

    A forward pass counts once, a backward pass to inputs and weights once each; the inner gradient is a forward and a
    backward pass, and those of both when it is differentiated. Task weights at the points are constants.
    """
    hidden, depth = settings.hidden, settings.layers - 2
    task = 2 * (hidden * hidden * depth + 2 * hidden)
    warp = 2 * (settings.layers - 1) * 2 * hidden * settings.warp_hidden
    points = settings.meta_batch * sine.SUBTASKS * settings.steps
    seen = points * settings.n_validation * (sine.SUBTASKS + 1) / 2
    paths = points * settings.batch * (3 * task + 2 * warp)  # no gradient of the warps' weights
    after = 2 * 2 * hidden * settings.batch * depth  # the change by the step, at each layer
    meta = points * settings.batch * (4 * task + 6 * warp) + seen * (2 * task + 3 * warp + 3 * after)
    return paths, meta


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a meta-step of continual sine regression.")
    parser.add_argument("--size", default="paper", help="a file of workflow/sizes by its name, or one by its path")
    parser.add_argument("--steps", type=int, default=5, help="meta-steps to take the fastest of")
    parser.add_argument("--operations", action="store_true", help="list the operations that take most of the time")
    options = parser.parse_args()
    host.settle()
    size = plan.read_size(plan.size_path(options.size, SIZES), ["sine"])
    settings = of_size(experiment.EXPERIMENT, size.entries["sine"], size.name)["warpgrad"].settings
    model = warped_mlp(settings.hidden, settings.warp_hidden, settings.layers)
    problem, inner = supervised(model, mean_square), sgd(settings.inner_lr)
    learner = experiment.meta_learner(problem, settings)
    state = learner.init(alone(model.init(generator(0, "init"))))
    stream = generator(0, "meta")
    function = sine.draw(settings.meta_batch, stream)
    tasks = sine.tasks(function, stream, settings.batch, settings.steps, experiment.SEEN, settings.n_validation)

    a = torch.randn(1024, 1024)
    peak = 2 * 1024**3 / fastest(lambda: a @ a, 5) / 1e9
    whole = fastest(lambda: learner.step(state, tasks, [stream]), options.steps)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    theta, warp = learner.start(state, tasks)
    everything = sine.SUBTASKS * settings.steps
    path = fastest(lambda: adapt(problem, inner, theta, warp, tasks, everything), options.steps)
    losses = after_step(problem, inner)
    general = continual_warp(problem, inner, adam(settings.outer_lr), sine.SUBTASKS, settings.steps, losses)
    slow = fastest(lambda: general.step(state, tasks, [stream]), options.steps)
    slow_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    many = learner.init(stack([model.init(generator(seed, "init")) for seed in range(RUNS)]))
    theirs, streams = join_tasks([tasks] * RUNS), [stream] * RUNS
    each = fastest(lambda: learner.step(many, theirs, streams), options.steps) / RUNS
    of_path, of_meta = (count / 1e9 for count in flops(settings))
    print(f"torch {torch.__version__}, one thread, {size.name}: {settings.hidden} and {settings.warp_hidden} units")
    print(f"matrix product of 1024: {peak:.0f} GFLOP/s")
    print(f"meta-step     {whole:.3f} s  {1 / whole:.2f} a second, {memory:.0f} MB")
    print(f"  paths       {path:.3f} s  {of_path:.1f} GFLOP, {of_path / path:.0f} GFLOP/s")
    print(f"  objective   {whole - path:.3f} s  {of_meta:.1f} GFLOP, {of_meta / (whole - path):.0f} GFLOP/s")
    print(f"{RUNS} runs in a stack {each:.3f} s a run, {whole / each:.2f} times as many a second and run")
    print(f"with the general objective {slow:.3f} s, {slow_memory:.0f} MB")
    print(f"{PAPER_META_STEPS:,} meta-steps: {whole * PAPER_META_STEPS / 3600:.1f} h")
    if options.operations:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            learner.step(state, tasks, [stream])
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=30))


if __name__ == "__main__":
    main()
