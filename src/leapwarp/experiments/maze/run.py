"""WarpGrad's reinforcement learning experiment (section 3 c.1, appendix J; Figures 2 and 8): a maze with a hidden goal.

    snakemake maze

A recurrent actor-critic learns from batches of episodes. Each episode has its own hidden goal, so the hidden state has
to remember where the goal was found. The agents are a plain RNN, RNNs with plastic weights (Hebbian agents), and RNNs
with warps. The warps of the Warp-RNN are computed by an LSTM, which is meta-learnt from the same batches.

Times of one run alone on one core: at smoke, a second. At quick, 15 s for the plain RNN and T-Nets, 40 s for the
Warp-RNN and the HyperRNN, and 50 to 65 s for the Hebbian agents. At paper, an hour, five hours, and seven to nine.
benchmarks/README.md has the times of stacks of runs. docs/results/maze has the returns at quick.
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
    """The settings of one method at one size. "Miconi" is the code of Miconi et al. (2019), the source of this maze."""

    interior: int = 11  # WarpGrad App. J: 11 x 11; the released code adds the outer walls to these
    steps: int = 200  # of an episode: WarpGrad App. J (App. D says 300)
    batch: int = 30  # WarpGrad App. J
    updates: int = 200_000  # WarpGrad App. J
    hidden: int = 100  # WarpGrad App. J
    warp_hidden: int = 100  # released code; the paper is silent
    learning_rate: float = 0.001  # of Adam, for parameters and warps: WarpGrad App. J
    epsilon: float = 1e-4  # of Adam: Miconi; the released code has 1e-8
    eta: int = 30  # batches for each update of the warps: WarpGrad App. D
    discount: float = 0.9  # Miconi, released code
    value_weight: float = 0.1  # Miconi, released code
    entropy_weight: float = 0.03  # Miconi, released code
    clip: float | None = 4.0  # norm of the gradient: Miconi; the released code has none
    reward: float = 10.0  # Miconi, released code
    shift_rewards: bool = False  # True in the released code, False in Miconi's
    first_baseline: bool = False  # True in both codes
    teleport_into_pillars: bool = False  # True in the released code, False in Miconi's
    every: int = 100  # updates for each point of the curve
    checkpoint_every: int = 1  # points of the curve between two checkpoints


PUBLISHED = Settings()


class Method(NamedTuple):
    settings: Settings
    cell: Callable[[Settings], Cell] | None
    """None for a policy that plays at random"""


def _rnn(settings: Settings) -> Cell:
    return rnn(N_INPUTS, settings.hidden, N_ACTIONS)


def _hebbian(retroactive: bool) -> Callable[[Settings], Cell]:
    return lambda settings: hebbian_rnn(N_INPUTS, settings.hidden, N_ACTIONS, retroactive)


def _tnets(settings: Settings) -> Cell:
    return tnets_rnn(N_INPUTS, settings.hidden, N_ACTIONS)


def _warp(settings: Settings) -> Cell:
    return warp_rnn(N_INPUTS, settings.hidden, N_ACTIONS, settings.warp_hidden)


def methods(settings: Settings) -> dict[str, Method]:
    """The agents of Figure 8, a random policy, and the plain RNN with each of the released code's other choices."""
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
    """The episodes of point k of the curve. They are the same for all agents of a seed."""
    batches = range(k * settings.every, min((k + 1) * settings.every, settings.updates))
    draws = [draw(world, settings.batch, settings.steps, generator(seed, "episodes", i)) for i in batches]
    return Block(torch.tensor([k]), draws)


def points(settings: Settings) -> int:
    """The number of points of the training curve."""
    return -(-settings.updates // settings.every)


def at(settings: Settings, k: int) -> int:
    """The number of updates at the end of point k."""
    return min((k + 1) * settings.every, settings.updates)


def train(runs: Sequence[Run]) -> list[Trained]:
    """Train all seeds in one stack, on `updates` batches of episodes."""
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
    """Count parameters, and play one episode of seed 0 for the figure. Without a state, measure a random policy."""
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
    """The return of a policy whose actions are equally likely, at ten points of the curve, on the episodes of each."""
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
    """Records of one episode: the maze, the goal and, for each step, the agent's cell and whether it found the goal.

    Args:
        params: the agent's parameters, a stack of one.
    """
    body = {name: leaf for name, leaf in params.items() if not name.startswith("task.head.")}
    played = play(world, cell.tape(body, draws.landing.shape[1], 1), *policy(params), draws)
    records: list[Record] = [("", i, "wall", float(wall)) for i, wall in enumerate(world.walls.flatten())]
    records.append(("", None, "goal", float(draws.goal[0])))
    for metric, values in (("cell", played.cell), ("found", played.found)):
        records += [("", t, metric, float(value)) for t, value in enumerate(values[:, 0])]
    return records


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train)
