"""Table 3 of the Leap paper: transfer between image data sets, ours beside theirs."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import draw, looks, stats
from leapwarp.report.claims import Part, contrast
from leapwarp.report.document import Block, Cell, Document, Heading, Table, Text
from leapwarp.report.quantities import SHARED, Quantity, percent, quantities, quantity
from leapwarp.report.rows import provenance
from leapwarp.report.select import final, steps
from leapwarp.report.table import number, signed

EXPERIMENT = "multicv"
SETS = {  # of the paper, in its order: classes, training and test images of the official set
    "facescrub": (100, 20_600, 2_289),
    "notmnist": (10, 16_853, 1_873),
    "mnist": (10, 60_000, 10_000),
    "fashion-mnist": (10, 60_000, 10_000),
    "cifar10": (10, 50_000, 10_000),
    "svhn": (10, 73_257, 26_032),
    "cifar100": (100, 50_000, 10_000),
    "traffic-signs": (43, 26_640, 12_630),
}
COMPARED = ("leap", "finetune", "progressive", "hat", "scratch")  # the methods of Leap's Table 3
SHOWN = ("error", "train_error", "error_area")
COLUMNS = 4  # of panels


def sets_of(frame: pd.DataFrame) -> list[str]:
    """The held-out sets, in the order of the paper, then others by name."""
    found = set(frame["task"]) - {""}
    return [name for name in SETS if name in found] + sorted(found - set(SETS))


def methods_of(found: set[str]) -> list[str]:
    """Methods in the order of the paper's table, then others."""
    ours = looks.ordered(found, EXPERIMENT)
    return [name for name in COMPARED if name in found] + [name for name in ours if name not in COMPARED]


Select = Callable[[pd.DataFrame, str], pd.DataFrame]
"""as `Quantity.select`: one row for each run and held-out set"""


def on_set(name: str) -> Select:
    """The rows of one held-out set."""

    def select(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
        rows = final(frame, metric)
        return rows.loc[rows["task"] == name]

    return select


def ranked(lower: bool) -> Select:
    """The rank of each method of Table 3 on each set except Facescrub, 1 for the best. No rows if a method was not run.

    Args:
        lower: lower is better.
    """

    def select(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
        rows = final(frame, metric)
        rows = rows.loc[rows["method"].isin(COMPARED) & (rows["task"] != "facescrub")]
        of_set = rows.groupby(["seed", "task"])["value"]
        whole = np.asarray(of_set.transform("size")) == len(COMPARED)
        return rows.assign(value=of_set.rank(ascending=lower)).loc[whole]

    return select


def beside(rows: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the column `value_base`: the value of `base` for the same seed and set. Others are left out."""
    return rows.merge(base[["seed", "task", "value"]], on=["seed", "task"], suffixes=("", "_base"))


ALL: dict[str, tuple[str, ...]] = dict.fromkeys(COMPARED, COMPARED)
"""method -> the methods among which it is ranked"""

OTHER_EPOCHS = {"leap": "leap_1_epoch"}
"""method -> the same with another number of epochs on each pretraining task"""
OTHER_EPOCHS |= {name: f"{name}_many_epochs" for name in ("finetune", "hat", "progressive")}


def gain_of_epochs(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The metric with several epochs on each pretraining task minus that with one, for the same seed and set.

    Rows carry the method's name without the number of epochs.
    """
    rows, parts = final(frame, metric), []
    for method, other in OTHER_EPOCHS.items():
        many, one = (other, method) if other.endswith("many_epochs") else (method, other)
        joined = beside(rows.loc[rows["method"] == many], rows.loc[rows["method"] == one])
        parts.append(joined.assign(method=method, value=joined["value"] - joined["value_base"]))
    return pd.concat(parts, ignore_index=True).drop(columns="value_base")


AREA = "area, 0 to 100"
QUANTITIES = {
    "train_error": Quantity("train_error", "Training error", "percent", 1, True, percent),
    "error_area": Quantity("error_area", "Area under the training-error curve", AREA, 1, True),
    "step_seconds": Quantity("step_seconds", "Time of a step on a held-out set", "seconds", 4, True),
    "parameters": Quantity("parameters", "Parameters", "count", 0, True),
    "epochs_gain": Quantity(
        "accuracy",
        "Gain from more epochs",
        "points",
        1,
        False,
        percent,
        gain_of_epochs,
        {name: (other,) for name, other in OTHER_EPOCHS.items()},
    ),
}
QUANTITIES |= {  # Table 3 set by set
    f"error_{_set}": SHARED["error"]._replace(title=f"Held-out error on {_set}", select=on_set(_set)) for _set in SETS
}
QUANTITIES |= {
    "rank": Quantity(
        "accuracy", "Rank by held-out error", "of five methods", 2, True, select=ranked(lower=False), uses=ALL
    ),
    "area_rank": Quantity(
        "error_area", "Rank by area", "of five methods", 2, True, select=ranked(lower=True), uses=ALL
    ),
}


def comparison(frame: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """One line for each held-out set, method and quantity, ours and the paper's, also for methods that were not run."""
    size, source = provenance(frame, EXPERIMENT)
    key = ["heldout", "method", "metric"]
    ours = [stats.summary(quantity(frame, name), ["task", "method", "metric"]) for name in SHOWN]
    mine = pd.concat(ours).rename(columns={"task": "heldout", "mean": "ours_mean", "std": "ours_std"})
    theirs = paper.drop(columns="paper").rename(columns={"row": "heldout", "value": "paper"})[[*key, "paper"]]
    lines = mine.merge(theirs, on=key, how="outer")
    order = [list(dict.fromkeys([*sets_of(frame), *SETS])), methods_of(set(lines["method"])), list(SHOWN)]
    places = pd.MultiIndex.from_product(order, names=key)
    lines = lines.set_index(key).loc[lambda rows: places[places.isin(rows.index)]].reset_index()
    unit = [quantities(EXPERIMENT)[name].unit for name in lines["metric"]]
    counts = lines["n_seeds"].fillna(0).astype("int64")
    columns = [*key, "ours_mean", "ours_std", "n_seeds", "paper", "unit", "size", "data_source"]
    return lines.assign(n_seeds=counts, unit=unit, size=size, data_source=source)[columns]


def name_of(method: str) -> str:
    return looks.look(method, EXPERIMENT).name


def errors_table(lines: pd.DataFrame) -> Table:
    """One row for each held-out set and method. The best of a set is marked, separately for ours and the paper's."""
    best = lines.groupby(["heldout", "metric"])[["ours_mean", "paper"]].transform("min")
    cells: dict[tuple[str, str], list[Cell]] = {}
    for line, least in zip(lines.to_dict("records"), best.to_dict("records"), strict=True):
        is_best = [bool(line[column] == least[column]) for column in ("ours_mean", "paper")]
        cell = Cell(number(line["ours_mean"], line["ours_std"]), number(line["paper"]))
        cell = cell._replace(best=is_best[0], best_paper=is_best[1])
        cells.setdefault((line["heldout"], line["method"]), []).append(cell)
    head = ["Held-out set", "Method", "Test [%]", "Train [%]", "Area [0 to 100]"]
    return Table(head, [[heldout, name_of(method), *found] for (heldout, method), found in cells.items()])


def lowest_table(lines: pd.DataFrame) -> Table:
    """The method with the lowest test error and area on each set, in our results and the paper's."""
    rows = []
    for heldout, mine in lines.groupby("heldout", sort=False):
        cells = [str(heldout)]
        for name in ("error", "error_area"):
            of = mine.loc[mine["metric"] == name].set_index("method")
            for column in ("ours_mean", "paper"):
                values = of[column].dropna()
                cells.append(", ".join(map(name_of, values.index[values == values.min()])) or "–")
        rows.append(cells)
    head = ["Held-out set", "Lowest test error: ours", "The paper's", "Lowest area: ours", "The paper's area"]
    return Table(head, rows)


def differences(frame: pd.DataFrame, base: str, others: Sequence[str]) -> Table:
    """Error and area of each method minus those of `base`, over all sets, with intervals."""
    rows = []
    for method in others:
        cells = [name_of(method)]
        for name in ("error", "error_area"):
            values, _ = contrast(frame, Part("", {(method, 0): 1.0, (base, 0): -1.0}), name)
            if len(values) < 2:
                cells += [number(float(values[0].mean()) if values else np.nan), "– (one seed)" if values else "–"]
            else:
                effect, low, high = stats.interval(values, stats.LEVEL)
                cells += [signed(effect), f"{signed(low)} to {signed(high)}"]
        rows.append(cells)
    head = [f"Less {name_of(base)}", "Test error [points]", "Its 95 % interval", "Area", "Its interval"]
    return Table(head, rows)


def costs(frame: pd.DataFrame) -> Table:
    """Parameters, times and memory by method."""
    means = final_means(frame)
    rows = []
    for method in methods_of(set(frame["method"])):
        mine = steps(frame.loc[frame["method"] == method], "parameters_without_heads")
        growth = mine.groupby("step").agg({"value": "mean"})["value"].to_numpy()
        ends = [growth[0], growth[-1]] if len(growth) else [np.nan, np.nan]
        counts = ["–" if np.isnan(count) else f"{count:,.0f}" for count in (*ends, means["parameters"][method])]
        times = [number(means["meta_seconds"][method]), number(1000 * means["step_seconds"][method])]
        memory = means["peak_memory"][method]
        rows.append([name_of(method), *counts, *times, "–" if np.isnan(memory) else f"{memory:,.0f}"])
    head = ["Method", "Parameters, 1 task", "all tasks", "with heads"]
    return Table([*head, "Pretraining [s]", "Held-out step [ms]", "Peak memory [MB]"], rows)


def final_means(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The mean of the rows without a step, by metric and method; nan if it was not measured."""
    wide = frame.loc[frame["step"].isna()].pivot_table(index="method", columns="metric", values="value")
    return wide.reindex(columns=["parameters", "meta_seconds", "step_seconds", "peak_memory"]).to_dict()


def data(frame: pd.DataFrame) -> list[Block]:
    """The numbers of images of each set that this size used."""
    rows = []
    for name in sets_of(frame):
        mine = frame.loc[frame["step"].isna() & (frame["task"] == name)]
        counts = [
            sorted({int(value) for value in mine.loc[mine["metric"] == metric, "value"]})
            for metric in ("n_classes", "n_train", "n_test")
        ]
        shown = [" to ".join(f"{value:,}" for value in sorted({each[0], each[-1]})) if each else "–" for each in counts]
        official = SETS.get(name)
        if official is None:
            said = "taken where SVHN is missing; not SVHN" if name == "chars74k" else "not one of the paper's sets"
        elif counts == [[count] for count in official]:
            said = "as large"
        else:
            said = f"{official[0]} classes, {official[1]:,} + {official[2]:,}"
        rows.append([name, *shown, said])
    table = Table(["Set", "Classes", "Training images", "Test images", "The official set"], rows)
    missing = [name for name in SETS if name not in sets_of(frame)]
    return [table, *[Text(f"Left out, since they were not found: {', '.join(missing)}.")] * bool(missing)]


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each held-out set, method and quantity."""
    lines, run = comparison(frame, paper), set(frame["method"])
    compared = lines.loc[lines["method"].isin(COMPARED)]
    text = """
- A cell has *ours ± std*, then the *paper's*. ± is the sample standard deviation over seeds; the paper prints none. The
  lowest value of each set is marked, separately for ours and the paper's. – is a missing number.
- *Test* and *train* are errors at the end of training on the held-out set. *Area* is the area under the curve of the
  error on training batches, scaled to 0 to 100. A run that has stopped early keeps its last training error.
- Every method pretrains on all sets except the held-out one. There Leap may train several epochs on each task, and the
  others one, as published.
"""
    blocks: list[Block] = [Text(text), errors_table(compared), Heading("Who is ahead"), lowest_table(compared)]
    if "scratch" in run:
        text = """Mean over all held-out sets. Below zero the method is better than no pretraining. The interval is over
seeds (docs/claims.md), so it holds for these sets only."""
        table = differences(frame, "scratch", methods_of(run - {"scratch"}))
        blocks += [Heading("Against no pretraining"), Text(text), table]
    text = f"""Means over held-out sets and seeds, on `{", ".join(sorted(set(frame["device"])))}`. Parameters are those
of the shared network (HAT: with its embeddings; Progressive Nets: all columns), after one task and after all tasks,
and then with all heads that the method keeps. Memory is that of the process, including the data."""
    blocks += [Heading("Costs"), Text(text), costs(frame), Heading("Data"), *data(frame)]
    return Document("Leap, Table 3: transfer between image data sets, each held out in turn", blocks, lines)


def panels(frame: pd.DataFrame, heading: str, spread: str, height: float, label: str) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each set, in rows of four, each `height` inches high."""
    sets = sets_of(frame)
    n_rows = -(-max(len(sets), 1) // COLUMNS)
    figure, axes = draw.panels(frame, heading, (12.0, height * n_rows + 1.0), n_rows, COLUMNS, spread)
    for each, name in zip(axes, sets, strict=False):
        each.set_title(name if name in SETS else f"{name} (not in the paper)", fontsize=9)
        each.set_xlabel(label)
    for extra in axes[max(len(sets), 1) :]:
        extra.set_axis_off()
    return figure, dict(zip(sets, axes, strict=False))


def multicv(frame: pd.DataFrame, paper: pd.DataFrame, *_) -> Figure:
    """A panel for each set, with a row for each method."""
    heading = "Transfer to the set held out: test error when training has stopped"
    figure, axes = panels(frame, heading, draw.BARS, 2.5, "test error [%]")
    frame, handles = frame.loc[frame["method"].isin(COMPARED)], []
    for place, (name, panel) in enumerate(axes.items()):
        mine = frame.loc[(frame["task"] == name) | (frame["task"] == "")]
        printed = paper.loc[(paper["row"] == name) & (paper["metric"] == "error")]
        labels = {method: "" for method in COMPARED if place % COLUMNS}
        handles = draw.dots(panel, mine, "error", printed, "Leap paper, Table 3", labels)
    draw.legend(figure, handles)
    return figure


def changes(values: pd.DataFrame, sets: Sequence[str], methods: Sequence[str]) -> np.ndarray:
    """Value minus that without pretraining, nan if one is missing. columns task, method, value -> [set, method]"""
    wide = values.pivot_table(index="task", columns="method", values="value")
    wide = wide.reindex(index=list(sets), columns=[*methods, "scratch"])
    return wide[list(methods)].sub(wide["scratch"], axis=0).to_numpy(dtype=float)


def multicv_map(frame: pd.DataFrame, paper: pd.DataFrame, *_) -> Figure:
    """Ours on the left, the paper's on the right."""
    methods = [name for name in COMPARED if name != "scratch"]
    names = [name_of(method).replace(" (", "\n(").replace("sive Nets", "sive\nNets") for method in methods]
    theirs = paper.loc[paper["metric"] == "error"].rename(columns={"row": "task"})
    heading = "What pretraining on the other sets changes, against no pretraining"
    figure, panels = draw.panels(frame, heading, (11.0, 5.0), n_columns=2, spread="means over seeds")
    sides = [("ours", sets_of(frame), quantity(frame, "error")), ("Leap paper, Table 3", list(SETS), theirs)]
    for axes, (title, sets, values) in zip(panels, sides, strict=True):
        cells = changes(values, sets, methods)
        finite = np.abs(cells[np.isfinite(cells)])
        limit = max(float(np.quantile(finite, 0.9)) if len(finite) else 1.0, 1.0)  # few large values would hide others
        image = axes.imshow(cells, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
        for (i, j), value in np.ndenumerate(cells):
            colour = "0.5" if np.isnan(value) else "white" if abs(value) > 0.55 * limit else "black"
            text = "not run" if np.isnan(value) else f"{value:+.1f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8.5, color=colour)
        axes.set_xticks(range(len(methods)), names)
        axes.set_yticks(range(len(sets)), sets)
        axes.set_title(title, fontsize=9.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label="change of test error [points]", shrink=0.85, extend="both")
    return figure


def multicv_curves(frame: pd.DataFrame, *_) -> Figure:
    """Held-out error against steps, a panel for each set."""
    heading = "Learning each held-out set after pretraining on the others"
    figure, axes = panels(frame, heading, draw.SPREAD, 2.6, "gradient steps")
    frame = frame.loc[frame["method"].isin(COMPARED)]
    for place, (name, panel) in enumerate(axes.items()):
        mine = frame.loc[frame["task"] == name]
        draw.curves(panel, mine, "heldout_accuracy", -100, 100, style=lambda *_: {"linewidth": 1.3})
        batches = mine.loc[mine["metric"] == "train_batch_error"]
        for method, line in stats.curve(batches).groupby("method"):
            colour = looks.look(str(method), EXPERIMENT).colour
            panel.plot(line["step"], 100 * line["mean"], color=colour, linestyle=":", lw=1.0, zorder=3)
        panel.set_ylim(0, 100)
        panel.set_ylabel("" if place % COLUMNS else "error [%]")
    handles = [Line2D([], [], color=look.colour, label=look.name) for look in looks.of(frame).values()]
    handles += [Line2D([], [], color="0.3", label="test")]
    handles += [Line2D([], [], color="0.3", linestyle=":", label="training batches")]
    draw.legend(figure, handles)
    return figure
