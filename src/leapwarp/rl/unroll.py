"""A few steps of an actor-critic in a batch of games, and the gradient of its loss on them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.models.actor_critic import forward
from leapwarp.rl.a2c import a2c_loss, shannon
from leapwarp.rl.returns import bootstrapped
from leapwarp.trees import Params
from leapwarp.worlds.atari import Seen

Step = Callable[[Tensor], Seen]
"""actions [env] -> the result of one step of all games"""


class Choices(NamedTuple):
    discount: float
    value_weight: float
    entropy_weight: float
    reward_clip: float
    """rewards are clipped to this absolute value before training"""


class Unrolled(NamedTuple):
    pixels: Tensor
    """[env, 84, 84, 3] the frames with which the next unroll begins"""
    reward: Tensor
    """[time, env] the game's reward, not clipped"""
    ended: Tensor
    """[time, env] whether an episode has ended at this step"""
    loss: Tensor
    """[]"""
    grads: Params


def pick(logits: Tensor, rng: torch.Generator) -> Tensor:
    """Actions drawn from softmax(logits), by adding Gumbel noise. [env, action] -> [env]"""
    noise = torch.rand(logits.shape, generator=rng).clamp_(min=1e-30).to(logits)  # 0 has no logarithm
    return (logits - (-noise.log()).log()).argmax(1)


def unroll(
    step: Step, params: Params, pixels: Tensor, length: int, rng: torch.Generator, choices: Choices, learns: bool = True
) -> Unrolled:
    """Play `length` steps with `params`, and compute the actor-critic loss of these steps and its gradient.

    The policy's outputs are kept while playing and differentiated afterwards, so no output is computed twice. The
    return after the last step is estimated by the value head, without a gradient.

    Args:
        learns: whether the gradient is computed. If not, only the loss is.
    """
    device = next(iter(params.values())).device
    free = {name: leaf.detach().requires_grad_(learns) for name, leaf in params.items()}
    outputs, actions, rewards, ends = [], [], [], []
    for _ in range(length):
        outputs.append(forward(free, pixels.to(device)))
        actions.append(pick(outputs[-1].detach()[:, :-1], rng))
        seen = step(actions[-1])
        pixels = seen.pixels
        rewards.append(seen.reward)
        ends.append(seen.ended)
    reward, ended, output = torch.stack(rewards), torch.stack(ends), torch.stack(outputs)
    with torch.no_grad():
        value = forward(params, pixels.to(device))[:, -1]
    clipped = reward.clamp(-choices.reward_clip, choices.reward_clip).to(value)
    found = bootstrapped(clipped, ended.to(device), value, choices.discount)
    loss = a2c_loss(
        output, torch.stack(actions), found, choices.value_weight, choices.entropy_weight, spread=shannon
    ).mean()
    grads = dict(zip(free, torch.autograd.grad(loss, list(free.values())), strict=True)) if learns else {}
    return Unrolled(pixels, reward, ended, loss.detach(), grads)
