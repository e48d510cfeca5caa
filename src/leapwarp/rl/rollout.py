"""Episodes of a recurrent agent in a maze, and the gradient that it learns from."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.models.recurrent import Cell, Tape
from leapwarp.rl.a2c import a2c_loss
from leapwarp.rl.returns import returns, shifted
from leapwarp.trees import Params, n_runs
from leapwarp.worlds.maze import N_INPUTS, Draws, Maze, observe, start, step


class Played(NamedTuple):
    """[time, batch] each"""

    action: Tensor
    found: Tensor
    """whether that action found the goal"""
    cell: Tensor
    """the agent's cell before that action"""


class Choices(NamedTuple):
    """Settings of the loss. The last two are choices of the released code that it does not document."""

    discount: float
    value_weight: float
    entropy_weight: float
    shift_rewards: bool = False
    """whether every action is credited with the reward of the action before"""
    first_baseline: bool = False
    """whether the values of the first episode are the baseline of all episodes"""


@torch.no_grad()
def play(world: Maze, tape: Tape | None, weight: Tensor, bias: Tensor, draws: Draws) -> Played:
    """Play one batch of episodes of every run.

    Args:
        tape: an empty tape of the agent; None for a policy whose logits are the bias.
        weight, bias: of the logits, [run, action, hidden] and [run, action].
        draws: the random numbers of all runs, run by run.
    """
    batch, steps = draws.landing.shape
    landings = draws.landing.T.contiguous().unbind()
    noise = draws.gumbel.unflatten(0, (len(bias), -1)) + bias[:, None, None]  # [run, episode, time, action]
    weight, state, actions, founds, cells = weight.mT, start(world, batch), [], [], []
    for t, (logits, landing) in enumerate(zip(noise.permute(2, 0, 1, 3).contiguous(), landings, strict=True)):
        if tape is not None:
            x = observe(world, state, t / steps).view(len(bias), -1, N_INPUTS)
            logits = torch.baddbmm(logits, tape.step(x), weight)
        action = logits.argmax(2).flatten()
        cells.append(state.cell)
        state, found = step(world, state, action, draws.goal, landing)
        actions.append(action)
        founds.append(found)
    return Played(torch.stack(actions), torch.stack(founds), torch.stack(cells))


def policy(params: Params) -> tuple[Tensor, Tensor]:
    """Weight and bias of the logits of every run."""
    return params["task.head.weight"][:, :-1], params["task.head.bias"][:, :-1]


def actor_critic(world: Maze, cell: Cell, choices: Choices) -> Callable[[Params, Draws], tuple[Tensor, Params, Tensor]]:
    """A function (parameters [run, ...], draws of all runs, run by run) -> losses, gradient, rewards.

    It returns the A2C loss and the reward of each episode, [run, batch], and the gradient of each run's mean loss,
    [run, ...].
    """

    def gradient(params: Params, draws: Draws) -> tuple[Tensor, Params, Tensor]:
        runs, (batch, steps) = n_runs(params), draws.landing.shape
        body = {name: leaf for name, leaf in params.items() if not name.startswith("task.head.")}
        tape = cell.tape(body, steps, batch // runs)
        played = play(world, tape, *policy(params), draws)
        reward = world.reward * played.found.to(params["task.b"].dtype)
        credited = shifted(reward) if choices.shift_rewards else reward
        action, of_returns = (
            part.view(steps, runs, -1) for part in (played.action, returns(credited, choices.discount))
        )
        h, weight = tape.hidden().flatten(1, 2), params["task.head.weight"]
        outputs = torch.baddbmm(params["task.head.bias"][:, None], h, weight.mT).requires_grad_()
        loss = a2c_loss(
            outputs.unflatten(1, (steps, -1)).transpose(0, 1),
            action,
            of_returns,
            choices.value_weight,
            choices.entropy_weight,
            choices.first_baseline,
        )
        (of_outputs,) = torch.autograd.grad(loss.mean(1).sum(), outputs)
        grads = tape.backward(torch.bmm(of_outputs, weight).unflatten(1, (steps, -1)))
        grads |= {"task.head.weight": torch.bmm(of_outputs.mT, h), "task.head.bias": of_outputs.sum(1)}
        return loss.detach(), {name: grads[name] for name in params}, reward.sum(0).view(runs, -1)

    return gradient
