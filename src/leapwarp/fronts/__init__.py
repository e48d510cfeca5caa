"""Leap and WarpGrad for a user's own model and training loop. The module is trained in place, step by step."""

from leapwarp.fronts.leap import Leap
from leapwarp.fronts.warpgrad import WarpGrad

__all__ = ["Leap", "WarpGrad"]
