"""What is made of result rows: tables, figures, verdicts, the page and the snapshot. Nothing here imports torch."""

from leapwarp import environment

environment.settle_drawing()
