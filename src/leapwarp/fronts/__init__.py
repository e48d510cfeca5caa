"""Leap and WarpGrad for a model and a training loop of a user's own: the module is trained in place, step by step."""

from leapwarp.fronts.leap import Leap
from leapwarp.fronts.warpgrad import WarpGrad

__all__ = ["Leap", "WarpGrad"]
