"""What mkdocs does beside its own: pages from outside docs/, and the links between them."""

import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

REPO = Path(__file__).parents[1]
PAGES = {  # files outside docs/ -> pages of the site
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
NESTED = re.compile(r"^ {2,3}(?=(?:[-*]|\d+\.) )", re.MULTILINE)  # mkdocs nests lists from four spaces on
BEFORE_LIST = re.compile(r"^(?=[^\s|#-])(.*)\n(?=- )", re.MULTILINE)  # and wants an empty line before one


def on_config(config: Any) -> Any:
    """Every page of results is in the contents, whatever a snapshot has written there."""
    findings = next(part["Findings"] for part in config.nav if "Findings" in part)
    pages = sorted(path.relative_to(REPO / "docs").as_posix() for path in (REPO / "docs/results").rglob("*.md"))
    after = findings.index("results/README.md") + 1
    findings[after:after] = [page for page in pages if page not in findings]
    return config


def on_files(files: Any, config: Any) -> Any:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(REPO / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links lead to pages of the site, and lists nest as they do on GitHub.

    What has no page, such as a source file, is named without a link.
    """
    here = page.file.src_uri
    folder = os.path.dirname(SOURCES.get(here, f"docs/{here}"))

    def link(match: re.Match[str]) -> str:
        label, (target, *anchor) = match[1], match[2].split("#", 1)
        if not target or ":" in target:
            return match[0]
        path = os.path.normpath(os.path.join(folder, target))
        if path == "README.md":
            path = "docs/index.md"
        if path not in PAGES and not path.startswith("docs/"):
            return label
        to = os.path.relpath(PAGES.get(path, path.removeprefix("docs/")), os.path.dirname(here) or ".")
        return f"[{label}]({'#'.join([to, *anchor])})"

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)  # code is every second
    parts[::2] = [BEFORE_LIST.sub(r"\1\n\n", NESTED.sub("    ", LINK.sub(link, part))) for part in parts[::2]]
    return "".join(parts)
