"""Result rows: exact round trips, damaged files, gathering, the summary against hand-computed numbers."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from leapwarp.files import atomic
from leapwarp.report import __main__ as command
from leapwarp.report import rows, stats


def run(method="leap", n_tasks=3, seed=0, values=(0.25, 0.75), **changes):
    """One run with an accuracy per held-out task, one curve and one summary."""
    records = [(f"Alphabet_{i}", None, "accuracy", value) for i, value in enumerate(values)]
    records += [("Alphabet_0", step, "train_loss", 3.0 / (step + 1)) for step in (2, 10, 1)]
    records += [("", None, "meta_steps", 60)]
    fixed = {"experiment": "omniglot_warp", "size": "quick", "data_source": "glyphs"}
    fixed |= {
        "data_checksum": "0a1b2c",
        "settings": "3d4e5f",
        "version": "0.1.0",
        "device": "cpu",
        "seconds": 0.1 + 0.2,
    }
    return rows.rows(records, method=method, n_tasks=n_tasks, seed=seed, **(fixed | changes))


def test_a_round_trip_keeps_every_digit_type_and_byte(tmp_path):
    frame = run(values=(1 / 3, math.nextafter(0.1, 1), 5e-324))
    rows.write(tmp_path / "a.csv", frame)
    back = rows.read(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    assert list(back.columns) == rows.COLUMNS
    assert {name: str(dtype) for name, dtype in back.dtypes.items()} == rows.DTYPES
    rows.write(tmp_path / "b.csv", back)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == (
        "experiment,method,n_tasks,seed,task,step,metric,value,"
        "size,data_source,data_checksum,settings,version,device,seconds"
    )


def test_text_that_looks_like_a_missing_value_stays_text(tmp_path):
    frame = run().assign(task="NA", version="1.0", device="nan")
    rows.write(tmp_path / "a.csv", frame)
    pd.testing.assert_frame_equal(rows.read(tmp_path / "a.csv"), frame)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-9], "cut off"),
        (lambda text: text[: len(text) // 2].rsplit("\n", 1)[0] + "\nomniglot_warp,leap,3\n", "15"),
        (lambda text: text + text.splitlines()[-1] + ",more\n", "15 fields"),
        (
            lambda text: "\n".join(line + ",x" * (i > 0) for i, line in enumerate(text.splitlines())) + "\n",
            "15",
        ),
        (lambda text: text.replace("0.75", "0.7\0#"), "0.7"),
        (lambda text: text.replace(",3,0,", ",three,0,", 1), "three"),
        (lambda text: text.replace(",3,0,", ",3.5,0,", 1), "int64"),
        (lambda text: text.replace("Alphabet_0,10,train_loss", "Alphabet_0,1.5,train_loss", 1), "safely"),
        (lambda text: text.replace(",0.75,", ",,", 1), "could not convert"),
        (lambda text: text.replace(",0.75,", ",inf,", 1), "finite"),
        (lambda text: text.replace(",glyphs,", ",,", 1), "empty data_source"),
        (lambda text: text.replace("n_tasks", "tasks", 1), "header"),
        (lambda text: text.splitlines()[0] + "\n", "no rows"),
        (lambda text: "", "header"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path, damage, message):
    path = tmp_path / "rows.csv"
    rows.write(path, run())
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        rows.read(path)
    assert str(path) in str(caught.value)
    assert "needed" in str(caught.value)


def test_a_byte_order_mark_of_a_spreadsheet_is_no_damage(tmp_path):
    path = tmp_path / "rows.csv"
    rows.write(path, run())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(rows.read(path), run())


def test_bytes_that_are_not_text_and_a_missing_file_are_named(tmp_path):
    path = tmp_path / "rows.csv"
    rows.write(path, run())
    path.write_bytes(path.read_bytes().replace(b"glyphs", b"gl\xffphs"))
    with pytest.raises(ValueError, match=r"rows\.csv"):
        rows.read(path)
    with pytest.raises(ValueError, match=r"absent\.csv: found no such file"):
        rows.read(tmp_path / "absent.csv")


def test_write_refuses_bad_rows_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.csv"
    rows.write(path, run())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="value nan for accuracy of leap, seed 0"):
        rows.write(path, run().assign(value=[math.nan, *[1.0] * 5]))
    with pytest.raises(ValueError, match="found columns"):
        rows.write(path, run().drop(columns="seed"))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["rows.csv"]


def test_atomic_leaves_nothing_behind_when_the_block_fails(tmp_path):
    path = tmp_path / "new" / "file.txt"

    def fail():
        with atomic(path) as temporary:
            temporary.write_text("half")
            assert temporary.parent == path.parent
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(path.parent.iterdir()) == []


def test_gather_does_not_depend_on_order_and_refuses_a_run_twice(tmp_path):
    paths = []
    for method, seed in (("reptile", 1), ("leap", 10), ("leap", 2)):
        paths.append(tmp_path / f"{method}{seed}.csv")
        rows.write(paths[-1], run(method, seed=seed))
    frame = rows.gather(paths)
    pd.testing.assert_frame_equal(frame, rows.gather(paths[::-1]), check_exact=True)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == rows.DTYPES
    assert list(dict.fromkeys(zip(frame["method"], frame["seed"], strict=True))) == [
        ("leap", 2),
        ("leap", 10),  # as numbers, not as text
        ("reptile", 1),
    ]
    losses = frame[(frame["metric"] == "train_loss") & (frame["seed"] == 2)]
    assert losses["step"].tolist() == [1, 2, 10]
    with pytest.raises(ValueError, match=r"6 rows twice.*'seed': 10"):
        rows.gather([*paths, paths[1]])
    with pytest.raises(ValueError, match="no files"):
        rows.gather([])


def run_of(seed):
    frame = run(seed=seed)
    return {"method": frame["method"][0], "n_tasks": int(frame["n_tasks"][0]), "seed": seed, "rows": len(frame)}


def test_gather_by_command_line_writes_the_same_and_names_a_bad_file(tmp_path, capsys):
    out, origins, csvs = tmp_path / "rows.csv", tmp_path / "runs.json", [str(tmp_path / f"{name}.csv") for name in "ba"]
    for seed, path in enumerate(csvs):
        rows.write(path, run(seed=seed))
        (tmp_path / f"{path[-5]}.json").write_text(json.dumps([run_of(seed)]))
    line = ["gather", "--out", str(out), "--origins", str(origins), *csvs]
    command.main(line)
    pd.testing.assert_frame_equal(rows.read(out), rows.gather(csvs[::-1]))
    assert json.loads(origins.read_text()) == [run_of(0), run_of(1)]
    Path(csvs[0]).write_text("\n".join(Path(csvs[0]).read_text().splitlines()[:-1]) + "\n")  # a whole line is lost
    with pytest.raises(SystemExit):
        command.main(line)
    assert re.search("b.csv: found 5 rows of leap, 3 tasks, seed 0, needed 6, as the JSON", capsys.readouterr().err)
    rows.write(csvs[0], run(seed=0))
    out.unlink()
    (tmp_path / "b.json").write_text('{"run": ')
    with pytest.raises(SystemExit):
        command.main(line)
    assert "b.json: found no readable provenance" in capsys.readouterr().err
    (tmp_path / "a.csv").write_text("nothing\n")
    with pytest.raises(SystemExit) as caught:
        command.main(line)
    assert caught.value.code == 1
    assert not out.exists()


def test_summary_averages_tasks_within_a_seed_first():
    frame = pd.concat([run(seed=0, values=(0.1, 0.3)), run(seed=1, values=(0.4, 0.4, 0.4, 0.8))])
    accuracy = frame[frame["metric"] == "accuracy"]
    line = stats.summary(accuracy, ["method", "n_tasks"]).iloc[0]
    # Per-seed means are 0.2 and 0.5: mean 0.35 (not 2.4 / 6), sample standard deviation 0.3 / sqrt(2).
    assert line["mean"] == pytest.approx(0.35, abs=1e-15)
    assert line["std"] == pytest.approx(0.3 / math.sqrt(2), abs=1e-15)
    assert line["n_seeds"] == 2
    alone = stats.summary(accuracy[accuracy["seed"] == 0], ["method"]).iloc[0]
    assert alone["mean"] == pytest.approx(0.2)
    assert math.isnan(alone["std"])


@pytest.mark.parametrize(
    ("other", "by", "column"),
    [
        (run(seed=1, size="smoke"), ["method"], "size"),
        (run(seed=1, n_tasks=9), ["method"], "n_tasks"),
        (run(seed=1, data_source="omniglot"), ["method", "n_tasks"], "data_source"),
    ],
)
def test_summary_refuses_to_average_over_what_differs(other, by, column):
    frame = pd.concat([run(), other])
    with pytest.raises(ValueError, match=f"several values of {column}"):
        stats.summary(frame[frame["metric"] == "accuracy"], by)


def test_summary_refuses_steps_and_metrics_in_one_group():
    losses = run()[run()["metric"] == "train_loss"]
    with pytest.raises(ValueError, match="step"):
        stats.summary(losses, ["method"])
    assert stats.summary(losses, ["method", "step"])["mean"].tolist() == [1.5, 1.0, 3.0 / 11]
    finals = run()[run()["step"].isna()]
    with pytest.raises(ValueError, match="metric"):
        stats.summary(finals, ["method"])


def test_provenance_is_one_size_and_source():
    assert rows.provenance(run(), "omniglot_warp") == ("quick", "glyphs")
    with pytest.raises(ValueError, match=r"2 data_source \(glyphs, omniglot\)"):
        rows.provenance(pd.concat([run(), run(data_source="omniglot")]), "omniglot_warp")
    with pytest.raises(ValueError, match="'omniglot_warp', needed 'omniglot_leap'"):
        rows.provenance(run(), "omniglot_leap")


def test_tables_start_without_plotting_and_nothing_of_a_report_needs_torch():
    names = ", ".join(f"leapwarp.experiments.{name}.report" for name in ("omniglot_leap", "leap_ablation"))
    code = (
        "import sys, leapwarp.report.__main__, leapwarp.report.rows, leapwarp.report.table\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"import {names}\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
