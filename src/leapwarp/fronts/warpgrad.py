"""WarpGrad for a user's own training loop."""

import copy
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from functools import partial
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leapwarp import optim, rng
from leapwarp.fronts import leap
from leapwarp.fronts.leap import Leap, scalar, with_graph
from leapwarp.fronts.path import block, dense, number, zero_sum
from leapwarp.fronts.processes import add_up, counts, this_process
from leapwarp.modules import (
    Chosen,
    check_once_only,
    choose_names,
    copies,
    gradients,
    groups,
    kept_attributes,
    kind_of,
    lent_buffers,
    modes,
    other_leaves,
    parts_in_eval,
    plain,
    put_back,
    renormed_weights,
    shortened,
    told,
    twice_differentiable,
    with_tensors,
)
from leapwarp.optim import Optimizer
from leapwarp.trees import Params, add_scaled, alone

LossOf = Callable[[Any], Tensor]
"""a batch of any type -> its mean loss [], computed by the module with its present parameters"""


class Point(NamedTuple):
    """The data of one point of a path in the replay buffer."""

    theta: Params
    """the parameters that have a gradient at this point, which the objective's step moves"""
    task_batch: Any
    meta_batch: Any
    task: int
    """number of the task, counted from the last `backward`"""
    beside: Params
    """the module's buffers at this point, and the other parameters that tasks may change"""
    in_eval: tuple[str, ...] | None = None
    """the parts of the module that were in `eval()` mode; None for the modes of the replay itself (states of 1.0.0)"""


class WarpGrad:
    """Learns warps and, by Leap, the initialisation (Warp-Leap), while your own loop trains `module`.

    The warps stay fixed while a task is learnt. They are learnt from the warp objective (Flennerhag et al., 2020,
    equation 3) at every point of every path. This objective is the loss on a meta-batch after one step on a task batch.
    Modules, tasks and processes are treated as in `leapwarp.Leap`.

    Online (Algorithm 1), `meta.backward()` sets two gradients: that of the warps, which is the sum over all points, and
    that of the initialisation, which is the mean over tasks. Offline (Algorithm 2), with `replay`, points are kept.
    After the tasks `meta.replay()` goes through them in random order. The gradients are those of
    `leapwarp.learners.warp_leap_online` and `warp_leap`.

    Args:
        module: see `leapwarp.Leap`.
        loss: a function of a batch, of any type, that returns its mean loss by the module with its present parameters.
            If it uses parameters outside of the module's call, it has to read them from the module each time. It is
            called outside of your loop too, so that autocast, if any, belongs into it.
        warp: the warps, as names, patterns or modules at any depth.
        inner: the optimizer whose first update is the step in the objective. A number is the learning rate of gradient
            descent; other optimizers are in `leapwarp.optim`. Your loop may use a different optimizer.
        order: 2 for the full objective. 1 treats the gradient in the objective's step as a constant (the paper's
            approximation). 0 leaves out this step.
        task_only, exclude, length, stabiliser: see `leapwarp.Leap`.
        replay: how many points to keep for offline learning; None for online learning. If there are more points, a
            random sample of them is kept. The batches of a point are copied.
        replay_device: the device on which points are kept, such as "cpu"; None for the device that they are on.
        seed: the seed of the random numbers that choose points.

    Raises:
        ValueError: a choice matches no parameter, nothing is left to adapt, or an argument is out of range.

    Examples:
        >>> import torch, leapwarp
        >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
        >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
        >>> with meta.task() as task:
        ...     task.backward(meta.loss(x[0]), meta_batch=x[1])
        ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
        ...     task.finish(meta.loss(x[2]))
        >>> outer = torch.optim.Adam(meta.parameters(), 1e-3)
        >>> seen, _ = meta.backward(), outer.step()
        >>> sorted(seen)
        ['length', 'loss', 'tasks', 'warp_loss']
    """

    def __init__(
        self,
        module: nn.Module,
        loss: LossOf,
        warp: Chosen,
        inner: float | Optimizer,
        order: int = 2,
        task_only: Chosen = (),
        exclude: Chosen = (),
        replay: int | None = None,
        replay_device: str | torch.device | None = None,
        seed: int = 0,
        length: bool = True,
        stabiliser: bool = True,
    ) -> None:
        whole = replay is None or (isinstance(replay, int) and not isinstance(replay, bool) and replay > 0)
        if order not in (0, 1, 2) or not whole:
            raise ValueError(
                f"order is {order} and replay {replay}; needed order 2, 1 or 0, and replay a whole "
                "number, at least 1, or None."
            )
        if not isinstance(inner, float | int | Optimizer):
            raise TypeError(
                f"inner is {kind_of(inner)}; needed the learning rate of the step in the objective, or an "
                "optimizer of leapwarp.optim. Your loop's own optimizer is not given to WarpGrad."
            )
        if not isinstance(inner, Optimizer) and (isinstance(inner, bool) or not 0 <= inner < float("inf")):
            raise ValueError(f"inner is {inner}; needed the learning rate of the step in the objective, 0 or more.")
        if not takes_one(loss):
            raise TypeError(
                f"loss is {kind_of(loss)}; needed a function of one batch that gives its loss: lambda batch: "
                "cross_entropy(net(batch[0]), batch[1])."
            )
        self.module, self.loss, self.order = module, loss, order
        self.inner = inner if isinstance(inner, Optimizer) else optim.sgd(float(inner))
        self.groups = groups(module, warp, task_only, exclude)
        if not self.groups.warp:
            raise ValueError("no warp is chosen; needed warp=['*.warp.*'] or the modules that are to be warps.")
        left = choose_names(module, exclude, "exclude") | self.groups.warp.keys()
        self.start = Leap(module, task_only, [plain(name) for name in left], length, True, stabiliser)
        self.start.groups = self.groups  # where warps are not the user's own
        self.size = replay
        try:
            self.device = None if replay_device is None else torch.device(replay_device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"replay_device is {replay_device!r}; needed a device of PyTorch, such as 'cpu', or None."
            ) from error
        self.points: list[Point] = []
        self.met = 0  # points so far, whether kept or not
        self.streams = {name: rng.generator(seed, "replay", name) for name in ("kept", "order")}
        self.warp_total: Params = {}
        self.warp_loss: Tensor | float = 0.0
        self.warp_points = 0
        self.replaying = False
        self.untouched = set(self.groups.warp)  # warps on which no objective has depended so far
        if self.through_loop and any(is_compiled(part) for part in module.modules()):
            warnings.warn(
                "the module is compiled, and compiled code has no second derivative: inside tasks it runs "
                "uncompiled. With order=1 or with replay it stays compiled in your loop.",
                stacklevel=2,
            )

    @property
    def through_loop(self) -> bool:
        """Whether the second derivative is taken through the loss that the loop computes."""
        return self.order == 2 and self.size is None

    def parameters(self) -> list[nn.Parameter]:
        """Initialisation and warps, for your outer optimizer.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> len(meta.initial_parameters()), len(meta.warp_parameters()), len(meta.parameters())
            (2, 2, 4)
        """
        return self.initial_parameters() + self.warp_parameters()

    def initial_parameters(self) -> list[nn.Parameter]:
        """The initialisation alone, for a separate parameter group or optimizer.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> groups = [{"params": meta.initial_parameters(), "lr": 0.1}, {"params": meta.warp_parameters()}]
            >>> outer = torch.optim.SGD(groups, 0.01)
        """
        return self.start.parameters()

    def warp_parameters(self) -> list[nn.Parameter]:
        """The warps alone, for a separate parameter group or optimizer.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> [list(leaf.shape) for leaf in meta.warp_parameters()]
            [[1, 4], [1]]
        """
        return list(self._warps().values())

    def task_parameters(self) -> list[nn.Parameter]:
        """The parameters that a task adapts, for the task's optimizer. Warps are not among them.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> [list(leaf.shape) for leaf in meta.task_parameters()]
            [[4, 1], [4]]
        """
        return list(self._theta().values())

    @block
    def task(self) -> Iterator["WarpTask"]:
        """The context of one task, see `Leap.task`.

        If the task fails, its points contribute nothing to the warps, and the replay is as it was before the task.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> with meta.task() as task:
            ...     task.backward(meta.loss(x[0]), meta_batch=x[1])
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish(meta.loss(x[2]))
        """
        self._check_not_replaying()
        number, before = self.start.tasks, (list(self.points), self.met, self.streams["kept"].get_state())
        with ExitStack() as stack:
            stack.callback(self._leave, number, *before)
            self._clear_warps()
            if not self.through_loop:
                stack.enter_context(requiring(self._warps().values(), False))
            if self.through_loop:
                stack.enter_context(twice_differentiable(self.module))
                stack.enter_context(uncompiled())  # also for parts of the module, a wrapper around it, and the loss
            task = WarpTask(self, stack.enter_context(self.start.task()))
            stack.callback(task._put_warps_back)
            yield task
            task.path._check_ended()
            task._refuse(task._moved())  # also after task.finish
            check_finite(task.warp_loss, task.warp_total)
            self.warp_points += task.points
            self.warp_loss = self.warp_loss + task.warp_loss
            for name, leaf in task.warp_total.items():
                self.warp_total[name] = self.warp_total[name] + leaf if name in self.warp_total else leaf

    def backward(self) -> dict[str, float]:
        """Set the gradients of `parameters()`, and begin a new meta-batch. Offline, those of the warps are None.

        Returns:
            the result of `Leap.backward` and, online, `warp_loss`, the mean of the objective over all points.

        Raises:
            RuntimeError: there was no task, one is open, or points have not been replayed.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> with meta.task() as task:
            ...     task.backward(meta.loss(x[0]), meta_batch=x[1])
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish(meta.loss(x[2]))
            >>> seen = meta.backward()
            >>> all(leaf.grad is not None for leaf in meta.parameters())
            True
        """
        if sum(counts(len(self.points), next(iter(self._warps().values())).device)):
            raise RuntimeError(
                f"{len(self.points)} points wait in the replay. Go through `for _ in meta.replay(): outer.step()` "
                "first; without it the warps learn nothing."
            )
        info = self.start.backward()
        if self.untouched:
            warnings.warn(
                f"no objective depends on the warps {shortened(sorted(map(plain, self.untouched)))}. Freeze warps that "
                "the module does not use, or check the loss that was given to WarpGrad.",
                stacklevel=2,
            )
            self.untouched = set()
        if self.size is None:
            total = {n: self.warp_total.get(n, zero_sum(leaf)) for n, leaf in self._warps().items()}
            like = next(iter(total.values()))
            numbers = [self.warp_points, float(self.warp_loss)]
            numbers = torch.tensor(numbers, device=like.device, dtype=like.real.dtype)
            add_up([*total.values(), numbers])
            for name, leaf in self._warps().items():
                leaf.grad = total[name].to(leaf.dtype)
            points, loss = numbers.tolist()
            info["warp_loss"] = loss / max(points, 1)
        self.discard()
        return info

    def replay(
        self, eta: int = 1, points: int | None = None, generator: torch.Generator | None = None
    ) -> Iterator[float]:
        """Go through the kept points in random order, and forget them (Algorithm 2).

        Before each turn of your loop, the gradient of the warps is set to the sum over `eta` points, and that of the
        initialisation to None. Several processes go through the points of all processes together.

        Args:
            eta: points for each turn. If it does not divide their number, the last turn has fewer points.
            points: how many points to use; None for all.
            generator: the random stream of the order; None for a stream from WarpGrad's `seed`.

        Yields:
            the mean of the objective over these points.

        Raises:
            FloatingPointError: the objective is not finite.
            RuntimeError: there are no points, a task is open, or another replay goes on.
            ValueError: the module's parts have changed since a point was kept.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1, replay=9)
            >>> with meta.task() as task:
            ...     task.backward(meta.loss(x[0]), meta_batch=x[1], task_batch=x[0])
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish(meta.loss(x[2]))
            >>> outer = torch.optim.Adam(meta.parameters(), 1e-3)
            >>> for _ in meta.replay(eta=1):
            ...     outer.step()
        """
        whole = all(isinstance(number, int) and number > 0 for number in (eta, 1 if points is None else points))
        if not whole or self.size is None or not isinstance(generator, torch.Generator | None):
            raise ValueError(
                f"eta is {eta}, points {points}, generator {kind_of(generator)}, and WarpGrad was made with "
                f"replay={self.size}; needed whole numbers, at least 1 (points may be None), and a torch.Generator or "
                "None."
            )
        if self.start.open:
            raise RuntimeError("a task is open; go through the replay after its with block.")
        self._check_not_replaying()
        warps = self._warps()
        each = counts(len(self.points), next(iter(warps.values())).device)
        first = sum(each[: this_process()])
        order = torch.randperm(sum(each), generator=generator or self.streams["order"])[:points]
        if not len(order):
            raise RuntimeError("the replay is empty. Needed task.backward(loss, meta_batch, task_batch) inside tasks.")
        self.replaying = True
        try:
            for chosen in order.split(eta):
                total = {name: zero_sum(leaf) for name, leaf in warps.items()}
                value = next(iter(total.values())).real.new_zeros(1)
                for number in (chosen - first).tolist():
                    if 0 <= number < len(self.points):
                        point = self.points[number]
                        point = Point(*moved(tuple(point), value.device))
                        theta = {n: leaf.detach().requires_grad_() for n, leaf in point.theta.items()}
                        for name, leaf in self._theta().items():
                            if name in theta and leaf._backward_hooks:  # the user's, on the gradient
                                theta[name]._backward_hooks = leaf._backward_hooks
                        look = partial(warp_gradient, self, theta, point.task_batch, point.meta_batch)
                        with modes(self.module, partial(mode_of, point.in_eval)):
                            loss, grads = with_tensors(self.module, point.beside, look)
                        value += loss
                        total = add_scaled(total, 1.0, grads)
                add_up([*total.values(), value])
                check_finite(value, total)
                for leaf in self.initial_parameters():
                    leaf.grad = None
                for name, leaf in warps.items():
                    leaf.grad = total[name].to(leaf.dtype)
                yield value.item() / len(chosen)
        finally:
            self.replaying = False
            self._forget()
            for leaf in warps.values():
                leaf.grad = None

    def discard(self) -> None:
        """Forget the tasks since the last `backward`.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> with meta.task() as task:
            ...     task.backward(meta.loss(x[0]), meta_batch=x[1])
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish(meta.loss(x[2]))
            >>> meta.discard()
            >>> meta.warp_points
            0
        """
        self.start.discard()
        self._forget()
        self.replaying = False  # of a copy that was made in the middle of a replay
        self.warp_total, self.warp_loss, self.warp_points = {}, 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """See `Leap.state_dict`. It also has the warps' sums, the points of the replay and the random streams.

        Raises:
            RuntimeError: a task is open, or a replay goes on.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> state = meta.state_dict()
            >>> "module" in state and "points" in state
            True
        """
        self._check_not_replaying()
        return self.start.state_dict() | {
            "warp_total": {plain(name): leaf for name, leaf in self.warp_total.items()},
            "warp_loss": float(self.warp_loss),
            "warp_points": self.warp_points,
            "points": [point._asdict() for point in self.points],
            "met": self.met,
            "streams": {name: stream.get_state() for name, stream in self.streams.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of `state_dict`.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> state = meta.state_dict()  # or that of a file, by torch.load
            >>> meta.load_state_dict(state)
        """
        if isinstance(state, dict) and "total" in state and "streams" not in state:
            raise ValueError("the state is one of Leap; needed one of WarpGrad.")
        if not isinstance(state, dict) or "streams" not in state:
            raise TypeError(f"the state is {kind_of(state)}; needed one of state_dict() of WarpGrad.")
        n_points, size = len(state["points"]), self.size or 0
        if n_points > size or (state["warp_points"] and size):
            raise ValueError(
                f"the state has {n_points} points of a replay and {state['warp_points']} of the online objective; "
                f"needed one of WarpGrad with replay={self.size}, or one after meta.backward()."
            )
        self._check_not_replaying()
        needed = set(Point._fields) - Point._field_defaults.keys()
        if not all(needed <= point.keys() <= set(Point._fields) for point in state["points"]):
            raise ValueError(
                "the state has a replay of another version of leapwarp; needed one of this version, or one that was "
                "taken when no points waited."
            )
        self.start.load_state_dict(state)
        warps = {plain(name): (name, leaf) for name, leaf in self._warps().items()}
        if odd := sorted(state["warp_total"].keys() - warps.keys()):
            raise ValueError(
                f"the state has warps {shortened(odd)}, which are none here; needed the same choice of warps."
            )
        self.warp_total = {
            warps[n][0]: leaf.to(warps[n][1].device, copy=True) for n, leaf in state["warp_total"].items()
        }
        self.warp_loss, self.warp_points = state["warp_loss"], state["warp_points"]
        self.untouched = set() if self.start.tasks else self.untouched
        self.points = [Point(**point) for point in state["points"]]
        self.met = state["met"]
        for name, stream in self.streams.items():
            stream.set_state(state["streams"][name].cpu())

    def _warps(self) -> dict[str, nn.Parameter]:
        every = dict(self.module.named_parameters())
        if new := [plain(name) for name, leaf in self.groups.warp.items() if every.get(name) is not leaf]:
            raise ValueError(
                f"{shortened(new)}: warps that the module no longer has, or other parameters than when WarpGrad was "
                "made. Needed the same warps for all tasks; make WarpGrad and the outer optimizer anew if they change."
            )
        return {name: every[name] for name in self.groups.warp}

    def _theta(self) -> dict[str, nn.Parameter]:
        every = self.module.named_parameters()
        return {name: leaf for name, leaf in every if leaf.requires_grad and name not in self.groups.warp}

    def _check_not_replaying(self) -> None:
        if self.replaying:
            raise RuntimeError(
                "a replay goes on. Open tasks, take a state, and begin another replay before or after "
                "`for _ in meta.replay()`, not in it."
            )

    def _keep(self, theta: Mapping[str, Tensor], task_batch: Any, meta_batch: Any, task: int) -> None:
        """Keep a point or drop it, so that each point so far is kept with equal probability (reservoir sampling)."""
        self.met += 1
        size, place = self.size or 0, len(self.points)
        if place >= size:
            place = int(torch.randint(self.met, (), generator=self.streams["kept"]))
        if place < size:
            constant = theta.keys() | self.groups.warp.keys() | self.groups.frozen.keys()
            others = {name: leaf for name, leaf in self.module.named_parameters() if name not in constant}
            mine = [own_copy(each, self.device) for each in (theta, task_batch, meta_batch)]
            beside = own_copy(others | dict(self.module.named_buffers()), self.device)
            self.points[place : place + 1] = [
                Point(mine[0], mine[1], mine[2], task, beside, parts_in_eval(self.module))
            ]

    def _leave(self, number: int, points: list[Point], met: int, kept: Tensor) -> None:
        """End task `number`: clear the gradients of the warps. If it has failed, the replay is as it was before it.

        A task's points take the places of earlier ones, so it would not do to drop them.
        """
        if self.start.tasks == number:
            self.points, self.met = points, met
            self.streams["kept"].set_state(kept)
        self._clear_warps()

    def _clear_warps(self) -> None:
        for leaf in self._warps().values():
            leaf.grad = None

    def _forget(self) -> None:
        self.points, self.met = [], 0


class WarpTask:
    """The training of one task. `WarpGrad.task` returns it."""

    def __init__(self, meta: WarpGrad, path: leap.Task) -> None:
        self.meta, self.path = meta, path
        self.warp_total: Params = {}
        self.warp_loss: Tensor | float = 0.0
        self.points = 0
        self.number = meta.start.tasks
        renormed = renormed_weights(meta.module)  # a call of the module moves those
        warps = {name: leaf for name, leaf in meta._warps().items() if id(leaf) not in renormed}
        self.begun, self.versions = copies(warps.items()), {name: leaf._version for name, leaf in warps.items()}

    def backward(self, loss: Tensor, meta_batch: Any, task_batch: Any = None, scaler: Any = None) -> None:
        """Call `loss.backward()`, and add the module's present parameters to the path.

        Call it in place of `loss.backward()`, and before gradients are clipped.

        Args:
            loss: [] of this step's batch.
            meta_batch: the batch of the objective's outer loss, which is evaluated after the objective's step.
            task_batch: the batch of the objective's step. If it is None in online learning, `loss` is used for the
                step, which is fastest.
            scaler: a `torch.amp.GradScaler`; the loss is given unscaled.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> with meta.task() as task:
            ...     inner = torch.optim.SGD(meta.task_parameters(), 0.1)
            ...     for batch in x[:2]:
            ...         inner.zero_grad()
            ...         task.backward(meta.loss(batch), meta_batch=x[2])
            ...         inner.step()
            ...     task.finish(meta.loss(x[2]))
        """
        meta = self.meta
        leap.check_scaler(scaler)
        theta = meta._theta()
        if not (meta.through_loop and task_batch is None):
            with leap.own_gradients(list(theta.values())) as own:
                (scaler.scale(loss) if scaler else with_graph(loss)).backward()
            self._step(loss, meta_batch, task_batch, scaler, dict(zip(theta, own, strict=True)))
            return
        with told():
            scaled = scaler.scale(loss) if scaler else with_graph(loss)
            found = gradients(scaled, list(theta.values()), create_graph=True)
            if others := other_leaves(scaled, [*theta.values(), *meta._warps().values()]):  # a head beside the module
                torch.autograd.backward(scaled, inputs=others, retain_graph=True)
        grads = {name: grad for name, grad in zip(theta, found, strict=True) if grad is not None}
        self._check_warps()
        with leap.own_gradients(list(theta.values())) as own:
            for name, grad in grads.items():
                leap.accumulate(theta[name], grad.detach().clone())  # autograd may give several one memory
        ours = dict(zip(theta, own, strict=True))
        reached = self.path._extend(loss, [ours.get(name) for name in meta.groups.learnt], scaler)
        if not reached:  # the scaler skips this step
            return
        if scaler is not None and scaler.is_enabled():
            grads = {name: grad / scaler.get_scale() for name, grad in grads.items()}
        self._gather(*warp_gradient(meta, {n: theta[n] for n in grads}, None, meta_batch, grads))

    def step(self, loss: Tensor, meta_batch: Any, task_batch: Any = None, scaler: Any = None) -> None:
        """Add the module's present parameters to the path, after your own `loss.backward()`.

        Args:
            See `backward`. The full objective (`order=2`) and every replay need `task_batch` here, since the graph of
                `loss` is gone.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> with meta.task() as task:
            ...     loss = meta.loss(x[0])
            ...     loss.backward()
            ...     task.step(loss, meta_batch=x[1], task_batch=x[2])
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish(meta.loss(x[2]))
        """
        self._step(loss, meta_batch, task_batch, scaler, {n: leaf.grad for n, leaf in self.meta._theta().items()})

    def _step(
        self, loss: Tensor, meta_batch: Any, task_batch: Any, scaler: Any, grads: dict[str, Tensor | None]
    ) -> None:
        meta = self.meta
        if task_batch is None and (meta.order == 2 or meta.size is not None) and meta.order:
            raise ValueError(
                "no task_batch. Needed task.backward(loss, meta_batch) in place of loss.backward() in online learning, "
                "or task.step(loss, meta_batch, task_batch): the objective takes its own step on task_batch."
            )
        self._check_warps()
        reached = self.path._extend(loss, [grads.get(name) for name in meta.groups.learnt], scaler)
        meta._clear_warps()  # an optimizer of all parameters would use the gradients that loss.backward() has set
        if not reached:
            return
        theta = {name: leaf for name, leaf in meta._theta().items() if grads.get(name) is not None}
        if meta.size is not None:
            meta._keep(theta, task_batch, meta_batch, self.number)
            return
        given = None
        if meta.order == 1 and task_batch is None:
            scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
            given = {name: grad / scale for name, grad in grads.items() if grad is not None}
        self._gather(*warp_gradient(meta, dict(theta), task_batch, meta_batch, given))

    def finish(self, loss: Tensor) -> None:
        """See `leapwarp.fronts.leap.Task.finish`.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)), torch.rand(3, 20, 1)
            >>> meta = leapwarp.WarpGrad(net, lambda batch: net(batch).square().mean(), warp="1", inner=0.1)
            >>> with meta.task() as task:
            ...     task.backward(meta.loss(x[0]), meta_batch=x[1])
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish(meta.loss(x[2]))
            >>> meta.warp_points
            1
        """
        self._check_warps()
        self._refuse(self._moved())  # some optimizers, such as fused ones, do not count what they write
        self.path.finish(loss)

    def _put_warps_back(self) -> None:
        """Give the warps the values that they had when the task began, if they have moved."""
        put_back(dict(self.meta.module.named_parameters()), {name: self.begun[name] for name in self._moved()})

    @torch.no_grad()
    def _moved(self) -> list[str]:
        every = dict(self.meta.module.named_parameters())
        pairs = [(name, every[name], was) for name, was in self.begun.items() if name in every]
        return [name for name, now, was in pairs if not torch.equal(now.nan_to_num(), was.nan_to_num())]

    def _check_warps(self) -> None:
        warps = self.meta._warps()
        self._refuse([name for name, version in self.versions.items() if warps[name]._version != version])

    def _refuse(self, moved: list[str]) -> None:
        if moved:
            raise ValueError(
                f"{shortened(map(plain, moved))}: warps that have moved inside the task, where they must stay fixed. "
                "Give the task's optimizer meta.task_parameters()."
            )

    def _gather(self, loss: Tensor, grads: Params) -> None:
        self.warp_loss, self.points = self.warp_loss + number(loss), self.points + 1
        for name, leaf in grads.items():
            self.warp_total[name] = self.warp_total[name].add_(leaf) if name in self.warp_total else leaf


def warp_gradient(
    meta: WarpGrad, theta: Params, task_batch: Any, meta_batch: Any, grads: Params | None = None
) -> tuple[Tensor, Params]:
    """The warp objective at a point, and its gradient (WarpGrad equation 3; see `leapwarp.learners.warpgrad`).

    The chain rule is applied in three parts, each while the module holds the corresponding parameters: the gradient at
    theta, with its graph; the meta-loss after the step; and the product of both. So a checkpointed part, which is
    computed again in the backward pass, uses the right parameters.

    Args:
        theta: task parameters: the module's own, or tensors that replace them.
        grads: gradients of the task loss at theta, if they are known already; with their graph if `order` is 2.

    Returns:
        L_meta [] and its gradient, shaped as the warps.
    """
    module, warps, order = meta.module, meta._warps(), meta.order
    own = all(isinstance(leaf, nn.Parameter) for leaf in theta.values())

    def at_theta(function: Callable[[], Any]) -> Any:
        return function() if own else with_tensors(module, theta, function)

    with ExitStack() as stack:
        for context in (
            lent_buffers(module),
            kept_attributes(module),
            requiring(warps.values(), True),
            uncompiled(),
            told(),
        ):
            stack.enter_context(context)
        renormed = renormed_weights(module)  # which the loss on the task batch scales in place
        stack.callback(put_back, theta, copies((name, leaf) for name, leaf in theta.items() if id(leaf) in renormed))
        if order and grads is None:
            with twice_differentiable(module) if order == 2 else nullcontext():
                found = at_theta(lambda: gradients(with_graph(meta.loss(task_batch)), list(theta.values()), order == 2))
            grads = {name: grad for name, grad in zip(theta, found, strict=True) if grad is not None}
        if order == 2:
            check_once_only(list((grads or {}).values()))
        grads = {name: dense(grad) for name, grad in (grads or {}).items()}
        start = {name: leaf.detach() for name, leaf in theta.items()}
        slopes = {name: grad.detach().requires_grad_() for name, grad in grads.items()} if order else {}
        moving = alone({name: start[name] for name in slopes})
        with torch.enable_grad():
            stepped = pick_one(meta.inner.update(moving, alone(slopes), meta.inner.init(moving))[0]) if slopes else {}
        after = {name: stepped.get(name, leaf).detach().requires_grad_() for name, leaf in start.items()}

        ours = {name: leaf for name, leaf in module.named_parameters() if name in after and leaf.requires_grad}

        def meta_gradient() -> tuple[Tensor, Sequence[Tensor | None]]:
            value = scalar(with_graph(meta.loss(meta_batch)))
            return value, gradients(value, [*after.values(), *warps.values()], beside=list(ours.values()))

        value, parts = with_tensors(module, after, meta_gradient)
        pulls = {name: part if part is None else dense(part) for name, part in zip(after, parts, strict=False)}
        direct = parts[len(after) : len(after) + len(warps)]
        unmoved = [name for name, part in zip(reversed(ours), reversed(parts), strict=False) if part is not None]
        if unmoved:
            raise ValueError(
                f"the loss that was given to WarpGrad takes {shortened(map(plain, unmoved))} from elsewhere than the "
                "module, such as a list made before or a state with its graph. Needed a loss that reads parameters "
                "from the module each time, and detached states."
            )
        if all(part is None for part in parts):
            raise ValueError(
                "the loss that was given to WarpGrad depends on no parameter of the module. Needed a function of a "
                f"batch that calls this module ({type(module).__name__}). A copied WarpGrad keeps the original's loss."
            )
        names = [name for name in slopes if pulls[name] is not None and grads[name].requires_grad]
        through: Sequence[Tensor | None] = [None] * len(warps)
        if order == 2 and names:
            back = torch.autograd.grad(
                [stepped[name] for name in names], [slopes[name] for name in names], [pulls[name] for name in names]
            )
            ends = [grads[name] for name in names]
            through = at_theta(lambda: torch.autograd.grad(ends, list(warps.values()), back, allow_unused=True))
    if meta.untouched:
        felt = zip(warps, direct, through, strict=True)
        meta.untouched -= {name for name, *parts in felt if any(part is not None for part in parts)}
    total = {
        name: sum((part.detach() for part in parts if part is not None), zero_sum(leaf))
        for (name, leaf), parts in zip(warps.items(), zip(direct, through, strict=True), strict=True)
    }
    return value.detach(), total


def mode_of(in_eval: Sequence[str] | None, name: str, now: bool) -> bool:
    """Whether a part is in training mode when a point is seen again, see `Point.in_eval`."""
    return now if in_eval is None else name not in in_eval


def takes_one(function: Any) -> bool:
    """Whether something is a function, or a module, that can be called with one argument."""
    try:
        called = function.forward if isinstance(function, nn.Module) else function
        inspect.signature(called).bind(None)
    except TypeError:  # a function of two arguments; no function at all
        return False
    except ValueError:  # one that does not tell
        return callable(function)
    return not isinstance(function, type)


def check_finite(loss: Tensor | float, grads: Params) -> None:
    """Raise FloatingPointError if the sum of the objective over points, or of its gradients, is not finite."""
    if not isfinite(loss):
        raise FloatingPointError(
            f"the objective of the warps is {float(loss)}; needed a finite one. Lower the outer learning rate of the "
            "warps or the rate of the step, inner."
        )
    finite = [leaf.isfinite().all() for leaf in grads.values()]  # first all are computed, then the host waits
    if odd := [plain(name) for name, good in zip(grads, finite, strict=True) if not good]:
        raise FloatingPointError(
            f"the gradient of the warps {shortened(odd)} is not finite, though the objective is {float(loss):.3g}. An "
            "operation of the module or of its loss may have an infinite slope here, such as a square root or a norm "
            "at 0. Or lower the outer learning rate of the warps or the rate of the step, inner."
        )


def pick_one(stack: Params) -> Params:
    """The parameters of a stack of one, without its leading axis and with its graph."""
    return {name: leaf[0] for name, leaf in stack.items()}


def mapped(batch: Any, function: Callable[[Any], Any]) -> Any:
    """A batch with `function` applied to what its nested lists, tuples, dictionaries and dataclasses hold."""
    if isinstance(batch, MutableMapping):
        changed = copy.copy(batch)  # keeps its type, such as a defaultdict
        changed.update({key: mapped(part, function) for key, part in batch.items()})
        return changed
    if hasattr(batch, "to"):  # a packed sequence is also a tuple
        return function(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(mapped(part, function) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(mapped(part, function) for part in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        changed = copy.copy(batch)
        for field in fields(batch):
            object.__setattr__(changed, field.name, mapped(getattr(batch, field.name), function))  # it may be frozen
        return changed
    return function(batch)


def moved(batch: Any, device: str | torch.device | None) -> Any:
    return mapped(batch, lambda leaf: leaf.to(device) if device is not None and hasattr(leaf, "to") else leaf)


def own_copy(batch: Any, device: str | torch.device | None) -> Any:
    """A batch on `device` (None: where it is) that does not change if the original is written into.

    Tensors, NumPy arrays and objects with a method `to` are copied. Others are kept as they are, such as a data set or
    a module, whose parameters a copy would cut off.
    """
    numpy = sys.modules.get("numpy")

    def copied(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            made = leaf.detach().to(device or leaf.device, copy=True)
            return made.requires_grad_(leaf.requires_grad)  # of a loss that differentiates by its inputs
        if isinstance(leaf, nn.Module):
            return leaf
        if numpy and isinstance(leaf, numpy.ndarray):
            return leaf.copy()
        return copy.deepcopy(moved(leaf, device)) if hasattr(leaf, "to") else leaf

    return mapped(batch, copied)


def is_compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


def uncompiled() -> AbstractContextManager[Any]:
    """Run compiled modules and functions uncompiled. This does nothing if torch.compile was never used."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def requiring(params: Any, value: bool) -> Iterator[None]:
    """Set `requires_grad` of `params` to `value` inside this context."""
    params = list(params)
    before = [leaf.requires_grad for leaf in params]
    for leaf in params:
        leaf.requires_grad_(value)
    try:
        yield
    finally:
        for leaf, was in zip(params, before, strict=True):
            leaf.requires_grad_(was)
