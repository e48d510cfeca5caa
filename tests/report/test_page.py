"""The page of a size as HTML, also with missing parts, and the snapshot for the documentation."""

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from calls import REPO
from made_page import ABOUT, ACCURACY, BOTH, QUICK, make, write_page
from PIL import Image

from leapwarp.report import __main__ as report
from leapwarp.report import claims, document, page, published, search
from leapwarp.report import snapshot as leapwarp_snapshot

EMPTY = {"br", "col", "hr", "img", "input", "line", "link", "meta"}


class Tags(HTMLParser):
    """All tags of a page in order, as dicts of their attributes with `tag`, `path` (ids and tags above) and `text`."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        each = {"tag": tag, "path": [a.get("id") or a["tag"] for a in self.open], "text": "", **dict(attrs)}
        self.found.append(each)
        if tag not in EMPTY:
            self.open.append(each)

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for each in self.open:
            each["text"] += data

    def of(self, *tags):
        return [each for each in self.found if each["tag"] in tags]


@pytest.fixture(scope="module")
def tags(made):
    return Tags((made / "index.html").read_text())


def test_headings_and_landmarks_are_in_order(tags):
    levels = [int(each["tag"][1]) for each in tags.of("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels.count(1) == 1 and levels[0] == 1 and max(levels) >= 3
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert tags.of("html")[0]["lang"] == "en"
    for landmark in ("nav", "header", "main", "footer"):
        assert len(tags.of(landmark)) == 1
    first = next(each for each in tags.found if each["tag"] in ("a", "button", "summary"))
    assert first["href"] == "#main" and tags.of("main")[0]["id"] == "main"
    ids = [each["id"] for each in tags.found if "id" in each]
    assert len(ids) == len(set(ids))
    for link in tags.of("a"):
        assert not link["href"].startswith("#") or link["href"][1:] in ids
    listed = [link["href"][1:] for link in tags.of("a") if "nav" in link["path"]]
    assert listed == [each["id"] for each in tags.of("section")]


def test_tables_and_figures_say_what_they_are(tags):
    assert {each.get("scope") for each in tags.of("th")} == {"col", "row"}
    regions = [each for each in tags.found if each.get("class") == "scroll"]
    assert len(regions) == len(tags.of("table")) > 10
    assert all(each["role"] == "region" and each["tabindex"] == "0" and each["aria-label"] for each in regions)
    figures, captions = tags.of("figure"), tags.of("figcaption")
    images = [each for each in tags.of("img") if "dialog" not in each["path"]]
    assert len(figures) == len(captions) == len(images) == 5
    for image, caption in zip(images, captions, strict=True):
        assert image["alt"] in caption["text"] and int(image["width"]) > int(image["height"]) > 0


def test_the_page_is_one_file(tags):
    for each in tags.found:
        for source in (each.get("src"), each.get("href") if each["tag"] == "link" else None):
            assert source is None or source.startswith("data:"), each
    style, script = tags.of("style")[0]["text"], tags.of("script")[0]["text"]
    assert "color-scheme: light dark" in style and "function sortable" in script
    assert "url(" not in style and "@import" not in style and not re.search(r"https?:|fetch\(|import\(", script)


def test_claims_and_experiments_link_to_each_other(made, tags):
    frame = pd.read_csv(made / "claims.csv").drop_duplicates("id")
    verdict = {each["id"]: each["data-verdict"] for each in tags.of("details") if each.get("class") == "claim"}
    assert verdict == dict(zip(frame["id"], frame["verdict"], strict=True))
    n = {each["value"]: each["text"].split()[-1] for each in tags.of("button") if "value" in each}
    assert n == {"": str(len(frame))} | {name: str(sum(frame["verdict"] == name)) for name in claims.VERDICTS}
    figures = [f"#omniglot_warp-{name}" for name in BOTH[0].figures]
    for name, experiment in zip(frame["id"], frame["experiment"], strict=True):
        there = [link["href"] for link in tags.of("a") if name in link["path"]]
        back = [link["text"] for link in tags.of("a") if link["href"] == f"#{name}"]
        if experiment == "omniglot_warp":
            assert there == ["#omniglot_warp", *figures, "omniglot_warp/rows.csv"]
            assert len(back) == 1 and back[0].startswith(name) and back[0].endswith(verdict[name])
        else:
            assert there == (["#omniglot_leap"] if experiment == "omniglot_leap" else []) and back == []


def test_figures_that_are_too_large_are_made_smaller_together(made, tmp_path, monkeypatch):
    folder, noise = tmp_path / "quick", np.random.default_rng(0)
    shutil.copytree(made, folder)
    (folder / "published.json").unlink()
    monkeypatch.setattr(page, "WIDTH", 200)
    for path in (folder / "omniglot_warp/figures").glob("*.png"):
        Image.fromarray(noise.integers(0, 255, (100, 200, 3), dtype=np.uint8)).save(path)
    sizes = {}
    for most in (9_000_000, 30_000):
        monkeypatch.setattr(page, "PICTURE_BYTES", most)
        write_page(folder, folder / "index.html", *BOTH)
        images = [each for each in Tags((folder / "index.html").read_text()).of("figure", "img") if each.get("src")]
        (sizes[most],) = {(int(each["width"]), int(each["height"])) for each in images}
        assert sum(len(each["src"]) for each in images) < 1.4 * most
    assert sizes[9_000_000] == (200, 100) and sizes[30_000][0] < 150
    assert sizes[30_000][0] == pytest.approx(2 * sizes[30_000][1], abs=2)


def test_names_are_escaped_settings_compared_and_times_added(made):
    text = (made / "index.html").read_text()
    assert "CPU &lt;slow&gt;; GPU &lt;fast&gt; &amp; co (device cpu, cuda)" in text and "<fast>" not in text
    assert "<code>eta = 1</code>" in text and "Warp-Leap: <code>eta = 3</code>" in text
    assert '<th scope="row">Warp-Leap</th><td>4</td><td>3.0</td><td>12</td>' in text


def test_what_was_not_run_and_what_is_not_the_real_thing_is_said(tmp_path, made):
    text = (made / "index.html").read_text()
    assert "Not run at this size yet: <code>snakemake omniglot_leap</code>" in text
    assert "not the published size:</strong> smaller networks &amp; shorter training." in text
    assert 'role="alert"' not in text
    other = (make(tmp_path / "smoke", "glyphs", "smoke") / "index.html").read_text()
    assert 'role="alert"' in other and "a procedural stand-in, not Omniglot" in other


def test_the_same_results_give_the_same_page(made, tmp_path):
    before = (made / "index.html").read_bytes()
    write_page(made, tmp_path / "again.html", *BOTH)
    assert (tmp_path / "again.html").read_bytes() == before


def test_a_damaged_document_is_named(made, tmp_path, capsys):
    folder = tmp_path / "quick"
    shutil.copytree(made, folder)
    whole = (folder / "omniglot_warp/table2.json").read_text()
    for text in (whole[: len(whole) // 2], whole.replace('"kind": "Heading"', '"kind": "Hat"', 1)):
        (folder / "omniglot_warp/table2.json").write_text(text)
        with pytest.raises(SystemExit):
            write_page(folder, tmp_path / "index.html", *BOTH)
        assert "omniglot_warp/table2.json: found no readable document" in capsys.readouterr().err


def test_an_experiment_of_a_user_is_named_by_its_path_and_found_by_its_name(made, tmp_path):
    own, folder = tmp_path / "mine/like_page", tmp_path / "quick"
    own.mkdir(parents=True)
    (own / "experiment.yaml").write_text("like: omniglot_warp\nfigures: {by_tasks: A caption of its own.}\n")
    shutil.copytree(made / "omniglot_warp", folder / own.name)
    for name in ("runs.json", "rows.csv"):
        text = (folder / own.name / name).read_text()
        (folder / own.name / name).write_text(text.replace("omniglot_warp", own.name))
    report.main(["table", str(own), "--rows", str(folder / own.name / "rows.csv"), "--out-dir", str(folder / own.name)])
    arguments = ["--folder", str(folder), "--about", ABOUT, "--out", str(folder / "index.html")]
    page.main([*arguments, "--experiments", str(own), "omniglot_warp"])
    text = (folder / "index.html").read_text()
    assert f'<section id="{own.name}">' in text and "Warp-Leap: <code>eta = 3</code>" in text
    assert text.count("<figure ") == 1 and "<strong>Figure 1.</strong> A caption of its own. Made at size quick" in text


def test_an_empty_folder_gives_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        write_page(tmp_path, tmp_path / "index.html", BOTH[1])
    assert caught.value.code == 1 and "found no results of omniglot_leap" in capsys.readouterr().err
    assert not (tmp_path / "index.html").exists()


def squeezed(path):
    """The text of a file, cells of tables without padding and sentences without line breaks."""
    return re.sub(" +", " ", re.sub(r"(?<!\n)\n(?:> )?(?=[^\n|#>!-])", " ", path.read_text()))


def snapshot(folder, out):
    return ["--folder", str(folder), "--size-file", str(QUICK), "--out", str(out)]


def test_a_snapshot_has_what_the_page_has_and_replaces_the_last_one(made, tmp_path):
    out = tmp_path / "docs/results"
    out.mkdir(parents=True)
    (out / "old.md").write_text("old")
    (out / "wide").mkdir()
    (out / "wide/README.md").write_text("kept")
    larger = pd.read_csv(made / "claims.csv").query("id == 'W2'").assign(verdict="undecided")
    larger.to_csv(out / "wide/claims.csv", index=False)
    readme = tmp_path / "README.md"
    readme.write_text("# Mine\n<!-- verdicts -->\nold\n<!-- end of verdicts -->\nstays\n")
    leapwarp_snapshot.main([*snapshot(made, out), "--readme", str(readme), "--keep", "wide", "--rows", "10"])
    frame = pd.read_csv(made / "claims.csv")
    said = leapwarp_snapshot.sentence(frame.assign(verdict=frame["verdict"].mask(frame["id"] == "W2", "undecided")))
    assert said != leapwarp_snapshot.sentence(frame)  # a larger size decides W2
    assert readme.read_text() == f"# Mine\n<!-- verdicts -->\n{said}<!-- end of verdicts -->\nstays\n"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    figures = {f"omniglot_warp/figures/{path.name}" for path in (made / "omniglot_warp/figures").glob("*.png")}
    pages = {"README.md", "omniglot_warp/README.md"}
    beside = {"published.csv", "published.png"}
    assert (
        names
        == {"claims.csv", "omniglot_warp/table2.csv", "omniglot_warp/provenance.json"}
        | {"wide/README.md", "wide/claims.csv"}
        | pages
        | figures
        | beside
    )
    assert (out / "wide/README.md").read_text() == "kept"
    index, text = (squeezed(out / name) for name in sorted(pages))
    assert "- Results of other runs, not in what follows: [wide](wide/README.md)." in index
    assert "| 0.1.0+gabc | 2026-01-02 | 14 |" in index and "CPU <slow>; GPU <fast> & co" in index
    assert "1 of its 17 experiments is finished and on this page. All from one commit, 0.1.0+gabc." in index
    assert set(pd.read_csv(out / "claims.csv")["experiment"]) == {"omniglot_warp"}  # no claim on one that was not run
    assert text.startswith("# WarpGrad, Table 2") and "## Area under" in text
    verdict = pd.read_csv(made / "claims.csv").set_index("id")["verdict"]["W1"].iloc[0]
    for page_text in (index, text):
        assert f"\n- W1, **{verdict}**: " in page_text
    # results come before their provenance
    words = ("Claims of the papers", "Published numbers beside ours", "Experiments", "Every claim", "Where the numbers")
    places = [index.index(f"## {each}") for each in words]
    assert places == sorted(places)
    for name in pages:
        here = (out / name).parent
        for link in re.findall(r"\]\(([^)]+)\)", (out / name).read_text()):
            assert (here / link).exists() or link.startswith(("../claims.md", "../deviations/README.md#")), link
    deeper = tmp_path / "docs/results/large"
    leapwarp_snapshot.main([*snapshot(made, deeper), "--rows", "1000000"])
    assert "[claims.md](../../claims.md)" in squeezed(deeper / "README.md")
    assert "[every measurement](rows.csv.gz)" in squeezed(deeper / "omniglot_warp/README.md")
    kept = pd.read_csv(deeper / "omniglot_warp/rows.csv.gz")
    pd.testing.assert_frame_equal(kept, pd.read_csv(made / "omniglot_warp/rows.csv"))
    most = (deeper / "omniglot_warp/rows.csv.gz").stat().st_size
    large = shutil.copytree(made, tmp_path / "quick")
    curve = kept.iloc[[0] * 500].assign(step=range(500), value=np.random.default_rng(0).random(500))
    pd.concat([kept, curve]).to_csv(large / "omniglot_warp/rows.csv", index=False)
    leapwarp_snapshot.main([*snapshot(large, deeper), "--rows", str(most + 500)])  # too large with this curve
    assert "[every measurement but the points of curves](rows.csv.gz)" in squeezed(deeper / "omniglot_warp/README.md")
    pd.testing.assert_frame_equal(pd.read_csv(deeper / "omniglot_warp/rows.csv.gz"), kept)
    heading, page_of = (
        re.search(r"deviations/README.md#([a-z-]+)", index),
        (REPO / "docs/deviations/README.md").read_text(),
    )
    assert heading and f"\n##-{heading[1]}\n" in page_of.lower().replace(" ", "-")
    for block in re.findall(r"^- .* paper.*: .*\.$", index, re.MULTILINE):
        assert "not tested" in block
    for name in pages:
        assert all(len(line) <= 120 for line in (out / name).read_text().splitlines() if not line.startswith("|")), name
    for caption in BOTH[0].figures.values():
        assert f"> {caption} Made at size quick" in text


def other_experiment(made, folder, version, source):
    """A folder with results of `omniglot_leap` alone, whose table has the numbers of the other experiment in `made`."""
    folder.mkdir(parents=True)
    shutil.copytree(made / "omniglot_warp", folder / "omniglot_leap")
    here = folder / "omniglot_leap"
    (here / "table2.json").rename(here / "table1.json")
    table = pd.read_csv(here / "table2.csv").assign(metric="error")
    table.to_csv(here / "table1.csv", index=False)
    runs = (here / "runs.json").read_text().replace("0.1.0+gabc", version).replace('"omniglot"', f'"{source}"')
    (here / "runs.json").write_text(runs.replace("omniglot_warp", "omniglot_leap"))
    claimed = pd.read_csv(made / "claims.csv", keep_default_na=False).query("id == 'W1'")
    claimed = claimed.assign(experiment="omniglot_leap", paper="leap")
    pd.concat([claimed.assign(id="L22"), claimed.assign(id="L3")]).to_csv(folder / "claims.csv", index=False)
    (folder / "index.html").touch()
    return folder


def test_a_snapshot_grows_by_the_experiments_of_other_days(made, tmp_path):
    out, readme = tmp_path / "docs/results", tmp_path / "README.md"
    readme.write_text("<!-- verdicts -->\n<!-- end of verdicts -->\n")
    leapwarp_snapshot.main(snapshot(made, out))
    before = {path.name: path.read_bytes() for path in (out / "omniglot_warp").glob("*") if path.is_file()}
    base = tmp_path / "base.csv"
    pd.read_csv(made / "claims.csv", keep_default_na=False).assign(verdict="contradicted").to_csv(base, index=False)
    later = other_experiment(made, tmp_path / "quick", "0.2.0+gdef", "glyphs")
    page = tmp_path / "docs/verdicts.md"
    more = ["--readme", str(readme), "--verdicts", str(page), "--base", str(base)]
    leapwarp_snapshot.main([*snapshot(later, out), "--add", *more])
    assert before == {path.name: path.read_bytes() for path in (out / "omniglot_warp").glob("*") if path.is_file()}
    index, found = squeezed(out / "README.md"), pd.read_csv(out / "claims.csv", keep_default_na=False)
    of_first = pd.read_csv(made / "claims.csv").query("experiment == 'omniglot_warp'")["id"]
    assert list(found["id"].unique())[:2] == ["L3", "L22"] and set(found["id"]) == {"L3", "L22", *of_first}
    assert "2 of its 17 experiments are finished and on this page" in index
    assert "`omniglot_leap` is from 0.2.0+gdef, and all others are from 0.1.0+gabc." in index
    assert "- Data `glyphs`: a procedural stand-in" in index and "| 28, " in index
    for row in (
        "| `omniglot_warp` | omniglot, `0a1b` | 0.1.0+gabc |",
        "| `omniglot_leap` | glyphs, `0a1b` | 0.2.0+gdef |",
    ):
        assert index.count(row) == 1, row
    numbers = pd.read_csv(out / "published.csv")
    assert set(numbers["experiment"]) == {"omniglot_warp", "omniglot_leap"} and "data glyphs, omniglot" in index
    every = pd.concat([pd.read_csv(base).loc[lambda all_: ~all_["id"].isin(found["id"])], found])
    assert readme.read_text() == f"<!-- verdicts -->\n{leapwarp_snapshot.sentence(every)}<!-- end of verdicts -->\n"
    listed = squeezed(page)
    for claim in every.drop_duplicates("id").to_dict("records"):
        folder = "results" if claim["id"] in set(found["id"]) else ".."
        linked = (page.parent / folder / claim["experiment"] / "README.md").exists()
        where = f"[`{claim['experiment']}`](results/{claim['experiment']}/README.md)"
        where = where if linked else f"`{claim['experiment']}`"
        assert f"- {claim['id']} ({where}, size `quick`): {claim['claim']}" in listed
    for group, name in leapwarp_snapshot.GROUPS.items():
        ids = every.loc[every["group"] == group].drop_duplicates("id")
        for verdict, n in ids["verdict"].value_counts().items():
            assert f"## {name[0].upper()}{name[1:]}: {n} {verdict}" in listed
    again = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    leapwarp_snapshot.main([*snapshot(made, out), "--add"])  # in the other order, with the same result
    assert again == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit):
        leapwarp_snapshot.main([*snapshot(made, out), "--add", "--keep", "omniglot_leap"])
    assert again == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    leapwarp_snapshot.main(snapshot(made, out))
    assert not (out / "omniglot_leap").exists()


def test_numbers_in_print_stand_beside_ours(made):
    table = pd.read_csv(made / "omniglot_warp/table2.csv")
    lines = pd.read_csv(made / "published.csv")
    assert set(lines["experiment"]) == {"omniglot_warp"}  # the other was not run
    assert set(zip(lines["method"], lines["n_tasks"], strict=True)) == set(ACCURACY) - {("scratch", 0)}
    printed = table.set_index(["method", "n_tasks", "metric"])["paper"]
    for line in lines.to_dict("records"):
        assert line["paper"] == printed[line["method"], line["n_tasks"], "accuracy"]
        assert line["ours"] == pytest.approx(100 * ACCURACY[line["method"], line["n_tasks"]], abs=0.2)
        assert line["ours_std"] < 0.2 and line["n_seeds"] == 2
    apart = lines["ours"] - lines["paper"]
    found = document.loads((made / "published.json").read_text(), "")
    [row] = found.of(document.Table)[0].rows
    assert [*row[:2], *row[3:]] == [
        "Omniglot, WarpGrad protocol",
        "Held-out accuracy",
        str(len(lines)),
        f"{apart.median():+.1f}",
        f"{apart.min():+.1f} to {apart.max():+.1f}",
    ]


def test_pairs_of_methods_come_in_the_order_in_print_within_a_setting():
    lines = pd.DataFrame(
        [[1, 10, 1], [1, 20, 2], [1, 30, 0], [1, 30, 5], [5, 90, 3], [5, 80, 3]], columns=["n_tasks", "paper", "ours"]
    ).reindex(columns=["n_tasks", "heldout", "shots", "paper", "ours"])
    # With 1 task five of six pairs differ in print, and two of these have the other order here. With 5 ours are equal.
    assert published.in_order(lines) == (3, 6)
    assert published.in_order(lines.assign(n_tasks=float("nan"), shots=lines["n_tasks"])) == (3, 6)
    assert published.in_order(lines.iloc[:0]) == (0, 0)


@pytest.mark.parametrize("name", ["nothing", "omniglot_warp"])
def test_a_snapshot_keeps_only_folders_that_are_there_and_not_its_own(name, made, tmp_path, capsys):
    (tmp_path / "omniglot_warp").mkdir()
    (tmp_path / "omniglot_warp/README.md").write_text("old")
    with pytest.raises(SystemExit):
        leapwarp_snapshot.main([*snapshot(made, tmp_path), "--keep", name])
    assert f"got ['{name}']" in capsys.readouterr().err
    assert (tmp_path / "omniglot_warp/README.md").read_text() == "old"


def test_the_sentence_of_the_readme_counts_each_claim_once_and_needs_its_place():
    columns = ["id", "group", "verdict"]
    rows = [["W1", "claim", "supported"], ["W1", "claim", "supported"], ["W2", "claim", "supported"]]
    rows += [["W3", "claim", "undecided"], ["L1", "claim", "not tested"], ["L5", "identity", "supported"]]
    said = leapwarp_snapshot.sentence(pd.DataFrame(rows, columns=columns))
    assert said.replace("\n", " ").strip() == (
        "Of 4 claims of the two papers, 2 are supported, 1 is undecided and 1 is not tested; "
        "of 1 statements of mathematics or counting, such as that the simplest Leap is Reptile, 1 is supported."
    )
    with pytest.raises(ValueError, match="README.md: found 0 places for the verdicts, needed one"):
        leapwarp_snapshot.with_sentence("# Mine\n", pd.DataFrame(rows, columns=columns), "README.md")


@pytest.mark.parametrize("part", ["training", "evaluation"])
def test_a_snapshot_of_several_versions_or_of_half_a_run_is_refused(made, tmp_path, capsys, part):
    folder, out = tmp_path / "quick", tmp_path / "out"
    shutil.copytree(made, folder)
    runs = json.loads((folder / "omniglot_warp/runs.json").read_text())
    (runs[0]["training"] if part == "training" else runs[0])["version"] = "0.1.0+gdef"
    (folder / "omniglot_warp/runs.json").write_text(json.dumps(runs))
    with pytest.raises(SystemExit):
        leapwarp_snapshot.main(snapshot(folder, out))
    assert (
        "found results of the versions 0.1.0+gabc of omniglot_warp; 0.1.0+gdef of omniglot_warp, needed one"
        in capsys.readouterr().err
    )
    (folder / "claims.csv").unlink()
    with pytest.raises(SystemExit):
        leapwarp_snapshot.main(snapshot(folder, out))
    assert "found no claims.csv, needed all" in capsys.readouterr().err and not out.exists()


# ---------------------------------------------------------------- random search


@pytest.mark.parametrize(
    ("etas", "said"),
    [
        ([3, 3], "used by the rows of Warp-Leap in omniglot_warp"),
        ([3, 1], "used by the rows of 1 of 2 runs of Warp-Leap in omniglot_warp"),
        ([1, 1], "not used by the rows of Warp-Leap in omniglot_warp"),
        ([], "no run of Warp-Leap in omniglot_warp at this size yet"),
    ],
)
def test_whether_a_winner_is_used_is_read_off_the_runs(with_search, etas, said):
    folder = with_search
    runs = [{"method": "warp_leap", "settings": {"filters": 8, "eta": eta}} for eta in etas]
    (folder / "omniglot_warp/runs.json").write_text(json.dumps([{"method": "leap", "settings": {"eta": 3}}, *runs]))
    runs = json.loads((folder / "omniglot_warp/runs.json").read_text())
    winner = folder / "search/omniglot_warp/warp_leap/winner.yaml"
    assert f"Its settings are: {said}." in document.markdown(search.found(winner, runs)[0])
    (folder / "search/omniglot_warp/warp_leap/trials.csv").unlink()
    assert search.winners(folder) == ([winner], [])
    with pytest.raises(ValueError, match="found a winner without trials.csv"):
        page.collect(folder, BOTH)


def test_copies_of_a_search_are_named_and_passed_over(with_search, capsys):
    here = with_search / "search/omniglot_warp"
    shutil.copytree(here / "warp_leap", here / "warp_leap (1)")
    shutil.copytree(here, here.with_name("omniglot_leap"))  # of another experiment than the folder says
    shutil.copytree(with_search / "omniglot_warp", with_search / "omniglot_warp (1)")
    (here / "leap").mkdir()
    (here / "leap/winner.yaml").write_text("- of nothing\n")
    assert [found.name for found in page.collect(with_search, BOTH).searches] == ["search_omniglot_warp_warp_leap"]
    said = capsys.readouterr().out
    assert "quick: passed over omniglot_warp (1): needed an experiment in a folder of its own name\n" in said
    copies = "omniglot_leap/warp_leap, omniglot_leap/warp_leap (1), omniglot_warp/leap, omniglot_warp/warp_leap (1)"
    assert f"search: passed over {copies}: needed a search in a folder of its own name\n" in said


def test_a_search_is_in_the_snapshot(with_search, tmp_path, capsys):
    folder, out = with_search, tmp_path / "out"
    arguments = snapshot(folder, out)
    leapwarp_snapshot.main(arguments)
    here = "search/omniglot_warp/warp_leap"
    text = squeezed(out / here / "README.md")
    assert f"({here}/README.md)" in (out / "README.md").read_text()
    assert "| 1 (winner) | **75.0** | 3 | 8 |\n| 0 | 25.0 | 0.5 | 4 |\n| 2 | diverged |" in text
    assert "- Winner: trial 1: `eta = 3`, `filters = 8`." in text
    assert "`eta`: 0.1 to 10 (log-uniform); `filters`: one of 4, 8." in text
    assert "](search.png)" in text and "(trials.csv)" in text
    files = {path: path.read_bytes() for path in (out / here).iterdir()}
    assert {path.name for path in files} == {"README.md", "provenance.json", "search.png", "trials.csv"}
    assert files[out / here / "trials.csv"] == (folder / here / "trials.csv").read_bytes()

    index = squeezed(out / "README.md")
    shutil.move(folder / "search", tmp_path / "search")
    leapwarp_snapshot.main([*arguments, "--add"])  # results without the search, which the snapshot keeps
    assert files == {path: path.read_bytes() for path in (out / here).iterdir()}
    assert squeezed(out / "README.md") == index
    shutil.move(tmp_path / "search", folder / "search")

    origin = folder / here / "trials/0.json"
    origin.write_text(origin.read_text().replace("gabc", "gdef"))
    with pytest.raises(SystemExit):
        leapwarp_snapshot.main(arguments)
    name = "search_omniglot_warp_warp_leap"
    assert (
        f"found results of the versions 0.1.0+gabc of omniglot_warp, {name}; 0.1.0+gdef of" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        leapwarp_snapshot.main([*arguments, "--other-code", "maze"])
    assert "--other-code: found no results of maze" in capsys.readouterr().err
    leapwarp_snapshot.main([*arguments, "--other-code", name])
    said = f"Versions of the code: `{name}` is from 0.1.0+gabc, 0.1.0+gdef, and all others are from 0.1.0+gabc."
    assert said in squeezed(out / "README.md")
    shutil.rmtree(folder / "search")
    leapwarp_snapshot.main(arguments)
    assert "Random search" not in (out / "README.md").read_text() and not (out / "search").exists()
