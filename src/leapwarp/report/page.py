"""One self-contained page with the results of a size: the documents of claims, experiments and random searches.

    python -m leapwarp.report.page --folder results/quick --experiments omniglot_warp omniglot_leap \
        --about "smaller networks and shorter training" --out results/quick/index.html

It shows all results that it finds: the documents in <folder>/<experiment>, with their figures; <folder>/claims.csv;
<folder>/published.json; and the random searches in <folder>/search/<experiment>/<method>. Images, style (page.css) and
script (page.js) are embedded, and links are relative. So the page can be opened, mailed or archived without a server.
Nothing here imports torch.
"""

import argparse
import base64
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mistune
from markupsafe import Markup
from PIL import Image

from leapwarp import catalogue
from leapwarp.catalogue import Experiment
from leapwarp.files import atomic, one_line
from leapwarp.report import claims, document, origin, published, search
from leapwarp.report.document import Document, Figure, Verdicts

WIDTH = 2400
"""largest width of a figure in pixels, more than any figure has"""
PICTURE_BYTES = 9_000_000
"""bytes of all figures of a page together, before base64, which makes 12 MB of them"""
SIGNS = dict(zip(claims.VERDICTS, "✓✗?–", strict=True))


class Section(NamedTuple):
    """A document, the folder that its paths start from, and the files beside it for the reader."""

    name: str
    folder: Path
    document: Document
    runs: Sequence[origin.Run]
    files: Sequence[str]
    title: str
    """a short title for the contents"""
    asks: str = ""

    @property
    def figures(self) -> list[Figure]:
        """The figures whose files exist."""
        return [figure for figure in self.document.of(Figure) if (self.folder / figure.path).exists()]


class Picture(NamedTuple):
    """A figure in the page."""

    url: str
    width: int
    height: int


class Site(NamedTuple):
    """All documents of a size."""

    claims: Document | None
    published: Section | None
    """the comparison with the numbers in print"""
    experiments: list[Section]
    """the experiments that ran, in the given order"""
    searches: list[Section]
    missing: list[Experiment]
    """the experiments that did not run"""


def read(path: Path) -> Document:
    """Raises ValueError where it is damaged."""
    return document.loads(path.read_text(encoding="utf-8"), str(path))


def collect(folder: Path, abouts: Sequence[Experiment]) -> Site:
    """All results of a size. Raises ValueError if nothing was run or something is unfinished."""
    experiments, missing = [], []
    for about in abouts:
        here = folder / about.name
        if not (here / f"{about.table}.json").exists():
            missing.append(about)
            continue
        found = read(here / f"{about.table}.json")
        runs = origin.read(here / "runs.json")
        files = [f"{about.table}.csv", "rows.csv", "runs.json"]
        files = [name for name in files if (here / name).exists()]
        experiments.append(Section(about.name, here, found, runs, files, about.title, about.asks))
    if not experiments:
        names = ", ".join(about.name for about in missing)
        raise ValueError(f"{folder}: found no results of {names}, needed at least one. Run snakemake first.")
    order = list(dict.fromkeys([*(about.name for about in abouts), *catalogue.names()]))
    winners, copies = search.winners(folder)
    others = sorted(path.parent.name for path in folder.glob("*/rows.csv") if path.parent.name not in order)
    for where, strays, what in ((folder, others, "an experiment"), (folder / "search", copies, "a search")):
        if strays:
            print(f"{where}: passed over {', '.join(strays)}: needed {what} in a folder of its own name")
    winners = [path for path in winners if path.parts[-3] in order]
    searches = []
    for path in sorted(winners, key=lambda path: (order.index(path.parts[-3]), path)):
        name = "_".join(path.parts[-4:-1])
        found, runs = search.found(path, origin.read(folder / path.parts[-3] / "runs.json"))
        searches.append(Section(name, path.parent, found, runs, ["trials.csv", "winner.yaml"], found.title))
    made = claims.document(claims.merge([folder / "claims.csv"])) if (folder / "claims.csv").exists() else None
    beside = None
    if (folder / f"{published.NAME}.json").exists():
        found = read(folder / f"{published.NAME}.json")
        beside = Section(published.NAME, folder, found, [], [f"{published.NAME}.csv"], found.title)
    return Site(made, beside, experiments, searches, missing)


def stand_ins(sources: Iterable[str]) -> dict[str, str]:
    """The data sources that are not the papers', with a description."""
    unlike = sorted(set(sources) - origin.REAL)
    return {name: origin.SOURCES.get(name, "not one of the papers' data") for name in unlike}


def every_claim(site: Site) -> list[dict[str, Any]]:
    return [] if site.claims is None else [claim for block in site.claims.of(Verdicts) for claim in block.claims]


def verdicts_of(site: Site, experiment: str) -> Verdicts | None:
    """The claims that an experiment decides."""
    mine = [claim for claim in every_claim(site) if claim["experiment"] == experiment]
    return Verdicts("What the paper claims of it", claims.counts(mine), mine) if mine else None


def shrunk(figure: Path, width: int) -> bytes:
    """A figure as PNG in 256 colours, which takes a third of the bytes, and at most `width` pixels wide."""
    made = io.BytesIO()
    with Image.open(figure) as picture:
        small = picture.convert("RGB")
    small.thumbnail((width, small.height))
    small.quantize(256).save(made, "PNG", optimize=True)
    return made.getvalue()


def embedded(figures: Sequence[Path], most: int) -> dict[Path, Picture]:
    """Figures as data URLs, as wide as possible with at most `most` bytes for all of them, before base64."""
    width = WIDTH
    while sum(map(len, found := [shrunk(figure, width) for figure in figures])) > most:
        width = width * 2 // 3
    return {
        figure: Picture(f"data:image/png;base64,{base64.b64encode(made).decode()}", *Image.open(io.BytesIO(made)).size)
        for figure, made in zip(figures, found, strict=True)
    }


def render(folder: Path, abouts: Sequence[Experiment], about_size: str) -> str:
    """The page. Raises ValueError as `collect`. `about_size` describes the size."""
    site, text = collect(folder, abouts), mistune.create_markdown(escape=True)
    sections = [*site.experiments, *site.searches]
    runs = [run for found in sections for run in found.runs]
    pictured = [site.published, *sections] if site.published else sections
    environment = document.environment(
        True,
        link=lambda path: path.relative_to(folder).as_posix(),
        number=lambda value: "–" if math.isnan(value) else f"{value:.3g}",
        html=lambda markdown: Markup(text(markdown)),
        inline=lambda markdown: Markup(str(text(markdown)).strip().removeprefix("<p>").removesuffix("</p>")),
        stem=lambda path: Path(path).stem,
        claims_of=lambda name: verdicts_of(site, name),
        zip=zip,
    )
    return environment.get_template("page.html.j2").render(
        size=site.experiments[0].runs[0]["size"] if site.experiments[0].runs else folder.name,
        made=origin.provenance(runs) if runs else None,
        signs=SIGNS,
        totals=claims.counts(every_claim(site)),
        pictures=embedded(
            [found.folder / figure.path for found in pictured for figure in found.figures], PICTURE_BYTES
        ),
        about_size=about_size,
        stand_ins=stand_ins(str(run["data_source"]) for section in site.experiments for run in section.runs),
        site=site,
        claims_path=folder / "claims.csv",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m leapwarp.report.page", description="Make the page of one size.")
    parser.add_argument("--folder", required=True, type=Path, help="results of one size, such as results/quick")
    parser.add_argument(
        "--experiments", required=True, nargs="+", help="names of experiments, or paths, in the page's order"
    )
    parser.add_argument("--about", required=True, metavar="TEXT", help="a description of the size")
    parser.add_argument("--out", required=True, type=Path, metavar="HTML", help="the file to write, in the folder")
    options = parser.parse_args(arguments)
    with one_line(parser):
        text = render(options.folder, [catalogue.find(where) for where in options.experiments], options.about)
        with atomic(options.out) as path:
            path.write_text(text, encoding="utf-8")
    print(f"{options.out}: {len(text) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
