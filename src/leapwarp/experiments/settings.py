"""Settings of an experiment's methods: the published ones in code, and those that a size or a command changes.

    python -m leapwarp.experiments settings workflow/sizes/quick.yaml

A size's `settings` replace the published ones first. Then `methods()` of the experiment derives each method's settings
from them. Last, the settings under the size's `methods` replace those of single methods.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from leapwarp.check import read_yaml
from leapwarp.experiments.base import Experiment

NOT_RESULTS = {"checkpoint_every", "tasks_at_a_time"}  # they change how a run is computed, and not its result


def changed(settings: Any, values: Mapping[str, Any], what: str) -> Any:
    """`settings`, a dataclass, with some replaced.

    Args:
        what: the source of the values, for the message.

    Raises:
        ValueError: an unknown setting, or a value of the wrong type or range, or that is no choice of its `Literal`.
    """
    known, hints, new = asdict(settings), get_type_hints(type(settings)), {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{what}: unknown setting {key!r} (value {value!r}). Known: {', '.join(known)}.")
        new[key] = _fitting(hints[key], known[key], value, f"{what}: the setting {key}")
    return replace(settings, **new)


def _fitting(hint: Any, before: Any, value: Any, what: str) -> Any:
    """`value` converted to the type `hint` of its setting.

    A whole number may be 0 only if the value `before` is 0 or negative, and a number negative only if that is.
    """
    if hint is Any:
        return value
    if get_origin(hint) in (Union, UnionType):
        kinds = get_args(hint)
        if value is None and NoneType in kinds:
            return None
        hint = next(kind for kind in (type(before), *kinds) if kind in kinds and kind is not NoneType)
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        if value not in inner:
            raise ValueError(f"{what} is {value!r}, needed one of {', '.join(map(repr, inner))}.")
        return value
    if kind is tuple and isinstance(value, list | tuple):
        if inner[1:] != (...,):
            return tuple(value)
        zero = min((each for each in before or () if isinstance(each, int | float) and each <= 0), default=None)
        return tuple(_fitting(inner[0], zero, item, f"{what}: item {i}") for i, item in enumerate(value, 1))
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        needed = f"as {before!r}" if before is not None else f"of the type {kind.__name__}"
        needed += ", without quotes" if isinstance(value, str) else ""
        raise ValueError(f"{what} is {value!r}, needed a value {needed}.")
    signed = isinstance(before, int | float) and before < 0
    least = -math.inf if signed else 1 if kind is int and before != 0 else 0
    if isinstance(value, int | float) and not (least <= value < math.inf and value > -math.inf):
        raise ValueError(f"{what} is {value!r}, needed a finite number{'' if signed else f' of at least {least}'}.")
    return value


def of_size(experiment: Experiment, entry: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The methods of an experiment with their settings at a size, from the size's entry for it.

    Raises:
        ValueError: as `changed`, a method is unknown, or a setting for all methods changes none.
    """
    given = entry.get("settings", {})
    shared = changed(experiment.published, given, f"{what}.settings")
    methods = experiment.methods(shared)
    for key, value in given.items():
        other = experiment.methods(replace(shared, **{key: getattr(experiment.published, key)}))
        if getattr(shared, key) != getattr(experiment.published, key) and all(
            other[name].settings == method.settings for name, method in methods.items()
        ):
            raise ValueError(
                f"{what}.settings: {key} is {value!r}, which changes no method: each has a value of its own. Write it "
                "under 'methods', for single methods."
            )
    for name, values in entry.get("methods", {}).items():
        if name not in methods:
            raise ValueError(f"{what}.methods: unknown method {name!r}. Known: {', '.join(methods)}.")
        own = changed(methods[name].settings, values, f"{what}.methods.{name}")
        methods[name] = methods[name]._replace(settings=own)
    return methods


def departures(experiment: Experiment, entry: Mapping[str, Any], what: str) -> dict[str, dict[str, dict[str, Any]]]:
    """For each method, the settings at a size that differ from its published ones, for training and for evaluation.
    -> method -> {"train": ..., "evaluate": ...}
    """
    published, found = experiment.methods(experiment.published), {}
    for name, method in of_size(experiment, entry, what).items():
        before = asdict(published[name].settings)
        new = {key: value for key, value in asdict(method.settings).items() if value != before[key]}
        found[name] = {
            "train": {key: value for key, value in new.items() if key not in experiment.evaluation},
            "evaluate": {key: value for key, value in new.items() if key in experiment.evaluation},
        }
    return found


def winner(path: Path, experiment: str, method: str, size: str, data_source: str) -> dict[str, Any]:
    """The settings in a file of a random search (`leapwarp.search`, `leapwarp.report.search`).

    Raises:
        ValueError: no such file, or one of another experiment, method, size or data source.
    """
    found = read_yaml(path, "settings, as `snakemake search` makes them")
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise ValueError(f"{path}: needed a mapping with the keys experiment, method and settings.")
    if (found.get("experiment"), found.get("method")) != (experiment, method):
        of = f"{found.get('method')} in {found.get('experiment')}"
        raise ValueError(f"{path}: has the settings of {of}, needed those of {method} in {experiment}.")
    for key, needed in (("size", size), ("data_source", data_source)):
        if found.get(key, needed) != needed:  # files of trials have neither
            raise ValueError(f"{path}: was chosen with {key} {found[key]}, needed {needed}.")
    return found["settings"]
