"""The advantage actor-critic (A2C) loss of an episode, or of a part of one."""

from collections.abc import Callable

from torch import Tensor

from leapwarp.trees import Params, map_tree, per_task, squared_norm


def quadratic(log_policy: Tensor) -> Tensor:
    """The negative quadratic (Simpson, Tsallis) entropy, up to a constant. [*, action] -> [*]"""
    return log_policy.exp().square().sum(-1)


def shannon(log_policy: Tensor) -> Tensor:
    """The negative Shannon entropy in nats. [*, action] -> [*]"""
    return (log_policy.exp() * log_policy).sum(-1)


def a2c_loss(
    outputs: Tensor,
    action: Tensor,
    found: Tensor,
    value_weight: float,
    entropy_weight: float,
    first_baseline: bool = False,
    spread: Callable[[Tensor], Tensor] = quadratic,
) -> Tensor:
    """The loss of each episode, averaged over its steps. -> [*, batch], where * is [run] or nothing

        1/T sum_t [ -log pi(a_t) sg(R_t - V_t) + c_v (R_t - V_t)^2 + c_e sum_a pi(a)^2 ]

    where sg stops the gradient. The last term keeps policies from becoming deterministic.

    Args:
        outputs: [time, *, batch, action + 1] logits, followed by the value.
        action: [time, *, batch] the actions a_t.
        found: [time, *, batch] the returns R_t.
        value_weight, entropy_weight: c_v and c_e.
        first_baseline: whether all episodes use the values of the first one as their baseline, as in the released code.
        spread: log-probabilities -> the negative entropy with the weight c_e.
    """
    log_policy = outputs[..., :-1].log_softmax(-1)
    value = outputs[..., -1]
    if first_baseline:
        value = value[..., :1]
    advantage = found - value
    chosen = log_policy.gather(-1, action[..., None])[..., 0]
    losses = value_weight * advantage.square() - chosen * advantage.detach() + entropy_weight * spread(log_policy)
    return losses.mean(0)


def clip(grads: Params, norm: float) -> Params:
    """Scale gradients [run, ...] so that the norm of all gradients of a run is at most `norm`."""
    scale = (norm / (squared_norm(grads).sqrt() + 1e-6)).clamp(max=1.0)
    return map_tree(lambda grad: per_task(scale, grad) * grad, grads)
