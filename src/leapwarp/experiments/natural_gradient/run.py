"""WarpGrad and natural gradient descent: Table 4 and Figure 6 of the WarpGrad paper (its appendix H).

    snakemake natural_gradient

From a random initialisation that is not meta-trained, tasks are learnt by gradient descent, by natural gradient descent
with two versions of KFAC, and by gradient descent through warp layers that were meta-trained for that initialisation.
For Figure 6, the activations before and after the warp layers of Warp-Leap are measured.

One run takes, on a core: smoke, a second; quick, sgd 2 s, kfac 10, kfac_exact 40, warp_linear 20, warp_nonlinear 50,
warp_leap 20. To expect: KFAC above SGD. In the paper warps are above both; at quick they are trained too little.
"""

from dataclasses import replace

import torch
from torch import Tensor

from leapwarp.data.alphabets import load
from leapwarp.experiments.base import Experiment, Record
from leapwarp.experiments.omniglot import (
    EVALUATION,
    Method,
    Settings,
    Subject,
    judge,
    scratch_learner,
    train,
    untrained,
)
from leapwarp.experiments.omniglot_warp import run as omniglot_warp
from leapwarp.experiments.omniglot_warp.run import kfac_gradient, warp_leap_learner
from leapwarp.inner import adapt
from leapwarp.kfac import expected, rows_of
from leapwarp.models.convnet import BLOCKS, Warp
from leapwarp.optim import sgd
from leapwarp.problem import Task, map_tasks
from leapwarp.trees import Params

PUBLISHED = replace(
    omniglot_warp.PUBLISHED,  # App. H: otherwise the hyper-parameters of the main experiment
    batch=200,  # App. H
    inner_lr=1.0,  # App. H
    leap_weight=0.0,  # App. H
)
MAIN = {key: getattr(omniglot_warp.PUBLISHED, key) for key in ("batch", "inner_lr", "leap_weight")}
"""settings of `omniglot_warp`, which the methods of Figure 6 use in place of those above"""


def methods(settings: Settings) -> dict[str, Method]:
    """The rows of Table 4, KFAC with the exact Fisher matrix beside them, and Warp-Leap for Figure 6."""
    plain = untrained(settings)
    one = replace(plain, tasks_at_a_time=1)  # a third faster, since KFAC's data then stay in the cache
    nonlinear = Warp(layers=2, norm=True, relu=True, residual=True)
    return {
        "sgd": Method(plain, scratch_learner),
        "kfac": Method(one, scratch_learner, natural=kfac_gradient()),
        "kfac_exact": Method(one, scratch_learner, natural=kfac_gradient(expected)),
        "warp_linear": Method(settings, warp_leap_learner, warp=Warp()),
        "warp_nonlinear": Method(settings, warp_leap_learner, warp=nonlinear),
        "warp_leap": Method(replace(settings, **MAIN), warp_leap_learner, warp=Warp(), measure=activations),
    }


def distance(rows: Tensor) -> Tensor:
    """The Schatten-1 norm of Cov(h, h) - I. rows: [task, row, channel] -> [task]"""
    centred = (rows - rows.mean(1, keepdim=True)).double()
    covariance = centred.mT @ centred / rows.shape[1]
    eye = torch.eye(rows.shape[2], dtype=covariance.dtype, device=rows.device)
    return torch.linalg.eigvalsh(covariance - eye).abs().sum(1)


def whiten(rows: Tensor, by: Tensor) -> Tensor:
    """`rows`, whitened by the mean and covariance of `by`. [task, row, channel] each

    Directions with less than a thousandth of the largest variance of `by` are left out, so their covariance is 0.
    Otherwise channels that are almost never active would dominate.
    """
    mean = by.mean(1, keepdim=True).double()
    centred = by - mean
    values, vectors = torch.linalg.eigh(centred.mT @ centred / by.shape[1])
    scale = torch.where(values > 1e-3 * values[:, -1:], values.clamp_min(0).rsqrt(), 0.0)
    return (rows - mean) @ (vectors * scale[:, None, :])


def layer_rows(subject: Subject, params: Params, stats: Params, x: Tensor) -> dict[str, Tensor]:
    """Input and output of each block's warp, with running averages: {"pre.0", "post.0", ...: [task, row, channel]}.

    x: [task, batch, height, width]
    """
    rows: dict[str, Tensor] = {}

    def tap(name: str, before: Tensor, after: Tensor) -> None:
        if name.startswith("warp."):
            block = name.removeprefix("warp.")
            rows[f"pre.{block}"], rows[f"post.{block}"] = rows_of(before, len(x)), rows_of(after, len(x))

    subject.model.apply(params, stats, x, False, tap)
    return rows


def activations(subject: Subject) -> list[Record]:
    """Mean of the activations and distance of their covariance from I before and after each warp, on held-out images.

    They are computed over images and places, and averaged over five points of each held-out task's path. The control is
    the output of the warp, whitened by the statistics of the task's training images. Its covariance is as close to the
    identity as possible. `rms` is the root mean square, the scale for the size of a mean.
    """
    settings, problem, learner = subject.settings, subject.problem, subject.learner
    at = {settings.eval_steps * part // 5 for part in range(1, 6)}
    n_batches = min(-(-subject.tasks.x.shape[1] // settings.batch), subject.tasks.order.shape[1])

    def one(tasks: Task, part: slice) -> dict[str, Tensor]:
        params, fixed = learner.start(subject.state, tasks)
        who = torch.arange(len(tasks.index), device=tasks.x.device)
        draws = [problem.draw(tasks, who, torch.full_like(who, k)).x for k in range(n_batches)]
        train = torch.cat(draws, 1)[:, : tasks.x.shape[1]]
        found: dict[str, list[Tensor]] = {}

        @torch.no_grad()
        def observe(step: int, params: Params, stats: Params) -> None:
            if step not in at:
                return
            everything = {**params, **fixed}
            rows = layer_rows(subject, everything, stats, tasks.x_test)
            by = layer_rows(subject, everything, stats, train)
            for block in range(BLOCKS):
                rows[f"white.{block}"] = whiten(rows[f"post.{block}"], by[f"post.{block}"])
            for name, values in rows.items():
                found.setdefault(f"mean_{name}", []).append(values.mean((1, 2)))
                found.setdefault(f"rms_{name}", []).append(values.square().mean((1, 2)).sqrt())
                found.setdefault(f"cov_{name}", []).append(distance(values))

        optimizer = sgd(settings.inner_lr)
        adapt(problem, optimizer, params, fixed, tasks, settings.eval_steps, observe=observe)
        return {metric: torch.stack(values).mean(0) for metric, values in found.items()}

    measured = map_tasks(one, subject.tasks, settings.tasks_at_a_time)
    return [
        (task, None, metric, float(value))
        for metric, values in measured.items()
        for task, value in zip(subject.names, values, strict=True)
    ]


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train, load, EVALUATION)
