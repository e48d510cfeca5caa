"""WarpGrad's experiment on random surfaces (appendix E, Figure 4): a warp of the plane for gradient descent.

    snakemake surfaces

A task is a random surface and a random start. The paper gives neither the initial warp nor its meta learning rate, and
both matter. So every method has a list of rates, and the one with the smallest area on validation surfaces is used. The
rows have the results of all rates. Methods differ in the initial warp. All start at the same points of the surfaces: a
warped learner starts at a preimage of the point under its warp.

One run takes, on a core: smoke, a second; quick and paper, 4 to 12 s for a warp and 2 s for the others. To expect:
WarpGrad is hardly better than gradient descent at its best meta learning rate, worse from 0.003 on, and no better where
gradient descent struggles. Adam is far lower than both, but outside the domain in half of its runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.evaluate import area
from leapwarp.experiments.base import Evaluated, Experiment, Record, Run, Trained
from leapwarp.fit import Fit, fit, moved
from leapwarp.inner import adapt
from leapwarp.learners.base import Diverged, Info, Learner, State
from leapwarp.learners.online import online_warp
from leapwarp.models.omega import Kind, init, omega, preimage
from leapwarp.optim import Optimizer, adam, sgd
from leapwarp.problem import Problem, Task
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, map_leaves, map_tree, n_runs, per_task, repeat, stack
from leapwarp.worlds import surfaces
from leapwarp.worlds.surfaces import EDGE, Range

REACHED = 1e-2  # a start counts as reached if the warp takes the learner at least this close to it
ENOUGH = 0.99  # share of starts that a warp must reach; others are chosen only if no warp does


@dataclass(frozen=True)
class Settings:
    """The settings of one method."""

    steps: int = 100  # WarpGrad App. E
    inner_lr: float = 0.1  # WarpGrad App. E
    meta_steps: int = 100  # WarpGrad App. E
    starts: int = 10  # initialisations of a meta-step, on one new surface: WarpGrad App. E
    hidden: int = 30  # WarpGrad App. E
    n_test: int = 1000  # surfaces held out; the paper shows three
    n_validation: int = 1000  # surfaces on which rates are chosen
    rates: tuple[float, ...] = ()
    """rates to choose from: task learning rates, or meta learning rates of Adam for the warps"""
    warp: Kind = "identity"
    """how the warp is initialised, see `models.omega`; the paper is silent"""
    peaks: bool = False
    """the other reading of the printed formula, see `worlds.surfaces`"""
    n_examples: int = 0
    """surfaces whose paths and heights are kept for Figure 4"""
    lattice: int = 51
    checkpoint_every: int = 10


PUBLISHED = Settings()
EVALUATION = frozenset({"n_test", "n_validation", "n_examples", "lattice"})


class Method(NamedTuple):
    settings: Settings
    optimizer: Callable[[float], Optimizer] = sgd
    """rate -> the optimizer of a learner without a warp. With a warp it is gradient descent at `inner_lr`"""


def methods(settings: Settings) -> dict[str, Method]:
    """The learners of the table, each with its own settings. `_peaks` is the other reading of the formula."""
    task_rates = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    warped = replace(settings, rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1))
    shown = replace(warped, n_examples=4)
    found = {
        "gd": Method(replace(settings, rates=(settings.inner_lr,))),
        "gd_tuned": Method(replace(settings, rates=task_rates)),
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


# ---------------------------------------------------------------- training: a warp for each rate, all at a time


def each_at_its_rate(optimizer: Optimizer, rates: Tensor) -> Optimizer:
    """An optimizer of learning rate 1, changed so that set i of every run in a stack [run x set, ...] has rates[i]."""

    def update(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        moved, state = optimizer.update(params, grads, state)
        each = rates.repeat(n_runs(params) // len(rates))
        return map_tree(lambda p, q: p + per_task(each, p) * (q - p), params, moved), state

    return Optimizer(optimizer.init, update)


def in_sets(learner: Learner, n: int) -> Learner:
    """A learner whose runs have `n` independent sets of warps each, [run, set, ...], from a learner of single runs."""

    def flat(tree: Any) -> Any:
        return map_leaves(lambda leaf: leaf.flatten(0, 1), tree)

    def deep(tree: Any) -> Any:
        return map_leaves(lambda leaf: leaf.unflatten(0, (-1, n)), tree)

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        try:
            after, info = learner.step(flat(state), tasks, generators)
        except Diverged as error:
            raise Diverged(str(error), (deep(error.after[0]), error.after[1])) from None
        return deep(after), info

    return learner._replace(
        init=lambda params: deep(learner.init(flat(params))),
        step=step,
        start=lambda state, tasks: learner.start(flat(state), tasks),
    )


def under_warp(settings: Settings) -> Problem:
    skip = settings.warp != "plain"
    return surfaces.problem(settings.peaks, lambda params: omega(params, params["x"], skip))


def train(runs: Sequence[Run]) -> list[Trained]:
    """Meta-train sets of warps, one for each meta learning rate, on a seed's surfaces and starts."""
    settings, device = runs[0].method.settings, runs[0].device
    n, skip = len(settings.rates), settings.warp != "plain"
    inner, outer = sgd(settings.inner_lr), each_at_its_rate(adam(1.0), torch.tensor(settings.rates, device=device))

    def begin(warp: Params, tasks: Task) -> Params:
        return {"x": preimage(warp, tasks.x, skip)}

    def sample(k: int, i: int) -> Task:
        """The surface and the starts of meta-step k, once for each set."""
        stream = generator(runs[i].seed, "meta", k)
        surface = surfaces.draw(1, stream).expand(settings.starts, -1)
        start = surfaces.starts(settings.starts, stream)
        return surfaces.tasks(surface.repeat(n, 1).to(device), start.repeat(n, 1).to(device), settings.steps)

    learner = in_sets(online_warp(under_warp(settings), inner, outer, settings.steps, begin), n)
    first = [init(settings.warp, generator(run.seed, "warp"), settings.hidden) for run in runs]
    params = stack([map_tree(lambda leaf: leaf.expand(n, *leaf.shape).to(device), each) for each in first])
    how = Fit(settings.meta_steps, checkpoints=runs[0].checkpoints, checkpoint_every=settings.checkpoint_every)
    return [
        Trained(fitted.state, [("", None, "meta_seconds", fitted.seconds)], fitted.seconds, fitted.error)
        for fitted in fit(learner, params, sample, how, [run.member for run in runs])
    ]


# ---------------------------------------------------------------- learning and measuring


class Way(NamedTuple):
    """A learner on surfaces: its optimizer and its warp."""

    problem: Problem
    optimizer: Optimizer
    warp: Params
    """the warp's parameters for one task; empty without a warp"""


def ways(run: Run, state: State | None) -> list[Way]:
    """The learners that a run chooses from, one for each rate."""
    settings = run.method.settings
    if state is None:
        problem = surfaces.problem(settings.peaks)
        return [Way(problem, run.method.optimizer(rate), {}) for rate in settings.rates]
    problem, inner, n = under_warp(settings), sgd(settings.inner_lr), len(settings.rates)
    return [Way(problem, inner, {name: leaf[i] for name, leaf in state["warp"].items()}) for i in range(n)]


class Paths(NamedTuple):
    """The result of learning on a stack of surfaces."""

    own: Tensor
    """[task, point, 2] the learner's own coordinates (theta), before the first step and after each"""
    place: Tensor
    """[task, point, 2] the points on the surface"""
    height: Tensor
    """[task, point]"""


def learn(way: Way, tasks: Task, settings: Settings) -> Paths:
    """Adapt to all `tasks` from their starts."""
    skip, fixed = settings.warp != "plain", repeat(way.warp, len(tasks.x))
    own, place = [], []

    def observe(step: int, params: Params, stats: Params) -> None:
        own.append(params["x"])
        place.append(omega(fixed, own[-1], skip) if fixed else own[-1])

    begin = preimage(fixed, tasks.x, skip) if fixed else tasks.x
    adapt(way.problem, way.optimizer, {"x": begin}, fixed, tasks, settings.steps, observe=observe)
    places = torch.stack(place, 1)
    return Paths(torch.stack(own, 1), places, surfaces.height(places, tasks.y[:, None], settings.peaks))


def judge(run: Run, state: State | None) -> Evaluated:
    """Choose a rate that keeps heights finite on validation surfaces, and learn the held-out ones with it."""
    settings, choices = run.method.settings, ways(run, state)
    records: list[Record] = []

    def draw_tasks(n: int, name: str) -> Task:
        return surfaces.draw_tasks(n, generator(run.seed, name), settings.steps, run.device)

    validation = draw_tasks(settings.n_validation, "validation")
    span = surfaces.extremes(validation.y, settings.peaks)
    found: dict[int, tuple[bool, float]] = {}
    for i, (way, rate) in enumerate(zip(choices, settings.rates, strict=True)):
        paths = learn(way, validation, settings)
        if not paths.height.isfinite().all():
            continue
        mean_area, arrived = float(area(span.gap(paths.height)).mean()), reached(paths, validation)
        found[i] = (arrived < ENOUGH, mean_area)
        values = {"sweep_area": mean_area, "sweep_left": float(left(paths).mean()), "sweep_reached": arrived}
        records += [(f"rate {rate:g}", None, metric, value) for metric, value in values.items()]
    if not found:
        raise FloatingPointError(
            f"no rate of {', '.join(map(str, settings.rates))} keeps heights finite: add lower ones."
        )
    best = min(found, key=found.__getitem__)

    test = draw_tasks(settings.n_test, "test")
    paths, span = learn(choices[best], test, settings), surfaces.extremes(test.y, settings.peaks)
    gap = span.gap(paths.height)
    records += [("", None, "rate", settings.rates[best]), ("", None, "reached", reached(paths, test))]
    if state:
        began = {"warp": init(settings.warp, generator(run.seed, "warp"), settings.hidden)}
        way = moved(alone({"warp": choices[best].warp}), alone(map_leaves(lambda leaf: leaf.to(run.device), began)))
        records += [("", None, name, of_run) for name, (of_run,) in way.items()]
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
    if settings.n_examples and run.seed == 0:
        records += examples(choices[best].warp, paths, test, span, settings)
    return Evaluated(records)


def reached(paths: Paths, tasks: Task) -> float:
    """The share of tasks on which the learner starts at the given point of the surface."""
    return float(((paths.place[:, 0] - tasks.x).norm(dim=1) < REACHED).float().mean())


def left(paths: Paths) -> Tensor:
    """1 where the learner ends outside the domain. -> [task]"""
    return (paths.place[:, -1].abs().amax(1) > EDGE).float()


def struggles(paths: Paths, span: Range, settings: Settings) -> list[int]:
    """The numbers of tasks that are hard for gradient descent, chosen by the paths of gradient descent alone.

    All paths stay in the domain. On the first half of the tasks gradient descent ends highest, although it has moved by
    more than 1. On the other half its path is longest.
    """
    way = (paths.place[:, 1:] - paths.place[:, :-1]).norm(dim=2).sum(1)
    inside = paths.place.abs().amax((1, 2)) <= EDGE
    gap = span.gap(paths.height)[:, -1]
    first = settings.n_examples // 2
    chosen = torch.where(inside & (way > 1), gap, -1.0).argsort(descending=True)[:first].tolist()
    longest = torch.where(inside, way, -1.0).argsort(descending=True).tolist()
    return chosen + [i for i in longest if i not in chosen][: settings.n_examples - first]


def examples(warp: Params, paths: Paths, tasks: Task, span: Range, settings: Settings) -> list[Record]:
    """Records for Figure 4: both learners' paths and the heights around them, on the surface and under the warp.

    The step of a record is the step of a path, or the number of a point of a lattice. The centre and the half-width of
    the lattice are records too.
    """
    native = learn(Way(surfaces.problem(settings.peaks), sgd(settings.inner_lr), {}), tasks, settings)
    lattice = surfaces.grid(settings.lattice).to(tasks.x)
    domains = {"native": lattice, "warped": preimage(repeat(warp, len(lattice)), lattice)}
    records: list[Record] = []
    for rank, i in enumerate(struggles(native, span, settings)):
        many = repeat(warp, settings.steps + 1)
        shown = {
            "native_gd": native.place[i],
            "native_warp": paths.place[i],
            "warped_gd": preimage(many, native.place[i]),
            "warped_warp": paths.own[i],
        }
        task = f"surface{i:04d}"
        records.append((task, None, "example", rank))
        for metric, path in shown.items():
            records += [
                (task, k, f"{metric}_{axis + 1}", float(v)) for axis in (0, 1) for k, v in enumerate(path[:, axis])
            ]
        for space in ("native", "warped"):
            domain = domains[space]
            everything = torch.cat([shown[f"{space}_gd"], shown[f"{space}_warp"], domain])
            centre = (domain.amax(0) + domain.amin(0)) / 2
            half = 1.05 * float((everything - centre).abs().max())
            points = centre + half / EDGE * lattice
            place = omega(repeat(warp, len(points)), points) if space == "warped" else points
            height = surfaces.height(place, tasks.y[i], settings.peaks)
            records += [(task, k, f"{space}_height", float(v)) for k, v in enumerate(height)]
            records += [(task, None, f"{space}_centre_{axis + 1}", float(centre[axis])) for axis in (0, 1)]
            records.append((task, None, f"{space}_half_width", half))
    return records


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train, evaluation=EVALUATION)
