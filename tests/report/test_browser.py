"""The page of a size in a real browser: its content, and its use by keyboard, on a phone and in dark mode.

Chromium and its driver are Debian's (apt-get install chromium chromium-driver); without them all of this is skipped.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_page import BOTH, write_page
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from selenium_axe_python import Axe

from leapwarp.report import claims

pytestmark = pytest.mark.browser
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PHONE, SCREEN = 390, 1280


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    flags += " disable-component-update disable-sync disable-dev-shm-usage force-prefers-reduced-motion"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


def opened(browser, path, width=SCREEN, colours="light", media=""):
    """The page in a window of a given width, for a reader who opens it for the first time."""
    browser.get_log("performance")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": colours}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get(path.as_uri())
    return browser


def press(browser, key, selector=None):
    """Press a key at the focus, which a selector may set first."""
    if selector:
        browser.execute_script("document.querySelector(arguments[0]).focus()", selector)
    browser.switch_to.active_element.send_keys(key)


def test_it_opens_without_a_network_or_an_error(browser, made):
    opened(browser, made / "index.html")
    assert browser.title == "leapwarp: results at quick"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)


def test_every_figure_is_drawn_and_has_a_text(browser, made):
    opened(browser, made / "index.html")
    images = browser.execute_script(
        "return [...document.querySelectorAll('figure img')].map(i => [i.complete, i.naturalWidth, i.alt])"
    )
    files = [*(made / "omniglot_warp/figures").glob("*.png"), *made.glob("*.png")]
    assert len(images) == len(files) == 5
    assert all(complete and width > 300 and len(text) > 40 for complete, width, text in images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "colours"),
    [
        (PHONE, "dark"),
        (SCREEN, "light"),
        pytest.param(PHONE, "light", marks=pytest.mark.full),
        pytest.param(SCREEN, "dark", marks=pytest.mark.full),
    ],
)
def test_it_fits_and_axe_finds_nothing_serious(browser, made, width, colours):
    opened(browser, made / "index.html", width, colours)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return window.innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # axe takes a second for every ten tables, and those of claims are alike
    browser.execute_script("document.querySelectorAll('.claim:nth-of-type(n + 3)').forEach(d => d.open = false)")
    assert serious(browser) == []
    if width == PHONE:
        press(browser, Keys.ENTER, "figure button")
        assert serious(browser) == []


def serious(browser):
    """The rules of axe-core that the page violates so seriously that some readers cannot use it."""
    axe = Axe(browser)
    axe.inject()
    found = axe.run(options={"resultTypes": ["violations"]})
    assert len(found["passes"]) > 20
    return [
        (each["id"], [node["target"] for node in each["nodes"]])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


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


def test_verdicts_filter_by_keyboard_and_a_link_shows_what_is_hidden(browser, made):
    opened(browser, made / "index.html")
    frame = pd.read_csv(made / "claims.csv").drop_duplicates("id")
    shown = "return [...document.querySelectorAll('.claim')].filter(c => c.checkVisibility()).map(c => c.id)"
    pressed = "return [...document.querySelectorAll('#filter [aria-pressed=true]')].map(b => b.value)"
    for verdict in claims.VERDICTS:
        press(browser, Keys.SPACE, f"#filter [value='{verdict}']")
        names = sorted(frame.loc[frame["verdict"] == verdict, "id"])
        assert sorted(browser.execute_script(shown)) == names and browser.execute_script(pressed) == [verdict]
        said = browser.execute_script("return document.querySelector('#filter [role=status]').textContent")
        assert said == f"{len(names)} of {len(frame)} claims shown"
        button = browser.execute_script("return document.activeElement.textContent")
        assert button.endswith(f"{verdict} {len(names)}")
    press(browser, Keys.SPACE, "#filter [value=supported]")
    press(browser, Keys.ENTER, "a.chip[href='#W1']")
    WebDriverWait(browser, 5).until(lambda _: len(browser.execute_script(shown)) == len(frame))
    assert browser.execute_script("return W1.open") and browser.execute_script(pressed) == [""]
    press(browser, Keys.SPACE, "#filter [value=supported]")
    press(browser, Keys.SPACE)
    assert browser.execute_script(pressed) == [""]


SORT = """
const table = document.createElement("table"), texts = arguments[0];
const rows = texts.map(t => `<tr><td>${t}</td></tr>`).join("");
table.innerHTML = `<thead><tr><th>x</th></tr></thead><tbody>${rows}</tbody>`;
document.querySelector("main").append(table);
sortable(table);
table.querySelector("button").focus();
"""
SORTED = """
const table = document.querySelector("main > table");
return [table.querySelector("th").ariaSort, [...table.tBodies[0].rows].map(r => r.textContent)]
"""


@pytest.mark.parametrize(
    ("given", "ascending", "descending"),
    [
        (
            ["34.2 ± 1.8", "–", "−3", "1,024", "4", "1.2e-04 ± 1e-05", "diverged", "+7.5 better"],
            ["−3", "1.2e-04 ± 1e-05", "4", "+7.5 better", "34.2 ± 1.8", "1,024", "–", "diverged"],
            ["1,024", "34.2 ± 1.8", "+7.5 better", "4", "1.2e-04 ± 1e-05", "−3", "–", "diverged"],
        ),
        (
            ["Reptile", "–", "leap", "2nd-order MAML"],
            ["2nd-order MAML", "leap", "Reptile", "–"],
            ["Reptile", "leap", "2nd-order MAML", "–"],
        ),
    ],
)
def test_columns_sort_as_numbers_or_words_with_what_is_missing_last(browser, made, given, ascending, descending):
    opened(browser, made / "index.html").execute_script(SORT, given)
    for direction, expected in (("ascending", ascending), ("descending", descending), (None, given)):
        press(browser, Keys.ENTER)
        assert browser.execute_script(SORTED) == [direction, expected]


def test_every_table_of_several_rows_sorts(browser, made):
    opened(browser, made / "index.html")
    one = """return [...document.querySelectorAll('table')]
        .filter(t => t.tBodies[0].rows.length > 1 && !t.querySelector('button'))"""
    assert browser.execute_script(one) == []
    rows = "return [...document.querySelectorAll('#omniglot_warp tbody')].map(b => b.rows[0].cells[0].innerText)"
    assert browser.execute_script(rows)[0] == "1"
    for _ in range(2):
        press(browser, Keys.SPACE, "#omniglot_warp thead button")
    assert browser.execute_script(rows)[0] == "10"
    assert browser.execute_script("return document.querySelectorAll('[aria-sort]').length") == 1


def test_a_figure_enlarges_and_escape_leads_back(browser, made):
    opened(browser, made / "index.html")
    large = """const dialog = document.querySelector('dialog'), image = dialog.querySelector('img');
        return [dialog.open, image.naturalWidth, image.alt]"""
    for figure in ("by_tasks", "meta_curves"):
        button = f"#omniglot_warp-{figure} button"
        press(browser, Keys.ENTER, button)
        natural = f"return (i => [true, i.naturalWidth, i.alt])(document.querySelector('#omniglot_warp-{figure} img'))"
        assert browser.execute_script(large) == browser.execute_script(natural)
        assert browser.execute_script("return document.activeElement.closest('dialog') !== null")
        press(browser, Keys.ESCAPE)
        assert browser.execute_script(large)[0] is False
        assert browser.execute_script("return document.activeElement === document.querySelector(arguments[0])", button)


def test_dark_is_the_readers_choice_and_stays(browser, made):
    dark = """return [matchMedia('(prefers-color-scheme: dark)').matches,
        document.getElementById('theme').ariaPressed, getComputedStyle(document.body).backgroundColor]"""
    white, black = "rgb(255, 255, 255)", "rgb(18, 22, 29)"
    opened(browser, made / "index.html", colours="dark")
    assert browser.execute_script(dark) == [True, "true", black]
    opened(browser, made / "index.html")
    assert browser.execute_script(dark) == [False, "false", white]
    press(browser, Keys.SPACE, "#theme")
    assert browser.execute_script(dark) == [False, "true", black]
    browser.refresh()
    assert browser.execute_script(dark) == [False, "true", black]
    cards = "return [...document.querySelectorAll('figure img')].map(i => getComputedStyle(i).backgroundColor)"
    assert set(browser.execute_script(cards)) == {white}
    opened(browser, made / "index.html", media="print")  # a printed page is white in any case
    assert browser.execute_script(dark)[2] == white
    assert not browser.execute_script("return document.querySelector('nav').checkVisibility()")
    opened(browser, made / "index.html")
    press(browser, Keys.SPACE, "#theme")
    assert browser.execute_script(dark) == [False, "false", white]
    browser.execute_script("localStorage.clear()")


HERE = "return [...document.querySelectorAll('nav [aria-current]')].map(a => a.hash)"
NAV_TOP = "return document.querySelector('nav').getBoundingClientRect().top"


@pytest.mark.parametrize("width", [PHONE, SCREEN])
def test_contents_stay_in_view_and_mark_where_one_is(browser, made, width):
    opened(browser, made / "index.html", width)
    contents = "return document.querySelector('nav details').open"
    assert browser.execute_script(contents) is (width == SCREEN)
    for name in ("omniglot_leap", "omniglot_warp", "claims"):
        if width == PHONE:
            press(browser, Keys.ENTER, "nav summary")
            assert browser.execute_script(contents) is True
        press(browser, Keys.ENTER, f"nav [href='#{name}']")
        WebDriverWait(browser, 5).until(lambda _, name=name: browser.execute_script(HERE) == [f"#{name}"])
        assert abs(browser.execute_script(NAV_TOP)) < 1
        assert browser.execute_script(contents) is (width == SCREEN)


def test_the_first_stop_skips_to_the_results(browser, made):
    opened(browser, made / "index.html")
    press(browser, Keys.TAB)
    assert browser.execute_script("return document.activeElement.getBoundingClientRect().left") >= 0
    press(browser, Keys.ENTER)
    assert browser.execute_script("return document.activeElement.id") == "main"


def test_only_tables_that_scroll_are_stops_of_the_tabulator_key(browser, made):
    opened(browser, made / "index.html", PHONE)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    stops = """return [...document.querySelectorAll('.scroll')]
        .map(s => [s.scrollWidth > s.clientWidth, s.tabIndex === 0]).filter(([a, b]) => a !== b).length"""
    WebDriverWait(browser, 5).until(lambda _: browser.execute_script(stops) == 0)
    assert browser.execute_script("return document.querySelectorAll('.scroll[tabindex]').length") >= 2


def test_without_scripts_all_can_be_read(browser, made):
    try:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        opened(browser, made / "index.html", PHONE)
        found = """JSON.stringify(["#filter", "#theme", "figure button", "nav a", "details.claim"]
            .map(s => [...document.querySelectorAll(s)].filter(e => e.checkVisibility()).length)
            .concat(getComputedStyle(document.querySelector("nav")).position))"""
        shown = browser.execute_cdp_cmd("Runtime.evaluate", {"expression": found})["result"]["value"]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    n_claims = pd.read_csv(made / "claims.csv")["id"].nunique()
    assert json.loads(shown) == [0, 0, 0, 4, n_claims, "relative"]


def test_links_lead_to_files_and_places_that_are_there(browser, made):
    opened(browser, made / "index.html")
    links = browser.execute_script("return [...document.links].map(a => a.getAttribute('href'))")
    assert len(links) >= 6
    for link in links:
        if link.startswith("#"):
            assert browser.execute_script(f"return document.getElementById('{link[1:]}') !== null"), link
        else:
            assert (made / link).is_file() and not Path(link).is_absolute(), link


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
    opened(browser, folder / "index.html", PHONE)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE
