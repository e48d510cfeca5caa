"""The ablations: numbers that are computed from curves, and tables and figures of real rows."""

import numpy as np
import pandas as pd
import pytest
import sizes
from calls import REPO
from made_up import run
from told import told

from leapwarp import catalogue
from leapwarp.experiments.leap_ablation import report as leap_report
from leapwarp.experiments.warp_ablation import report as warp_report
from leapwarp.models.convnet import convnet
from leapwarp.report import __main__ as command
from leapwarp.report import claims, rows
from leapwarp.report.quantities import quantity
from leapwarp.report.table import PAPER_COLUMNS, read_paper
from leapwarp.rng import generator


def meta(method, losses, seed=0, experiment="leap_ablation"):
    """One run whose meta-training losses are given."""
    frame = run(method, 10, seed, [0.5, 0.3], experiment=experiment)
    records = [("", step, "meta_loss", float(loss)) for step, loss in enumerate(losses)]
    records += [("Alphabet_0", None, "mean_loss", float(losses[-1]))]
    same = frame.iloc[0][["experiment", "size", "data_source", "data_checksum", "settings", "version", "device"]]
    made = rows.rows(records, method=method, n_tasks=10, seed=seed, seconds=1.0, **same)
    return pd.concat([frame.loc[frame["metric"] != "meta_loss"], made], ignore_index=True)


def test_what_is_read_off_a_curve():
    falling = np.linspace(4, 2, 21)  # steps of 0.1; each smoothed over two points
    frame = pd.concat([meta("leap_energy", falling), meta("leap_length", falling - 1), meta("reptile", falling)])
    end = quantity(frame, "final_meta_loss").set_index("method")["value"]
    assert end.to_dict() == pytest.approx({"leap_energy": 2.05, "leap_length": 1.05, "reptile": 2.05})
    assert quantity(frame, "final_meta_loss")["step"].isna().all()
    # half of the way from 4 to 2.05 is 3.025; the smoothed curve is 4 - 0.1 k + 0.05 after k + 1 meta-steps
    assert quantity(frame, "half_way")["value"].tolist() == pytest.approx([100 * 12 / 21] * 3)
    assert leap_report.median_end(frame, "meta_loss") == pytest.approx(1.55)
    with_fast = pd.concat([frame, meta("leap_length_loss_fast", falling + 5)])  # which serves another claim
    assert leap_report.median_end(with_fast, "meta_loss") == pytest.approx(1.55)
    steps = quantity(frame, "steps_to_median").set_index("method")["value"]
    assert steps.to_dict() == {
        "leap_energy": 21,
        "leap_length": 16,
        "reptile": 21,
    }  # the first and the last never reach it


def test_configurations_are_compared_seed_by_seed():
    # Seeds differ by 1, length is 0.1 below energy in every seed, and the third is as often above as below.
    frame = pd.concat(
        meta(method, np.full(10, 2.0 + seed + change), seed)
        for seed in range(4)
        for method, change in (
            ("leap_energy", 0.1 + seed / 1000),
            ("leap_length", 0.0),
            ("leap_energy_loss", 0.05 + (-1) ** seed),
        )
    )
    pairs = leap_report.too_close(frame, "leap_ablation")
    assert pairs.count(" and ") == 2 and pairs.count("Energy, with loss") == 2
    assert leap_report.too_close(frame[frame["seed"] == 0], "leap_ablation").count(" and ") == 3


def test_curves_of_runs_that_are_not_there_are_empty():
    frame = run("scratch", 0, 0, [0.5], experiment="leap_ablation")
    for name in ("final_meta_loss", "half_way", "steps_to_median"):
        assert quantity(frame, name).empty


def leap_rows():
    names = [name for name, method in catalogue.find("leap_ablation").methods.items() if method.trains]
    frames = [
        meta(name, np.linspace(3, 1.2 + place / 10, 30), seed) for place, name in enumerate(names) for seed in (0, 1)
    ]
    return pd.concat(frames, ignore_index=True)


def test_the_table_of_leaps_ablation_has_a_row_a_configuration():
    lines, text = told(leap_rows(), pd.DataFrame(columns=PAPER_COLUMNS))
    assert set(lines["method"]) == set(catalogue.find("leap_ablation").methods) - {"scratch"}
    assert "| Energy, parameters only | 1.2" in text and "of 2 runs)" in text
    assert text.count("\n| ") == 1 + len(set(lines["method"]))


def warp_rows():
    frames = [
        run(name, 5, seed, [0.4 + place / 50, 0.5 + seed / 50], experiment="warp_ablation")
        for place, name in enumerate(catalogue.find("warp_ablation").methods)
        for seed in (0, 1)
    ]
    return pd.concat(frames, ignore_index=True)


def test_table_3_has_all_rows_of_the_paper_beside_ours():
    paper = read_paper(REPO / "paper" / "warpgrad.csv", "3")
    lines, text = told(warp_rows(), paper)
    assert len(paper) == 13 and paper["value"].sum() == pytest.approx(1074.1)
    assert list(warp_report.ROWS) == list(catalogue.find("warp_ablation").methods)
    ours_alone = {"warp_leap_no_step", "warp_leap_online_scaled", "warp_leap_summed"}
    assert set(paper["method"]) == set(warp_report.ROWS) - ours_alone
    found = lines.set_index("method")
    assert found.loc["warp_two_layers", ["ours_mean", "paper"]].tolist() == pytest.approx([59.5, 88.0])
    assert "| 2-layer 3×3 conv + BN + Res | offline | full | 59.5 ± 0.7 | 88.0 ± 1.0 | -28.5 |" in text
    assert "5 pretraining tasks here, 25 in the paper" in " ".join(text.split())


def test_figures_are_drawn_from_rows(tmp_path):
    for frame, name in ((leap_rows(), "leap_ablation"), (warp_rows(), "warp_ablation")):
        rows.write(tmp_path / f"{name}.csv", frame)
        command.main(["figures", name, "--rows", str(tmp_path / f"{name}.csv"), "--out-dir", str(tmp_path)])
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {
        "leap_ablation.png", "leap_ablation_heldout.png", "warp_ablation.png", "warp_ablation_curves.png",
    }  # fmt: skip


@pytest.mark.parametrize(("spec", "verdict"), [({"at_most": 60}, "supported"), ({"at_least": 60}, "contradicted")])
def test_a_bound_is_kept_or_not(spec, verdict):
    frame = pd.concat([run("warp_leap", 5, seed, [0.5, 0.51 + seed / 100]) for seed in (0, 1, 2)])
    claim = {"id": "W1", "section": "1", "claim": "It is so.", "experiment": "omniglot_warp", "data": "omniglot"}
    claim |= {"parts": [{"kind": "bound", "metric": "accuracy", "method": "warp_leap"} | spec]}
    gate = {"power": 0.8, "moved": {"warps": 0.5, "initialisation": 0.1}, "ahead": {"least": 0.1, "of": {}}}
    (name,) = (
        f"accuracy: {part.name}"
        for part in claims.bound(claim["parts"][0], [5], catalogue.find("omniglot_warp").methods)
    )
    stated, book = {("W1", name): {"effect": 9.0, "spread": 0.5}}, claims.Book(gate, [], {}, [claim])
    (line,) = claims.decide(book, {"omniglot_warp": frame}, "mine", "orders", stated).to_dict("records")
    assert line["verdict"] == verdict
    assert line["effect"] == pytest.approx(9.0 if verdict == "supported" else -9.0)


def test_all_methods_of_a_seed_begin_at_the_same_task_parameters():
    """The initial task parameters depend on the seed only, so rows differ in their warps alone."""
    plain = convnet(4).init(generator(0, "init"))
    for method in sizes.methods("warp_ablation").values():
        warped = convnet(4, warp=method.warp).init(generator(0, "init"))
        assert all((warped[name] == leaf).all() for name, leaf in plain.items())
