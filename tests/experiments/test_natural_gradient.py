"""The statistics of activations, the choice of KFAC's damping; Table 4 and its figures from made-up rows."""

import numpy as np
import pandas as pd
import pytest
import reference
import sizes
import torch
from calls import REPO
from cases import DOUBLE
from told import told

from leapwarp.data import glyphs
from leapwarp.experiments import omniglot
from leapwarp.experiments.natural_gradient import report
from leapwarp.experiments.natural_gradient.run import distance, layer_rows, whiten
from leapwarp.experiments.omniglot import Subject, choose_damping, judge, train
from leapwarp.models.convnet import Warp, convnet
from leapwarp.report import __main__ as command
from leapwarp.report import rows as result_rows
from leapwarp.report.quantities import quantity
from leapwarp.report.table import read_paper

PAPER = REPO / "paper" / "warpgrad.csv"


@pytest.fixture(scope="module")
def drawn():
    return glyphs.make(6)


def rows(n_tasks=2, n=50, channels=4):
    stream = torch.Generator().manual_seed(0)
    mix = torch.randn(n_tasks, channels, channels, generator=stream, dtype=DOUBLE)
    return torch.randn(n_tasks, n, channels, generator=stream, dtype=DOUBLE) @ mix + 3


def test_the_distance_is_the_sum_of_singular_values_of_numpys_covariance_less_the_identity():
    h = rows()
    for t, ours in enumerate(distance(h)):
        gap = np.cov(h[t].numpy().T, bias=True) - np.eye(4)
        np.testing.assert_allclose(ours, np.linalg.svd(gap, compute_uv=False).sum(), rtol=1e-10)


def test_the_distance_of_nothing_is_the_number_of_channels_and_it_knows_no_mean():
    assert distance(torch.ones(1, 9, 5, dtype=DOUBLE)).tolist() == [5]
    torch.testing.assert_close(distance(rows() + 100), distance(rows()), rtol=1e-9, atol=0)


def test_whitened_by_itself_nothing_is_left_of_mean_and_distance():
    h = rows()
    white = whiten(h, h)
    torch.testing.assert_close(white.mean(1), torch.zeros(2, 4, dtype=DOUBLE), rtol=0, atol=1e-10)
    torch.testing.assert_close(distance(white), torch.zeros(2, dtype=DOUBLE), rtol=0, atol=1e-10)
    assert (distance(h) > 1).all()


def test_whitening_leaves_dead_directions_out():
    h = torch.cat([rows(), torch.zeros(2, 50, 2, dtype=DOUBLE)], 2)
    white = whiten(h, h)
    assert white.isfinite().all()
    torch.testing.assert_close(distance(white), torch.full((2,), 2.0, dtype=DOUBLE), rtol=0, atol=1e-9)


def test_layers_are_seen_as_a_plain_network_gives_them():
    model = convnet(3, 5, warp=Warp())
    each = [model.init(torch.Generator().manual_seed(t)) for t in range(2)]
    params = {name: torch.stack([p[name] for p in each]).double() for name in each[0]}
    stats = {name: leaf.double().expand(2, *leaf.shape) for name, leaf in model.stats().items()}
    x = torch.rand(2, 7, 28, 28, dtype=DOUBLE)
    subject = Subject(sizes.methods("natural_gradient")["warp_leap"].settings, model, None, None, None, [], None)
    found = layer_rows(subject, params, stats, x)
    assert sorted(found) == sorted(f"{side}.{block}" for side in ("pre", "post") for block in range(4))
    for t in range(2):
        h = x[t][:, None]
        for number, layer in enumerate(reference.load(reference.network(3, 5, True).double().eval(), each[t], True)):
            before, h = h, layer(h)
            if number % 5 == 4 and number < 20:
                for side, value in (("pre", before), ("post", h)):
                    plain = value.permute(0, 2, 3, 1).reshape(-1, 3)
                    torch.testing.assert_close(found[f"{side}.{number // 5}"][t], plain, rtol=1e-9, atol=1e-9)


def test_the_damping_of_the_least_validation_error_is_taken_and_all_are_reported():
    def error(damping):
        if damping < 0.05:
            raise FloatingPointError("a factor is not finite")
        return {0.1: 0.4, 1.0: 0.3, 10.0: 0.3}[damping]

    best, records = choose_damping([0.01, 0.1, 1.0, 10.0], error)
    assert best == 1.0
    assert {metric: value for _, _, metric, value in records} == {
        "damping": 1.0,
        "validation_accuracy.0.1": pytest.approx(0.6),
        "validation_accuracy.1": pytest.approx(0.7),
        "validation_accuracy.10": pytest.approx(0.7),
    }
    with pytest.raises(FloatingPointError, match="no damping of 0.01, 0.02 keeps training finite"):
        choose_damping([0.01, 0.02], error)


def test_the_choice_looks_at_validation_alphabets_only(drawn, monkeypatch):
    run, seen = sizes.one_run(drawn, "natural_gradient", "kfac"), []
    plain, choose, settings = omniglot.images, omniglot.choose_damping, run.method.settings
    monkeypatch.setattr(omniglot, "images", lambda data, names, *rest: seen.append(names) or plain(data, names, *rest))

    def watched(dampings, error):
        best = choose(dampings, error)
        parts = omniglot.split(drawn, 0, 0, settings.n_test, settings.n_validation)
        assert seen == [parts.validation[: settings.damping_tasks]]
        return best

    monkeypatch.setattr(omniglot, "choose_damping", watched)
    records = judge(run, None).records
    assert len(seen) == 2 and len([metric for _, _, metric, _ in records if metric == "accuracy"]) == 2


def test_a_fixed_initialisation_does_not_move_and_the_main_one_does(drawn):
    for name, moves in (("warp_linear", False), ("warp_leap", True)):
        run = sizes.one_run(drawn, "natural_gradient", name, 2)
        start, state = omniglot.set_up(run).params, train([run])[0].state
        assert all(torch.equal(leaf, start[key]) for key, leaf in state["params"].items()) != moves
        assert not any(torch.equal(leaf, start[key]) for key, leaf in state["warp"].items())


def test_activations_are_measured_before_and_after_each_warp(drawn):
    run = sizes.one_run(drawn, "natural_gradient", "warp_leap", 2)
    records = judge(run, train([run])[0].state).records
    tasks = {task for task, _, metric, _ in records if metric == "accuracy"}
    for what in ("mean", "rms", "cov"):
        for side in ("pre", "post", "white"):
            for block in range(4):
                of = {task: value for task, _, metric, value in records if metric == f"{what}_{side}.{block}"}
                assert of.keys() == tasks and all(value >= 0 for value in of.values() if what != "mean")
                assert side != "pre" or all(value >= 0 for value in of.values())  # after a ReLU


def test_the_main_configuration_departs_from_the_size_to_what_the_main_experiment_publishes():
    main = sizes.methods("omniglot_warp", "paper")["warp_leap"].settings
    for size in ("smoke", "quick", "paper"):
        settings = sizes.methods("natural_gradient", size)["warp_leap"].settings
        for key in ("batch", "inner_lr", "leap_weight"):
            assert getattr(settings, key) == getattr(main, key)


# Table and figures.


def made_up(experiment="natural_gradient", seeds=(0, 1)):
    """Two held-out tasks a seed; the activations of layer l are l + 1 times those of layer 0."""
    fixed = {
        "experiment": experiment,
        "size": "quick",
        "data_source": "omniglot",
        "data_checksum": "0a1b2c",
        "settings": "3d4e5f",
        "version": "0.1.0",
        "device": "cpu",
        "seconds": 1.0,
    }
    accuracy = {
        "sgd": 0.3,
        "kfac": 0.4,
        "kfac_exact": 0.45,
        "warp_linear": 0.6,
        "warp_nonlinear": 0.7,
        "warp_leap": 0.8,
    }
    if experiment == "omniglot_warp":
        accuracy = {"sgd10x": 0.3, "kfac": 0.4, "warp_leap": 0.8}
    frames = []
    for method, value in accuracy.items():
        for seed in seeds:
            records = [("", None, "step_seconds", 0.005 if method == "warp_leap" else 0.01)]
            if method.startswith("kfac"):
                records[0] = ("", None, "step_seconds", 0.02 * 2**seed)
                records += [("", None, "damping", 0.1), ("", None, "validation_accuracy.0.1", 0.25)]
                records += [("", None, "validation_accuracy.1", 0.125)]
            for task in ("A", "B"):
                records += [(task, None, "accuracy", value + 0.1 * seed), (task, None, "auc", value / 2)]
                records += [(task, step, "train_accuracy", value * step / 10) for step in (0, 5)]
                if method == "warp_leap" and experiment == "natural_gradient":
                    for layer in range(4):
                        for side, mean, rms, cov in (("pre", 3, 4, 5), ("post", -1, 8, 7), ("white", 0, 1, 2)):
                            for metric, number in (("mean", mean), ("rms", rms), ("cov", cov)):
                                scale = layer + 1 if metric != "cov" else 1 + layer * (side == "post")
                                records.append((task, None, f"{metric}_{side}.{layer}", float(number * scale)))
            count = 10 if method.startswith("warp") else 0
            frames.append(result_rows.rows(records, method=method, n_tasks=count, seed=seed, **fixed))
    return pd.concat(frames, ignore_index=True)


def test_table_4_is_complete_and_as_printed():
    paper = read_paper(PAPER, "4").set_index("method")
    assert paper["value"].to_dict() == {"sgd": 40.1, "kfac": 58.2, "warp_linear": 68.0, "warp_nonlinear": 81.3}
    assert paper["std"].to_dict() == {"sgd": 6.1, "kfac": 3.2, "warp_linear": 4.4, "warp_nonlinear": 4.0}


def test_table_4_sets_ours_beside_the_papers_and_says_how_dampings_were_chosen():
    lines, text = told(made_up(), read_paper(PAPER, "4"), "about this size alone")
    ours = lines.loc[lines["metric"] == "accuracy"].set_index("method")
    assert ours["ours_mean"].to_dict() == pytest.approx(
        {"sgd": 35, "kfac": 45, "kfac_exact": 50, "warp_linear": 65, "warp_nonlinear": 75}
    )
    assert ours.loc["kfac", "paper"] == 58.2 and np.isnan(ours.loc["kfac_exact", "paper"])
    assert "| KFAC | 45.0 ± 7.1 | 58.2 ± 3.2 | -13.2 |" in text
    assert "| KFAC (exact Fisher) | 1 | 25.0 | 12.5 | 0.1 |" in text
    assert "| KFAC | 30.0 ± 14.1 | 2.8 |" in text  # 2 and 4 times SGD's
    assert "`quick`: about this size alone." in text
    for part in text.split("\n\n"):
        if part.startswith("|"):
            assert len({row.count("|") for row in part.splitlines()}) == 1


def test_table_2_sets_the_times_of_kfac_and_sgd_beside_warp_leaps():
    _, text = told(made_up("omniglot_warp"), read_paper(PAPER, "2"))
    assert "| SGD (10× batch, rate) | 10.0 ± 0.0 | 2.0 |" in text
    assert "| KFAC | 30.0 ± 14.1 | 5.7 |" in text
    assert "| KFAC | 0 | 25.0 | 12.5 | 0.1 |" in text


def test_quantities_of_activations_average_over_layers():
    frame = made_up()
    offset = quantity(frame, "offset_pre")
    assert len(offset) == 4 and offset["value"].tolist() == pytest.approx([0.75] * 4)
    assert quantity(frame, "offset_post")["value"].tolist() == pytest.approx([0.125] * 4)
    excess = quantity(frame, "excess_post")  # 7, 14, 21, 28 less 2 each
    assert excess["value"].tolist() == pytest.approx([15.5] * 4)
    assert set(zip(excess["seed"], excess["task"], strict=True)) == {(s, t) for s in (0, 1) for t in "AB"}
    whitened = quantity(frame, "whitened")  # pre less post over pre less white, distances as means over layers
    sides = {side: report.by_layer(frame, f"cov_{side}").mean(axis=1).to_numpy() for side in ("pre", "post", "white")}
    share = (sides["pre"] - sides["post"]) / (sides["pre"] - sides["white"])
    assert whitened["value"].tolist() == pytest.approx(share.tolist()) and len(share) == 4
    silent = frame.assign(value=frame["value"].where(~frame["metric"].isin(["mean_pre.3", "rms_pre.3"]), 0.0))
    assert report.offset(silent, "pre")["value"].tolist() == pytest.approx([0.75] * 4)
    assert quantity(frame.loc[frame["method"] == "sgd"], "offset_pre").empty


def test_figures_show_what_the_rows_say(tmp_path):
    paper, frame = read_paper(PAPER, "4"), made_up()
    mean, cov = report.activations(frame).axes
    drawn = {c.get_label(): c.lines[0].get_ydata().tolist() for c in cov.containers}
    assert drawn["before the warp"] == pytest.approx([5, 5, 5, 5])
    assert drawn["after the warp"] == pytest.approx([7, 14, 21, 28])
    assert drawn["after it, whitened by\ntraining images"] == pytest.approx([2, 2, 2, 2])
    assert [c.lines[0].get_ydata().tolist() for c in mean.containers][1] == pytest.approx([-1, -2, -3, -4])
    left, _ = report.natural_gradient(frame, paper).axes
    assert [label.get_text() for label in left.get_yticklabels()][-1] == "SGD"
    points = [c.lines[0].get_xdata().tolist() for c in left.containers]
    assert points == [pytest.approx([x]) for x in (75, 81.3, 65, 68.0, 50, 45, 58.2, 35, 40.1)]
    line = ["figures", "natural_gradient", "--rows", str(tmp_path / "rows.csv"), "--out-dir", str(tmp_path)]
    only = made_up(seeds=(0,))
    for part in (frame, only.loc[only["method"].isin(["sgd", "warp_linear"])]):
        result_rows.write(tmp_path / "rows.csv", part)
        command.main(line)
        assert {path.stem for path in tmp_path.glob("*.png")} == {"natural_gradient", "activations"}
