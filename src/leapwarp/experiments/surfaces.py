"""WarpGrad's synthetic experiment (appendix E, Figure 4): a warp of the plane that makes random surfaces easy to descend.

    python -m leapwarp.experiments.surfaces --profile quick --method warpgrad --n-tasks 0 --seeds 0 1 --out warpgrad.csv

A task is a random surface and a random start. The paper states neither how the warp is initialised nor its learning rate,
and they matter: every method has a list of rates, of which the one with the smallest area on validation surfaces, drawn
apart from the held-out ones, is taken, and how each rate did is in the rows. All methods start at the same points of the
surfaces: a warped learner begins where the warp takes it there.

One run takes, on a core: TIMES
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.evaluate import area
from leapwarp.fit import Fit, fit
from leapwarp.inner import adapt
from leapwarp.learners.base import State
from leapwarp.learners.online import online_warp
from leapwarp.models.omega import init, omega, preimage
from leapwarp.optim import Optimizer, adam, sgd
from leapwarp.problem import Problem, Task
from leapwarp.rng import generator
from leapwarp.trees import Params, map_tree, per_task, repeat
from leapwarp.worlds import surfaces
from leapwarp.worlds.surfaces import EDGE

REACHED = 1e-2  # a start is reached where the warp takes the learner no farther from it than this
ENOUGH = 0.99  # share of starts that a warp must reach to be chosen before all that do not


@dataclass(frozen=True)
class Settings:
    """The numbers of one method at one size."""

    steps: int = 100  # WarpGrad App. E
    inner_lr: float = 0.1  # WarpGrad App. E
    meta_steps: int = 100  # WarpGrad App. E
    starts: int = 10  # initialisations of a meta-step, on one new surface: WarpGrad App. E
    hidden: int = 30  # WarpGrad App. E
    n_test: int = 1000  # surfaces held out; the paper shows three
    n_validation: int = 1000  # surfaces on which rates are chosen
    rates: tuple[float, ...] = ()
    """what to choose from: task learning rates, or meta learning rates of Adam for the warps"""
    warp: str = "identity"
    """how the warp is initialised, see `models.omega`; the paper is silent"""
    peaks: bool = False
    """the other reading of the printed formula, see `worlds.surfaces`"""
    n_examples: int = 0
    """surfaces whose paths and heights are kept for Figure 4"""
    lattice: int = 51
    checkpoint_every: int = 10


PAPER = Settings()
QUICK = PAPER
SMOKE = replace(PAPER, meta_steps=3, starts=3, steps=10, n_test=20, n_validation=20, lattice=11)
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}


class Method(NamedTuple):
    settings: Settings
    optimizer: Callable[[float], Optimizer] | None = None
    """of a learner on the surface as it is, by its rate; None for a warp, under which it is gradient descent"""
    pretrains: bool = False  # on surfaces without number, so that there is no count of tasks to report


def methods(settings: Settings) -> dict[str, Method]:
    """The learners of the table, each with what sets it apart from `settings`; `_peaks` is the other reading."""
    task_rates = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    warped = replace(settings, rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1))
    shown = replace(warped, n_examples=4)
    found = {
        "gd": Method(replace(settings, rates=(settings.inner_lr,)), sgd),
        "gd_tuned": Method(replace(settings, rates=task_rates), sgd),
        "adam": Method(replace(settings, rates=task_rates), adam),
        "warpgrad": Method(shown),
        "warpgrad_residual": Method(replace(warped, warp="residual")),
        "warpgrad_plain": Method(replace(warped, warp="plain")),
    }
    peaks = {
        f"{name}_peaks": method._replace(settings=replace(method.settings, peaks=True))
        for name, method in found.items()
        if name in ("gd", "gd_tuned", "adam", "warpgrad")
    }
    return found | peaks


# ---------------------------------------------------------------- several warps at a time


def share(warps: Params, n_tasks: int) -> Params:
    """Give each set of warps, [set, ...], its equal part of the tasks, in turn. -> [task, ...]"""

    def spread(leaf: Tensor) -> Tensor:
        copies = n_tasks // len(leaf)
        return leaf.unsqueeze(1).expand(len(leaf), copies, *leaf.shape[1:]).reshape(n_tasks, *leaf.shape[1:])

    return map_tree(spread, warps)


def each_at_its_rate(optimizer: Optimizer, rates: Tensor) -> Optimizer:
    """An optimizer of learning rate 1 made to move set i of a stack, [set, ...], at rates[i]."""

    def update(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        moved, state = optimizer.update(params, grads, state)
        return map_tree(lambda p, q: p + per_task(rates, p) * (q - p), params, moved), state

    return Optimizer(optimizer.init, update)


# ---------------------------------------------------------------- learning and measuring


class Paths(NamedTuple):
    """Learning on a stack of surfaces."""

    own: Tensor
    """[task, point, 2] the learner's own coordinates (theta), before the first step and after each"""
    place: Tensor
    """[task, point, 2] where that is on the surface"""
    height: Tensor
    """[task, point]"""


def descend(problem: Problem, optimizer: Optimizer, begin: Tensor, warp: Params, tasks: Task, method: Method) -> Paths:
    """Adapt to all of `tasks` from `begin` [task, 2], with the warp (of one task; empty for none) held."""
    settings, own, place = method.settings, [], []
    fixed = repeat(warp, len(begin))

    def observe(step: int, params: Params, stats: Params) -> None:
        own.append(params["x"].detach())
        place.append(omega(fixed, own[-1], settings.warp != "plain") if warp else own[-1])

    adapt(problem, optimizer, {"x": begin}, fixed, tasks, settings.steps, observe=observe)
    places = torch.stack(place, 1).detach()
    height = surfaces.height(places, tasks.y[:, None], settings.peaks)
    return Paths(torch.stack(own, 1), places, height)


def gaps(paths: Paths, tasks: Task, peaks: bool) -> Tensor:
    """Heights between 0, the lowest point of the domain, and 1, the highest; 0 on a flat surface. -> [task, point]"""
    low, high = surfaces.extremes(tasks.y, peaks)
    span = torch.where(high > low, high - low, 1.0)
    return (paths.height - low[:, None]) / span[:, None]


def draw_tasks(n: int, seed: int, name: str, settings: Settings, device: torch.device) -> Task:
    stream = generator(seed, name)
    surface, start = surfaces.draw(n, stream), surfaces.starts(n, stream)
    return surfaces.tasks(surface.to(device), start.to(device), settings.steps)


def meta_train(
    problem: Problem,
    settings: Settings,
    begin: Callable[[Params, Task], Params],
    seed: int,
    device: torch.device,
    checkpoints: Path | None,
    name: str,
    identity: dict[str, Any],
) -> tuple[State, float]:
    """One warp for each meta learning rate, all from the same initial warp and on the same tasks. -> warps, seconds"""
    n = len(settings.rates)
    outer = each_at_its_rate(adam(1.0), torch.tensor(settings.rates, device=device))
    learner = online_warp(problem, sgd(settings.inner_lr), outer, settings.steps, begin, share)
    first = {k: leaf.to(device) for k, leaf in init(settings.warp, generator(seed, "warp"), settings.hidden).items()}

    def sample(k: int) -> Task:
        stream = generator(seed, "meta", k)
        surface = surfaces.draw(1, stream).expand(settings.starts, -1)
        start = surfaces.starts(settings.starts, stream)
        return surfaces.tasks(surface.repeat(n, 1).to(device), start.repeat(n, 1).to(device), settings.steps)

    checkpoint = checkpoints / f"seed{seed}.pt" if checkpoints else None
    how = Fit(settings.meta_steps, checkpoint=checkpoint, checkpoint_every=settings.checkpoint_every)
    stacked = map_tree(torch.clone, repeat(first, n))
    fitted = fit(learner, stacked, sample, how, seed, f"{name}, seed {seed}", identity)
    return fitted.state["warp"], fitted.seconds


def run(
    data: Any,
    method: Method,
    name: str,
    n_tasks: int,
    seed: int,
    device: torch.device,
    checkpoints: Path | None,
    identity: dict[str, Any],
) -> tuple[list[tuple[str, int | None, str, float]], float]:
    """One run: meta-train where there is a warp, choose the rate on validation surfaces, learn the held-out ones."""
    began, settings = time.monotonic(), method.settings
    skip, earlier = settings.warp != "plain", 0.0
    if method.optimizer is None:

        def start(warp: Params, x: Tensor) -> Tensor:
            return preimage(warp, x, skip)

        problem = surfaces.problem(settings.peaks, lambda params: omega(params, params["x"], skip))
        warps, seconds = meta_train(
            problem,
            settings,
            lambda warp, tasks: {"x": start(warp, tasks.x)},
            seed,
            device,
            checkpoints,
            name,
            identity,
        )
        earlier = seconds
        began = time.monotonic()
        choices = [
            (sgd(settings.inner_lr), {k: leaf[i] for k, leaf in warps.items()}) for i in range(len(settings.rates))
        ]
    else:
        problem = surfaces.problem(settings.peaks)
        choices = [(method.optimizer(rate), {}) for rate in settings.rates]

        def start(warp: Params, x: Tensor) -> Tensor:
            return x

    def learn(choice: tuple[Optimizer, Params], tasks: Task) -> Paths:
        optimizer, warp = choice
        begin = start(repeat(warp, len(tasks.x)), tasks.x)
        return descend(problem, optimizer, begin, warp, tasks, method)

    records: list[tuple[str, int | None, str, float]] = []
    validation = draw_tasks(settings.n_validation, seed, "validation", settings, device)
    found = []
    for rate, choice in zip(settings.rates, choices, strict=True):
        paths = learn(choice, validation)
        mean_area, arrived = float(area(gaps(paths, validation, settings.peaks)).mean()), reached(paths, validation)
        found.append((arrived < ENOUGH, mean_area))
        values = {"sweep_area": mean_area, "sweep_left": float(left(paths).mean()), "sweep_reached": arrived}
        records += [(f"rate {rate:g}", None, metric, value) for metric, value in values.items()]
    best = min(range(len(found)), key=found.__getitem__)
    records.append(("", None, "rate", settings.rates[best]))

    test = draw_tasks(settings.n_test, seed, "test", settings, device)
    paths = learn(choices[best], test)
    gap = gaps(paths, test, settings.peaks)
    records.append(("", None, "reached", reached(paths, test)))
    records += [("", k, "gap", float(v)) for k, v in enumerate(gap.mean(0))]
    values = {
        "final_height": paths.height[:, -1],
        "height_area": area(paths.height),
        "final_gap": gap[:, -1],
        "gap_area": area(gap),
        "left": left(paths),
    }
    for metric, of_tasks in values.items():
        records += [(f"surface{i:04d}", None, metric, float(v)) for i, v in enumerate(of_tasks)]
    if settings.n_examples and seed == 0:
        records += examples(choices[best][1], test, paths, gap, method)
    return records, earlier + time.monotonic() - began


def reached(paths: Paths, tasks: Task) -> float:
    """The share of tasks that the learner begins where it should."""
    return float(((paths.place[:, 0] - tasks.x).norm(dim=1) < REACHED).float().mean())


def left(paths: Paths) -> Tensor:
    """1 where the learner ends outside the domain. -> [task]"""
    return (paths.place[:, -1].abs().amax(1) > EDGE).float()


if __name__ == "__main__":
    pass
