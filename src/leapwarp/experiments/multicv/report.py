"""Table 3 of the Leap paper: transfer between image data sets, ours beside theirs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import claims, draw, looks
from leapwarp.report.quantities import SHARED, Quantity, final, percent, quantities, quantity
from leapwarp.report.rows import provenance, summary
from leapwarp.report.table import number, origin

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


# ---------------------------------------------------------------- quantities

Select = Callable[[pd.DataFrame, str], pd.DataFrame]
"""as `Quantity.select`: one row for each run and held-out set"""


def on_set(name: str) -> Select:
    """The rows of one held-out set."""

    def select(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
        rows = final(frame, metric)
        return rows.loc[rows["task"] == name]

    return select


def margin(name: str, lower: bool) -> Select:
    """Leap's lead over the best other method of Table 3 on a set, in the metric; no rows where one was not run.

    Args:
        lower: lower is better.
    """

    def select(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
        rows = on_set(name)(frame, metric)
        wide = rows.pivot_table(index="seed", columns="method", values="value")
        leap = rows.loc[rows["method"] == "leap"]
        if not set(COMPARED) <= set(wide.columns):
            return leap.iloc[:0]
        others = wide[[method for method in COMPARED if method != "leap"]]
        lead = others.min(axis=1) - wide["leap"] if lower else wide["leap"] - others.max(axis=1)
        return leap.assign(value=leap["seed"].map(lead)).dropna(subset="value")

    return select


def times_finetuning(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The metric in units of multi-headed finetuning's, of the same seed and set."""
    rows = final(frame, metric)
    base = rows.loc[rows["method"] == "finetune", ["seed", "task", "value"]]
    joined = rows.merge(base, on=["seed", "task"], suffixes=("", "_base"))
    return joined.assign(value=joined["value"] / joined["value_base"]).drop(columns="value_base")


def gain_of_epochs(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """What several epochs on each pretraining task add to the metric over one, of the same seed and set.

    Rows carry the method's name without the number of epochs.
    """
    rows, pairs = final(frame, metric), {"leap": ("leap", "leap_1_epoch")}
    pairs |= {name: (f"{name}_many_epochs", name) for name in ("finetune", "hat", "progressive")}
    parts = []
    for method, (many, one) in pairs.items():
        base = rows.loc[rows["method"] == one, ["seed", "task", "value"]]
        joined = rows.loc[rows["method"] == many].merge(base, on=["seed", "task"], suffixes=("", "_one"))
        parts.append(joined.assign(method=method, value=joined["value"] - joined["value_one"]))
    return pd.concat(parts, ignore_index=True).drop(columns="value_one")


QUANTITIES = {
    "train_error": Quantity("train_error", "Training error", "percent", 1, True, percent),
    "error_area": Quantity("error_area", "Area under the training-error curve", "area, 0 to 100", 1, True),
    "step_seconds": Quantity("step_seconds", "Time of a step on a held-out set", "seconds", 4, True),
    "parameters": Quantity("parameters", "Parameters", "count", 0, True),
    "parameter_ratio": Quantity(
        "parameters", "Parameters", "times finetuning's", 1, True, select=times_finetuning
    ),
    "epochs_gain": Quantity("accuracy", "Gain from more epochs", "points", 1, False, percent, gain_of_epochs),
}  # fmt: skip
for _name in SETS:  # the comparisons of Table 3, set by set
    QUANTITIES |= {
        f"error_{_name}": SHARED["error"]._replace(title=f"Held-out error on {_name}", select=on_set(_name)),
        f"lead_{_name}": Quantity(
            "accuracy", f"Leap's lead on {_name}", "percent", 1, False, percent, margin(_name, lower=False)
        ),
        f"area_lead_{_name}": Quantity(
            "error_area", f"Leap's lead in area on {_name}", "area, 0 to 100", 1, select=margin(_name, lower=True)
        ),
    }


# ---------------------------------------------------------------- table


def comparison(frame: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """One line a held-out set, method and quantity, ours and the paper's; those of the paper that were not run too."""
    size, source = provenance(frame, EXPERIMENT)
    printed = {(line["row"], line["method"], line["metric"]): line["value"] for line in paper.to_dict("records")}
    ours = {}
    for name in SHOWN:
        for line in summary(quantity(frame, name), ["task", "method"]).to_dict("records"):
            ours[line["task"], line["method"], name] = line
    sets = list(dict.fromkeys([*sets_of(frame), *SETS]))
    methods = methods_of({method for _, method, _ in [*ours, *printed]})
    nothing = {"mean": np.nan, "std": np.nan, "n_seeds": 0}
    lines = []
    for key in [(heldout, method, name) for heldout in sets for method in methods for name in SHOWN]:
        if key in ours or key in printed:
            our, unit = ours.get(key, nothing), quantities(EXPERIMENT)[key[2]].unit
            lines.append([
                *key, our["mean"], our["std"], our["n_seeds"], printed.get(key, np.nan), unit, size, source,
            ])  # fmt: skip
    columns = ["heldout", "method", "metric", "ours_mean", "ours_std", "n_seeds", "paper", "unit", "size"]
    return pd.DataFrame(lines, columns=[*columns, "data_source"])


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("|" + "|".join("---" if cell == "---" else f" {cell} " for cell in row) + "|" for row in rows)


def name_of(method: str) -> str:
    return looks.look(method, EXPERIMENT).name


def bold(text: str, is_best: bool) -> str:
    return f"**{text}**" if is_best else text


def errors_table(lines: pd.DataFrame) -> str:
    """A held-out set and method a row; the best of a set in bold, ours and the paper's apart."""
    best = lines.groupby(["heldout", "metric"])[["ours_mean", "paper"]].transform("min")
    cells: dict[tuple[str, str], list[str]] = {}
    for line, least in zip(lines.to_dict("records"), best.to_dict("records"), strict=True):
        ours, theirs = number(line["ours_mean"], line["ours_std"], 1), number(line["paper"], np.nan, 1)
        cells.setdefault((line["heldout"], line["method"]), []).append(
            bold(ours, line["ours_mean"] == least["ours_mean"])
            + " / "
            + bold(theirs, line["paper"] == least["paper"])
        )  # fmt: skip
    head = ["Held-out set", "Method", "Test [%]", "Train [%]", "Area [0 to 100]"]
    return markdown(head, [[heldout, name_of(method), *found] for (heldout, method), found in cells.items()])


def lowest_table(lines: pd.DataFrame) -> str:
    """Who has the lowest test error and area on each set, ours and the paper's."""
    head = ["Held-out set", "Lowest test error: ours", "paper", "Lowest area: ours", "paper"]
    text = []
    for heldout, mine in lines.groupby("heldout", sort=False):
        cells = [str(heldout)]
        for name in ("error", "error_area"):
            of = mine.loc[mine["metric"] == name].set_index("method")
            for column in ("ours_mean", "paper"):
                values = of[column].dropna()
                cells.append(", ".join(map(name_of, values.index[values == values.min()])) or "–")
        text.append(cells)
    return markdown(head, text)


def differences(frame: pd.DataFrame, base: str, others: Sequence[str]) -> str:
    """Error and area of each method less that of `base`, over all sets, with intervals."""
    text = []
    for method in others:
        cells = [name_of(method)]
        for name in ("error", "error_area"):
            part = claims.Part("", {(method, 0): 1.0, (base, 0): -1.0})
            values, _ = claims.contrast(frame, part, name)
            if len(values) < 2:
                effect = float(np.mean(values[0])) if values else np.nan
                cells += [number(effect, np.nan, 1), "– (one seed)" if values else "–"]
            else:
                effect, low, high = claims.interval(values, claims.LEVEL)
                cells += [f"{effect:+.1f}", f"{low:+.1f} to {high:+.1f}"]
        text.append(cells)
    head = [f"Less {name_of(base)}", "Test error [points]", "95 % interval", "Area", "95 % interval"]
    return markdown(head, text)


def costs(frame: pd.DataFrame) -> str:
    """Parameters, times and memory by method."""
    head = [
        "Method", "Parameters, 1 task", "all tasks", "with heads",
        "Pretraining [s]", "Held-out step [ms]", "Peak memory [MB]",
    ]  # fmt: skip
    text = []
    for method in methods_of(set(frame["method"])):
        mine = frame.loc[frame["method"] == method]
        growth = mine.loc[mine["metric"] == "parameters_without_heads"].groupby("step")["value"].mean().sort_index()
        mean = mine.loc[mine["step"].isna()].groupby("metric")["value"].mean()
        text.append([
            name_of(method),
            f"{growth.iloc[0]:,.0f}",
            f"{growth.iloc[-1]:,.0f}",
            f"{mean['parameters']:,.0f}",
            f"{mean['meta_seconds']:.1f}" if "meta_seconds" in mean.index else "–",
            f"{1000 * mean['step_seconds']:.1f}",
            f"{mean['peak_memory']:,.0f}" if "peak_memory" in mean.index else "–",
        ])  # fmt: skip
    return markdown(head, text)


def data(frame: pd.DataFrame) -> str:
    """The images that this size used of each set."""
    text = []
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
            said = "the same counts"
        else:
            said = f"{official[0]} classes, {official[1]:,} + {official[2]:,}"
        text.append([name, *shown, said])
    missing = [name for name in SETS if name not in sets_of(frame)]
    note = f"\n\nLeft out, since they could not be had: {', '.join(missing)}." if missing else ""
    return markdown(["Set", "Classes", "Training images", "Test images", "The official set"], text) + note


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV and the text; raises ValueError where rows are of several sizes or data."""
    lines = comparison(frame, paper)
    compared = lines.loc[lines["method"].isin(COMPARED)]
    run = set(frame["method"])
    text = f"""# Leap, Table 3: transfer between image data sets, each held out in turn

{origin(frame, note)}
- Cells are *ours ± std / paper*; ± is the sample standard deviation over seeds, the paper prints none. The lowest of a
  set is in bold, ours and the paper's apart. – is a missing number.
- *Test* and *train* are errors when training on the held-out set has stopped; *area* is that under the error on
  training batches, a stopped task staying at its training error, scaled to 0 to 100.
- Every method pretrains on all sets but the one held out; Leap may take several epochs on each task there and the
  others one, as published.

{errors_table(compared)}

## Who is ahead

{lowest_table(compared)}
"""
    if "scratch" in run:
        text += f"""
## Against no pretraining

Mean over all held-out sets; below zero the method is ahead. The interval is a bootstrap over seeds and sets
(docs/claims.md).

{differences(frame, "scratch", methods_of(run - {"scratch"}))}
"""
    text += f"""
## Costs

Means over held-out sets and seeds, on `{", ".join(sorted(set(frame["device"])))}`. Parameters of the shared network
(HAT: with its embeddings; Progressive Nets: all columns) when one task and when all have been met, then with all heads
that the method keeps; memory is the process's, the data among it.

{costs(frame)}

## Data

{data(frame)}
"""
    return lines, text


# ---------------------------------------------------------------- figures


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    provenance(frame, EXPERIMENT)
    return {"multicv": errors(frame, paper), "multicv_map": heat_map(frame, paper), "multicv_curves": curves(frame)}


def panels(sets: Sequence[str], height: float, label: str) -> tuple[Figure, list[Axes]]:
    """A panel for each set, in rows of four, each `height` inches high."""
    n_rows = -(-max(len(sets), 1) // COLUMNS)
    figure = Figure(figsize=(12.0, height * n_rows + 1.0), layout="constrained")
    axes = list(figure.subplots(n_rows, COLUMNS, squeeze=False).flat)
    for each, name in zip(axes, sets, strict=False):
        each.set_title(name if name in SETS else f"{name} (not in the paper)", fontsize=9)
        each.set_xlabel(label)
    for extra in axes[max(len(sets), 1) :]:
        extra.set_axis_off()
    return figure, axes


def errors(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """A panel for each set, a method a row."""
    sets, methods = sets_of(frame), [name for name in COMPARED if name in set(frame["method"])]
    found, handles = quantity(frame, "error"), []
    figure, axes = panels(sets, 2.5, "test error [%]")
    for place, (panel, name) in enumerate(zip(axes, sets, strict=False)):
        labels = {method: name_of(method) if place % COLUMNS == 0 else "" for method in methods}
        printed = paper.loc[(paper["row"] == name) & (paper["metric"] == "error")]
        handles = draw.dots(panel, found.loc[found["task"] == name], printed, labels, "Leap paper, Table 3")
    text = draw.caption(frame, EXPERIMENT, "strokes: seeds", spread="bars")
    draw.title(figure, "Transfer to the set held out: test error when training has stopped", text)
    draw.legend(figure, handles)
    return figure


def changes(values: pd.DataFrame, sets: Sequence[str], methods: Sequence[str]) -> np.ndarray:
    """Value less that without pretraining, nan where one is missing. columns task, method, value -> [set, method]"""
    wide = values.pivot_table(index="task", columns="method", values="value")
    wide = wide.reindex(index=list(sets), columns=[*methods, "scratch"])
    return wide[list(methods)].sub(wide["scratch"], axis=0).to_numpy(dtype=float)


def heat_map(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Ours on the left, the paper's on the right."""
    methods = [name for name in COMPARED if name != "scratch"]
    theirs = paper.loc[paper["metric"] == "error"].rename(columns={"row": "task"})
    figure = Figure(figsize=(11.0, 5.0), layout="constrained")
    sides = [("ours", sets_of(frame), quantity(frame, "error")), ("Leap paper, Table 3", list(SETS), theirs)]
    for axes, (title, sets, values) in zip(figure.subplots(1, 2), sides, strict=True):
        cells = changes(values, sets, methods)
        finite = np.abs(cells[np.isfinite(cells)])
        limit = max(float(np.quantile(finite, 0.9)) if len(finite) else 1.0, 1.0)  # few large ones would hide the rest
        image = axes.imshow(cells, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
        for (i, j), value in np.ndenumerate(cells):
            look: dict[str, Any] = {"fontsize": 8.5, "color": "white" if abs(value) > 0.55 * limit else "black"}
            if np.isnan(value):
                look = {"fontsize": 8, "color": "0.5"}
            axes.text(j, i, "not run" if np.isnan(value) else f"{value:+.1f}", ha="center", va="center", **look)
        names = [name_of(method).replace(" (", "\n(").replace("sive Nets", "sive\nNets") for method in methods]
        axes.set_xticks(range(len(methods)), names)
        axes.set_yticks(range(len(sets)), sets)
        axes.set_title(title, fontsize=9.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label="change of test error [points]", shrink=0.85, extend="both")
    note = "below zero (violet) pretraining helps; colours are to scale on each side, up to nine in ten of its values"
    text = draw.caption(frame, EXPERIMENT, note, "range")
    text = text.replace("range: ± 1 standard deviation over seeds", "means over seeds").replace(
        "one seed: no range", "one seed"
    )
    draw.title(figure, "What pretraining on the other sets changes, against no pretraining", text)
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Held-out error against steps, a panel for each set."""
    sets, methods = sets_of(frame), [name for name in COMPARED if name in set(frame["method"])]
    shown = {method: looks.look(method, EXPERIMENT) for method in methods}
    figure, axes = panels(sets, 2.6, "gradient steps")
    for panel, name in zip(axes, sets, strict=False):
        mine = frame.loc[(frame["task"] == name) & frame["method"].isin(methods)]
        test, train = (draw.curve(mine, metric)[0] for metric in ("heldout_accuracy", "train_batch_error"))
        test["mean"] = 1 - test["mean"]
        for method, look in shown.items():
            lines, batches = (each.loc[each["method"] == method] for each in (test, train))
            lines = lines.assign(mean=100 * lines["mean"], std=100 * lines["std"])
            draw.shaded(panel, lines, "step", look, linestyle="-", linewidth=1.3)
            panel.plot(batches["step"], 100 * batches["mean"], color=look.colour, linestyle=":", lw=1.0, zorder=3)
        panel.set_ylim(0, 100)
    for panel in axes[: len(sets) : COLUMNS]:
        panel.set_ylabel("error [%]")
    note = "bands around the test error only; a task that has stopped stays where it is"
    text = draw.caption(frame, EXPERIMENT, note)
    draw.title(figure, "Learning each held-out set after pretraining on the others", text)
    handles = [Line2D([], [], color=look.colour, label=look.name) for look in shown.values()]
    handles += [Line2D([], [], color="0.3", label="test")]
    handles += [Line2D([], [], color="0.3", linestyle=":", label="training batches")]
    draw.legend(figure, handles)
    return figure
