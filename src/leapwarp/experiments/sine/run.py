"""WarpGrad's continual learning experiment (appendix K, Figures 9 and 10): five parts of a function, one after another.

    snakemake sine

A task is a function on five intervals. A learner is trained on each interval for 20 gradient steps, with five new
points in each step, and should not forget the earlier intervals. Warps are meta-trained for this, and the
initialisation is random and fixed. Learners are evaluated on new functions, with the intervals from left to right as in
meta-training, and in another order.

One run takes, on a core: smoke, a second; quick, 40 s if warps are trained and 3 to 8 s otherwise; paper, about three
hours, or a minute without warps (benchmarks/continual.py). To expect: the loss at the end is six times smaller with the
warp than without it, in both orders.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leapwarp.experiments.base import Evaluated, Experiment, Record, Run, Trained, trained
from leapwarp.fit import Fit, fit, thinned
from leapwarp.inner import adapt
from leapwarp.learners import Learner
from leapwarp.learners.base import State
from leapwarp.learners.continual import Losses, at_point, continual_warp
from leapwarp.models.warped_mlp import after_step, forward, warped_mlp
from leapwarp.optim import adam, sgd
from leapwarp.problem import Batch, Problem, Task, mean_square, supervised
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, repeat, stack, to_device
from leapwarp.worlds import sine
from leapwarp.worlds.sine import SUBTASKS

ORDERS = {"": [0, 1, 2, 3, 4], "_shuffled": [1, 3, 4, 2, 0]}  # suffix of metrics: order of sub-tasks (WarpGrad Fig. 9)
SEEN = ORDERS[""]
CURVE_POINTS = 200  # of the curves of meta-training


@dataclass(frozen=True)
class Settings:
    """The settings of one method."""

    layers: int = 4  # WarpGrad App. K
    hidden: int = 200  # WarpGrad App. K
    warp_hidden: int = 100  # WarpGrad App. K
    batch: int = 5  # WarpGrad App. K
    steps: int = 20  # gradient steps on each of the five sub-tasks: WarpGrad App. K
    inner_lr: float = 0.001  # WarpGrad App. K
    outer_lr: float = 0.001  # of Adam: WarpGrad App. K
    meta_batch: int = 5  # WarpGrad App. K
    meta_steps: int = 20_000  # WarpGrad App. K
    n_validation: int = 5  # held-out points of a sub-task in the meta-objective; the paper is silent, so a batch
    n_test: int = 100  # functions held out: WarpGrad App. K
    n_points: int = 20  # on which the loss of a sub-task is measured
    n_tuning: int = 100  # functions on which a learning rate is chosen
    rates: tuple[float, ...] = ()
    """task learning rates to choose from; if empty, `inner_lr` is used"""
    chosen_by: Literal["final_loss", "learnt_loss"] = "final_loss"
    """the measure that the chosen rate minimises: `final_loss` of all sub-tasks at the end, or `learnt_loss`"""
    every: bool = False
    """whether each step uses a batch of every sub-task"""
    replay: int = 0
    """points of earlier batches in every step"""
    printed_weights: bool = False
    """the other reading of equation 18, see `learners.continual`"""
    inner_step: bool = True
    """whether the meta-objective is computed after a step (equation 3), or at the point itself (equation 14)"""
    n_examples: int = 3
    """functions of seed 0 whose predictions are kept for Figure 10"""
    lattice: int = 101
    checkpoint_every: int = 20


PUBLISHED = Settings()
EVALUATION = frozenset(
    {"n_test", "n_points", "n_tuning", "rates", "chosen_by", "every", "replay", "n_examples", "lattice"}
)


class Method(NamedTuple):
    settings: Settings
    warp: bool = True


def methods(settings: Settings) -> dict[str, Method]:
    """The learners that are compared, each with its own settings."""
    tuned = replace(settings, rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3))
    return {
        "warpgrad": Method(settings),
        "warpgrad_printed": Method(replace(settings, printed_weights=True)),
        "warpgrad_no_step": Method(replace(settings, inner_step=False)),
        "untrained_warp": Method(settings),
        "no_warp": Method(settings, warp=False),
        "no_warp_fast": Method(replace(tuned, chosen_by="learnt_loss"), warp=False),
        "no_warp_tuned": Method(tuned, warp=False),
        "replay": Method(replace(tuned, replay=settings.batch), warp=False),
        "multitask": Method(replace(tuned, every=True), warp=False),
    }


def fast_losses(rate: float) -> Losses:
    """`learners.continual.after_step` for gradient descent on this network."""

    def losses(theta: Params, warp: Params, batch: Batch, held_out: Batch) -> Tensor:
        outputs = after_step({**theta, **warp}, batch, rate, held_out.x.flatten(1, 2)).view(held_out.y.shape)
        return 0.5 * (outputs - held_out.y).square().mean((2, 3))

    return losses


def meta_learner(problem: Problem, settings: Settings) -> Learner:
    losses = fast_losses(settings.inner_lr) if settings.inner_step else at_point(problem)
    inner, outer = sgd(settings.inner_lr), adam(settings.outer_lr)
    return continual_warp(problem, inner, outer, SUBTASKS, settings.steps, losses, settings.printed_weights)


# ---------------------------------------------------------------- meta-training


def begin(run: Run) -> tuple[Problem, Params]:
    """The problem, and the network's random parameters, without the run axis."""
    settings = run.method.settings
    model = warped_mlp(settings.hidden, settings.warp_hidden, settings.layers, run.method.warp)
    return supervised(model, mean_square), to_device(model.init(generator(run.seed, "init")), run.device)


def train(runs: Sequence[Run]) -> list[Trained]:
    """Meta-train the warps, all seeds in one stack. The initialisation is not trained."""
    settings, (problem, _) = runs[0].method.settings, begin(runs[0])

    def sample(k: int, i: int) -> Task:
        stream = generator(runs[i].seed, "meta", k)
        function = sine.draw(settings.meta_batch, stream)
        tasks = sine.tasks(function, stream, settings.batch, settings.steps, SEEN, settings.n_validation)
        return sine.on(runs[i].device, tasks)

    learner, params = meta_learner(problem, settings), stack([begin(run)[1] for run in runs])
    how = Fit(settings.meta_steps, checkpoints=runs[0].checkpoints, checkpoint_every=settings.checkpoint_every)
    return [
        trained(fitted, thinned(fitted.history, settings.meta_steps, CURVE_POINTS))
        for fitted in fit(learner, params, sample, how, [run.member for run in runs])
    ]


# ---------------------------------------------------------------- learning and measuring


class Curves(NamedTuple):
    """The result of learning a stack of functions."""

    loss: Tensor
    """[task, step, subtask] held-out losses before the first step and after each; sub-tasks from left to right"""
    predictions: Tensor
    """[task, position in the order, point] on a lattice, after each sub-task, of the first tasks"""


def learn(
    problem: Problem, theta: Params, warp: Params, tasks: Task, rate: float, n_examples: int, lattice: Tensor
) -> Curves:
    """Adapt to every sequence from `theta` with `warp` fixed. Both belong to one run."""
    n_tasks, everything = tasks.order.shape[:2]
    start, fixed, warp = repeat(theta, n_tasks), repeat(warp, n_tasks), alone(warp)
    loss, predictions = [], []
    points = lattice.expand(n_examples, -1)[..., None]

    @torch.no_grad()
    def observe(k: int, params: Params, stats: Params) -> None:
        error = forward({**params, **warp}, tasks.x_test) - tasks.y_test
        loss.append(0.5 * error.square().unflatten(1, (SUBTASKS, -1)).mean((2, 3)))
        if k and k % (everything // SUBTASKS) == 0:
            shown = {name: leaf[:n_examples] for name, leaf in params.items()}
            predictions.append(forward({**shown, **warp}, points)[..., 0])

    adapt(problem, sgd(rate), start, fixed, tasks, everything, observe=observe)
    return Curves(torch.stack(loss, 1), torch.stack(predictions, 1))


def measures(loss: Tensor, order: Sequence[int]) -> dict[str, Tensor]:
    """Measures of learning and forgetting for each task. loss [task, step, subtask] -> [task] each

    With T sub-tasks, and R_t the held-out loss of the s-th sub-task of the order after the t-th:

    final_loss      mean over sub-tasks of R_T
    learnt_loss     mean of R_s
    forgetting      mean over the first T - 1 of R_T - min_{s <= t < T} R_t
    transfer        mean over the first T - 1 of R_s - R_T: backward transfer, positive if later sub-tasks helped
    log_gain        mean of log(R_{s - 1} / R_s): how much training on a sub-task lowers its loss
    log_forgetting  mean over the first T - 1 of log(R_T / R_s)
    log_spike       mean over sub-tasks and later t of log(loss in the first half of t / R_{t - 1})
    log_recovery    the same of log(loss in the first half of t / R_t); halves are means of logarithms over the steps
    """
    steps = (loss.shape[1] - 1) // SUBTASKS
    ordered = loss[:, :, list(order)]
    ends = ordered[:, ::steps]  # [task, t, s]: R_t, R_0 before all
    s = torch.arange(SUBTASKS)
    own = ends[:, s + 1, s]
    last, first = ends[:, -1], own[:, :-1]
    best = torch.stack([ends[:, i + 1 : SUBTASKS, i].amin(1) for i in range(SUBTASKS - 1)], 1)
    logs, log_ends = ordered.log(), ends.log()
    pairs = [(i, t) for i in range(SUBTASKS) for t in range(i + 1, SUBTASKS)]
    half = [logs[:, t * steps + 1 : t * steps + 1 + steps // 2, i].mean(1) for i, t in pairs]
    before, after = ([log_ends[:, t + shift, i] for i, t in pairs] for shift in (0, 1))
    return {
        "final_loss": last.mean(1),
        "learnt_loss": own.mean(1),
        "forgetting": (last[:, :-1] - best).mean(1),
        "transfer": (first - last[:, :-1]).mean(1),
        "log_gain": (log_ends[:, s, s] - own.log()).mean(1),
        "log_forgetting": (last[:, :-1].log() - first.log()).mean(1),
        "log_spike": (torch.stack(half) - torch.stack(before)).mean(0),
        "log_recovery": (torch.stack(half) - torch.stack(after)).mean(0),
    }


def draw_tasks(run: Run, name: str, n: int, order: list[int]) -> Task:
    """`n` functions. Their held-out points are the same for every order and method."""
    settings, function = run.method.settings, sine.draw(n, generator(run.seed, name))
    stream = generator(run.seed, name, "points", *order)
    tasks = sine.tasks(
        function, stream, settings.batch, settings.steps, order, settings.n_points, settings.every, settings.replay
    )
    held = sine.held_out(function, settings.n_points, generator(run.seed, name, "held-out"))
    return sine.on(run.device, tasks._replace(x_test=held.x, y_test=held.y))


def choose_rate(settings: Settings, tuning: Callable[[float], Tensor]) -> tuple[float, list[Record]]:
    """The rate that minimises the measure of the settings, and rows with the results of all rates.

    Args:
        tuning: rate -> held-out losses of functions that were learnt with it, [task, step, subtask].
    """
    losses = {rate: float(measures(tuning(rate), SEEN)[settings.chosen_by].mean()) for rate in settings.rates}
    losses = {rate: loss for rate, loss in losses.items() if math.isfinite(loss)}
    if not losses:
        raise FloatingPointError(
            f"no rate of {', '.join(map(str, settings.rates))} keeps losses finite: add lower ones."
        )
    return min(losses, key=losses.__getitem__), [
        (f"rate {r:g}", None, "sweep_loss", loss) for r, loss in losses.items()
    ]


def judge(run: Run, state: State | None) -> Evaluated:
    """Learn the held-out functions from the random initialisation. If there are several rates, choose one first."""
    settings, (problem, params) = run.method.settings, begin(run)
    if state:
        params = state["params"] | state["warp"]
    warp = {k: leaf for k, leaf in params.items() if k.startswith("warp.")}
    theta = {k: leaf for k, leaf in params.items() if k not in warp}
    lattice = torch.linspace(sine.LOW, sine.HIGH, settings.lattice, device=run.device)
    rate, records = settings.inner_lr, []
    if settings.rates:
        tasks = draw_tasks(run, "tuning", settings.n_tuning, SEEN)
        rate, records = choose_rate(settings, lambda r: learn(problem, theta, warp, tasks, r, 0, lattice).loss)
    records.append(("", None, "rate", rate))

    n_examples = settings.n_examples if run.seed == 0 else 0
    for suffix, order in ORDERS.items():
        tasks = draw_tasks(run, "test", settings.n_test, order)
        curves = learn(problem, theta, warp, tasks, rate, n_examples, lattice)
        check(curves.loss, rate)
        for i in range(SUBTASKS):
            means = curves.loss[:, :, i].log().mean(0)
            records += [(f"subtask{i}", k, f"log_loss{suffix}", float(v)) for k, v in enumerate(means)]
        for metric, of_tasks in measures(curves.loss, order).items():
            records += [(f"function{i:03d}", None, metric + suffix, float(v)) for i, v in enumerate(of_tasks)]
        for i in range(n_examples):
            for t in range(SUBTASKS):
                values = enumerate(curves.predictions[i, t])
                records += [(f"function{i:03d}", j, f"prediction{t}{suffix}", float(v)) for j, v in values]
    if n_examples:
        function = sine.draw(settings.n_test, generator(run.seed, "test"))[:n_examples]
        target = sine.value(function, lattice.cpu().expand(n_examples, -1))
        records += [
            (f"function{i:03d}", j, "target", float(v)) for i in range(n_examples) for j, v in enumerate(target[i])
        ]
    return Evaluated(records)


def check(loss: Tensor, rate: float) -> None:
    """Raise FloatingPointError if a held-out loss, [task, step, subtask], is not finite."""
    bad = (~loss.isfinite()).nonzero()
    if len(bad):
        task, step, subtask = bad[bad[:, 1].argmin()].tolist()
        raise FloatingPointError(
            f"the loss of sub-task {subtask} of held-out function {task} is {float(loss[task, step, subtask])} at step "
            f"{step}. Needed finite losses: lower the task learning rate, {rate:g}."
        )


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train, evaluation=EVALUATION)
