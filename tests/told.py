"""The tables and figures that the commands `table` and `figures` make of rows."""

import re

from leapwarp import catalogue
from leapwarp.report import __main__ as command
from leapwarp.report import document, looks


def told(frame, paper, note="a size", bold=False):
    """The lines of the CSV and the Markdown with cells without padding. Marks of the best are left out by default."""
    made = command.build(catalogue.find(looks.experiment(frame)), frame, paper, note)
    text = re.sub(" +", " ", document.markdown(made))
    return made.lines, text if bold else text.replace("**", "")


def drawn(frame, paper=None, files=()):
    """The figures by name."""
    about = catalogue.find(looks.experiment(frame))
    return command.draw_all(about, frame, command.printed(about, None) if paper is None else paper, files)
