"""Copy the results of a size into the documentation, for readers who have not run anything.

    python -m leapwarp.report.snapshot --folder results/quick --size-file workflow/sizes/quick.yaml --out docs/results
        --readme README.md

It writes README.md (the verdicts, the experiments, the provenance of the numbers), and a page for each experiment and
random search, with figures, and with tables and verdicts as CSV; with --rows also every measurement, where the file is
small. If some experiments of the size have not been run, the page says so, and leaves out the claims on them.
Everything else in the folder is removed, except folders that --keep names. All results must come from one commit,
except those that --other-code names. The page that --readme names gets a sentence that counts the verdicts. A claim
that a claims.csv of a kept folder has counts with the verdict there. Nothing here imports torch.
"""

import argparse
import gzip
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from leapwarp import plan
from leapwarp.catalogue import find
from leapwarp.files import atomic, one_line
from leapwarp.report import claims, origin
from leapwarp.report.document import Block, Document, Figure, Heading, Table, Text, Verdicts, markdown
from leapwarp.report.page import WIDTH, Section, Site, collect, shrunk, stand_ins, verdicts_of

GROUPS = {
    "claim": "claims of the two papers",
    "identity": "statements that should hold by mathematics or by counting",
    "other data": "claims on other data than the paper's",
}
"""the groups of claims that the README counts separately, in words"""
SENTENCE = re.compile(r"(?<=<!-- verdicts -->\n).*?(?=<!-- end of verdicts -->)", re.DOTALL)
MARKER = re.compile(r" (?=(?:[-*+>#|]|\d+[.)]) |%)")
"""spaces at which no line may be wrapped, since the next line would then begin a list, a heading, a quotation or a
table; and the space before a per cent sign"""


CONTINUED = re.compile(r"(?<=[^\n|])(?<!  )\n {0,2}(?=[^\s|#>!`*+-])(?!\d+[.)] )")
"""line breaks within a paragraph or an item of a list"""


def sentence(frame: pd.DataFrame) -> str:
    """A wrapped sentence for the README that counts the verdicts in a claims.csv."""
    said = []
    for group, name in GROUPS.items():
        mine = claims.counts(frame.loc[frame["group"] == group].drop_duplicates("id").to_dict("records"))
        found = [f"{n} {'is' if n == 1 else 'are'} {verdict}" for verdict, n in mine.items() if n]
        if found:
            listed = " and ".join([*([", ".join(found[:-1])] if found[1:] else []), found[-1]])
            said.append(f"of {sum(mine.values())} {name}, {listed}")
    return wrapped(f"O{'; '.join(said)[1:]}.\n")


def counted_claims(path: Path, kept: Sequence[Path]) -> pd.DataFrame:
    """The claims that the README counts: those of `path`, but of the folders `kept` where these have them."""
    frame = claims.merge([path])
    for larger in (folder / "claims.csv" for folder in kept):
        if larger.exists():
            there = claims.merge([larger])
            frame = pd.concat([frame.loc[~frame["id"].isin(there["id"])], there])
    return frame


def with_sentence(text: str, frame: pd.DataFrame, name: str) -> str:
    """The text of a page with the sentence between its two comments. Raises ValueError if these are missing."""
    made, n = SENTENCE.subn(lambda _: sentence(frame), text)
    if n != 1:
        between = "<!-- verdicts --> and <!-- end of verdicts -->"
        raise ValueError(f"{name}: found {n} places for the verdicts, needed one between {between}.")
    return made


def wrapped(text: str) -> str:
    """Markdown whose paragraphs are wrapped anew, at 100 characters; tables stay as they are."""
    made = []
    for line in CONTINUED.sub(" ", text).split("\n"):
        if len(line) <= 100 or line.startswith("|"):
            made.append(line)
            continue
        start = "> " if line.startswith("> ") else " " * (len(line) - len(re.sub(r"^ *(?:- )?", "", line)))
        glued = MARKER.sub("\0", line)
        options = {"width": 100, "break_long_words": False, "break_on_hyphens": False}
        made += [part.replace("\0", " ") for part in textwrap.wrap(glued, subsequent_indent=start, **options)]
    return "\n".join(made)


def one_version(sections: Sequence[Section], other: Sequence[str], out: str) -> str:
    """The code version of all runs. Raises ValueError if there are several, except for the sections `other`.

    Args:
        other: names of sections that may have another version.
    """
    strange = sorted(set(other) - {section.name for section in sections})
    if strange:
        raise ValueError(f"--other-code: found no results of {', '.join(strange)}, needed names of what is in {out}.")
    by_version: dict[str, list[str]] = {}
    for section in sections:
        for version in origin.provenance(section.runs)["versions"] if section.name not in other else ():
            by_version.setdefault(version, []).append(section.name)
    if len(by_version) == 1:
        return next(iter(by_version))
    found = "; ".join(f"{version} of {', '.join(names)}" for version, names in sorted(by_version.items()))
    raise ValueError(
        f"{out}: found results of the versions {found or 'none'}, needed one: readers must be able to make them again. "
        "Remove the folders of the others and run snakemake, or name those that may differ with --other-code."
    )


def counted(verdicts: Verdicts | None) -> str:
    return ", ".join(f"{n} {verdict}" for verdict, n in verdicts.counts.items() if n) if verdicts else "–"


def index(
    site: Site, size: plan.Size, version: str, other: Sequence[str], kept: Sequence[str], up: str = "../"
) -> Document:
    """The first page: verdicts, experiments, and the provenance of the numbers.

    Args:
        kept: pages of other runs.
        up: the way from the page to the documents.
    """
    sections = [*site.experiments, *site.searches]
    every = [run for section in sections for run in section.runs]
    made, name = origin.provenance(every), every[0]["size"]
    text = f"Made at size `{name}`: {size.about}. "
    if site.missing:
        n, ran = len(site.experiments) + len(site.missing), len(site.experiments)
        text += f"{ran} of its {n} experiments {'is' if ran == 1 else 'are'} finished and on this page. "
    text += f"All from one commit, {version}"
    if other:
        found = {section.name: ", ".join(origin.provenance(section.runs)["versions"]) for section in sections}
        text += ", **but for " + "; ".join(f"`{each}` ({found[each]})" for each in other) + "**"
    notes = [f"- Data `{source}`: {about}." for source, about in stand_ins(site.experiments).items()]
    notes += [f"- Results of other runs, not in what follows: [{each}]({each}/README.md)." for each in kept]
    blocks: list[Block] = [Text("\n\n".join([f"{text}.", "\n".join(notes)]))]
    links = [
        [
            f"[{find(each.name).title}]({each.name}/README.md)",
            find(each.name).asks,
            counted(verdicts_of(site, each.name)),
        ]
        for each in site.experiments
    ]
    links += [[f"[{each.document.title}]({place(each)}/README.md)", "", "–"] for each in site.searches]
    totals = [f"- {block.paper}: {counted(block)}." for block in site.claims.of(Verdicts)] if site.claims else []
    blocks += [Heading("Claims of the papers"), Text("\n".join(totals))]
    if site.published:
        blocks += [Heading(site.published.title), *site.published.document.blocks]
        blocks.append(Text(f"All of them as [CSV]({site.published.files[0]})."))
    blocks += [Heading("Experiments"), Table(["Experiment", "Question", "Claims"], links)]
    if site.claims:
        text = f"""How a verdict is reached: [claims.md]({up}claims.md). Every part with its effect and interval:
[claims.csv](claims.csv). What was chosen after seeing held-out data:
[deviations]({up}deviations/README.md#chosen-after-seeing-held-out-data)."""
        blocks += [Heading("Every claim"), Text(text), *site.claims.of(Verdicts)]
    runs = [["Size", f"`{name}`"], ["Machine", "; ".join(made["machines"])], ["Packages", ", ".join(made["packages"])]]
    runs += [["Runs", f"{made['n_runs']}, {made['hours']:.1f} hours of one core together"]]
    by_section = []
    for section in sections:
        mine = origin.provenance(section.runs)
        data = f"{', '.join(mine['sources'])}, `{', '.join(mine['checksums'])}`"
        row = [f"`{section.name}`", data, ", ".join(mine["versions"]), mine["first"][:10], str(mine["n_runs"])]
        by_section.append([*row, f"{mine['hours']:.2f}"])
    head = ["What", "Data, checksum", "Code (the part after +g is the commit)", "Begun", "Runs", "Hours of a core"]
    blocks += [Heading("Where the numbers come from"), Table(["", "Found"], runs), Table(head, by_section)]
    blocks.append(
        Text("Written by `make snapshot` from finished runs; do not edit. `make reproduce` makes all of it anew.")
    )
    return Document("Results of the last snapshot", blocks)


def copy(section: Section, out: Path, most: int = 0) -> list[str]:
    """Copy its figures, small, the first of its files, and its rows. Returns links to these files.

    Args:
        most: the largest size in bytes of compressed rows. Larger ones are left out.
    """
    for figure in section.document.of(Figure):
        (out / figure.path).parent.mkdir(parents=True, exist_ok=True)
        (out / figure.path).write_bytes(shrunk(section.folder / figure.path, WIDTH))
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(section.folder / section.files[0], out)
    links = [f"The table as [CSV]({section.files[0]})"]
    if "rows.csv" in section.files and most:
        rows = gzip.compress((section.folder / "rows.csv").read_bytes(), mtime=0)
        if len(rows) <= most:
            (out / "rows.csv.gz").write_bytes(rows)
            links.append("[every measurement](rows.csv.gz)")
    return links


def place(section: Section) -> str:
    """The folders of its files, in the results and in the snapshot."""
    parts = section.folder.parts
    return "/".join(parts[-3:]) if parts[-3] == "search" else section.name


def write(
    folder: Path,
    size: plan.Size,
    out: Path,
    other: Sequence[str] = (),
    readme: Path | None = None,
    kept: Sequence[str] = (),
    most: int = 0,
) -> None:
    """Write `out` and `readme`. Raises ValueError as `collect` and `one_version`, and if a result is missing.

    Args:
        kept: folders in `out` that are not changed; the page names them, and their verdicts count in `readme`.
        most: the largest size in bytes of an experiment's rows, compressed, in `out`.
    """
    site = collect(folder, list(size.experiments.values()))
    needed = ["claims.csv", "index.html"]
    needed += [f"{each.name}/{figure.path}" for each in site.experiments for figure in each.document.of(Figure)]
    needed += [figure.path for figure in site.published.document.of(Figure)] if site.published else []
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise ValueError(f"{folder}: found no {', '.join(missing)}, needed all. Run snakemake first.")
    names = [place(section) for section in [*site.experiments, *site.searches]]
    if lost := [name for name in kept if not (out / name / "README.md").exists() or name in names]:
        raise ValueError(f"--keep: needed folders in {out} with a README.md that are no experiments; got {lost}.")
    version = one_version([*site.experiments, *site.searches], other, str(folder))
    found = claims.merge([folder / "claims.csv"])
    counts = counted_claims(folder / "claims.csv", [out / name for name in kept])
    front = with_sentence(readme.read_text("utf-8"), counts, str(readme)) if readme else ""
    if site.missing:
        found = found.loc[found["experiment"].isin([section.name for section in site.experiments])]
        site = site._replace(claims=claims.document(found))
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    found.to_csv(temporary / "claims.csv", index=False, lineterminator="\n", float_format="%.6g")
    if site.published:
        copy(site.published, temporary)
    for section in [*site.experiments, *site.searches]:
        here, made = temporary / place(section), section.document
        links = copy(section, here, most)
        verdicts = verdicts_of(site, section.name)
        up = "../" * (place(section).count("/") + 1)
        files = Text("; ".join([*links, f"[all results]({up}README.md)"]) + ".")
        made = made._replace(blocks=[*([verdicts] if verdicts else []), *made.blocks, files])
        (here / "README.md").write_text(wrapped(markdown(made)), encoding="utf-8")
    up = "../" * (out.parts[::-1].index("docs") if "docs" in out.parts else 1)
    first = index(site, size, version, other, kept, up)
    (temporary / "README.md").write_text(wrapped(markdown(first)), encoding="utf-8")
    for name in kept:
        shutil.copytree(out / name, temporary / name)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    if readme:
        with atomic(readme) as path:
            path.write_text(front, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.report.snapshot", description="Copy results into the docs."
    )
    parser.add_argument("--folder", required=True, type=Path, help="results of one size, such as results/quick")
    parser.add_argument("--size-file", required=True, type=Path, metavar="YAML", help="the file of the size")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--other-code",
        nargs="+",
        default=[],
        metavar="NAME",
        help="results that may come from another commit; the page names them",
    )
    parser.add_argument("--keep", nargs="+", default=[], metavar="FOLDER", help="folders in --out to keep")
    parser.add_argument(
        "--rows", type=int, default=0, metavar="BYTES", help="keep compressed rows that are smaller than this"
    )
    parser.add_argument("--readme", type=Path, metavar="FILE", help="the page that gets the count of the verdicts")
    options = parser.parse_args(arguments)
    with one_line(parser):
        size = plan.read_size(options.size_file)
        write(options.folder, size, options.out, options.other_code, options.readme, options.keep, options.rows)
    print(f"{options.out / 'README.md'}: written")


if __name__ == "__main__":
    main()
