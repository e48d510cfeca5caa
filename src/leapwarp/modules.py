"""The parameters of a user's `nn.Module`: the role of each, and calls of the module with other values for them."""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import nn

from leapwarp.trees import Params

Chosen = str | nn.Module | Sequence[str | nn.Module]
"""A choice of parameters: names of modules or parameters (`blocks.0.warp`), patterns (`*.warp.*`), or modules."""

_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_checkpoint_wrapped_module)(?=\.|$)")
_SAYS_WARP = re.compile(r"(^|[._])warps?(?![a-z])")


class Groups(NamedTuple):
    """The parameters of a module by their names, each in one group. Printed, it is a table of the groups."""

    learnt: dict[str, nn.Parameter]
    """adapted on each task, from an initialisation that is meta-learned"""
    warp: dict[str, nn.Parameter]
    """meta-learned, and fixed while a task is learnt"""
    task_only: dict[str, nn.Parameter]
    """adapted on each task, always from the same values"""
    exclude: dict[str, nn.Parameter]
    """left to the user's own code"""
    frozen: dict[str, nn.Parameter]
    """constants, such as parameters whose `requires_grad` is False"""

    def __str__(self) -> str:
        lines = []
        for group, params in self._asdict().items():
            if params:
                numbers = sum(leaf.numel() for leaf in params.values())
                lines.append(f"{group:<9} {numbers:>11,} numbers in {len(params):>3} tensors: {shortened(params)}")
        return "\n".join(lines)

    __repr__ = __str__


def shortened(names: Any, most: int = 6) -> str:
    """The first few of the names, and the number of the others, for messages."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def kind_of(value: Any) -> str:
    """What a value is, in a few words: `Linear`, `the class SGD`, `the function sgd`."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"the function {value.__name__}" if inspect.isroutine(value) else type(value).__name__


def plain(name: str) -> str:
    """A parameter's name without the parts that `torch.compile` and checkpoint wrappers add."""
    return _WRAPPERS.sub("", name).removeprefix(".")


def choose_names(module: nn.Module, chosen: Chosen, what: str) -> set[str]:
    """The names of the parameters that `chosen` selects; `what` is the argument's name, for messages.

    A tied parameter is found by each of its names, and has the first of them in the result.

    Raises:
        TypeError: a choice is neither a name or pattern nor a module.
        ValueError: a choice matches nothing.
    """
    every = {id(leaf): name for name, leaf in module.named_parameters()}
    names_of = [(plain(name), every[id(leaf)]) for name, leaf in module.named_parameters(remove_duplicate=False)]
    found: set[str] = set()
    for choice in chosen if isinstance(chosen, Collection) and not isinstance(chosen, str | nn.Module) else [chosen]:
        if isinstance(choice, nn.Module):
            names, said = {every[id(p)] for p in choice.parameters() if id(p) in every}, type(choice).__name__
        elif isinstance(choice, str):
            names, said = {first for name, first in names_of if _matches(name, choice)}, repr(choice)
        else:
            raise TypeError(
                f"{what} has {type(choice).__name__}; needed names, patterns such as '*.warp.*', or modules, or a list "
                "of these."
            )
        if not names:
            raise ValueError(
                f"{what}: {said} is none of the module's parameters. Needed a name, a pattern such as '*.warp.*' or a "
                f"module with parameters; there are {shortened(map(plain, every.values()))}."
            )
        found |= names
    return found


def _matches(name: str, pattern: str) -> bool:
    """Whether the pattern selects a parameter. `*.warp.*` also matches a warp at the top level of the module.

    A module's name selects all its parameters. Names may have brackets, which in a pattern are a set of characters.
    """
    if pattern == "" or name == pattern or name.startswith(f"{pattern}."):
        return pattern != ""
    return any(fnmatchcase(start + name, pattern + end) for start in ("", ".") for end in ("", ".*"))


def groups(
    module: nn.Module,
    warp: Chosen | None = None,
    task_only: Chosen = (),
    exclude: Chosen = (),
    frozen: Chosen = (),
) -> Groups:
    """Sort the parameters of `module` into groups by their role.

    Args:
        module: any `nn.Module`.
        warp: parameters that are warps. None for those named `warp.*`, if there are any; () for none.
        task_only: parameters that each task adapts from the same values, and that are not meta-learned.
        exclude: parameters that are left to the user's own code.
        frozen: constants, besides the parameters whose `requires_grad` is False.

    Raises:
        TypeError: `module` is not a module.
        ValueError: a choice matches nothing, a parameter is chosen twice, a parameter's name says that it is a warp but
            it is not chosen as one, a chosen warp is frozen, or nothing is left to learn.

    Examples:
        >>> import torch, leapwarp
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> print(leapwarp.groups(net, warp="1"))
        learnt              9 numbers in   2 tensors: 0.weight, 0.bias
        warp                4 numbers in   2 tensors: 1.weight, 1.bias
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"the module is {kind_of(module)}; needed a torch.nn.Module.")
    every = dict(module.named_parameters())
    for name, leaf in [*every.items(), *module.named_buffers()]:
        if nn.parameter.is_lazy(leaf):
            raise ValueError(f"{name} has no shape yet; call the module once on a batch before this.")
        if leaf.is_meta or (name in every and leaf.is_inference()):
            how = "is on the device meta, without values" if leaf.is_meta else "was made in torch.inference_mode()"
            raise ValueError(f"{name} {how}; needed a parameter that can be trained.")
    sets = {
        "warp": {n for n in every if plain(n).startswith("warp.")}
        if warp is None
        else choose_names(module, warp, "warp"),
        "task_only": choose_names(module, task_only, "task_only"),
        "exclude": choose_names(module, exclude, "exclude"),
        "frozen": choose_names(module, frozen, "frozen"),
    }
    for first, second in combinations(sets, 2):
        if both := sorted(map(plain, sets[first] & sets[second])):
            raise ValueError(f"{shortened(both)}: chosen as {first} and as {second}; needed one of the two.")
    constant = {name for name, leaf in every.items() if not leaf.requires_grad}
    if warp is None:
        sets["warp"] -= constant
    if still := sorted(map(plain, sets["warp"] & constant)):
        raise ValueError(f"{shortened(still)}: chosen as warp, but requires_grad is False. Leave it True for warps.")
    constant = (constant | sets["frozen"]) - sets["exclude"]
    taken = sets["warp"] | sets["task_only"] | sets["exclude"]
    wants = [n for n in every if n not in taken | constant and _SAYS_WARP.search(plain(n))]
    if wants and (warp is None or sets["warp"]):
        raise ValueError(
            f"{shortened(map(plain, wants))}: the name says warp, but it is not chosen as one and would be adapted. "
            "Choose all warps, warp=['*.warp.*'] for example, or say warp=() if there are none."
        )
    left = [name for name in every if name not in taken | constant]
    if not left:
        raise ValueError(
            f"no parameter is left to learn: of {len(every)}, {len(constant)} are frozen and "
            f"{len(taken)} chosen as warp, task_only or exclude."
        )
    pick = lambda names: {name: every[name] for name in every if name in names}  # noqa: E731
    own = sets["task_only"] - constant
    return Groups(pick(left), pick(sets["warp"]), pick(own), pick(sets["exclude"]), pick(constant))


class _Held(nn.Module):
    """A wrapper whose call runs any function, so that `functional_call` can replace tensors of the module inside."""

    def __init__(self, held: nn.Module) -> None:
        super().__init__()
        self.held = held

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def with_tensors(module: nn.Module, tensors: Params, function: Callable[[], Any]) -> Any:
    """Call `function` while `tensors` replace the module's parameters or buffers with these names.

    A tied tensor is replaced in all its places. `functional_call` could do this, but if a module has two names it does
    not restore the module's own tensors afterwards.
    """
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    if gone := [plain(name) for name in tensors if name not in own]:
        raise ValueError(
            f"{shortened(gone)}: no longer in the module. Needed the parts that it had when these were kept, or other "
            "parts with the same names."
        )
    given = {id(own[name]): leaf for name, leaf in tensors.items()}
    named = {f"held.{place}": given[id(leaf)] for place, leaf in places(module) if id(leaf) in given}
    return torch.func.functional_call(_Held(module), named, (function,), tie_weights=False)


def places(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) for every place of a parameter or buffer.

    A tied tensor has several places. A module with several names is visited once.
    """
    for prefix, part in module.named_modules():
        yield from part.named_parameters(prefix, recurse=False, remove_duplicate=False)
        yield from part.named_buffers(prefix, recurse=False, remove_duplicate=False)


@contextmanager
def kept_buffers(module: nn.Module, leaving: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Restore the module's buffers, such as batch norm's running averages, at the end of this context.

    If the module has replaced a buffer by another tensor, the old tensor is put back. The buffers of the parts
    `leaving` are not restored.
    """
    left = {id(part) for part in leaving}
    before = [
        (part, name, leaf, None if leaf is None else leaf.detach().clone())
        for part in module.modules()
        for name, leaf in part._buffers.items()  # also those that are None yet
        if id(part) not in left
    ]
    try:
        yield
    finally:
        for part, name, leaf, value in before:
            if leaf is None or value is None:
                setattr(part, name, None)
            elif leaf.is_inference() or leaf.shape != value.shape:  # nothing can be written into it
                setattr(part, name, value)
            else:
                if not is_expanded(leaf):  # nor into this
                    put_back({name: leaf}, {name: value})
                setattr(part, name, leaf)


@contextmanager
def lent_buffers(module: nn.Module) -> Iterator[None]:
    """The module computes with copies of its buffers in this context, so that nothing is written into its own.

    Unlike `kept_buffers`, it leaves the graphs of earlier losses valid, which hold the module's own buffers.
    """
    before = [(part, name, leaf) for part in module.modules() for name, leaf in part._buffers.items()]
    made = {id(leaf): leaf.detach().clone() for _, _, leaf in before if leaf is not None}  # tied ones stay tied
    for part, name, leaf in before:
        if leaf is not None:
            setattr(part, name, made[id(leaf)])
    try:
        yield
    finally:
        for part, name, leaf in before:
            setattr(part, name, leaf)


def parts_in_eval(module: nn.Module) -> tuple[str, ...]:
    """The names of the module's parts, and "" for itself, that are in `eval()` mode."""
    return tuple(plain(name) for name, part in module.named_modules() if not part.training)


@contextmanager
def modes(module: nn.Module, training: Callable[[str, bool], bool]) -> Iterator[None]:
    """Set whether each part is in training mode. Afterwards every part has its previous mode.

    Args:
        training: (name of a part, whether it is in training mode now) -> whether it is in this context.
    """
    before = [(part, plain(name), part.training) for name, part in module.named_modules()]
    for part, name, was in before:
        part.training = training(name, was)
    try:
        yield
    finally:
        for part, _, was in before:
            part.training = was


@contextmanager
def kept_attributes(module: nn.Module) -> Iterator[None]:
    """The module's plain attributes, such as a state that it carries along, are afterwards what they were before.

    A tensor that the module has written into stays written.
    """
    before = [(vars(part), dict(vars(part))) for part in module.modules()]
    try:
        yield
    finally:
        for now, was in before:
            for name in now.keys() - was.keys():
                del now[name]
            now.update(was)


def renormed_weights(module: nn.Module) -> set[int]:
    """The `id` of the weights that a call of the module scales in place: of embeddings with `max_norm`."""
    embeddings = (part for part in module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag))
    return {id(part.weight) for part in embeddings if part.max_norm is not None}


def is_expanded(leaf: torch.Tensor) -> bool:
    """Whether several entries of a tensor share one place in memory."""
    if leaf.layout != torch.strided:
        return False
    return any(stride == 0 and size > 1 for stride, size in zip(leaf.stride(), leaf.shape, strict=True))


def left_out(module: nn.Module, chosen: Groups) -> list[nn.Module]:
    """The parts of the module whose parameters are all in the group `exclude`, such as a task's own head.

    The modules inside of these parts are included.
    """
    ours = {name for group, params in chosen._asdict().items() if group != "exclude" for name in params}
    other = {id(leaf) for name, leaf in module.named_parameters() if name not in ours}
    found: list[nn.Module] = []
    for part in module.modules():
        own = {id(leaf) for leaf in part.parameters()}
        if own and own <= other:
            found.extend(part.modules())
    return found


def copies(named: Any) -> Params:
    return {name: leaf.detach().clone() for name, leaf in named}


@torch.no_grad()
def put_back(into: Params, values: Params) -> None:
    """Write `values` into the tensors of the same names. Tensors whose shape has changed are left as they are."""
    for name, value in values.items():
        if name in into and into[name].shape == value.shape:
            into[name].copy_(value)


@contextmanager
def twice_differentiable(module: nn.Module | None = None) -> Iterator[None]:
    """Use kernels that have a second derivative: attention by its formula, recurrent layers without cuDNN."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    recurrent = module is not None and any(isinstance(part, nn.RNNBase) for part in module.modules())
    with sdpa_kernel(SDPBackend.MATH), without_cudnn() if recurrent else nullcontext():
        yield


def nodes(ends: Sequence[torch.Tensor]) -> Iterator[Any]:
    """Every node of autograd in the graph of `ends`."""
    seen: set[Any] = set()
    waiting = [end.grad_fn for end in ends]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            yield node
            seen.add(node)
            waiting += [after for after, _ in node.next_functions]


def has_node(ends: Sequence[torch.Tensor], name: str) -> bool:
    """Whether a node of autograd with this name is in the graph of `ends`."""
    return any(node.name() == name for node in nodes(ends))


def other_leaves(loss: torch.Tensor, known: Collection[torch.Tensor]) -> list[torch.Tensor]:
    """The leaves whose gradient `loss.backward()` sets, without those that are `known`."""
    ids = {id(leaf) for leaf in known}
    found = [node.variable for node in nodes([loss]) if hasattr(node, "variable")]
    return [leaf for leaf in found if id(leaf) not in ids]


def gradients(
    loss: torch.Tensor,
    leaves: Sequence[torch.Tensor],
    create_graph: bool = False,
    beside: Sequence[torch.Tensor] = (),
) -> Sequence[torch.Tensor | None]:
    """The gradient of each leaf, then of each `beside`, None for one that `loss` does not depend on.

    Raises:
        RuntimeError: a checkpoint with use_reentrant=True hides parameters; PyTorch may give their gradient as None.
    """
    hidden = lambda: has_node([loss], "CheckpointFunctionBackward")  # noqa: E731
    try:
        found = torch.autograd.grad(loss, [*leaves, *beside], create_graph=create_graph, allow_unused=True)
    except RuntimeError:  # PyTorch's own word for it, where it notices
        if not hidden():
            raise
        found = (None,)
    if any(grad is None for grad in found[: len(leaves)]) and hidden():
        raise RuntimeError(
            "a part of the module is checkpointed with use_reentrant=True, which hides its parameters. Needed "
            "torch.utils.checkpoint.checkpoint(..., use_reentrant=False) in a front, and none in lift."
        )
    return found


def check_once_only(ends: Sequence[torch.Tensor]) -> None:
    """Raise RuntimeError if `ends` depend on a gradient whose own derivative PyTorch would leave out without a word.

    That is one of a function of autograd that is marked `once_differentiable`.
    """
    if has_node(ends, "torch::autograd::Error"):
        raise RuntimeError(
            "a part of the module has a gradient that is marked once_differentiable, and the second derivative is "
            "needed. Use order=1, which takes first derivatives only, or a part whose backward PyTorch can derive."
        )


@contextmanager
def told() -> Iterator[None]:
    """PyTorch's errors on second derivatives, with what to do."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        known = ("derivative for", "double backward", ".grad()", "backward through the graph", "does not require grad")
        if not any(part in said for part in known):
            raise
        raise RuntimeError(
            f"the second derivative of the loss is needed, and PyTorch said: {said[:200]}. Needed a "
            "loss that was computed inside the task and has not been differentiated before, and parts with a second "
            "derivative (checkpointing with use_reentrant=False). Or use order=1, which takes first derivatives only."
        ) from error


def without_cudnn() -> AbstractContextManager[None]:
    """Turn cuDNN off, since its recurrent layers have no second derivative."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=False, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic)
