"""Files of learnt states: the parameters of some runs of one method, with their provenance.

A state is a safetensors file. Its tensors are named by number of tasks, seed and path: `tasks5-seed0/params/head.bias`,
or `seed0/...` where tasks are not counted. It can be evaluated on another machine or device than that of its training.
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


def name(n_tasks: int, seed: int) -> str:
    """The name of a run in a state."""
    return f"tasks{n_tasks}-seed{seed}" if n_tasks else f"seed{seed}"


def write(path: Path, states: dict[tuple[int, int], State], about: dict[str, Any]) -> None:
    """Write the states of some runs, by number of tasks (0: not counted) and seed, with their provenance as JSON."""
    tree = {name(*key): learnt(state) for key, state in states.items()}
    empty = [place for run, state in tree.items() for place in empties(state, run)]
    tensors = {place: leaf.clone() for place, leaf in leaves(tree).items()}  # parts of a state may share memory
    store.write(path, tensors, {"kind": KIND, "about": json.dumps(about), "empty": json.dumps(empty)})


def read(path: Path, device: torch.device | str = "cpu") -> tuple[dict[tuple[int, int], State], dict[str, Any]]:
    """The states by number of tasks and seed, on `device`, and their provenance, with the `checksum` of the file.

    Raises:
        DataError: no such file, a damaged one, or one of another kind or an older version.
    """
    if path.suffix == ".pt":
        raise DataError(f"{path}: is a checkpoint of training, needed a state (*.safetensors), as `train` writes it.")
    tensors, metadata = store.read(path, ADVICE)
    if metadata.get("kind") != KIND:
        raise DataError(f"{path}: holds {metadata.get('kind', 'something else')}, needed a state. {ADVICE}")
    tree: dict[str, Any] = {}
    for place in json.loads(metadata["empty"]):
        _branch(tree, place.split("/"))
    for place, leaf in tensors.items():
        *folders, last = place.split("/")
        _branch(tree, folders)[last] = leaf.to(device)
    about = json.loads(metadata["about"]) | {"checksum": metadata["checksum"]}
    found = {}
    for count in about["n_tasks"] if isinstance(about["n_tasks"], list) else []:
        found |= {(count, seed): tree[name(count, seed)] for seed in about["seeds"] if name(count, seed) in tree}
    if len(found) < len(tree):
        raise DataError(f"{path}: was written by an older version of leapwarp. {ADVICE}")
    return found, about


def _branch(tree: dict[str, Any], folders: list[str]) -> dict[str, Any | Tensor]:
    for folder in folders:
        tree = tree.setdefault(folder, {})
    return tree
