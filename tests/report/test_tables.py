"""The tables of our numbers beside the papers', the figures, and the papers' numbers themselves."""

import math
import re

import matplotlib.colors
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from calls import REPO
from made_up import run
from matplotlib.collections import LineCollection
from told import drawn, told

from leapwarp import catalogue
from leapwarp.report import __main__ as command
from leapwarp.report import counts, document, looks, rows
from leapwarp.report.draw import caption
from leapwarp.report.quantities import quantity
from leapwarp.report.select import steps
from leapwarp.report.stats import curve
from leapwarp.report.table import COLUMNS, default_paper, read_paper

PAPER = REPO / "paper"
LEAP = read_paper(PAPER / "leap.csv", "1")
WARP = read_paper(PAPER / "warpgrad.csv", "2")
NOTE = "smaller than published"
FIGURES = [
    f"{name}.{kind}"
    for name in ("auc_by_tasks", "by_tasks", "heldout_curves", "meta_curves")
    for kind in ("pdf", "png")
]


def warp_rows(seeds=(0, 1), **changes):
    """Rows at two numbers of tasks: a pretrained method of the paper, another one, and two without pretraining."""
    frames = []
    for seed in seeds:
        frames += [run("warp_leap", 1, seed, [0.5, 0.3 + 0.1 * seed], **changes)]
        frames += [
            run("warp_leap", 25, seed, [0.9, 0.7], **changes),
            run("fomaml", 25, seed, [0.2, 0.4], **changes),
        ]
        frames += [
            run("scratch", 0, seed, [0.1, 0.2], **changes),
            run("sgd10x", 0, seed, [0.6, 0.5], **changes),
        ]
    return pd.concat(frames, ignore_index=True)


def find(lines, n_tasks, method, metric="accuracy"):
    chosen = lines[(lines["n_tasks"] == n_tasks) & (lines["method"] == method) & (lines["metric"] == metric)]
    assert len(chosen) == 1
    return chosen.iloc[0]


# The papers' numbers.


def test_leap_table_1_is_complete_and_as_printed():
    counts = [1, *range(2, 31, 2)]
    assert len(LEAP) == 16 * 5 == len(pd.read_csv(PAPER / "leap.csv")) - 8 * 5 * 3  # those of Table 3
    assert sorted(zip(LEAP["n_tasks"], LEAP["method"], strict=True)) == sorted(
        (count, method) for count in counts for method in ("leap", "finetune", "reptile", "fomaml", "scratch")
    )
    assert set(LEAP["metric"]) == {"error"}
    assert set(LEAP["unit"]) == {"percent"}
    assert LEAP["std"].isna().all()
    value = LEAP.set_index(["n_tasks", "method"])["value"]
    assert value[1, "leap"] == 7.8
    assert value[4, "finetune"] == 4.7
    assert value[20, "fomaml"] == 9.4
    assert value[26, "reptile"] == 4.5
    assert value[30, "leap"] == 1.8
    assert value[4, "scratch"] == 17.9  # each row has its own number
    # Sums of the columns as the paper prints them, so that no other entry can be mistyped either.
    assert LEAP.groupby("method")["value"].sum().round(1).to_dict() == {
        "leap": 48.8,
        "finetune": 67.9,
        "reptile": 91.0,
        "fomaml": 141.4,
        "scratch": 263.9,
    }


def test_warpgrad_table_2_and_table_1_are_complete_and_as_printed():
    methods = ("warp_leap", "leap", "reptile", "finetune", "maml", "kfac", "sgd10x")
    assert len(WARP) == 7 * 7
    assert sorted(zip(WARP["n_tasks"], WARP["method"], strict=True)) == sorted(
        (count, method) for count in (1, 3, 5, 10, 15, 20, 25) for method in methods
    )
    assert set(WARP["metric"]) == {"accuracy"}
    assert WARP["note"].str.contains("caption says error but the values are accuracies").all()
    lines = WARP.set_index(["n_tasks", "method"])
    assert lines.loc[(1, "finetune"), ["value", "std"]].tolist() == [53.8, 5.0]
    assert lines.loc[(10, "leap"), ["value", "std"]].tolist() == [67.4, 2.4]
    assert lines.loc[(15, "maml"), ["value", "std"]].tolist() == [54.8, 3.4]
    assert lines.loc[(25, "warp_leap"), ["value", "std"]].tolist() == [83.8, 1.9]
    assert set(WARP.loc[WARP["method"] == "kfac", "value"]) == {56.0}
    assert set(WARP.loc[WARP["method"] == "sgd10x", "value"]) == {51.0}
    assert set(WARP.loc[WARP["std"].isna(), "method"]) == {"kfac", "sgd10x"}
    assert WARP.groupby("method")[["value", "std"]].sum().round(1).to_numpy().tolist() == [
        [482.7, 20.9],
        [392.0, 0.0],
        [436.0, 21.4],
        [362.4, 19.2],
        [423.6, 21.8],
        [357.0, 0.0],
        [523.0, 24.4],
    ]
    first = read_paper(PAPER / "warpgrad.csv", "1").set_index("method")
    assert first["value"].to_dict() == {"finetune": 76.4, "reptile": 70.8, "leap": 75.5, "warp_leap": 83.6}
    assert first["std"].to_dict() == {"finetune": 2.2, "reptile": 1.9, "leap": 2.6, "warp_leap": 1.9}


def test_read_paper_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="needed table 7"):
        read_paper(PAPER / "leap.csv", "7")
    with pytest.raises(ValueError, match="absent"):
        read_paper(tmp_path / "absent.csv", "1")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="found columns"):
        read_paper(tmp_path / "other.csv", "1")
    text = (PAPER / "leap.csv").read_text()
    (tmp_path / "typo.csv").write_text(text.replace("7.8", "7,8x", 1).replace("7,8x", "7.8x", 1))
    with pytest.raises(ValueError, match=r"7\.8x"):
        read_paper(tmp_path / "typo.csv", "1")


# The tables.


def test_table_2_holds_the_hand_computed_numbers():
    lines, text = told(warp_rows(), WARP, NOTE)
    assert list(lines.columns) == COLUMNS
    ours = find(lines, 1, "warp_leap")  # seeds: (50 + 30) / 2 = 40 and (50 + 40) / 2 = 45
    assert ours["ours_mean"] == pytest.approx(42.5)
    assert ours["ours_std"] == pytest.approx(5 / math.sqrt(2))
    assert ours["n_seeds"] == 2
    assert ours[["paper", "paper_std", "unit"]].tolist() == [49.5, 7.8, "percent"]
    assert ours[["size", "data_source"]].tolist() == ["quick", "omniglot"]
    for count in (1, 25):  # run once without pretraining, repeated at each count
        assert find(lines, count, "sgd10x")["ours_mean"] == pytest.approx(55)
        assert find(lines, count, "scratch")["ours_mean"] == pytest.approx(15)
    area = find(lines, 1, "warp_leap", "auc")
    assert area["ours_mean"] == pytest.approx(0.2125)
    assert math.isnan(area["paper"])
    assert "42.5 ± 3.5 / 49.5 ± 7.8" in text
    assert "55.0 ± 0.0 / 51.0" in text
    assert "0.213 ± 0.018" in text or "0.212 ± 0.018" in text


def test_table_1_is_in_errors():
    frame = pd.concat([run("leap", 6, seed, [0.9, 0.8 - 0.1 * seed], experiment="omniglot_leap") for seed in (0, 1)])
    lines, text = told(frame, LEAP, NOTE)
    ours = find(lines, 6, "leap", "error")  # seeds: 15 and 20
    assert ours["ours_mean"] == pytest.approx(17.5)
    assert ours["ours_std"] == pytest.approx(5 / math.sqrt(2))
    assert ours["paper"] == 3.1
    assert "17.5 ± 3.5 / 3.1" in text
    assert list(lines["method"]) == ["leap", "finetune", "reptile", "fomaml", "scratch"]  # the paper's order


def test_places_without_a_number_are_kept_and_explained():
    lines, text = told(warp_rows(), WARP, NOTE)
    kfac = find(lines, 25, "kfac")
    assert math.isnan(kfac["ours_mean"])
    assert kfac["n_seeds"] == 0
    assert kfac["paper"] == 56.0
    assert "– / 56.0" in text
    assert "damping chosen on validation alphabets" not in text
    assert math.isnan(find(lines, 1, "fomaml")["ours_mean"])  # not run at 1
    extra = find(lines, 25, "fomaml")
    assert extra["ours_mean"] == pytest.approx(30)
    assert math.isnan(extra["paper"])
    assert "not in the paper's table: MAML (first-order), No pretraining" in text
    assert "also has 3, 5, 10, 15, 20 tasks" in text
    # Every row of a table has as many cells as its heading.
    for part in text.split("\n\n"):
        if part.startswith("|"):
            assert len({row.count("|") for row in part.splitlines()}) == 1
            assert len(part.splitlines()) == 2 + 2


@pytest.mark.parametrize(
    ("changes", "seeds", "expected"),
    [
        ({}, (0, 1), ["Size: `quick`: smaller than published.", "the Omniglot images", "Seeds: 2."]),
        ({"size": "smoke", "data_source": "glyphs"}, (0,), ["Size: `smoke`", "not Omniglot", "Seeds: 1."]),
    ],
)
def test_the_heading_says_where_the_numbers_come_from(changes, seeds, expected):
    _, text = told(warp_rows(seeds, **changes), WARP, NOTE)
    for part in [*expected, "sample standard deviation over seeds", "Code version: 0.1.0"]:
        assert part in text
    assert ("± 0.0" in text) == (len(seeds) > 1)


def test_one_seed_has_no_spread_and_uneven_seeds_are_said():
    lines, text = told(warp_rows((0,)), WARP, NOTE)
    assert lines["ours_std"].isna().all()
    assert "| 40.0 / 49.5 ± 7.8" in text
    _, text = told(pd.concat([warp_rows((0, 1)), run("leap", 25, 0, [0.5, 0.5])]), WARP, NOTE)
    assert "Seeds: 1 to 2 (the CSV says which)" in text


@pytest.mark.parametrize("column", ["size", "data_source", "data_checksum"])
def test_mixed_rows_are_one_clear_error(column):
    mixed = pd.concat([warp_rows((0,)), run("leap", 25, 0, [0.5, 0.5], **{column: "glyphs"})])
    with pytest.raises(ValueError, match=f"found rows of 2 {column} .*needed one"):
        told(mixed, WARP, NOTE)
    with pytest.raises(ValueError, match=f"2 {column}"):
        drawn(mixed, WARP)


def test_runs_on_different_held_out_tasks_are_an_error():
    frame = pd.concat([warp_rows((0,)), run("leap", 25, 0, [0.5])])
    with pytest.raises(ValueError, match=r"different held-out tasks among the runs of seed 0.*'leap tasks25': 1"):
        told(frame, WARP, NOTE)


def test_a_missing_metric_is_an_error():
    frame = warp_rows()
    with pytest.raises(ValueError, match="needed 'accuracy'"):
        told(frame[frame["metric"] != "accuracy"], WARP, NOTE)
    _, text = told(frame[frame["metric"] != "auc"], WARP, NOTE)
    assert "have no area" in text


def test_the_area_of_held_out_accuracy_counts_the_distance_of_points():
    frame = warp_rows((0,))
    curve = frame.loc[(frame["method"] == "fomaml") & (frame["metric"] == "heldout_accuracy")]
    task = curve["task"].iloc[0]
    bent = [(0, 0.0), (10, 0.4), (40, 0.8), (45, 0.8)]  # (10 * 0.2 + 30 * 0.6 + 5 * 0.8) / 45
    rest = frame.drop(curve.index[curve["task"] == task])
    mine = curve.iloc[[0] * 4].assign(step=[k for k, _ in bent], value=[value for _, value in bent])
    areas = quantity(pd.concat([rest, mine.astype({"step": "Int64"})], ignore_index=True), "heldout_area")
    found = areas.loc[(areas["method"] == "fomaml") & (areas["task"] == task), "value"]
    assert found.tolist() == pytest.approx([24 / 45])
    lines, text = told(frame, WARP, NOTE)
    assert "## Area under the held-out accuracy curve" in text
    # curves of the made-up runs rise in proportion to the step, up to accuracies of 0.2 and 0.4
    points = steps(frame, "heldout_accuracy").query("method == 'fomaml'").groupby("task")["value"]
    between = (points.first() + points.last()) / 2
    assert find(lines, 25, "fomaml", "heldout_area")["ours_mean"] == pytest.approx(between.mean())


@pytest.mark.parametrize(("experiment", "table", "metrics"), [("omniglot_leap", "1", 1), ("omniglot_warp", "2", 3)])
def test_the_command_line_writes_both_files(tmp_path, capsys, experiment, table, metrics):
    rows.write(tmp_path / "rows.csv", warp_rows(experiment=experiment))
    out = tmp_path / "out"
    line = ["table", experiment, "--rows", str(tmp_path / "rows.csv"), "--out-dir", str(out), "--note", NOTE]
    command.main(line)
    assert sorted(path.name for path in out.iterdir()) == [f"table{table}.{kind}" for kind in ("csv", "json", "md")]
    lines = pd.read_csv(out / f"table{table}.csv")
    assert list(lines.columns) == COLUMNS
    assert lines["metric"].nunique() == metrics
    before = (out / f"table{table}.csv").read_bytes()
    wrong = {"omniglot_leap": "omniglot_warp", "omniglot_warp": "omniglot_leap"}[experiment]
    for text, message in (
        ("damaged\n", r"rows\.csv: found the header 'damaged'"),
        (None, rf"found rows of experiment '{wrong}', needed '{experiment}'"),
    ):
        if text:
            (tmp_path / "rows.csv").write_text(text)
        else:
            rows.write(tmp_path / "rows.csv", warp_rows(experiment=wrong))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            command.main(line)
        assert caught.value.code == 1
        assert re.match(f"error: .*{message}", capsys.readouterr().err)
        assert (out / f"table{table}.csv").read_bytes() == before


def test_default_paper_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_paper("leap").samefile(PAPER / "leap.csv")


# The figures.


def draw(frame, folder, experiment="omniglot_warp"):
    """Write the figures of `frame` and return them as arrays, name to [height, width, 4]."""
    rows.write(folder / "rows.csv", frame)
    command.main(["figures", experiment, "--rows", str(folder / "rows.csv"), "--out-dir", str(folder / "figures")])
    assert sorted(path.name for path in (folder / "figures").iterdir()) == FIGURES
    return {name: matplotlib.image.imread(folder / "figures" / name) for name in FIGURES if name.endswith("png")}


def holds(image, key):
    """Whether the colour of a method is in the image."""
    colour = np.array(matplotlib.colors.to_rgb(looks.look(key, "omniglot_warp").colour))
    return bool((np.abs(image[..., :3] - colour).max(axis=-1) < 0.01).any())


def test_figures_show_every_method_and_are_the_same_twice(tmp_path):
    images = draw(warp_rows(), tmp_path)
    for name in images:
        assert min(images[name].shape[:2]) > 500
        assert (images[name][..., :3] < 0.99).any(axis=-1).mean() > 0.02
        for key in ("warp_leap", "fomaml"):
            assert holds(images[name], key), (name, key)
    before = {name: (tmp_path / "figures" / name).read_bytes() for name in FIGURES}
    draw(warp_rows(), tmp_path)
    assert before == {name: (tmp_path / "figures" / name).read_bytes() for name in FIGURES}


def test_figures_of_one_seed_one_method_and_missing_metrics(tmp_path):
    frame = warp_rows((0,), experiment="omniglot_leap", size="smoke", data_source="glyphs")
    frame = frame[frame["method"].isin(["fomaml"]) & frame["metric"].isin(["accuracy", "meta_loss"])]
    draw(frame, tmp_path, "omniglot_leap")
    only_scratch = warp_rows()
    draw(only_scratch[only_scratch["method"] == "scratch"], tmp_path)


def test_by_tasks_draws_ours_and_the_paper():
    frame = warp_rows()
    axes = counts.by_tasks(frame, WARP, name="accuracy").axes[0]
    colour = looks.look("warp_leap", "omniglot_warp").colour
    ours, theirs = (line for line in axes.lines if line.get_color() == colour)
    assert ours.get_xdata().tolist() == [1, 25]
    assert ours.get_ydata() == pytest.approx([42.5, 80])
    assert list(theirs.get_ydata()) == [49.5, 68.8, 75.0, 81.2, 82.7, 82.0, 83.8]
    assert theirs.get_markerfacecolor() == "white"
    flat = next(line for line in axes.lines if line.get_color() == looks.look("scratch", "omniglot_warp").colour)
    assert flat.get_xdata().tolist() == [1, 25]
    assert flat.get_ydata() == pytest.approx([15, 15])


def test_by_tasks_with_one_number_of_tasks_shows_all_methods_and_their_spread():
    frame = warp_rows()
    axes = counts.auc_by_tasks(frame[frame["n_tasks"].isin([0, 25])], WARP).axes[0]
    flat = next(line for line in axes.lines if line.get_color() == looks.look("scratch", "omniglot_warp").colour)
    assert flat.get_xdata().tolist() == [24, 26]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["25"]
    strokes = [part for part in axes.collections if isinstance(part, LineCollection)]
    assert len(strokes) == len(set(frame.loc[frame["n_tasks"] == 25, "method"]))


def test_captions_say_where_the_numbers_come_from():
    text = caption(warp_rows())
    for part in (
        "size quick",
        "data omniglot",
        "2 seeds",
        "not the published size",
        "± 1 standard deviation",
    ):
        assert part in text
    text = caption(warp_rows((0,), size="paper", data_source="glyphs"))
    assert "1 seed " in text
    assert "no shading" in text
    assert "not the paper's" in text
    assert "published" not in text


def test_a_figure_of_curves_counts_the_seeds_that_have_curves():
    about, frame = catalogue.find("omniglot_warp"), warp_rows((0, 1, 2))
    kept = frame[frame["step"].isna() | (frame["seed"] == 2)]  # of two seeds only the last values were kept
    captions = [
        figure.get_supxlabel() for figure in (counts.heldout_curves(kept), counts.by_tasks(kept, WARP, name="accuracy"))
    ]
    assert "1 seed " in captions[0] and "one seed: no shading" in captions[0]
    assert "3 seeds" in captions[1]
    said = "only the seeds count whose points of curves were kept"
    both = [document.markdown(command.build(about, rows_, WARP, NOTE)) for rows_ in (kept, frame)]
    assert [said in " ".join(text.split()) for text in both] == [True, False]
    blocks = [*command.build(about, kept, WARP, NOTE).blocks, *command.build(about, frame, WARP, NOTE).blocks]
    texts = [block.caption for block in blocks if isinstance(block, document.Figure)]
    half = len(about.figures)
    assert all("up to 3 seeds" in text for text in texts[:half])
    assert all(", 3 seeds" in text for text in texts[half:])
    fewer = frame[(frame["seed"] == 2) | (frame["method"] == "warp_leap")]
    blocks = command.build(about, fewer, WARP, NOTE).blocks
    texts = [block.caption for block in blocks if isinstance(block, document.Figure)]
    assert len(texts) == len(about.figures) and all("up to 3 seeds" in text for text in texts)


def test_a_curve_averages_the_same_runs_at_every_step():
    long = run("leap", 25, 0, [0.8], steps=4)  # held-out accuracy 0.2, 0.4, 0.6, 0.8
    short = run("leap", 25, 1, [0.4], steps=2)  # 0.2, 0.4, then stopped
    lines = curve(steps(pd.concat([long, short]), "heldout_accuracy"))
    assert lines["mean"].tolist() == pytest.approx([0.2, 0.4, 0.5, 0.6])
    assert lines["std"].tolist() == pytest.approx([0, 0, 0.2 / math.sqrt(2), 0.4 / math.sqrt(2)])


def test_a_method_without_a_look_of_its_own_is_shown_by_its_name():
    """A user's state that is evaluated has the name of its file."""
    mine = run("my_state", 25, 0, [0.5, 0.5])
    lines, text = told(pd.concat([warp_rows((0,)), mine]), WARP, NOTE)
    assert find(lines, 25, "my_state")["ours_mean"] == 50
    assert "my_state" in text
    axes = counts.by_tasks(pd.concat([warp_rows((0,)), mine]), WARP, name="accuracy").axes[0]
    assert "my_state" in [label.get_text() for label in axes.figure.legends[0].get_texts()]


def test_seeds_that_diverged_are_named_and_not_counted():
    frame = warp_rows(seeds=(0, 1, 2))
    lost = (frame["method"] == "warp_leap") & (frame["n_tasks"] == 25) & (frame["seed"] == 1)
    gone = frame[lost].head(1).assign(task="", step=pd.NA, metric="diverged", value=1.0)
    both = pd.concat([frame[~lost], gone], ignore_index=True)
    _, text = told(both, WARP)
    text = " ".join(text.split())
    assert "Seeds: 2 to 3 (the CSV says which)" in text
    assert "since they diverged: Warp-Leap at 25 tasks, seed 1." in text
    assert "they diverged" not in told(frame, WARP)[1]
