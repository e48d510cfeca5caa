"""The papers' experiments: a folder each, found by its experiment.yaml (`leapwarp.catalogue`).

These are programs: whatever is imported from here runs in the environment of a job.
"""

from leapwarp import environment

environment.settle()
