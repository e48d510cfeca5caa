"""Leap for a user's own training loop."""

import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from leapwarp.fronts.path import Path, block, zero_sum
from leapwarp.fronts.processes import add_up, begin_alike
from leapwarp.modules import (
    Chosen,
    copies,
    groups,
    kept_buffers,
    kind_of,
    left_out,
    plain,
    put_back,
    renormed_weights,
    shortened,
)
from leapwarp.trees import Params


class Leap:
    """Learns the initialisation of `module` by Leap (Flennerhag et al., 2019), while your own loop trains the module.

    Between tasks the module holds the initialisation. Inside `with meta.task()` your loop trains the module itself,
    with any optimizer. Afterwards the module holds the initialisation again, with the buffers that it had before. A
    task begins and ends without gradients.

    The meta-gradient is exactly that of `leapwarp.learners.leap` on the same batches: the mean over tasks, with every
    segment of each path. If `torch.distributed` has several processes, each trains its own tasks, and `backward` gives
    every process the mean over all tasks.

    Args:
        module: any `nn.Module`. Parameters whose `requires_grad` is False at this point stay constant. Parts in
            `eval()` mode stay in it.
        task_only: parameters that each task adapts, always from the same values, and that are not learnt: names
            (`head`), patterns (`head.*`, `*.norm.*`) or modules.
        exclude: parameters that Leap never changes or restores, such as those of a head that each task has for itself.
            The buffers of such parts are not restored either.
        length, loss, stabiliser: see `leapwarp.learners.leap.leap_fold`.

    Raises:
        ValueError: a choice matches no parameter, or no parameter is left to learn.

    Examples:
        >>> import torch, leapwarp
        >>> net, x = torch.nn.Linear(1, 1), torch.rand(20, 1)
        >>> meta = leapwarp.Leap(net)
        >>> outer = torch.optim.SGD(meta.parameters(), 0.1)
        >>> for slope in (1, 2):  # two tasks of one step each, y = slope x
        ...     with meta.task() as task:
        ...         task.backward((net(x) - slope * x).square().mean())
        ...         torch.optim.SGD(meta.task_parameters(), 0.1).step()
        ...         task.finish((net(x) - slope * x).square().mean())
        >>> seen, _ = meta.backward(), outer.step()
    """

    def __init__(
        self,
        module: nn.Module,
        task_only: Chosen = (),
        exclude: Chosen = (),
        length: bool = True,
        loss: bool = True,
        stabiliser: bool = True,
    ) -> None:
        if isinstance(module, DistributedDataParallel):
            raise ValueError(
                "the module is wrapped in DistributedDataParallel; needed the module inside, net.module. Each process "
                "trains its own tasks, and meta.backward() adds up their meta-gradients."
            )
        self.module, self.options = module, (length, loss, stabiliser)
        self.groups = groups(module, (), task_only, exclude)
        self.total: Params = {}  # the sum over the tasks since the last backward
        self.tasks: int = 0
        self.seen: dict[str, Any] = {"loss": 0.0, "length": 0.0}
        self.open: Task | None = None
        self.untouched = set(self.groups.learnt)  # parameters that have had no gradient in any task so far
        begin_alike(module)

    def parameters(self) -> list[nn.Parameter]:
        """The initialisation, for your outer optimizer. `backward` sets its gradient.

        Examples:
            >>> import torch, leapwarp
            >>> meta = leapwarp.Leap(torch.nn.Linear(2, 1))
            >>> outer = torch.optim.Adam(meta.parameters(), 1e-3)
            >>> [list(leaf.shape) for leaf in meta.parameters()]
            [[1, 2], [1]]
        """
        return list(self._learnt().values())

    def task_parameters(self) -> list[nn.Parameter]:
        """The parameters that a task adapts, for the task's optimizer.

        Examples:
            >>> import torch, leapwarp
            >>> meta = leapwarp.Leap(torch.nn.Linear(2, 1), task_only="bias")
            >>> len(meta.parameters()), len(meta.task_parameters())
            (1, 2)
        """
        return [leaf for leaf in self.module.parameters() if leaf.requires_grad]

    @block
    def task(self) -> Iterator["Task"]:
        """The context of one task, in which your loop trains the module in place.

        A task that ends in an error contributes nothing to the meta-gradient, and the module again holds the
        initialisation.

        Raises:
            RuntimeError: another task is open.
            ValueError: the task has no step, `finish` was not called, or a parameter that was constant when Leap was
                made would be adapted.

        Examples:
            >>> import torch, leapwarp
            >>> net = torch.nn.Linear(1, 1)
            >>> meta, before = leapwarp.Leap(net), net.weight.item()
            >>> with meta.task() as task:
            ...     task.backward(net(torch.ones(1)).square().sum())
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish(net(torch.ones(1)).square().sum())
            >>> net.weight.item() == before
            True
        """
        if self.open:
            raise RuntimeError("a task is open already; leave its with block before the next task.")
        every = dict(self.module.named_parameters())
        kept = copies((name, every[name]) for name in [*self.groups.learnt, *self.groups.task_only])
        self._check_frozen()
        for leaf in self.module.parameters():
            leaf.grad = None  # else an old gradient would be added to the task's first
        with kept_buffers(self.module, left_out(self.module, self.groups)):
            self.open = Task(self, kept)
            try:
                yield self.open
                self.open._check_ended()
                self._add(self.open.path)
            finally:
                self.open = None
                put_back(dict(self.module.named_parameters()), kept)
                for leaf in self.module.parameters():
                    leaf.grad = None

    def backward(self) -> dict[str, float]:
        """Set the gradient of `parameters()` to the meta-gradient, and begin a new meta-batch.

        Returns:
            means over the tasks of the `loss` along a path and of the `length` of a path; and `tasks`, their number.

        Raises:
            RuntimeError: there was no task, or one is open.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Linear(1, 1), torch.rand(20, 1)
            >>> meta = leapwarp.Leap(net)
            >>> with meta.task() as task:
            ...     task.backward((net(x) - 2 * x).square().mean())
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish((net(x) - 2 * x).square().mean())
            >>> sorted(meta.backward())
            ['length', 'loss', 'tasks']
            >>> net.weight.grad is not None
            True
        """
        if self.open:
            raise RuntimeError("a task is open; call backward() after its with block.")
        params = self._learnt()
        total = {name: self.total.get(name, zero_sum(leaf)) for name, leaf in params.items()}
        like = next(iter(total.values())).real
        numbers = torch.stack(
            [torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in (self.tasks, *self.seen.values())]
        )
        add_up([*total.values(), numbers])
        tasks, *sums = numbers.tolist()
        if not tasks:
            raise RuntimeError("no task has ended since the last backward(); needed one `with meta.task()` at least.")
        for name, leaf in params.items():
            leaf.grad = (total[name] / tasks).to(leaf.dtype)
        self.discard()
        if self.untouched:
            warnings.warn(
                f"no task's loss depends on {shortened(sorted(map(plain, self.untouched)))}, which Leap is to "
                "learn. Exclude or freeze parameters that the module does not use.",
                stacklevel=2,
            )
            self.untouched = set()
        return {"tasks": tasks} | {name: value / tasks for name, value in zip(("loss", "length"), sums, strict=True)}

    def discard(self) -> None:
        """Forget the tasks since the last `backward`.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Linear(1, 1), torch.rand(20, 1)
            >>> meta = leapwarp.Leap(net)
            >>> with meta.task() as task:
            ...     task.backward((net(x) - 2 * x).square().mean())
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish((net(x) - 2 * x).square().mean())
            >>> meta.discard()
            >>> meta.tasks
            0
        """
        self.total, self.tasks, self.seen = {}, 0, {"loss": 0.0, "length": 0.0}

    def state_dict(self) -> dict[str, Any]:
        """The state from which a killed run can resume, together with those of your optimizers and random streams.

        Call it between tasks. Its entry `module` is the learnt initialisation with buffers, in the form that
        `net.load_state_dict` takes. As in PyTorch, the state shares memory with the module, so later steps change it.
        Save it, or make a `copy.deepcopy`.

        Excluded parts have the values in it that they have in the module at this time. If you exchange such parts, save
        them all yourself. To resume, load this state first, and their own values afterwards.

        Examples:
            >>> import torch, leapwarp
            >>> meta = leapwarp.Leap(torch.nn.Linear(2, 1))
            >>> sorted(meta.state_dict())
            ['module', 'seen', 'tasks', 'total']
        """
        if self.open:
            raise RuntimeError(
                "a task is open; a state is taken between tasks, when the module holds the initialisation."
            )
        gathered = {plain(name): leaf for name, leaf in self.total.items()}
        seen = {name: float(value) for name, value in self.seen.items()}
        return {"module": self.module.state_dict(), "total": gathered, "tasks": self.tasks, "seen": seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of `state_dict`.

        Raises:
            ValueError: the state has other learnt parameters, or belongs to another module.

        Examples:
            >>> import torch, leapwarp
            >>> state = leapwarp.Leap(torch.nn.Linear(2, 1)).state_dict()  # or that of a file, by torch.load
            >>> net = torch.nn.Linear(2, 1)
            >>> leapwarp.Leap(net).load_state_dict(state)
            >>> torch.equal(net.weight, state["module"]["weight"])
            True
        """
        if not isinstance(state, dict):
            raise TypeError(f"the state is {kind_of(state)}; needed one of state_dict() of a front.")
        if missing := {"module", "total", "tasks", "seen"} - state.keys():
            raise ValueError(f"the state has no {shortened(sorted(missing))}; needed one of state_dict() of a front.")
        names = {plain(name): name for name in self.groups.learnt}
        odd = sorted(state["total"].keys() ^ names.keys()) if state["total"] else []
        if self.open or odd:
            why = "a task is open" if self.open else f"the state and this Leap do not both learn {shortened(odd)}"
            raise ValueError(f"{why}; needed the same module and choices as those that the state was taken from.")
        own: dict[str, str] = {plain(name): name for name in self.module.state_dict()}
        values = {own.get(plain(name), str(name)): leaf for name, leaf in state["module"].items()}  # compiled or not
        try:
            self.module.load_state_dict(values)
        except RuntimeError as error:
            raise ValueError(
                f"the state is of another module: {' '.join(str(error).split())[:300]} Needed the module with the "
                "excluded parts, such as heads, that it had when the state was taken."
            ) from error
        params = self._learnt()
        self.discard()
        self.total = {names[n]: leaf.to(params[names[n]].device, copy=True) for n, leaf in state["total"].items()}
        self.tasks, self.seen = state["tasks"], dict(state["seen"])
        self.untouched = set() if self.tasks else self.untouched  # earlier tasks may have reached all

    def _learnt(self) -> dict[str, nn.Parameter]:
        every = dict(self.module.named_parameters())
        if gone := [plain(name) for name in self.groups.learnt if name not in every]:
            raise ValueError(
                f"{shortened(gone)}: learnt parameters that the module no longer has. Exclude parts that you exchange."
            )
        for name, leaf in self.groups.learnt.items():
            if every[name].shape != leaf.shape:
                raise ValueError(
                    f"{plain(name)} has shape {list(every[name].shape)}, but had {list(leaf.shape)} when Leap was "
                    "made. Exclude parts that you exchange."
                )
        if new := [plain(name) for name, leaf in self.groups.learnt.items() if every[name] is not leaf]:
            raise ValueError(
                f"{shortened(new)}: other parameters than when Leap was made. Your outer optimizer does not have them. "
                "Exclude parts that you exchange. If all were replaced, as by load_state_dict(assign=True), make Leap "
                "and the outer optimizer anew."
            )
        return {name: every[name] for name in self.groups.learnt}

    def _check_frozen(self) -> None:
        if thawed := [plain(name) for name, leaf in self.groups.frozen.items() if leaf.requires_grad]:
            raise ValueError(
                f"{shortened(thawed)}: requires_grad was False when the front was made, and is True now. Make the "
                "front while it is True for all parameters that a task may adapt, and freeze parts afterwards."
            )

    @torch.no_grad()
    def _add(self, path: Path) -> None:
        for name, leaf in zip(self.groups.learnt, path.total, strict=True):
            self.total[name] = self.total[name].add_(leaf) if name in self.total else leaf
        self.tasks += 1
        self.seen = {
            "loss": self.seen["loss"] + path.losses / path.steps,
            "length": self.seen["length"] + path.length,
        }


class Task:
    """The training of one task. `Leap.task` returns it."""

    def __init__(self, meta: Leap, begun: Params) -> None:
        self.meta, self.params = meta, list(meta._learnt().values())
        self.path = Path(self.params, *meta.options)
        renormed = renormed_weights(meta.module)  # a call of the module moves those
        self.begun = [(leaf, begun[n]) for n, leaf in meta._learnt().items() if id(leaf) not in renormed]
        self.finished = False
        self.given: weakref.ref[Tensor] | None = None  # the loss at the last point, as the loop has it
        self.version = 0  # how often it had been written into

    def backward(self, loss: Tensor, scaler: Any = None) -> None:
        """Call `loss.backward()`, and add the module's present parameters to the path.

        The gradient on the path is that of `loss` alone. Older gradients, which your loop has not cleared, are added to
        afterwards, as by `loss.backward()`.

        Args:
            loss: [] of this step's batch. scaler: a `torch.amp.GradScaler`; the loss is given unscaled.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Linear(1, 1), torch.rand(20, 1)
            >>> meta = leapwarp.Leap(net)
            >>> with meta.task() as task:
            ...     inner = torch.optim.SGD(meta.task_parameters(), 0.1)
            ...     for batch in x.split(10):
            ...         inner.zero_grad()
            ...         task.backward(net(batch).square().mean())
            ...         inner.step()
            ...     task.finish(net(x).square().mean())
        """
        check_scaler(scaler)
        with own_gradients(self.params) as grads:
            (scaler.scale(loss) if scaler else with_graph(loss)).backward()
        self._extend(loss, grads, scaler)

    def step(self, loss: Tensor, scaler: Any = None) -> None:
        """Add the module's present parameters to the path.

        Call it after `loss.backward()` and before the optimizer's step. If you clip gradients, call it before that. The
        gradients of all learnt parameters are taken as those of `loss`. So clear them before each step, also those of
        parameters that the task's optimizer does not have: `net.zero_grad()`.

        Args:
            loss: [] of this step's batch, unscaled.
            scaler: a `torch.amp.GradScaler` that has scaled the gradients. If they are not finite, the scaler skips
                the step, and the point is not added.

        Raises:
            FloatingPointError: the loss at the last point was not finite.
            ValueError: the loss is not a scalar, no parameter has a gradient, or the module has moved before the first
                call.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Linear(1, 1), torch.rand(20, 1)
            >>> meta = leapwarp.Leap(net)
            >>> with meta.task() as task:
            ...     loss = net(x).square().mean()
            ...     loss.backward()
            ...     task.step(loss)
            ...     _ = torch.nn.utils.clip_grad_norm_(meta.task_parameters(), 1.0)
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish(net(x).square().mean())
        """
        self._extend(loss, [leaf.grad for leaf in self.params], scaler)

    def _extend(self, given: Tensor, grads: Sequence[Tensor | None], scaler: Any) -> bool:
        """Add a point. -> whether it was added; False if the scaler skips the step."""
        loss = self._scalar(given)
        if not self.path.steps and not all(torch.equal(leaf, begun) for leaf, begun in self.begun):
            raise ValueError(
                "the module has moved before the first point of the path. Call task.backward(loss), or task.step(loss) "
                "after loss.backward(), before the optimizer's step."
            )
        if all(grad is None for grad in grads):
            raise ValueError(
                "no learnt parameter has a gradient here. Call loss.backward() before task.step(loss), on a loss of "
                f"the module that was given to Leap ({type(self.meta.module).__name__})."
            )
        if self.meta.untouched:
            self.meta.untouched -= {n for n, g in zip(self.meta.groups.learnt, grads, strict=True) if g is not None}
        if scaler is not None and scaler.is_enabled():
            grads = [None if grad is None else grad / scaler.get_scale() for grad in grads]
            if not all(grad is None or grad.isfinite().all() for grad in grads):
                return False
        self.path.extend(self.params, loss, grads)
        self.given, self.version = weakref.ref(given), version_of(given)
        return True

    def finish(self, loss: Tensor) -> None:
        """End the path at the module's parameters after the last step.

        Args:
            loss: [] at these parameters, of one more batch. It may be computed without a graph.

        Raises:
            FloatingPointError: a loss, a parameter or a gradient of the path is not finite.
            ValueError: the task has no step, the loss is that of the last step, or learnt parameters were exchanged.

        Examples:
            >>> import torch, leapwarp
            >>> net, x = torch.nn.Linear(1, 1), torch.rand(20, 1)
            >>> meta = leapwarp.Leap(net)
            >>> with meta.task() as task:
            ...     task.backward((net(x) - 2 * x).square().mean())
            ...     torch.optim.SGD(meta.task_parameters(), 0.1).step()
            ...     task.finish((net(x) - 2 * x).square().mean())
            >>> meta.tasks
            1
        """
        again = self.given is not None and self.given() is loss and version_of(loss) == self.version
        loss = self._scalar(loss)
        if not self.path.steps:
            raise ValueError("the task has no step; needed task.backward(loss) once at least before task.finish(loss).")
        if again and self.path.last is not None and torch.equal(loss, self.path.last.to(loss)):
            raise ValueError(
                "this is the loss of the last step, from before the optimizer moved the parameters. Needed that of one "
                "more batch, computed after the optimizer's step: task.finish(loss_of(batch))."
            )
        self.meta._learnt()  # an error if parts were exchanged inside the task
        self.path.extend(self.params, loss, None)
        if not all(leaf.isfinite().all() for leaf in self.path.total):
            raise FloatingPointError(
                "a parameter or a gradient on this task's path is not finite, though its losses are. Lower the task's "
                "learning rate, or skip such steps. This task contributes nothing."
            )
        self.finished = True
        still = int(self.path.still)
        if still == self.path.steps:
            warnings.warn(
                "no learnt parameter has moved in this task. Give the task's optimizer meta.task_parameters(), and "
                "call its step() after task.backward(loss).",
                stacklevel=2,
            )
        elif still:
            warnings.warn(
                f"at {still} of {self.path.steps} steps of this task no learnt parameter has moved. If the learning "
                "rate is not 0 there, call loss.backward() for each part of a batch, and task.step(mean of the losses) "
                "once for the whole batch, which is one step.",
                stacklevel=2,
            )

    def _check_ended(self) -> None:
        if not self.finished:
            raise ValueError(
                "the path has no end: call task.finish(loss), with the loss of one more batch, after the last step and "
                "before the with block ends. The path's last segment ends there."
            )

    def _scalar(self, loss: Tensor) -> Tensor:
        if self.finished:
            raise ValueError("the path has ended with task.finish(loss); open a new task for another.")
        if self.meta.open is not self:
            raise ValueError("this task is over; use the one that the latest `with meta.task() as task` has opened.")
        self.meta._check_frozen()
        return scalar(loss)


def scalar(loss: Any) -> Tensor:
    """A loss as a tensor [].

    Raises:
        ValueError: it is not a tensor of one number.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"the loss has {found}; needed a tensor of one number, the mean over the batch.")
    return loss.reshape(())


@contextmanager
def own_gradients(leaves: Sequence[Tensor]) -> Iterator[list[Tensor | None]]:
    """A list with the gradients that are computed in this context, without older ones.

    It is filled at the end of the context. The gradients of `leaves` are then the sums, as a loop expects.
    """
    older = [leaf.grad for leaf in leaves]
    found: list[Tensor | None] = []
    for leaf in leaves:
        leaf.grad = None
    try:
        yield found
    finally:
        found += [leaf.grad for leaf in leaves]
        for leaf, before, now in zip(leaves, older, found, strict=True):
            if before is not None:
                leaf.grad = before if now is None else added(before, now)


def accumulate(leaf: Tensor, grad: Tensor) -> None:
    """Set the gradient of a leaf that has none, as `loss.backward()` does: also with the hooks that then run."""
    leaf.grad = grad
    for hook in [*(getattr(leaf, "_post_accumulate_grad_hooks", None) or {}).values()]:
        hook(leaf)


@torch.no_grad()
def added(older: Tensor, grad: Tensor) -> Tensor:
    """The sum of two gradients, in the memory of the older one if it is dense. One of them may be sparse."""
    if older.layout == torch.strided:
        return older.add_(grad)
    return older + grad if grad.is_sparse else grad + older


def version_of(loss: Any) -> int:
    """How often a tensor has been written into; 0 where this is not counted."""
    return loss._version if isinstance(loss, Tensor) and not loss.is_inference() else 0


def check_scaler(scaler: Any) -> None:
    """Raise TypeError if it is neither a GradScaler nor None."""
    if scaler is not None and not hasattr(scaler, "get_scale"):
        raise TypeError(f"scaler is {kind_of(scaler)}; needed a torch.amp.GradScaler or None.")


def with_graph(loss: Any) -> Tensor:
    """A loss as a tensor [] that depends on parameters.

    Raises:
        ValueError: it is not a tensor of one number, or depends on no parameter.
    """
    if not scalar(loss).requires_grad:
        raise ValueError(
            "the loss depends on no parameter that is adapted. Needed one that was computed from the module's outputs, "
            "outside torch.no_grad()."
        )
    return loss
