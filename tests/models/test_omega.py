"""The explicit warp: each kind is another one, and what is none is refused."""

from typing import get_args

import pytest
import torch

from leapwarp.models import omega


def test_a_kind_that_does_not_exist_is_named():
    for kind in get_args(omega.Kind):
        last = omega.init(kind, torch.Generator().manual_seed(0))["warp.1.weight"]
        assert bool(last.any()) == (kind != "identity")
    with pytest.raises(ValueError, match="^the kind of warp is 'identty', needed one of identity, residual, plain.$"):
        omega.init("identty", torch.Generator().manual_seed(0))
