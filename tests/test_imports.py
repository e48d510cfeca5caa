"""Imports point one way: a learner sees names and tensors, not models, data or experiments."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "leapwarp"
ORDER = ["files", "host", "interrupt", "provenance", "rng", "search", "trees", "optim", "problem", "inner", "kfac"]
ORDER += ["learners", "fit", "evaluate", "jacobian", "geometry", "experiments"]
# For experiments only, and they know only what is below them.
ALLOWED = {
    "models": {"trees", "problem", "models"},
    "data": {"files", "rng", "data"},
    "worlds": {"trees", "problem", "worlds"},
    "rl": {"trees", "worlds", "models", "rl"},
}
REPORT = {"results", "tables", "figures", "claims", "page", "snapshot"}  # read rows; no torch, nothing of the library


def modules(path):
    """All modules that a file imports, by their first names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


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
                assert "torch" not in set(modules(path)), f"{path} imports torch"
            elif part != "experiments":
                assert target in ORDER[: ORDER.index(part) + 1], f"{path} imports {target}"
