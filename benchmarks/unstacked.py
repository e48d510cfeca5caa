"""What a stack of runs would gain for the maze and for Multi-CV, whose runs are trained one after another.

    python benchmarks/unstacked.py [--size quick] [--runs 2 4] [--seconds 20]

Prints, at the settings of a size, the milliseconds a run of one run alone and of several in a stack, and how many
times as fast the stack is, for

- the maze: an update of the plain RNN, that is a batch of episodes, the way back through them, clipping and Adam. The
  stack is written here, with batched matrix products over [run, episode, ...]; its gradient is checked against that of
  each run alone;
- Multi-CV: a step of Leap on its network, with as many images in a batch. A stack of its runs is one of tasks.

Times are processor times of the thread, of the fastest of many rounds, in which all take turns (see `stack.py`).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from stack import fastest
from torch import Tensor

from leapwarp import host, plan
from leapwarp.data.images import SIZE
from leapwarp.experiments.base import Experiment
from leapwarp.experiments.maze import run as maze
from leapwarp.experiments.multicv import run as multicv
from leapwarp.experiments.settings import of_size
from leapwarp.inner import adapt
from leapwarp.learners.leap import leap_fold
from leapwarp.learners.recurrent import Block
from leapwarp.models.convnet import convnet
from leapwarp.models.recurrent import tanh_
from leapwarp.optim import adam, sgd
from leapwarp.problem import Batch, Task, supervised
from leapwarp.rl.a2c import a2c_loss
from leapwarp.rl.returns import returns
from leapwarp.rl.rollout import actor_critic
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, pick, repeat, stack, zeros_like
from leapwarp.worlds.image_sets import CHANNELS
from leapwarp.worlds.maze import Draws, Maze, draw, observe, start, step

SIZES = Path(__file__).parents[1] / "workflow/sizes"
STEPS = 10  # of a path of Leap


def settings_of(experiment: Experiment, name: str, method: str, size_name: str) -> Any:
    """Those of a method at a size."""
    size = plan.read_size(SIZES / f"{size_name}.yaml", [name])
    return of_size(experiment, size.entries[name], size.name)[method].settings


# ---------------------------------------------------------------- the maze


def maze_gradient(world: Maze, settings: maze.Settings, params: Params, draws: Draws) -> Params:
    """The gradient of each run's mean loss. params [run, ...]; draws have the episodes of all runs, run-major."""
    n_runs, hidden, n = params["task.w"].shape
    steps, episodes = draws.landing.shape
    state, minus_one = start(world, episodes), params["task.b"].new_tensor(-1.0)
    weight = 2 * torch.cat([params["task.w"], params["task.v"]], 2).mT  # twice: see tanh_
    bias, head_bias = 2 * params["task.b"][:, None], params["task.head.bias"][:, None]
    head, v = params["task.head.weight"].mT, params["task.v"]
    seen = bias.new_zeros(steps + 1, n_runs, episodes // n_runs, n + hidden)  # [x_t, h_{t-1}]
    actions, founds = [], []
    for t in range(steps):
        seen[t, :, :, :n] = observe(world, state, t / steps).view(n_runs, -1, n)
        h = tanh_(torch.baddbmm(bias, seen[t], weight), seen[t + 1, :, :, n:], minus_one)
        logits = torch.baddbmm(head_bias[..., :-1], h, head[..., :-1]).flatten(0, 1)
        action = (logits + draws.gumbel[t]).argmax(1)
        state, found = step(world, state, action, draws.goal, draws.landing[t])
        actions.append(action)
        founds.append(found)
    of_returns = returns(world.reward * torch.stack(founds).to(bias.dtype), settings.discount)
    hs = seen[1:, :, :, n:]
    h, w, b = (leaf.detach().requires_grad_() for leaf in (hs.contiguous(), head, head_bias))
    outputs = (h @ w + b).flatten(1, 2)
    loss = a2c_loss(outputs, torch.stack(actions), of_returns, settings.value_weight, settings.entropy_weight)
    of_h, of_w, of_b = torch.autograd.grad(loss.view(n_runs, -1).mean(1).sum(), [h, w, b])
    slope = 1 - hs.square()
    before = torch.empty_like(slope)
    last = torch.zeros_like(slope[0])
    for t in reversed(range(steps)):
        last = torch.mul(torch.baddbmm(of_h[t], last, v), slope[t], out=before[t])
    flat = before.transpose(0, 1).flatten(1, 2)  # [run, time x episode, hidden]
    product = flat.mT @ seen[:steps].transpose(0, 1).flatten(1, 2)
    return {
        "task.w": product[..., :n],
        "task.v": product[..., n:],
        "task.b": flat.sum(1),
        "task.head.weight": of_w.mT,
        "task.head.bias": of_b[:, 0],
    }


def joined(draws: list[Draws]) -> Draws:
    """The episodes of several batches as one."""
    return Draws(*(torch.cat(parts, 0 if parts[0].ndim == 1 else 1) for parts in zip(*draws, strict=True)))


def clipped(grads: Params, norm: float) -> Params:
    """Each run's gradient clipped by itself."""
    length = torch.stack([leaf.flatten(1).square().sum(1) for leaf in grads.values()]).sum(0).sqrt()
    scale = (norm / (length + 1e-6)).clamp(max=1.0)
    return {name: leaf * scale.view(-1, *[1] * (leaf.ndim - 1)) for name, leaf in grads.items()}


def maze_updates(runs: list[int], size: str) -> dict[int, Callable[[], object]]:
    """An update of one run by the library, and of several by the stack written here."""
    settings = settings_of(maze.EXPERIMENT, "maze", "rnn", size)
    world = maze.world_of(settings, torch.device("cpu"))
    cell = maze.methods(settings)["rnn"].cell(settings)
    starts = [cell.init(generator(seed)) for seed in range(max(runs))]
    draws = [draw(world, settings.batch, settings.steps, generator(seed, "draws")) for seed in range(max(runs))]
    plain = actor_critic(world, cell, maze.choices(settings))
    found = maze_gradient(world, settings, stack(starts), joined(draws))
    for i, (params, batch) in enumerate(zip(starts, draws, strict=True)):
        torch.testing.assert_close(pick(found, i), plain(params, batch)[1], rtol=1e-3, atol=1e-5)
    learner, stream = maze.learner(world, cell, settings), generator(0)
    state, block = learner.init(alone(starts[0])), Block(torch.tensor([0]), draws[:1])
    outer = adam(settings.learning_rate, epsilon=settings.epsilon)

    def stacked(n_runs: int) -> Callable[[], object]:
        params, batch = stack(starts[:n_runs]), joined(draws[:n_runs])
        moments = outer.init(params)

        def update() -> object:
            grads = maze_gradient(world, settings, params, batch)
            return outer.update(params, clipped(grads, settings.clip), moments)

        return update

    return {1: lambda: learner.step(state, block, [stream])} | {n: stacked(n) for n in runs}


# ---------------------------------------------------------------- Multi-CV


def draw_images(tasks: Task, who: Tensor, number: Tensor) -> Batch:
    """As `worlds.image_sets.draw_from`, for several tasks at once."""
    who, rows = who[:, None], tasks.order[who, number]
    return Batch((tasks.x[who, rows].float() / 255 - 0.5) / 0.25, tasks.y[who, rows])


def multicv_paths(runs: list[int], size: str) -> dict[int, Callable[[], object]]:
    """A path of `STEPS` + 1 steps of as many runs, each at one task."""
    settings = settings_of(multicv.EXPERIMENT, "multicv", "leap", size)
    model, fold = convnet(settings.filters, channels=CHANNELS, size=SIZE), leap_fold()
    problem, params = supervised(model, draw=draw_images), model.init(generator(0))

    def path(n_runs: int) -> Callable[[], object]:
        stream = generator(0, "tasks")
        n = settings.most_train or 1000  # the images that a set has matter little
        x = torch.randint(256, (n_runs, n, CHANNELS, SIZE, SIZE), dtype=torch.uint8, generator=stream)
        y = torch.arange(n).remainder(20).expand(n_runs, -1)
        order = torch.randint(n, (n_runs, STEPS + 1, settings.batch), generator=stream)
        tasks, begin = Task(torch.arange(n_runs), x, y, order, x[:, :0], y[:, :0]), repeat(params, n_runs)
        return lambda: adapt(problem, sgd(0.1), begin, {}, tasks, STEPS, fold, zeros_like(begin)).total

    return {n: path(n) for n in (1, *runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="quick", help="a file of workflow/sizes by its name")
    parser.add_argument("--runs", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seconds", type=float, default=20.0, help="time for the rounds of each comparison")
    options = parser.parse_args()
    host.settle()
    print(f"torch {torch.__version__}, one thread, {options.size}\n\n{'':32}{'ms a run':>9}{'times as fast':>15}")
    for title, make, calls in (("maze, update", maze_updates, 1), ("Multi-CV, step", multicv_paths, STEPS + 1)):
        times = fastest({str(n): job for n, job in make(options.runs, options.size).items()}, options.seconds)
        each = {n: times[str(n)][0] / (n * calls) for n in (1, *options.runs)}
        for n, seconds in each.items():
            print(f"{title}, {n} in a stack".ljust(32) + f"{seconds * 1e3:9.2f}{each[1] / seconds:15.2f}", flush=True)


if __name__ == "__main__":
    main()
