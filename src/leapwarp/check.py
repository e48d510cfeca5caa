"""Reads and checks the settings files that a user edits, with errors of one line. Nothing here imports torch."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema.validators
import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if PyYAML was built with it

# Values that YAML 1.1 does not read as most people mean them: 010 as 8, 12:30 as 750, 2026-11-27 as a date.
_MISREAD = (
    (re.compile(r"[-+]?0[0-7_]+$"), "int", "an octal number"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$"), "", "a number to the base of 60"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"), "timestamp", "a date"),
    (re.compile(r"[-+]?\.(inf|nan)$", re.IGNORECASE), "float", "a number that is not finite"),
)
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")  # 1e-3, which YAML 1.1 reads as text


class _Loader(LOADER):  # type: ignore
    """A YAML loader that reads 1e-3 as a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def read_yaml(path: Path, needed: str) -> Any:
    """The content of a YAML file without ambiguous parts.

    Args:
        needed: a description of the file, for the message.

    Raises:
        ValueError: the file does not exist or is not valid YAML, a key is there twice, or YAML would not read a value
            as it looks. The message is one line, with the line numbers of the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _check_nodes(node, str(path))
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except FileNotFoundError:
        raise ValueError(f"{path}: found no such file, needed {needed}.") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path}: is not valid YAML ({' '.join(str(error).split())[:200]}).") from None


def _check_nodes(node: yaml.Node | None, what: str, seen: set[int] | None = None) -> None:
    """Raise ValueError for the first key that is twice in a mapping, or value that YAML would not read as it looks."""
    seen = set() if seen is None else seen
    if node is None or id(node) in seen:  # the target of an alias is checked at its own place
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, what)
        for _, value in node.value:
            _check_nodes(value, what, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_nodes(value, what, seen)
    elif isinstance(node, yaml.ScalarNode) and not node.style:  # without quotes
        text, line = node.value, node.start_mark.line + 1
        for pattern, tag, taken_for in _MISREAD:
            if pattern.match(text) and node.tag.endswith(tag):
                needed = f'Needed a number in usual digits, or text in quotes: "{text}"'
                raise ValueError(f"{what}, line {line}: YAML takes {text} for {taken_for}. {needed}.")


def _check_keys(node: yaml.MappingNode, what: str) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        name, line = str(key.value)[:80], key.start_mark.line + 1
        if not key.tag.endswith((":str", ":merge")):
            raise ValueError(f'{what}, line {line}: YAML does not take the key {name} for text: write "{name}".')
        if name in first:
            both = f"in lines {first[name]} and {line}" if line != first[name] else f"in line {line}"
            raise ValueError(f"{what}: the key {name!r} is there twice, {both}: keep one.")
        first[name] = line


def _is_whole(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# 3.0 is not accepted as a whole number, since range(3.0) is an error.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole),
)


def check(value: Any, schema: dict[str, Any], what: str) -> None:
    """Raise ValueError for the first mistake, with a message of one line: the key, its value, and the allowed values.

    Args:
        schema: a JSON schema. The description of a value is the text after "Allowed:" in the message.
        what: the name of the file, for the message.
    """
    errors = _Validator(schema).iter_errors(value)
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
    more = ""
    if isinstance(instance, bool):
        more = " YAML reads yes, no, on and off as true and false: a name or text of these letters needs quotes."
    elif instance is None:
        more = " There is no value after the colon." if key else " The file is empty."
    raise ValueError(f"{what}: {found} {instance!r}. Allowed: {rules['description']}.{more}")
