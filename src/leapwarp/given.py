"""What the functions of the library are given, checked when they are called."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from leapwarp.modules import kind_of
from leapwarp.optim import Optimizer
from leapwarp.problem import Problem

P = ParamSpec("P")
R = TypeVar("R")

PROBLEM = (lambda value: isinstance(value, Problem), "leapwarp.supervised(leapwarp.lift(module), loss)")
OPTIMIZER = (lambda value: isinstance(value, Optimizer), "one of leapwarp.optim, such as leapwarp.optim.sgd(0.1)")
NUMBER = (lambda value: hasattr(value, "__index__") and not isinstance(value, torch.Tensor), "a whole number")
STACK = (lambda value: isinstance(value, dict), "a dictionary of stacks of tensors, such as learner.start gives")
# By the name of an argument: whether a value will do, and what is needed.
NEEDED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "problem": PROBLEM,
    **dict.fromkeys(("inner", "outer", "warp_outer", "optimizer"), OPTIMIZER),
    **dict.fromkeys(("steps", "size"), NUMBER),
    **dict.fromkeys(("params", "fixed"), STACK),
    "tasks": (lambda value: hasattr(value, "order"), "tasks of leapwarp.stack_tasks"),
}


def check_given(function: Callable[P, R]) -> Callable[P, R]:
    """The function with a check of those of its arguments that are in `NEEDED`.

    Raises:
        TypeError: one of them is something else.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in NEEDED and not NEEDED[name][0](value):
                raise TypeError(f"{name} is {kind_of(value)}; needed {NEEDED[name][1]}.")
        return function(*args, **kwargs)

    return checked
