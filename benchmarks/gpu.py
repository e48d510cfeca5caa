"""Time runs in one stack on a GPU: updates of the warps and steps of Leap, operation by operation and as CUDA graphs.

    python benchmarks/gpu.py                                        on the GPU of this machine, under ten minutes
    python benchmarks/gpu.py --device cpu --filters 2 --runs 1 2 --steps 2 --repeats 1     a trial without one

It prints

- a layer of a stack of networks, forwards and backwards, as a grouped convolution, the same with channels last, and as
  matrix products of unfolded images;
- for each width and number of runs the milliseconds of an update and run, of a step and task, FLOPs a second, their
  share of the card's peak (a matrix product of the same precision), and peak memory. A meta-step of the real learners
  is timed, with one task a run. The time of updates is that of `warp_leap` minus that of `leap`;
- a meta-step of Warp-Leap with grouped convolutions, with products, and with either in TF32, and the error of the
  gradient of the warps relative to float64;
- the hours of the experiments on Omniglot at `paper` by these speeds, with the stacks of its jobs.

The speeds of an H100 are stored in `h100.csv`. --rates h100.csv prints the hours by them, and needs no GPU.
"""

import argparse
import csv
import gc
import itertools
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from inner_loop import BATCH, forward_flops, leap_problem, made_up_tasks
from paper_hours import OMNIGLOT, STOPPED, at_paper, planned_at_paper
from torch import Tensor

from leapwarp import host, inner
from leapwarp.learners import Learner, leap, warp_leap
from leapwarp.learners.base import State
from leapwarp.learners.warpgrad import warp_gradient
from leapwarp.models import twice
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import sgd
from leapwarp.problem import Batch, Task
from leapwarp.trees import map_leaves, partition, stack

Rates = dict[tuple[str, int, int, str], float]
"""FLOPs a second of (kind of step, filters, runs, eager or captured)"""
SIDES = (28, 14, 7, 3)  # of the network's four layers


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(job: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The fastest of some calls, after one that is not counted."""
    job()
    best = float("inf")
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        job()
        wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def tasks_for(n_runs: int, steps: int, device: torch.device) -> Task:
    tasks = made_up_tasks(n_runs, 3 * steps + 1)
    return Task(*(field.to(device) if isinstance(field, torch.Tensor) else field for field in tasks))


def meta_step(
    build: Callable[..., Learner], filters: int, n_runs: int, steps: int, device: torch.device, capture: bool
) -> Callable[[], State]:
    """A meta-step of `n_runs` runs with a task each."""
    inner._captured_gradient.cache_clear()  # frees the memory of graphs that are no longer needed
    model = convnet(filters, warp=Warp() if build is warp_leap else None)
    problem = leap_problem(model)._replace(capture=capture)
    learner = build(problem, sgd(0.1), sgd(0.1), steps, n_runs)
    start = stack([model.init(torch.Generator().manual_seed(seed)) for seed in range(n_runs)])
    state, tasks = map_leaves(lambda leaf: leaf.to(device), learner.init(start)), tasks_for(n_runs, steps, device)

    def step() -> State:
        host.CAPTURE = capture
        return learner.step(state, tasks, [torch.Generator().manual_seed(seed) for seed in range(n_runs)])[0]

    return step


def allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def peak(device: torch.device, repeats: int) -> float:
    """FLOPs a second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 512
    a = torch.randn(side, side, device=device)
    return 2 * side**3 / seconds(lambda: a @ a, device, repeats)


def rates(options: argparse.Namespace, device: torch.device) -> Rates:
    """Print the table, and return it."""
    found, best = peak(device, options.repeats), {}
    print(f"peak, by a matrix product: {found / 1e12:.2f} TFLOP/s\n")
    print("| filters | runs | how | update and run [ms] | TFLOP/s | of peak | step and task [ms] | memory [MiB] |")
    print("|---|---|---|---|---|---|---|---|")
    for filters in options.filters:
        for n_runs in options.runs:
            for how in ("eager", "captured"):
                inner._captured_gradient.cache_clear()
                gc.collect()  # graphs of the last line, and the memory that they hold
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                arguments = filters, n_runs, options.steps, device, how == "captured"
                path = seconds(meta_step(leap, *arguments), device, options.repeats)
                both = seconds(meta_step(warp_leap, *arguments), device, options.repeats)
                memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")
                update = max(both - path, 1e-9) / options.steps
                step = path / (options.steps + 1)
                speeds = {
                    "update": n_runs * 10 * forward_flops(filters, True) / update,
                    "step": n_runs * 3 * forward_flops(filters, False) / step,
                }
                best |= {(kind, filters, n_runs, how): speed for kind, speed in speeds.items()}
                print(
                    f"| {filters} | {n_runs} | {how} | {1e3 * update / n_runs:.3f} | {speeds['update'] / 1e12:.3f} | "
                    f"{speeds['update'] / found:.2f} | {1e3 * step / n_runs:.3f} | {memory:.0f} |",
                    flush=True,
                )
    return best


def whole_steps(options: argparse.Namespace, device: torch.device) -> None:
    """A meta-step of Warp-Leap by either kind of convolution, in float32 and TF32."""
    filters = max(options.filters)
    print(f"\nA meta-step of Warp-Leap, {filters} filters, captured; how far the first gradient of the warps is off:\n")
    print("| runs | convolutions | precision | s | error |")
    print("|---|---|---|---|---|")
    for n_runs in options.compare:
        exact = one_update(filters, n_runs, device, torch.float64)
        for products, tf32 in itertools.product((False, True) if device.type == "cuda" else (False,), (False, True)):
            twice.PRODUCTS = products
            allow_tf32(tf32)
            apart = (one_update(filters, n_runs, device, torch.float32) - exact).norm() / exact.norm()
            took = seconds(meta_step(warp_leap, filters, n_runs, options.steps, device, True), device, 2)
            kind, precision = "products" if products else "grouped", "TF32" if tf32 else "float32"
            print(f"| {n_runs} | {kind} | {precision} | {took:.4f} | {float(apart):.1e} |", flush=True)
    twice.PRODUCTS = True
    allow_tf32(False)


def one_update(filters: int, n_runs: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The exact gradient of the warps at their start."""
    model, stream = convnet(filters, warp=Warp()), torch.Generator().manual_seed(0)
    drawn = stack([model.init(stream) for _ in range(n_runs)])
    params = {name: leaf.to(device, dtype) for name, leaf in drawn.items()}
    images = [torch.rand(n_runs, BATCH, 28, 28, generator=stream).to(device, dtype) for _ in range(2)]
    labels = torch.arange(BATCH, device=device).remainder(20).expand(n_runs, BATCH)
    warps, theta = partition(params, "warp")
    batches = [Batch(x, labels) for x in images]
    _, grads = warp_gradient(leap_problem(model), sgd(0.1), theta, warps, *batches, 2)
    return torch.cat([grads[name].flatten() for name in sorted(warps)]).double()


def convolutions(options: argparse.Namespace, device: torch.device) -> None:
    """One layer of each of many runs, forwards and backwards, in three ways."""
    print("\nForwards and backwards through a layer, ms:\n")
    print("| filters | runs | side | precision | grouped | grouped, channels last | products of unfolded images |")
    print("|---|---|---|---|---|---|---|")
    for filters in options.filters:
        n_runs = options.runs[-1]
        for side, tf32 in itertools.product(SIDES, (False, True)):
            allow_tf32(tf32)
            weight = torch.randn(n_runs, filters, filters, 3, 3, device=device, requires_grad=True)
            bias = torch.randn(n_runs, filters, device=device)
            x = torch.randn(BATCH, n_runs * filters, side, side, device=device, requires_grad=True)
            last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
            times = []
            for h, products in ((x, False), (last, False), (last, True)):
                twice.PRODUCTS = products
                made = twice.convolve(h, weight, bias)
                grad = torch.randn_like(made)

                def job(h: Tensor = h, grad: Tensor = grad, weight: Tensor = weight, bias: Tensor = bias) -> object:
                    return torch.autograd.grad(twice.convolve(h, weight, bias), (h, weight), grad)

                times.append(f"{1e3 * seconds(job, device, options.repeats):.3f}")
            precision = "TF32" if tf32 else "float32"
            print(f"| {filters} | {n_runs} | {side} | {precision} | " + " | ".join(times) + " |", flush=True)
    twice.PRODUCTS = True
    allow_tf32(False)


def hours(options: argparse.Namespace, found: Rates) -> None:
    """Hours of `paper` on one GPU, by the measured speeds and the stacks of its jobs.

    Between the stacks that were timed, the logarithm of the speed is interpolated in the logarithm of their size.
    """
    filters = max(key[1] for key in found)
    timed = sorted({key[2] for key in found if key[1] == filters})
    _, planned = planned_at_paper()
    print(f"\nHours of `paper`, at the speeds of {filters} filters (KFAC is not counted):\n")
    print("| experiment | method | runs | runs a job | GPU hours a job | GPU hours, all |")
    print("|---|---|---|---|---|---|")
    for experiment in OMNIGLOT[: options.experiments]:
        jobs, total = planned[experiment], 0.0
        together = jobs.seeds_per_job * jobs.n_tasks_per_job
        for name, runs, _, steps in at_paper(experiment, STOPPED["slow"]):
            spent = 0.0
            for often, cost in steps:
                stack = cost.stack * (together if cost.shared else 1)
                how = "captured" if cost.captured else "eager"
                speeds = [found[cost.kind, filters, n, how] for n in timed]
                speed = math.exp(np.interp(math.log(stack), np.log(timed), np.log(speeds)))
                spent += often * cost.flops / speed / 3600
            total += runs * spent
            print(f"| {experiment} | {name} | {runs} | {together} | {together * spent:.2f} | {runs * spent:.1f} |")
        print(f"| **{experiment}** | | | | | **{total:.1f}** |", flush=True)


def read_rates(path: str) -> Rates:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(r["kind"], int(r["filters"]), int(r["runs"]), r["how"]): float(r["flops_a_second"]) for r in rows}


def write_rates(path: str, found: Rates) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["kind", "filters", "runs", "how", "flops_a_second"])
        rows.writerows((*key, f"{speed:.4g}") for key, speed in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--filters", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 10, 70])
    parser.add_argument(
        "--compare", type=int, nargs="+", default=[10, 70], help="runs of the meta-steps that are compared"
    )
    parser.add_argument("--steps", type=int, default=10, help="steps on a task; updates of the warps in a meta-step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--experiments", type=int, default=len(OMNIGLOT), help="the number of filters for the hours")
    parser.add_argument("--out", metavar="CSV", help="where to write the speeds")
    parser.add_argument("--rates", metavar="CSV", help="take these speeds, measure nothing, and print the hours")
    options = parser.parse_args()
    host.settle()
    if options.rates:
        hours(options, read_rates(options.rates))
        return
    device = host.pick_device(options.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU core"
    print(f"torch {torch.__version__} on {card}, batches of {BATCH}, tasks of {options.steps} steps")
    convolutions(options, device)
    whole_steps(options, device)
    found = rates(options, device)
    if options.out:
        write_rates(options.out, found)
    hours(options, found)


if __name__ == "__main__":
    main()
