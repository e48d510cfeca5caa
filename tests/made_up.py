"""Synthetic rows, in the form that runs write."""

from itertools import product

import numpy as np
import pandas as pd

from leapwarp import catalogue
from leapwarp.report import rows


def run(method, n_tasks, seed, accuracies, *, steps=4, experiment="omniglot_warp", **changes):
    """The rows of one run: final accuracy, area and curves of each held-out task, and a few rows of meta-training."""
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


# ---------------------------------------------------------------- of every experiment

# The rows of a run at smoke: metrics, names and number of tasks, number of steps (0: a summary), and methods
# ("trained": those that are trained; "!layers": all but `layers`; else all whose names begin with the text).
_OMNIGLOT = [
    ("accuracy auc mean_loss steps", "alphabet", 2, 0, ""),
    ("adapt_seconds step_seconds", "", 1, 0, ""),
    ("heldout_accuracy train_accuracy train_loss", "alphabet", 2, 3, ""),
    ("meta_loss meta_accuracy", "", 1, 3, "trained"),
    ("moved_init", "", 1, 0, "trained"),
]
_KFAC = [("damping validation_accuracy.0.1 validation_accuracy.1", "", 1, 0, "kfac")]
_WARPS = [("moved_warps", "", 1, 0, "warp"), ("replay_loss", "", 1, 3, "warp")]
_LAYERS = [f"task.{k}.{kind}" for k in range(4) for kind in ("conv", "norm")] + ["head"]
_SIDES = [
    f"{what}_{side}.{k}" for what in ("mean", "rms", "cov") for side in ("pre", "post", "white") for k in range(2)
]
_FEW_SHOT = [
    ("accuracy inductive_accuracy normalisation_gain", "task", 3, 0, ""),
    ("heldout_accuracy", "", 1, 3, ""),
    ("meta_loss validation_error", "", 1, 2, "trained"),
]
_PLANE = [f"{space}_{who}_{axis}" for space in ("native", "warped") for who in ("gd", "warp") for axis in (1, 2)]
_SINES = "final_loss learnt_loss forgetting transfer log_gain log_forgetting log_spike log_recovery"
MEASURED = {
    "omniglot_leap": [*_OMNIGLOT, ("validation_error", "", 1, 3, "trained")],
    "omniglot_warp": [*_OMNIGLOT, *_KFAC, *_WARPS],
    "leap_ablation": _OMNIGLOT,
    "warp_ablation": [*_OMNIGLOT, *_WARPS],
    "natural_gradient": [*_OMNIGLOT, *_KFAC, *_WARPS, (" ".join(_SIDES), "alphabet", 2, 0, "warp_leap")],
    "jacobian": [
        ("rho", "alphabet", 2, 2, "!layers"),
        ("rho_5 rho_20 rho_growth rho_late_growth", "alphabet", 2, 0, "!layers"),
        (" ".join(f"rho.{name}" for name in _LAYERS), "alphabet", 2, 2, "layers"),
        ("rho_spread_5 rho_spread_20", "alphabet", 2, 0, "layers"),
    ],
    "few_shot": _FEW_SHOT,
    "few_shot_tiered": _FEW_SHOT,
    "multi_shot": [
        ("accuracy heldout_area", "task", 2, 0, ""),
        ("heldout_accuracy", "task", 2, 3, ""),
        ("adapt_seconds", "", 1, 0, ""),
        ("meta_test_accuracy validation_error meta_loss", "", 1, 3, "trained"),
    ],
    "multicv": [
        ("accuracy train_error error_area parameters step_seconds n_classes n_train n_test", "mnist", 1, 0, ""),
        ("accuracy train_error error_area parameters step_seconds n_classes n_train n_test", "svhn", 1, 0, ""),
        ("heldout_accuracy train_batch_error", "mnist", 1, 3, ""),
        ("meta_seconds", "mnist", 1, 0, "trained"),
        ("parameters_without_heads", "", 1, 3, ""),
        ("peak_memory", "", 1, 0, ""),
    ],
    "atari": [(f"score_{group}", f"game_{group}", 2, 4, "") for group in ("heldout", "seen", "larger")],
    "maze": [
        ("return", "", 1, 4, ""),
        ("task_parameters warp_parameters goal", "", 1, 0, "trained"),
        ("cell found", "", 1, 5, "trained"),
        ("wall", "", 1, 49, "trained"),
    ],
    "sine": [
        (" ".join(f"{name}{order}" for name in _SINES.split() for order in ("", "_shuffled")), "function", 2, 0, ""),
        ("log_loss log_loss_shuffled", "subtask", 5, 6, ""),
        (" ".join(f"prediction{k}{order}" for k in range(5) for order in ("", "_shuffled")), "function", 1, 5, ""),
        ("target", "function", 1, 5, ""),
        ("rate", "", 1, 0, ""),
        ("meta_loss replay_loss", "", 1, 3, "trained"),
    ],
    "surfaces": [
        ("final_gap final_height gap_area height_area left", "surface", 6, 0, ""),
        ("sweep_area sweep_left sweep_reached", "rate 0.", 2, 0, ""),
        ("gap", "", 1, 4, ""),
        ("rate", "", 1, 0, ""),
        ("example", "surface", 2, 0, "warpgrad"),
        (" ".join(_PLANE), "surface", 2, 4, "warpgrad"),
        (
            " ".join(
                f"{s}_{what}" for s in ("native", "warped") for what in ("centre_1", "centre_2", "half_width")
            ),
            "surface",
            2,
            0,
            "warpgrad",
        ),
        ("native_height warped_height", "surface", 2, 25, "warpgrad"),
    ],
    "theorem1": [
        ("shortening overshoot rises criterion_broken uphill half_steps", "", 1, 0, ""),
        ("limit_distance", "task ", 2, 0, ""),
        ("path_length", "", 1, 4, ""),
    ],
    "geometry": [
        ("order largest_error definite", "draw ", 2, 0, ""),
        ("error", "draw ", 2, 4, ""),
        ("rate", "", 1, 4, ""),
    ],
    "inner_cost": [("memory update_seconds", "", 1, 2, ""), ("memory_growth time_growth", "", 1, 0, "")],
}  # fmt: skip


def whole(experiment, seeds=(0, 1)):
    """The rows of every method of an experiment, with values between 0 and 1: method -> frame."""
    about, stream = catalogue.find(experiment), np.random.default_rng(0)
    fixed = {"size": "quick", "data_source": "omniglot", "data_checksum": "0a", "settings": "0b", "version": "0.1.0"}
    found = {}
    for name, method in about.methods.items():
        counts = [1, 3] if about.most_tasks and method.trains else [0]
        frames = []
        for seed, count in product(seeds, counts):
            records = []
            for metrics, task, n, steps, who in MEASURED[experiment]:
                if {"trained": method.trains, "!layers": name != "layers"}.get(who, name.startswith(who)):
                    tasks = [f"{task}{k}" if n > 1 else task for k in range(n)]
                    at = range(1, steps + 1) if steps else [None]
                    for metric, each, step in product(metrics.split(), tasks, at):
                        records.append((each, step, metric, float(stream.uniform(0.05, 0.95))))
            fixed |= {"experiment": experiment, "device": "cpu", "seconds": 1.0}
            frames.append(rows.rows(records, method=name, n_tasks=count, seed=seed, **fixed))
        found[name] = pd.concat(frames, ignore_index=True)
    return found
