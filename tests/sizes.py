"""An experiment's methods with the settings that a size gives them, and single runs of them."""

from dataclasses import replace
from pathlib import Path

import torch

from leapwarp import catalogue, plan
from leapwarp.experiments.base import Run
from leapwarp.experiments.settings import of_size

SIZES = Path(__file__).parents[1] / "workflow" / "sizes"


def methods(name, size="smoke"):
    entry = plan.read_size(SIZES / f"{size}.yaml", [name]).entries[name]
    return of_size(catalogue.find(name).module("run").EXPERIMENT, entry, size)


def one_run(data, experiment, name, n_tasks=0, *, size="smoke", seed=0, **changes):
    """The run of a method, without checkpoints. `changes` are of its settings."""
    method = methods(experiment, size)[name]
    method = method._replace(settings=replace(method.settings, **changes))
    return Run(data, method, name, n_tasks, seed, torch.device("cpu"), None, {})
