"""Does Leap's pull-forward objective shorten gradient paths and keep their limit points? Theorem 1 (appendix B).

    snakemake theorem1

The theorem says that, with small enough steps, the expected length of the gradient paths falls from each meta-step to
the next, and each path keeps its limit point. Here there are a few tasks in the plane (`leapwarp.worlds.basins`), so
that expectations, gradients, Jacobians and limit points are exact. The update is that of the theorem: the gradient of
the pull-forward objective, in which the end of each segment is fixed (Equations 4 and 8), with all Jacobians unless the
method says otherwise. With mini-batches, a task uses a few of its points at each step. Lengths are always measured on
all points.

One run takes, on a core: smoke, a second; quick, two; paper, twelve. To expect: paths get seven times shorter, and in
some seeds longer again by up to two percent near their minimum. Limit points stay the same in one basin, and change if
there are several.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from leapwarp.experiments.base import Evaluated, Experiment, Record, Run
from leapwarp.inner import Fold, Step, adapt
from leapwarp.learners.base import State
from leapwarp.learners.leap import leap_fold
from leapwarp.optim import sgd
from leapwarp.problem import Problem, Task
from leapwarp.rng import generator
from leapwarp.trees import Params, repeat, zeros_like
from leapwarp.worlds.basins import Family, family

ROUNDING = 1e-10  # a smaller relative change of a path is not counted as longer
CONVERGED = 1e-6  # below this share of its first norm the meta-gradient's direction no longer counts


@dataclass(frozen=True)
class Settings:
    n_tasks: int
    points: int
    """points of a task"""
    ripple: float
    inner_lr: float
    """alpha"""
    inner_steps: int
    outer_lr: float
    """beta"""
    meta_steps: int
    limit_steps: int
    """steps in which a path is continued to its limit point, at `limit_lr`"""
    limit_lr: float
    limit_every: int
    """meta-steps between two measurements of the limit points"""
    length: bool = True
    """the path's length (p = 1) rather than its energy (p = 2)"""
    exact: bool = True
    """the Jacobians rather than the identity"""
    batch: int = 0
    """points that a task uses at a step of meta-training; 0 for all"""
    stabiliser: bool = False


class Method(NamedTuple):
    settings: Settings


# All values are our choice: the paper has a proof and no experiment.
PUBLISHED = Settings(
    n_tasks=8,
    points=32,
    ripple=0.05,  # a curvature of at most 0.31 against 0.5 and more: convex
    inner_lr=0.1,
    inner_steps=40,
    outer_lr=0.01,
    meta_steps=400,
    limit_steps=100,
    limit_lr=0.3,
    limit_every=20,
)
BETAS = (0.003, 0.01, 0.03, 0.1, 0.3)


def methods(settings: Settings) -> dict[str, Method]:
    """A method is one change of the update at alpha 0.1 and beta 0.01, or another value of alpha or beta.

    The smaller alpha has a smaller beta, since the theorem's bound on the steps depends on both: segments shrink with
    alpha, and the meta-step must stay small beside them.
    """
    changes: dict[str, dict[str, Any]] = {f"beta_{beta}": {"outer_lr": beta} for beta in BETAS}
    changes |= {"alpha_0.02": {"inner_lr": 0.02, "outer_lr": 0.001}, "alpha_1.0": {"inner_lr": 1.0}}
    changes |= {
        "energy": {"length": False},
        "identity": {"exact": False},
        "many_basins": {"ripple": 0.6},  # a curvature of down to -3.75, against 1.5 at most
        "batch_8": {"batch": 8},
        "batch_1": {"batch": 1},
    }
    return {name: Method(replace(settings, **change)) for name, change in changes.items()}


def world(settings: Settings, seed: int, device: torch.device) -> Family:
    """The tasks and the initialisation of a seed, the same for all methods, with mini-batches for every path."""
    draws = max(settings.inner_steps + 1, settings.limit_steps)
    return family(settings.n_tasks, settings.points, settings.ripple, draws, seed, device)


# ---------------------------------------------------------------- paths and their meta-gradient


class Segment(NamedTuple):
    before: Step
    after: Step


def walk(problem: Problem, start: Params, tasks: Task, rate: float, steps: int) -> list[Segment]:
    """The gradient paths of all tasks from one initialisation."""
    stack = repeat(start, len(tasks.index))
    return adapt(problem, sgd(rate), stack, {}, tasks, steps, lambda s, a, b: [*s, Segment(a, b)], []).total


def distance(near: Sequence[Step], far: Sequence[Step], length: bool) -> Tensor:
    """Sum over steps of |far - near|^p on the loss surfaces, mean over tasks; p = 1 for the length, 2 for the energy.

    If both come from the same path, this is its length (or energy). If `near` comes from another path, it is the
    theorem's objective with `far` fixed.
    """
    moved = torch.stack([b.params["theta"] - a.params["theta"] for a, b in zip(near, far, strict=True)])
    rise = torch.stack([b.loss - a.loss for a, b in zip(near, far, strict=True)])
    squared = moved.square().sum(-1) + rise.square()  # [step, task]
    return (squared.sqrt() if length else squared).sum(0).mean()


def meta_gradient(problem: Problem, path: list[Segment], tasks: Task, rate: float, fold: Fold, exact: bool) -> Params:
    """Equation 8: the mean over tasks of the sum over steps of J_i^T v_i, where v_i is the term that Leap's fold adds.

    The exact sum is computed from its end: sum_i J_i^T v_i = v_0 + (I - alpha H_0) (v_1 + (I - alpha H_1) (v_2 + ...)).
    """
    shares = [fold(zeros_like(before.params), before, after)["theta"] for before, after in path]  # [task, 2] each
    total = torch.zeros_like(shares[0])
    eye = torch.eye(2, dtype=total.dtype, device=total.device)
    # [step, task, 2, 2], or one for all tasks
    back = eye - rate * hessians(problem, path, tasks) if exact else eye.expand(len(path), 1, 2, 2)
    for share, slope in zip(reversed(shares), back.flip(0), strict=True):
        total = share + (slope @ total.unsqueeze(-1)).squeeze(-1)
    return {"theta": total.mean(0)}


def gradient_of_length(problem: Problem, start: Params, tasks: Task, settings: Settings) -> Tensor:
    """The gradient of the path's length (or energy), through all steps and with nothing fixed. -> [2]"""
    theta = start["theta"].detach().requires_grad_()
    stack = {"theta": theta.expand(len(tasks.index), 2)}
    keep = lambda found, before, after: [*found, Segment(before, after)]  # noqa: E731
    inner, steps = sgd(settings.inner_lr), settings.inner_steps
    path = adapt(problem, inner, stack, {}, tasks, steps, keep, [], differentiable=True).total
    near, far = [before for before, _ in path], [after for _, after in path]
    return torch.autograd.grad(distance(near, far, settings.length), theta)[0]


def hessians(problem: Problem, path: list[Segment], tasks: Task) -> Tensor:
    """Hessians of the loss at each point before a step, in one stack. -> [step, task, 2, 2]"""
    n_tasks, steps = len(tasks.index), len(path)
    who = torch.arange(n_tasks, device=tasks.x.device).repeat(steps)
    number = torch.arange(steps, device=tasks.x.device).repeat_interleave(n_tasks)
    batch = problem.draw(tasks, who, number)
    point = torch.cat([before.params["theta"] for before, _ in path])
    slope = grad(lambda theta: problem.loss({"theta": theta}, {}, batch).loss.sum())
    units = torch.eye(2, dtype=point.dtype, device=point.device).unsqueeze(1).expand(2, *point.shape)
    columns = vmap(lambda unit: jvp(slope, (point,), (unit,))[1])(units)  # [column, step * task, 2]
    return columns.permute(1, 2, 0).unflatten(0, (steps, n_tasks))


def limits(problem: Problem, path: list[Segment], tasks: Task, settings: Settings) -> Tensor:
    """The limit point of each path. -> [task, 2]"""
    end = path[-1].after.params
    return adapt(problem, sgd(settings.limit_lr), end, {}, tasks, settings.limit_steps).params["theta"]


# ---------------------------------------------------------------- a run


def measure(run: Run, state: State | None) -> Evaluated:
    """Iterate the update, and measure the paths. The step of a record is the meta-step.

    A run ends early if the path becomes ten times as long as the first one.
    """
    settings = run.method.settings
    problem, tasks, start = world(settings, run.seed, run.device)
    fold = leap_fold(settings.length, True, settings.stabiliser)
    alpha, steps = settings.inner_lr, settings.inner_steps
    records: list[Record] = []
    own: list[float] = []  # of the objective that the method shortens
    moved: list[Tensor] = []  # distance of limit points from the first ones, [task]
    uphill: list[bool] = []  # whether the descent of the frozen objective lengthens the path, however small the step
    broken, last, first_limits, first_norm = 0, None, None, None
    for s in range(settings.meta_steps + 1):
        path = walk(problem, start, tasks, alpha, steps)
        near, far = [before for before, _ in path], [after for _, after in path]
        lengths = {length: float(distance(near, far, length)) for length in (True, False)}
        own.append(lengths[settings.length])
        records += [("", s, "path_length", lengths[True]), ("", s, "path_energy", lengths[False])]
        if last is not None:  # the theorem asks of beta that the objective with frozen ends falls
            broken += float(distance(near, last, settings.length)) > own[-2] * (1 + ROUNDING)
        last = far
        if s % settings.limit_every == 0 or s == settings.meta_steps:
            found = limits(problem, path, tasks, settings)
            first_limits = found if first_limits is None else first_limits
            moved.append((found - first_limits).norm(dim=1).cpu())
            records.append(("", s, "limit_moved", float(moved[-1].max())))
            frozen = meta_gradient(problem, path, tasks, alpha, fold, settings.exact)["theta"]
            first_norm = frozen.norm() if first_norm is None else first_norm
            if float(frozen.norm()) > CONVERGED * float(first_norm):
                uphill.append(float((frozen * gradient_of_length(problem, start, tasks, settings)).sum()) < 0)
        if not own[-1] < 10 * own[0]:
            break
        drawn = tasks
        if settings.batch:
            shape = (settings.n_tasks, steps + 1, settings.batch)
            order = torch.randint(settings.points, shape, generator=generator(run.seed, "batches", s))
            drawn = tasks._replace(order=order.to(run.device))
            path = walk(problem, start, drawn, alpha, steps)
        slope = meta_gradient(problem, path, drawn, alpha, fold, settings.exact)
        start = {"theta": start["theta"] - settings.outer_lr * slope["theta"]}
    missing = settings.meta_steps + 1 - len(own)  # after divergence
    rises = sum(b > a * (1 + ROUNDING) for a, b in pairwise(own)) + missing
    records += [
        ("", None, "rises", rises),
        ("", None, "rise_share", rises / settings.meta_steps),
        ("", None, "overshoot", own[-1] / min(own) - 1),
        ("", None, "shortening", own[-1] / own[0]),
        ("", None, "half_steps", sum(value > own[0] / 2 for value in own) + missing),
        ("", None, "criterion_broken", broken + missing),
        ("", None, "uphill", sum(uphill) / len(uphill)),
    ]
    furthest = torch.stack(moved).max(0).values
    records += [(f"task {t}", None, "limit_distance", value) for t, value in enumerate(furthest.tolist())]
    return Evaluated(records)


EXPERIMENT = Experiment(PUBLISHED, methods, measure)
