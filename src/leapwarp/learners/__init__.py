"""The meta-learners, one file a method.

Each is a function of a problem, an inner and an outer optimizer and the number of inner steps, and returns a `Learner`.
"""

from leapwarp.learners.base import Learner
from leapwarp.learners.finetune import finetune
from leapwarp.learners.leap import leap
from leapwarp.learners.maml import maml
from leapwarp.learners.reptile import fomaml, reptile
from leapwarp.learners.scratch import scratch
from leapwarp.learners.warpgrad import warp_leap, warp_leap_online

__all__ = ["Learner", "finetune", "fomaml", "leap", "maml", "reptile", "scratch", "warp_leap", "warp_leap_online"]
