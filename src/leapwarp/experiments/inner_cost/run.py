"""Memory and time of one meta-update against the number of inner steps (WarpGrad, section 2).

    snakemake inner_cost

Backpropagation through adaptation keeps every step until the end. Leap and online WarpGrad keep only sums, so their
memory does not depend on the number of steps. Memory is the largest number of bytes in tensors at any moment. It is
counted as operations make and free tensors, so it is the same on every machine and at every call; the workspace of
kernels is not included. Time is the shortest of a few meta-updates. On a CPU it is the time of the process, so other
work on the machine does not count. Images and labels are random, since they do not matter here.

One run takes, on a core: smoke, a second; quick, 1 to 9 s. To expect: constant memory, except for MAML and Warp-MAML,
whose other objective is MAML's; time linear in the steps for all.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leapwarp.experiments.base import Evaluated, Experiment, Record, Run
from leapwarp.host import clock
from leapwarp.learners import Learner, leap, maml, warp_leap_online, warp_maml
from leapwarp.learners.base import State
from leapwarp.models.conv4 import PLAIN, Extra, conv4
from leapwarp.optim import sgd
from leapwarp.problem import Problem, Task, supervised
from leapwarp.rng import generator
from leapwarp.trees import alone, to_device

WAYS = 5


@dataclass(frozen=True)
class Settings:
    """The settings, which are those of `few_shot` where the paper gives them."""

    size: int = 84
    filters: int = 32  # MAML's: with 128, its graph of 20 steps would take some 35 GB
    shots: int = 15
    queries: int = 15
    inner_lr: float = 0.01
    steps: tuple[int, ...] = (1, 2, 5, 10, 20)
    """inner steps to measure at"""
    repeats: int = 5
    """meta-updates, of which the fastest is reported"""


PUBLISHED = Settings()

Build = Callable[[Problem, Settings, int], Learner]
"""(problem, settings, inner steps) -> learner"""


class Method(NamedTuple):
    settings: Settings
    learner: Build
    extra: Extra = PLAIN


def _maml(order: int) -> Build:
    return lambda problem, s, steps: maml(problem, sgd(s.inner_lr), sgd(0.001), steps, order=order)


def _leap(problem: Problem, s: Settings, steps: int) -> Learner:
    return leap(problem, sgd(s.inner_lr), sgd(0.001), steps)


def _warp_leap_online(problem: Problem, s: Settings, steps: int) -> Learner:
    return warp_leap_online(problem, sgd(s.inner_lr), sgd(0.001), sgd(0.001), steps)


def _warp_maml(problem: Problem, s: Settings, steps: int) -> Learner:
    return warp_maml(problem, sgd(s.inner_lr), sgd(0.001), sgd(0.001), steps)


def methods(settings: Settings) -> dict[str, Method]:
    return {
        "maml": Method(settings, _maml(2)),
        "fomaml": Method(settings, _maml(1)),
        "leap": Method(settings, _leap),
        "warp_leap_online": Method(settings, _warp_leap_online, Extra(warps=True)),
        "warp_maml": Method(settings, _warp_maml, Extra(warps=True)),
    }


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make and that still exist, and remembers the largest number."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self.known or not size:
            return
        self.known.add(place)
        self.now += size
        self.most = max(self.most, self.now)

        def gone() -> None:
            self.known.discard(place)
            self.now -= size

        weakref.finalize(storage, gone)


def peak_bytes(call: Callable[[], Any]) -> int:
    """The largest number of bytes at any moment in tensors that `call` makes."""
    with Alive() as alive:
        call()
    return alive.most


def draw_task(settings: Settings, draws: int, seed: int, device: torch.device) -> Task:
    """One task of random images. Every mini-batch has all of them."""
    stream = generator(seed, "images")
    n = WAYS * settings.shots
    shape = (3, settings.size, settings.size)
    x, x_test = (torch.randn(1, k, *shape, generator=stream).to(device) for k in (n, WAYS * settings.queries))
    y, y_test = (torch.arange(WAYS, device=device).repeat(k)[None] for k in (settings.shots, settings.queries))
    order = torch.arange(n, device=device).expand(1, draws, n)
    return Task(torch.zeros(1, dtype=torch.long, device=device), x, y, order, x_test, y_test)


def judge(run: Run, state: State | None) -> Evaluated:
    """Measure meta-updates at each number of inner steps."""
    method, settings, device = run.method, run.method.settings, run.device
    model = conv4(settings.filters, WAYS, settings.size, method.extra)
    problem = supervised(model)
    params = to_device(model.init(generator(run.seed, "init")), device)
    now = clock(device)
    records: list[Record] = []
    found: list[tuple[int, float]] = []
    for steps in settings.steps:
        learner = method.learner(problem, settings, steps)
        tasks, start = draw_task(settings, learner.draws, run.seed, device), learner.init(alone(params))

        def update(learner: Learner = learner, tasks: Task = tasks, start: State = start) -> None:
            learner.step(start, tasks, [generator(run.seed, "learner")])

        memory, times = peak_bytes(update), []  # and warms up
        for _ in range(settings.repeats):
            began = now()
            update()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(now() - began)
        records += [("", steps, "memory", memory), ("", steps, "update_seconds", min(times))]
        found.append((memory, min(times) / steps))
    first, middle, last = found[0], found[len(found) // 2], found[-1]  # a single step is all overhead
    records.append(("", None, "memory_growth", last[0] / first[0]))
    records.append(("", None, "time_growth", last[1] / middle[1]))
    return Evaluated(records)


EXPERIMENT = Experiment(PUBLISHED, methods, judge)
