"""Time learning in the maze: environment steps a second, updates included, on one thread.

    python benchmarks/maze.py [--rounds 8] [--sizes quick paper] [--methods rnn warp_rnn] [--runs 4 6] [--seconds 20]

One update of the plain RNN and of the Warp-RNN is timed at the published sizes (30 episodes of 200 steps, 100 hidden
units), in three ways. The first is that of the library. The straightforward way steps 30 Python environments, collects
their observations in an array, calls a cell of PyTorch's own layers once a step, and uses autograd and torch.optim. The
floor has only the matrix products of the cell and of its gradients: forward and backward step by step, and those of the
weights over all steps at once. The three take turns, so that other work on the machine slows all of them down. Ratios
are medians over the rounds, and times are the fastest.

Then the runs of a job in one stack are compared with one run alone, at the settings of each size. The script prints the
environment steps a second of all runs together, including updates, by the processor time of the fastest of many rounds
(see `stack.py`), and how many times those of one run they are. Hebbian agents (`--methods hebbian`) take up to half a
gigabyte for each run at `paper`.

Last, an update of the Hebbian agents is compared with one in which autograd goes through the same equations.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from stack import fastest
from torch import Tensor, nn
from unstacked import settings_of

from leapwarp import host
from leapwarp.experiments.maze import run as experiment
from leapwarp.models.recurrent import Recorded, hebbian_step, retroactive_step
from leapwarp.problem import join_tasks
from leapwarp.rng import generator
from leapwarp.trees import Params, stack
from leapwarp.worlds.maze import MOVES, N_ACTIONS, N_INPUTS

SETTINGS = experiment.PUBLISHED


class PythonMaze:
    """One episode."""

    def __init__(self, interior: int, steps: int, reward: float, rng: np.random.Generator) -> None:
        self.side, self.steps, self.reward, self.rng = interior + 2, steps, reward, rng
        self.walls = np.ones((self.side, self.side))
        self.walls[1:-1, 1:-1] = 0
        self.walls[2:-1:2, 2:-1:2] = 1
        self.middle = self.side // 2
        self.walls[self.middle, self.middle] = 0

    def somewhere(self, but: tuple[int, int]) -> tuple[int, int]:
        while True:
            row, column = (int(i) for i in self.rng.integers(1, self.side - 1, 2))
            if not self.walls[row, column] and (row, column) != but:
                return row, column

    def reset(self) -> None:
        self.row = self.column = self.middle
        self.goal = self.somewhere((self.row, self.column))
        self.t, self.last, self.action = 0, 0.0, -1

    def observe(self, out: np.ndarray) -> None:
        out[:] = 0
        out[:9] = self.walls[self.row - 1 : self.row + 2, self.column - 1 : self.column + 2].ravel()
        out[10], out[11], out[12] = 1, self.t / self.steps, self.last
        if self.action >= 0:
            out[13 + self.action] = 1

    def step(self, action: int) -> float:
        row, column = self.row + MOVES[action][0], self.column + MOVES[action][1]
        if not self.walls[row, column]:
            self.row, self.column = row, column
        self.last = 0.0
        if (self.row, self.column) == self.goal:
            self.last = self.reward
            self.row, self.column = self.somewhere(self.goal)
        self.t, self.action = self.t + 1, action
        return self.last


class PlainCell(nn.Module):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.cell, self.head = nn.RNNCell(n, m), nn.Linear(m, N_ACTIONS + 1)

    def start(self, batch: int) -> tuple[Tensor, ...]:
        return (torch.zeros(batch, self.cell.hidden_size),)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        h = self.cell(x, state[0])
        return self.head(h), (h,)


class WarpCell(nn.Module):
    def __init__(self, n: int, m: int, k: int) -> None:
        super().__init__()
        self.n, self.m, self.k = n, m, k
        self.lstm, self.project = nn.LSTMCell(n + m, k), nn.Linear(k, n + 4 * m, bias=False)
        self.w, self.v = nn.Linear(n, m, bias=False), nn.Linear(m, m, bias=False)
        self.b, self.head = nn.Parameter(torch.zeros(m)), nn.Linear(m, N_ACTIONS + 1)

    def start(self, batch: int) -> tuple[Tensor, ...]:
        return torch.zeros(batch, self.m), torch.zeros(batch, self.k), torch.zeros(batch, self.k)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        h, z, c = state
        z, c = self.lstm(torch.cat([x, h], 1), (z, c))
        parts = self.project(z).tanh().split([self.n, self.m, self.m, self.m, self.m], 1)
        h = (parts[3] * self.v(parts[1] * h) + parts[2] * self.w(parts[0] * x) + parts[4] * self.b).tanh()
        return self.head(h), (h, z, c)


def straightforward(cell: PlainCell | WarpCell) -> Callable[[], object]:
    """A straightforward update."""
    s, rng = SETTINGS, np.random.default_rng(0)
    worlds = [PythonMaze(s.interior, s.steps, s.reward, rng) for _ in range(s.batch)]
    optimizer = torch.optim.Adam(cell.parameters(), s.learning_rate, eps=s.epsilon)
    seen = np.zeros((s.batch, N_INPUTS), np.float32)

    def update() -> None:
        for world in worlds:
            world.reset()
        state, log_policies, values, spreads, rewards = cell.start(s.batch), [], [], [], []
        for _ in range(s.steps):
            for world, row in zip(worlds, seen, strict=True):
                world.observe(row)
            outputs, state = cell(torch.from_numpy(seen.copy()), state)
            policy = torch.distributions.Categorical(logits=outputs[:, :-1])
            action = policy.sample()
            log_policies.append(policy.log_prob(action))
            values.append(outputs[:, -1])
            spreads.append(policy.probs.square().sum(1))
            rewards.append(torch.tensor([world.step(a) for world, a in zip(worlds, action.tolist(), strict=True)]))
        total, loss = torch.zeros(s.batch), torch.tensor(0.0)
        for log_policy, value, spread, reward in zip(
            *(reversed(part) for part in (log_policies, values, spreads, rewards)), strict=True
        ):
            total = reward + s.discount * total
            advantage = total - value
            loss = (
                loss
                + (
                    s.value_weight * advantage.square() - log_policy * advantage.detach() + s.entropy_weight * spread
                ).mean()
            )
        optimizer.zero_grad()
        (loss / s.steps).backward()
        nn.utils.clip_grad_norm_(cell.parameters(), s.clip or float("inf"))
        optimizer.step()

    return update


def ours(name: str, settings: experiment.Settings, runs: int = 1, recorded: bool = False) -> Callable[[], object]:
    """An update of so many runs in a stack.

    Args:
        recorded: whether a Hebbian agent's gradient is autograd's.
    """
    settings = replace(settings, every=1)
    make = experiment.methods(settings)[name].cell
    assert make is not None
    world, cell = experiment.world_of(settings, torch.device("cpu")), make(settings)
    if recorded:
        cell = cell._replace(tape=by_autograd(name == "hebbian_retroactive"))
    learner, streams = experiment.learner(world, cell, settings), [generator(run) for run in range(runs)]
    now = {"state": learner.init(stack([cell.init(each) for each in streams])), "k": 0}

    def update() -> None:
        batch = join_tasks([experiment.block(world, settings, run, now["k"]) for run in range(runs)])
        now["state"], _ = learner.step(now["state"], batch, streams)
        now["k"] += 1

    return update


def by_autograd(retroactive: bool) -> Callable[[Params, int, int], Recorded]:
    """The tape of a Hebbian agent in the plain equations."""

    def tape(params: Params, steps: int, batch: int) -> Recorded:
        h = params["task.b"].new_zeros(len(params["task.b"]), batch, params["task.b"].shape[1])
        plastic = h.new_zeros(*h.shape, h.shape[2])
        if retroactive:
            return Recorded(retroactive_step, params, (h, plastic, plastic))
        return Recorded(hebbian_step, params, (h, plastic))

    return tape


def products(pairs: list[tuple[int, int]], back: list[tuple[int, int]]) -> Callable[[], object]:
    """The matrix products alone. pairs: (inputs, outputs) of each layer; back: layers whose inputs need a gradient."""
    s = SETTINGS
    step = [(torch.randn(s.batch, n), torch.randn(n, m)) for n, m in pairs]
    step += [(torch.randn(s.batch, m), torch.randn(m, n)) for n, m in back]
    bulk = [(torch.randn(m, s.batch * s.steps), torch.randn(s.batch * s.steps, n)) for n, m in pairs]

    def update() -> None:
        for _ in range(s.steps):
            for a, b in step:
                torch.mm(a, b)
        for a, b in bulk:
            torch.mm(a, b)

    return update


def against_others(rounds: int) -> None:
    torch.manual_seed(0)
    n, m, k = N_INPUTS, SETTINGS.hidden, SETTINGS.warp_hidden
    head = (m, N_ACTIONS + 1)
    contenders = {
        "rnn": (PlainCell(n, m), products([(n + m, m), head], [(m, m), head])),
        "warp_rnn": (
            WarpCell(n, m, k),
            products(
                [(n + m + k, 4 * k), (k, n + 4 * m), (n, m), (m, m), head],
                [(m + k, 4 * k), (k, n + 4 * m), (n, m), (m, m), head],
            ),
        ),
    }
    print(f"torch {torch.__version__}, one thread, {SETTINGS.batch} episodes of {SETTINGS.steps} steps\n")
    print(f"{'':10}{'ours, ms':>10}{'steps/s':>10}{'straightforward':>17}{'times':>7}{'floor':>8}{'of ours':>9}")
    for name, (cell, floor) in contenders.items():
        runs = [ours(name, SETTINGS), straightforward(cell), floor]
        times: list[list[float]] = []
        for number in range(rounds + 1):
            row = []
            for run in runs:
                began = time.perf_counter()
                run()
                row.append(time.perf_counter() - began)
            if number:  # the first warms up
                times.append(row)
        fast, slow, least = (min(column) for column in zip(*times, strict=True))
        gain = statistics.median(row[1] / row[0] for row in times)
        share = statistics.median(row[2] / row[0] for row in times)
        rate = SETTINGS.batch * SETTINGS.steps / fast
        print(
            f"{name:10}{1e3 * fast:10.1f}{rate:10.0f}{1e3 * slow:17.1f}{gain:7.1f}{1e3 * least:8.1f}{share:9.2f}",
            flush=True,
        )


def stacked(sizes: list[str], methods: list[str], runs: list[int], seconds: float) -> None:
    """Steps a second of one run alone, and of all runs of a stack together."""
    print(f"\n{'':32}{'alone':>9}" + "".join(f"{f'{n} in a stack':>20}" for n in runs))
    for size in sizes:
        for name in methods:
            settings = settings_of(experiment.EXPERIMENT, "maze", name, size)
            times = fastest({str(n): ours(name, settings, n) for n in (1, *runs)}, seconds)
            alone, *each = (n * settings.batch * settings.steps / times[str(n)][0] for n in (1, *runs))
            gains = "".join(f"{rate:13.0f} ({rate / alone:.2f})" for rate in each)
            print(f"{size}, {name}".ljust(32) + f"{alone:9.0f}{gains}", flush=True)


def hebbian(sizes: list[str], seconds: float) -> None:
    """Steps a second of one run of each Hebbian agent, ours and by autograd."""
    print(f"\n{'':32}{'autograd':>9}{'ours':>20}")
    for size in sizes:
        for name in ("hebbian", "hebbian_retroactive"):
            settings = settings_of(experiment.EXPERIMENT, "maze", name, size)
            both = {"autograd": ours(name, settings, recorded=True), "ours": ours(name, settings)}
            times = fastest(both, seconds)
            slow, fast = (settings.batch * settings.steps / times[key][0] for key in both)
            print(f"{size}, {name}".ljust(32) + f"{slow:9.0f}{fast:13.0f} ({fast / slow:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--sizes", nargs="+", default=["quick", "overnight", "paper"])
    parser.add_argument("--methods", nargs="+", default=["rnn", "tnets_rnn", "warp_rnn", "hyper_rnn"])
    parser.add_argument("--runs", type=int, nargs="+", default=[4, 6], help="of a stack")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for the rounds of each comparison of stacks")
    options = parser.parse_args()
    host.settle()
    against_others(options.rounds)
    stacked(options.sizes, options.methods, options.runs, options.seconds)
    hebbian(options.sizes, options.seconds)


if __name__ == "__main__":
    main()
