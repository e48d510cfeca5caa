"""The metric of an explicit warp, and the order at which warped descent agrees with descent under it; float64."""

import pytest
import torch
from cases import DOUBLE

from leapwarp.geometry import descend, inverse_metric, metric


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=stream(seed), dtype=DOUBLE)


MATRIX, SQUARE = normal(5, 5) + 3 * torch.eye(5, dtype=DOUBLE), normal(5, 5, seed=1)
THETA, CENTRE = normal(5, seed=2), normal(5, seed=3)
CURVATURE = SQUARE @ SQUARE.mT + torch.eye(5, dtype=DOUBLE)


def linear(theta):
    return MATRIX @ theta


def curved(theta):
    return theta + 0.5 * torch.tanh(SQUARE @ theta)


def bowl(gamma):
    return 0.5 * (gamma - CENTRE) @ CURVATURE @ (gamma - CENTRE)


def uneven(gamma):
    return bowl(gamma) + gamma.pow(4).sum() / 4


def test_metric_of_a_linear_warp_is_the_preconditioner_it_implies():
    expected = MATRIX @ MATRIX.mT
    torch.testing.assert_close(inverse_metric(linear, THETA), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(metric(linear, THETA), torch.linalg.inv(expected), rtol=1e-10, atol=1e-12)


def test_metric_of_a_curved_warp_equals_central_differences_and_is_positive_definite():
    unit = 1e-5 * torch.eye(5, dtype=DOUBLE)
    slope = torch.stack([(curved(THETA + step) - curved(THETA - step)) / 2e-5 for step in unit], 1)
    torch.testing.assert_close(inverse_metric(curved, THETA), slope @ slope.mT, rtol=1e-8, atol=1e-8)
    found = metric(curved, THETA)
    assert torch.linalg.eigvalsh(found).min() > 0
    torch.testing.assert_close(found, found.mT)
    torch.testing.assert_close(found @ inverse_metric(curved, THETA), torch.eye(5, dtype=DOUBLE))


def test_metric_of_a_composition_is_the_inner_one_seen_through_the_outer_warp():
    # G^-1 of b o a is [Db] G_a^-1 [Db]^T, with Db taken where a leads
    slope = torch.func.jacrev(curved)(linear(THETA))
    expected = slope @ inverse_metric(linear, THETA) @ slope.mT
    torch.testing.assert_close(inverse_metric(lambda theta: curved(linear(theta)), THETA), expected)


def test_descent_under_the_metric_does_not_change_with_a_rotation_of_theta():
    # Omega(Q theta) has the metric of Omega: [D Omega Q][D Omega Q]^T. Scaling theta is no such change.
    rotation = torch.linalg.qr(SQUARE).Q
    turned = rotation.mT @ THETA
    torch.testing.assert_close(metric(lambda t: curved(rotation @ t), turned), metric(curved, THETA))
    here, there = descend(uneven, curved, THETA, 0.05), descend(uneven, lambda t: curved(rotation @ t), turned, 0.05)
    torch.testing.assert_close(here, there)
    scaled = descend(uneven, lambda t: curved(2 * t), THETA / 2, 0.05)
    assert not torch.allclose(here.preconditioned, scaled.preconditioned, rtol=1e-3)


def test_a_degenerate_warp_has_no_metric():
    flat = normal(5, 2) @ normal(2, 5, seed=4)
    with pytest.raises(ValueError, match=r"5 x 5, has singular values from .* needs rank 5"):
        metric(lambda theta: flat @ theta, THETA)
    with pytest.raises(ValueError, match=r"7 x 5, .* down to 0, and a metric needs rank 7"):
        metric(lambda theta: normal(7, 5) @ theta, THETA)
    # the opposite is no error: many parameters and few dimensions
    torch.testing.assert_close(
        metric(lambda theta: MATRIX[:2] @ theta, THETA), torch.linalg.inv(MATRIX[:2] @ MATRIX[:2].mT)
    )


def test_linear_warp_on_a_quadratic_is_preconditioned_descent():
    rate = 0.01
    gamma = MATRIX @ THETA
    expected = bowl(gamma - rate * MATRIX @ MATRIX.mT @ CURVATURE @ (gamma - CENTRE))
    found = descend(bowl, linear, THETA, rate)
    torch.testing.assert_close(found.warped, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.preconditioned, expected, rtol=1e-12, atol=0)


def test_the_error_of_equation_6_falls_by_four_when_the_rate_halves():
    def error(rate):
        found = descend(uneven, curved, THETA, rate)
        return abs(found.warped - found.preconditioned).item()

    ratios = [error(rate) / error(rate / 2) for rate in (1e-4, 5e-5)]
    assert all(3.95 < ratio < 4.05 for ratio in ratios), ratios


def test_the_error_of_equation_6_has_the_second_derivative_of_the_warp_as_its_leading_term():
    # Omega(theta - a D) = gamma - a G^-1 grad L + a^2 / 2 B, B = D^2 Omega[D, D]: the error is a^2 / 2 grad L . B
    step = torch.func.grad(lambda theta: uneven(curved(theta)))(THETA)
    bend = torch.func.hessian(curved)(THETA) @ step @ step
    leading = 0.5 * torch.func.grad(uneven)(curved(THETA)) @ bend
    rate = 1e-5
    found = descend(uneven, curved, THETA, rate)
    torch.testing.assert_close((found.warped - found.preconditioned) / rate**2, leading, rtol=2e-2, atol=0)
