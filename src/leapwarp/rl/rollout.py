"""Episodes of a recurrent agent in a maze, and the gradient that it learns from."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.models.recurrent import Cell, Tape
from leapwarp.rl.a2c import a2c_loss
from leapwarp.rl.returns import returns, shifted
from leapwarp.trees import Params
from leapwarp.worlds.maze import Draws, Maze, observe, start, step


class Played(NamedTuple):
    """[time, batch] each"""

    action: Tensor
    found: Tensor
    """whether the goal was found by that action"""
    cell: Tensor
    """where the agent stood before it"""


class Choices(NamedTuple):
    """The loss, and where the released code departs from what it is documented to do."""

    discount: float
    value_weight: float
    entropy_weight: float
    shift_rewards: bool = False
    """credit every action with the reward of the one before"""
    first_baseline: bool = False
    """the values of the first episode serve as the baseline of all"""


@torch.no_grad()
def play(world: Maze, tape: Tape | None, weight: Tensor, bias: Tensor, draws: Draws) -> Played:
    """One batch of episodes; where there is no tape, under the policy whose logits are the bias."""
    steps, batch = draws.landing.shape
    state, actions, founds, cells = start(world, batch), [], [], []
    for t in range(steps):
        logits = bias
        if tape is not None:
            logits = torch.addmm(bias, tape.step(observe(world, state, t / steps)), weight.T)
        action = (logits + draws.gumbel[t]).argmax(1)
        cells.append(state.cell)
        state, found = step(world, state, action, draws.goal, draws.landing[t])
        actions.append(action)
        founds.append(found)
    return Played(torch.stack(actions), torch.stack(founds), torch.stack(cells))


def policy(params: Params) -> tuple[Tensor, Tensor]:
    """Weight and bias of the logits."""
    return params["task.head.weight"][:-1], params["task.head.bias"][:-1]


def actor_critic(world: Maze, cell: Cell, choices: Choices) -> Callable[[Params, Draws], tuple[Tensor, Params, Tensor]]:
    """(parameters, draws) -> A2C losses [batch], the gradient of their mean, and each episode's reward [batch]"""

    def gradient(params: Params, draws: Draws) -> tuple[Tensor, Params, Tensor]:
        steps, batch = draws.landing.shape
        body = {name: leaf for name, leaf in params.items() if not name.startswith("task.head.")}
        tape = cell.tape(body, steps, batch)
        played = play(world, tape, *policy(params), draws)
        reward = world.reward * played.found.to(params["task.b"].dtype)
        credited = shifted(reward) if choices.shift_rewards else reward
        of_returns = returns(credited, choices.discount)
        h, weight, bias = (
            leaf.detach().requires_grad_()
            for leaf in (tape.hidden(), params["task.head.weight"], params["task.head.bias"])
        )
        loss = a2c_loss(
            h @ weight.T + bias,
            played.action,
            of_returns,
            choices.value_weight,
            choices.entropy_weight,
            choices.first_baseline,
        )
        of_h, of_weight, of_bias = torch.autograd.grad(loss.mean(), [h, weight, bias])
        grads = tape.backward(of_h) | {"task.head.weight": of_weight, "task.head.bias": of_bias}
        return loss.detach(), {name: grads[name] for name in params}, reward.sum(0)

    return gradient
