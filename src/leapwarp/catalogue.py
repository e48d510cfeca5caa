"""The catalogue of experiments: every folder with an `experiment.yaml` is one. Nothing here imports torch.

An experiment's folder has three files. `experiment.yaml` gives its title, data, methods and captions. `run.py` trains
and evaluates. `report.py` makes its document and figures. Folders of the package are found by name, and a user's own by
their path.
"""

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from leapwarp.check import check, read_yaml

FOLDER = Path(__file__).parent / "experiments"
FILE = "experiment.yaml"


class Look(NamedTuple):
    """The name, colour and marker of a method, in tables and figures."""

    name: str
    colour: str = "#5E3C99"
    marker: str = "p"
    dashed: bool = False
    """whether its line is dashed: for methods without pretraining"""


class Method(NamedTuple):
    look: Look
    trains: bool = True
    """whether it is trained; other methods are only evaluated"""
    default: bool = True
    """whether it is run if config.yaml and the size do not name methods"""


class Experiment(NamedTuple):
    """The content of an `experiment.yaml`; `experiments/experiment.schema.yaml` explains its keys."""

    name: str
    folder: Path
    code: Path
    """the folder of its run.py and report.py: its own, or that of the experiment named under `like`"""
    title: str
    asks: str
    where: str
    paper: str
    printed: str | None
    data: str | None
    most_tasks: int
    """the largest number of pretraining tasks; 0 if tasks are not counted"""
    arrays: bool
    table: str
    figures: dict[str, str]
    """captions by name"""
    methods: dict[str, Method]
    """methods by name, in the order of legends and columns"""
    search: dict[str, Any] | None

    def module(self, name: str) -> ModuleType:
        """Its `run` or `report`, imported."""
        package = importlib.import_module("leapwarp.experiments")
        if self.code.parent != FOLDER and str(self.code.parent) not in package.__path__:
            package.__path__.append(str(self.code.parent))
        return importlib.import_module(f"leapwarp.experiments.{self.code.name}.{name}")


def names() -> list[str]:
    """The names of the package's experiments, sorted."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{FILE}"))


@cache
def schema() -> dict[str, Any]:
    return read_yaml(FOLDER / "experiment.schema.yaml", "the schema of experiments")


@cache
def shared_looks() -> dict[str, Look]:
    """The looks of methods that several experiments share."""
    found = read_yaml(FOLDER / "methods.yaml", "the looks of methods that several experiments have")
    return {name: Look(**about) for name, about in found.items()}


_own: dict[str, Path] = {}  # experiments that were found by their path; after that they are also found by name


@cache
def find(where: str) -> Experiment:
    """An experiment of the package by its name, or any experiment by the path of its folder (which has a slash).

    Raises:
        ValueError: it does not exist, its file does not fit the schema, or the package has something with its name.
    """
    folder = Path(where).resolve() if "/" in where else _own.get(where, FOLDER / where)
    if not (folder / FILE).is_file():
        raise ValueError(
            f"found no experiment {where!r}, needed one of {', '.join(names())}, or the path of a folder with {FILE}."
        )
    if folder.parent != FOLDER:
        if (FOLDER / folder.name).is_dir() or (FOLDER / f"{folder.name}.py").is_file():
            raise ValueError(
                f"{folder}: leapwarp.experiments already has {folder.name}. Give the folder of your own experiment "
                "another name."
            )
        _own[folder.name] = folder
    found, code = _raw(folder)
    figures = {name: " ".join(text.split()) for name, text in found["figures"].items()}
    methods = {name: _method(folder / FILE, name, said or {}) for name, said in found["methods"].items()}
    return Experiment(
        name=folder.name,
        folder=folder,
        code=code,
        title=found["title"],
        asks=found.get("asks", ""),
        where=found.get("where", ""),
        paper=found["paper"],
        printed=found.get("printed"),
        data=found.get("data"),
        most_tasks=found.get("most_tasks", 0),
        arrays=found.get("arrays", False),
        table=found["table"],
        figures=figures,
        methods=methods,
        search=found.get("search"),
    )


def _raw(folder: Path) -> tuple[dict[str, Any], Path]:
    """The keys of an experiment, completed by those of the one named under `like`; and the folder of its code."""
    path = folder / FILE
    found = read_yaml(path, "what an experiment says about itself")
    if not isinstance(found, dict) or "like" not in found:
        check(found, schema(), str(path))
        return found, folder
    places = [place / found["like"] for place in (FOLDER, folder.parent)]
    like = next((place for place in places if (place / FILE).is_file() and place != folder), None)
    if like is None:
        raise ValueError(
            f"{path}: 'like' is {found['like']!r}; needed one of {', '.join(names())}, or the name of a folder beside "
            f"this one with {FILE}."
        )
    base, code = _raw(like)
    chosen = found.get("methods", list(base["methods"]))
    unknown = [name for name in chosen if name not in base["methods"]]
    if unknown:
        raise ValueError(f"{path}: 'methods' has {', '.join(unknown)}. Allowed: {', '.join(base['methods'])}.")
    merged = base | found | {"methods": {name: said for name, said in base["methods"].items() if name in chosen}}
    if "search" in merged:
        spaces = {name: space for name, space in merged["search"]["spaces"].items() if name in chosen}
        merged["search"] = merged["search"] | {"spaces": spaces}
    check({key: value for key, value in merged.items() if key != "like"}, schema(), str(path))
    return merged, code


def _method(path: Path, name: str, said: dict[str, Any]) -> Method:
    flags = {key: said[key] for key in ("trains", "default") if key in said}
    own = {key: value for key, value in said.items() if key not in flags}
    if not own and name in shared_looks():
        return Method(shared_looks()[name], **flags)
    if own and name in shared_looks():
        raise ValueError(f"{path}: 'methods.{name}' has its own look, and methods.yaml has another one: keep one.")
    if "name" not in own:
        raise ValueError(f"{path}: 'methods.{name}' has no look. Needed here: name, colour, marker.")
    return Method(Look(**own), **flags)
