"""The outer loop: meta-training of a stack of runs, with early stopping, checkpoints and progress messages."""

import hashlib
import io
import json
import math
import re
import sys
import time
import zipfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from leapwarp.files import atomic
from leapwarp.host import clock
from leapwarp.inner import carried, first_bad
from leapwarp.interrupt import Interrupted, received
from leapwarp.learners.base import Diverged, Info, Learner, State, are_finite
from leapwarp.problem import join_tasks
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, leaves, pick

Record = tuple[int, str, float]
"""(meta-step, metric, value)"""

ROUNDING = 1e-6  # a smaller relative fall of a validation error, a mean of float32 values, is not an improvement
LONGEST, MANY = 150, "_runs_from_"  # a longer name of a checkpoint does not list its runs, and has this text
LOG_EVERY = 10.0  # seconds between two lines of progress where the output is not a terminal


class Member(NamedTuple):
    """A run of a stack, which gives the same result as if it were trained alone."""

    seed: int
    """the seed of its random streams"""
    name: str
    """its name in messages"""
    fingerprint: dict[str, Any]
    """everything that its result depends on, as JSON values. A checkpoint of an unfinished run with another fingerprint
    is refused"""
    part: str = ""
    """what tells it from other runs of its seed whose checkpoints are in the same folder"""

    @property
    def key(self) -> str:
        """Its name in checkpoints."""
        return f"{self.seed}-{self.part}" if self.part else str(self.seed)


class Fitted(NamedTuple):
    """The result of one run."""

    state: State
    """without the axis of runs: the state with the best validation error if `keep_best`, else the last one; empty if
    the run ended in an error"""
    history: list[Record]
    meta_steps: int
    """meta-steps taken, including those of an interrupted process"""
    seconds: float
    """its share of its stack's time, by `host.clock`"""
    moved: dict[str, float]
    """the distance of its state from the first one, see `moved`"""
    error: str | None = None
    """None, or a message if a number was no longer finite and ended the run"""


class Fit(NamedTuple):
    """How long to meta-train, and how to validate and save."""

    meta_steps: int
    validate: Callable[[int, State], float] | None = None
    """(number of the run, its state as a stack of one) -> mean error on its validation tasks"""
    validate_every: int = 1
    patience: int | None = None
    """a run stops at the first validation after this many meta-steps without a better error; None: never"""
    checkpoints: Path | None = None
    """folder for the checkpoints of all stacks; None: no checkpoints"""
    checkpoint_every: int = 10
    keep_best: bool = True
    """end with the state that has the best validation error, rather than with the last one"""
    watch: Callable[[int, State], dict[str, float]] | None = None
    """other numbers of a run's state, measured whenever it is validated. They have no effect on training, and one
    that raises FloatingPointError is left out."""


def fit(
    learner: Learner,
    params: Params,
    sample: Callable[[int, int], Any],
    how: Fit,
    members: Sequence[Member],
) -> list[Fitted]:
    """Meta-train a stack of runs from `params` [run, ...]. At meta-step k run i is trained on the tasks `sample(k, i)`.

    A run leaves the stack when it has finished, by its own validation error or because a number is no longer finite.
    The others continue with the same results as without it.

    All randomness of meta-step k comes from streams named by seed and k. So a stack that is killed and started again
    gives the same results as one that never stopped. Checkpoints are kept when runs have finished, and read if this is
    called again: runs that an earlier call has trained are not trained again, whichever other runs were in its stack.
    Unfinished runs continue in the stack in which they began. New runs are trained after them, in another stack.

    Raises:
        FloatingPointError: all runs have ended in an error; says the method, meta-step, task and step of the first.
        ValueError: the parameters are not a stack with one row for each member, or a checkpoint is damaged or belongs
            to unfinished runs with other settings.
        Interrupted: the process was told to stop; its last whole meta-step is in the checkpoint.
    """
    if (rows := {len(leaf) if leaf.dim() else 0 for leaf in params.values()}) != {len(members)} or not members:
        raise ValueError(
            f"the parameters have {sorted(rows)} rows for {len(members)} members; needed a stack with one row for each "
            "run. leapwarp.trees.alone(params) makes a stack of one."
        )
    number = {member.key: i for i, member in enumerate(members)}
    first = learner.init(params)
    stacks = kept(how, members, next(iter(params.values())).device)
    new = [key for key in number if all(key not in stack["runs"] for _, stack in stacks)]
    if new:
        start = learner.init(pick(params, [number[key] for key in new]))
        stacks.append((checkpoint(how, new), leave(begun(start, new, how), how)))
    ended: dict[str, dict[str, Any]] = {}
    for path, stack in stacks:
        ended |= advance(learner, stack, path, sample, how, members, first)["runs"]
    found = []
    for i, member in enumerate(members):
        run = ended[member.key]
        way = {} if run["error"] else of_run(moved(alone(run["state"]), pick(first, [i])), 0)
        found.append(Fitted(run["state"], run["history"], run["meta_step"], run["seconds"], way, run["error"]))
    if all(each.error for each in found):
        raise FloatingPointError(found[0].error)
    return found


def begun(state: State, keys: Sequence[str], how: Fit) -> dict[str, Any]:
    """A stack before its first meta-step. `runs` has the record of each run, and `state` is that of `active` runs."""
    run = {"meta_step": 0, "history": [], "seconds": 0.0, "best": None, "best_error": None, "best_step": 0}
    run |= {"state": {}, "error": None, "finished": is_finished(run, how)}
    return {"meta_step": 0, "state": state, "active": list(keys), "runs": dict.fromkeys(keys, run)}


def advance(
    learner: Learner,
    stack: dict[str, Any],
    path: Path | None,
    sample: Callable[[int, int], Any],
    how: Fit,
    members: Sequence[Member],
    first: State,
) -> dict[str, Any]:
    """Train a stack until all its runs have finished. -> the stack, without active runs"""
    mine = [member for member in members if member.key in stack["runs"]]
    name = mine[0].name + (f" and {len(mine) - 1} more" if mine[1:] else "")
    fingerprint = {member.key: member.fingerprint for member in mine}
    progress = Progress(name, stack["meta_step"], how.meta_steps)
    try:
        while stack["active"]:
            # A new dictionary, so that `stack` is the last complete meta-step whenever a signal arrives.
            stack, summary = meta_step(learner, stack, sample, how, members, first)
            progress.show(stack["meta_step"], summary)
            runs = stack["runs"].values()
            due = not stack["active"] or stack["meta_step"] % how.checkpoint_every == 0
            if path and (due or any(run["best_step"] == stack["meta_step"] for run in runs)):
                save(path, stack, fingerprint)
            if received():  # a signal whose exception a library has swallowed
                raise Interrupted(received())
    except BaseException as error:
        if not received():
            raise
        if path:
            save(path, stack, fingerprint)
            print(f"{name}: meta-step {stack['meta_step']} saved in {path}", flush=True)
        raise Interrupted(received()) from error
    progress.close()
    return stack


def meta_step(
    learner: Learner,
    stack: dict[str, Any],
    sample: Callable[[int, int], Any],
    how: Fit,
    members: Sequence[Member],
    first: State,
) -> tuple[dict[str, Any], dict[str, float]]:
    """One step of meta-training. `stack` is not changed. -> the stack after the step, and the step's mean numbers

    Args:
        first: the state of all members before their first meta-step.
    """
    k, keys, seconds = stack["meta_step"], stack["active"], clock(next(iter(leaves(first).values())).device)
    began = seconds()
    number = {member.key: i for i, member in enumerate(members)}
    numbers = [number[key] for key in keys]
    tasks = join_tasks([sample(k, i) for i in numbers])
    try:
        state, info = learner.step(stack["state"], tasks, [generator(members[i].seed, "learner", k) for i in numbers])
    except Diverged as error:  # reported below, for each run
        state, info = error.after
    finite, way = are_finite(state, len(keys)), moved(state, pick(first, numbers))
    runs, summaries = dict(stack["runs"]), []
    for row, (key, i) in enumerate(zip(keys, numbers, strict=True)):
        run = runs[key] | {"meta_step": k + 1}
        try:
            own = {what: value.unflatten(0, (len(keys), -1))[row] for what, value in info.items()}
            where = f"{members[i].name}, meta-step {k}"
            summary = summarise(own, tasks.index.view(len(keys), -1)[row], where)
            summary |= of_run(way, row)
            if not finite[row]:
                raise FloatingPointError(
                    f"{where}: {not_finite(state, row)} is no longer finite after the meta-update, though the task "
                    "losses were. Lower the meta learning rate."
                )
            if how.validate and (k + 1) % how.validate_every == 0:
                own_state = pick(state, [row])
                error = summary["validation_error"] = how.validate(i, own_state)
                if is_better(error, run["best_error"]):
                    run |= {"best": pick(state, row), "best_error": error, "best_step": k + 1}
                summary |= watched(i, own_state, how)
            summaries.append(summary)
            run["history"] = run["history"] + [(k, metric, value) for metric, value in summary.items()]
            run["finished"] = is_finished(run, how)
        except FloatingPointError as error:
            print(str(error), flush=True)
            run |= {"error": str(error), "finished": True}
        runs[key] = run
    share = (seconds() - began) / len(keys)
    for key in keys:
        runs[key] |= {"seconds": runs[key]["seconds"] + share}
    after = leave({"meta_step": k + 1, "state": state, "active": keys, "runs": runs}, how)
    metrics = [metric for metric in summaries[0] if all(metric in each for each in summaries)] if summaries else []
    return after, {metric: sum(each[metric] for each in summaries) / len(summaries) for metric in metrics}


def leave(stack: dict[str, Any], how: Fit) -> dict[str, Any]:
    """The stack without the runs that have finished. Their states are kept in their records."""
    runs, keys, state = dict(stack["runs"]), stack["active"], stack["state"]
    for row, key in enumerate(keys):
        run = runs[key]
        if run["finished"]:
            keeps = how.keep_best and run["best"] is not None
            ended = run["best"] if keeps else pick(state, row)
            runs[key] = run | {"state": {} if run["error"] else ended, "best": None}
    rows = [row for row, key in enumerate(keys) if not runs[key]["finished"]]
    if len(rows) < len(keys):
        state = pick(state, rows) if rows else {}
    return {
        "meta_step": stack["meta_step"],
        "state": state,
        "active": [keys[row] for row in rows],
        "runs": runs,
    }


def is_better(error: float, best: float | None) -> bool:
    """Whether a validation error is the first, or lower than the best one by more than rounding."""
    return best is None or math.isnan(best) or error < best - ROUNDING * abs(best)


def watched(i: int, state: State, how: Fit) -> dict[str, float]:
    try:
        return how.watch(i, state) if how.watch else {}
    except FloatingPointError as error:
        print(f"not watched: {error}", flush=True)
        return {}


def is_finished(run: dict[str, Any], how: Fit) -> bool:
    """Whether a run has made all meta-steps, or its validation error has not improved for `patience` meta-steps.

    That it has not improved is known only when it has just been measured.
    """
    if run["meta_step"] >= how.meta_steps:
        return True
    if how.patience is None or run["best_error"] is None or run["meta_step"] % how.validate_every:
        return False
    return run["meta_step"] - run["best_step"] >= how.patience


def moved(state: State, first: State) -> dict[str, list[float]]:
    """How far warps and initialisation have moved in meta-training, relative to their initial norm. -> [run] each

    `moved_warps` is for all parameters named `warp.*`; a method without warps has no such entry. `moved_init` is for
    the parameters from which tasks start. It is 0 if they are not learnt. Where tasks share no parameters, as the
    columns of Progressive Nets, it is for those of all training tasks without their heads. Both are nan where all
    parameters were 0 at first, as those of a residual warp may be: there is no initial norm to compare with.
    """
    groups: dict[str, list[tuple[Tensor, Tensor]]] = {}
    start, shares = leaves(first), state.get("shared") != {}
    for path, leaf in leaves(state).items():
        group, name = path.split("/", 1)[0], path.rsplit("/", 1)[-1]
        begins = group in ("params", "body", "shared") and not name.startswith("rate.")
        column = group == "own" and not shares and "head" not in name.split(".")
        if group == "warp" or (group == "params" and name.startswith("warp.")):
            groups.setdefault("moved_warps", []).append((leaf, start[path]))
        elif begins or column:
            groups.setdefault("moved_init", []).append((leaf, start[path]))
    found = {}
    for name, pairs in groups.items():
        here, there = (torch.cat([pair[i].reshape(len(pair[i]), -1) for pair in pairs], 1) for i in (0, 1))
        norm = there.norm(dim=1)
        found[name] = torch.where(norm > 0, (here - there).norm(dim=1) / norm, torch.nan).tolist()
    return found


def of_run(way: dict[str, list[float]], row: int) -> dict[str, float]:
    """One run's distances from `moved`, without those that are nan."""
    return {name: values[row] for name, values in way.items() if not math.isnan(values[row])}


def not_finite(state: State, row: int) -> str:
    """The path of the first tensor in a run's state that is not finite."""
    return next(path for path, leaf in leaves(state).items() if not leaf[row].isfinite().all())


def summarise(info: Info, index: Tensor, where: str) -> dict[str, float]:
    """The numbers of one run's meta-step for the training curves. Raises FloatingPointError if a loss is not finite.

    A problem without accuracy, such as a regression, has no `meta_accuracy`.

    Args:
        index: [task] the numbers of its training tasks.
    """
    if not info:
        return {}
    loss = info["loss"]
    bad = first_bad(loss, info["steps"])
    if bad:
        task, step = bad
        raise FloatingPointError(
            f"{where}: the training loss of training task number {int(index[task])} is "
            f"{float(loss[task, step])} at step {step}. Needed finite losses: lower the task or meta learning rate."
        )
    if "replay_loss" in info and not info["replay_loss"].isfinite().all():
        bad_points = (~info["replay_loss"].isfinite()).nonzero()
        raise FloatingPointError(
            f"{where}: the meta-loss of the warps is not finite from replayed point {int(bad_points[0, 0])} on. "
            "Lower the meta learning rate."
        )
    summary = {"meta_loss": float(carried(loss).mean())}
    if "accuracy" in info and not (accuracy := carried(info["accuracy"]).mean()).isnan():
        summary["meta_accuracy"] = float(accuracy)
    if "return" in info:
        summary["return"] = float(info["return"].mean())
    if "replay_loss" in info:
        summary["replay_loss"] = float(info["replay_loss"].mean())
    return summary


def thinned(
    history: Sequence[Record], meta_steps: int, most: int, kept: Collection[str] = ()
) -> list[tuple[str, int | None, str, float]]:
    """The history of `meta_steps` as rows. Each metric is averaged in at most `most` blocks of meta-steps.

    Args:
        kept: metrics that are not averaged, such as those of validation. Their step is the number of meta-steps done.
    """
    every = -(-meta_steps // most)
    parts: dict[tuple[int, str], list[float]] = {}
    for k, metric, value in history:
        parts.setdefault((k + 1 if metric in kept else k - k % every, metric), []).append(value)
    return [("", k, metric, sum(values) / len(values)) for (k, metric), values in parts.items()]


def save(path: Path, run: dict[str, Any], fingerprint: dict[str, Any]) -> None:
    """Write a checkpoint atomically: a reader finds either the old one or the new one, complete."""
    buffer = io.BytesIO()  # torch.save reports a full disk as an internal error
    torch.save(run | {"fingerprint": json.dumps(fingerprint)}, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a checkpoint, on `device`, and its fingerprint.

    Raises:
        ValueError: the file is damaged, or was written by an older version.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():  # torch.load does not look at the checksums
                raise ValueError(f"the checksum of {damaged} is wrong")
        run = torch.load(path, weights_only=True, map_location=device)
        found = json.loads(run.pop("fingerprint"))
    except Exception as error:  # torch.load raises many kinds of errors for a truncated or overwritten file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"checkpoint {path} is damaged ({reason[:120]}). Delete it to start this run from its beginning."
        ) from None
    if "profile" in found:  # a key of versions up to 0.1
        raise ValueError(
            f"checkpoint {path} was written by an older version of leapwarp. Delete it and its folder to begin anew."
        )
    return run, found


def is_usable(path: Path, found: dict[str, Any], fingerprint: dict[str, Any], finished: bool) -> bool:
    """Whether a checkpoint has these settings. Prints a message if it belongs to a finished run with other settings.

    Raises:
        ValueError: it belongs to an unfinished run with other settings. The message names the differences.
    """
    needed = json.loads(json.dumps(fingerprint))
    different = [key for key in sorted(found.keys() | needed.keys()) if found.get(key) != needed.get(key)]
    if not different:
        return True
    listing = "; ".join(f"{key} is {found.get(key)!r}, this run needs {needed.get(key)!r}" for key in different)
    if finished:
        print(f"{path} holds a finished run with other settings ({listing}): beginning anew", flush=True)
        return False
    raise ValueError(
        f"checkpoint {path} belongs to an unfinished run with other settings: {listing}. "
        "Delete it to start this run from its beginning, or go back to those settings."
    )


def load(path: Path, fingerprint: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The run in a checkpoint, on `device`. None if there is no such file, or it has a finished run of other settings.

    Raises:
        ValueError: the file is damaged, or belongs to an unfinished run with other settings, which are named.
    """
    if not path.exists():
        return None
    run, found = read(path, device)
    return run if is_usable(path, found, fingerprint, run["finished"]) else None


def checkpoint(how: Fit, keys: Sequence[str]) -> Path | None:
    """The file of the checkpoint of a stack with these runs.

    Its name has their seeds and parts. If not every seed has every part, or there are very many, it has a hash.
    """
    pairs = [key.partition("-")[::2] for key in keys]
    seeds, parts = (list(dict.fromkeys(pair[i] for pair in pairs)) for i in (0, 1))
    name = f"seeds{'_'.join(seeds)}" + (f"-{'_'.join(parts)}" if any(parts) else "")
    if set(pairs) != {(seed, part) for seed in seeds for part in parts} or len(name) > LONGEST:
        digest = hashlib.sha256("_".join(keys).encode()).hexdigest()[:12]
        name = f"seeds{len(keys)}{MANY}{keys[0]}_to_{keys[-1]}_{digest}"
    return how.checkpoints / f"{name}.pt" if how.checkpoints else None


def may_hold(path: Path, members: Collection[Member]) -> bool:
    """Whether the checkpoint may have one of these runs, by its name. It need not be read if it has none."""
    named = re.fullmatch(r"seeds(\d+(?:_\d+)*)(?:-(.*))?", path.stem)
    if MANY in path.stem or not named:
        return MANY in path.stem
    seeds, parts = named[1].split("_"), f"_{named[2] or ''}_"
    return any(str(member.seed) in seeds and f"_{member.part}_" in parts for member in members)


def kept(how: Fit, members: Sequence[Member], device: torch.device | str) -> list[tuple[Path | None, dict[str, Any]]]:
    """The stacks that earlier calls have saved in the folder, reduced to the runs of `members`.

    If a run is in several stacks, it is taken from the one in which it has made the most meta-steps.
    """
    if how.checkpoints is None:
        return []
    wanted = {member.key: member for member in members}
    stacks: dict[Path, dict[str, Any]] = {}
    best: dict[str, tuple[int, Path]] = {}
    for path in sorted(how.checkpoints.glob("seeds*.pt")):
        if not may_hold(path, members):
            continue
        stack, found = read(path, device)
        mine = [key for key in stack["runs"] if key in wanted]
        if mine and is_usable(path, found[mine[0]], wanted[mine[0]].fingerprint, not stack["active"]):
            stacks[path] = stack
            best |= {key: max(best.get(key, (-1, path)), (stack["runs"][key]["meta_step"], path)) for key in mine}
    chosen = []
    for path, stack in stacks.items():
        mine = [key for key in stack["runs"] if key in best and best[key][1] == path]
        if not mine:
            continue
        name = wanted[mine[0]].name + (f" and {len(mine) - 1} more" if mine[1:] else "")
        print(f"{name}: resumed at meta-step {stack['meta_step']} from {path}", flush=True)
        if len(mine) < len(stack["runs"]):
            rows = [row for row, key in enumerate(stack["active"]) if key in mine]
            stack["state"] = pick(stack["state"], rows) if rows else {}
            stack |= {
                "active": [stack["active"][row] for row in rows],
                "runs": {key: stack["runs"][key] for key in mine},
            }
        chosen.append((checkpoint(how, mine), stack))
    return chosen


class Progress:
    """Shows progress: as a bar on a terminal; in a log, as a line every ten seconds with rate and remaining time."""

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
