"""The meta-learners.

Each is a function that takes a problem, an inner and an outer optimizer and the number of inner steps, and returns a
`Learner`.
"""

from leapwarp.learners.base import Learner
from leapwarp.learners.finetune import finetune
from leapwarp.learners.leap import leap
from leapwarp.learners.maml import cavia, maml, metasgd, tnets
from leapwarp.learners.reptile import fomaml, reptile
from leapwarp.learners.scratch import scratch
from leapwarp.learners.warpgrad import warp_leap, warp_leap_online, warp_maml

__all__ = [
    "Learner",
    "cavia",
    "finetune",
    "fomaml",
    "leap",
    "maml",
    "metasgd",
    "reptile",
    "scratch",
    "tnets",
    "warp_leap",
    "warp_leap_online",
    "warp_maml",
]
