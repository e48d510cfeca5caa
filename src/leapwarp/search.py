"""Random search: the settings of one trial, drawn from a space that an experiment.yaml declares.

All draws of a trial depend only on its number and on the parameter's name. So a search can be made longer without
changing its trials, and a new parameter in the space does not change the draws of the others.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from leapwarp.plan import SEARCH_SEED
from leapwarp.rng import generator

KINDS = ("uniform", "log_uniform", "choice")

Space = Mapping[str, Mapping[str, Sequence[Any]]]
"""setting -> {kind: values}, where the values are the two ends of a range, or the choices"""


def check(space: Space) -> None:
    """Raise ValueError for the first parameter whose distribution is not valid."""
    for name, distribution in space.items():
        if not isinstance(distribution, Mapping) or len(distribution) != 1 or set(distribution) - set(KINDS):
            raise ValueError(f"{name} is drawn from {distribution!r}, needed one of {', '.join(KINDS)}.")
        [(kind, values)] = distribution.items()
        if kind == "choice":
            if not values:
                raise ValueError(f"{name} has no choices.")
            continue
        least = 0 if kind == "log_uniform" else -math.inf
        if len(values) != 2 or not least < values[0] < values[1]:
            needed = "two positive numbers" if kind == "log_uniform" else "two numbers"
            raise ValueError(f"{name} is drawn from {kind} {list(values)}, needed {needed}, the lower first.")


def draw(space: Space, experiment: str, method: str, number: int) -> dict[str, Any]:
    """The settings of trial `number` of a method's search; raises ValueError as `check`."""
    check(space)
    settings = {}
    for name, distribution in space.items():
        [(kind, values)] = distribution.items()
        stream = generator(SEARCH_SEED, "search", experiment, method, number, name)
        if kind == "choice":
            settings[name] = values[int(torch.randint(len(values), (), generator=stream))]
            continue
        low, high = values if kind == "uniform" else map(math.log, values)
        at = low + (high - low) * float(torch.rand((), generator=stream, dtype=torch.float64))
        settings[name] = at if kind == "uniform" else math.exp(at)
    return settings
