"""Imports have one direction. A learner imports no models, data or experiments, and a report only reads rows."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "leapwarp"
# Each part may import itself and those before it.
PLAIN = ["environment", "machine", "check", "catalogue", "plan", "files"]  # what Snakemake's own process needs
LIBRARY = [
    "host",
    "interrupt",
    "provenance",
    "rng",
    "trees",
    "modules",
    "optim",
    "problem",
    "given",
    "inner",
    "kfac",
    "learners",
]
LIBRARY += ["fit", "evaluate", "jacobian", "geometry", "fronts"]
ALLOWED = {name: {*PLAIN[: place + 1]} for place, name in enumerate(PLAIN)}
ALLOWED |= {name: {"environment", "files", *LIBRARY[: place + 1]} for place, name in enumerate(LIBRARY)}
ALLOWED |= {
    "models": {"trees", "problem", "models"},
    "data": {"files", "rng", "data"},
    "worlds": {"trees", "problem", "rng", "data", "worlds"},
    "rl": {"trees", "worlds", "models", "rl"},
    "search": {"plan", "rng"},
    "report": {*PLAIN, "report"},  # it finds report.py of an experiment by name, through the catalogue
    "report.py": {"catalogue", "report"},  # of an experiment
}
ALLOWED["experiments"] = {*ALLOWED, "experiments"} - {"report.py"}
WITHOUT_TORCH = {*PLAIN, "report", "report.py"}


def part_of(path):
    """The part of the package that a file belongs to, in the words of the rules above."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "report.py" if first == "experiments" and path.name == "report.py" else first


def imports(path):
    """All modules that a file imports, as lists of names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ([*node.module.split("."), alias.name] for alias in node.names)


def test_imports_point_one_way():
    wrong = []
    for path in ROOT.rglob("*.py"):
        part = part_of(path)
        if part == "__init__":
            continue
        assert part in ALLOWED, f"{path} is a new part: say above what it may import"
        for module in imports(path):
            own = module[0] == "leapwarp" and module[1:] != ["__version__"]
            if (own and module[1] not in ALLOWED[part]) or (part in WITHOUT_TORCH and module[0] == "torch"):
                wrong.append(f"{path.relative_to(ROOT)}: {'.'.join(module)}")
    assert not wrong


def test_only_an_experiment_imports_one():
    """Experiments are found by their folders, so only an experiment imports another one."""
    names = {path.parent.name for path in ROOT.glob("experiments/*/experiment.yaml")}
    for path in ROOT.rglob("*.py"):
        for module in imports(path) if path.parent.parent.name != "experiments" else ():
            assert module[:2] != ["leapwarp", "experiments"] or not names & set(module[2:]), f"{path}: {module}"
