"""Files of learnt states: the parameters of some seeds of one method, with their provenance.

A state is a safetensors file whose tensors are named by seed and path (`seed0/params/head.weight`). It can be evaluated
on another machine or device than the one that trained it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leapwarp.data import store
from leapwarp.data.store import DataError
from leapwarp.learners.base import State
from leapwarp.trees import leaves

KIND = "leapwarp state"
ADVICE = "Delete it and run its rule again, or name another file."


def learnt(state: State) -> State:
    """A state without the states of outer optimizers, whose names end in "outer"."""
    return {name: part for name, part in state.items() if not name.endswith("outer")}


def empties(tree: Any, path: str) -> list[str]:
    """The paths of the empty dictionaries in `tree`."""
    if not isinstance(tree, dict):
        return []
    return [place for key, part in tree.items() for place in empties(part, f"{path}/{key}")] or [path] * (not tree)


def write(path: Path, states: dict[int, State], about: dict[str, Any]) -> None:
    """Write the states of some seeds, with their provenance as JSON values."""
    tree = {f"seed{seed}": learnt(state) for seed, state in states.items()}
    empty = [place for name, state in tree.items() for place in empties(state, name)]
    tensors = {name: leaf.clone() for name, leaf in leaves(tree).items()}  # parts of a state may share memory
    store.write(path, tensors, {"kind": KIND, "about": json.dumps(about), "empty": json.dumps(empty)})


def read(path: Path, device: torch.device | str = "cpu") -> tuple[dict[int, State], dict[str, Any]]:
    """The states by seed, on `device`, and their provenance, with the `checksum` of the file.

    Raises:
        DataError: no such file, a damaged one, or one of another kind.
    """
    if path.suffix == ".pt":
        raise DataError(f"{path}: is a checkpoint of training, needed a state (*.safetensors), as `train` writes it.")
    tensors, metadata = store.read(path, ADVICE)
    if metadata.get("kind") != KIND:
        raise DataError(f"{path}: holds {metadata.get('kind', 'something else')}, needed a state. {ADVICE}")
    tree: dict[str, Any] = {}
    for place in json.loads(metadata["empty"]):
        _branch(tree, place.split("/"))
    for name, leaf in tensors.items():
        *folders, last = name.split("/")
        _branch(tree, folders)[last] = leaf.to(device)
    about = json.loads(metadata["about"]) | {"checksum": metadata["checksum"]}
    return {int(name.removeprefix("seed")): state for name, state in tree.items()}, about


def _branch(tree: dict[str, Any], folders: list[str]) -> dict[str, Any | Tensor]:
    for folder in folders:
        tree = tree.setdefault(folder, {})
    return tree
