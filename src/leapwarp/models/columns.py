"""Progressive Nets (Rusu et al., 2016) with the Omniglot network's blocks: a column for each task, and lateral
connections from all other columns.

With h_l^j the activations of column j after block l, column t computes

    h_l^t = block(W_l^t * h_{l-1}^t + U_l^t * relu(V_l^t * [alpha_j h_{l-1}^j]_{j != t})),

where V is a 1x1 and U a 3x3 convolution, and the alphas are learned scalars. The first block has only the image as
input, and the head adds a linear function of all other columns' features. Only column t is trained. The others are
constant, and their activations have no gradient, though they may receive the features of column t.

Column t's parameters are `task.<block>.*`, `lateral.<block>.*` and `head.*`. Those of the other columns are stacks
`others.*`, [1, column, ...], which `dense` makes. `apply` takes a stack of one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.models.convnet import BLOCKS
from leapwarp.models.norm import normalise
from leapwarp.problem import Model
from leapwarp.trees import Params

ALPHA = 0.1  # initial value; Rusu et al. use small random numbers


def uniform(shape: tuple[int, ...], stream: torch.Generator, inputs: int) -> Tensor:
    return (2 * torch.rand(shape, generator=stream) - 1) * inputs**-0.5


def column(
    filters: int, others: int, classes: int, stream: torch.Generator, channels: int = 3, size: int = 32
) -> Params:
    """Parameters of a new column with lateral connections from `others` columns, with PyTorch's default weights."""
    params: Params = {}
    for block in range(BLOCKS):
        inputs = channels if block == 0 else filters
        name = f"task.{block}"
        params[f"{name}.conv.weight"] = uniform((filters, inputs, 3, 3), stream, 9 * inputs)
        params[f"{name}.conv.bias"] = uniform((filters,), stream, 9 * inputs)
        params[f"{name}.norm.weight"], params[f"{name}.norm.bias"] = torch.ones(filters), torch.zeros(filters)
        if block and others:
            name = f"lateral.{block}"
            params[f"{name}.alpha"] = torch.full((others,), ALPHA)
            params[f"{name}.reduce.weight"] = uniform((filters, others * filters, 1, 1), stream, others * filters)
            params[f"{name}.reduce.bias"] = uniform((filters,), stream, others * filters)
            params[f"{name}.conv.weight"] = uniform((filters, filters, 3, 3), stream, 9 * filters)
    features = filters * (size >> BLOCKS) ** 2
    params["head.weight"] = uniform((classes, features), stream, features)
    params["head.bias"] = uniform((classes,), stream, features)
    if others:
        params["lateral.head.weight"] = uniform((classes, others * features), stream, others * features)
    return params


def dense(columns: list[Params], number: int | None) -> Params:
    """All columns except `number` as constants, [1, column, ...], without heads.

    If `number` is one of the columns, its activations come last in the inputs of the others' lateral connections.
    Alphas are multiplied into the 1x1 convolutions, and the weights of a column for its own activations are 0.
    """
    order = [j for j in range(len(columns)) if j != number]
    sources = order if number is None else [*order, number]
    filters = len(columns[0]["task.0.norm.weight"])
    found: Params = {}
    for name in columns[0]:
        if name.split(".", 1)[0] == "task" or name.endswith(("reduce.bias", "conv.weight")):
            found[f"others.{name}"] = torch.stack([columns[j][name] for j in order])[None]
    for block in range(1, BLOCKS if "lateral.1.alpha" in columns[0] else 1):
        reduce = []
        for j in order:
            mine = [k for k in range(len(columns)) if k != j]
            weight, alpha = (columns[j][f"lateral.{block}.{part}"] for part in ("reduce.weight", "alpha"))
            blocks = dict(
                zip(mine, (weight.unflatten(1, (-1, filters)) * alpha[:, None, None, None]).unbind(1), strict=True)
            )
            zero = torch.zeros_like(weight[:, :filters])
            reduce.append(torch.cat([blocks.get(k, zero) for k in sources], 1))
        found[f"others.lateral.{block}.reduce.weight"] = torch.stack(reduce)[None]
    return found


def columns(filters: int, others: int, channels: int = 3, size: int = 32) -> Model:
    """One trained column among `others` constant ones, as a `Model` over images [1, batch, channels, size, size].

    Its `init` makes a column for two classes. `column` makes one for any number.
    """

    def stats() -> Params:
        found: Params = {}
        for block in range(BLOCKS):
            for kind, value in (("mean", torch.zeros), ("variance", torch.ones)):
                found[f"task.{block}.norm.{kind}"] = value(filters)
                found[f"others.task.{block}.norm.{kind}"] = value(others * filters)
        return found

    def apply(params: Params, stats: Params, x: Tensor, train: bool) -> tuple[Tensor, Params]:
        p = {name: leaf[0] for name, leaf in params.items()}
        stats = dict(stats)
        image = x[0].contiguous(memory_format=torch.channels_last)

        def finish(h: Tensor, name: str, weight: Tensor, bias: Tensor) -> Tensor:
            mean, variance = f"{name}.mean", f"{name}.variance"
            h, new_mean, new_variance = normalise(
                F.max_pool2d(h, 2), weight, bias, stats[mean][0], stats[variance][0], train
            )
            stats[mean], stats[variance] = new_mean[None], new_variance[None]
            return F.relu(h)

        def norms(block: int, owner: str) -> tuple[Tensor, Tensor]:
            name = f"{owner}task.{block}.norm"
            return p[f"{name}.weight"].flatten(), p[f"{name}.bias"].flatten()

        own, rest = image, image
        for block in range(BLOCKS):
            task = f"task.{block}"
            after = F.conv2d(own, p[f"{task}.conv.weight"], p[f"{task}.conv.bias"], padding=1)
            if block and others:
                name = f"lateral.{block}"
                alpha = p[f"{name}.alpha"].repeat_interleave(filters)[None, :, None, None]
                lateral = F.relu(F.conv2d(rest, p[f"{name}.reduce.weight"] * alpha, p[f"{name}.reduce.bias"]))
                after = after + F.conv2d(lateral, p[f"{name}.conv.weight"], padding=1)
            if others:
                with torch.no_grad():
                    kernels, biases = (
                        p[f"others.{task}.conv.weight"].flatten(0, 1),
                        p[f"others.{task}.conv.bias"].flatten(),
                    )
                    theirs = F.conv2d(rest, kernels, biases, padding=1, groups=others if block else 1)
                    name = f"others.lateral.{block}"
                    if f"{name}.reduce.weight" in p:
                        reduce = p[f"{name}.reduce.weight"].flatten(0, 1)
                        seen = torch.cat([rest, own.detach()], 1)[:, : reduce.shape[1]]
                        lateral = F.relu(F.conv2d(seen, reduce, p[f"{name}.reduce.bias"].flatten()))
                        kernels = p[f"{name}.conv.weight"].flatten(0, 1)
                        theirs = theirs + F.conv2d(lateral, kernels, padding=1, groups=others)
                    rest = finish(theirs, f"others.{task}.norm", *norms(block, "others."))
            own = finish(after, f"{task}.norm", *norms(block, ""))
        outputs = F.linear(own.flatten(1), p["head.weight"], p["head.bias"])
        if others:
            outputs = outputs + F.linear(rest.flatten(1), p["lateral.head.weight"])
        return outputs[None], stats

    return Model(lambda stream: column(filters, others, 2, stream, channels, size), stats, apply)


def parameters(filters: int, n_tasks: int, channels: int = 3) -> int:
    """The number of parameters of `n_tasks` columns, without heads and their lateral connections."""
    base = (9 * channels + 3) * filters + (BLOCKS - 1) * (9 * filters + 3) * filters
    others = n_tasks - 1
    lateral = (BLOCKS - 1) * (others + others * filters**2 + filters + 9 * filters**2) if others else 0
    return n_tasks * (base + lateral)
