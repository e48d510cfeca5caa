"""Figures with names that the font cannot write."""

import warnings

import pandas as pd
import pytest
from matplotlib.figure import Figure

from leapwarp.report import draw


def figure(*names):
    made = Figure(layout="constrained")
    axes = made.subplots()
    axes.plot([1, 2], [1e-3, 1], label=names[0])
    axes.set_yscale("log")
    axes.set_xticks([1, 2], [names[0], names[-1]])
    axes.legend()
    draw.title(made, "A heading", f"data {names[-1]}, 1 seed")
    return made


def texts(made):
    legend = made.axes[0].get_legend().get_texts()[0].get_text()
    return [label.get_text() for label in made.axes[0].get_xticklabels()], legend, made.get_supxlabel()


def test_characters_that_the_font_lacks_are_numbers_and_not_boxes(tmp_path, capsys):
    with draw.styled(), warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of every box
        made = figure("birds", "鳥の v2")
        draw.save(made, tmp_path / "a.png")
    assert texts(made) == (["birds", "U+9CE5 U+306E v2"], "birds", "data U+9CE5 U+306E v2, 1 seed")
    assert "the font lacks characters of '鳥の v2', which are shown by their numbers" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("birds", "cats"), ("café ± θ", "дом")])
def test_what_the_font_has_is_drawn_as_before(tmp_path, monkeypatch, capsys, names):
    with draw.styled():
        draw.save(figure(*names), tmp_path / "a.png")
        monkeypatch.setattr(draw, "make_legible", lambda figure: None)
        draw.save(figure(*names), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("steps", "marked"), [([9], True), ([9, 19], False)])
def test_a_curve_of_one_point_is_seen(steps, marked):
    rows = [
        {"experiment": "omniglot_leap", "method": "leap", "n_tasks": 1, "seed": seed, "task": "", "step": step}
        for seed in (0, 1)
        for step in steps
    ]
    frame = pd.DataFrame(rows).assign(metric="validation_error", value=0.5)
    axes = Figure().subplots()
    draw.curves(axes, frame, "validation_error")
    (line,) = axes.get_lines()
    assert (line.get_marker() != "None") == marked and len(line.get_xdata()) == len(steps)
    assert line.get_markevery() is None  # a fraction of the length of the line leaves out the only marker
