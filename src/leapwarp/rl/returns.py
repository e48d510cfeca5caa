"""Discounted returns."""

import torch
from torch import Tensor


def returns(reward: Tensor, discount: float) -> Tensor:
    """R_t = r_t + discount R_{t+1}, where r_t is what action a_t was rewarded with. [time, *] -> the same

    Nothing comes after the last reward: episodes are whole.
    """
    total, found = torch.zeros_like(reward[0]), torch.empty_like(reward)
    for t in reversed(range(len(reward))):
        total = torch.add(reward[t], total, alpha=discount)
        found[t] = total
    return found


def bootstrapped(reward: Tensor, ended: Tensor, value: Tensor, discount: float) -> Tensor:
    """R_t = r_t + discount R_{t+1}, and r_t alone where an episode ended with it. [time, *] -> the same

    Args:
        ended: [time, *] bool.
        value: [*] what is expected after the last reward, R_T.
    """
    total, found = value, torch.empty_like(reward)
    for t in reversed(range(len(reward))):
        total = reward[t] + discount * torch.where(ended[t], 0.0, total)
        found[t] = total
    return found


def shifted(reward: Tensor) -> Tensor:
    """Rewards one step late, as the released code has them: a_t is credited with r_{t-1}, and the last is lost."""
    return torch.cat([torch.zeros_like(reward[:1]), reward[:-1]])
