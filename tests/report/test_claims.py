"""Verdicts on claims: known effects, too little evidence, pairing, coverage, and bad input."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from calls import REPO

from leapwarp import catalogue, plan
from leapwarp.report import claims, stats
from leapwarp.report import rows as results
from leapwarp.report.quantities import SHARED, quantities

TASKS = [f"alphabet {i} & <co>" for i in range(10)]
SPEC = {"kind": "difference", "metric": "accuracy", "more": "warp_leap", "less": "leap", "at": "each"}
CLAIM = {
    "id": "W1",
    "section": "Sec. 1",
    "claim": "It is better.",
    "experiment": "omniglot_warp",
    "data": "omniglot",
    "from": "orders",
    "why": "an order",
    "parts": [SPEC],
}


def rows(effects, seeds=3, noise=0.02, hardness=0.1, seed_noise=0.0, source="omniglot", metric="accuracy"):
    """Rows whose mean is effects[method, count]; tasks differ by `hardness`, the same for all methods of a seed."""
    frames, stream = [], np.random.default_rng(7)
    for seed in range(seeds):
        hard = stream.normal(0, hardness, len(TASKS))
        for (method, count), effect in effects.items():
            values = effect + hard + stream.normal(0, seed_noise) + stream.normal(0, noise, len(TASKS))
            records = [(task, None, metric, float(value)) for task, value in zip(TASKS, values, strict=True)]
            fixed = {"experiment": "omniglot_warp", "size": "quick", "data_source": source, "data_checksum": "0a"}
            fixed |= {"settings": "0b", "version": "1", "device": "cpu", "seconds": 1.0}
            frames.append(results.rows(records, method=method, n_tasks=count, seed=seed, **fixed))
    return pd.concat(frames, ignore_index=True)


def decide(frame, size="quick", decides="orders", **changes):
    return claims.decide([CLAIM | changes], {"omniglot_warp": frame}, size, decides)


AHEAD = {("warp_leap", 1): 0.5, ("warp_leap", 10): 0.6, ("leap", 1): 0.4, ("leap", 10): 0.4}


def test_a_clear_effect_is_supported_with_its_size():
    lines = decide(rows(AHEAD))
    assert lines["verdict"].tolist() == ["supported"] * 2 and lines["reason"].tolist() == ["", ""]
    assert lines["part"].tolist() == ["accuracy: Warp-Leap − Leap, 1 task", "accuracy: Warp-Leap − Leap, 10 tasks"]
    assert lines["effect"].to_numpy() == pytest.approx([10, 20], abs=2)
    assert (lines["low"] < lines["effect"]).all() and (lines["effect"] < lines["high"]).all()
    assert lines["n_seeds"].tolist() == [3, 3] and lines["n_heldout"].tolist() == [30, 30]
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


def test_an_interval_that_holds_zero_is_undecided_and_leans():
    lines = decide(rows({("warp_leap", 1): 0.401, ("leap", 1): 0.4}, noise=0.1))
    assert lines["verdict"].tolist() == ["undecided"]
    assert "holds zero; it leans" in lines["reason"].iloc[0] and lines["low"].iloc[0] < 0 < lines["high"].iloc[0]


def test_one_seed_is_never_enough():
    lines = decide(rows(AHEAD, seeds=1))
    assert lines["verdict"].tolist() == ["undecided"] * 2 and "one seed" in lines["reason"].iloc[0]
    assert lines["low"].isna().all() and lines["effect"].notna().all()


@pytest.mark.parametrize(
    ("frame", "changes", "reason"),
    [
        (rows(AHEAD), {"from": "everything", "why": "times need it"}, "quick is too small: times need it"),
        (rows(AHEAD, source="glyphs"), {}, "the data are glyphs, not omniglot"),
        (
            rows(AHEAD),
            {"experiment": "omniglot_leap", "parts": [SPEC | {"more": "fomaml"}]},
            "omniglot_leap was not run",
        ),
        (rows(AHEAD), {"experiment": "of_a_user"}, "of_a_user was not run"),
        (rows(AHEAD), {"parts": [SPEC | {"less": "maml"}]}, "not run: MAML with 1 tasks"),
        (rows(AHEAD), {"parts": [SPEC | {"at": [2]}]}, "not run: Warp-Leap with 2 tasks, Leap with 2 tasks"),
        (
            rows(AHEAD),
            {"parts": [{"kind": "slope", "metric": "error", "method": "leap"}]},
            "too few numbers of tasks were run",
        ),
    ],
)
def test_why_there_is_no_verdict(frame, changes, reason):
    lines = decide(frame, **changes)
    assert set(lines["verdict"]) == {"undecided"} and lines["reason"].iloc[0] == reason


def test_a_size_decides_what_its_file_says_and_no_more():
    frame, late = rows(AHEAD), {"from": "everything", "why": "times need it"}
    nothing = decide(frame, "tiny", "nothing")
    assert set(nothing["reason"]) == {"tiny is too small: it only shows that everything runs"}
    assert set(decide(frame, "tiny", "nothing", **late)["reason"]) == set(nothing["reason"])
    for size, decides, changes in (("mine", "orders", {}), ("mine", "everything", {}), ("mine", "everything", late)):
        assert set(decide(frame, size, decides, **changes)["verdict"]) == {"supported"}
    assert set(decide(frame, "mine", "orders", **late)["reason"]) == {"mine is too small: times need it"}


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
    gain = {"kind": "gain", "metric": "accuracy", "method": "leap"}
    lines = decide(frame, parts=[gain, gain | {"than": "maml"}, {"kind": "slope", "metric": "error", "method": "leap"}])
    assert lines["effect"].to_numpy() == pytest.approx([20, 16, 10], abs=0.2)
    assert set(lines["verdict"]) == {"supported"}


def test_a_ratio_is_in_times():
    frame = rows({("sgd10x", 0): 8.0, ("warp_leap", 10): 4.0}, noise=1e-6, hardness=0.0, metric="adapt_seconds")
    part = {"kind": "ratio", "metric": "adapt_seconds", "more": "sgd10x", "less": "warp_leap", "at": "largest"}
    line = decide(frame, parts=[part]).iloc[0]
    assert line["effect"] == pytest.approx(2, abs=1e-4) and line["unit"] == "times" and line["verdict"] == "supported"


@pytest.mark.parametrize(
    ("gap", "noise", "verdict"), [(0.0, 0.02, "supported"), (0.2, 0.02, "contradicted"), (0.0, 0.3, "undecided")]
)
def test_equality_is_being_within_the_margin(gap, noise, verdict):
    frame = rows({("warp_leap", 1): 0.4 + gap, ("leap", 1): 0.4}, noise=noise)
    assert decide(frame, parts=[SPEC | {"within": 3}])["verdict"].tolist() == [verdict]


def test_with_many_parts_each_needs_more_evidence_to_contradict_the_claim():
    """One part whose interval ends just below zero: contradicted alone, and not as one of forty."""
    frame, cells = (
        rows({("warp_leap", 1): 0.4, ("leap", 1): 0.4}, noise=0.1),
        {("warp_leap", 1): 1.0, ("leap", 1): -1.0},
    )
    part = claims.Part("one", cells)
    high = claims.decide_part(frame, part, SPEC, SHARED["accuracy"], 1, "")["high"]
    frame.loc[frame["method"] == "warp_leap", "value"] -= (high + 0.1) / 100
    assert claims.decide_part(frame, part, SPEC, SHARED["accuracy"], 1, "")["part_verdict"] == "contradicted"
    assert claims.decide_part(frame, part, SPEC, SHARED["accuracy"], 40, "")["part_verdict"] == "undecided"


@pytest.mark.parametrize(("seeds", "spread"), [(2, 2.0), (3, 2.0), (10, 2.0), (2, 0.0)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(seeds, spread, monkeypatch):
    monkeypatch.setattr(stats, "DRAWS", 500)
    stream, held, repetitions = np.random.default_rng(1), 0, 300
    for _ in range(repetitions):
        values = stream.normal(0, spread, (seeds, 1)) + stream.normal(0, 5, (seeds, 10))
        _, low, high = claims.interval(list(values), 0.95)
        held += low <= 0 <= high
    assert 0.90 <= held / repetitions <= 1.0


def test_the_same_rows_give_the_same_file_and_sizes_are_merged_in_the_order_given(tmp_path):
    results.write(tmp_path / "rows.csv", rows(AHEAD))
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([CLAIM]))
    for name, size, decides in (("a", "quick", "orders"), ("b", "quick", "orders"), ("c", "paper", "everything")):
        options = ["--claims", str(tmp_path / "claims.yaml"), "--size", size, "--decides", decides]
        options += ["--experiments", "omniglot_warp", "--rows", str(tmp_path / "rows.csv")]
        claims.main(["decide", *options, "--out", str(tmp_path / f"{name}.csv")])
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    claims.main(["merge", "--out", str(tmp_path / "all.csv"), str(tmp_path / "c.csv"), str(tmp_path / "a.csv")])
    merged = pd.read_csv(tmp_path / "all.csv")
    assert merged["size"].tolist() == ["paper"] * 2 + ["quick"] * 2 and list(merged.columns) == claims.COLUMNS


def test_an_experiment_of_a_user_is_found_by_its_path(tmp_path):
    """A folder that is like one of the package's has its methods and metrics, under a name of its own."""
    (tmp_path / "like_warp").mkdir()
    (tmp_path / "like_warp/experiment.yaml").write_text("like: omniglot_warp\n")
    results.write(tmp_path / "rows.csv", rows(AHEAD).assign(experiment="like_warp"))
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([CLAIM | {"experiment": "like_warp"}]))
    options = ["--claims", str(tmp_path / "claims.yaml"), "--size", "mine", "--decides", "orders"]
    options += ["--experiments", str(tmp_path / "like_warp"), "--rows", str(tmp_path / "rows.csv")]
    claims.main(["decide", *options, "--out", str(tmp_path / "claims.csv")])
    assert pd.read_csv(tmp_path / "claims.csv")["verdict"].tolist() == ["supported"] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[0].pop("why"), r"\[0\]: 'why' is a required property"),
        (lambda c: c[0].update(parts=[]), r"\[0\]\.parts"),
        (lambda c: c[0]["parts"][0].update(kind="vibes"), "'vibes' is not one of"),
        (lambda c: c[0].update({"from": "quick"}), r"'quick' is not one of \['orders', 'everything'\]"),
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
    path.write_text(yaml.safe_dump(found))
    with pytest.raises(ValueError, match=message):
        claims.read(path, ["omniglot_warp"])


def test_files_that_are_not_there_give_one_line(tmp_path):
    command = [sys.executable, "-m", "leapwarp.report.claims", "decide", "--claims", str(REPO / "paper/claims.yaml")]
    command += ["--size", "quick", "--decides", "orders", "--experiments", "omniglot_warp"]
    command += ["--rows", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "claims.csv")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith("error: ") and len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "claims.csv").exists()


def test_the_claims_of_the_repository_are_well_formed_and_on_what_the_workflow_runs():
    found = claims.read(REPO / "paper/claims.yaml", catalogue.names())
    assert {claim["id"] for claim in found} >= {"L1", "L2", "L3", "L4", "W1", "W2", "W3", "W4", "W5", "W7"}
    for size in ("smoke", "quick", "paper"):
        entries = plan.read_size(REPO / f"workflow/sizes/{size}.yaml").entries
        assert {claim["experiment"] for claim in found} <= set(entries) <= set(catalogue.names())


def test_times_is_the_unit_of_ratios_alone():
    """The page draws what is in `times` on a logarithmic scale: a quantity with that unit could be below zero there."""
    for name in catalogue.names():
        assert not [metric for metric, about in quantities(name).items() if about.unit == "times"], name
