"""A random search's trials as a table and a figure, and its winner as settings for the experiment.

    python -m leapwarp.report.search table --criterion accuracy --out-dir results/quick/search/few_shot/warp_maml \
        results/quick/search/few_shot/warp_maml/trials/0.csv results/quick/search/few_shot/warp_maml/trials/1.csv
    python -m leapwarp.report.search figure --trials results/quick/search/few_shot/warp_maml/trials.csv \
        --out results/quick/search/few_shot/warp_maml/search.png

Each trial is a run whose score was measured on validation classes. Its settings and its provenance are beside its rows
(3.csv, 3.yaml, 3.json). The winner has the best mean of the criterion over its validation tasks. The figure shows the
score of every trial against each setting that was drawn.
"""

import argparse
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from leapwarp import catalogue
from leapwarp.check import read_yaml
from leapwarp.files import atomic, one_line
from leapwarp.report import draw, looks, origin, rows
from leapwarp.report.document import Cell, Document, Table, Text, markdown
from leapwarp.report.document import Figure as Picture
from leapwarp.report.origin import Run, short
from leapwarp.report.quantities import Quantity, quantities, quantity

CAPTION = (
    "A random search (appendix I of the WarpGrad paper): the score of every trial on validation classes against each "
    "setting that was drawn. The star is the winner, whose settings are in winner.yaml. Dotted lines are trials whose "
    "training diverged."
)


def read_trial(path: Path, criterion: str) -> dict[str, Any]:
    """One trial: number, score (nan where it diverged) and the settings that were drawn.

    Raises ValueError if it was not evaluated on validation classes, or if it does not have the criterion.
    """
    judged_on = {run["held_out"] for run in rows.origins([path])}
    if judged_on != {"validation"}:
        raise ValueError(
            f"{path}: was evaluated on {', '.join(judged_on)} classes. Settings are chosen on validation classes: "
            "needed a run with --held-out validation."
        )
    trial, frame = read_yaml(path.with_suffix(".yaml"), "the settings of a trial"), rows.read(path)
    known = quantities(looks.experiment(frame))
    if criterion not in known:
        raise ValueError(f"{looks.experiment(frame)} has no quantity {criterion!r}, needed one of {', '.join(known)}.")
    score = math.nan
    if "diverged" not in set(frame["metric"]):
        final = quantity(frame, criterion)
        if final.empty:
            raise ValueError(f"{path}: found metrics {sorted(set(frame['metric']))}, needed {criterion!r}.")
        score = float(final["value"].to_numpy().mean())
    about = {key: trial[key] for key in ("experiment", "method", "trial")}
    about |= {"size": frame["size"].iloc[0], "data_source": frame["data_source"].iloc[0]}
    return about | {"score": score} | {name: trial["settings"][name] for name in trial["drawn"]}


def collect(paths: Sequence[Path], criterion: str) -> pd.DataFrame:
    """The trials, the best first. Equal scores are in the order of their numbers, and diverged trials come last.

    Raises ValueError if all trials diverged, or if they belong to several searches.
    """
    trials: list[dict[str, Any]] = [read_trial(path, criterion) | {"criterion": criterion} for path in paths]
    for key in ("experiment", "method", "size", "data_source"):
        found = sorted({trial[key] for trial in trials})
        if len(found) > 1:
            raise ValueError(f"found trials of {key} {found}, needed those of one search.")
    if all(math.isnan(trial["score"]) for trial in trials):
        raise ValueError(f"all {len(trials)} trials diverged: needed one that did not. Narrow the space of the rates.")
    sign = 1 if quantities(trials[0]["experiment"])[criterion].lower else -1

    def place(trial: dict[str, Any]) -> tuple[bool, float, int]:
        diverged = math.isnan(trial["score"])
        return diverged, 0.0 if diverged else sign * trial["score"], trial["trial"]

    return pd.DataFrame(sorted(trials, key=place))


def drawn(frame: pd.DataFrame) -> list[str]:
    """The columns of the settings that were drawn."""
    known = {"experiment", "method", "trial", "size", "data_source", "score", "criterion"}
    return [column for column in frame.columns if column not in known]


def judge(frame: pd.DataFrame) -> Quantity:
    """The quantity by which trials are compared."""
    return quantities(looks.experiment(frame))[frame["criterion"].iloc[0]]


def name_of(frame: pd.DataFrame) -> str:
    """The name of the method that was searched."""
    return looks.look(frame["method"].iloc[0], looks.experiment(frame)).name


def winner(frame: pd.DataFrame) -> dict[str, Any]:
    """The best trial, with numbers of types that YAML can write."""
    best = {key: value.item() if hasattr(value, "item") else value for key, value in frame.iloc[0].items()}
    about = {key: best[key] for key in ("experiment", "method", "size", "data_source", "trial")}
    about |= {"trials": len(frame), "criterion": best["criterion"], "score": best["score"]}
    return about | {"settings": {name: best[name] for name in drawn(frame)}}


def document(frame: pd.DataFrame, more: Sequence[tuple[str, str]] = ()) -> Document:
    """The trials, the best first, and further facts about the search as pairs (what, text)."""
    best, names, about = frame.iloc[0], drawn(frame), judge(frame)
    space = (catalogue.find(best["experiment"]).search or {"spaces": {}})["spaces"].get(best["method"], {})
    facts = [
        ("Trials", f"{len(frame)} of one seed each, at size `{best['size']}`, data `{best['data_source']}`"),
        ("Space", "; ".join(f"`{name}`: {_drawn_from(space.get(name))}" for name in names)),
        ("Winner", f"trial {best['trial']}: " + ", ".join(f"`{name} = {_shown(best[name])}`" for name in names)),
        *more,
    ]
    text = """Settings are drawn at random and judged on validation classes, which no test class is among; the best
trial wins. The WarpGrad paper (appendix I) prints neither spaces nor winners: the spaces are ours.
"""
    rows = [
        [
            f"{line['trial']}{' (winner)' * (place == 0)}",
            Cell("diverged" if math.isnan(line["score"]) else f"{line['score']:.{about.decimals}f}", best=place == 0),
            *(_shown(line[name]) for name in names),
        ]
        for place, line in enumerate(frame.to_dict("records"))
    ]
    score = f"{about.title} [{about.unit}], validation classes, {'lower' if about.lower else 'higher'} is better"
    blocks = [
        Text(text + "\n" + "\n".join(f"- {what}: {said}." for what, said in facts)),
        Table(["Trial", score, *(f"`{name}`" for name in names)], rows),
        Picture("search.png", f"{CAPTION} Made at size {best['size']}, data {best['data_source']}."),
    ]
    return Document(f"Random search: {name_of(frame)} in {best['experiment']}", blocks)


def _drawn_from(distribution: dict[str, Any] | None) -> str:
    """A distribution of a search space in words."""
    if not distribution:
        return "not declared"
    [(kind, values)] = distribution.items()
    if kind == "choice":
        return "one of " + ", ".join(map(short, values))
    low, high = map(short, values)
    return f"{low} to {high} ({kind.replace('_', '-')})"


def _shown(setting: Any) -> str:
    return f"{setting:.3g}" if isinstance(setting, float) else str(setting)


def use(winner: dict[str, Any], runs: Sequence[Run]) -> str:
    """A sentence on whether runs of the winner's experiment and method used its settings, by their provenance."""
    where = f"of {looks.look(winner['method'], winner['experiment']).name} in {winner['experiment']}"
    mine = [run for run in runs if run["method"] == winner["method"]]
    chosen = winner["settings"].items()
    n = sum(all(run["settings"].get(key) == value for key, value in chosen) for run in mine)
    if not mine:
        return f"no run {where} at this size yet"
    if 0 < n < len(mine):
        return f"used by the rows of {n} of {len(mine)} runs {where}"
    return f"{'used' if n else 'not used'} by the rows {where}"


def winners(folder: Path) -> tuple[list[Path], list[str]]:
    """The winner.yaml of each search in the results of a size, and the folders that are copies of another search."""
    every = sorted((folder / "search").glob("*/*/winner.yaml"))
    mine = []
    for path in every:
        best = read_yaml(path, "the winner of a search")
        if isinstance(best, dict) and (best.get("experiment"), best.get("method")) == path.parts[-3:-1]:
            mine.append(path)
    return mine, ["/".join(path.parts[-3:-1]) for path in every if path not in mine]


def found(path: Path, runs: Sequence[Run]) -> tuple[Document, list[Run]]:
    """The document of the search with this winner.yaml, and the runs of its trials. Raises ValueError if unfinished.

    Args:
        runs: the runs of the experiment, which may use the winner's settings.
    """
    here, best = path.parent, read_yaml(path, "the winner of a search")
    if not (here / "trials.csv").exists():
        raise ValueError(f"{here}: found a winner without trials.csv, needed both. Run `snakemake search`.")
    files = [
        file for file in sorted((here / "trials").glob("*.json")) if file.stem.isdecimal()
    ]  # no copies of a user's
    trials = [run for file in files for run in origin.read(file)]
    more = [("Its settings are", use(best, runs))]
    if trials:
        made = origin.provenance(trials)
        more.append(("Time and code", f"{60 * made['hours']:.1f} minutes together, {', '.join(made['versions'])}"))
    made = document(pd.read_csv(here / "trials.csv"), more)
    blocks = [block for block in made.blocks if not isinstance(block, Picture) or (here / block.path).exists()]
    return made._replace(blocks=blocks), trials


# ---------------------------------------------------------------- the figure


def panel(axes: Axes, frame: pd.DataFrame, name: str) -> None:
    values, look = frame[name], looks.look(frame["method"].iloc[0], looks.experiment(frame))
    if not pd.api.types.is_numeric_dtype(values):
        values = values.astype(str)
    elif min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:  # numbers
        axes.xaxis.set_major_locator(MaxNLocator(3))  # wide numbers would run into each other
    failed = frame["score"].isna()
    axes.plot(values[~failed], frame.loc[~failed, "score"], "o", color=look.colour, alpha=0.7)
    axes.plot(values.iloc[0], frame["score"].iloc[0], "*", color="black", markersize=13)
    for value in values[failed]:
        axes.axvline(value, color="0.7", linewidth=0.9, linestyle=":")
    axes.set_xlabel(name)


def build(frame: pd.DataFrame) -> Figure:
    names, about, first = drawn(frame), judge(frame), frame.iloc[0]
    figure = Figure(figsize=(max(2.7 * len(names), 6.5), 3.8), layout="constrained")
    row = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(row, names, strict=True):
        panel(axes, frame, name)
    unit = "%" if about.unit == "percent" else about.unit
    row[0].set_ylabel(textwrap.fill(f"{about.title}, validation classes [{unit}]", 28))
    warning = origin.smaller(first["size"], first["data_source"])
    text = f"size {first['size']}, data {first['data_source']}, {len(frame)} trials of one seed each"
    draw.title(
        figure, f"Random search: {name_of(frame)}, {first['experiment']}", text + f" ({warning})" * bool(warning)
    )
    return figure


# ---------------------------------------------------------------- commands


def make_table(options: argparse.Namespace) -> None:
    frame = collect(options.trials, options.criterion)
    with atomic(options.out_dir / "trials.csv") as path:
        frame.to_csv(path, index=False, lineterminator="\n")
    with atomic(options.out_dir / "trials.md") as path:
        path.write_text(markdown(document(frame)), encoding="utf-8")
    with atomic(options.out_dir / "winner.yaml") as path:
        path.write_text(yaml.safe_dump(winner(frame), sort_keys=False), encoding="utf-8")
    print(f"{options.out_dir / 'winner.yaml'}: trial {frame['trial'].iloc[0]} of {len(frame)}")


def make_figure(options: argparse.Namespace) -> None:
    with draw.styled():
        draw.save(build(pd.read_csv(options.trials)), options.out)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m leapwarp.report.search", description="What a search found.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("table", help="choose the best trial")
    command.add_argument("trials", nargs="+", type=Path, help="CSVs of trials, with their .yaml and .json beside them")
    command.add_argument("--criterion", required=True, help="a quantity of the experiment")
    command.add_argument("--out-dir", required=True, type=Path, help="folder of trials.csv, trials.md and winner.yaml")
    command.set_defaults(run=make_table)
    command = commands.add_parser("figure", help="draw the trials")
    command.add_argument("--trials", required=True, metavar="CSV", help="trials.csv of the command `table`")
    command.add_argument("--out", required=True, type=Path, metavar="PNG")
    command.set_defaults(run=make_figure)
    for command in commands.choices.values():
        command.add_argument("--experiment", metavar="PATH", help="its folder, if it is a user's own")
    options = parser.parse_args(arguments)
    with one_line(parser):
        if options.experiment:
            catalogue.find(options.experiment)
        options.run(options)


if __name__ == "__main__":
    main()
