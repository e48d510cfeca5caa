"""Selections of rows for the transfer between data sets: one held-out set, and who is ahead of whom on it.

Each function gives, as `tables.Quantity.select`, one row for each run and held-out set.
"""

from collections.abc import Callable

import pandas as pd

SETS = ("facescrub", "notmnist", "mnist", "fashion-mnist", "cifar10", "svhn", "cifar100", "traffic-signs")
COMPARED = ("leap", "finetune", "progressive", "hat", "scratch")  # the methods of Leap's Table 3

Select = Callable[[pd.DataFrame, str], pd.DataFrame]


def final(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return frame.loc[(frame["metric"] == metric) & frame["step"].isna()]


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
