"""Runs of the experiments on simulated tasks: rows, resuming, tables and figures."""

import math

import pandas as pd
import pytest
import sizes
from cases import dies_after
from told import drawn, told

from leapwarp import catalogue
from leapwarp.experiments.base import Trained
from leapwarp.experiments.sine import report as sine_report
from leapwarp.experiments.surfaces import report as surface_report
from leapwarp.report import rows
from leapwarp.report.quantities import quantity
from leapwarp.worlds.sine import SUBTASKS

PAPER, NOTE = pd.DataFrame(), "a size"  # the paper prints no numbers of these
FIXED = {
    "size": "quick",
    "data_source": "simulated",
    "data_checksum": "none",
    "settings": "3d4e5f",
    "version": "0.1.0",
    "device": "cpu",
    "seconds": 1.0,
    "n_tasks": 0,
}
EXPERIMENTS = ("surfaces", "sine")


def records(experiment, name, seed=0, checkpoints=None, **changes):
    """The records of one seed at smoke: of training, if the method is trained, and of evaluation."""
    about = catalogue.find(experiment)
    functions = about.module("run").EXPERIMENT
    run = sizes.one_run(None, experiment, name, seed=seed, **changes)._replace(checkpoints=checkpoints)
    trained = functions.train([run])[0] if about.methods[name].trains else Trained(None, [], 0.0)
    return trained.records + functions.evaluate(run, trained.state).records


@pytest.fixture(scope="module")
def smoke():
    """All methods of both experiments at smoke, one seed: experiment -> rows."""
    frames = {}
    for experiment in EXPERIMENTS:
        parts = [
            rows.rows(records(experiment, name), experiment=experiment, method=name, seed=0, **FIXED)
            for name in catalogue.find(experiment).methods
        ]
        frames[experiment] = rows.ordered(pd.concat(parts, ignore_index=True), experiment)  # no row twice
    return frames


def without_times(found):
    return [record for record in found if not record[2].endswith("seconds")]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_interrupted_run_ends_as_one_that_was_not(experiment, tmp_path):
    whole = records(experiment, "warpgrad")
    with dies_after(2):
        records(experiment, "warpgrad", checkpoints=tmp_path, checkpoint_every=1)
    assert (tmp_path / "seeds0.pt").exists()
    resumed = records(experiment, "warpgrad", checkpoints=tmp_path, checkpoint_every=1)
    assert without_times(resumed) == without_times(whole)
    assert without_times(records(experiment, "warpgrad", seed=1)) != without_times(whole)


@pytest.mark.parametrize("name", ["no_warp_fast", "warpgrad"])
def test_both_orders_are_of_the_same_functions_and_held_out_points(name):
    found = {(task, step, metric): value for task, step, metric, value in records("sine", name)}
    for i in range(SUBTASKS):  # the loss before the first step depends on these alone
        assert found[f"subtask{i}", 0, "log_loss"] == found[f"subtask{i}", 0, "log_loss_shuffled"]


def test_all_learners_begin_at_the_same_points_of_the_same_surfaces():
    gaps = {}
    for name in ("gd", "adam", "warpgrad", "warpgrad_residual"):
        gaps[name] = next(value for _, step, metric, value in records("surfaces", name) if (metric, step) == ("gap", 0))
    assert gaps["adam"] == gaps["gd"]
    assert gaps["warpgrad"] == pytest.approx(gaps["gd"], abs=1e-4)
    assert gaps["warpgrad_residual"] == pytest.approx(gaps["gd"], abs=1e-4)


def test_warps_that_diverge_end_the_run_with_one_clear_error():
    with pytest.raises(FloatingPointError, match=r"meta-step 1: the training loss of training task number \d+ is nan"):
        records("surfaces", "warpgrad", rates=(1e-3, 1e30))


def test_a_rate_of_surfaces_that_diverges_is_not_chosen():
    found = {(task, metric): value for task, _, metric, value in records("surfaces", "gd", rates=(1e30, 0.1))}
    assert found["", "rate"] == 0.1 and [task for task, metric in found if metric == "sweep_area"] == ["rate 0.1"]
    with pytest.raises(FloatingPointError, match=r"no rate of 1e\+30 keeps heights finite: add lower ones"):
        records("surfaces", "gd", rates=(1e30,))


# ---------------------------------------------------------------- tables


def surface_rows(method, seed, gaps, final, left=0.0, sweep=((0.1, 0.5),)):
    """The rows of one run, with one surface for each gap."""
    found = [("", None, "rate", sweep[0][0]), ("", 0, "gap", 0.5), ("", 1, "gap", 0.4)]
    for i, (area, end) in enumerate(zip(gaps, final, strict=True)):
        task = f"surface{i}"
        found += [(task, None, "gap_area", area), (task, None, "final_gap", end), (task, None, "left", left)]
        found += [(task, None, "height_area", 10 * area), (task, None, "final_height", 10 * end)]
    for rate, area in sweep:
        label = f"rate {rate:g}"
        found += [
            (label, None, "sweep_area", area),
            (label, None, "sweep_left", 0.1),
            (label, None, "sweep_reached", 1.0),
        ]
    return rows.rows(found, experiment="surfaces", method=method, seed=seed, **FIXED)


def made_up_surfaces():
    parts = []
    for seed in (0, 1):
        parts.append(surface_rows("gd", seed, [0.1, 0.2, 0.9], [0.1, 0.2, 0.8]))
        won = surface_rows("warpgrad", seed, [0.1, 0.2, 0.6], [0.1, 0.195, 0.4 + 0.1 * seed], left=1.0,
                           sweep=((0.001, 0.45), (0.01, 0.6)))  # fmt: skip
        parts.append(won)
    return pd.concat(parts, ignore_index=True)


def test_the_table_of_surfaces_compares_with_gradient_descent_surface_by_surface():
    lines, text = told(made_up_surfaces(), PAPER)
    found = {(line["method"], line["metric"]): line for line in lines.to_dict("records")}
    assert found["warpgrad", "gap_area"]["mean"] == pytest.approx(0.3)
    assert found["warpgrad", "gap_area"]["below_gd"] == pytest.approx(0.1)
    # of three surfaces a seed, gradient descent struggles on the last
    assert found["gd", "gap_area_struggling"]["mean"] == pytest.approx(0.9)
    assert found["warpgrad", "gap_area_struggling"]["below_gd"] == pytest.approx(0.3)
    assert found["warpgrad", "left"]["mean"] == pytest.approx(100)
    # a gap lower by 0.005 is no win; the other surface is one, outside the domain
    assert surface_report.wins(made_up_surfaces(), "warpgrad") == pytest.approx((100 / 3, 100))
    assert "| 0.001 | +0.0500 ± 0.0000 (10, 100) |" in text and "| 0.01 | -0.1000" in text
    alone, text = told(made_up_surfaces().loc[lambda frame: frame["method"] != "gd"], PAPER)
    assert alone["below_gd"].isna().all() and "| WarpGrad | 0.001 |" in text  # nothing to compare with


def sine_rows(method, seed, losses, rate=0.001):
    """The rows of one run on two functions, with the same value of every quantity."""
    found = [("", None, "rate", rate)]
    for suffix in sine_report.ORDERS:
        for name in sine_report.SEEN:
            found += [(f"function{i}", None, name + suffix, loss) for i, loss in enumerate(losses)]
    return rows.rows(found, experiment="sine", method=method, seed=seed, **FIXED)


def test_the_table_of_sines_has_both_orders_and_the_rates_that_were_chosen():
    frame = pd.concat([sine_rows("warpgrad", 0, [1, 2]), sine_rows("warpgrad", 1, [2, 3])])
    frame = pd.concat([frame, sine_rows("replay", 0, [4, 4], 0.1), sine_rows("replay", 1, [5, 5], 0.03)])
    lines, text = told(frame, PAPER)
    assert len(lines) == 2 * len(sine_report.ORDERS) * len(sine_report.SEEN)
    found = {(line["method"], line["metric"]): line for line in lines.to_dict("records")}
    assert found["warpgrad", "forgetting_shuffled"]["mean"] == pytest.approx(2.0)
    assert found["warpgrad", "forgetting_shuffled"]["std"] == pytest.approx(math.sqrt(0.5))
    assert text.count("| WarpGrad | 0.001 | 2.000 ± 0.707 |") == 2
    assert text.count("| Experience replay | 0.03, 0.1 | 4.500 ± 0.707 |") == 2


def test_every_quantity_of_these_experiments_is_measured(smoke):
    for experiment, module in zip(EXPERIMENTS, (surface_report, sine_report), strict=True):
        for name in module.QUANTITIES:
            assert len(quantity(smoke[experiment], name)), name


# ---------------------------------------------------------------- figures


def test_figure_4_draws_both_paths_from_one_start_and_in_both_spaces(smoke):
    figure = surface_report.surfaces_paths(smoke["surfaces"])
    settings = sizes.methods("surfaces")["warpgrad"].settings
    n = settings.n_examples
    assert len(figure.axes) == 2 * n
    frame = smoke["surfaces"]
    shown = frame.loc[(frame["metric"] == "example") & (frame["method"] == "warpgrad")]
    places = [int(axes.get_title().removeprefix("surface ")) for axes in figure.axes[:n]]
    assert places == [int(task.removeprefix("surface")) for task in shown.sort_values("value")["task"]]
    for axes in figure.axes:
        starts = [line.get_xydata()[0] for line in axes.lines if len(line.get_xydata()) == settings.steps + 1]
        assert len(starts) == 4  # two learners, each line with its outline
        assert all(start == pytest.approx(starts[0], abs=1e-2) for start in starts)
        (low, high), _ = axes.get_xlim(), axes.get_ylim()
        assert low <= starts[0][0] <= high


def test_figures_draw_every_method_and_say_where_numbers_are_missing(smoke):
    figures = drawn(smoke["surfaces"]) | drawn(smoke["sine"])
    assert set(figures) == {name for experiment in EXPERIMENTS for name in catalogue.find(experiment).figures}
    curves = [len(axes.lines) for axes in figures["surfaces_curves"].axes]
    assert curves == [6, 4]
    losses = figures["sine_losses"].axes
    assert len(losses) == 2 * len(sine_report.LINES) and all(len(axes.lines) == 5 for axes in losses)
    assert len(figures["sine_predictions"].axes) == 4 * 5
    bare = smoke["surfaces"].loc[lambda frame: ~frame["metric"].str.startswith(("native", "warped", "example"))]
    empty = surface_report.surfaces_paths(bare)
    assert "hold no paths" in empty.axes[0].texts[0].get_text()
    missing = sine_report.sine_predictions(smoke["sine"].assign(seed=1))
    assert "hold no predictions" in missing.axes[0].texts[0].get_text()


def test_sine_curves_are_means_over_seeds():
    parts = []
    for seed, level in ((0, 1.0), (1, 3.0)):
        found = [
            (f"subtask{i}", k, f"log_loss{suffix}", level + i)
            for i in range(5)
            for k in range(11)
            for suffix in ("", "_shuffled")
        ]
        parts.append(rows.rows(found, experiment="sine", method="warpgrad", seed=seed, **FIXED))
    figure = sine_report.sine_losses(pd.concat(parts))
    for axes in figure.axes:
        assert [line.get_ydata()[4] for line in axes.lines] == pytest.approx([2, 3, 4, 5, 6])
        assert [text.get_text() for text in axes.texts] in ([*"01234"], [*"13420"])
