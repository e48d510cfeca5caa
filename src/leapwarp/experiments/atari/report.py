"""Leap's Atari experiment (appendix H): how fast and how far each game is learnt, and what a trained agent sees.

Scores are shown on a scale of the game's own: 0 is random play, 1 the best that any method reached on average. Metrics
are named `score_<group of games>`, and tasks are games. The paper's figure is a plot without printed numbers.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from leapwarp.report import draw, looks
from leapwarp.report.quantities import Quantity
from leapwarp.report.rows import provenance, summary
from leapwarp.report.table import number, origin, summaries, summary_block

RANDOM = "random_policy"
RUN = ["method", "n_tasks", "seed", "task"]
GAMES = {  # by the suffix of their metrics: for tables, and for the titles of panels
    "heldout": ("held-out games", "held out"),
    "seen": ("games of meta-training", "seen in meta-training"),
    "larger": ("games with more actions", "more actions"),
}
COLUMNS = 3  # of panels
BLOCKS, POINTS = 5, 50  # of meta-steps in a panel of meta-training, and of a line there


# ---------------------------------------------------------------- scores


def normalised(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The curves of all methods that learn, with `value` on the scale of its game.

    Random play counts as what it scores on average over the second half of its runs (`floor`), over seeds. Where
    nothing is above random play, the largest distance from it is the unit.
    """
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    plays_at_random = rows["method"] == RANDOM
    zeros = floor(rows)
    learnt = rows.loc[~plays_at_random]
    missing = sorted(set(learnt["task"]) - set(zeros.index))
    if missing:
        raise ValueError(f"{metric}: found no random play of {', '.join(missing)}, needed it for the scale of scores.")
    top = learnt.groupby(["task", "method", "step"])["value"].mean().groupby("task").max()
    zero = zeros.reindex(learnt["task"]).to_numpy(dtype=float)
    reach = top.reindex(learnt["task"]).to_numpy(dtype=float) - zero
    off = learnt["value"].to_numpy() - zero
    furthest = pd.Series(np.abs(off)).groupby(learnt["task"].to_numpy()).transform("max").to_numpy()
    unit = np.where(reach > 0, reach, np.where(furthest > 0, furthest, 1.0))
    return learnt.assign(value=off / unit)


def floor(rows: pd.DataFrame) -> pd.Series:
    """What random play scores in each game: a mean over the second half of its points, of seeds alike."""
    played = rows.loc[rows["method"] == RANDOM].sort_values("step")
    of_run = played.groupby(["task", "seed"])["value"].agg(lambda values: second_half(values.to_numpy()))
    return of_run.groupby("task").mean()


def second_half(values: np.ndarray) -> float:
    return float(values[len(values) // 2 :].mean())


def last_tenth(values: np.ndarray) -> float:
    return float(values[-max(1, len(values) // 10) :].mean())


def _each(curves: pd.DataFrame, measure: Callable[[np.ndarray], float]) -> pd.DataFrame:
    """One row without a step for each curve, with what `measure` says of its values."""
    lines = [
        mine.iloc[[0]].assign(step=pd.array([pd.NA], dtype="Int64"), value=measure(mine["value"].to_numpy()))
        for _, mine in curves.sort_values("step").groupby(RUN, sort=True)
    ]
    return pd.concat(lines, ignore_index=True) if lines else curves.iloc[:0]


def area(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean of each normalised curve: the area under it, divided by its length."""
    return _each(normalised(frame, metric), lambda values: float(values.mean()))


def end(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean over the last tenth of each normalised curve."""
    return _each(normalised(frame, metric), last_tenth)


def raw(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The same of the game's own scores; of random play, which does not change, over the second half."""
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    plays_at_random = rows["method"] == RANDOM
    parts = [_each(rows.loc[~plays_at_random], last_tenth), _each(rows.loc[plays_at_random], second_half)]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


QUANTITIES = {
    f"score_{what}_{group}": Quantity(f"score_{group}", f"{title}, {games}", "0 random, 1 best", 3, select=select)
    for what, title, select in (("area", "Area under the score", area), ("end", "Score at the end", end))
    for group, (games, _) in GAMES.items()
}


# ---------------------------------------------------------------- table


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """One line a method and quantity, and the text; raises ValueError where rows are of several sizes."""
    experiment = looks.experiment(frame)
    provenance(frame, experiment)
    lines = summaries(frame, list(QUANTITIES))
    steps = int(frame.loc[frame["step"].notna() & frame["metric"].str.startswith("score_"), "step"].max())
    text = f"""# Leap, Atari: scores of episodes (higher: better)

{origin(frame, note)}
- {steps:,} steps a game, 5,000,000 as published. {meta_trained(frame)}
- The paper prints curves and no numbers. ± is the sample standard deviation over seeds.
- On every game 0 is what random play scores (a mean over the second half of its runs) and 1 the best that a method's
  mean over seeds reached at any point, noise and all: where that is little above random play (second table), the scale
  says nothing. The area is the mean of that curve, so a method that learns faster has more of it; the end is its
  last tenth. Until an emulator's first episode has ended it counts with what it has so far.

{summary_block(lines, list(QUANTITIES), "Encoder", experiment)}

## The games' own scores at the end

{own_scores(frame)}
"""
    return lines, text


def meta_trained(frame: pd.DataFrame) -> str:
    """How the encoder was meta-trained, where it was."""
    found = {name: sorted(set(frame.loc[frame["metric"] == name, "value"])) for name in ("meta_step", "games")}
    if not all(found.values()):
        return ""
    steps, games = (" or ".join(f"{value:.0f}" for value in found[name]) for name in ("meta_step", "games"))
    return f"Meta-training: {steps} meta-steps of {games} games, 100 of 16 as published."


def own_scores(frame: pd.DataFrame) -> str:
    """A markdown table, a game a row."""
    experiment = looks.experiment(frame)
    methods = looks.ordered(frame["method"], experiment)
    text = ["| Game | | " + " | ".join(looks.look(method, experiment).name for method in methods) + " |"]
    text.append("|---" * (len(methods) + 2) + "|")
    for group, (title, _) in GAMES.items():
        found = summary(raw(frame, f"score_{group}"), ["method", "task", "n_tasks", "metric"])
        cells = {(line["method"], line["task"]): line for line in found.to_dict("records")}
        for game in sorted(set(found["task"])):
            shown = [number(cells[method, game]["mean"], cells[method, game]["std"], 1) for method in methods]
            text.append(f"| {printed(game)} | {title} | " + " | ".join(shown) + " |")
    return "\n".join(text)


def printed(game: str) -> str:
    """The game as the paper writes it: air_raid is AirRaid."""
    return "".join(part.capitalize() for part in game.split("_"))


# ---------------------------------------------------------------- figures


def learning(frame: pd.DataFrame) -> Figure:
    """A panel a game, in the order of the groups: normalised score against steps."""
    experiment = looks.experiment(frame)
    curves = {group: normalised(frame, f"score_{group}") for group in GAMES}
    panels = [(group, game) for group, rows in curves.items() for game in sorted(set(rows["task"]))]
    lines = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(9.6, 1.3 + 2.3 * lines), layout="constrained")
    grid = figure.subplots(lines, COLUMNS, squeeze=False, sharex=True)
    learnt = looks.ordered(set.union(*(set(rows["method"]) for rows in curves.values())), experiment)
    methods = {method: looks.look(method, experiment) for method in [*learnt, RANDOM]}
    for axes, (group, game) in zip(grid.flat, panels, strict=False):
        rows = curves[group].loc[curves[group]["task"] == game]
        means = summary(rows, ["method", "n_tasks", "task", "metric", "step"])
        for method in learnt:
            look = methods[method]
            draw.shaded(axes, means.loc[means["method"] == method], "step", look, linestyle=draw.dashes(look))
        axes.axhline(0, color=methods[RANDOM].colour, linewidth=0.8, linestyle=":")
        axes.set_title(f"{printed(game)} ({GAMES[group][1]})", fontsize=9, loc="left")
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
    heading = "Atari: learning from a meta-learnt and from a random encoder"
    draw.title(figure, heading, draw.caption(frame, experiment, note))
    handles = [draw.handle(look, marker=False) for look in methods.values()]
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


def meta_training(frame: pd.DataFrame, curves: pd.DataFrame | None) -> Figure:
    """A panel a game of meta-training, in the game's own points, and one of all games on a common scale.

    A line is a meta-step, or a few. `curves` has the columns of meta_curves.csv (chain.py).
    """
    experiment, heading = looks.experiment(frame), "Atari: learning the games of meta-training"
    if curves is None:
        figure = Figure(figsize=(9.6, 2.2), layout="constrained")
        draw.empty(figure.subplots(), "no meta_curves.csv: nothing was meta-trained")
        draw.title(figure, heading, "")
        return figure
    size = provenance(frame, experiment).size
    if sorted(set(curves["size"])) != [size]:
        found = ", ".join(sorted(set(curves["size"])))
        raise ValueError(f"found curves of meta-training at {found}, needed those at {size}, as the rows are.")
    means, names = blocks(curves)
    games = sorted(set(means["game"]))
    colours = [to_hex(matplotlib.colormaps["viridis_r"](x)) for x in np.linspace(0.15, 1, len(names))]
    columns = COLUMNS if len(games) + 1 > 4 else 2
    lines = -(-(len(games) + 1) // columns)
    figure = Figure(figsize=(9.6, 1.3 + 2.1 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for axes, game in zip(grid.flat, games, strict=False):
        _lines(axes, means.loc[means["game"] == game], colours)
        axes.set_title(printed(game), fontsize=9, loc="left")
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
    note = (
        "the last episode of each emulator, or what it has so far where none has ended yet\n"
        "on the common scale 0 and 1 are the least and the greatest value of a game's lines"
    )
    draw.title(figure, heading, draw.caption(frame.loc[frame["method"] == "leap"], experiment, note))
    handles = [Line2D([], [], color=colour, label=label) for colour, label in zip(colours, names, strict=True)]
    figure.legend(handles=handles, title="meta-step", loc="outside right center", frameon=False, fontsize=8.5)
    return figure


def pictures(frame: pd.DataFrame, shown: dict[str, dict[str, np.ndarray]]) -> Figure:
    """A row a method: pictures of one episode, from its first step to its last.

    Args:
        shown: pixels [picture, 84, 84, 3], step and score [picture] of each method that has them.
    """
    experiment = looks.experiment(frame)
    figure = Figure(figsize=(9.6, 0.9 + 1.3 * max(1, len(shown))), layout="constrained")
    if not shown:
        draw.empty(figure.subplots(), "no pictures: only runs of the seed 0 leave them")
    else:
        n = max(len(of_method["step"]) for of_method in shown.values())
        grid = figure.subplots(len(shown), n, squeeze=False)
        for line, method in zip(grid, looks.ordered(shown, experiment), strict=True):
            found = (shown[method][name] for name in ("pixels", "step", "score"))
            for axes, pixels, step, score in zip(line, *found, strict=True):
                axes.imshow(pixels, interpolation="nearest")
                axes.set_title(f"step {step}, score {score:g}", fontsize=6.5)
                axes.set_xticks([])
                axes.set_yticks([])
            line[0].set_ylabel(looks.look(method, experiment).name, fontsize=8)
    game = min(frame.loc[frame["metric"] == "score_heldout", "task"])
    size = provenance(frame, experiment).size
    text = f"size {size}, seed 0; one episode after training, from its beginning to its end or to step 2,000"
    draw.title(figure, f"Atari: what the agents see in {printed(game)}", text)
    return figure


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    """The figures; `files` are the arrays of evaluations, each in a folder named as its method, and meta_curves.csv."""
    curves, shown = None, {}
    for path in files:
        if path.suffix == ".csv":
            curves = pd.read_csv(path)
            continue
        with np.load(path) as arrays:
            found = {name.removeprefix("seed0/pictures/"): arrays[name] for name in arrays if name.startswith("seed0/")}
        shown |= {path.parent.name: found} if found else {}
    return {
        "atari_scores": learning(frame),
        "atari_meta": meta_training(frame, curves),
        "atari_pictures": pictures(frame, shown),
    }
