"""How far Jacobians of training are from the identity, in numbers: what Leap's Figure 4 shows, and further on.

python -m leapwarp.tables.jacobian --rows results/quick/jacobian/rows.csv --out-dir results/quick/jacobian
"""

import pandas as pd

from leapwarp import results, tables
from leapwarp.figures import style


def layers(frame: pd.DataFrame) -> list[str]:
    """The layers that were measured, from the first to the head."""
    found = {metric.removeprefix("rho.") for metric in frame["metric"] if metric.startswith("rho.")}
    return sorted(found, key=lambda name: (name == "head", name))


def curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and std over seeds of rho at each step: columns method, metric, step, mean, std, n_seeds."""
    rows = frame.loc[frame["metric"].str.match(r"rho(\..*)?$") & frame["step"].notna()]
    return results.summary(rows, ["method", "n_tasks", "metric", "step"])


def grid(lines: pd.DataFrame, names: dict[str, str], head: str) -> str:
    """A markdown table with a row for each of `names` (key of column `row` -> heading) and a column for each step."""
    steps = sorted(set(lines["step"]))
    text = [f"| {head} | " + " | ".join(f"{step} steps" for step in steps) + " |", "|---" * (len(steps) + 1) + "|"]
    found = {(line["row"], line["step"]): line for line in lines.to_dict("records")}
    for key, name in names.items():
        cells = [found.get((key, step), {"mean": float("nan"), "std": float("nan")}) for step in steps]
        shown = [tables.number(cell["mean"], cell["std"], 6 if cell["mean"] < 0.001 else 4) for cell in cells]
        text.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(text)


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One line a method, layer and step, and the text; raises ValueError where rows are of several sizes."""
    results.provenance(frame, "jacobian")
    lines = curves(frame)
    rates = lines.loc[lines["metric"] == "rho"].assign(row=lines["method"])
    deep = lines.loc[lines["method"] == "layers"].assign(row=lines["metric"].str.removeprefix("rho."))
    document = f"""# Leap, Figure 4 in numbers: how far Jacobians are from the identity

{tables.origin(frame)}
- ρ = |I - J| / |J| in nuclear norms, where J is the Jacobian of a layer's weights and bias after some steps of SGD with
  respect to those before the first, all of training included. ± is the standard deviation over seeds of the mean over
  alphabets. Batch norm uses the batches' own statistics, as in training.
- The paper: accurate to at least the fourth decimal for the rates in use and to the third at 0.5, constant in the
  number of steps but for the smallest rate, and alike in all layers (claims L10 to L12). It shows a plot, which ends at
  20 steps. A ρ that no longer grows near 1 is constant because nothing of the identity is left.
- *No batch norm* keeps the running averages at their start, 0 and 1, which change nothing: the network then hardly
  trains.

## First layer, by learning rate

"""
    names = {key: style.method(key).name for key in style.ordered(rates["method"])}
    document += grid(rates, names, "Rate") + "\n"
    if not deep.empty:
        document += "\n## Every layer of a narrower network, at rate 0.1\n\n"
        document += grid(deep, {name: f"`{name}`" for name in layers(frame)}, "Layer") + "\n"
    return lines, document


if __name__ == "__main__":
    tables.main(
        build,
        module="jacobian",
        description="Make the table of Jacobians from result rows.",
        paper="leap",
        name="table_jacobian",
    )
