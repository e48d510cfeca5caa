"""Settings of the machine for a process that trains: threads and memory on a CPU, and CUDA graphs on a GPU."""

import ctypes
import platform
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # parameters of glibc's mallopt
_MEBIBYTE = 1 << 20


def settle() -> None:
    """Use one thread, and keep freed memory in the process. Call this once, at the start of a job.

    One thread: with two, other work on the machine slows a run down by far more than the second thread gains. Memory:
    by default glibc returns every freed activation to the system. Each step then allocates it again, with a page fault
    for every 4 kB, which takes a tenth of the time of a small network (docs/log/speed.md). On systems without glibc the
    memory settings are not changed. On a GPU, TF32 is turned off: it would save a fifth of Warp-Leap's time, but on
    images of noise it changed the gradient of the warps by a fifth (benchmarks/README.md).
    """
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, and a resumed run must repeat its numbers
    torch.backends.cudnn.deterministic = True
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 * _MEBIBYTE)  # the largest that glibc takes
        libc.mallopt(_TRIM_THRESHOLD, 1024 * _MEBIBYTE)
        libc.mallopt(_TOP_PAD, 64 * _MEBIBYTE)


def pick_device(name: str) -> torch.device:
    """The device of a name. `auto` is the GPU if there is one. Raises ValueError for a device that does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); take auto, cpu or cuda.") from None
    return device


def clock(device: torch.device | str) -> Callable[[], float]:
    """A clock in seconds for work on a device, of which differences count.

    On a CPU it is the time of the processor, over all threads: a run that waits for other work on the machine, or that
    is stopped for an hour, takes no longer. Elsewhere it is the time that passes.
    """
    return time.process_time if torch.device(device).type == "cpu" else time.monotonic


MOST_GRAPHS = 6
"""graphs that are kept for one function; each holds the memory of its inputs and of all intermediate results"""
CAPTURE = True
"""False launches every GPU operation separately, for comparison"""


def captured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run `function` as CUDA graphs on a GPU. On a CPU, `function` itself is called.

    A stack of small networks consists of about a thousand small operations, and launching each from Python takes longer
    than computing it. A graph launches all of them at once. A graph is captured at the first call, and again for other
    shapes, another device, or other arguments that are not tensors. At most `MOST_GRAPHS` are kept; those used longest
    ago are dropped.

    Args:
        function: takes and returns nested dictionaries and tuples of tensors. Its result depends on the arguments only.
            It draws no random numbers, copies nothing from the CPU, does not wait for the GPU, and changes no argument.
            Its results need no gradient.
    """
    graphs: dict[Any, Callable[[list[Any]], Any]] = {}

    def call(*trees: Any) -> Any:
        if not _gpu_in_use():
            return function(*trees)
        leaves, spec = tree_flatten(trees)
        if not _can_be_captured(leaves):
            return function(*trees)
        key = (spec, *((leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves))
        # A graph records the current device alone, and that is cuda:0 unless it is changed.
        with torch.cuda.device(max(leaf.get_device() for leaf in leaves if isinstance(leaf, Tensor))):
            if key not in graphs:
                if len(graphs) == MOST_GRAPHS:
                    del graphs[next(iter(graphs))]
                graphs[key] = _capture(function, leaves, spec)
            graphs[key] = graphs.pop(key)  # used last
            return graphs[key](leaves)

    return call


def _gpu_in_use() -> bool:
    return CAPTURE and torch.cuda.is_initialized()


def _can_be_captured(leaves: list[Any]) -> bool:
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return any(leaf.is_cuda for leaf in tensors) and not any(leaf.requires_grad for leaf in tensors)


def _capture(function: Callable[..., Any], leaves: list[Any], spec: TreeSpec) -> Callable[[list[Any]], Any]:
    """A function (leaves of the arguments -> result) that runs one graph."""
    held = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    replay, made = _record(lambda: function(*tree_unflatten(held, spec)))
    results, shape = tree_flatten(made)
    results = [leaf.detach() for leaf in results]
    last: list[Any] = [None] * len(held)
    """for each input, the tensor that was copied last, and its version"""

    @torch.no_grad()
    def call(leaves: list[Any]) -> Any:
        mine, given = [], []
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and not (last[i] and last[i][0]() is leaf and last[i][1] == leaf._version):
                last[i] = weakref.ref(leaf), leaf._version
                mine.append(held[i])
                given.append(leaf)
        if mine:
            torch._foreach_copy_(mine, given)  # pyright: ignore[reportPrivateImportUsage]
        replay()
        kept = [torch.empty_like(leaf) for leaf in results]
        torch._foreach_copy_(kept, results)  # pyright: ignore[reportPrivateImportUsage]
        return tree_unflatten(kept, shape)

    return call


def _record(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Capture `function` in a graph. -> the graph's replay, and the result whose tensors each replay overwrites"""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(2):  # the first calls initialise libraries, which must not be captured
            function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = function()
    return graph.replay, made
