"""Random search: the settings of one trial, drawn from a declared space (workflow/search.yaml).

    python -m leapwarp.search --experiment multi_shot --method leap --number 3 \\
        --space '{"inner_lr": {"log_uniform": [0.01, 1]}, "meta_batch": {"choice": [1, 5]}}' --out trial3.yaml

The number of a trial decides all its draws, each from a stream of its own: a search that is made longer keeps the
trials that it has, and a parameter more in the space leaves the others as they were.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from leapwarp.files import atomic, one_line
from leapwarp.rng import generator

SEED = 100  # of the draws; the runs of trials have it too, which no run that is reported has
KINDS = ("uniform", "log_uniform", "choice")

Space = Mapping[str, Mapping[str, Sequence[Any]]]
"""setting -> {kind: what it is drawn from}, with the two ends of a range, or the choices"""


def check(space: Space) -> None:
    """Raise ValueError at the first parameter whose distribution is not one."""
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
        stream = generator(SEED, "search", experiment, method, number, name)
        if kind == "choice":
            settings[name] = values[int(torch.randint(len(values), (), generator=stream))]
            continue
        low, high = values if kind == "uniform" else map(math.log, values)
        at = low + (high - low) * float(torch.rand((), generator=stream, dtype=torch.float64))
        settings[name] = at if kind == "uniform" else math.exp(at)
    return settings


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m leapwarp.search", description="Draw the settings of one trial.")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--number", required=True, type=int, help="of the trial")
    parser.add_argument("--space", required=True, type=json.loads, help="setting -> {kind: values}, as JSON")
    parser.add_argument("--fixed", default={}, type=json.loads, help="settings of every trial, as JSON; not drawn")
    parser.add_argument("--out", required=True, type=Path, help="YAML for --settings of the experiment")
    options = parser.parse_args(arguments)
    with one_line(parser):
        space = {name: values for name, values in options.space.items() if name not in options.fixed}
        drawn = draw(space, options.experiment, options.method, options.number)
        trial = {
            "experiment": options.experiment,
            "method": options.method,
            "trial": options.number,
            "drawn": sorted(drawn),
            "settings": drawn | options.fixed,
        }
        with atomic(options.out) as path:
            path.write_text(yaml.safe_dump(trial, sort_keys=False))


if __name__ == "__main__":
    main()
