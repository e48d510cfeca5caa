"""Table 3 of the Leap paper: transfer between image data sets, ours beside theirs.

    python -m leapwarp.tables.multicv --paper paper/leap.csv \
        --rows results/quick/multicv/rows.csv --out-dir results/quick/multicv
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from leapwarp import claims, results, tables
from leapwarp.figures import style
from leapwarp.tables.transfer import COMPARED, SETS

SHOWN = ("error", "train_error", "error_area")
EXTRA = ("leap_1_epoch", "finetune_many_epochs", "hat_many_epochs", "progressive_many_epochs")
OFFICIAL = {  # classes, training and test images
    "facescrub": (100, 20_600, 2_289),
    "notmnist": (10, 16_853, 1_873),
    "mnist": (10, 60_000, 10_000),
    "fashion-mnist": (10, 60_000, 10_000),
    "cifar10": (10, 50_000, 10_000),
    "svhn": (10, 73_257, 26_032),
    "cifar100": (100, 50_000, 10_000),
    "traffic-signs": (43, 26_640, 12_630),
}


def sets_of(frame: pd.DataFrame) -> list[str]:
    """The held-out sets, in the order of the paper, then others by name."""
    found = set(frame["task"]) - {""}
    return [name for name in SETS if name in found] + sorted(found - set(SETS))


def comparison(frame: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """One line a held-out set, method and quantity, ours and the paper's; those of the paper that were not run too."""
    profile, source = results.provenance(frame, "multicv")
    printed = {(line["row"], line["method"], line["metric"]): line["value"] for line in paper.to_dict("records")}
    ours = {}
    for name in SHOWN:
        final = tables.quantity(frame, name)
        for line in results.summary(final, ["task", "method"]).to_dict("records"):
            ours[line["task"], line["method"], name] = line
    order = sets_of(frame)
    keys = list(dict.fromkeys([key for key in ours if key[0] in order] + list(printed)))
    methods = [*COMPARED, *EXTRA]
    everything = order + [name for name in SETS if name not in order]
    keys.sort(key=lambda key: (everything.index(key[0]), methods.index(key[1]), SHOWN.index(key[2])))
    nothing = {"mean": np.nan, "std": np.nan, "n_seeds": 0}
    lines = []
    for key in keys:
        our = ours.get(key, nothing)
        unit = tables.QUANTITIES[key[2]].unit
        lines.append([
            *key, our["mean"], our["std"], our["n_seeds"], printed.get(key, np.nan), unit, profile, source,
        ])  # fmt: skip
    columns = ["heldout", "method", "metric", "ours_mean", "ours_std", "n_seeds", "paper", "unit", "profile"]
    return pd.DataFrame(lines, columns=[*columns, "data_source"])


def bold(text: str, is_best: bool) -> str:
    return f"**{text}**" if is_best else text


def main_table(lines: pd.DataFrame) -> str:
    """A markdown table with a held-out set and method a row; the best of a set in bold, ours and the paper's apart."""
    lines = lines.loc[lines["method"].isin(COMPARED)]
    best = lines.groupby(["heldout", "metric"], as_index=False).agg({"ours_mean": "min", "paper": "min"})
    least_of = {(line["heldout"], line["metric"]): line for line in best.to_dict("records")}
    text = ["| Held-out set | Method | Test [%] | Train [%] | Area [0 to 100] |", "|---|---|---|---|---|"]
    for heldout, method in lines[["heldout", "method"]].drop_duplicates().itertuples(index=False):
        mine = lines.loc[(lines["heldout"] == heldout) & (lines["method"] == method)]
        found = {line["metric"]: line for line in mine.to_dict("records")}
        cells = []
        for name in SHOWN:
            line = found.get(name, {"ours_mean": np.nan, "ours_std": np.nan, "paper": np.nan})
            least = least_of.get((heldout, name), {})
            ours = tables.number(line["ours_mean"], line["ours_std"], 1)
            theirs = tables.number(line["paper"], np.nan, 1)
            cells.append(
                bold(ours, line["ours_mean"] == least.get("ours_mean"))
                + " / "
                + bold(theirs, line["paper"] == least.get("paper"))
            )
        text.append("| " + " | ".join([str(heldout), style.method(str(method)).name, *cells]) + " |")
    return "\n".join(text)


def differences(frame: pd.DataFrame, base: str, others: Sequence[str]) -> str:
    """A markdown table: error and area of each method less that of `base`, over all sets, with intervals."""
    text = [
        f"| Less {style.method(base).name} | Test error [points] | 95 % interval | Area | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for method in others:
        cells = []
        for name in ("error", "error_area"):
            part = claims.Part("", {(method, 0): 1.0, (base, 0): -1.0})
            values, _ = claims.contrast(frame, part, name)
            if len(values) < 2:
                effect = float(np.mean(values[0])) if values else np.nan
                cells += [tables.number(effect, np.nan, 1), "– (one seed)" if values else "–"]
            else:
                effect, low, high = claims.interval(values, claims.LEVEL)
                cells += [f"{effect:+.1f}", f"{low:+.1f} to {high:+.1f}"]
        text.append("| " + " | ".join([style.method(method).name, *cells]) + " |")
    return "\n".join(text)


def comparisons(lines: pd.DataFrame) -> str:
    """A markdown table: who has the lowest test error and area on each set, ours and the paper's."""
    text = ["| Held-out set | Lowest test error: ours | paper | Lowest area: ours | paper |", "|---|---|---|---|---|"]
    lines = lines.loc[lines["method"].isin(COMPARED)]
    for heldout, mine in lines.groupby("heldout", sort=False):
        cells = [str(heldout)]
        for name in ("error", "error_area"):
            of = mine.loc[mine["metric"] == name].set_index("method")
            for column in ("ours_mean", "paper"):
                values = of[column].dropna()
                least = [style.method(method).name for method in values.index[values == values.min()]]
                cells.append(", ".join(least) if least else "–")
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def data(frame: pd.DataFrame) -> str:
    """A markdown table of the images that this size used of each set."""
    text = ["| Set | Classes | Training images | Test images | The official set |", "|---|---|---|---|---|"]
    final = frame.loc[frame["step"].isna()]
    for name in sets_of(frame):
        mine = final.loc[final["task"] == name]
        counts = [
            sorted({int(value) for value in mine.loc[mine["metric"] == metric, "value"]})
            for metric in ("n_classes", "n_train", "n_test")
        ]
        shown = [" to ".join(f"{value:,}" for value in sorted({each[0], each[-1]})) if each else "–" for each in counts]
        official = OFFICIAL.get(name)
        if official is None:
            said = "taken where SVHN is missing; not SVHN" if name == "chars74k" else "not one of the paper's sets"
        elif all(each == [number] for each, number in zip(counts, official, strict=True)):
            said = "the same counts"
        else:
            said = f"{official[0]} classes, {official[1]:,} + {official[2]:,}"
        text.append("| " + " | ".join([name, *shown, said]) + " |")
    missing = [name for name in SETS if name not in sets_of(frame)]
    note = f"\n\nLeft out, since they could not be had: {', '.join(missing)}." if missing else ""
    return "\n".join(text) + note


def costs(frame: pd.DataFrame) -> str:
    """A markdown table of parameters, times and memory by method."""
    head = [
        "Method", "Parameters, 1 task", "all tasks", "with heads",
        "Pretraining [s]", "Held-out step [ms]", "Peak memory [MB]",
    ]  # fmt: skip
    text = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for method in [name for name in [*COMPARED, *EXTRA] if name in set(frame["method"])]:
        mine = frame.loc[frame["method"] == method]
        growth = mine.loc[mine["metric"] == "parameters_without_heads"].groupby("step")["value"].mean().sort_index()
        final = mine.loc[mine["step"].isna()].groupby("metric")["value"].mean()
        cells = [
            style.method(method).name,
            f"{growth.iloc[0]:,.0f}",
            f"{growth.iloc[-1]:,.0f}",
            f"{final['parameters']:,.0f}",
            f"{final['meta_seconds']:.1f}" if "meta_seconds" in final.index else "–",
            f"{1000 * final['step_seconds']:.1f}",
            f"{final['peak_memory']:,.0f}",
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV and the text; raises ValueError where rows are of several sizes or data."""
    lines = comparison(frame, paper)
    run = set(frame["method"])
    others = [name for name in (*COMPARED, *EXTRA) if name in run and name != "scratch"]
    text = f"""# Leap, Table 3: transfer between image data sets, each held out in turn

{tables.origin(frame)}
- Cells are *ours ± std / paper*; ± is the sample standard deviation over seeds, the paper prints none. The lowest of a
  set is in bold, ours and the paper's apart. – is a missing number.
- *Test* and *train* are errors when training on the held-out set has stopped; *area* is that under the error on
  training batches, a stopped task staying at its training error, scaled to 0 to 100.
- Every method pretrains on all sets but the one held out; Leap may take several epochs on each task there and the
  others one, as published.

{main_table(lines)}

## Who is ahead

{comparisons(lines)}
"""
    if "scratch" in run:
        text += f"""
## Against no pretraining

Mean over all held-out sets; below zero the method is ahead. The interval is a bootstrap over seeds and sets
(docs/claims.md).

{differences(frame, "scratch", others)}
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


if __name__ == "__main__":
    tables.main(
        build,
        module="multicv",
        description="Make Table 3 of the Leap paper from result rows: ours beside theirs.",
        paper="leap",
        table="3",
        name="table_multicv",
    )
