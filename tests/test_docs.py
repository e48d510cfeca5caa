"""The documents: the site builds, code runs, links lead to existing targets, and lines are short."""

import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import leapwarp
from leapwarp import catalogue, learners
from leapwarp.report import claims, snapshot

REPO = Path(__file__).parents[1]
HAS_SITE = all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings"))
OUTSIDE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "examples/README.md"]
PAGES = OUTSIDE + sorted(path.relative_to(REPO).as_posix() for path in (REPO / "docs").rglob("*.md"))
RUN = ["docs/index.md", "docs/faq.md", "docs/guides/leap.md", "docs/guides/warpgrad.md", "docs/guides/official.md"]


def prose(page):
    """The lines of a page outside blocks of code."""
    inside, lines = False, []
    for line in (REPO / page).read_text().splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            lines.append(line)
    return lines


def anchors(page):
    """The anchors of a page's headings, as GitHub and the site make them."""
    found = set()
    for line in prose(page):
        if heading := re.match(r"#+ (.+)", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower().strip()
            anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            twice = sum(1 for other in found if re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other))
            found.add(f"{anchor}-{twice}" if twice else anchor)
    return found


def broken(page):
    """Links of a page to files of the repository, or to anchors in them, that do not exist."""
    text = re.sub(r"`[^`]*`", "", "\n".join(prose(page)))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)
    labels = set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
    said = [f"[{label}]" for label in re.findall(r"\]\[([a-z0-9-]+)\]", text) if label not in labels]
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        if not (REPO / to).exists() or (anchor and anchor not in anchors(to)):
            said.append(target)
    return said


@pytest.mark.parametrize("page", PAGES)
def test_links_between_documents_lead_to_files_and_headings_that_exist(page):
    assert broken(page) == []


def test_a_link_to_nowhere_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "REPO", tmp_path)
    (tmp_path / "a.md").write_text("# One thing\n[x](b.md) [y](a.md#one-thing) [z](#other) [w][v]\n")
    assert broken("a.md") == ["[v]", "b.md", "#other"]


@pytest.mark.parametrize("page", PAGES)
def test_lines_and_cells_of_documents_are_short(page):
    lines = (REPO / page).read_text().splitlines()
    long = [line for line in lines if len(line) > 120 and not line.lstrip().startswith("|")]
    wide = [c for line in lines if line.lstrip().startswith("|") for c in line.split("|") if len(c.strip()) > 200]
    assert not long, f"{len(long)} lines of {page} have more than 120 characters: {long[:1]}"
    assert not wide, f"{len(wide)} cells of {page} have more than 200 characters: {wide[:1]}"


def test_the_readme_fits_a_few_screens_and_counts_the_verdicts_of_the_last_snapshot():
    text = (REPO / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    results = REPO / "docs/results"
    frames = [claims.merge([folder / "claims.csv"]) for folder in (results, results / "overnight")]
    counted = snapshot.counted_claims(frames)
    assert snapshot.with_sentence(text, counted, "README.md") == text


def test_every_verdict_is_listed_and_the_readme_says_how_many_paper_can_decide():
    results, page = REPO / "docs/results", REPO / "docs/verdicts.md"
    frames = {folder: claims.merge([folder / "claims.csv"]) for folder in (results, results / "overnight")}
    assert page.read_text() == snapshot.every_verdict(frames, page)
    rows = [line for line in script("coverage").stated().splitlines() if line.startswith("| paper")]
    whole = [row.split(",")[0].split()[-1] for row in rows if re.search(r"\| (\d+) of \1 +\|", row)]
    assert not {"W1", "W2"} & set(whole)
    said = f"[power](docs/power.md) {len(whole)} of the claims, W1 and W2 not among them"
    assert said in (REPO / "README.md").read_text()


def test_the_page_of_experiments_has_all_of_them_as_they_say_themselves():
    rows = [re.split(r" *\| *", line)[1:4] for line in (REPO / "docs/experiments.md").read_text().splitlines()]
    said = {name: catalogue.find(name) for name in catalogue.names()}
    for name, about in said.items():
        assert [f"`{name}`", about.where, about.asks] in rows


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    """Blocks that begin with ```python are run. Those of the official packages begin with ```py and are not."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", (REPO / page).read_text(), re.DOTALL)
    for number, code in enumerate(blocks):
        exec(compile(code, f"{page}, block {number}", "exec"), names)
    assert blocks
    if page == "docs/index.md":
        assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 15
        losses = [float(line.split(": ")[1]) for line in capsys.readouterr().out.splitlines()]
        assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    elif page == "docs/guides/leap.md":
        assert names["learnt_loss"] < 0.7 * names["fresh_loss"]
    elif page == "docs/guides/warpgrad.md":
        assert names["history"][-1]["warp_loss"] < 0.7 * names["history"][0]["warp_loss"]


def test_the_reference_has_every_public_name():
    text = "".join(path.read_text() for path in (REPO / "docs/api").glob("*.md"))
    shown = {line.rsplit(".", 1)[1] for line in re.findall(r"^::: (\S+)", text, re.MULTILINE)}
    own = "".join(path.read_text() for path in (REPO / "examples/own/waves").glob("*.py"))
    used = {
        name
        for names in re.findall(r"^from leapwarp[.\w]* import (.+)", own, re.MULTILINE)
        for name in names.split(", ")
    }
    used |= set(re.findall(r"(?:draw|looks)\.(\w+)", own))
    assert set(leapwarp.__all__) | set(learners.__all__) | {"Task", "WarpTask"} <= shown
    assert used - {"draw", "looks"} <= shown


def script(name: str):
    """A script of the folder `benchmarks` as a module."""
    spec = importlib.util.spec_from_file_location(name, REPO / f"benchmarks/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_powers_has_what_the_tables_of_the_sizes_give():
    coverage, text = script("coverage"), (REPO / "docs/power.md").read_text()
    assert f"{coverage.detectable()}\n\n{coverage.stated()}\n<!-- end of power -->" in text
    (line,) = (line for line in text.splitlines() if re.match(r"\| overnight +\| W1,", line))
    assert " 7 of 7 " in line  # parts at a power of 0.8


@pytest.mark.parametrize(("size", "folder"), [("quick", "docs/results"), ("overnight", "docs/results/overnight")])
def test_the_powers_in_reasons_are_those_of_the_tables(size, folder):
    found = pd.read_csv(REPO / folder / "claims.csv")
    stated = claims.read_power(REPO / f"workflow/sizes/{size}.power.csv")
    parts = found["id"].value_counts()
    mine = found.loc[(found["size"] == size) & found["reason"].str.startswith("power ", na=False)]
    assert len(mine) > 3
    for line in mine.to_dict("records"):
        about = stated[line["id"], line["part"]]
        said = claims.underpowered(about, line["n_seeds"], parts[line["id"]], math.inf, 0.8)
        assert line["reason"].split(";")[0] == said, (line["id"], line["part"])


def test_findings_have_the_table_of_the_released_code_as_its_rows_give_it(tmp_path):
    released = script("released")
    assert released.table(REPO / "benchmarks/released.csv") in (REPO / "docs/findings.md").read_text()
    with pytest.raises(SystemExit, match="no src/omniglot/wrapper.py; needed a clone of flennerhag/warpgrad"):
        released.checkout(tmp_path)


def test_the_citation_has_the_version_of_the_package():
    assert yaml.safe_load((REPO / "CITATION.cff").read_text())["version"] == leapwarp.__version__


def test_forms_for_numbers_and_bugs_ask_for_runs_json():
    for name in ("bug", "numbers"):
        form = yaml.safe_load((REPO / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
        assert any("runs.json" in part["attributes"].get("description", "") for part in form["body"])


@pytest.mark.slow
@pytest.mark.skipif(not HAS_SITE, reason="the site is not built: pip install -e '.[docs]' brings what it needs")
def test_the_site_builds_without_a_warning_and_asks_nothing_of_the_network(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    for page, text in pages.items():
        assets = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\" >]+)", text)
        assets += re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preconnect|icon)\"?[^>]* href=\"?([^\" >]+)", text)
        assert assets and not [each for each in assets if re.match(r"(https?:)?//", each)], page
    assert 'id="leapwarp.fronts.leap.Leap.task"' in pages["api/fronts.html"]
    assert "<code>omniglot_warp</code>" in pages["experiments.html"]
    assert 'href="examples.html"' in pages["library.html"]  # in the repository ../examples/README.md
    assert re.search(r"<em>Gate.</em>(?:(?!<li>).)*<ul>\n<li>Learnt", pages["claims.html"], re.DOTALL)  # a nested list
    assert "warp_leap_online" in (tmp_path / "search/search_index.json").read_text()


def test_every_line_of_reliability_names_tests_that_exist():
    lines = (REPO / "docs/reliability.md").read_text(encoding="utf-8").splitlines()
    cells = [line.rpartition(" | ")[2].removesuffix(" |") for line in lines if line.startswith("| ")]
    cells = [cell for cell in cells if cell != "Test"]  # the heads of the tables
    files = {path.name: path.read_text(encoding="utf-8") for path in (REPO / "tests").rglob("test_*.py")}
    assert len(cells) > 40
    for cell in cells:
        named = [name.rpartition("/")[2] for name in re.findall(r"`([^`]+)`", cell)]
        assert named, cell
        for name in named:
            start = name.removesuffix("…").rstrip("_")
            assert name in files or any(f"def test_{start}" in text for text in files.values()), name
