"""Numbers read off the activations that `natural_gradient` measures before and after each warp layer.

Each function makes one row a held-out task of a run from the rows of all layers, in the form of result rows.
"""

import pandas as pd

KEY = ["experiment", "method", "n_tasks", "seed", "task"]


def by_layer(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The values of `metric` (such as mean_pre): an index of KEY, a column for each layer (0, 1, ...)."""
    mine = frame.loc[frame["metric"].str.startswith(f"{metric}.") & frame["step"].isna()]
    layers = mine["metric"].str.rsplit(".", n=1).str[1].astype("int64")
    return mine.assign(layer=layers).pivot(index=KEY, columns="layer", values="value")


def _rows(frame: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    """One row of `frame` for each entry of `values`, with its value."""
    first = frame.loc[frame["step"].isna()].drop_duplicates(KEY).set_index(KEY)
    return first.loc[values.index].assign(value=values).reset_index()[frame.columns]


def offset(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How far from zero the mean is, as a share of the root of the mean square: its size, averaged over layers.

    `metric` is "pre" or "post". A layer that is silent throughout has no share and is left out.
    """
    share = by_layer(frame, f"mean_{metric}").abs() / by_layer(frame, f"rms_{metric}")
    return _rows(frame, share.mean(axis=1).dropna())


def excess(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How much farther than the whitened control's the covariance is from I, averaged over layers."""
    return _rows(frame, (by_layer(frame, f"cov_{metric}") - by_layer(frame, "cov_white")).mean(axis=1))
