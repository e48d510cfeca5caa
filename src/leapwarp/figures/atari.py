"""Leap's Atari experiment (appendix H): scores while learning, game by game; and what a trained agent sees.

    python -m leapwarp.figures.atari --experiment atari \
        --rows results/quick/atari/rows.csv --out-dir results/quick/atari/figures

atari_scores.png     normalised score of episodes against steps; a panel a game
atari_pictures.png   one episode of the trained agents on the first held-out game

The pictures are not in the rows: runs of the seed 0 leave them beside their checkpoints.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from leapwarp import results, tables
from leapwarp.figures import draw, style
from leapwarp.tables import scores
from leapwarp.tables.atari import name

COLUMNS = 3
GROUPS = {"heldout": "held out", "seen": "seen in meta-training", "larger": "more actions"}


def learning(frame: pd.DataFrame) -> Figure:
    """A panel a game, in the order of the groups."""
    curves = {group: scores.normalised(frame, f"score_{group}") for group in tables.GAMES}
    panels = [(group, game) for group, rows in curves.items() for game in sorted(set(rows["task"]))]
    lines = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(9.6, 1.3 + 2.3 * lines), layout="constrained")
    grid = figure.subplots(lines, COLUMNS, squeeze=False, sharex=True)
    methods = style.ordered(set.union(*(set(rows["method"]) for rows in curves.values())))
    for axes, (group, game) in zip(grid.flat, panels, strict=False):
        rows = curves[group].loc[curves[group]["task"] == game]
        means = results.summary(rows, ["method", "n_tasks", "task", "metric", "step"])
        for method in methods:
            dashes = "-" if style.method(method).pretrained else "-."
            draw.shaded(axes, means.loc[means["method"] == method], "step", method, linestyle=dashes)
        axes.axhline(0, color=style.method(scores.RANDOM).colour, linewidth=0.8, linestyle=":")
        axes.set_title(f"{name(game)} ({GROUPS[group]})", fontsize=9, loc="left")
        axes.xaxis.set_major_formatter(FuncFormatter(_steps))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("steps of the game's agent")
    for axes in grid[:, 0]:
        axes.set_ylabel("score (0 random, 1 best mean)")
    note = (
        "the last episode of each emulator, or what it has so far where none has ended yet;\n"
        "0 is the mean of random play; the paper's figure is a plot without printed numbers"
    )
    draw.title(
        figure, "Atari: learning from a meta-learnt and from a random encoder", draw.caption(frame, "atari", note)
    )
    handles = [draw.handle(method, marker=False) for method in [*methods, scores.RANDOM]]
    handles[-1].set_linestyle(":")
    draw.legend(figure, handles)
    return figure


def _steps(value: float, place: int | None = None) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g} {letter}"
    return f"{value:g}"


def pictures(frame: pd.DataFrame, folder: Path) -> Figure:
    """A row a method: pictures of one episode, from its first step to its last."""
    found = {method: folder / method / "tasks0" / "pictures.npz" for method in style.ordered(frame["method"])}
    shown = {method: np.load(path) for method, path in found.items() if path.is_file()}
    game = sorted(set(frame.loc[frame["metric"] == "score_heldout", "task"]))[0]
    profile, _ = results.provenance(frame, "atari")
    shown = {
        method: file for method, file in shown.items() if (str(file["profile"]), str(file["game"])) == (profile, game)
    }
    figure = Figure(figsize=(9.6, 0.9 + 1.3 * max(1, len(shown))), layout="constrained")
    if not shown:
        draw.empty(figure.subplots(), f"no pictures in {folder}: only runs of the seed 0 leave them")
    else:
        n = max(len(file["step"]) for file in shown.values())
        grid = figure.subplots(len(shown), n, squeeze=False)
        for line, (method, file) in zip(grid, shown.items(), strict=True):
            for axes, pixels, step, score in zip(line, file["pixels"], file["step"], file["score"], strict=True):
                axes.imshow(pixels, interpolation="nearest")
                axes.set_title(f"step {step}, score {score:g}", fontsize=6.5)
                axes.set_xticks([])
                axes.set_yticks([])
            line[0].set_ylabel(style.method(method).name, fontsize=8)
    text = f"profile {profile}, seed 0; one episode after training, from its beginning to its end or to step 2,000"
    draw.title(figure, f"Atari: what the agents see in {name(game)}", text)
    return figure


def build(folder: Path, frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"atari_scores": learning(frame), "atari_pictures": pictures(frame, folder)}


def main(arguments: Sequence[str] | None = None) -> None:
    rows = argparse.ArgumentParser(add_help=False)
    rows.add_argument("--rows", type=Path, default=Path("rows.csv"))
    folder = rows.parse_known_args(arguments)[0].rows.parent / "checkpoints"
    description = "Draw the learning curves of Atari games, and pictures of trained agents."
    draw.main(partial(build, folder), {"atari": draw.Numbers("leap")}, "atari", description, arguments)


if __name__ == "__main__":
    main()
