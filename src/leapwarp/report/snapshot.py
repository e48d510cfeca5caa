"""Copy what a size has produced into the documentation, for readers who have not run anything.

    python -m leapwarp.report.snapshot --folder results/quick --size-file workflow/sizes/quick.yaml --out docs/results

It writes README.md (where the numbers come from, verdicts, tables, figures, random searches), the tables and verdicts
as CSV, and the figures, in place of whatever was there. Nothing here imports torch.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from leapwarp import plan
from leapwarp.catalogue import Experiment
from leapwarp.files import one_line
from leapwarp.report import claims, page, search

Sections = dict[str, tuple[Experiment, list[dict[str, Any]]]]
"""what ran, by name: what its yaml says, and its runs"""


def sections(folder: Path, size: plan.Size) -> Sections:
    """The experiments of a size that ran; raises ValueError where one is unfinished or of two versions."""
    found = {}
    for about in sorted(size.experiments.values(), key=lambda about: about.name):
        path = folder / about.name / "runs.json"
        if path.exists():
            found[about.name] = (about, json.loads(path.read_text()))
    missing = [name for name in ("claims.csv", "index.html") if not (folder / name).exists()]
    tables = [f"{name}/{about.table}.md" for name, (about, _) in found.items()]
    missing += [path for path in tables if not (folder / path).exists()]
    if missing or not found:
        raise ValueError(
            f"{folder}: found no {', '.join(missing or ['*/runs.json'])}, needed all. Run snakemake first."
        )
    for name, (_, runs) in found.items():
        versions = page.provenance(runs)["versions"]
        if len(versions) > 1:
            raise ValueError(
                f"{folder / name}: found results of the versions {', '.join(versions)}, needed one for an experiment: "
                "readers must be able to make them again. Remove the folder and run snakemake."
            )
    return found


def lowered(text: str) -> str:
    """Markdown with its headings one level down."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.strip().splitlines())


def origin(found: Sections) -> list[str]:
    """Lines of tables: size, machine and packages of all runs; data, code, day and time of each experiment's."""
    every = [run for _, runs in found.values() for run in runs]
    everything = page.provenance(every)
    lines = [
        "| | |",
        "|---|---|",
        f"| Size | `{every[0]['size']}` |",
        f"| Machine | {'; '.join(everything['machines'])} |",
        f"| Packages | {', '.join(everything['packages'])} |",
        f"| Runs | {everything['n_runs']}, {everything['hours']:.1f} hours of one core together |",
        "",
        "| Experiment | Data, checksum | Code (the part after +g is the commit) | Begun | Runs | Hours of a core |",
        "|---|---|---|---|---|---|",
    ]
    for name, (_, runs) in found.items():
        mine = page.provenance(runs)
        lines.append(
            f"| `{name}` | {', '.join(mine['sources'])}, `{', '.join(mine['checksums'])}` "
            f"| {', '.join(mine['versions'])} | {mine['first'][:10]} | {mine['n_runs']} | {mine['hours']:.2f} |"
        )
    return lines


def verdicts(path: Path) -> list[str]:
    lines = ["| Claim | | Verdict | Parts |", "|---|---|---|---|"]
    for paper in page.verdicts(path):
        for claim in paper["claims"]:
            each = [part["part_verdict"] for part in claim["parts"]]
            parts = ", ".join(f"{each.count(verdict)} {verdict}" for verdict in claims.VERDICTS if verdict in each)
            where = f"{claim['claim']} *{paper['name']}, {claim['section']}*"
            lines.append(f"| {claim['id']} | {where} | **{claim['verdict']}** | {parts} |")
    return lines


def searches(made: Sequence[dict[str, Any]]) -> list[str]:
    """A heading and, for each random search, its space, trials, winner and figure; nothing where there is none."""
    if not made:
        return []
    text = [
        "## Random search",
        "Settings drawn at random and judged on validation classes, which no test class is among; the best trial wins. "
        "The WarpGrad paper (appendix I) prints neither spaces nor winners: the spaces are ours.",
    ]
    for one in made:
        text.append(f"### {one['method']} in `{one['experiment']}`")
        lines = [
            f"- {len(one['trials'])} trials of one seed each, {one['minutes']:.1f} minutes of one core together; data "
            f"{one['source']}; code {', '.join(one['versions'])}. All as [trials.csv]({place(one)}/trials.csv).",
            "- Space: " + "; ".join(f"`{name}` {drawn}" for name, drawn in one["space"].items()) + ".",
            f"- Winner: trial {one['number']}, "
            + ", ".join(f"`{key} = {v}`" for key, v in one["winner"].items())
            + ".",
            f"- Its settings are: {one['use']}.",
        ]
        text.append("\n".join(lines))
        header = ["Trial", f"{one['criterion']}, validation classes", *(f"`{name}`" for name in one["drawn"])]
        lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        for trial in one["trials"]:
            score = f"**{trial['score']}**" if trial["won"] else trial["score"]
            lines.append(f"| {' | '.join([str(trial['trial']), score, *trial['settings']])} |")
        text.append("\n".join(lines))
        if one["figure"]:
            text.append(f"![{search.CAPTION}]({place(one)}/{one['figure'].name})")
    return text


def place(one: dict[str, Any]) -> str:
    """Where a random search's files lie, in the results and in the snapshot."""
    return "/".join(one["links"][0].parts[-4:-1])


def shrunk(figure: Path, out: Path) -> None:
    """A figure in 256 colours, enough to look at, in a third of the bytes: git keeps every snapshot for ever."""
    with Image.open(figure) as picture:
        picture.convert("RGB").quantize(256).save(out, optimize=True)


def write(folder: Path, size: plan.Size, out: Path) -> None:
    """Fill `out`; raises ValueError as `sections` and `page.searched`, and where a search is of two versions."""
    found = sections(folder, size)
    made = page.searched(folder, list(found))
    for one in made:
        if len(one["versions"]) != 1:
            raise ValueError(
                f"{folder / place(one)}: found trials of the versions {', '.join(one['versions'])}, needed one. Remove "
                "the folder and run `snakemake search`."
            )
    text = [
        "# Results of the last snapshot",
        "Written by `make snapshot` from finished runs; do not edit. `make reproduce` makes the same, and a page with "
        "every interval, setting and run, in `results/`.",
        "\n".join(origin(found)),
        "## Claims of the papers",
        "How a verdict comes about: [claims.md](../claims.md). Every part with its effect and interval: "
        "[claims.csv](claims.csv).",
        "\n".join(verdicts(folder / "claims.csv")),
    ]
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    shutil.copy(folder / "claims.csv", temporary)
    for name, (about, _) in found.items():
        (temporary / name).mkdir()
        text.append(lowered((folder / name / f"{about.table}.md").read_text()))
        shutil.copy(folder / name / f"{about.table}.csv", temporary / name)
        for figure, caption in page.figures(folder, about).items():
            text.append(f"![{caption}]({name}/{figure.name})")
            shrunk(figure, temporary / name / figure.name)
    text += searches(made)
    for one in made:
        (temporary / place(one)).mkdir(parents=True)
        shutil.copy(one["links"][0], temporary / place(one))
        if one["figure"]:
            shrunk(one["figure"], temporary / place(one) / one["figure"].name)
    (temporary / "README.md").write_text("\n\n".join(text) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.report.snapshot", description="Copy results into the docs."
    )
    parser.add_argument("--folder", required=True, type=Path, help="results of one size, such as results/quick")
    parser.add_argument("--size-file", required=True, type=Path, metavar="YAML", help="the size, with its experiments")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to write")
    options = parser.parse_args(arguments)
    with one_line(parser):
        write(options.folder, plan.read_size(options.size_file), options.out)
    print(f"{options.out / 'README.md'}: written")


if __name__ == "__main__":
    main()
