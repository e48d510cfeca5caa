"""The statistics of activations, and the choice of KFAC's damping."""

import numpy as np
import pytest
import reference
import torch
from cases import DOUBLE

from leapwarp.data import glyphs
from leapwarp.experiments import natural_gradient, omniglot
from leapwarp.experiments.natural_gradient import distance, layer_rows, whiten
from leapwarp.experiments.omniglot import Subject, choose_damping
from leapwarp.models.convnet import Warp, convnet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn():
    return glyphs.make(6)


def rows(n_tasks=2, n=50, channels=4):
    stream = torch.Generator().manual_seed(0)
    mix = torch.randn(n_tasks, channels, channels, generator=stream, dtype=DOUBLE)
    return torch.randn(n_tasks, n, channels, generator=stream, dtype=DOUBLE) @ mix + 3


def test_the_distance_is_the_sum_of_singular_values_of_numpys_covariance_less_the_identity():
    h = rows()
    for t, ours in enumerate(distance(h)):
        gap = np.cov(h[t].numpy().T, bias=True) - np.eye(4)
        np.testing.assert_allclose(ours, np.linalg.svd(gap, compute_uv=False).sum(), rtol=1e-10)


def test_the_distance_of_nothing_is_the_number_of_channels_and_it_knows_no_mean():
    assert distance(torch.ones(1, 9, 5, dtype=DOUBLE)).tolist() == [5]
    torch.testing.assert_close(distance(rows() + 100), distance(rows()), rtol=1e-9, atol=0)


def test_whitened_by_itself_nothing_is_left_of_mean_and_distance():
    h = rows()
    white = whiten(h, h)
    torch.testing.assert_close(white.mean(1), torch.zeros(2, 4, dtype=DOUBLE), rtol=0, atol=1e-10)
    torch.testing.assert_close(distance(white), torch.zeros(2, dtype=DOUBLE), rtol=0, atol=1e-10)
    assert (distance(h) > 1).all()


def test_whitening_leaves_dead_directions_out():
    h = torch.cat([rows(), torch.zeros(2, 50, 2, dtype=DOUBLE)], 2)
    white = whiten(h, h)
    assert white.isfinite().all()
    torch.testing.assert_close(distance(white), torch.full((2,), 2.0, dtype=DOUBLE), rtol=0, atol=1e-9)


def test_layers_are_seen_as_a_plain_network_gives_them():
    model = convnet(3, 5, warp=Warp())
    each = [model.init(torch.Generator().manual_seed(t)) for t in range(2)]
    params = {name: torch.stack([p[name] for p in each]).double() for name in each[0]}
    stats = {name: leaf.double().expand(2, *leaf.shape) for name, leaf in model.stats().items()}
    x = torch.rand(2, 7, 28, 28, dtype=DOUBLE)
    subject = Subject(natural_gradient.SMOKE, model, None, None, None, [], None)
    found = layer_rows(subject, params, stats, x)
    assert sorted(found) == sorted(f"{side}.{block}" for side in ("pre", "post") for block in range(4))
    for t in range(2):
        h = x[t][:, None]
        for number, layer in enumerate(reference.load(reference.network(3, 5, True).double().eval(), each[t], True)):
            before, h = h, layer(h)
            if number % 5 == 4 and number < 20:
                for side, value in (("pre", before), ("post", h)):
                    plain = value.permute(0, 2, 3, 1).reshape(-1, 3)
                    torch.testing.assert_close(found[f"{side}.{number // 5}"][t], plain, rtol=1e-9, atol=1e-9)


def test_the_damping_of_the_least_validation_error_is_taken_and_all_are_reported():
    def error(damping):
        if damping < 0.05:
            raise FloatingPointError("a factor is not finite")
        return {0.1: 0.4, 1.0: 0.3, 10.0: 0.3}[damping]

    best, records = choose_damping([0.01, 0.1, 1.0, 10.0], error)
    assert best == 1.0
    assert {metric: value for _, _, metric, value in records} == {
        "damping": 1.0,
        "validation_accuracy.0.01": 0.0,
        "validation_accuracy.0.1": pytest.approx(0.6),
        "validation_accuracy.1": pytest.approx(0.7),
        "validation_accuracy.10": pytest.approx(0.7),
    }
    with pytest.raises(FloatingPointError, match="no damping of 0.01, 0.02 keeps training finite"):
        choose_damping([0.01, 0.02], error)


def test_the_choice_looks_at_validation_alphabets_only(drawn, monkeypatch):
    settings = natural_gradient.SMOKE
    seen = []
    plain = omniglot.images
    monkeypatch.setattr(omniglot, "images", lambda data, names, *rest: seen.append(names) or plain(data, names, *rest))
    choose = omniglot.choose_damping

    def watched(dampings, error):
        best = choose(dampings, error)
        parts = omniglot.split(drawn, 0, 0, settings.n_test, settings.n_validation)
        assert seen == [parts.validation[: settings.damping_tasks]]
        return best

    monkeypatch.setattr(omniglot, "choose_damping", watched)
    method = natural_gradient.methods(settings)["kfac"]
    records, _ = omniglot.run(drawn, method, "kfac", 0, 0, CPU, None, {})
    assert len(seen) == 2 and len([metric for _, _, metric, _ in records if metric == "accuracy"]) == 2


def test_a_fixed_initialisation_does_not_move_and_the_main_one_does(drawn):
    settings = natural_gradient.SMOKE
    for name, moves in (("warp_linear", False), ("warp_leap", True)):
        method = natural_gradient.methods(settings)[name]
        found = []
        omniglot.run(
            drawn, method._replace(measure=lambda s, found=found: found.append(s) or []), name, 2, 0, CPU, None, {}
        )
        start = found[0].model.init(omniglot.generator(0, "init"))
        state = found[0].state
        assert all(torch.equal(leaf, start[key]) for key, leaf in state["params"].items()) != moves
        assert not any(torch.equal(leaf, start[key]) for key, leaf in state["warp"].items())


def test_activations_are_measured_before_and_after_each_warp(drawn):
    settings = natural_gradient.SMOKE
    method = natural_gradient.methods(settings)["warp_leap"]
    records, _ = omniglot.run(drawn, method, "warp_leap", 2, 0, CPU, None, {})
    tasks = {task for task, _, metric, _ in records if metric == "accuracy"}
    for what in ("mean", "rms", "cov"):
        for side in ("pre", "post", "white"):
            for block in range(4):
                of = {task: value for task, _, metric, value in records if metric == f"{what}_{side}.{block}"}
                assert of.keys() == tasks and all(value >= 0 for value in of.values() if what != "mean")
                assert side != "pre" or all(value >= 0 for value in of.values())  # after a ReLU
