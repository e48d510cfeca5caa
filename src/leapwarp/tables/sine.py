"""WarpGrad's continual learning experiment in numbers: what is learnt, forgotten and won back.

python -m leapwarp.tables.sine --rows results/quick/sine/rows.csv --out-dir results/quick/sine
"""

import pandas as pd

from leapwarp import results, tables
from leapwarp.figures import style
from leapwarp.tables import SHUFFLED

SHOWN = [
    "final_loss",
    "learnt_loss",
    "forgetting",
    "transfer",
    "log_gain",
    "log_forgetting",
    "log_spike",
    "log_recovery",
]
ORDERS = {
    "": "Sub-tasks from left to right, as in meta-training",
    SHUFFLED: "Order [1, 3, 4, 2, 0], not seen in meta-training",
}


def block(lines: pd.DataFrame, suffix: str, rates: dict[str, str]) -> str:
    """A markdown table of one order: methods as rows."""
    names = [name + suffix for name in SHOWN]
    heads = [f"{tables.QUANTITIES[name].title} [{tables.QUANTITIES[name].unit}]" for name in SHOWN]
    text = ["| Learner | Rate | " + " | ".join(heads) + " |", "|---" * (len(SHOWN) + 2) + "|"]
    found = {(line["method"], line["metric"]): line for line in lines.to_dict("records")}
    for method in style.ordered(lines["method"]):
        cells = []
        for name in names:
            line = found.get((method, name))
            decimals = tables.QUANTITIES[name].decimals
            cells.append("–" if line is None else tables.number(line["mean"], line["std"], decimals))
        text.append(f"| {style.method(method).name} | {rates[method]} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One line a learner, quantity and order, and the text; raises ValueError where rows are of several sizes."""
    results.provenance(frame, "sine")
    names = [name + suffix for suffix in ORDERS for name in SHOWN]
    lines = pd.concat(
        [results.summary(tables.quantity(frame, name), ["method", "n_tasks", "metric"]) for name in names],
        ignore_index=True,
    )
    lines["unit"] = [tables.QUANTITIES[name].unit for name in lines["metric"]]
    of_rates = frame.loc[frame["metric"] == "rate"]
    rates = {
        str(key): ", ".join(f"{rate:g}" for rate in sorted(set(mine["value"])))
        for key, mine in of_rates.groupby("method")
    }
    n = tables.quantity(frame, "final_loss").groupby("seed")["task"].nunique().max()
    text = f"""# WarpGrad, appendix K in numbers: five sub-tasks, one after another

{tables.origin(frame)}
- Means over {n} functions a seed; ± is the sample standard deviation over seeds. The paper shows curves and prints no
  numbers. Losses are half the mean square error on held-out points, as in training.
- *Forgetting*: the loss of a sub-task at the end, less the lowest that it had after it was learnt, at the end of any
  sub-task before the last. *Backward transfer*: its loss right after it was learnt, less that at the end (below 0:
  later sub-tasks hurt). Both are means over the first four of the order.
- In nats, as logarithms of ratios of losses: *gain*, before a sub-task to after it; *relative forgetting*, the end to
  right after it was learnt; *spike*, the first half of the steps after a switch to before the switch; *recovery*, the
  same half to the end of that sub-task (above 0: losses of earlier sub-tasks fall again while a later one is learnt).
- *Rate*: the task learning rate. 0.001 is the paper's; the others were chosen on other functions, by what the name
  says (replay and all sub-tasks at once: by the loss on all sub-tasks at the end).
- A learner that does not learn has nothing to forget: read forgetting beside the gain.
"""
    for suffix, heading in ORDERS.items():
        text += f"\n## {heading}\n\n{block(lines, suffix, rates)}\n"
    return lines, text


if __name__ == "__main__":
    tables.main(
        build,
        module="sine",
        description="Make the table of continual learning from result rows.",
        paper="warpgrad",
        name="table_sine",
    )
