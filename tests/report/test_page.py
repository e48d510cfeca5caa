"""The page of a size, in a real browser and with what may be missing; and the snapshot for the documentation."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from calls import REPO

from leapwarp import catalogue
from leapwarp.report import __main__ as report
from leapwarp.report import claims, document, page, search
from leapwarp.report import rows as results
from leapwarp.report import snapshot as leapwarp_snapshot

QUICK = REPO / "workflow/sizes/quick.yaml"
ABOUT = "smaller networks & shorter training"
BOTH = [catalogue.find(name) for name in ("omniglot_warp", "omniglot_leap")]
MADE_BY = {"version": "0.1.0+gabc", "code": "0d", "packages": {"torch": "2.14"}, "started": "2026-01-02T03:04:05+00:00"}
ACCURACY = {("warp_leap", 1): 0.5, ("warp_leap", 10): 0.8, ("leap", 1): 0.3, ("leap", 10): 0.9, ("scratch", 0): 0.1}
ACCURACY |= {("finetune", 10): 0.8, ("reptile", 10): 0.3}
CERTAIN = ["Leap", "Finetuning (multi-head)", "Reptile"]  # what Warp-Leap is compared with at a power that is stated
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def make(folder, source="omniglot", size="quick"):
    """Results of one experiment as the workflow leaves them, from made-up rows with names that need escaping."""
    here, frames, stream = folder / "omniglot_warp", [], np.random.default_rng(0)
    runs = []
    for (method, count), accuracy in ACCURACY.items():
        same = {"experiment": "omniglot_warp", "method": method, "n_tasks": count, "size": size, "device": "cpu"}
        same |= {"data_source": source, "data_checksum": "0a1b", "version": "0.1.0+gabc"}
        for seed in (0, 1):
            records = [
                (f"<b>{task}</b> & co", None, "accuracy", accuracy + float(noise))
                for task, noise in enumerate(stream.normal(0, 0.001, 10))
            ]
            records += [("", None, moved, 1.0) for moved in ("moved_warps", "moved_init") if count]
            records += [("", None, "adapt_seconds", 1.0)]
            frames.append(results.rows(records, seed=seed, settings="0c", seconds=2.0, **same))
            training = same | MADE_BY | {"machine": "GPU <fast> & co", "device": "cuda", "seconds": {"0": 1.0}}
            settings = {"filters": 8, "eta": 3 if method == "warp_leap" else 1}
            run = same | MADE_BY | {"seed": seed, "held_out": "test", "machine": "CPU <slow>", "settings": settings}
            run |= {"settings_hash": "0c", "seconds": 2.0 + 2.0 * seed, "training": training if count else {}}
            runs.append(run)
    frame = pd.concat(frames, ignore_index=True)
    results.write(here / "rows.csv", frame)
    (here / "runs.json").write_text(json.dumps(runs))
    for command, out in (("table", here), ("figures", here / "figures")):
        report.main([command, "omniglot_warp", "--rows", str(here / "rows.csv"), "--out-dir", str(out)])
    command = ["decide", "--claims", str(REPO / "paper/claims.yaml"), "--size", size, "--decides"]
    command += ["orders" if size == "quick" else "nothing", "--experiments", "omniglot_warp"]
    parts = [f"accuracy: Warp-Leap − {name}, 10 tasks" for name in CERTAIN]
    stated = [
        dict.fromkeys(claims.POWER_COLUMNS, "") | {"claim": "W1", "part": part, "effect": 9.0, "spread": 0.01}
        for part in parts
    ]
    pd.DataFrame(stated).to_csv(folder / "power.csv", index=False)
    command += ["--power", str(folder / "power.csv")]
    claims.main([*command, "--rows", str(here / "rows.csv"), "--out", str(folder / "claims.csv")])
    write_page(folder, folder / "index.html", *BOTH)
    return folder


def write_page(folder, out, *abouts):
    arguments = ["--folder", str(folder), "--about", ABOUT, "--out", str(out), "--experiments"]
    page.main([*arguments, *(about.name for about in abouts)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("page") / "quick")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    flags += " disable-component-update disable-sync disable-dev-shm-usage force-prefers-reduced-motion"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def opened(browser, path):
    browser.get_log("performance")
    browser.get(path.as_uri())
    return browser


def test_it_opens_without_a_network_or_an_error(browser, made):
    opened(browser, made / "index.html")
    assert browser.title == "leapwarp: results at quick"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)


def test_every_figure_is_drawn_and_has_a_text(browser, made):
    opened(browser, made / "index.html")
    images = browser.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt])")
    assert len(images) == len(list((made / "omniglot_warp/figures").glob("*.png"))) == 4
    assert all(complete and width > 300 and len(text) > 40 for complete, width, text in images)


@pytest.mark.parametrize("width", [400, 1400])
def test_it_fits_a_phone_and_a_screen(browser, made, width):
    opened(browser, made / "index.html")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return window.innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_its_numbers_are_those_of_the_table_and_differences_are_marked(browser, made):
    opened(browser, made / "index.html")
    cells = browser.execute_script(
        "return [...document.querySelector('#omniglot_warp table').rows].map(r => [...r.cells].map(c => c.innerText))"
    )
    table = pd.read_csv(made / "omniglot_warp/table2.csv")
    table = table[table["metric"] == "accuracy"]
    header, *lines = cells
    assert header[0] == "Pretraining tasks" and [line[0] for line in lines] == ["1", "10"]
    for line in lines:
        mine = table[table["n_tasks"] == int(line[0])]
        assert len(mine) == len(line) - 1
        for text, row in zip(line[1:], mine.to_dict("records"), strict=True):
            if np.isfinite(row["ours_mean"]):
                assert text.startswith(f"{row['ours_mean']:.1f} ± {row['ours_std']:.1f}")
            if np.isfinite(row["paper"]) and np.isfinite(row["ours_mean"]):
                difference = row["ours_mean"] - row["paper"]
                assert f"{difference:+.1f} {'better' if difference >= 0 else 'worse'}" in text
    find = "return [...document.querySelectorAll('#omniglot_warp table tbody .ours.best')].map(c => c.innerText)"
    best = [f"{max(table[table['n_tasks'] == count]['ours_mean']):.1f}" for count in (1, 10)]
    assert [text.split(" ")[0] for text in browser.execute_script(find)] == best


def test_every_claim_has_its_verdict_and_intervals(browser, made):
    opened(browser, made / "index.html")
    shown = browser.execute_script(
        "return [...document.querySelectorAll('details.claim')].map(d => "
        "[d.id, d.querySelector('summary .chip').innerText, d.querySelectorAll('tbody tr').length])"
    )
    frame = pd.read_csv(made / "claims.csv")
    frame = pd.concat([
        frame[(frame["paper"] == paper) & (frame["group"] == group)]
        for paper in frame["paper"].unique()
        for group in claims.GROUPS
    ])  # fmt: skip
    by_id = frame.groupby("id", sort=False)
    expected = [[name, parts["verdict"].iloc[0], len(parts)] for name, parts in by_id]
    assert [[name, chip[2:], n] for name, chip, n in shown] == expected
    assert set(frame["part_verdict"]) == set(claims.VERDICTS)
    chips = browser.execute_script("return [...document.querySelectorAll('tbody .chip')].map(c => c.className)")
    assert chips == ["chip " + verdict.replace(" ", "-") for verdict in frame["part_verdict"]]
    drawn = browser.execute_script("return document.querySelectorAll('svg.interval .bar').length")
    assert drawn == frame["low"].notna().sum() >= 2


def test_links_lead_to_files_and_places_that_are_there(browser, made):
    opened(browser, made / "index.html")
    links = browser.execute_script("return [...document.links].map(a => a.getAttribute('href'))")
    assert len(links) >= 6
    for link in links:
        if link.startswith("#"):
            assert browser.execute_script(f"return document.getElementById('{link[1:]}') !== null"), link
        else:
            assert (made / link).is_file() and not Path(link).is_absolute(), link


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
    assert text.count("<img ") == 1 and "<figcaption>A caption of its own. Made at size quick" in text


def test_an_empty_folder_gives_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        write_page(tmp_path, tmp_path / "index.html", BOTH[1])
    assert caught.value.code == 1 and "found no results of omniglot_leap" in capsys.readouterr().err
    assert not (tmp_path / "index.html").exists()


def squeezed(path):
    """The text of a file, cells of tables without padding."""
    return re.sub(" +", " ", path.read_text())


def snapshot(folder, out):
    return ["--folder", str(folder), "--size-file", str(QUICK), "--out", str(out)]


def test_a_snapshot_has_what_the_page_has_and_replaces_the_last_one(made, tmp_path):
    out = tmp_path / "docs/results"
    out.mkdir(parents=True)
    (out / "old.md").write_text("old")
    leapwarp_snapshot.main(snapshot(made, out))
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    figures = {f"omniglot_warp/figures/{path.name}" for path in (made / "omniglot_warp/figures").glob("*.png")}
    pages = {"README.md", "omniglot_warp/README.md"}
    assert names == {"claims.csv", "omniglot_warp/table2.csv"} | pages | figures
    index, text = (squeezed(out / name) for name in sorted(pages))
    assert "| 0.1.0+gabc | 2026-01-02 | 14 |" in index and "CPU <slow>; GPU <fast> & co" in index
    assert "All from one commit, 0.1.0+gabc." in index
    assert text.startswith("# WarpGrad, Table 2") and "## Area under" in text
    verdict = pd.read_csv(made / "claims.csv").set_index("id")["verdict"]["W1"].iloc[0]
    for page_text in (index, text):
        line = next(line for line in page_text.splitlines() if line.startswith("| W1 |"))
        assert f"| **{verdict}** |" in line
    # what was found comes before where it comes from
    places = [
        index.index(words) for words in ("Claims of the papers", "Experiments", "Every claim", "Where the numbers")
    ]
    assert places == sorted(places)
    for name in pages:
        here = (out / name).parent
        for link in re.findall(r"\]\(([^)]+)\)", (out / name).read_text()):
            assert (here / link).exists() or link.startswith(("../claims.md", "../deviations.md#")), link
    heading, page_of = re.search(r"deviations.md#([a-z-]+)", index), (REPO / "docs/deviations.md").read_text()
    assert heading and f"\n##-{heading[1]}\n" in page_of.lower().replace(" ", "-")
    for block in re.findall(r"^- .* paper.*: .*\.$", index, re.MULTILINE):
        assert "not tested" in block
    for caption in BOTH[0].figures.values():
        assert f"> {caption} Made at size quick" in text


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


@pytest.fixture
def with_search(made, tmp_path, monkeypatch):
    """The results, and a search of three trials of Warp-Leap, of which one diverged. -> folder"""
    folder = tmp_path / "quick"
    shutil.copytree(made, folder)
    here = folder / "search/omniglot_warp/warp_leap"
    paths = []
    for number, (eta, filters, accuracy) in enumerate([(0.5, 4, 0.25), (3.0, 8, 0.75), (9.0, 4, None)]):
        record = ("", None, "diverged", 1.0) if accuracy is None else ("task", None, "accuracy", accuracy)
        about = {"experiment": "omniglot_warp", "method": "warp_leap", "n_tasks": 0, "seed": 100, "size": "quick"}
        about |= {"data_source": "omniglot", "data_checksum": "0", "device": "cpu", "version": "0.1.0+gabc"}
        paths.append(here / f"trials/{number}.csv")
        results.write(paths[-1], results.rows([record], seconds=1.0, settings="0", **about))
        origin = about | MADE_BY | {"held_out": "validation", "machine": "CPU", "settings_hash": "0", "seconds": 60.0}
        paths[-1].with_suffix(".json").write_text(json.dumps([origin | {"training": {}}]))
        drawn = {"eta": eta, "filters": filters}
        trial = {"experiment": "omniglot_warp", "method": "warp_leap", "trial": number, "drawn": sorted(drawn)}
        paths[-1].with_suffix(".yaml").write_text(yaml.safe_dump(trial | {"settings": drawn}))
    search.main(["table", "--criterion", "accuracy", "--out-dir", str(here), *map(str, paths)])
    search.main(["figure", "--trials", str(here / "trials.csv"), "--out", str(here / "search.png")])
    space = {"eta": {"log_uniform": [0.1, 10]}, "filters": {"choice": [4, 8]}}
    declared = BOTH[0]._replace(search={"criterion": "accuracy", "spaces": {"warp_leap": space}})
    find = catalogue.find
    monkeypatch.setattr(catalogue, "find", lambda where: declared if where == "omniglot_warp" else find(where))
    return folder


def test_a_search_is_on_the_page_with_its_space_trials_and_winner(browser, made, with_search):
    assert "Random search" not in (made / "index.html").read_text()
    folder = with_search
    write_page(folder, folder / "index.html", BOTH[0])
    opened(browser, folder / "index.html")
    here = "#search_omniglot_warp_warp_leap"
    rows = browser.execute_script(
        f"return [...document.querySelectorAll('{here} table tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    assert rows[0] == ["Trial", "Held-out accuracy [percent], validation classes, higher is better", "eta", "filters"]
    assert rows[1:] == [["1 (winner)", "75.0", "3", "8"], ["0", "25.0", "0.5", "4"], ["2", "diverged", "9", "4"]]
    text = browser.execute_script("return document.getElementById('search_omniglot_warp_warp_leap').innerText")
    assert "eta: 0.1 to 10 (log-uniform); filters: one of 4, 8" in text
    assert "trial 1: eta = 3, filters = 8" in text and "3.0 minutes together, 0.1.0+gabc" in text
    assert "used by the rows of Warp-Leap in omniglot_warp" in text and "not used" not in text
    images = browser.execute_script(
        "return [...document.querySelectorAll('#search_omniglot_warp_warp_leap img')].map(i => i.naturalWidth)"
    )
    assert len(images) == 1 and images[0] > 300
    test_links_lead_to_files_and_places_that_are_there(browser, folder)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400


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
    with pytest.raises(ValueError, match="found a winner without trials.csv"):
        page.collect(folder, BOTH)


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
    assert {path.name for path in (out / here).iterdir()} == {"README.md", "trials.csv", "search.png"}
    assert (out / here / "trials.csv").read_bytes() == (folder / here / "trials.csv").read_bytes()

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
    said = f"All from one commit, 0.1.0+gabc, **but for `{name}` (0.1.0+gabc, 0.1.0+gdef)**."
    assert said in (out / "README.md").read_text()
    shutil.rmtree(folder / "search")
    leapwarp_snapshot.main(arguments)
    assert "Random search" not in (out / "README.md").read_text() and not (out / "search").exists()
