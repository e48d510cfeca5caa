"""WarpGrad's synthetic experiment in numbers: learners on held-out surfaces, and what the untold choices decide.

python -m leapwarp.tables.surfaces --rows results/quick/surfaces/rows.csv --out-dir results/quick/surfaces
"""

import numpy as np
import pandas as pd

from leapwarp import results, tables
from leapwarp.figures import style

SHOWN = ["final_height", "height_area", "final_gap", "gap_area", "gap_area_struggling", "left"]
COMPARED = ["final_height", "height_area", "final_gap", "gap_area", "gap_area_struggling"]
MARGIN = 0.01  # a learner wins on a surface where it ends lower than gradient descent by more than this gap
DRAWS = 10_000


def baseline(method: str) -> str:
    """Gradient descent on the same reading of the formula."""
    return "gd_peaks" if method.endswith("_peaks") else "gd"


def paired(frame: pd.DataFrame, name: str, method: str) -> list[np.ndarray]:
    """By how much `method` is below gradient descent on each surface: one array a seed."""
    values = tables.quantity(frame, name).set_index(["method", "seed", "task"])["value"]
    gain = (values.loc[baseline(method)] - values.loc[method]).dropna()
    return [mine.to_numpy() for _, mine in gain.groupby(level="seed")]


def interval(values: list[np.ndarray]) -> tuple[float, float, float]:
    """Mean over seeds of the mean over surfaces, and its 95 % interval; the interval is missing with one seed.

    The bootstrap of docs/claims.md, but that the means over a seed's surfaces, of which there are many, are drawn from
    the normal distribution that they have.
    """
    means = np.array([value.mean() for value in values])
    n, effect = len(means), float(means.mean())
    if n < 2:
        return effect, float("nan"), float("nan")
    errors = np.array([value.std(ddof=1) / len(value) ** 0.5 if len(value) > 1 else 0.0 for value in values])
    stream = np.random.default_rng(0)
    seeds = stream.integers(n, size=(DRAWS, n))
    samples = (means[seeds] + errors[seeds] * stream.standard_normal((DRAWS, n))).mean(1)
    low, high = np.quantile(samples - effect, [0.025, 0.975]) * (n / (n - 1)) ** 0.5
    return effect, effect + float(low), effect + float(high)


def wins(frame: pd.DataFrame, method: str) -> tuple[float, float]:
    """Percent of surfaces on which a learner ends lower than gradient descent, and percent of these where it has left
    the domain (missing where there are none)."""
    gain = np.concatenate(paired(frame, "final_gap", method)) > MARGIN
    values = tables.quantity(frame, "left").set_index(["method", "seed", "task"])["value"].loc[method].sort_index()
    return 100 * float(gain.mean()), float(values.to_numpy()[gain].mean()) if gain.any() else float("nan")


def cell(effect: float, low: float, high: float, decimals: int) -> str:
    if np.isnan(low):
        return f"{effect:+.{decimals}f}"
    return f"{effect:+.{decimals}f} [{low:+.{decimals}f}, {high:+.{decimals}f}]"


def sweep(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the sweeps: columns method, seed, rate, metric, value."""
    rows = frame.loc[frame["metric"].isin(["sweep_area", "sweep_left", "sweep_reached"])]
    return rows.assign(rate=rows["task"].str.removeprefix("rate ").astype(float))


def sweep_text(frame: pd.DataFrame) -> str:
    """Warps by initialisation and meta learning rate: area below that of gradient descent on validation surfaces."""
    found = sweep(frame).set_index(["metric", "method", "rate", "seed"])["value"].sort_index()
    methods = [key for key in style.ordered(frame["method"]) if key.startswith("warpgrad")]
    rates = sorted({rate for key in methods for rate in found.loc["sweep_area", key].index.get_level_values("rate")})
    lines = ["| Meta learning rate | " + " | ".join(style.method(key).name for key in methods) + " |"]
    lines.append("|---" * (len(methods) + 1) + "|")
    for rate in rates:
        cells = []
        for key in methods:
            plain = found.loc["sweep_area", baseline(key)].droplevel("rate")
            gain = plain - found.loc["sweep_area", key, rate]
            left, reached = (100 * found.loc[metric, key, rate].mean() for metric in ("sweep_left", "sweep_reached"))
            spread = f" ± {gain.std():.4f}" if len(gain) > 1 else ""
            cells.append(f"{gain.mean():+.4f}{spread} ({left:.0f}, {reached:.0f})")
        lines.append(f"| {rate:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One line a learner and quantity, and the text; raises ValueError where rows are of several sizes."""
    results.provenance(frame, "surfaces")
    methods = style.ordered(frame["method"])
    missing = sorted({baseline(key) for key in methods} - set(methods))
    if missing:
        raise ValueError(f"found no rows of {', '.join(missing)}, needed gradient descent to compare the others with.")
    lines, text = [], []
    heads = [f"{tables.QUANTITIES[name].title} [{tables.QUANTITIES[name].unit}]" for name in SHOWN]
    level = ["| Learner | Rate | " + " | ".join(heads) + " | Wins [%] | of them outside [%] |"]
    level.append("|---" * (len(SHOWN) + 4) + "|")
    below = ["| Learner | " + " | ".join(tables.QUANTITIES[name].title for name in COMPARED) + " |"]
    below.append("|---" * (len(COMPARED) + 1) + "|")
    for key in methods:
        mine = frame.loc[frame["method"] == key]
        rates = sorted(set(mine.loc[mine["metric"] == "rate", "value"]))
        cells, differences = [], []
        for name in SHOWN:
            about = tables.QUANTITIES[name]
            of_name = tables.quantity(frame, name)
            summary = results.summary(of_name.loc[of_name["method"] == key], ["method", "n_tasks", "metric"])
            line = summary.to_dict("records")[0]
            cells.append(tables.number(line["mean"], line["std"], about.decimals))
            line |= {"unit": about.unit}
            if name in COMPARED and key != baseline(key):
                effect, low, high = interval(paired(frame, name, key))
                differences.append(cell(effect, low, high, about.decimals + 1))
                line |= {"below_gd": effect, "low": low, "high": high}
            lines.append(line)
        won, outside = wins(frame, key) if key != baseline(key) else (float("nan"), float("nan"))
        shares = [tables.number(value, float("nan"), 0) for value in (won, outside)]
        row = [style.method(key).name, ", ".join(f"{rate:g}" for rate in rates), *cells, *shares]
        level.append("| " + " | ".join(row) + " |")
        if differences:
            below.append(f"| {style.method(key).name} | " + " | ".join(differences) + " |")
    n = tables.quantity(frame, "left").groupby("seed")["task"].nunique().max()
    text = f"""# WarpGrad, appendix E and Figure 4 in numbers: learners on {n} random surfaces a seed

{tables.origin(frame)}
- `quick` has the published settings too, and fewer seeds. The paper shows three surfaces and prints no numbers.
- ± is the sample standard deviation over seeds. *Height* is the loss as the formula has it; a *gap* is a height
  between 0, the surface's lowest point in the domain [-3, 3]², and 1, its highest. *Area* is the mean along the path.
- *Struggling*: on the third of the surfaces where gradient descent has the largest area, whatever the others do there.
- *Rate*: what each seed chose on validation surfaces: a task learning rate, for WarpGrad the meta learning rate.
  The task learning rate of WarpGrad is that of gradient descent.
- *Wins*: surfaces on which a learner ends lower than gradient descent by a gap of more than {MARGIN:g}; *outside*: the
  share of those on which it ends beyond the domain.
- *peaks*: the other reading of the misprinted formula, compared with gradient descent on the same.

""" + "\n".join(level)
    text += "\n\n## Below gradient descent, surface by surface\n\n"
    text += "Gradient descent's value less the learner's (positive: the learner is lower), with its 95 % interval.\n\n"
    text += "\n".join(below)
    text += "\n\n## What initial warp and meta learning rate decide\n\n"
    text += (
        "Area of gaps below that of gradient descent on validation surfaces (positive: the warp helps); in brackets\n"
    )
    text += "the percentage of runs that end outside the domain and that of starts which the warp can reach. Mean ±\n"
    text += "standard deviation over seeds.\n\n"
    return pd.DataFrame(lines), text + sweep_text(frame) + "\n"


if __name__ == "__main__":
    tables.main(
        build,
        module="surfaces",
        description="Make the table of learners on random surfaces from result rows.",
        paper="warpgrad",
        name="table_surfaces",
    )
