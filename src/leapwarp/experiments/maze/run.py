"""WarpGrad's reinforcement learning experiment (section 3 c.1, appendix J; Figures 2 and 8): a maze with a hidden goal.

    snakemake maze

An actor-critic whose recurrent state has to remember where the goal was found learns over batches of episodes, each
with a goal of its own: plainly, with plastic weights, and with weights that a frozen LSTM modulates, which is
meta-learnt from the same batches.

One run alone takes, on a core: smoke, a second; quick, 15 s for the plain RNN and T-Nets, 40 s for the Warp-RNN and
the HyperRNN, 85 to 105 s for the Hebbian agents; paper, an hour, five hours, and a day. benchmarks/README.md says what
a stack of runs gains. docs/results/maze has the returns at quick.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from leapwarp.experiments.base import Evaluated, Experiment, Record, Run, Trained
from leapwarp.fit import Fit, fit
from leapwarp.learners import Learner
from leapwarp.learners.base import State
from leapwarp.learners.recurrent import Block, stream
from leapwarp.models.recurrent import Cell, hebbian_rnn, rnn, tnets_rnn, warp_rnn
from leapwarp.optim import adam
from leapwarp.rl.a2c import clip
from leapwarp.rl.rollout import Choices, actor_critic, play, policy
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, stack, to_device
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
    clip: float | None = 4.0  # norm of the gradient: Miconi; the released code has none
    reward: float = 10.0  # Miconi, released code
    shift_rewards: bool = False  # the released code does, Miconi's does not
    first_baseline: bool = False  # both codes do
    teleport_into_pillars: bool = False  # the released code does, Miconi's does not
    every: int = 100  # updates for a point of the curve
    checkpoint_every: int = 1  # points


PUBLISHED = Settings()


class Method(NamedTuple):
    settings: Settings
    cell: Callable[[Settings], Cell] | None
    """None plays at random"""


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
        "rnn_no_clip": {"clip": None},
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

    def clipped(grads: Params) -> Params:
        return grads if settings.clip is None else clip(grads, settings.clip)

    return stream(gradient, optimizer, optimizer, settings.eta, clipped)


def world_of(settings: Settings, device: torch.device) -> Maze:
    return maze(settings.interior, settings.reward, settings.teleport_into_pillars, device)


def block(world: Maze, settings: Settings, seed: int, k: int) -> Block:
    """The episodes of point k of the curve; all agents of a seed meet the same."""
    batches = range(k * settings.every, min((k + 1) * settings.every, settings.updates))
    draws = [draw(world, settings.batch, settings.steps, generator(seed, "episodes", i)) for i in batches]
    return Block(torch.tensor([k]), draws)


def points(settings: Settings) -> int:
    """Of the curve of training."""
    return -(-settings.updates // settings.every)


def at(settings: Settings, k: int) -> int:
    """Updates that the batches of point k end with."""
    return min((k + 1) * settings.every, settings.updates)


def train(runs: Sequence[Run]) -> list[Trained]:
    """Learn from `updates` batches of episodes, all seeds side by side."""
    settings, device = runs[0].method.settings, runs[0].device
    world, cell = world_of(settings, device), runs[0].method.cell(settings)
    params = stack([to_device(cell.init(generator(run.seed, "init")), device) for run in runs])
    how = Fit(points(settings), checkpoints=runs[0].checkpoints, checkpoint_every=settings.checkpoint_every)

    def sample(k: int, i: int) -> Block:
        return block(world, settings, runs[i].seed, k)

    found = []
    for fitted in fit(learner(world, cell, settings), params, sample, how, [run.member for run in runs]):
        records: list[Record] = [("", at(settings, k), metric, value) for k, metric, value in fitted.history]
        records += [("", None, name, value) for name, value in fitted.moved.items()]
        records.append(("", None, "train_seconds", fitted.seconds))
        learnt = {group: part for group, part in fitted.state.items() if group in ("params", "warp")}
        found.append(Trained(learnt, records, fitted.seconds, fitted.error))
    return found


def judge(run: Run, state: State | None) -> Evaluated:
    """Count parameters, and play one episode of seed 0 for the figure; or play at random, which needs no state."""
    settings, world = run.method.settings, world_of(run.method.settings, run.device)
    if state is None:
        return Evaluated(random_play(world, settings, run.seed))
    records: list[Record] = [
        ("", None, metric, float(sum(leaf.numel() for leaf in state[group].values())))
        for metric, group in (("task_parameters", "params"), ("warp_parameters", "warp"))
    ]
    if run.seed == 0:
        draws = draw(world, 1, settings.steps, generator(run.seed, "picture"))
        records += picture(world, run.method.cell(settings), alone({**state["params"], **state["warp"]}), draws)
    return Evaluated(records)


def random_play(world: Maze, settings: Settings, seed: int) -> list[Record]:
    """What every action with the same probability earns, at ten points of the curve, each on the episodes of one."""
    last = points(settings) - 1
    nothing = torch.zeros(1, N_ACTIONS, device=world.free.device)
    records: list[Record] = []
    for k in sorted({point * last // 9 for point in range(10)}):
        batches = block(world, settings, seed, k).batches
        found = [play(world, None, nothing, nothing, draws).found.sum(0) for draws in batches]
        value = world.reward * float(torch.stack(found).double().mean())
        records.append(("", at(settings, k), "return", value))
    return records


def picture(world: Maze, cell: Cell, params: Params, draws: Draws) -> list[Record]:
    """One episode: the maze, the goal, and where the agent stood at every step and whether it found the goal there.

    Args:
        params: a stack of one.
    """
    body = {name: leaf for name, leaf in params.items() if not name.startswith("task.head.")}
    played = play(world, cell.tape(body, draws.landing.shape[1], 1), *policy(params), draws)
    records: list[Record] = [("", i, "wall", float(wall)) for i, wall in enumerate(world.walls.flatten())]
    records.append(("", None, "goal", float(draws.goal[0])))
    for metric, values in (("cell", played.cell), ("found", played.found)):
        records += [("", t, metric, float(value)) for t, value in enumerate(values[:, 0])]
    return records


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train)
