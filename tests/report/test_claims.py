"""Verdicts on claims: known effects, the gate, insufficient evidence, pairing, identities, and bad input."""

import math
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from calls import REPO, jobs_of
from scipy.stats import chi2

from leapwarp import catalogue, plan
from leapwarp.report import claims
from leapwarp.report import rows as results
from leapwarp.report.document import Verdicts
from leapwarp.report.quantities import quantities
from leapwarp.report.stats import corrected, interval, power

TASKS = [f"alphabet {i} & <co>" for i in range(10)]
SPEC = {"kind": "difference", "metric": "accuracy", "more": "warp_leap", "less": "leap", "at": "each"}
CLAIM = {
    "id": "W1",
    "section": "Sec. 1",
    "claim": "It is better.",
    "experiment": "omniglot_warp",
    "data": "omniglot",
    "parts": [SPEC],
}
GATE = {
    "power": 0.8,
    "moved": {"warps": 0.5, "initialisation": 0.1},
    "ahead": {"least": 0.1, "of": {"omniglot_warp": {"metric": "error", "untrained": "scratch"}}},
}
ABOUT = catalogue.find("omniglot_warp")


def rows(effects, seeds=4, noise=0.02, hardness=0.1, seed_noise=0.0, source="omniglot", metric="accuracy", moved=1.0):
    """Rows with means effects[method, count]. Tasks differ by `hardness`, which is the same for all methods of a seed.

    All methods have moved by `moved`. The row of no pretraining has 10 %.
    """
    frames, stream = [], np.random.default_rng(7)
    for seed in range(seeds):
        hard = stream.normal(0, hardness, len(TASKS))
        for (method, count), effect in (effects | {("scratch", 0): 0.1}).items():
            values = effect + hard + stream.normal(0, seed_noise) + stream.normal(0, noise, len(TASKS))
            records = [(task, None, metric, float(value)) for task, value in zip(TASKS, values, strict=True)]
            if count:
                records += [("", None, "moved_init", moved)]
                records += [("", None, "moved_warps", moved)] * method.startswith("warp")
            fixed = {"experiment": "omniglot_warp", "size": "quick", "data_source": source, "data_checksum": "0a"}
            fixed |= {"settings": "0b", "version": "1", "device": "cpu", "seconds": 1.0}
            frames.append(results.rows(records, method=method, n_tasks=count, seed=seed, **fixed))
    return pd.concat(frames, ignore_index=True)


def certain(claim, frame):
    """A table of power by which every part of a claim will certainly be decided."""
    parts = claims.expanded(claim, frame, ABOUT.methods) if claim["experiment"] in catalogue.names() else []
    return {(claim["id"], claims.named(part, spec)): {"effect": 1.0, "spread": 1e-3} for part, spec in parts}


def decide(frame, decides="orders", gate=GATE, identities=(), stated=None, **changes):
    claim = CLAIM | changes
    book = claims.Book(gate, list(identities), {}, [claim])
    stated = certain(claim, frame) if stated is None else stated
    return claims.decide(book, {"omniglot_warp": frame}, "mine", decides, stated)


AHEAD = {("warp_leap", 1): 0.5, ("warp_leap", 10): 0.6, ("leap", 1): 0.4, ("leap", 10): 0.4}


def test_a_clear_effect_is_supported_with_its_size():
    lines = decide(rows(AHEAD))
    assert lines["verdict"].tolist() == ["supported"] * 2 and lines["reason"].tolist() == ["", ""]
    assert lines["part"].tolist() == ["accuracy: Warp-Leap − Leap, 1 task", "accuracy: Warp-Leap − Leap, 10 tasks"]
    assert lines["effect"].to_numpy() == pytest.approx([10, 20], abs=2)
    assert (lines["low"] < lines["effect"]).all() and (lines["effect"] < lines["high"]).all()
    assert lines["n_seeds"].tolist() == [4, 4] and lines["n_heldout"].tolist() == [40, 40]
    assert (lines["unit"] == "points").all()


def test_the_opposite_is_contradicted_and_the_same_size():
    swapped = [SPEC | {"more": "leap", "less": "warp_leap"}]
    ahead, behind = decide(rows(AHEAD)), decide(rows(AHEAD), parts=swapped)
    assert behind["verdict"].tolist() == ["contradicted"] * 2
    assert behind["effect"].to_numpy() == pytest.approx(-ahead["effect"].to_numpy())


def test_one_wrong_part_contradicts_the_claim_and_keeps_the_others():
    lines = decide(rows(AHEAD | {("leap", 10): 0.8}))
    assert lines["part_verdict"].tolist() == ["supported", "contradicted"]
    assert lines["verdict"].tolist() == ["contradicted"] * 2


def test_an_interval_that_contains_zero_is_undecided_and_says_the_sign():
    lines = decide(rows({("warp_leap", 1): 0.401, ("leap", 1): 0.4}, noise=0.1))
    assert lines["verdict"].tolist() == ["undecided"]
    assert "contains zero; the effect is" in lines["reason"].iloc[0]
    assert lines["low"].iloc[0] < 0 < lines["high"].iloc[0]


def test_one_seed_is_never_enough():
    lines = decide(rows(AHEAD, seeds=1))
    assert lines["verdict"].tolist() == ["not tested"] * 2 and "one seed" in lines["reason"].iloc[0]
    assert lines["low"].isna().all() and lines["effect"].notna().all()


@pytest.mark.parametrize(
    ("frame", "changes", "reason"),
    [
        (rows(AHEAD, source="glyphs"), {}, "the data are glyphs, not omniglot"),
        (
            rows(AHEAD),
            {"experiment": "omniglot_leap", "parts": [SPEC | {"more": "fomaml", "less": "leap"}]},
            "omniglot_leap was not run",
        ),
        (rows(AHEAD), {"experiment": "of_a_user"}, "of_a_user was not run"),
        (rows(AHEAD), {"parts": [SPEC | {"less": "maml"}]}, "not run: MAML with 1 task"),
        (rows(AHEAD), {"parts": [SPEC | {"at": [2]}]}, "not run: Warp-Leap with 2 tasks, Leap with 2 tasks"),
        (
            rows(AHEAD),
            {"parts": [{"kind": "slope", "metric": "error", "method": "leap"}]},
            "too few numbers of tasks were run",
        ),
        (rows(AHEAD), {"needs": "rows with larger batches"}, "needs rows with larger batches"),
    ],
)
def test_why_a_claim_is_not_tested(frame, changes, reason):
    lines = decide(frame, **changes)
    assert set(lines["verdict"]) == {"not tested"} and lines["reason"].iloc[0] == reason


def test_a_size_that_shows_that_everything_runs_tests_nothing():
    lines = decide(rows(AHEAD), "nothing")
    assert set(lines["verdict"]) == {"not tested"}
    assert set(lines["reason"]) == {"mine only shows that everything runs"}
    assert set(decide(rows(AHEAD), "orders")["verdict"]) == {"supported"}


# ---------------------------------------------------------------- the gate


@pytest.mark.parametrize(
    ("moved", "verdict"), [(0.49, "not tested"), (0.51, "supported"), (float("nan"), "not tested")]
)
def test_warps_that_have_hardly_moved_decide_nothing(moved, verdict):
    frame = rows(AHEAD)
    frame.loc[(frame["metric"] == "moved_warps") & (frame["seed"] == 2), "value"] = moved
    lines = decide(frame)
    assert set(lines["part_verdict"]) == {verdict}
    if moved == 0.49:
        assert lines["reason"].iloc[0].startswith("Warp-Leap with 1 task")
        assert "the warps moved by 0.49 of the initial norm, needed 0.5" in lines["reason"].iloc[0]


@pytest.mark.parametrize(("moved", "verdict"), [(0.09, "not tested"), (0.11, "supported")])
def test_an_initialisation_that_has_hardly_moved_decides_nothing(moved, verdict):
    frame = rows(AHEAD)
    mine = (frame["metric"] == "moved_init") & (frame["method"] == "leap")
    frame.loc[mine, "value"] = moved
    assert set(decide(frame)["part_verdict"]) == {verdict}
    frame.loc[mine, "value"] = 0.0
    assert decide(frame)["reason"].iloc[0].endswith("the initialisation moved by 0 of the initial norm, needed 0.1")
    frame.loc[frame["metric"] == "moved_init", "value"] = 0.0
    frame.loc[mine, "value"] = 1.0  # if warps are learnt, the initialisation need not move
    assert set(decide(frame)["part_verdict"]) == {"supported"}


def test_rows_that_do_not_say_how_far_a_method_has_moved_decide_nothing():
    frame = rows(AHEAD)
    frame = frame.loc[~frame["metric"].isin(["moved_warps", "moved_init"])]
    lines = decide(frame)
    assert set(lines["part_verdict"]) == {"not tested"} and lines["effect"].notna().all()
    assert "do not say for every run how far Warp-Leap" in lines["reason"].iloc[0]
    frame = rows(AHEAD)
    frame = frame.loc[(frame["metric"] != "moved_warps") | (frame["seed"] == 0)]  # one run of four says it
    assert set(decide(frame)["part_verdict"]) == {"not tested"}


def test_a_part_of_whose_runs_one_diverged_is_not_tested():
    frame = rows(AHEAD)
    lost = (frame["method"] == "warp_leap") & (frame["seed"] == 1)
    row = frame.loc[lost].iloc[[0]].assign(metric="diverged", task="", step=pd.NA, value=1.0)
    lines = decide(pd.concat([frame.loc[~lost], row]))
    assert lines["part_verdict"].tolist() == ["not tested", "supported"]
    assert "1 of 4 runs of Warp-Leap diverged" in lines["reason"].iloc[0]


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_ratio_of_a_zero_is_not_tested(value):
    frame = rows(AHEAD)
    place = frame.index[(frame["metric"] == "accuracy") & (frame["method"] == "leap")][0]
    frame.loc[place, "value"] = value
    lines = decide(frame, parts=[SPEC | {"kind": "ratio"}])
    assert lines["part_verdict"].iloc[0] == "not tested" and lines["effect"].isna().iloc[0]
    assert "is zero, of which there is no logarithm, or is not a number" in lines["reason"].iloc[0]
    claims.document(lines)


def test_different_held_out_tasks_are_an_error():
    frame = rows(AHEAD)
    frame.loc[(frame["method"] == "leap") & (frame["task"] != ""), "task"] += "x"
    with pytest.raises(ValueError, match="found different held-out tasks in a seed, needed the same"):
        decide(frame)


def test_a_statement_about_numbers_of_tasks_that_were_not_run_is_not_tested():
    lines = decide(rows(AHEAD), parts=[SPEC, SPEC | {"at": {"from": 50}}])
    assert lines["part_verdict"].tolist()[-1] == "not tested" and lines["verdict"].iloc[0] == "not tested"
    assert "too few numbers of tasks were run" in lines["reason"].iloc[-1]


def test_a_state_of_a_user_does_not_change_the_numbers_of_tasks():
    frame = rows(AHEAD)
    mine = frame.loc[frame["method"] == "leap"].assign(method="mine", n_tasks=99)
    pd.testing.assert_frame_equal(decide(pd.concat([frame, mine])), decide(frame))


def test_seeds_that_differ_by_rounding_have_no_spread():
    values = [np.array([0.1 + 0.2 - 0.2]), np.array([0.1]), np.array([0.1])]
    assert claims.of_interval(values, None, 1)[1] == "undecided"


def test_gains_and_slopes_have_limits():
    run = [1, 5, 25]
    methods = ABOUT.methods
    spec = {"kind": "gain", "metric": "accuracy", "method": "leap", "between": [1, 25], "beyond": 11}
    [part] = claims.gain(spec, run, methods)
    assert part.constant == -11 and part.name.endswith("from 1 to 25 tasks, above 11")
    [flat] = claims.slope({"kind": "slope", "metric": "error", "method": "leap", "at_most": 0.5}, run, methods)
    [free] = claims.slope({"kind": "slope", "metric": "error", "method": "leap"}, run, methods)
    assert flat.constant == 0.5 and flat.weights == {cell: -weight for cell, weight in free.weights.items()}
    falling = sum(weight * -2 * math.log2(count) for (_, count), weight in free.weights.items())
    assert falling == pytest.approx(2)  # two points for each doubling


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.15, "not tested"), (0.25, "supported")])
def test_a_baseline_that_is_not_ahead_of_no_pretraining_decides_nothing(accuracy, verdict):
    """No pretraining has 90 % error: a tenth less is 81 %."""
    frame = rows(AHEAD | {("leap", 1): accuracy, ("leap", 10): accuracy})
    lines = decide(frame)
    assert set(lines["part_verdict"]) == {verdict}
    # a part that compares with no pretraining may find that there is no gain
    assert set(decide(frame, parts=[SPEC | {"more": "leap", "less": "scratch"}])["part_verdict"]) == {"supported"}
    without = decide(frame.loc[frame["method"] != "scratch"])
    assert "do not say how far it is ahead" in without["reason"].iloc[0]


@pytest.mark.parametrize("base", [{"untrained": "scratch"}, {"chance": 10}])
@pytest.mark.parametrize(("accuracy", "verdict"), [(0.105, "not tested"), (0.12, "supported")])
def test_where_more_is_better_a_baseline_must_be_above_no_pretraining_or_chance(base, accuracy, verdict):
    """No pretraining and chance have 10 %: a tenth more is 11 %."""
    frame = rows(AHEAD | {("leap", 1): accuracy, ("leap", 10): accuracy}, hardness=0.0, noise=1e-4)
    ahead = {"least": 0.1, "of": {"omniglot_warp": {"metric": "accuracy"} | base}}
    assert set(decide(frame, gate=GATE | {"ahead": ahead})["part_verdict"]) == {verdict}


def test_a_part_needs_the_power_that_was_stated_beforehand():
    frame = rows(AHEAD)
    keys = list(certain(CLAIM, frame))
    weak = {key: {"effect": 5.0, "spread": 5.0} for key in keys}
    none, little = decide(frame, stated={}), decide(frame, stated=weak)
    assert set(none["reason"]) == {"no power was stated beforehand"}
    assert set(none["verdict"]) == set(little["verdict"]) == {"not tested"}
    assert little["reason"].iloc[0].startswith("power 0.") and little["reason"].iloc[0].endswith(" seeds")
    assert none["effect"].notna().all() and none["low"].notna().all()
    half = decide(frame, stated={keys[0]: {"effect": 5.0, "spread": 0.1}})
    assert half["part_verdict"].tolist() == ["supported", "not tested"]
    assert set(half["verdict"]) == {"not tested"}
    # a contradicted part contradicts the claim, even if other parts are not tested
    wrong = decide(rows(AHEAD | {("leap", 1): 0.8}), stated={keys[0]: {"effect": 5.0, "spread": 0.1}})
    assert wrong["part_verdict"].tolist() == ["contradicted", "not tested"]
    assert set(wrong["verdict"]) == {"contradicted"}


def test_no_claim_of_the_repository_can_change_the_gate(tmp_path):
    whole = yaml.safe_load((REPO / "paper/claims.yaml").read_text())
    path = tmp_path / "claims.yaml"
    for key, value in (("power", 0.1), ("gate", GATE), ("moved", {}), ("exact", True)):
        changed = yaml.safe_load(yaml.safe_dump(whole))
        changed["claims"][0][key] = value
        path.write_text(yaml.safe_dump(changed))
        with pytest.raises(ValueError, match=f"'{key}' was unexpected"):
            claims.read(path, [])
    whole["gate"]["power"] = 0.5
    path.write_text(yaml.safe_dump(whole))
    with pytest.raises(ValueError, match=r"gate\.power: 0.5 is less than the minimum of 0.8"):
        claims.read(path, [])


def test_identities_are_those_of_mathematics_and_counting():
    book = claims.read(REPO / "paper/claims.yaml", catalogue.names())
    assert book.identities == ["L5", "L13", "L20", "W14", "W25"]
    methods = {claim["id"]: claim for claim in book.claims}
    assert [methods[name]["experiment"] for name in book.identities] == [
        "leap_ablation", "theorem1", "multicv", "geometry", "inner_cost",
    ]  # fmt: skip


def test_an_identity_holds_in_every_seed_or_not_at_all():
    frame, part = rows(AHEAD, noise=0.0, hardness=0.0), SPEC | {"at": [10]}
    for margin, verdict in ((20.1, "supported"), (19.9, "contradicted")):
        lines = decide(frame, identities=["W1"], stated={}, parts=[part | {"within": margin}])
        assert lines["verdict"].tolist() == [verdict] and set(lines["group"]) == {"identity"}
    frame.loc[(frame["seed"] == 1) & (frame["method"] == "leap") & (frame["n_tasks"] == 10), "value"] += 0.3
    assert decide(frame, identities=["W1"], stated={}, parts=[part])["verdict"].tolist() == ["contradicted"]


def test_counted_numbers_decide_whatever_was_run():
    part = {"kind": "counted", "name": "parameters", "numbers": [90, 10], "at_least": 8}
    lines = decide(rows(AHEAD), experiment="multicv", stated={}, parts=[part])
    assert lines["verdict"].tolist() == ["supported"] and lines["effect"].tolist() == [1.0]
    lines = decide(rows(AHEAD), experiment="multicv", stated={}, parts=[part | {"at_least": 9.5}])
    assert lines["verdict"].tolist() == ["contradicted"]
    lines = decide(rows(AHEAD), decides="nothing", experiment="multicv", stated={}, parts=[part])
    assert lines["verdict"].tolist() == ["not tested"] and lines["reason"].iloc[0]


def test_counted_numbers_do_not_hide_the_other_parts_of_a_claim():
    counted = {"kind": "counted", "name": "parameters", "numbers": [90, 10], "at_least": 8}
    other = {"kind": "difference", "metric": "accuracy", "more": "reptile", "less": "leap", "at": "largest"}
    lines = decide(rows(AHEAD), parts=[counted, other])
    assert lines["part"].str.contains("parameters").tolist() == [True, False]
    assert set(lines["verdict"]) == {lines["part_verdict"].iloc[1]} != {"supported"}


def test_seeds_that_all_give_one_number_have_no_interval():
    lines = decide(rows(AHEAD, noise=0.0, hardness=0.0))
    assert set(lines["verdict"]) == {"undecided"} and "no spread is known" in lines["reason"].iloc[0]


def test_identities_and_other_data_are_counted_apart():
    book = claims.read(REPO / "paper/claims.yaml", catalogue.names())
    frame = claims.decide(book, {"omniglot_warp": rows(AHEAD)}, "mine", "orders")
    blocks = claims.document(frame).of(Verdicts)
    assert [list(block.counts) for block in blocks] == [list(claims.VERDICTS)] * 6
    sizes = {block.paper: sum(block.counts.values()) for block in blocks}
    assert sum(sizes.values()) == len(book.claims)
    groups = frame.drop_duplicates("id").groupby(["paper", "group"]).size()
    assert groups["leap", "identity"] == 3 and groups["warpgrad", "identity"] == 2
    assert groups["leap", "other data"] == 5 and groups["warpgrad", "other data"] == 5
    beside = {claim["beside"] for claim in book.claims if "beside" in claim}
    by_id = {claim["id"]: claim for claim in book.claims}
    assert all(by_id[name]["data"] in ("multicv", "mini-imagenet", "tiered-imagenet") for name in beside)


def test_what_a_claim_would_take_is_said_beside_it():
    claim = CLAIM | {"id": "W1"}
    book = claims.Book(GATE, [], {"omniglot_warp": "400 GPU hours"}, [claim])
    for frames in ({"omniglot_warp": rows(AHEAD)}, {}):
        lines = claims.decide(book, frames, "mine", "orders")
        assert all(reason.endswith("; the published settings take 400 GPU hours") for reason in lines["reason"])


def test_the_cost_of_the_published_settings_is_not_said_of_them_themselves():
    book = claims.Book(GATE, [], {"omniglot_warp": "400 GPU hours"}, [CLAIM | {"id": "W1"}])
    lines = claims.decide(book, {"omniglot_warp": rows(AHEAD)}, "mine", "everything")
    assert set(lines["reason"]) == {"no power was stated beforehand"}


def test_the_power_of_paper_is_that_of_the_printed_numbers_else_of_overnight(tmp_path):
    sizes = REPO / "workflow/sizes"
    command = ["expected", "--claims", str(REPO / "paper/claims.yaml"), "--size-file", str(sizes / "paper.yaml")]
    command += ["--printed", str(REPO / "paper"), "--like", str(sizes / "overnight.yaml")]
    claims.main([*command, "--out", str(tmp_path / "power.csv")])
    assert (tmp_path / "power.csv").read_text() == (sizes / "paper.power.csv").read_text()
    stated = claims.read_power(sizes / "paper.power.csv")
    line = stated["W2", "accuracy: Finetuning (multi-head) − Leap, 25 tasks"]  # 76.4 ± 2.2 and 74.8 ± 2.7
    degrees = 9 * (2.2**2 + 2.7**2) ** 2 / (2.2**4 + 2.7**4)  # of ten seeds each
    above = math.hypot(2.2, 2.7) * math.sqrt(degrees / chi2.ppf(0.2, degrees))
    assert line["effect"] == pytest.approx(1.6) and line["spread"] == pytest.approx(above, rel=1e-5)
    assert line["power"] == pytest.approx(power(1.6, above, 10, 4), rel=1e-4) and line["n_trials"] == 10
    line = stated["W3", "accuracy: gain of Leap from 1 to 25 tasks, above 11"]  # from 37.6 ± 4.8
    assert line["effect"] == pytest.approx(74.8 - 37.6 - 11) and line["spread"] > math.hypot(2.7, 4.8)
    line = stated["W11", "accuracy: KFAC − SGD, 25 tasks"]  # without pretraining, in the row of 25 tasks
    assert line["effect"] == pytest.approx(58.2 - 40.1) and line["seeds"] == line["n_trials"] == 4
    other = claims.read_power(sizes / "overnight.power.csv")
    key = "W19", "return_height: Warp-RNN − HyperRNN"
    assert stated[key]["effect"] == other[key]["effect"] and stated[key]["source"].endswith("settings of overnight")
    absent = {"L1", "L4", "W15", "W17", "L5", "W14", "W15x"}  # no spread over seeds; identities; other data
    assert not absent & {name for name, _ in stated}
    assert "in the settings of quick" in stated["L14", "half_steps: batch of 1 of 32 / β = 0.01"]["source"]


def test_a_table_of_power_is_made_from_trial_seeds_and_read_again(tmp_path, capsys):
    trials = rows(AHEAD, seeds=3, seed_noise=0.01).assign(size="mine")
    results.write(tmp_path / "rows.csv", trials.assign(seed=trials["seed"] + 100))
    results.write(tmp_path / "final.csv", trials)
    book = {"gate": GATE, "identities": [], "costs": {}, "claims": [CLAIM]}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(book))
    options = ["--claims", str(tmp_path / "claims.yaml"), "--experiments", "omniglot_warp", "--rows"]
    final, options = [*options, str(tmp_path / "final.csv")], [*options, str(tmp_path / "rows.csv")]
    size = ["--size-file", str(REPO / "workflow/sizes/paper.yaml"), "--source", "seeds 100 to 102"]
    claims.main(["power", *options, *size, "--out", str(tmp_path / "power.csv")])
    made = pd.read_csv(tmp_path / "power.csv")
    assert made["effect"].to_numpy() == pytest.approx([10, 20], abs=2)
    frame = trials
    stds = []
    for part, spec in claims.expanded(CLAIM, frame, ABOUT.methods):
        values, _ = claims.contrast(frame, part, spec["metric"])
        stds.append(np.std([value.mean() for value in values], ddof=1))
    assert (made["spread"] > 1.4 * np.array(stds)).all()  # with two degrees of freedom, each by itself
    assert made["seeds"].tolist() == [10, 10] and (made["power"] > 0.99).all()
    decided = ["decide", *final, "--size", "mine", "--decides", "orders", "--power", str(tmp_path / "power.csv")]
    claims.main([*decided, "--out", str(tmp_path / "claims.csv")])
    found = pd.read_csv(tmp_path / "claims.csv")
    assert set(found["part_verdict"]) <= {"supported", "not tested"}
    claims.main([*decided[:-2], "--out", str(tmp_path / "claims.csv")])
    assert set(pd.read_csv(tmp_path / "claims.csv")["reason"]) == {"no power was stated beforehand"}
    out = ["--out", str(tmp_path / "no.csv")]
    for line, message in (
        (["power", *final, *size], "rows of seed 0, needed trial seeds, from 100 on"),
        (["decide", *options, "--size", "mine", "--decides", "orders"], "rows of seed 102, needed seeds below 100"),
        (["decide", *final, "--size", "paper", "--decides", "orders"], "rows of size mine, needed paper"),
        (["decide", *final, str(tmp_path / "rows.csv"), "--size", "mine", "--decides", "nothing"], "found 2 files"),
    ):
        with pytest.raises(SystemExit):
            claims.main([*line, *out])
        assert message in capsys.readouterr().err
    trials = trials.assign(seed=trials["seed"] + 100, data_source="glyphs")
    assert claims.trial_power(
        claims.read(tmp_path / "claims.yaml", []), {"omniglot_warp": trials}, {"omniglot_warp": 9}, ""
    ).empty


# ---------------------------------------------------------------- what the kinds measure


def test_the_same_effect_is_seen_through_hard_and_easy_tasks_because_they_are_paired():
    effects = {("warp_leap", 1): 0.45, ("leap", 1): 0.4}
    frame = rows(effects, hardness=0.3, noise=0.02)
    assert decide(frame)["verdict"].tolist() == ["supported"]
    unpaired = frame.copy()
    mine = unpaired["method"] == "leap"
    unpaired.loc[mine, "value"] = unpaired.loc[mine].groupby("seed")["value"].transform(lambda v: v.to_numpy()[::-1])
    assert decide(unpaired)["verdict"].tolist() == ["undecided"]


def test_baselines_hold_at_every_count():
    lines = decide(rows(AHEAD | {("scratch", 0): 0.1}), parts=[SPEC | {"less": "scratch"}])
    assert lines["effect"].to_numpy() == pytest.approx([40, 50], abs=2)


def test_gain_and_slope_are_those_of_the_means():
    effects = {("leap", n): 0.2 + 0.1 * i for i, n in enumerate([1, 2, 4])}
    effects |= {("maml", n): 0.2 + 0.02 * i for i, n in enumerate([1, 2, 4])}
    frame = rows(effects, noise=0.001)
    gain = {"kind": "gain", "metric": "accuracy", "method": "leap", "between": [1, 4]}
    lines = decide(frame, parts=[gain, gain | {"than": "maml"}, {"kind": "slope", "metric": "error", "method": "leap"}])
    assert lines["effect"].to_numpy() == pytest.approx([20, 16, 10], abs=0.2)
    assert set(lines["verdict"]) == {"supported"}


def test_a_ratio_is_in_times():
    frame = rows({("sgd10x", 0): 8.0, ("warp_leap", 10): 4.0}, noise=1e-6, hardness=0.0, metric="adapt_seconds")
    part = {"kind": "ratio", "metric": "adapt_seconds", "more": "sgd10x", "less": "warp_leap", "at": "largest"}
    line = decide(frame, parts=[part]).iloc[0]
    assert line["effect"] == pytest.approx(2, abs=1e-4) and line["unit"] == "times" and line["verdict"] == "supported"


def test_intervals_of_ratios_are_drawn_on_a_logarithmic_scale():
    frame = decide(rows(AHEAD), parts=[SPEC | {"kind": "ratio"}])
    frame = frame.iloc[:2].assign(effect=[4.0, 0.5], low=[2.0, 0.25], high=[8.0, 1.0])
    (verdicts,) = [block for block in claims.document(frame).blocks if hasattr(block, "claims")]
    above, below = (part["at"] for part in verdicts.claims[0]["parts"])
    third = 50 / 1.08 / 3  # of the way to the largest number, 8
    assert above == pytest.approx({"low": 50 + third, "effect": 50 + 2 * third, "high": 50 + 3 * third}, abs=0.01)
    assert below == pytest.approx({"low": 50 - 2 * third, "effect": 50 - third, "high": 50}, abs=0.01)


@pytest.mark.parametrize(
    ("gap", "noise", "verdict"), [(0.0, 0.02, "supported"), (0.2, 0.02, "contradicted"), (0.0, 0.3, "undecided")]
)
def test_equality_is_being_within_the_margin(gap, noise, verdict):
    frame = rows({("warp_leap", 1): 0.4 + gap, ("leap", 1): 0.4}, noise=noise)
    assert decide(frame, parts=[SPEC | {"within": 3}])["verdict"].tolist() == [verdict]


def test_a_difference_may_have_to_be_larger_than_a_number_and_a_ratio_than_a_factor():
    frame = rows(AHEAD)  # 10 and 20 points; 1.25 and 1.5 times
    for beyond, verdicts in ((8, ["supported"] * 2), (15, ["contradicted", "supported"]), (-5, ["supported"] * 2)):
        lines = decide(frame, parts=[SPEC | {"beyond": beyond}])
        assert lines["part_verdict"].tolist() == verdicts
        assert lines["effect"].to_numpy() == pytest.approx([10 - beyond, 20 - beyond], abs=2)
    frame = rows(AHEAD, hardness=0.0)
    lines = decide(frame, parts=[SPEC | {"kind": "ratio", "beyond": 1.4}])
    assert lines["part_verdict"].tolist() == ["contradicted", "supported"]
    assert lines["effect"].to_numpy() == pytest.approx([1.25 / 1.4, 1.5 / 1.4], abs=0.05)
    assert lines["part"].iloc[0] == "accuracy: Warp-Leap / Leap, above 1.4, 1 task"


def test_a_bound_may_be_in_times():
    frame = rows(AHEAD, noise=0.01, hardness=0.0)
    part = {"kind": "bound", "metric": "accuracy", "method": "leap", "at_most": 80, "scale": "log", "at": [10]}
    line = decide(frame, parts=[part]).iloc[0]
    assert line["effect"] == pytest.approx(2, abs=0.05) and line["unit"] == "times" and line["verdict"] == "supported"
    assert decide(frame, parts=[part | {"at_most": 30}])["verdict"].tolist() == ["contradicted"]


def test_with_many_parts_each_needs_more_evidence_to_contradict_the_claim():
    """A part whose interval ends just below zero is contradicted if it is alone, and not if it is one of forty."""
    frame = rows({("warp_leap", 1): 0.4, ("leap", 1): 0.4}, noise=0.1)
    part = claims.Part("one", {("warp_leap", 1): 1.0, ("leap", 1): -1.0})
    sure = {"effect": 1.0, "spread": 1e-3}
    values, _ = claims.contrast(frame, part, "accuracy")
    *_, high = interval(values, corrected(1))
    frame.loc[(frame["method"] == "warp_leap") & (frame["metric"] == "accuracy"), "value"] -= (high + 0.1) / 100
    for n_parts, verdict in ((1, "contradicted"), (40, "undecided")):
        line = claims.decide_part(frame, part, SPEC, ABOUT, n_parts, "", GATE, sure)
        assert line["part_verdict"] == verdict


def written(tmp_path, claim, frame):
    """Files with one claim, the power to decide it, and rows; and the options that name these files."""
    book = {"gate": GATE, "identities": [], "costs": {}, "claims": [claim]}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(book))
    results.write(tmp_path / "rows.csv", frame)
    stated = [
        dict.fromkeys(claims.POWER_COLUMNS, "") | {"claim": name, "part": part} | numbers
        for (name, part), numbers in certain(CLAIM, frame).items()
    ]
    pd.DataFrame(stated, columns=claims.POWER_COLUMNS).to_csv(tmp_path / "power.csv", index=False)
    options = ["--claims", str(tmp_path / "claims.yaml"), "--rows", str(tmp_path / "rows.csv")]
    return [*options, "--power", str(tmp_path / "power.csv")]


def test_the_same_rows_give_the_same_file_and_sizes_are_merged_in_the_order_given(tmp_path, capsys):
    for name, size, decides in (("a", "quick", "orders"), ("b", "quick", "orders"), ("c", "paper", "everything")):
        files = written(tmp_path, CLAIM, rows(AHEAD).assign(size=size))
        options = [*files, "--size", size, "--decides", decides, "--experiments", "omniglot_warp"]
        claims.main(["decide", *options, "--out", str(tmp_path / f"{name}.csv")])
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    for folder, name in (("paper", "c"), ("quick", "a"), ("quick-backup", "a"), ("smoke", "a")):
        (tmp_path / "results" / folder).mkdir(parents=True)
        shutil.copy(tmp_path / f"{name}.csv", tmp_path / "results" / folder / "claims.csv")
    capsys.readouterr()
    line = ["merge", "--results", str(tmp_path / "results"), "--sizes", "paper", "mine", "quick", "smoke"]
    claims.main([*line, "--out", str(tmp_path / "all.csv")])
    # A copy of a folder, and a folder with another size's results, are ignored with a message.
    said = capsys.readouterr().out
    assert "passed over quick-backup, smoke: needed results of a size in a folder of its name" in said
    merged = pd.read_csv(tmp_path / "all.csv")
    assert merged["size"].tolist() == ["paper"] * 2 + ["quick"] * 2 and list(merged.columns) == claims.COLUMNS


def test_an_experiment_of_a_user_is_found_by_its_path(tmp_path):
    """A folder that is `like` an experiment of the package has that one's methods and metrics, and its own name."""
    (tmp_path / "like_warp").mkdir()
    (tmp_path / "like_warp/experiment.yaml").write_text("like: omniglot_warp\n")
    mine = rows(AHEAD).assign(experiment="like_warp", size="mine")
    files = written(tmp_path, CLAIM | {"experiment": "like_warp"}, mine)
    options = [*files, "--size", "mine", "--decides", "orders", "--experiments", str(tmp_path / "like_warp")]
    claims.main(["decide", *options, "--out", str(tmp_path / "claims.csv")])
    assert pd.read_csv(tmp_path / "claims.csv")["verdict"].tolist() == ["supported"] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[0].pop("data"), r"claims\[0\]: 'data' is a required property"),
        (lambda c: c[0].update(parts=[]), r"claims\[0\]\.parts"),
        (lambda c: c[0].update(needs="rows"), r"claims\[0\]: .* is valid under each of"),
        (lambda c: c[0]["parts"][0].update(kind="vibes"), "'vibes' is not one of"),
        (lambda c: c[0].update(beside="W9"), "found no claim W9"),
        (lambda c: c[0]["parts"][0].update(more="leep"), "W1: omniglot_warp has no method 'leep'. Known: .*leap"),
        (lambda c: c[0]["parts"][0].update(metric="joy"), "W1: omniglot_warp has no metric 'joy'. Known: .*accuracy"),
        (lambda c: c[0]["parts"][0].update(colour="red"), "'colour' was unexpected"),
        (lambda c: c.append(c[0]), "found the claims W1 twice"),
    ],
)
def test_a_mistake_in_the_claims_is_named(tmp_path, change, message):
    found = yaml.safe_load(yaml.safe_dump([CLAIM | {"parts": [dict(SPEC)]}]))
    change(found)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"gate": GATE, "identities": [], "costs": {}, "claims": found}))
    with pytest.raises(ValueError, match=message):
        claims.read(path, ["omniglot_warp"])


def test_a_damaged_table_of_power_is_named(tmp_path):
    files = written(tmp_path, CLAIM, rows(AHEAD))
    (tmp_path / "power.csv").write_text("claim,part\nW1,x\n")
    options = [*files, "--size", "mine", "--decides", "orders", "--experiments", "omniglot_warp"]
    with pytest.raises(SystemExit):
        claims.main(["decide", *options, "--out", str(tmp_path / "claims.csv")])
    with pytest.raises(ValueError, match="power.csv: found columns"):
        claims.read_power(tmp_path / "power.csv")


def test_files_that_are_not_there_give_one_line(tmp_path):
    command = [sys.executable, "-m", "leapwarp.report.claims", "decide", "--claims", str(REPO / "paper/claims.yaml")]
    command += ["--size", "quick", "--decides", "orders", "--experiments", "omniglot_warp"]
    command += ["--rows", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "claims.csv")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith("error: ") and len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "claims.csv").exists()


def test_the_claims_of_the_repository_are_well_formed_and_on_what_the_workflow_runs():
    found = claims.read(REPO / "paper/claims.yaml", catalogue.names()).claims
    assert {claim["id"] for claim in found} >= {f"L{n}" for n in range(1, 25)} | {f"W{n}" for n in range(1, 30)}
    for size in ("smoke", "quick", "paper"):
        entries = plan.read_size(REPO / f"workflow/sizes/{size}.yaml").entries
        assert {claim["experiment"] for claim in found} <= set(entries) <= set(catalogue.names())


def test_times_is_the_unit_of_ratios_alone():
    """The page draws values in `times` on a logarithmic scale, and other quantities could be below zero."""
    for name in catalogue.names():
        assert not [metric for metric, about in quantities(name).items() if about.unit == "times"], name


BY_NAME = {"W26", "W27", "W28"}  # they cost as much as Table 2, so config.yaml has to name their methods


def test_paper_runs_what_the_claims_compare():
    """The size `paper` has the rows of every claim except three, whose methods run only if they are named."""
    jobs = jobs_of("paper")
    without = set()
    for claim in claims.read(REPO / "paper/claims.yaml", catalogue.names()).claims:
        specs = [spec for spec in claim.get("parts", []) if spec["kind"] != "counted"]
        asked = {spec[key] for spec in specs for key in ("more", "less", "method", "than") if key in spec}
        if asked - set(jobs[claim["experiment"]].methods):
            without.add(claim["id"])
    assert without == BY_NAME
    assert {"hat_many_epochs", "progressive_many_epochs"} <= set(jobs["multicv"].methods)  # of which L19 has gains
