"""Files of settings that a user edits: read, held against a schema, refused in one line. Nothing here imports torch."""

from pathlib import Path
from typing import Any

import jsonschema
import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it


def read_yaml(path: Path, needed: str) -> Any:
    """What a YAML file holds; raises ValueError where there is none, with `needed` saying what should be there."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except FileNotFoundError:
        raise ValueError(f"{path}: found no such file, needed {needed}.") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no YAML ({' '.join(str(error).split())[:200]}).") from None


def check(value: Any, schema: dict[str, Any], what: str) -> None:
    """Raise ValueError at the first mistake, in one line: the key, its value, and what is allowed there.

    Args:
        schema: a JSON schema, in which the description of each value is what the message calls "allowed".
        what: the name of the file, for the message.
    """
    errors = jsonschema.Draft202012Validator(schema).iter_errors(value)
    error = min(errors, key=lambda error: error.json_path, default=None)
    if error is None:
        return
    key = error.json_path.removeprefix("$").removeprefix(".")
    rules, instance = dict(error.schema), error.instance  # type: ignore[arg-type]
    if error.validator == "additionalProperties" and "properties" in rules:
        unknown = next(name for name in instance if name not in rules["properties"])
        key = f"{key}.{unknown}".removeprefix(".")
        allowed = ", ".join(rules["properties"])
        raise ValueError(f"{what}: unknown key '{key}' (value {instance[unknown]!r}). Allowed here: {allowed}.")
    if error.validator == "required":
        missing = next(name for name in rules["required"] if name not in instance)
        key = f"{key}.{missing}".removeprefix(".")
        raise ValueError(f"{what}: the key '{key}' is missing. Needed here: {', '.join(rules['required'])}.")
    found = f"'{key}' is" if key else "found"
    raise ValueError(f"{what}: {found} {instance!r}. Allowed: {rules['description']}.")
