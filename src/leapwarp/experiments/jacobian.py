"""What Leap leaves out by taking every Jacobian for the identity: Figure 4 of that paper (appendix D).

    python -m leapwarp.experiments.jacobian --profile quick --method rate_0.1 --n-tasks 0 --seeds 0 1 \\
        --data results/data/alphabets.safetensors --out rate.csv

A network at random initialisation is trained on an alphabet, and after some steps the Jacobian of the first layer with
respect to its start is compared with the identity: rho = |I - J| / |J| in nuclear norms. The Jacobians are exact, by
`leapwarp.jacobian`, so that they go on where the paper's had to stop, at 20 steps; `layers` does it for every layer of
a narrower network.

One run takes, on a core: smoke, two seconds; quick, 15 s a rate and 20 s for `layers`; paper, three hours a rate and
eight for `layers` (by extrapolation). To expect, against the paper: a rho of 0.05 to 0.8 after 5 steps, larger at
larger rates, which grows ever more slowly; and a hundred or more times less where batch norm does not act.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from leapwarp.data.alphabets import Alphabets, load
from leapwarp.experiments import omniglot_leap
from leapwarp.experiments.command import Record, main
from leapwarp.experiments.omniglot import CLASSES, draw_batch, draw_tasks, images, split
from leapwarp.inner import adapt
from leapwarp.jacobian import departures, relative_precision
from leapwarp.models.convnet import convnet
from leapwarp.optim import sgd
from leapwarp.problem import supervised
from leapwarp.rng import generator
from leapwarp.trees import repeat

FIRST_LAYER = "task.0.conv"
RATES = (0.01, 0.1, 0.5)  # App. D


@dataclass(frozen=True)
class Settings:
    filters: int
    narrow: int
    """filters of the network that `layers` measures: with 64, all layers have 113,000 parameters, one column each"""
    batch: int
    """images in a mini-batch of task training"""
    inner_lr: float
    at: tuple[int, ...]
    """numbers of steps at which to measure; 5 and 20 among them, for what the paper says of them"""
    narrow_at: tuple[int, ...]
    """the same for `layers`"""
    n_test: int
    """alphabets, a task each"""
    every_layer: bool = False
    """or the first alone"""
    batch_norm: bool = True
    """by the statistics of each batch; else the running averages at their start, which change nothing"""
    tasks_at_a_time: int = 80
    """columns of a Jacobian carried at a time: time and memory, not results"""


class Method(NamedTuple):
    settings: Settings
    pretrains: bool = False


PAPER = Settings(
    filters=64,  # App. F, which App. D follows
    narrow=16,  # ours
    batch=20,  # Table 2
    inner_lr=0.1,  # Table 2: the rate used in practice; App. D has RATES
    at=(5, 10, 15, 20, 50, 100),  # App. D: every 5 up to 20; beyond is ours
    narrow_at=(5, 10, 15, 20, 50, 100),  # App. D: the first five
    n_test=5,  # App. D
)
QUICK = replace(PAPER, filters=6, narrow=4, narrow_at=(5, 10, 15, 20), n_test=2)
SMOKE = replace(PAPER, filters=2, narrow=1, n_test=1, at=(5, 20), narrow_at=(5, 20))
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}


def methods(settings: Settings) -> dict[str, Method]:
    """A learning rate each, on the first layer; the largest without batch norm; and every layer at the rate in use."""
    found = {f"rate_{rate}": Method(replace(settings, inner_lr=rate)) for rate in RATES}
    found["unnormalised_0.5"] = Method(replace(settings, inner_lr=0.5, batch_norm=False))
    found["layers"] = Method(replace(settings, every_layer=True, filters=settings.narrow, at=settings.narrow_at))
    return found


def run(
    alphabets: Alphabets,
    method: Method,
    name: str,
    n_tasks: int,
    seed: int,
    device: torch.device,
    checkpoints: Path | None,
    identity: dict[str, Any],
) -> tuple[list[Record], float]:
    """Train on some alphabets, with all Jacobians along the way. -> records, seconds

    Nothing is pretrained and nothing kept: `n_tasks`, `checkpoints` and `identity` are not used.
    """
    began, settings = time.monotonic(), method.settings
    model = convnet(settings.filters, CLASSES)
    problem = supervised(model, draw=draw_batch(released=False))
    if not settings.batch_norm:
        problem = problem._replace(loss=problem.evaluate)
    names = split(alphabets, seed, 0, settings.n_test, 0).test
    data = images(alphabets, names, seed, device)
    records: list[Record] = []
    for number, alphabet in enumerate(names):
        # The start and the mini-batches are the same at every rate.
        start = model.init(generator(seed, "init", alphabet))
        params = repeat({key: leaf.to(device) for key, leaf in start.items()}, 1)
        stream, draws = generator(seed, "train", alphabet), max(settings.at)
        index = torch.tensor([number])
        task = draw_tasks(data, index, stream, draws, settings.batch, omniglot_leap.PAPER)
        losses = adapt(problem, sgd(settings.inner_lr), params, {}, task, draws).loss[0]
        records += [(alphabet, k, "train_loss", float(losses[k - 1])) for k in settings.at]
        layers = list(dict.fromkeys(key.rsplit(".", 1)[0] for key in params)) if settings.every_layer else [FIRST_LAYER]
        rho: dict[str, dict[int, float]] = {}
        for layer in layers:
            block = [key for key in params if key.rsplit(".", 1)[0] == layer]
            found = departures(problem, params, task, block, settings.inner_lr, settings.at, settings.tasks_at_a_time)
            rho[layer] = dict(zip(settings.at, relative_precision(found).tolist(), strict=True))
            metric = f"rho.{layer}" if settings.every_layer else "rho"
            records += [(alphabet, k, metric, value) for k, value in rho[layer].items()]
        if settings.every_layer:
            # Batch norm's scales and shifts are left out of the comparison: they are no layers with weights.
            weighty = [values for layer, values in rho.items() if not layer.endswith("norm")]
            for k in (5, 20):
                spread = max(values[k] for values in weighty) / min(values[k] for values in weighty)
                records.append((alphabet, None, f"rho_spread_{k}", spread))
        else:
            first = rho[FIRST_LAYER]
            records += [(alphabet, None, f"rho_{k}", first[k]) for k in sorted({5, 20, settings.at[-1]})]
            if first[5]:  # nought where no signal comes through
                records.append((alphabet, None, "rho_growth", first[20] / first[5]))
                records.append((alphabet, None, "rho_late_growth", first[settings.at[-1]] / first[20]))
    return records, time.monotonic() - began


def cli(arguments: Sequence[str] | None = None) -> None:
    main("jacobian", __doc__, PROFILES, methods, load, run, arguments)


if __name__ == "__main__":
    cli()
