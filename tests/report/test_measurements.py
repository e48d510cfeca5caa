"""The experiments `jacobian` and `geometry` at their smallest size, and the tables and figures of all measurements."""

import math
from itertools import product

import matplotlib.image
import pandas as pd
import pytest
import sizes
import torch
from told import drawn, told

from leapwarp import catalogue
from leapwarp.data import glyphs
from leapwarp.experiments.geometry import run as geometry
from leapwarp.experiments.jacobian import report as jacobian_report
from leapwarp.experiments.jacobian import run as jacobian
from leapwarp.report import __main__ as command
from leapwarp.report import rows

PAPER = pd.DataFrame()  # which prints no numbers of these
FIXED = {"n_tasks": 0, "size": "quick", "data_checksum": "0a1b2c", "settings": "3d4e5f"}
FIXED |= {"version": "0.1.0", "device": "cpu", "seconds": 1.0}


# ---------------------------------------------------------------- jacobian


@pytest.fixture(scope="module")
def alphabets():
    return glyphs.make(2)


def measured(alphabets, name, **changes):
    records = jacobian.measure(sizes.one_run(alphabets, "jacobian", name, **changes), None).records
    assert len({record[:3] for record in records}) == len(records)
    return {(task, step, metric): value for task, step, metric, value in records}


def test_precision_at_a_rate_of_nearly_nought_is_proportional_to_it(alphabets):
    # rho = rate * |sum of Hessians| / n to first order, and the start and the batches are the same at every rate
    found = []
    for rate in (2e-5, 1e-5):
        records = measured(alphabets, "rate_0.1", inner_lr=rate)
        found.append({metric: value for (_, step, metric), value in records.items() if step is None})
    assert found[0]["rho_5"] / found[1]["rho_5"] == pytest.approx(2, rel=0.03)
    assert found[1]["rho_growth"] == pytest.approx(found[1]["rho_20"] / found[1]["rho_5"])


def test_the_first_layer_alone_and_among_all_are_the_same(alphabets):
    one, all_layers = measured(alphabets, "rate_0.1", filters=1), measured(alphabets, "layers")
    (task,) = {task for task, *_ in one}
    assert one[task, 5, "rho"] == pytest.approx(all_layers[task, 5, "rho.task.0.conv"], rel=1e-4)
    layers = {metric for _, step, metric in all_layers if metric.startswith("rho.") and step == 5}
    assert len(layers) == 4 * 2 + 1  # convolution and batch norm of each block, and the head
    weighty = [
        value for (_, step, name), value in all_layers.items() if step == 5 and name in layers and "norm" not in name
    ]
    assert all_layers[task, None, "rho_spread_5"] == pytest.approx(max(weighty) / min(weighty))


def test_without_batch_norm_next_to_nothing_changes(alphabets):
    found = {}
    for batch_norm in (False, True):
        records = measured(alphabets, "unnormalised_0.5", batch_norm=batch_norm)
        found[batch_norm] = next(value for (_, _, metric), value in records.items() if metric == "rho_5")
    assert found[False] < 0.01 * found[True]


def test_steps_without_those_that_the_paper_speaks_of_are_refused(alphabets):
    with pytest.raises(ValueError, match=r"at is \(5, 10\), needed 5 and 20 among its steps"):
        measured(alphabets, "rate_0.1", at=(5, 10))


# ---------------------------------------------------------------- geometry


@pytest.mark.parametrize("name", ["residual_tanh", "two_layer_tanh"])
def test_the_order_of_curved_warps_is_two(name):
    run = sizes.one_run(None, "geometry", name)
    records = geometry.measure(run, None).records
    orders = [value for _, _, metric, value in records if metric == "order"]
    assert len(orders) == run.method.settings.draws and all(1.95 < order < 2.05 for order in orders)
    assert all(value > 0 for _, _, metric, value in records if metric == "definite")


def test_a_linear_warp_has_rounding_and_no_order():
    records = geometry.measure(sizes.one_run(None, "geometry", "linear_warp"), None).records
    assert not [value for _, _, metric, value in records if metric == "order"]
    assert max(value for _, _, metric, value in records if metric == "largest_error") < 1e-14


def test_order_of_a_power_is_its_exponent():
    rates = 0.1 * 0.5 ** torch.arange(6, dtype=torch.float64)
    errors = 3 * rates**2.5
    errors[0] = 1.0  # before the tail
    assert geometry.order(rates, errors, 5).item() == pytest.approx(2.5)


# ---------------------------------------------------------------- tables and figures, from made-up rows


def made_up(experiment, data_source, records_of, methods, seeds=(0, 1)):
    return pd.concat(
        [
            rows.rows(
                records_of(name, seed), experiment=experiment, method=name, seed=seed, data_source=data_source, **FIXED
            )
            for name, seed in product(methods, seeds)
        ],
        ignore_index=True,
    )


def jacobian_rows(seeds=(0, 1)):
    def records(name, seed):
        metrics = ["rho.task.0.conv", "rho.task.0.norm", "rho.head"] if name == "layers" else ["rho"]
        curve = [("A", k, metric, 0.01 * k * (1 + seed)) for k in (5, 20, 100) for metric in metrics]
        return [*curve, ("A", None, "rho_5", 0.05)]

    return made_up("jacobian", "omniglot", records, ["rate_0.01", "rate_0.5", "layers"], seeds)


def theorem1_rows(seeds=(0, 1)):
    def records(name, seed):
        found = [("", k, "path_length", 8.0 / (1 + k * (1 + seed))) for k in range(4)]
        summaries = ("shortening", "overshoot", "rises", "criterion_broken", "uphill", "half_steps")
        found += [("", None, metric, 2.0 + seed) for metric in summaries]
        return found + [(f"task {t}", None, "limit_distance", float(t)) for t in range(2)]

    return made_up("theorem1", "simulated", records, ["beta_0.01", "beta_0.3", "many_basins", "batch_1"], seeds)


def geometry_rows(seeds=(0, 1)):
    def records(name, seed):
        found = [("", k, "rate", 0.1 / 2**k) for k in range(4)]
        for draw in range(3):
            found += [(f"draw {draw}", k, "error", (1 + draw) * 4.0**-k * (name != "linear_warp")) for k in range(4)]
            found += [(f"draw {draw}", None, metric, 1.5 + seed) for metric in ("largest_error", "definite")]
            found += [(f"draw {draw}", None, "order", 2.0 + seed)] if name != "linear_warp" else []
        return found

    return made_up("geometry", "simulated", records, ["linear_warp", "residual_tanh"], seeds)


def test_tables_hold_the_hand_computed_numbers():
    lines, text = told(jacobian_rows(), PAPER)
    assert "| α = 0.5 | 0.0750 ± 0.0354 | 0.3000 ± 0.1414 | 1.5000 ± 0.7071 |" in text
    assert text.index("`task.0.conv`") < text.index("`task.0.norm`") < text.index("`head`")
    assert set(lines["metric"]) == {"rho", "rho.task.0.conv", "rho.task.0.norm", "rho.head"}
    _, text = told(theorem1_rows(), PAPER)
    half = 1 / math.sqrt(2)
    assert (
        f"| β = 0.3 | 2.500 ± {half:.3f} | 250.000 ± 70.711 | 2.5 ± 0.7 | 2.5 ± 0.7 | 250.0 ± 70.7 | 2.5 ± 0.7 "
        "| 0.5000 ± 0.0000 |" in text
    )
    assert "over 3 meta-steps" in " ".join(text.split())
    lines, text = told(geometry_rows(), PAPER)
    assert "| linear | – | 2.000 ± 0.707 |" in text and "| residual tanh | 2.500 ± 0.707 |" in text
    assert " 3 draws a seed" in " ".join(text.split())


CASES = {"jacobian": jacobian_rows, "theorem1": theorem1_rows, "geometry": geometry_rows}


@pytest.mark.parametrize(("name", "other"), [("theorem1", "jacobian"), ("geometry", "jacobian")])
def test_rows_of_another_experiment_are_refused(tmp_path, name, other, capsys):
    rows.write(tmp_path / "rows.csv", CASES[other]())
    for what in ("table", "figures"):
        with pytest.raises(SystemExit):
            command.main([what, name, "--rows", str(tmp_path / "rows.csv"), "--out-dir", str(tmp_path)])
        assert f"found rows of experiment '{other}', needed '{name}'" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_figures_draw(tmp_path, name, seeds):
    rows.write(tmp_path / "rows.csv", CASES[name](seeds))
    line = ["figures", name, "--rows", str(tmp_path / "rows.csv"), "--out-dir", str(tmp_path / "figures")]
    command.main(line)
    for kind in ("png", "pdf"):
        made = sorted(path.stem for path in (tmp_path / "figures").glob(f"*.{kind}"))
        assert made == sorted(catalogue.find(name).figures)
    before = {path: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    command.main(line)
    for path, content in before.items():
        assert path.read_bytes() == content
        if path.suffix == ".pdf":
            assert content.startswith(b"%PDF")
            continue
        assert (matplotlib.image.imread(path)[..., :3] < 0.99).any(axis=-1).mean() > 0.02


def test_figures_of_some_methods_only():
    frame = jacobian_rows()
    without = drawn(frame[frame["method"] != "layers"])
    assert "hold no method 'layers'" in without["jacobian_layers"].axes[0].texts[0].get_text()
    drawn(frame[frame["method"] == "layers"])
    frame = theorem1_rows()
    without = drawn(frame[frame["method"] == "batch_1"])
    assert "hold no meta learning rate" in without["theorem1"].axes[0].texts[0].get_text()
    drawn(frame[frame["method"] == "beta_0.01"])


def test_the_figure_by_rate_shows_means_and_what_the_paper_states():
    axes = jacobian_report.jacobian(jacobian_rows()).axes[0]
    lines = {tuple(line.get_xdata()): list(line.get_ydata()) for line in axes.lines}
    assert lines[5, 20, 100] == pytest.approx([0.075, 0.3, 1.5])
    assert {1e-3, 1e-2} <= {line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [5, 20]}
