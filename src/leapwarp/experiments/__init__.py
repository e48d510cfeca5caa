"""The papers' experiments. Each is a folder with an experiment.yaml (`leapwarp.catalogue`).

Importing this package sets the environment variables of a job (`leapwarp.environment`).
"""

from leapwarp import environment

environment.settle()
