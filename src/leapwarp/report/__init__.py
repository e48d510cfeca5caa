"""Makes tables, figures, verdicts, the page and the snapshot from result rows. Nothing here imports torch."""

from leapwarp import environment

environment.settle_drawing()
