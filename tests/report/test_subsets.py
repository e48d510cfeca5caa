"""All methods that config.yaml may name give tables, figures and verdicts, with gaps if something was not run."""

import math
import shutil

import made_up
import pandas as pd
import pytest
from calls import REPO
from told import drawn

from leapwarp import catalogue, plan
from leapwarp import search as drawing
from leapwarp.experiments import resolve
from leapwarp.report import __main__ as command
from leapwarp.report import claims, document, search
from leapwarp.report.quantities import quantities, quantity


def one_of_a_kind(found):
    """Single methods: the first and the last of those whose rows have the same metrics."""
    kinds = {}
    for name, frame in found.items():
        kinds.setdefault(frozenset(frame["metric"]), []).append(name)
    return [(name,) for names in kinds.values() for name in sorted({names[0], names[-1]})]


def alone(found):
    return [(name,) for name in found]


def all_but_one(found):
    """All methods but one, and all methods."""
    return [*(tuple(name for name in found if name != method) for method in found), tuple(found)]


FULL = [pytest.param(subsets, marks=pytest.mark.full) for subsets in (alone, all_but_one)]


def ticked(figure):
    """Compute the ticks of a figure, which is where a layout fails. A whole layout takes ten times as long."""
    for axes in figure.axes:
        if axes.axison:
            axes.get_xticks(), axes.get_yticks()
    return figure


@pytest.fixture(scope="module")
def book():
    return claims.read(REPO / "paper/claims.yaml", catalogue.names())


@pytest.mark.parametrize("subsets", [one_of_a_kind, *FULL])
@pytest.mark.parametrize("experiment", catalogue.names())
def test_every_subset_of_methods_ends_in_tables_figures_and_verdicts(experiment, subsets, book, capsys, monkeypatch):
    monkeypatch.setattr(command, "laid_out", ticked)
    about, found = catalogue.find(experiment), made_up.whole(experiment)
    paper = command.printed(about, None)
    mine = [claim for claim in book.claims if claim["experiment"] == experiment]
    everything = command.build(about, pd.concat(found.values(), ignore_index=True), paper, "a size").lines
    assert everything is not None
    in_table = set(everything["method"])  # some methods have figures only
    assert in_table
    for chosen in subsets(found):
        frame = pd.concat([found[name] for name in chosen], ignore_index=True)
        made = command.build(about, frame, paper, "a size")
        assert made.lines is not None
        if experiment != "atari" or "random_policy" in chosen:  # random play sets the scale of scores
            assert set(made.lines["method"]) >= set(chosen) & in_table
        assert document.markdown(made) and document.loads(document.dumps(made), "it").title == made.title
        assert set(drawn(frame, paper)) == set(about.figures)
        if mine:
            claims.decide(book._replace(claims=mine, identities=[]), {experiment: frame}, "quick", "orders")
    # The general gap was not needed, since each report handles missing methods.
    assert "Traceback" not in capsys.readouterr().err


SEARCHED = [
    (name, method) for name in catalogue.names() for method in (catalogue.find(name).search or {"spaces": ()})["spaces"]
]


@pytest.mark.parametrize("diverged", [0, 2])
@pytest.mark.parametrize(("experiment", "method"), SEARCHED)
def test_a_search_of_any_method_alone_ends_in_a_table_a_figure_and_a_winner(experiment, method, diverged):
    about = catalogue.find(experiment)
    same = {"experiment": experiment, "method": method, "size": "quick", "data_source": "textures"}
    trials = [
        same
        | {"trial": number, "score": math.nan if number < diverged else number, "criterion": about.search["criterion"]}
        | drawing.draw(about.search["spaces"][method], experiment, method, number)
        for number in (2, 1, 0)
    ]
    frame = pd.DataFrame(trials)
    text = document.markdown(search.document(frame))
    assert "| 2 (winner) | **" in text and text.count("| diverged ") == diverged
    assert about.methods[method].look.name in text and "not declared" not in text
    assert len(ticked(search.build(frame)).axes) == len(search.drawn(frame)) > 0
    best = search.winner(frame)
    assert set(best["settings"]) == set(about.search["spaces"][method]) and best["trial"] == 2
    others = [{"method": name, "settings": {}} for name in about.methods if name != method]
    assert search.use(best, others).startswith("no run of")
    assert search.use(best, [*others, {"method": method, "settings": best["settings"]}]).startswith("used by the rows")


@pytest.mark.parametrize("experiment", catalogue.names())
def test_the_made_up_rows_measure_all_that_an_experiment_reports(experiment):
    frame = pd.concat(made_up.whole(experiment).values(), ignore_index=True)
    own = set(quantities(experiment)) - {"accuracy", "error", "auc", "adapt_seconds"}
    sets = {name for name in own if name.startswith("error_") and experiment == "multicv"}
    epochs = {"epochs_gain"} if experiment == "multicv" else set()
    assert not [name for name in own - sets - epochs if quantity(frame, name).empty]


def test_what_cannot_be_made_of_some_methods_is_a_gap_that_says_why(monkeypatch, capsys):
    about, found = catalogue.find("geometry"), made_up.whole("geometry")
    first, *others = found
    report = about.module("report")

    def broken(frame, *_):
        return frame.loc[frame["method"] == others[0]].iloc[0]

    monkeypatch.setattr(report, "geometry", broken)
    monkeypatch.setattr(report, "document", broken)
    text = document.markdown(command.build(about, found[first], command.printed(about, None), "a size"))
    missing = ", ".join(about.methods[name].look.name for name in others)
    why = "IndexError: single positional indexer is out-of-bounds"
    assert f"Cannot be made of these methods alone ({why}). Not run: {missing}." in " ".join(text.split())
    assert about.methods[first].look.name in text  # its quantities are there
    [axes] = drawn(found[first])["geometry"].axes
    assert "Cannot be made of these methods alone" in axes.texts[0].get_text().replace("\n", " ")
    assert "IndexError" in capsys.readouterr().err  # for the log
    monkeypatch.setattr(report, "geometry", lambda frame, *_: {}[first])
    with pytest.raises(KeyError):  # it is not the methods that were not run
        drawn(found[first])
    monkeypatch.setattr(report, "geometry", lambda frame, *_: frame.loc[frame["method"] == ""].iloc[0])
    with pytest.raises(IndexError):  # if all methods were run, it is an error
        drawn(pd.concat(found.values(), ignore_index=True))


def test_what_the_report_needs_is_asked_before_anything_runs(tmp_path, monkeypatch):
    size = plan.read_size(REPO / "workflow/sizes/smoke.yaml", ["few_shot"])
    papers = shutil.copytree(REPO / "paper", tmp_path / "paper")
    resolve.check_report(size, papers)
    (papers / "warpgrad.csv").rename(papers / "away.csv")
    with pytest.raises(ValueError, match="warpgrad.csv: found no such file"):
        resolve.check_report(size, papers)
    (papers / "away.csv").rename(papers / "warpgrad.csv")
    with (papers / "claims.yaml").open("a") as file:
        file.write("costs: {}\n")
    with pytest.raises(ValueError, match="the key 'costs' is there twice"):
        resolve.check_report(size, papers)
    monkeypatch.delattr(catalogue.find("few_shot").module("report"), "few_shot_curves")
    with pytest.raises(ValueError, match="has no function few_shot_curves, which it needs"):
        resolve.check_report(size, papers)
