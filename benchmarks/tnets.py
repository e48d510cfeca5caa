"""The T-Nets-RNN of the maze with one choice changed at a time (claim W20).

    .venv/bin/python benchmarks/tnets.py [--variants NAME ...] [--csv FILE]

The paper says that T-Nets-RNN does worse than the plain RNN and generally fails to learn. This trains both at size
`overnight`, and T-Nets-RNN with each choice changed that could make it fail. It prints the return at the end (mean over
the last tenth of the updates) and the mean return over training.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from leapwarp.experiments.base import Run
from leapwarp.experiments.maze.run import PUBLISHED, Method, Settings, methods, train
from leapwarp.models.recurrent import Cell
from leapwarp.plan import read_size
from leapwarp.trees import Params

REPO = Path(__file__).parents[1]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "RNN": ("rnn", {}),
    "T-Nets": ("tnets_rnn", {}),
    "T-Nets, random warps": ("tnets_rnn", {}),
    "T-Nets, warps updated after every batch": ("tnets_rnn", {"eta": 1}),
    "T-Nets, no clipping": ("tnets_rnn", {"clip": None}),
    "T-Nets, epsilon of the released code": ("tnets_rnn", {"epsilon": 1e-8}),
}
"""the agent, and what is changed of the size's settings"""


def random_warps(cell: Cell) -> Cell:
    """The cell with warps drawn as PyTorch draws the weights of a linear layer, in place of the identity."""

    def init(stream: torch.Generator) -> Params:
        params = cell.init(stream)
        for name, leaf in params.items():
            if name.startswith("warp."):
                params[name] = torch.empty_like(leaf).uniform_(
                    -(leaf.shape[1] ** -0.5), leaf.shape[1] ** -0.5, generator=stream
                )
        return params

    return cell._replace(init=init)


def method_of(name: str, settings: Settings) -> Method:
    agent, changed = VARIANTS[name]
    method = methods(replace(settings, **changed))[agent]
    cell = method.cell
    if name == "T-Nets, random warps" and cell is not None:
        return method._replace(cell=lambda settings: random_warps(cell(settings)))
    return method


def main() -> None:
    parser = argparse.ArgumentParser(description="T-Nets-RNN in the maze, with one choice changed at a time.")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102])
    parser.add_argument("--updates", type=int, metavar="N", help="default: those of the size")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a CSV to append to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = replace(PUBLISHED, **read_size(REPO / "workflow/sizes/overnight.yaml", []).entries["maze"]["settings"])
    settings = replace(settings, updates=options.updates or settings.updates)
    for name in options.variants:
        method = method_of(name, settings)
        runs = [Run(None, method, name, 0, seed, torch.device("cpu"), None, {}) for seed in options.seeds]
        lines = []
        for run, found in zip(runs, train(runs), strict=True):
            curve = [value for _, _, metric, value in found.records if metric == "return"]
            end = curve[-max(len(curve) // 10, 1) :]
            numbers = [f"{sum(values) / len(values):.2f}" for values in (end, curve)]
            lines.append([name, run.seed, settings.updates, *numbers])
            print(*lines[-1], flush=True)
        if options.csv:
            new = not options.csv.exists()
            with options.csv.open("a", newline="") as file:
                head = ["agent", "seed", "updates", "final_return", "return_height"]
                csv.writer(file, lineterminator="\n").writerows([head, *lines] if new else lines)


if __name__ == "__main__":
    main()
