"""The outer loop: meta-batches -> learner, with early stopping, checkpoints and progress."""

import io
import json
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from leapwarp.files import atomic
from leapwarp.inner import first_bad
from leapwarp.interrupt import Interrupted, received
from leapwarp.learners.base import Info, Learner, State
from leapwarp.rng import generator
from leapwarp.trees import Params, leaves

Record = tuple[int, str, float]
"""(meta-step, metric, value)"""

LOG_EVERY = 10.0  # seconds between two lines of progress where the output is not a terminal


class Fitted(NamedTuple):
    state: State
    """of the best validation error where there is validation and it is to be kept, else the last"""
    history: list[Record]
    meta_steps: int
    """taken, counting those of an interrupted run"""
    seconds: float


class Fit(NamedTuple):
    """How long to meta-train, and how to watch it."""

    meta_steps: int
    validate: Callable[[State], float] | None = None
    """state -> mean error on the validation tasks"""
    validate_every: int = 1
    patience: int | None = None
    """stop after so many meta-steps without a better validation error"""
    checkpoint: Path | None = None
    checkpoint_every: int = 10
    keep_best: bool = True
    """end with the state of the best validation error, rather than with the last"""
    watch: Callable[[State], dict[str, float]] | None = None
    """other numbers of the state, taken whenever it is validated; they decide nothing"""


def fit(
    learner: Learner,
    params: Params,
    sample: Callable[[int], Any],
    how: Fit,
    seed: int,
    name: str,
    fingerprint: dict[str, Any],
) -> Fitted:
    """Meta-train `learner` from `params` (of one task), meta-step k on the tasks `sample(k)`.

    All randomness of meta-step k comes from streams named by k, so a run that is killed and started again ends as if
    it had never stopped. The checkpoint stays when the run has finished: started again, it is read and not repeated.

    Args:
        name: what messages call the run.
        fingerprint: whatever the result depends on, as JSON values; an unfinished run of another one is refused.

    Raises:
        FloatingPointError: a loss or parameter is no longer finite; says the method, meta-step, task and step.
        ValueError: the checkpoint is damaged or belongs to an unfinished run of other settings.
        Interrupted: the run was told to stop; its last whole meta-step is in the checkpoint.
    """
    device = next(iter(params.values())).device
    run = load(how.checkpoint, fingerprint, device) if how.checkpoint else None
    if run is None:
        run = {"meta_step": 0, "state": learner.init(params), "history": [], "seconds": 0.0}
        run |= {"best": None, "best_error": None, "best_step": 0}
    else:
        print(f"{name}: resumed at meta-step {run['meta_step']} from {how.checkpoint}", flush=True)
    run["finished"] = is_finished(run, how)
    began = time.monotonic() - run["seconds"]
    progress = Progress(name, run["meta_step"], how.meta_steps)
    try:
        while not run["finished"]:
            # A new dictionary: whenever a signal comes, `run` is the last whole meta-step.
            run, summary = meta_step(learner, run, sample, how, seed, name)
            run["seconds"] = time.monotonic() - began
            progress.show(run["meta_step"], summary)
            due = run["finished"] or run["meta_step"] % how.checkpoint_every == 0
            if how.checkpoint and (due or run["best_step"] == run["meta_step"]):
                save(how.checkpoint, run, fingerprint)
            if received():  # and swallowed on the way
                raise Interrupted(received())
    except BaseException as error:
        if not received():
            raise
        if how.checkpoint:
            save(how.checkpoint, run, fingerprint)
            print(f"{name}: meta-step {run['meta_step']} saved in {how.checkpoint}", flush=True)
        raise Interrupted(received()) from error
    progress.close()
    state = run["best"] if how.keep_best and run["best"] is not None else run["state"]
    return Fitted(state, run["history"], run["meta_step"], run["seconds"])


def meta_step(
    learner: Learner, run: dict[str, Any], sample: Callable[[int], Any], how: Fit, seed: int, name: str
) -> tuple[dict[str, Any], dict[str, float]]:
    """One step of meta-training from `run`, which stays as it is. -> the run after it, the numbers of the step"""
    k = run["meta_step"]
    tasks = sample(k)
    state, info = learner.step(run["state"], tasks, generator(seed, "learner", k))
    summary = check_finite(info, state, tasks, f"{name}, meta-step {k}")
    after = run | {"meta_step": k + 1, "state": state}
    if how.validate and (k + 1) % how.validate_every == 0:
        error = summary["validation_error"] = how.validate(state)
        summary |= how.watch(state) if how.watch else {}
        if run["best_error"] is None or error < run["best_error"]:
            after |= {"best": state, "best_error": error, "best_step": k + 1}
    after["history"] = run["history"] + [(k, metric, value) for metric, value in summary.items()]
    after["finished"] = is_finished(after, how)
    return after, summary


def is_finished(run: dict[str, Any], how: Fit) -> bool:
    """All meta-steps are done, or validation has not got better for as long as it may."""
    exhausted = how.patience is not None and run["best_error"] is not None
    return run["meta_step"] >= how.meta_steps or (exhausted and run["meta_step"] - run["best_step"] >= how.patience)


def check_finite(info: Info, state: State, tasks: Any, name: str) -> dict[str, float]:
    """The numbers of one meta-step that a curve shows; raises where any loss or parameter is not finite."""
    if not info:
        return {}
    loss = info["loss"]
    bad = first_bad(loss, info["steps"])
    if bad:
        task, step = bad
        raise FloatingPointError(
            f"{name}: the training loss of training task number {int(tasks.index[task])} is "
            f"{float(loss[task, step])} at step {step}. Needed finite losses: lower the task or meta learning rate."
        )
    if "replay_loss" in info and not info["replay_loss"].isfinite().all():
        bad_points = (~info["replay_loss"].isfinite()).nonzero()
        raise FloatingPointError(
            f"{name}: the meta-loss of the warps is not finite from replayed point {int(bad_points[0, 0])} on. "
            "Lower the meta learning rate."
        )
    for path, leaf in leaves(state).items():
        if not leaf.isfinite().all():
            raise FloatingPointError(
                f"{name}: {path} is no longer finite after the meta-update, though the task losses were. "
                "Lower the meta learning rate."
            )
    summary = {"meta_loss": float(loss.nanmean())}
    if "accuracy" in info:
        summary["meta_accuracy"] = float(info["accuracy"].nanmean())
    if "return" in info:
        summary["return"] = float(info["return"].mean())
    if "replay_loss" in info:
        summary["replay_loss"] = float(info["replay_loss"].mean())
    return summary


def thinned(
    history: Sequence[Record], meta_steps: int, most: int, kept: Collection[str] = ()
) -> list[tuple[str, int | None, str, float]]:
    """The history of `meta_steps` as rows: of each metric at most `most` means, each at the first of its meta-steps.

    Args:
        kept: metrics that stay as they are, such as those of validation, at the number of meta-steps done by then.
    """
    every = -(-meta_steps // most)
    parts: dict[tuple[int, str], list[float]] = {}
    for k, metric, value in history:
        parts.setdefault((k + 1 if metric in kept else k - k % every, metric), []).append(value)
    return [("", k, metric, sum(values) / len(values)) for (k, metric), values in parts.items()]


def save(path: Path, run: dict[str, Any], fingerprint: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader finds the old one or the new one, whole."""
    buffer = io.BytesIO()  # torch.save calls a full disk an internal error
    torch.save(run | {"fingerprint": json.dumps(fingerprint)}, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path, fingerprint: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The run that a checkpoint holds, on `device`; None where there is none, or a finished one of other settings.

    Raises:
        ValueError: the file is damaged, or an unfinished run of other settings (the differences are named).
    """
    if not path.exists():
        return None
    try:
        run = torch.load(path, weights_only=True, map_location=device)
        found = json.loads(run.pop("fingerprint"))
    except Exception as error:  # torch.load raises a dozen kinds for a file that is cut off or overwritten
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"checkpoint {path} is damaged ({reason[:120]}). Delete it to start this run from its beginning."
        ) from None
    if "profile" in found:  # up to version 0.1 a run was known by it
        raise ValueError(
            f"checkpoint {path} was written by an older version of leapwarp. Delete it, with its folder, to begin anew."
        )
    needed = json.loads(json.dumps(fingerprint))
    different = [key for key in sorted(found.keys() | needed.keys()) if found.get(key) != needed.get(key)]
    if different:
        listing = "; ".join(f"{key} is {found.get(key)!r}, this run needs {needed.get(key)!r}" for key in different)
        if run["finished"]:
            print(f"{path} holds a finished run of other settings ({listing}): beginning anew", flush=True)
            return None
        raise ValueError(
            f"checkpoint {path} is of an unfinished run with other settings: {listing}. "
            "Delete it to start this run from its beginning, or go back to those settings."
        )
    return run


class Progress:
    """A bar on a terminal; in a log, a line every ten seconds with rate and remaining time."""

    def __init__(self, name: str, first: int, total: int, unit: str = "meta-step") -> None:
        self.name, self.first, self.total, self.unit = name, first, total, unit
        self.began = self.shown = time.monotonic()
        self.bar = tqdm(total=total, initial=first, desc=name) if sys.stderr.isatty() and total else None

    def show(self, done: int, summary: dict[str, float]) -> None:
        if self.bar is not None:
            self.bar.set_postfix({metric: f"{value:.3f}" for metric, value in summary.items()}, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.shown < LOG_EVERY and done < self.total:
            return
        self.shown = now
        rate = (done - self.first) / max(now - self.began, 1e-9)
        numbers = " ".join(f"{metric} {value:.3f}" for metric, value in summary.items())
        left = (self.total - done) / rate
        print(
            f"{self.name}: {self.unit} {done}/{self.total} {numbers} | {rate:.2f}/s, {left:.0f} s left",
            flush=True,
        )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
