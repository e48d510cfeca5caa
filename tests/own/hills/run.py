"""A user's own experiment, as the tests add it: the surfaces of the package with another optimizer."""

from leapwarp.experiments.surfaces import run as surfaces
from leapwarp.optim import momentum_sgd


def methods(settings):
    found = surfaces.methods(settings)
    momentum = found["gd"]._replace(optimizer=lambda rate: momentum_sgd(rate, 0.9))
    return {"gd": found["gd"], "momentum": momentum, "warpgrad": found["warpgrad"]}


EXPERIMENT = surfaces.EXPERIMENT._replace(methods=methods)
