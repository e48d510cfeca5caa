"""The network of WarpGrad appendix K: a multilayer perceptron with residual warp blocks, for stacks of tasks.

There are four linear layers with 200 hidden units and ReLUs between them. After each ReLU there is a warp block
h + W_1 tanh(W_0 h + b_0) + b_1 with 100 hidden units. Parameters are `task.<layer>.*` and `warp.<block>.<layer>.*`.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from leapwarp.problem import Batch, Model, mean_square
from leapwarp.trees import Params

Change = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, its input, its output) -> the output that replaces it"""


def warped_mlp(hidden: int = 200, warp_hidden: int = 100, layers: int = 4, warp: bool = True) -> Model:
    """The network as a `Model` over inputs [task, batch, 1] with outputs of this shape, and PyTorch's default weights.

    Task layers are drawn before the warps, so that they have the same initial values with and without warps.
    """
    widths = [1, *[hidden] * (layers - 1), 1]

    def init(generator: torch.Generator) -> Params:
        params: Params = {}
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            params |= _layer(f"task.{layer}", inputs, outputs, generator)
        for block in range(layers - 1 if warp else 0):
            params |= _layer(f"warp.{block}.0", hidden, warp_hidden, generator)
            params |= _layer(f"warp.{block}.1", warp_hidden, hidden, generator)
        return params

    def apply(params: Params, stats: Params, x: Tensor, train: bool) -> tuple[Tensor, Params]:
        return forward(params, x), stats

    return Model(init, dict, apply)


def forward(params: Params, x: Tensor, change: Change | None = None) -> Tensor:
    """Outputs of the network. x [task, batch, 1] -> the same

    Parameters are stacks, [task, ...] or [run, ...]. In the second case the tasks are in the order of the runs, as many
    for each run.

    Args:
        change: a function that is applied to the output of each task layer.
    """
    layers = sum(name.startswith("task.") for name in params) // 2
    h = x
    for layer in range(layers):
        z = _linear(params, f"task.{layer}", h)
        z = change(layer, h, z) if change else z
        if layer == layers - 1:
            return z
        h = torch.relu(z)
        if f"warp.{layer}.0.weight" in params:
            h = h + _linear(params, f"warp.{layer}.1", torch.tanh(_linear(params, f"warp.{layer}.0", h)))
    raise ValueError("the network has no layers named task.<number>.")


def after_step(params: Params, batch: Batch, rate: float, x: Tensor) -> Tensor:
    """Outputs at `x` after one step of gradient descent on half the mean square error, differentiable in the warps.

    The gradient of a layer is a sum over the batch's points of (gradient at its output) x (its input, and 1 for the
    bias). So the step changes the layer's output at h by

        -rate * sum_j (h . h_j + 1) delta_j.

    With five points a step, computing this is a tenth of the layer's own work. Neither the gradient nor the parameters
    after the step are computed explicitly. For all points of a path they would take most of the time and memory. The
    deltas are the gradients of probes that are added to the layers' outputs.

    Args:
        params: task parameters [task, ...], constant; warps [run, ...] or [task, ...].
        batch: the mini-batch of the step, for each task.
        x: [task, point, 1].
    """
    inputs: list[Tensor] = []
    probes: list[Tensor] = []

    def probe(layer: int, h: Tensor, z: Tensor) -> Tensor:
        inputs.append(h)
        probes.append(torch.zeros_like(z).requires_grad_())
        return z + probes[-1]

    loss, _ = mean_square(forward(params, batch.x, probe), batch.y)
    deltas = torch.autograd.grad(loss.sum(), probes, create_graph=True)

    def stepped(layer: int, h: Tensor, z: Tensor) -> Tensor:
        return torch.baddbmm(z, h @ inputs[layer].mT + 1, deltas[layer], alpha=-rate)

    return forward(params, x, stepped)


def _layer(name: str, inputs: int, outputs: int, generator: torch.Generator) -> Params:
    draw = lambda *size: (2 * torch.rand(*size, generator=generator) - 1) * inputs**-0.5  # noqa: E731
    return {f"{name}.weight": draw(outputs, inputs), f"{name}.bias": draw(outputs)}


def _linear(params: Params, name: str, h: Tensor) -> Tensor:
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    rows = h.reshape(len(weight), h.shape[0] // max(len(weight), 1) * h.shape[1], h.shape[2])
    return torch.baddbmm(bias.unsqueeze(1), rows, weight.mT).view(*h.shape[:2], weight.shape[-2])
