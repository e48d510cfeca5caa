"""What the Atari experiment's jobs share: its settings, and an agent that learns one game, Leap's sum on the way."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leapwarp import fit
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
    """The numbers of one method at one size; run.py gives their sources. A size's chain has the numbers of games."""

    updates: int
    """of an agent, in meta-training and in the evaluation: each is `batch` x `length` steps"""
    batch: int
    """emulators"""
    length: int
    """of an unroll"""
    learning_rate: float
    decay: float
    epsilon: float
    """all three of RMSProp"""
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
    """updates between checkpoints, at which all episodes begin anew"""
    every: int
    """updates for a point of a learning curve, and for the loss that a game of meta-training ends with"""
    pool: tuple[str, ...]
    """games of meta-training"""
    heldout: tuple[str, ...]
    """games of the evaluation that are not in the pool"""
    seen: tuple[str, ...]
    """those that are"""
    larger: tuple[str, ...]
    """those with more actions than any in the pool"""


def choices(settings: Settings) -> Choices:
    return Choices(settings.discount, settings.value_weight, settings.entropy_weight, settings.reward_clip)


def tally(latest: Tensor, running: Tensor, reward: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the last episode that ended in each emulator (nan before the first), and of the one that goes on.

    Args:
        latest, running: [env] before these steps. reward, ended: [time, env].
    """
    for now, over in zip(reward.double(), ended, strict=True):
        running = running + now
        latest = torch.where(over, running, latest)
        running = torch.where(over, 0.0, running)
    return latest, running


def score(latest: Tensor, running: Tensor) -> float:
    """The mean over emulators; one that has ended no episode yet counts with what the first one has so far."""
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

    All emulators are reset every `restart` updates, and the run is saved there: the state of an emulator is not
    needed to go on, and a run that was stopped ends as if it had not been.

    Args:
        names: of the random streams: what tells this game of this seed from others.
        leap: sum up the meta-gradient of the energy of the encoder's path.
        learns: without, the policy stays uniform.

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
    began, progress = time.monotonic() - run["seconds"], fit.Progress(label, run["update"], settings.updates, "update")
    while not run["finished"]:
        stream = generator(seed, *names, "segment", run["update"])
        run = _segment(world, run, settings, stream, leap, learns, progress)
        run["seconds"] = time.monotonic() - began
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
    """Updates until the next restart. `run` stays as it is. -> the run after them"""
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
        # The last segment of the path ends where nothing is learnt any more: its loss is that of one more unroll.
        final = play(params=params, pixels=pixels, learns=False)
        total = fold(total, before, _point(last, params, {}, final.loss))
    # Cut off by the restart: counts where it is all that there is, or has come further than the last that ended.
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
    """What the games share."""
    return partition(params, "encoder")[0] if "head.weight" in params else params


def _first(stack: Params) -> Params:
    """The one task of a stack."""
    return map_tree(lambda leaf: leaf[0].clone(), stack)


def pictures(params: Params, game: str, settings: Settings, n: int, longest: int) -> dict[str, Tensor]:
    """`n` pictures, evenly spaced, of one episode that an agent plays, or of its first `longest` steps.

    Returns:
        `pixels` [picture, 84, 84, 3] bytes; `step` at which they were seen; `score` up to then.
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
