"""Made-up rows, as a run on Omniglot leaves them."""

from leapwarp.report import rows


def run(method, n_tasks, seed, accuracies, *, steps=4, experiment="omniglot_warp", **changes):
    """One run: for each held-out task its final accuracy, an area and curves; a few rows of meta-training."""
    records = []
    for i, accuracy in enumerate(accuracies):
        task = f"Alphabet_{i}"
        records += [(task, None, "accuracy", accuracy), (task, None, "auc", accuracy / 2)]
        for step in range(1, steps + 1):
            records += [(task, step, "heldout_accuracy", accuracy * step / steps)]
            records += [(task, step, "train_loss", 3 - accuracy * step)]
    if n_tasks:
        records += [("", step, "meta_loss", 3 - step / 4) for step in range(1, 6)]
        records += [("", step, "meta_accuracy", step / 10) for step in range(1, 6)]
        records += [("", step, "validation_error", 1 - step / 10) for step in (2, 4)]
        records += [("", None, name, 1.0) for name in ("moved_warps", "moved_init")]
    fixed = {
        "size": "quick",
        "data_source": "omniglot",
        "data_checksum": "0a1b2c",
        "settings": "3d4e5f",
        "version": "0.1.0",
        "device": "cpu",
        "seconds": 1.0,
    }
    fixed["experiment"] = experiment
    return rows.rows(records, method=method, n_tasks=n_tasks, seed=seed, **(fixed | changes))
