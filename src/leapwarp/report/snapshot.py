"""Copy the results of a size into the documentation, for readers who have not run anything.

    python -m leapwarp.report.snapshot --folder results/quick --size-file workflow/sizes/quick.yaml --out docs/results
        --readme README.md --verdicts docs/verdicts.md

It writes README.md (the verdicts, the experiments, the provenance of the numbers), and a page for each experiment and
random search, with figures, and with tables and verdicts as CSV; with --rows also every measurement, where the file is
small. If some experiments of the size have not been run, the page says so, and leaves out the claims on them.
Everything else in the folder is removed, except folders that --keep names. All results must come from one commit,
except those that --other-code names. The page that --readme names gets a sentence that counts the verdicts, and the
one that --verdicts names lists them. A claim that a claims.csv of a kept folder has counts with the verdict there.
Nothing here imports torch.

A size whose experiments run on several days or machines grows in steps: with --add, experiments that the last snapshot
has and the results have not stay as they are, whatever their commit. Only the snapshot is needed for this.

    python -m leapwarp.report.snapshot --folder results/overnight --size-file workflow/sizes/overnight.yaml
        --out docs/results/overnight --add --readme README.md --verdicts docs/verdicts.md --base docs/results/claims.csv
"""

import argparse
import gzip
import json
import os
import re
import shutil
import tempfile
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leapwarp import plan
from leapwarp.catalogue import Experiment, find
from leapwarp.files import atomic, one_line
from leapwarp.report import claims, origin, published
from leapwarp.report.document import Block, Document, Figure, Heading, Table, Text, Verdicts, markdown
from leapwarp.report.page import WIDTH, Section, Site, collect, shrunk, stand_ins, verdicts_of

GROUPS = {
    "claim": "claims of the two papers",
    "identity": "statements of mathematics or counting, such as that the simplest Leap is Reptile",
    "other data": "claims on other data than the paper's",
}
"""the groups of claims that the README counts separately, in words"""
SENTENCE = re.compile(r"(?<=<!-- verdicts -->\n).*?(?=<!-- end of verdicts -->)", re.DOTALL)
MARKER = re.compile(r" (?=(?:[-*+>#|]|\d+[.)]) |%)")
"""spaces at which no line may be wrapped, since the next line would then begin a list, a heading, a quotation or a
table; and the space before a per cent sign"""


ORIGIN = "provenance.json"
"""a file beside each experiment's table: what `origin.provenance` found in its runs, for later snapshots"""
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


def counted_claims(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The claims that the README counts: each as the last of several claims.csv has it."""
    found = frames[0]
    for later in frames[1:]:
        found = pd.concat([found.loc[~found["id"].isin(later["id"])], later])
    return found


def every_verdict(frames: Mapping[Path, pd.DataFrame], page: Path) -> str:
    """The text of a page with the verdicts that the README counts, each with a link to its experiment's results.

    Args:
        frames: claims.csv by the folder of the results that it is of; a later one replaces verdicts of earlier ones.
        page: the file that the text is for.
    """
    every = counted_claims([frame.assign(folder=str(folder)) for folder, frame in frames.items()])
    blocks: list[Block] = [
        Text(
            "Every claim has the verdict of the largest size at which its experiment has run. Numbers and figures are "
            "behind the links. How a verdict is reached: [claims.md](claims.md). What we believe where a paper is "
            "contradicted: [findings.md](findings.md)."
        )
    ]
    for group, name in GROUPS.items():
        mine = every.loc[every["group"] == group].drop_duplicates("id")
        for verdict in claims.VERDICTS:
            found = mine.loc[mine["verdict"] == verdict].to_dict("records")
            lines = []
            for each in found:
                results = Path(each["folder"]) / each["experiment"] / "README.md"
                where = f"`{each['experiment']}`"
                if results.exists():
                    where = f"[{where}]({os.path.relpath(results, page.parent)})"
                paper = {"leap": "Leap", "warpgrad": "WarpGrad"}.get(each["paper"], each["paper"])
                said = f"{each['claim']} *{paper}, {each['section']}*"
                lines.append(f"- {each['id']} ({where}, size `{each['size']}`): {said}")
            if lines:
                title = f"{name[:1].upper()}{name[1:]}: {len(lines)} {verdict}"
                blocks += [Heading(title), Text("\n".join(lines))]
    blocks.append(Text("Written by `python -m leapwarp.report.snapshot --verdicts`; do not edit."))
    return wrapped(markdown(Document("Every verdict", blocks)))


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


def one_version(made: Mapping[str, dict[str, Any]], other: Sequence[str], out: str) -> str:
    """The code version of all runs. Raises ValueError if there are several, except for the sections `other`.

    Args:
        made: the provenance of each section, by its name.
        other: names of sections that may have another version.
    """
    if strange := sorted(set(other) - set(made)):
        raise ValueError(f"--other-code: found no results of {', '.join(strange)}, needed names of what is in {out}.")
    by_version: dict[str, list[str]] = {}
    for name, each in made.items():
        for version in each["versions"] if name not in other else ():
            by_version.setdefault(version, []).append(name)
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
    site: Site,
    size: plan.Size,
    made: Mapping[str, dict[str, Any]],
    other: Sequence[str],
    kept: Sequence[str],
    up: str = "../",
) -> Document:
    """The first page: verdicts, experiments, and the provenance of the numbers.

    Args:
        made: the provenance of each section, by its name.
        other: names of sections that may have another version than the rest.
        kept: pages of other runs.
        up: the way from the page to the documents.
    """
    every = origin.together(list(made.values()))
    text = f"Made at size `{size.name}`: {size.about}. "
    if site.missing:
        n, ran = len(site.experiments) + len(site.missing), len(site.experiments)
        text += f"{ran} of its {n} experiments {'is' if ran == 1 else 'are'} finished and on this page. "
    usual = one_version(made, other, size.name)
    if other:
        named = [f"`{each}` is from {', '.join(made[each]['versions'])}" for each in other]
        text += f"Versions of the code: {', '.join(named)}, and all others are from {usual}"
    else:
        text += f"All from one commit, {usual}"
    sources = [source for each in site.experiments for source in made[each.name]["sources"]]
    notes = [f"- Data `{source}`: {about}." for source, about in stand_ins(sources).items()]
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
    runs = [["Size", f"`{size.name}`"], ["Machine", "; ".join(every["machines"])]]
    runs += [["Packages", ", ".join(every["packages"])]]
    runs += [["Runs", f"{every['n_runs']}, {every['hours']:.1f} hours of one core together"]]
    by_section = []
    for name, mine in made.items():
        data = f"{', '.join(mine['sources'])}, `{', '.join(mine['checksums'])}`"
        row = [f"`{name}`", data, ", ".join(mine["versions"]), mine["first"][:10], str(mine["n_runs"])]
        by_section.append([*row, f"{mine['hours']:.2f}"])
    head = ["What", "Data, checksum", "Code (the part after +g is the commit)", "Begun", "Runs", "Hours of a core"]
    blocks += [Heading("Where the numbers come from"), Table(["", "Found"], runs), Table(head, by_section)]
    blocks.append(
        Text("Written by `make snapshot` from finished runs; do not edit. `make reproduce` makes all of it anew.")
    )
    return Document(f"Results at size {size.name}", blocks)


def copy(section: Section, out: Path, most: int = 0) -> list[str]:
    """Copy its figures, small, the first of its files, and its rows. Returns links to these files.

    Args:
        most: the largest size in bytes of compressed rows. Larger ones are kept without curves, or left out.
    """
    for figure in section.document.of(Figure):
        (out / figure.path).parent.mkdir(parents=True, exist_ok=True)
        (out / figure.path).write_bytes(shrunk(section.folder / figure.path, WIDTH))
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(section.folder / section.files[0], out)
    links = [f"The table as [CSV]({section.files[0]})"]
    if "rows.csv" in section.files and most:
        rows, said = (section.folder / "rows.csv").read_bytes(), "every measurement"
        if len(gzip.compress(rows, mtime=0)) > most:  # what tables and most verdicts need
            every = pd.read_csv(section.folder / "rows.csv", dtype=str, keep_default_na=False)
            rows = every.loc[every["step"] == ""].to_csv(index=False, lineterminator="\n").encode()
            said = "every measurement but the points of curves"
        packed = gzip.compress(rows, mtime=0)
        if len(packed) <= most:
            (out / "rows.csv.gz").write_bytes(packed)
            links.append(f"[{said}](rows.csv.gz)")
    return links


def place(section: Section) -> str:
    """The folders of its files, in the results and in the snapshot."""
    parts = section.folder.parts
    return "/".join(parts[-3:]) if parts[-3] == "search" else section.name


def grown(
    site: Site, found: pd.DataFrame, made: dict[str, dict[str, Any]], out: Path, abouts: Sequence[Experiment]
) -> tuple[Site, pd.DataFrame, dict[str, dict[str, Any]]]:
    """Results, their claims and provenance, with the experiments and searches of the last snapshot that they have not.

    The documents of these experiments are empty, since their pages stay as they are. Claims are sorted by number.
    """
    old = {
        each.name: Section(each.name, out / each.name, Document(each.title, []), [], [], each.title)
        for each in site.missing
        if (out / each.name / ORIGIN).exists()
    }
    searches = {section.name: section for section in site.searches}
    for path in sorted((out / "search").glob(f"*/*/{ORIGIN}")):
        title = (path.parent / "README.md").read_text("utf-8").partition("\n")[0].removeprefix("# ")
        name = "_".join(path.parts[-4:-1])
        searches.setdefault(name, Section(name, path.parent, Document(title, []), [], [], title))
    if not old and len(searches) == len(site.searches):
        return site, found, made
    sections = old | {section.name: section for section in site.experiments}
    names = [about.name for about in abouts if about.name in sections]
    kept = old | {name: each for name, each in searches.items() if each not in site.searches}
    every = made | {name: json.loads((each.folder / ORIGIN).read_text("utf-8")) for name, each in kept.items()}
    last = claims.merge([out / "claims.csv"])
    found = pd.concat([found, last.loc[last["experiment"].isin(list(old))]], ignore_index=True)
    number = found["id"].str.extract(r"(\d+)", expand=False).astype(int)
    return (
        site._replace(
            experiments=[sections[name] for name in names],
            searches=list(searches.values()),
            missing=[about for about in site.missing if about.name not in old],
        ),
        found.assign(number=number).sort_values(["paper", "number"], kind="stable").drop(columns="number"),
        {name: every[name] for name in dict.fromkeys([*names, *searches, *made])},
    )


def compare(out: Path, abouts: Sequence[Experiment], size: str, made: Mapping[str, dict[str, Any]]) -> Section | None:
    """The numbers in print beside those of the tables in `out`, as files there; None where there are none."""
    lines = published.read_all(out, abouts)
    if not len(lines):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{published.NAME}.json"
        found = published.write(lines, size, {name: each["sources"] for name, each in made.items()}, path)
        section = Section(published.NAME, path.parent, found, [], [f"{published.NAME}.csv"], found.title)
        copy(section, out)
    return section


def write(
    folder: Path,
    size: plan.Size,
    out: Path,
    other: Sequence[str] = (),
    readme: Path | None = None,
    base: Path | None = None,
    kept: Sequence[str] = (),
    add: bool = False,
    most: int = 0,
    listed: Path | None = None,
) -> None:
    """Write `out`, `readme` and `listed`. Raises ValueError as `collect` and `one_version`, and if a result is missing.

    Args:
        base: a claims.csv whose verdicts count in `readme` where `out` has none.
        kept: folders in `out` that are not changed; the page names them, and their verdicts count in `readme`.
        add: experiments and searches that `out` has and `folder` has not stay as they are.
        most: the largest size in bytes of an experiment's rows, compressed, in `out`.
        listed: the page that lists every verdict that `readme` counts.
    """
    abouts = list(size.experiments.values())
    site = collect(folder, abouts)
    needed = ["claims.csv", "index.html"]
    needed += [f"{each.name}/{figure.path}" for each in site.experiments for figure in each.document.of(Figure)]
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise ValueError(f"{folder}: found no {', '.join(missing)}, needed all. Run snakemake first.")
    new = [*site.experiments, *site.searches]
    made = {section.name: origin.provenance(section.runs) for section in new}
    found = claims.merge([folder / "claims.csv"])
    found = found.loc[found["experiment"].isin([section.name for section in site.experiments])]
    if add:
        site, found, made = grown(site, found, made, out, abouts)
        [(usual, _)] = Counter(version for each in made.values() for version in each["versions"]).most_common(1)
        other = [name for name, each in made.items() if name in other or each["versions"] != [usual]]
    names = [place(section) for section in [*site.experiments, *site.searches]]
    if lost := [name for name in kept if not (out / name / "README.md").exists() or name in names]:
        raise ValueError(f"--keep: needed folders in {out} with a README.md that are no experiments; got {lost}.")
    one_version(made, other, str(folder))
    site = site._replace(claims=claims.document(found))
    counts = {base.parent if base else folder: claims.merge([base or folder / "claims.csv"]), out: found}
    counts |= {out / name: claims.merge([path]) for name in kept if (path := out / name / "claims.csv").exists()}
    front = with_sentence(readme.read_text("utf-8"), counted_claims([*counts.values()]), str(readme)) if readme else ""
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    found.to_csv(temporary / "claims.csv", index=False, lineterminator="\n", float_format="%.6g")
    for section in [*site.experiments, *site.searches]:
        if section not in new:
            shutil.copytree(section.folder, temporary / place(section))
    for section in new:
        place_of, page = temporary / place(section), section.document
        links = copy(section, place_of, most)
        (place_of / ORIGIN).write_text(json.dumps(made[section.name], indent=1) + "\n", encoding="utf-8")
        verdicts = verdicts_of(site, section.name)
        up = "../" * (place(section).count("/") + 1)
        files = Text("; ".join([*links, f"[all results]({up}README.md)"]) + ".")
        page = page._replace(blocks=[*([verdicts] if verdicts else []), *page.blocks, files])
        (place_of / "README.md").write_text(wrapped(markdown(page)), encoding="utf-8")
    site = site._replace(published=compare(temporary, [find(each.name) for each in site.experiments], size.name, made))
    up = "../" * (out.parts[::-1].index("docs") if "docs" in out.parts else 1)
    (temporary / "README.md").write_text(wrapped(markdown(index(site, size, made, other, kept, up))), encoding="utf-8")
    for name in kept:
        shutil.copytree(out / name, temporary / name)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    if readme:
        with atomic(readme) as path:
            path.write_text(front, encoding="utf-8")
    if listed:
        with atomic(listed) as path:
            path.write_text(every_verdict(counts, listed), encoding="utf-8")


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
    parser.add_argument("--add", action="store_true", help="keep the experiments that --out has and --folder has not")
    parser.add_argument(
        "--rows", type=int, default=0, metavar="BYTES", help="keep compressed rows that are smaller than this"
    )
    parser.add_argument("--readme", type=Path, metavar="FILE", help="the page that gets the count of the verdicts")
    parser.add_argument("--verdicts", type=Path, metavar="FILE", help="the page that lists every verdict")
    parser.add_argument(
        "--base", type=Path, metavar="CSV", help="a claims.csv whose verdicts --readme counts where --out has none"
    )
    options = parser.parse_args(arguments)
    with one_line(parser):
        size = plan.read_size(options.size_file)
        write(
            options.folder,
            size,
            options.out,
            options.other_code,
            options.readme,
            options.base,
            options.keep,
            options.add,
            options.rows,
            options.verdicts,
        )
    print(f"{options.out / 'README.md'}: written")


if __name__ == "__main__":
    main()
