"""Leap's Atari experiment (appendix H): table and figures of scores, and frames of a trained agent's episode.

Scores are shown on a scale for each game: 0 is random play, and 1 the best mean score of any method. Metrics are named
`score_<group of games>`, and tasks are games. The paper shows a plot and prints no numbers.
"""

from collections.abc import Sequence
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
from leapwarp.report.document import Document, Heading, Table, Text
from leapwarp.report.quantities import Quantity
from leapwarp.report.rows import provenance
from leapwarp.report.select import RUN, each, steps
from leapwarp.report.stats import curve, summary
from leapwarp.report.table import number, summaries, summary_table

RANDOM = "random_policy"
OF_GAME = [*RUN, "task"]
GAMES = {  # by the suffix of their metrics: for tables, and for the titles of panels
    "heldout": ("held-out games", "held out"),
    "seen": ("games of meta-training", "seen in meta-training"),
    "larger": ("games with more actions", "more actions"),
}
COLUMNS = 3  # of panels
BLOCKS, POINTS = 5, 50  # of meta-steps in a panel of meta-training, and of a line there


def normalised(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The curves of all methods that learn, with `value` on the scale of its game.

    The score of random play is its mean over the second half of its runs and over seeds. If no method is above random
    play, the largest distance from it is the unit. A game without random play has no scale and is left out.
    """
    rows = steps(frame, metric)
    plays_at_random = rows["method"] == RANDOM
    at_random = each(rows.loc[plays_at_random], second_half, OF_GAME)
    zeros = at_random.groupby("task").agg({"value": "mean"})["value"]
    learnt = rows.loc[~plays_at_random]
    learnt = learnt.loc[learnt["task"].isin(zeros.index)]
    top = learnt.groupby(["task", "method", "step"])["value"].mean().groupby("task").max()
    zero = zeros.reindex(learnt["task"]).to_numpy(dtype=float)
    reach = top.reindex(learnt["task"]).to_numpy(dtype=float) - zero
    off = learnt["value"].to_numpy() - zero
    furthest = pd.Series(np.abs(off)).groupby(learnt["task"].to_numpy()).transform("max").to_numpy()
    unit = np.where(reach > 0, reach, np.where(furthest > 0, furthest, 1.0))
    return learnt.assign(value=off / unit)


def second_half(values: np.ndarray) -> float:
    return float(values[len(values) // 2 :].mean())


def last_tenth(values: np.ndarray) -> float:
    return float(values[-max(1, len(values) // 10) :].mean())


def area(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean of each normalised curve: the area under it, divided by its length."""
    return each(normalised(frame, metric), lambda values: float(values.mean()), OF_GAME)


def end(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean over the last tenth of each normalised curve."""
    return each(normalised(frame, metric), last_tenth, OF_GAME)


def raw(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The same for the game's own scores. For random play, which does not change, the mean is over the second half."""
    rows = steps(frame, metric)
    plays_at_random = rows["method"] == RANDOM
    parts = [each(rows.loc[~plays_at_random], last_tenth, OF_GAME)]
    parts += [each(rows.loc[plays_at_random], second_half, OF_GAME)]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


QUANTITIES = {
    f"score_{what}_{group}": Quantity(f"score_{group}", f"{title}, {games}", "0 random, 1 best", 3, select=select)
    for what, title, select in (("area", "Area under the score", area), ("end", "Score at the end", end))
    for group, (games, _) in GAMES.items()
}


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each method and quantity."""
    lines = summaries(frame, list(QUANTITIES))
    n_steps = int(frame.loc[frame["step"].notna() & frame["metric"].str.startswith("score_"), "step"].max())
    scale = (
        "" if RANDOM in set(frame["method"]) else "\n- **Random play was not run, so that scores have no scale here.**"
    )
    text = f"""
- {n_steps:,} steps a game; the paper has 5,000,000. {meta_trained(frame)}
- The paper shows curves and prints no numbers. ± is the sample standard deviation over seeds.
- On every game 0 is the score of random play (the mean over the second half of its runs). 1 is the highest value of any
  method's mean curve, including its noise. If that is little above random play (second table), the scale is
  meaningless. The area is the mean of the normalised curve, so it is larger if a method learns faster. The end is the
  mean of the last tenth. Before an emulator's first episode has ended, its current score counts.{scale}
"""
    blocks = [
        Text(text),
        summary_table(lines, "Encoder", looks.experiment(frame), list(QUANTITIES)),
        Heading("The games' own scores at the end"),
        own_scores(frame),
    ]
    return Document("Leap, Atari: scores of episodes (higher: better)", blocks, lines)


def meta_trained(frame: pd.DataFrame) -> str:
    """A sentence on the length of meta-training, if there was any."""
    found = {name: sorted(set(frame.loc[frame["metric"] == name, "value"])) for name in ("meta_step", "games")}
    if not all(found.values()):
        return ""
    steps, games = (" or ".join(f"{value:.0f}" for value in found[name]) for name in ("meta_step", "games"))
    return f"Meta-training: {steps} meta-steps of {games} games; the paper has 100 of 16."


def own_scores(frame: pd.DataFrame) -> Table:
    """One row for each game."""
    names, rows = looks.names(frame), []
    for group, (title, _) in GAMES.items():
        found = summary(raw(frame, f"score_{group}"), ["method", "task", "n_tasks", "metric"])
        cells = {(line["method"], line["task"]): number(line["mean"], line["std"]) for line in found.to_dict("records")}
        for game in sorted(set(found["task"])):
            rows.append([printed(game), title, *(cells[method, game] for method in names)])
    return Table(["Game", "Group", *names.values()], rows)


def printed(game: str) -> str:
    """The game as the paper writes it: air_raid is AirRaid."""
    return "".join(part.capitalize() for part in game.split("_"))


def grid(
    frame: pd.DataFrame, heading: str, titles: Sequence[str], columns: int, height: float
) -> tuple[Figure, list[Axes]]:
    """A panel for each title. The lowest ones have the label of the horizontal axis, the agent's steps."""
    lines = -(-len(titles) // columns)
    size = (9.6, 1.3 + height * lines)
    figure, panels = draw.panels(frame, heading, size, lines, columns, sharex=True)
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title, fontsize=9, loc="left")
        axes.xaxis.set_major_formatter(FuncFormatter(_steps))
    for axes in panels[len(titles) - min(columns, len(titles)) : len(titles)]:
        axes.set_xlabel("steps of the game's agent")
        axes.tick_params(labelbottom=True)
    for axes in panels[len(titles) :]:
        axes.set_axis_off()
    return figure, panels[: len(titles)]


def _steps(value: float, place: int | None = None) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g} {letter}"
    return f"{value:g}"


def atari_scores(frame: pd.DataFrame, *_) -> Figure:
    """A panel for each game, in the order of the groups: normalised score against steps."""
    curves = {group: normalised(frame, f"score_{group}") for group in GAMES}
    shown = [(group, game) for group, rows in curves.items() for game in sorted(set(rows["task"]))]
    heading = "Atari: learning from a meta-learnt and from a random encoder"
    if not shown:
        figure, [axes] = draw.panels(frame, heading, (9.6, 2.2))
        draw.empty(axes, "no random play or nothing that learns: no scale of scores")
        return figure
    titles = [f"{printed(game)} ({GAMES[group][1]})" for group, game in shown]
    figure, panels = grid(frame, heading, titles, COLUMNS, 2.3)
    random = looks.look(RANDOM, looks.experiment(frame))
    for axes, (group, game) in zip(panels, shown, strict=True):
        draw.curves(axes, curves[group].loc[curves[group]["task"] == game], f"score_{group}")
        axes.axhline(0, color=random.colour, linewidth=0.8, linestyle=":")
    for axes in panels[::COLUMNS]:
        axes.set_ylabel("score (0 random, 1 best mean)")
    learnt = looks.of(pd.concat(curves.values())).values()
    at_random = draw.handle(random, marker=False)
    at_random.set_linestyle(":")
    draw.legend(figure, [*(draw.handle(look, marker=False) for look in learnt), at_random])
    return figure


def blocks(curves: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Scores of meta-training by seed, game, block of meta-steps and step, and the names of the blocks.

    If there are more than BLOCKS meta-steps, neighbouring ones are averaged in blocks; if there are more than POINTS
    steps, neighbouring ones are averaged too.
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
    """Scores scaled so that 0 and 1 are the lowest and highest value of a game's lines, which are means over seeds."""
    lines = means.groupby(["game", "block", "step"], as_index=False).agg({"score": "mean"})
    means = means.merge(lines.groupby("game")["score"].agg(low="min", high="max").reset_index(), on="game")
    span = means["high"] - means["low"]
    return means.assign(score=((means["score"] - means["low"]) / span).where(span > 0, 0.0))


def atari_meta(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> Figure:
    """A panel for each game of meta-training, in the game's own points, and one for all games on a common scale.

    A line is a meta-step or a block of them: mean and standard deviation over seeds of a seed's mean over its games.
    `files` includes meta_curves.csv (chain.py) if anything was meta-trained.
    """
    heading = "Atari: learning the games of meta-training"
    curves = [pd.read_csv(path) for path in files if path.suffix == ".csv"]
    if not curves:
        figure, [axes] = draw.panels(frame, heading, (9.6, 2.2))
        draw.empty(axes, "no meta_curves.csv: nothing was meta-trained")
        return figure
    size, found = provenance(frame, looks.experiment(frame)).size, sorted(set(curves[0]["size"]))
    if found != [size]:
        raise ValueError(
            f"found curves of meta-training at {', '.join(found)}, needed those at {size}, as the rows are."
        )
    means, names = blocks(curves[0])
    games = sorted(set(means["game"]))
    colours = [to_hex(matplotlib.colormaps["viridis_r"](x)) for x in np.linspace(0.15, 1, len(names))]
    trained, columns = frame.loc[frame["method"] == "leap"], COLUMNS if len(games) + 1 > 4 else 2
    figure, panels = grid(trained, heading, [*map(printed, games), "mean over games"], columns, 2.1)
    shown = [*((means.loc[means["game"] == game], "score [points]") for game in games)]
    for axes, (mine, label) in zip(panels, [*shown, (scaled(means), "score (0 least, 1 greatest)")], strict=True):
        lines = curve(mine.rename(columns={"block": "method", "game": "task", "score": "value"}))
        for block, line in lines.groupby("method"):
            draw.band(axes, line, "step", colours[int(str(block))], linewidth=1.3)
        axes.set_ylabel(label)
    handles = [Line2D([], [], color=colour, label=label) for colour, label in zip(colours, names, strict=True)]
    figure.legend(handles=handles, title="meta-step", loc="outside right center", frameon=False, fontsize=8.5)
    return figure


def atari_pictures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> Figure:
    """A row for each method: frames of one episode, from its first step to its last.

    `files` includes the arrays of evaluations, each in a folder with the name of its method. Those of seed 0 have
    pixels [picture, 84, 84, 3], step and score [picture].
    """
    shown = {}
    for path in [path for path in files if path.suffix == ".npz"]:
        with np.load(path) as arrays:
            found = {name.removeprefix("seed0/pictures/"): arrays[name] for name in arrays if name.startswith("seed0/")}
        shown |= {path.parent.name: found} if found else {}
    game = min(frame.loc[frame["metric"] == "score_heldout", "task"])
    n = max((len(found["step"]) for found in shown.values()), default=1)
    size = (9.6, 0.9 + 1.3 * max(1, len(shown)))
    heading = f"Atari: what the agents see in {printed(game)}"
    figure, panels = draw.panels(frame, heading, size, max(1, len(shown)), n, spread="seed 0, after training")
    if not shown:
        draw.empty(panels[0], "no pictures: only runs of the seed 0 leave them")
    names = {method: look.name for method, look in looks.of(frame, shown).items() if method in shown}
    for row, (method, name) in enumerate(names.items()):
        found = (shown[method][array] for array in ("pixels", "step", "score"))
        panels[row * n].set_ylabel(name, fontsize=8)
        for axes, pixels, step, score in zip(panels[row * n : (row + 1) * n], *found, strict=True):
            axes.imshow(pixels, interpolation="nearest")
            axes.set_title(f"step {step}, score {score:g}", fontsize=6.5)
            axes.set(xticks=[], yticks=[])
    return figure
