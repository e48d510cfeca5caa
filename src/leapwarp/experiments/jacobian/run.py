"""The error of Leap's approximation of every Jacobian by the identity: Figure 4 of that paper (appendix D).

    snakemake jacobian

A network is trained on an alphabet from a random initialisation. After some steps the Jacobian of the first layer with
respect to its initial values is compared with the identity: rho = |I - J| / |J| in nuclear norms. The Jacobians are
exact (`leapwarp.jacobian`), also beyond the 20 steps of the paper. `layers` measures every layer of a narrower network.

One run takes, on a core: smoke, two seconds; quick, 15 s a rate and 20 s for `layers`; paper, three hours a rate and
eight for `layers` (by extrapolation). To expect, in contrast to the paper: a rho of 0.05 to 0.8 after 5 steps, which is
larger at larger rates and grows more and more slowly. Without batch statistics it is at least a hundred times smaller.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from leapwarp.data.alphabets import load
from leapwarp.experiments.base import Evaluated, Experiment, Record, Run
from leapwarp.inner import adapt
from leapwarp.jacobian import departures, relative_precision
from leapwarp.learners.base import State
from leapwarp.models.convnet import convnet
from leapwarp.optim import sgd
from leapwarp.problem import supervised
from leapwarp.rng import generator
from leapwarp.trees import Params, repeat, to_device
from leapwarp.worlds.alphabets import CLASSES, draw_batch, draw_tasks, images, split

FIRST_LAYER = "task.0.conv"
RATES = (0.01, 0.1, 0.5)  # App. D
STATED = (5, 20)  # steps that the paper speaks of


@dataclass(frozen=True)
class Settings:
    filters: int
    batch: int
    """images in a mini-batch of task training"""
    inner_lr: float
    at: tuple[int, ...]
    """numbers of steps at which to measure, including 5 and 20, for the claims of the paper"""
    n_test: int
    """alphabets; each is a task"""
    every_layer: bool = False
    """whether to measure every layer, or the first only"""
    batch_norm: bool = True
    """whether batch norm uses the statistics of each batch, or the initial running averages, which have no effect"""
    tasks_at_a_time: int = 80
    """columns of a Jacobian propagated at a time, which changes time and memory, but not results"""


class Method(NamedTuple):
    settings: Settings


PUBLISHED = Settings(
    filters=64,  # App. F, which App. D follows
    batch=20,  # Table 2
    inner_lr=0.1,  # Table 2: the rate used in practice; App. D has RATES
    at=(5, 10, 15, 20, 50, 100),  # App. D: every 5 up to 20; beyond is ours
    n_test=5,  # App. D
)


def methods(settings: Settings) -> dict[str, Method]:
    """The first layer at each rate, and at the largest without batch norm; every layer at the rate in use."""
    found = {f"rate_{rate}": Method(replace(settings, inner_lr=rate)) for rate in RATES}
    found["unnormalised_0.5"] = Method(replace(settings, inner_lr=0.5, batch_norm=False))
    # Our choice of a narrower network: with 64 filters all layers have 113,000 parameters, with a column for each.
    found["layers"] = Method(replace(settings, every_layer=True, filters=16))
    return found


def measure(run: Run, state: State | None) -> Evaluated:
    """Train on some alphabets, and compute the Jacobians along the path."""
    settings = run.method.settings
    if not set(STATED) <= set(settings.at):
        raise ValueError(f"at is {settings.at}, needed {STATED[0]} and {STATED[1]} among its steps.")
    model = convnet(settings.filters, CLASSES)
    problem = supervised(model, draw=draw_batch(released=False))
    if not settings.batch_norm:
        problem = problem._replace(loss=problem.evaluate)
    names = split(run.data, run.seed, 0, settings.n_test, 0).test
    data = images(run.data, names, run.seed, run.device)
    records: list[Record] = []
    for number, alphabet in enumerate(names):
        # The initialisation and the mini-batches are the same at every rate.
        start = model.init(generator(run.seed, "init", alphabet))
        params = repeat(to_device(start, run.device), 1)
        stream, draws = generator(run.seed, "train", alphabet), max(settings.at)
        task = draw_tasks(data, torch.tensor([number]), stream, draws, settings.batch, "rotations")  # App. F
        losses = adapt(problem, sgd(settings.inner_lr), params, {}, task, draws).loss[0]
        records += [(alphabet, k, "train_loss", float(losses[k - 1])) for k in settings.at]
        rho: dict[str, dict[int, float]] = {}
        for layer in layers(params) if settings.every_layer else [FIRST_LAYER]:
            block = [key for key in params if layer_of(key) == layer]
            found = departures(problem, params, task, block, settings.inner_lr, settings.at, settings.tasks_at_a_time)
            rho[layer] = dict(zip(settings.at, relative_precision(found).tolist(), strict=True))
            metric = f"rho.{layer}" if settings.every_layer else "rho"
            records += [(alphabet, k, metric, value) for k, value in rho[layer].items()]
        summary = spread(rho) if settings.every_layer else growth(rho[FIRST_LAYER])
        records += [(alphabet, None, metric, value) for metric, value in summary.items()]
    return Evaluated(records)


def layer_of(name: str) -> str:
    """The layer of a parameter."""
    return name.rsplit(".", 1)[0]


def layers(params: Params) -> list[str]:
    return list(dict.fromkeys(map(layer_of, params)))


def spread(rho: dict[str, dict[int, float]]) -> dict[str, float]:
    """The largest rho of all layers divided by the smallest, from layer -> step -> rho.

    Batch norm's scales and shifts are left out, since they are not layers with weights.
    """
    weighty = [values for layer, values in rho.items() if not layer.endswith("norm")]
    return {f"rho_spread_{k}": max(v[k] for v in weighty) / min(v[k] for v in weighty) for k in STATED}


def growth(rho: dict[int, float]) -> dict[str, float]:
    """The records of one layer, rho and its growth, from step -> rho."""
    early, late, last = *STATED, max(rho)
    found = {f"rho_{k}": rho[k] for k in sorted({early, late, last})}
    if rho[early]:  # zero if the layer gets no signal
        found |= {"rho_growth": rho[late] / rho[early], "rho_late_growth": rho[last] / rho[late]}
    return found


EXPERIMENT = Experiment(PUBLISHED, methods, measure, load=load)
