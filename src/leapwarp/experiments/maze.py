"""WarpGrad's reinforcement learning experiment (section 3 c.1, appendix J; Figures 2 and 8): a maze with a hidden goal.

    python -m leapwarp.experiments.maze --profile quick --method warp_rnn --n-tasks 0 --seeds 0 1 --out warp_rnn.csv

An actor-critic whose recurrent state has to remember where the goal was found learns over batches of episodes, each
with a goal of its own: plainly, with plastic weights, and with weights that a frozen LSTM modulates, which is
meta-learnt from the same batches.

One run takes, on a core: smoke, a second; quick, 15 s for the plain RNN and T-Nets, 40 s for the Warp-RNN and the
HyperRNN, 85 to 105 s for the Hebbian agents; paper, an hour, five hours, and a day (benchmarks/maze.py). To expect, at
quick: random 6, the plain RNN and T-Nets 48 to 49, the Hebbian agents 55 to 60, the Warp-RNN 64 and, against the paper,
the HyperRNN 75.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from leapwarp.experiments.command import Record, main
from leapwarp.fit import Fit, fit
from leapwarp.learners import Learner
from leapwarp.learners.recurrent import Block, stream
from leapwarp.models.recurrent import Cell, hebbian_rnn, rnn, tnets_rnn, warp_rnn
from leapwarp.optim import adam
from leapwarp.rl.a2c import clip
from leapwarp.rl.rollout import Choices, actor_critic, play, policy
from leapwarp.rng import generator
from leapwarp.trees import Params
from leapwarp.worlds.maze import N_ACTIONS, N_INPUTS, Draws, Maze, draw, maze


@dataclass(frozen=True)
class Settings:
    """The numbers of one method at one size. "Miconi" is the code of the paper that the set-up is taken from."""

    interior: int = 11  # WarpGrad App. J: 11 x 11; that walls come on top is from the released code
    steps: int = 200  # of an episode: WarpGrad App. J (App. D says 300)
    batch: int = 30  # WarpGrad App. J
    updates: int = 200_000  # WarpGrad App. J
    hidden: int = 100  # WarpGrad App. J
    warp_hidden: int = 100  # released code; the paper is silent
    learning_rate: float = 0.001  # of Adam, for parameters and warps: WarpGrad App. J
    epsilon: float = 1e-4  # of Adam: Miconi; the released code has 1e-8
    eta: int = 30  # batches for an update of the warps: WarpGrad App. D
    discount: float = 0.9  # Miconi, released code
    value_weight: float = 0.1  # Miconi, released code
    entropy_weight: float = 0.03  # Miconi, released code
    clip: float = 4.0  # norm of the gradient: Miconi; the released code has none
    reward: float = 10.0  # Miconi, released code
    shift_rewards: bool = False  # the released code does, Miconi's does not
    first_baseline: bool = False  # both codes do
    teleport_into_pillars: bool = False  # the released code does, Miconi's does not
    every: int = 100  # updates for a point of the curve
    checkpoint_every: int = 1  # points


PAPER = Settings()
QUICK = replace(
    PAPER,
    interior=5,
    steps=40,
    hidden=32,
    warp_hidden=32,
    updates=4000,
    eta=10,  # with 30, the warps would be updated 133 times, where they are 6,667 times in print
    every=40,
    checkpoint_every=10,
)
SMOKE = replace(QUICK, hidden=8, warp_hidden=8, steps=15, batch=6, updates=12, every=3, eta=2)
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}


class Method(NamedTuple):
    settings: Settings
    cell: Callable[[Settings], Cell] | None
    """None plays at random"""
    pretrains: bool = False  # on goals without number, so that there is no count of tasks to report


def _rnn(settings: Settings) -> Cell:
    return rnn(N_INPUTS, settings.hidden, N_ACTIONS)


def _hebbian(retroactive: bool) -> Callable[[Settings], Cell]:
    return lambda settings: hebbian_rnn(N_INPUTS, settings.hidden, N_ACTIONS, retroactive)


def _tnets(settings: Settings) -> Cell:
    return tnets_rnn(N_INPUTS, settings.hidden, N_ACTIONS)


def _warp(settings: Settings) -> Cell:
    return warp_rnn(N_INPUTS, settings.hidden, N_ACTIONS, settings.warp_hidden)


def methods(settings: Settings) -> dict[str, Method]:
    """The agents of Figure 8, one that plays at random, and the plain RNN with what the released code has otherwise."""
    released = {
        "rnn_shifted": {"shift_rewards": True},
        "rnn_first_baseline": {"first_baseline": True},
        "rnn_pillars": {"teleport_into_pillars": True},
        "rnn_no_clip": {"clip": float("inf")},
        "rnn_epsilon": {"epsilon": 1e-8},
    }
    return {
        "random": Method(settings, None),
        "rnn": Method(settings, _rnn),
        "hebbian": Method(settings, _hebbian(False)),
        "hebbian_retroactive": Method(settings, _hebbian(True)),
        "hyper_rnn": Method(replace(settings, eta=1), _warp),
        "tnets_rnn": Method(settings, _tnets),
        "warp_rnn": Method(settings, _warp),
    } | {name: Method(replace(settings, **changed), _rnn) for name, changed in released.items()}


def choices(settings: Settings) -> Choices:
    return Choices(
        settings.discount,
        settings.value_weight,
        settings.entropy_weight,
        settings.shift_rewards,
        settings.first_baseline,
    )


def learner(world: Maze, cell: Cell, settings: Settings) -> Learner:
    optimizer = adam(settings.learning_rate, epsilon=settings.epsilon)
    gradient = actor_critic(world, cell, choices(settings))
    return stream(gradient, optimizer, optimizer, settings.eta, lambda grads: clip(grads, settings.clip))


def world_of(settings: Settings, device: torch.device) -> Maze:
    return maze(settings.interior, settings.reward, settings.teleport_into_pillars, device)


def block(world: Maze, settings: Settings, seed: int, k: int) -> Block:
    """The episodes of point k of the curve; all agents of a seed meet the same."""
    batches = range(k * settings.every, min((k + 1) * settings.every, settings.updates))
    draws = [draw(world, settings.batch, settings.steps, generator(seed, "episodes", i)) for i in batches]
    return Block(torch.tensor([k]), draws)


def run(
    data: Any,
    method: Method,
    name: str,
    n_tasks: int,
    seed: int,
    device: torch.device,
    checkpoints: Path | None,
    identity: dict[str, Any],
) -> tuple[list[Record], float]:
    """One run: train on `updates` batches of episodes, then play one more episode for the figure."""
    settings, began = method.settings, time.monotonic()
    world = world_of(settings, device)
    if method.cell is None:
        return random_play(world, settings, seed), time.monotonic() - began
    cell = method.cell(settings)
    params = {name: leaf.to(device) for name, leaf in cell.init(generator(seed, "init")).items()}
    points = -(-settings.updates // settings.every)
    checkpoint = checkpoints / f"seed{seed}.pt" if checkpoints else None
    how = Fit(points, checkpoint=checkpoint, checkpoint_every=settings.checkpoint_every)

    def sample(k: int) -> Block:
        return block(world, settings, seed, k)

    fitted = fit(learner(world, cell, settings), params, sample, how, seed, f"{name}, seed {seed}", identity)
    params = {**fitted.state["params"], **fitted.state["warp"]}
    warps = sum(leaf.numel() for leaf in fitted.state["warp"].values())
    records: list[Record] = [
        ("", min((k + 1) * settings.every, settings.updates), metric, value) for k, metric, value in fitted.history
    ]
    records += [
        ("", None, "task_parameters", float(sum(leaf.numel() for leaf in fitted.state["params"].values()))),
        ("", None, "warp_parameters", float(warps)),
        ("", None, "train_seconds", fitted.seconds),
    ]
    if seed == 0:
        records += picture(world, cell, params, draw(world, 1, settings.steps, generator(seed, "picture")))
    return records, fitted.seconds


def random_play(world: Maze, settings: Settings, seed: int) -> list[Record]:
    """What every action with the same probability earns, at ten points of the curve, each on the episodes of one."""
    points = -(-settings.updates // settings.every)
    nothing = torch.zeros(N_ACTIONS, device=world.free.device)
    records: list[Record] = []
    for k in sorted({point * (points - 1) // 9 for point in range(10)}):
        batches = block(world, settings, seed, k).batches
        found = [play(world, None, nothing, nothing, draws).found.sum(0) for draws in batches]
        value = world.reward * float(torch.stack(found).double().mean())
        records.append(("", min((k + 1) * settings.every, settings.updates), "return", value))
    return records


def picture(world: Maze, cell: Cell, params: Params, draws: Draws) -> list[Record]:
    """One episode: the maze, the goal, and where the agent stood at every step and whether it found the goal there."""
    body = {name: leaf for name, leaf in params.items() if not name.startswith("task.head.")}
    played = play(world, cell.tape(body, len(draws.landing), 1), *policy(params), draws)
    records: list[Record] = [("", i, "wall", float(wall)) for i, wall in enumerate(world.walls.flatten())]
    records.append(("", None, "goal", float(draws.goal[0])))
    for metric, values in (("cell", played.cell), ("found", played.found)):
        records += [("", t, metric, float(value)) for t, value in enumerate(values[:, 0])]
    return records


def cli(arguments: Sequence[str] | None = None) -> None:
    main("maze", __doc__, PROFILES, methods, None, run, arguments)


if __name__ == "__main__":
    cli()
