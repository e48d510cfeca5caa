"""Imports point one way: a learner sees names and tensors, not models, data or experiments."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "leapwarp"
ORDER = ["files", "host", "rng", "trees", "optim", "problem", "inner", "learners", "fit", "evaluate", "experiments"]
LEAVES = {"models", "data"}  # for experiments only, and they know only what is below them
ALLOWED = {"models": {"trees", "problem", "models"}, "data": {"files", "rng", "data"}}
REPORT = {"results", "tables", "figures"}  # read rows; no torch, nothing of the library


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("leapwarp"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]


def test_imports_point_one_way():
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for target in set(imports(path)) - {"__version__"}:
            if part in ALLOWED:
                assert target in ALLOWED[part], f"{path} imports {target}"
            elif part in REPORT:
                assert target in REPORT | {"files"}, f"{path} imports {target}"
            elif part != "experiments":
                assert target in ORDER[: ORDER.index(part) + 1], f"{path} imports {target}"
