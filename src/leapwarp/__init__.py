"""Leap and WarpGrad: two meta-learning methods for a model of your own, and the experiments of their papers.

`leapwarp.Leap` and `leapwarp.WarpGrad` go into a training loop of yours. `lift`, `supervised` and the functions of
`leapwarp.learners` train stacks of tasks in parallel. PyTorch is imported when the first of these names is used, and so
are the modules `leapwarp.optim`, `leapwarp.learners`, `leapwarp.inner`, `leapwarp.problem` and `leapwarp.trees`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leapwarp import inner as inner
    from leapwarp import learners as learners
    from leapwarp import optim as optim
    from leapwarp import problem as problem
    from leapwarp import trees as trees
    from leapwarp.fronts import Leap, WarpGrad
    from leapwarp.inner import adapt
    from leapwarp.modules import groups
    from leapwarp.problem import cross_entropy, lift, mean_square, stack_tasks, supervised

__version__ = "1.0.0"

_PUBLIC = {
    "Leap": "fronts",
    "WarpGrad": "fronts",
    "adapt": "inner",
    "cross_entropy": "problem",
    "groups": "modules",
    "lift": "problem",
    "mean_square": "problem",
    "stack_tasks": "problem",
    "supervised": "problem",
}
_MODULES = ("inner", "learners", "optim", "problem", "trees")
__all__ = [
    "Leap",
    "WarpGrad",
    "adapt",
    "cross_entropy",
    "groups",
    "lift",
    "mean_square",
    "stack_tasks",
    "supervised",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"leapwarp.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'leapwarp' has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(import_module(f"leapwarp.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__, *_MODULES]
