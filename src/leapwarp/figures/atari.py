"""Leap's Atari experiment (appendix H): scores while learning, game by game; and what a trained agent sees.

    python -m leapwarp.figures.atari --experiment atari \
        --rows results/quick/atari/rows.csv --out-dir results/quick/atari/figures

atari_scores.png     normalised score of episodes against steps; a panel a game
atari_meta.png       meta-training: score against steps, a line a meta-step or a few; a panel a game, and all of them
atari_pictures.png   one episode of the trained agents on the first held-out game

Two of them are not drawn from the rows alone: runs of the seed 0 leave the pictures beside their checkpoints, and the
curves of meta-training are in meta_curves.csv (leapwarp.tables.atari_meta) beside the rows.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from leapwarp import results, tables
from leapwarp.figures import draw, style
from leapwarp.tables import scores
from leapwarp.tables.atari import name

COLUMNS = 3
BLOCKS, POINTS = 5, 50  # of meta-steps in a panel of meta-training, and of a line there
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


def blocks(curves: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Scores of meta-training by seed, game, block of meta-steps and step, and what each block is called.

    Neighbouring meta-steps share a block where there are more than BLOCKS, and neighbouring steps a point where there
    are more than POINTS; whatever shares one is averaged.
    """
    parts = np.array_split(sorted(set(curves["meta_step"])), BLOCKS)
    parts = [part for part in parts if len(part)]
    names = [f"{part[0]}" if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts]
    block = {k: i for i, part in enumerate(parts) for k in part.tolist()}
    steps = np.array_split(sorted(set(curves["step"])), POINTS)
    point = {step: part[-1] for part in steps for step in part.tolist()}
    curves = curves.assign(block=curves["meta_step"].map(block.get), step=curves["step"].map(point.get))
    return curves.groupby(["seed", "game", "block", "step"], as_index=False).agg({"score": "mean"}), names


def scaled(means: pd.DataFrame) -> pd.DataFrame:
    """Scores with 0 and 1 at the least and the greatest that a game's lines, means over seeds, come to."""
    lines = means.groupby(["game", "block", "step"], as_index=False).agg({"score": "mean"})
    means = means.merge(lines.groupby("game")["score"].agg(low="min", high="max").reset_index(), on="game")
    span = means["high"] - means["low"]
    return means.assign(score=((means["score"] - means["low"]) / span).where(span > 0, 0.0))


def _lines(axes: Axes, means: pd.DataFrame, colours: Sequence[str]) -> None:
    """A line a block: mean and standard deviation over seeds, of which each is a mean over its games."""
    per_seed = means.groupby(["block", "step", "seed"], as_index=False).agg({"score": "mean"})
    lines = per_seed.groupby(["block", "step"])["score"].agg(mean="mean", std="std").reset_index()
    for block, line in lines.groupby("block"):
        step, mean, std = (line[column].to_numpy(dtype=float) for column in ("step", "mean", "std"))
        axes.plot(step, mean, color=colours[int(str(block))], linewidth=1.3)
        axes.fill_between(step, mean - std, mean + std, color=colours[int(str(block))], alpha=0.15, linewidth=0)
    axes.xaxis.set_major_formatter(FuncFormatter(_steps))


def meta_training(frame: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """A panel a game of meta-training, in the game's own points, and one of all games on a common scale."""
    profile, data_source = results.provenance(frame, "atari")
    if sorted(set(curves["profile"])) != [profile]:
        found = ", ".join(sorted(set(curves["profile"])))
        raise ValueError(f"found curves of meta-training at {found}, needed those at {profile}, as the rows are.")
    means, names = blocks(curves)
    games = sorted(set(means["game"]))
    colours = [to_hex(matplotlib.colormaps["viridis_r"](x)) for x in np.linspace(0.15, 1, len(names))]
    columns = COLUMNS if len(games) + 1 > 4 else 2
    lines = -(-(len(games) + 1) // columns)
    figure = Figure(figsize=(9.6, 1.3 + 2.1 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for axes, game in zip(grid.flat, games, strict=False):
        _lines(axes, means.loc[means["game"] == game], colours)
        axes.set_title(name(game), fontsize=9, loc="left")
        axes.set_ylabel("score [points]")
    everything = list(grid.flat)[len(games)]
    _lines(everything, scaled(means), colours)
    everything.set_title("mean over games", fontsize=9, loc="left")
    everything.set_ylabel("score (0 least, 1 greatest)")
    for axes in list(grid.flat)[len(games) + 1 :]:
        axes.set_axis_off()
    for axes in list(grid.flat)[len(games) + 1 - columns : len(games) + 1]:
        axes.set_xlabel("steps of the game's agent")
        axes.tick_params(labelbottom=True)
    n_seeds = len(set(curves["seed"]))
    warning = draw.smaller(profile, data_source)
    text = f"profile {profile}, data {data_source}, {n_seeds} seed{'' if n_seeds == 1 else 's'}"
    text += f" ({warning})" if warning else ""
    text += "\none seed: no shading" if n_seeds == 1 else "\nshading: ± 1 standard deviation over seeds"
    text += "; the last episode of each emulator, or what it has so far where none has ended yet"
    text += "\non the common scale 0 and 1 are the least and the greatest value of a game's lines"
    draw.title(figure, "Atari: learning the games of meta-training", text)
    handles = [Line2D([], [], color=colour, label=label) for colour, label in zip(colours, names, strict=True)]
    figure.legend(handles=handles, title="meta-step", loc="outside right center", frameon=False, fontsize=8.5)
    return figure


def without_curves(path: Path) -> Figure:
    figure = Figure(figsize=(9.6, 2.2), layout="constrained")
    draw.empty(figure.subplots(), f"no {path.name} beside the rows: nothing was meta-trained")
    draw.title(figure, "Atari: learning the games of meta-training", "")
    return figure


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
    """The figures of the results in `folder`."""
    curves = folder / "meta_curves.csv"
    meta = meta_training(frame, pd.read_csv(curves)) if curves.is_file() else without_curves(curves)
    return {
        "atari_scores": learning(frame),
        "atari_meta": meta,
        "atari_pictures": pictures(frame, folder / "checkpoints"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    rows = argparse.ArgumentParser(add_help=False)
    rows.add_argument("--rows", type=Path, default=Path("rows.csv"))
    folder = rows.parse_known_args(arguments)[0].rows.parent
    description = "Draw the learning curves of Atari games, those of meta-training, and pictures of trained agents."
    draw.main(partial(build, folder), {"atari": draw.Numbers("leap")}, "atari", description, arguments)


if __name__ == "__main__":
    main()
