"""Time runs in one stack on a GPU: updates of the warps and steps of Leap, operation by operation and as CUDA graphs.

    python benchmarks/gpu.py                                        on the GPU of this machine, under ten minutes
    python benchmarks/gpu.py --device cpu --filters 2 --runs 1 2 --steps 2 --repeats 1     a trial without one

For each width and number of runs it prints the milliseconds of an update and run, of a step and task, FLOPs a second,
their share of the card's peak (a matrix product of the same precision), and peak memory. A meta-step of the real
learners is timed, with one task a run: what `warp_leap` takes beyond `leap` is its updates. Then it prints

- the same in TF32, with the largest difference that it makes to a state after one meta-step;
- a stack of convolutions, forwards and backwards, as a grouped convolution, channels last, and as matrix products of
  unfolded images;
- the hours of the experiments on Omniglot at `paper` by these rates, all runs of a method in one stack.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from inner_loop import BATCH, forward_flops, leap_problem, made_up_tasks
from paper_hours import OMNIGLOT, STOPPED, at_paper

from leapwarp import host
from leapwarp.learners import Learner, leap, warp_leap
from leapwarp.learners.base import State
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import sgd
from leapwarp.problem import Task
from leapwarp.trees import map_leaves, stack

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
    """A meta-step of so many runs with a task each."""
    model = convnet(filters, warp=Warp() if build is warp_leap else None)
    problem = leap_problem(model)._replace(capture=capture)
    learner = build(problem, sgd(0.1), sgd(0.1), steps, n_runs)
    start = stack([model.init(torch.Generator().manual_seed(seed)) for seed in range(n_runs)])
    state, tasks = map_leaves(lambda leaf: leaf.to(device), learner.init(start)), tasks_for(n_runs, steps, device)

    def step() -> State:
        host.CAPTURE = capture
        return learner.step(state, tasks, [torch.Generator().manual_seed(seed) for seed in range(n_runs)])[0]

    return step


def peak(device: torch.device, repeats: int) -> float:
    """FLOPs a second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 512
    a = torch.randn(side, side, device=device)
    return 2 * side**3 / seconds(lambda: a @ a, device, repeats)


def rates(options: argparse.Namespace, device: torch.device) -> dict[tuple[str, int, int], float]:
    """Print the table. -> FLOPs a second of (kind of step, filters, runs), captured"""
    found, best = peak(device, options.repeats), {}
    print(f"peak, by a matrix product: {found / 1e12:.2f} TFLOP/s\n")
    print("| filters | runs | how | update and run [ms] | TFLOP/s | of peak | step and task [ms] | memory [MiB] |")
    print("|---|---|---|---|---|---|---|---|")
    for filters in options.filters:
        for n_runs in options.runs:
            for how in ("eager", "captured"):
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
                best |= {(kind, filters, n_runs): speed for kind, speed in speeds.items()}
                print(
                    f"| {filters} | {n_runs} | {how} | {1e3 * update / n_runs:.3f} | {speeds['update'] / 1e12:.3f} | "
                    f"{speeds['update'] / found:.2f} | {1e3 * step / n_runs:.3f} | {memory:.0f} |",
                    flush=True,
                )
    return best


def in_tf32(options: argparse.Namespace, device: torch.device) -> None:
    filters, n_runs = options.filters[-1], options.runs[-1]
    step = meta_step(warp_leap, filters, n_runs, options.steps, device, True)
    exact, in_float32 = step(), seconds(step, device, options.repeats)
    for switch in (torch.backends.cuda.matmul, torch.backends.cudnn):
        switch.allow_tf32 = True
    step = meta_step(warp_leap, filters, n_runs, options.steps, device, True)
    rough, in_less = step(), seconds(step, device, options.repeats)
    for switch in (torch.backends.cuda.matmul, torch.backends.cudnn):
        switch.allow_tf32 = False
    change = max(float((exact["warp"][name] - rough["warp"][name]).abs().max()) for name in exact["warp"])
    print(
        f"\nTF32, {filters} filters, {n_runs} runs: a meta-step of Warp-Leap in {in_less:.3f} s, in float32 "
        f"{in_float32:.3f} s; warps differ by {change:.1e} at most after {options.steps} updates."
    )


def convolutions(options: argparse.Namespace, device: torch.device) -> None:
    """One layer of each of many runs, forwards and backwards, in three ways."""
    print("\n| filters | runs | side | grouped [ms] | grouped, channels last | products of unfolded images |")
    print("|---|---|---|---|---|---|")
    for filters in options.filters:
        n_runs = options.runs[-1]
        for side in SIDES:
            x = torch.randn(n_runs, BATCH, filters, side, side, device=device)
            weight = torch.randn(n_runs, filters, filters, 3, 3, device=device, requires_grad=True)
            flat = x.transpose(0, 1).reshape(BATCH, n_runs * filters, side, side)
            last = flat.to(memory_format=torch.channels_last)
            ways = {
                "grouped": lambda x=flat, w=weight: F.conv2d(x, w.flatten(0, 1), padding=1, groups=len(w)),
                "last": lambda x=last, w=weight: F.conv2d(x, w.flatten(0, 1), padding=1, groups=len(w)),
                "products": lambda x=x, w=weight: torch.einsum(
                    "rok,rbkp->rbop", w.flatten(2), F.unfold(x.flatten(0, 1), 3, padding=1).unflatten(0, x.shape[:2])
                ),
            }
            times = []
            for way in ways.values():
                job = lambda way=way, w=weight: torch.autograd.grad(way().square().sum(), w)  # noqa: E731
                times.append(1e3 * seconds(job, device, options.repeats))
            print(
                f"| {filters} | {n_runs} | {side} | " + " | ".join(f"{each:.3f}" for each in times) + " |", flush=True
            )


def hours(options: argparse.Namespace, found: dict[tuple[str, int, int], float]) -> None:
    """Hours of `paper` by the speed of the widest network and the most runs that were timed."""
    at = options.filters[-1], options.runs[-1]
    print(f"\nHours of `paper`, all runs stacked, at the speed of {at[0]} filters and {at[1]} runs:\n")
    print("| experiment | method | runs | GPU hours, all |")
    print("|---|---|---|---|")
    for experiment in OMNIGLOT[: options.experiments]:
        total = 0.0
        for name, runs, _, steps in at_paper(experiment, STOPPED["slow"]):
            spent = sum(n * cost.flops / found[cost.kind, *at] for n, cost in steps)
            total += runs * spent / 3600
            print(f"| {experiment} | {name} | {runs} | {runs * spent / 3600:.2f} |")
        print(f"| **{experiment}** | | | **{total:.1f}** |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 10, 70])
    parser.add_argument("--steps", type=int, default=10, help="of a task: updates of the warps in a meta-step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--experiments", type=int, default=len(OMNIGLOT), help="how many to count the hours of")
    options = parser.parse_args()
    host.settle()
    device = host.pick_device(options.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU core"
    print(f"torch {torch.__version__} on {card}, batches of {BATCH}, tasks of {options.steps} steps")
    found = rates(options, device)
    in_tf32(options, device)
    convolutions(options, device)
    hours(options, found)


if __name__ == "__main__":
    main()
