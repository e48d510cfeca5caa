"""Discounted returns."""

import torch
from torch import Tensor


def returns(reward: Tensor, discount: float) -> Tensor:
    """R_t = r_t + discount R_{t+1}, where r_t is the reward of action a_t. [time, *] -> the same

    Episodes are complete, so nothing comes after the last reward.
    """
    total, found = torch.zeros_like(reward[0]), torch.empty_like(reward)
    for t in reversed(range(len(reward))):
        total = torch.add(reward[t], total, alpha=discount)
        found[t] = total
    return found


def bootstrapped(reward: Tensor, ended: Tensor, value: Tensor, discount: float) -> Tensor:
    """R_t = r_t + discount R_{t+1}, or r_t if the episode ended at t. [time, *] -> the same

    Args:
        ended: [time, *] bool.
        value: [*] the estimated return after the last reward, R_T.
    """
    total, found = value, torch.empty_like(reward)
    for t in reversed(range(len(reward))):
        total = reward[t] + discount * torch.where(ended[t], 0.0, total)
        found[t] = total
    return found


def shifted(reward: Tensor) -> Tensor:
    """Rewards one step late, as in the released code: a_t is credited with r_{t-1}, and the last reward is dropped."""
    return torch.cat([torch.zeros_like(reward[:1]), reward[:-1]])
