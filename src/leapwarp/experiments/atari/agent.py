"""Shared by the jobs of the Atari experiment: settings, and an agent that learns one game and sums Leap's gradient."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leapwarp import fit
from leapwarp.host import clock
from leapwarp.inner import Step
from leapwarp.interrupt import Interrupted, received
from leapwarp.learners.leap import leap_fold
from leapwarp.models import actor_critic
from leapwarp.optim import rmsprop
from leapwarp.rl.unroll import Choices, Unrolled, pick, unroll
from leapwarp.rng import generator
from leapwarp.trees import Params, map_tree, partition, repeat, to_device, zeros_like
from leapwarp.worlds import atari


@dataclass(frozen=True)
class Settings:
    """The settings of one method; run.py gives their sources. `chain` of a size has the numbers of games."""

    updates: int
    """updates of an agent, in meta-training and in evaluation; each uses `batch` x `length` steps"""
    batch: int
    """emulators"""
    length: int
    """steps of an unroll"""
    learning_rate: float
    decay: float
    epsilon: float
    """the three settings of RMSProp"""
    entropy_weight: float
    reward_clip: float
    discount: float
    value_weight: float
    outer_lr: float
    """of Adam"""
    frame_skip: int
    noops: int
    """idle steps at the start of an episode, at most"""
    restart: int
    """updates between checkpoints, at which all episodes are restarted"""
    every: int
    """updates that are averaged for a point of a learning curve, and for the final loss of a game in meta-training"""
    pool: tuple[str, ...]
    """games of meta-training"""
    heldout: tuple[str, ...]
    """games of the evaluation that are not in the pool"""
    seen: tuple[str, ...]
    """games of the evaluation that are in the pool"""
    larger: tuple[str, ...]
    """games of the evaluation with more actions than any in the pool"""


def choices(settings: Settings) -> Choices:
    return Choices(settings.discount, settings.value_weight, settings.entropy_weight, settings.reward_clip)


def tally(latest: Tensor, running: Tensor, reward: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of each emulator's last finished episode (nan before the first), and of its current one.

    Args:
        latest, running: [env] before these steps. reward, ended: [time, env].
    """
    for now, over in zip(reward.double(), ended, strict=True):
        running = running + now
        latest = torch.where(over, running, latest)
        running = torch.where(over, 0.0, running)
    return latest, running


def score(latest: Tensor, running: Tensor) -> float:
    """The mean over emulators. An emulator without a finished episode counts with its current score."""
    return float(torch.where(latest.isnan(), running, latest).mean())


def train(
    game: str,
    encoder: Params,
    settings: Settings,
    seed: int,
    names: tuple[str | int, ...],
    checkpoint: Path | None,
    identity: dict[str, Any],
    leap: bool = False,
    learns: bool = True,
) -> dict[str, Any]:
    """Learn one game from `encoder` and a random head.

    All emulators are reset every `restart` updates, and a checkpoint is saved then. So emulators need not be saved, and
    a run that was stopped gives the same results as an uninterrupted one.

    Args:
        names: names of the random streams, which identify this game and seed.
        leap: sum the meta-gradient of the energy of the encoder's path.
        learns: if False, the policy stays uniform.

    Returns:
        `params`; `total`, shaped as the encoder (zero without `leap`); `curve` of (steps, metric, value); `seconds`.
    """
    device = next(iter(encoder.values())).device
    label = f"{game}, seed {seed}"
    world = atari.start(game, settings.batch, settings.frame_skip, settings.noops)
    run = fit.load(checkpoint, identity, device) if checkpoint else None
    if run is None:
        head = to_device(actor_critic.head(world.n_actions, generator(seed, *names, "head")), device)
        params = encoder | (head if learns else map_tree(torch.zeros_like, head))
        nothing = torch.full((settings.batch,), torch.nan, dtype=torch.float64)
        run = {"update": 0, "params": params, "square": zeros_like(params), "total": zeros_like(encoder)}
        run |= {"before": None, "latest": nothing, "curve": [], "losses": [], "seconds": 0.0, "finished": False}
    elif run["update"]:
        print(f"{label}: resumed at update {run['update']} from {checkpoint}", flush=True)
    progress, now = fit.Progress(label, run["update"], settings.updates, "update"), clock(device)
    began = now() - run["seconds"]
    while not run["finished"]:
        stream = generator(seed, *names, "segment", run["update"])
        run = _segment(world, run, settings, stream, leap, learns, progress)
        run["seconds"] = now() - began
        if checkpoint:
            fit.save(checkpoint, run, identity)
        if received():  # and swallowed on the way
            raise Interrupted(received())
    progress.close()
    return run


def _segment(
    world: atari.Game,
    run: dict[str, Any],
    settings: Settings,
    rng: torch.Generator,
    leap: bool,
    learns: bool,
    progress: fit.Progress,
) -> dict[str, Any]:
    """Make the updates until the next restart. `run` is not changed. -> the run after them"""
    optimizer = rmsprop(settings.learning_rate, settings.decay, settings.epsilon)
    fold = leap_fold(length=False)
    params, square, total = run["params"], run["square"], repeat(run["total"], 1)
    before = _point(*run["before"]) if run["before"] else None
    curve, losses, latest = list(run["curve"]), list(run["losses"]), run["latest"].cpu()
    running = torch.zeros_like(latest)
    pixels = atari.reset(world, rng)
    last = min(run["update"] + settings.restart, settings.updates)
    play = partial(
        unroll, partial(atari.step, world), length=settings.length, rng=rng, choices=choices(settings), learns=learns
    )
    for update in range(run["update"], last):
        played: Unrolled = play(params=params, pixels=pixels)
        pixels = played.pixels
        latest, running = tally(latest, running, played.reward, played.ended)
        losses.append(float(played.loss))
        if not torch.isfinite(played.loss):
            raise FloatingPointError(
                f"{world.name}: the loss of update {update} is {losses[-1]}. Needed finite losses: lower the rate."
            )
        if leap:
            here = _point(update, params, played.grads, played.loss)
            total = fold(total, before, here) if before else total
            before = here
        if learns:
            params, square = optimizer.update(params, played.grads, square)
        if (update + 1) % settings.every == 0 or update + 1 == settings.updates:
            steps = (update + 1) * settings.batch * settings.length
            curve += [(steps, "score", score(latest, running)), (steps, "loss", sum(losses) / len(losses))]
            losses = []
            progress.show(update + 1, {"score": score(latest, running)})
    if leap and before and last == settings.updates:
        # The last segment of the path ends after the last update. Its loss is that of one more unroll.
        final = play(params=params, pixels=pixels, learns=False)
        total = fold(total, before, _point(last, params, {}, final.loss))
    # An episode that the restart cuts off counts if it is the only one, or has a higher score than the last finished
    # one.
    latest = torch.where(latest.isnan() | (running > latest), running, latest)
    kept = (before.number, _first(before.params), _first(before.grads), before.loss[0]) if before else None
    after = {"update": last, "params": params, "square": square, "total": _first(total), "before": kept}
    return run | after | {"latest": latest, "curve": curve, "losses": losses, "finished": last == settings.updates}


def _point(number: int, params: Params, grads: Params, loss: Tensor) -> Step:
    """A step of the encoder's path, as a stack of one task."""

    def part(tree: Params) -> Params:
        return repeat(encoder_of(tree), 1)

    return Step(number, part(params), part(grads) if grads else {}, loss[None])


def encoder_of(params: Params) -> Params:
    """The initial encoder, which all games share."""
    return partition(params, "encoder")[0] if "head.weight" in params else params


def _first(stack: Params) -> Params:
    """The one task of a stack."""
    return map_tree(lambda leaf: leaf[0].clone(), stack)


def pictures(params: Params, game: str, settings: Settings, n: int, longest: int) -> dict[str, Tensor]:
    """`n` evenly spaced frames of one episode that an agent plays, or of its first `longest` steps.

    Returns:
        `pixels` [picture, 84, 84, 3] bytes; `step`, the step of each frame; `score` up to then.
    """
    rng = generator(0, "pictures", game)
    world = atari.start(game, 1, settings.frame_skip, settings.noops)
    params = to_device(params, torch.device("cpu"))
    pixels, total = atari.reset(world, rng), 0.0
    seen, scores = [], []
    with torch.no_grad():
        for _ in range(longest):
            seen.append(pixels[0].clone())
            scores.append(total)
            after = atari.step(world, pick(actor_critic.forward(params, pixels)[:, :-1], rng))
            pixels, total = after.pixels, total + float(after.reward)
            if bool(after.ended):
                break
    steps = [i * (len(seen) - 1) // (n - 1) for i in range(n)]
    shown = torch.tensor([scores[i] for i in steps], dtype=torch.float64)
    return {"pixels": torch.stack([seen[i] for i in steps]), "step": torch.tensor(steps), "score": shown}
