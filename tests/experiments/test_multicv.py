"""HAT, Progressive Nets, Leap on the encoder, early stopping; the experiment, its table and figures."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from calls import REPO
from cases import DOUBLE, of_one
from sizes import methods, one_run
from told import told

from leapwarp import fit
from leapwarp.data import images
from leapwarp.experiments import states
from leapwarp.experiments.multicv import report, run
from leapwarp.experiments.multicv.run import ENCODER, HAT, LEAP, PROGRESSIVE
from leapwarp.inner import Step, adapt
from leapwarp.learners import hat
from leapwarp.learners.leap import leap_fold
from leapwarp.learners.visits import Training, Visit, encoder_fold, first, leap_encoder, no_better, visit
from leapwarp.models import columns as nets
from leapwarp.models.convnet import convnet
from leapwarp.optim import cosine_sgd, sgd
from leapwarp.problem import Batch, Loss, Problem
from leapwarp.report import claims, rows
from leapwarp.report.__main__ import main as report_main
from leapwarp.report.quantities import quantity
from leapwarp.report.table import read_paper
from leapwarp.rng import generator
from leapwarp.worlds import image_sets
from leapwarp.worlds.image_sets import pixels, task_stack

CPU = torch.device("cpu")
PAPER = REPO / "paper" / "leap.csv"
SETTINGS = methods("multicv")["leap_1_epoch"].settings
TIMES = {"meta_seconds", "step_seconds", "peak_memory"}


@pytest.fixture(scope="module")
def drawn():
    return images.ImageSets(images.glyph_sets(3), images.GLYPHS, "made up")


@pytest.fixture(scope="module")
def sets(drawn):
    return [run.taken(one_run(drawn, "multicv", "finetune"), name)[0] for name in drawn.sets]


def network(kind, sets):
    """The problem of sets that are trained in turn, and how they share parameters."""
    return kind.network(sets, len(sets) - 1, SETTINGS.filters)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def encoder():
    params = convnet(SETTINGS.filters, channels=3, size=32).init(stream())
    return {name: leaf for name, leaf in params.items() if name.startswith("task.")}


def double(tree):
    return {name: leaf.double() for name, leaf in tree.items()}


def trained(kind, sets, state, number, steps=12):
    """A task's parameters after a visit, without the task axis."""
    problem, sharing = network(kind, sets)
    task = task_stack(sets, [number], [steps], SETTINGS.batch, stream(3))
    about = Visit(steps, 3, sets[number].classes, lambda params, stats: torch.tensor(0.5))
    own = state["own"][str(number)]
    return first(visit(problem, Training(0.1, 1000, 1), sharing, state, number, own, task, about).params)


# The cosine and early stopping.


def test_the_rate_falls_along_half_a_cosine():
    optimizer = cosine_sgd(0.3, 4)
    params, state, one = {"w": torch.zeros(1, dtype=DOUBLE)}, optimizer.init({}), {"w": torch.ones(1, dtype=DOUBLE)}
    moved = []
    for _ in range(5):
        after, state = optimizer.update(params, one, state)
        moved.append(float(params["w"] - after["w"]))
        params = after
    assert moved == pytest.approx([0.3 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)])
    assert moved[2] == pytest.approx(0.15) and moved[4] == pytest.approx(0)


@pytest.mark.parametrize(
    ("errors", "patience", "every", "taken"),
    [
        ([0.5, 0.4, 0.4, 0.45, 0.39, 0.5, 0.39, 0.6, 0.1], 3, 1, 8),  # best at 5, and no better at 6, 7 and 8
        ([0.5, 0.5, 0.5, 0.5], 3, 1, 4),
        ([0.5, 0.6, 0.5, 0.4], 2, 2, 6),  # looks after 2, 4 and 6 steps
        ([0.5, 0.6, 0.4, 0.4, 0.4], 2, 2, 10),
        ([0.9 - 0.05 * k for k in range(12)], 3, 1, 12),
    ],
)
def test_a_task_stops_when_validation_gets_no_better(sets, errors, patience, every, taken):
    problem, sharing = network(ENCODER, sets)
    task = task_stack(sets, [0], [12], SETTINGS.batch, stream())
    params, fixed = sharing.join({"shared": encoder()}, None, sharing.new(sets[0].classes, stream()), 3)
    sequence = iter(errors)
    stop = no_better(lambda params, stats: torch.tensor(next(sequence)), patience, every)
    adapted = adapt(problem, sgd(0.1), params, fixed, task, 12, stop=stop)
    assert int(adapted.steps[0]) == taken


def test_errors_with_as_many_wrong_answers_are_equal_numbers():
    """Of 512 images 100 are wrong. Images are looked at in chunks of 500 and 12, and the error decides when to stop."""
    errors = set()
    for last in range(13):
        y = torch.ones(512, dtype=torch.long)
        y[: 100 - last], y[500 : 500 + last] = 0, 0
        part = image_sets.Part(
            torch.zeros(512, 1, 1, 1, dtype=torch.uint8), y, torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
        )
        share = lambda params, stats, batch: Loss(torch.zeros(1), batch.y.float().mean(1), {})  # noqa: E731
        errors.add(float(run.error(Problem(None, None, share, dict), part, {}, {})))
    assert errors == {100 / 512}


def test_mean_errors_with_as_many_wrong_answers_are_equal_numbers():
    sizes = [300, 300, 300, 60]
    splits = [(a, b, 100 - a - b) for a in range(40) for b in range(40)]
    means = {run.mean_error(torch.tensor([a / 300, b / 300, c / 300, 1 / 60]), sizes) for a, b, c in splits}
    assert means == {float((Fraction(100, 300) + Fraction(1, 60)) / 4)}
    assert run.mean_error(torch.tensor([2.0, 0.5]), [60, 300]) == 1.25  # a set that was not visited has the error 2


# Leap on the encoder.


def test_leap_measures_the_path_of_the_encoder_and_the_loss_alone():
    generator = stream()
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=DOUBLE)  # noqa: E731
    steps = [
        Step(k, {"task.w": draw(1, 3), "head.w": draw(1, 5)}, {"task.w": draw(1, 3), "head.w": draw(1, 5)}, draw(1))
        for k in range(3)
    ]
    fold = encoder_fold(leap_fold(), {"task.w"})
    total, expected = {"task.w": torch.zeros(1, 3, dtype=DOUBLE)}, torch.zeros(1, 3, dtype=DOUBLE)
    for before, after in pairwise(steps):
        total = fold(total, before, after)
        moved, rise = after.params["task.w"] - before.params["task.w"], -(after.loss - before.loss).abs()
        norm = (moved.square().sum() + rise.square().sum()).sqrt()
        expected -= (moved + rise * before.grads["task.w"]) / norm
    assert total.keys() == {"task.w"}
    torch.testing.assert_close(total["task.w"], expected, rtol=1e-12, atol=0)


def test_leap_learns_an_encoder_and_keeps_no_head(sets):
    problem, sharing = network(LEAP, sets)
    visits = [Visit(3, 3, each.classes, lambda params, stats: torch.tensor(0.5)) for each in sets]
    learner = of_one(leap_encoder)(problem, sharing, Training(0.1, 100, 1), sgd(0.1), visits)
    before = encoder()
    tasks = task_stack(sets, [1, 0], [4, 4], SETTINGS.batch, stream())
    state, info = learner.step(learner.init(before), tasks, stream(1))
    assert state["shared"].keys() == before.keys() and "own" not in state
    assert any(not torch.equal(leaf, before[name]) for name, leaf in state["shared"].items())
    assert info["steps"].tolist() == [3, 3]
    other, _ = learner.step(learner.init(before), tasks, stream(2))  # other heads
    assert not torch.equal(other["shared"]["task.0.conv.weight"], state["shared"]["task.0.conv.weight"])


# HAT.

ABOUT = hat.Attention(blocks=4, filters=SETTINGS.filters, s_max=400.0)


def test_gates_are_annealed_over_each_epoch():
    params = {hat.BATCHES: torch.tensor([5.0], dtype=DOUBLE)}
    found = [float(hat.scale({hat.STEP: torch.tensor([float(k)], dtype=DOUBLE)}, params, 400.0)) for k in range(7)]
    low = 1 / 400
    expected = [low + (400 - low) * k / 4 for k in range(5)]
    assert found == pytest.approx([*expected, *expected[:2]])
    one = {hat.BATCHES: torch.tensor([1.0])}
    assert float(hat.scale({hat.STEP: torch.tensor([0.0])}, one, 400.0)) == 400


def test_the_regulariser_is_the_share_of_free_filters_in_use():
    own = [torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[0.25, 1.0]])]
    others = [torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.5]])]
    assert float(hat.regulariser(own, others)) == pytest.approx((0 + 0.5 + 0 + 0.25 + 0.5) / (0 + 1 + 1 + 1 + 0.5))
    full = [torch.ones(1, 3), torch.ones(1, 2)]
    assert float(hat.regulariser(own, full)) == 0


def test_the_compensation_takes_the_annealing_out_of_an_embeddings_gradient():
    e = torch.tensor([[-2.0, 0.1, 1.5]], dtype=DOUBLE, requires_grad=True)
    expected = 400 / (2 * (torch.cosh(e.detach()) + 1))  # s_max times the slope of sigmoid(e)
    for s in (0.01, 1.0, 5.0):
        (grad,) = torch.autograd.grad(torch.sigmoid(s * e).sum(), e)
        found = hat.compensate(grad, e.detach(), torch.tensor([s], dtype=DOUBLE), 400.0)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    far = torch.tensor([[6.0]], dtype=DOUBLE)
    found = hat.compensate(torch.ones_like(far), far, torch.tensor([400.0], dtype=DOUBLE), 400.0)
    assert float(found) == pytest.approx((math.cosh(50) + 1) / (math.cosh(6) + 1))  # s e is held at 50


def hat_state(sets, sign):
    """The state of three tasks. Task 2 is untrained, task 1 uses the filters where `sign` is 1, and task 0 none."""
    _, sharing = network(HAT, sets)
    own = {str(i): sharing.new(each.classes, stream(i)) for i, each in enumerate(sets)}
    own["1"] |= {f"embedding.{block}": 3.0 * sign for block in range(4)}
    own["0"] |= {f"embedding.{block}": torch.full_like(sign, -3.0) for block in range(4)}
    return {"shared": encoder(), "own": own, "met": torch.tensor([1.0, 1.0, 0.0])}


def test_weights_that_other_tasks_use_do_not_move_at_all(sets):
    sign = torch.tensor([1.0, -1.0])
    state = hat_state(sets, sign)
    after, before = trained(HAT, sets, state, 0), state["shared"]
    for block in range(4):
        name = f"task.{block}"
        for part in ("conv.bias", "norm.weight", "norm.bias"):
            assert after[f"{name}.{part}"][0] == before[f"{name}.{part}"][0]  # filter 0 is task 1's
            assert after[f"{name}.{part}"][1] != before[f"{name}.{part}"][1] or part == "conv.bias"
        old, new = before[f"{name}.conv.weight"], after[f"{name}.conv.weight"]
        if block == 0:
            assert torch.equal(new[0], old[0])
        else:
            assert torch.equal(new[0, 0], old[0, 0])  # from a used filter to a used one
        assert not torch.equal(new[1], old[1])
    assert not torch.equal(after["head.weight"], state["own"]["0"]["head.weight"])


def hat_step(p, others, x, y, s, rate):
    """A step of HAT on one mini-batch, written from its equations with PyTorch's layers and loops over weights."""
    p = {name: leaf.clone().requires_grad_() for name, leaf in p.items()}
    h, used, free = x, 0.0, 0.0
    for block in range(4):
        h = F.max_pool2d(F.conv2d(h, p[f"task.{block}.conv.weight"], p[f"task.{block}.conv.bias"], padding=1), 2)
        scale, shift = p[f"task.{block}.norm.weight"], p[f"task.{block}.norm.bias"]
        gate = 1 / (1 + torch.exp(-s * p[f"embedding.{block}"]))
        h = F.relu(F.batch_norm(h, None, None, scale, shift, True)) * gate[:, None, None]
        used, free = used + (gate * (1 - others[block])).sum(), free + (1 - others[block]).sum()
    loss = F.cross_entropy(h.flatten(1) @ p["head.weight"].T + p["head.bias"], y) + 0.75 * used / free
    grads = dict(zip(p, torch.autograd.grad(loss, list(p.values())), strict=True))
    for block in range(4):
        before = others[block - 1] if block else torch.ones(3)  # the image's channels cannot be left unused
        for i, out in enumerate(others[block]):
            for j, into in enumerate(before):
                grads[f"task.{block}.conv.weight"][i, j] *= 1 - min(out, into)
            for part in ("conv.bias", "norm.weight", "norm.bias"):
                grads[f"task.{block}.{part}"][i] *= 1 - out
        e = p[f"embedding.{block}"].detach()
        grads[f"embedding.{block}"] *= 400 / s * (torch.cosh((s * e).clamp(-50, 50)) + 1) / (torch.cosh(e) + 1)
    shrink = min(1.0, 10_000 / float(sum(grad.square().sum() for grad in grads.values())) ** 0.5)
    after = {name: leaf.detach() - rate * shrink * grads[name] for name, leaf in p.items()}
    return {name: leaf.clamp(-6, 6) if name.startswith("embedding") else leaf for name, leaf in after.items()}


def test_a_visit_of_hat_is_what_its_equations_give(sets, monkeypatch):
    monkeypatch.setattr(image_sets, "pixels", lambda images, rows: pixels(images, rows).double())
    state = hat_state(sets, torch.tensor([0.002, -0.004]))  # gates of task 1: 0.69 and 0.17
    state["own"] = {number: double(own) for number, own in state["own"].items()}
    state["own"]["1"] |= {f"embedding.{b}": torch.tensor([0.002, -0.004], dtype=DOUBLE) for b in range(4)}
    state["own"]["0"] |= {f"embedding.{b}": torch.tensor([0.02, -0.01], dtype=DOUBLE) for b in range(4)}
    state["shared"], steps = double(state["shared"]), 5  # of epochs of 3
    found = trained(HAT, sets, state, 0, steps)
    others = [torch.sigmoid(400 * state["own"]["1"][f"embedding.{b}"]) for b in range(4)]
    params = state["shared"] | state["own"]["0"]
    order = task_stack(sets, [0], [steps], SETTINGS.batch, stream(3)).order[0]
    for k in range(steps):
        s = 1 / 400 + (400 - 1 / 400) * (k % 3) / 2
        x, y = image_sets.pixels(sets[0].train, order[k]), sets[0].train.y[order[k]]
        params = hat_step(params, others, x, y, s, 0.1 * (1 + math.cos(math.pi * k / steps)) / 2)
    for name, leaf in params.items():
        torch.testing.assert_close(found[name], leaf, rtol=1e-6, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_a_task_that_comes_back_may_move_what_it_alone_uses(sets):
    state = hat_state(sets, torch.ones(2))
    assert all((leaf == 0).all() for leaf in hat.used_by_others(state, 1, ABOUT).values())
    assert all((leaf == 1).all() for leaf in hat.used_by_others(state, 0, ABOUT).values())
    assert all((leaf == 1).all() for leaf in hat.used_by_others(state, None, ABOUT).values())
    back, other = trained(HAT, sets, state, 1), trained(HAT, sets, state, 0)
    assert not torch.equal(back["task.1.conv.weight"], state["shared"]["task.1.conv.weight"])
    for name, leaf in state["shared"].items():
        assert torch.equal(other[name], leaf)


def test_a_task_that_was_never_met_uses_nothing(sets):
    state = hat_state(sets, -torch.ones(2))
    state["own"]["2"] |= {f"embedding.{block}": torch.full((2,), 5.0) for block in range(4)}
    assert all((leaf == 0).all() for leaf in hat.used_by_others(state, None, ABOUT).values())


def test_open_gates_leave_the_network_as_it_is(sets):
    (gated, sharing), (plain, _) = network(HAT, sets), network(ENCODER, sets)
    own = sharing.new(sets[0].classes, stream()) | {f"embedding.{b}": torch.full((2,), 6.0) for b in range(4)}
    params = {name: leaf[None] for name, leaf in (encoder() | own).items()}
    batch = Batch(pixels(sets[0].train, slice(9))[None], sets[0].train.y[:9][None])
    stats = {name: leaf[None] for name, leaf in gated.stats().items()}
    kept = {name: leaf for name, leaf in params.items() if not name.startswith("embedding.")}
    torch.testing.assert_close(gated.evaluate(params, stats, batch).loss, plain.evaluate(kept, stats, batch).loss)


# Progressive Nets.


def test_columns_grow_with_the_square_of_their_number():
    for filters, n in ((2, 1), (3, 2), (2, 5)):
        each = [nets.column(filters, n - 1, 7, stream(t)) for t in range(n)]
        without = [p.numel() for column in each for name, p in column.items() if "head" not in name]
        assert sum(without) == nets.parameters(filters, n)
    assert nets.parameters(64, 8) > 8 * nets.parameters(64, 1)
    assert nets.parameters(64, 1) == sum(leaf.numel() for name, leaf in convnet(64, channels=3, size=32).init(
        stream()).items() if name.startswith("task."))  # fmt: skip
    shapes = {name: tuple(leaf.shape) for name, leaf in nets.column(2, 4, 7, stream()).items()}
    assert shapes["lateral.1.reduce.weight"] == (2, 8, 1, 1) and shapes["lateral.head.weight"] == (7, 4 * 8)
    assert "lateral.0.alpha" not in shapes


def slow(columns, own, number, x):
    """Outputs of a column by loops over columns, with batch statistics; the trained column is `own`."""

    def block(h, params, b, lateral):
        h = torch.nn.functional.conv2d(h, params[f"task.{b}.conv.weight"], params[f"task.{b}.conv.bias"], padding=1)
        if lateral is not None:
            h = h + lateral
        h = torch.nn.functional.max_pool2d(h, 2)
        scale = params[f"task.{b}.norm.weight"], params[f"task.{b}.norm.bias"]
        return torch.relu(torch.nn.functional.batch_norm(h, None, None, *scale, training=True))

    everyone = dict(enumerate(columns)) | {(number if number is not None else len(columns)): own}
    me = number if number is not None else len(columns)
    hidden = dict.fromkeys(everyone, x)
    for b in range(4):
        new = {}
        for j, params in everyone.items():
            lateral = None
            if b:
                others = [k for k in everyone if k != j and (j == me or k < len(columns))]
                seen = torch.cat([params[f"lateral.{b}.alpha"][i] * hidden[k] for i, k in enumerate(others)], 1)
                weight, bias = params[f"lateral.{b}.reduce.weight"], params[f"lateral.{b}.reduce.bias"]
                reduced = torch.relu(torch.nn.functional.conv2d(seen, weight, bias))
                lateral = torch.nn.functional.conv2d(reduced, params[f"lateral.{b}.conv.weight"], padding=1)
            new[j] = block(hidden[j], params, b, lateral)
        hidden = new
    features = torch.cat([hidden[k].flatten(1) for k in everyone if k != me], 1)
    return hidden[me].flatten(1) @ own["head.weight"].T + own["head.bias"] + features @ own["lateral.head.weight"].T


@pytest.mark.parametrize("number", [None, 0, 1])
def test_columns_together_are_what_loops_over_them_give(number):
    n, filters = 3, 2
    made = [double(nets.column(filters, n - 1, 4, stream(t))) for t in range(n)]
    own = double(nets.column(filters, n, 4, stream(9))) if number is None else made[number]
    others = n if number is None else n - 1
    model = nets.columns(filters, others)
    params = {name: leaf[None] for name, leaf in own.items()} | nets.dense(made, number)
    stats = {name: leaf[None] for name, leaf in double(model.stats()).items()}
    x = torch.randn(6, 3, 32, 32, generator=stream(), dtype=DOUBLE)
    outputs, after = model.apply(params, stats, x[None], True)
    torch.testing.assert_close(outputs[0], slow(made, own, number, x), rtol=1e-9, atol=1e-9)
    assert all(leaf.shape == stats[name].shape and not torch.equal(leaf, stats[name]) for name, leaf in after.items())


def test_a_visit_trains_one_column_and_the_task_goes_on_with_it(sets):
    _, sharing = network(PROGRESSIVE, sets)
    own = {str(i): sharing.new(each.classes, stream(i)) for i, each in enumerate(sets)}
    state = {"shared": {}, "own": own, "met": torch.zeros(3)}
    once = sharing.keep(state, 1, trained(PROGRESSIVE, sets, state, 1))
    assert all(torch.equal(leaf, once["own"]["0"][name]) for name, leaf in own["0"].items())
    moved = {name for name, leaf in own["1"].items() if not torch.equal(leaf, once["own"]["1"][name])}
    assert {"task.0.conv.weight", "lateral.1.alpha", "lateral.1.reduce.weight", "lateral.head.weight"} <= moved
    twice = trained(PROGRESSIVE, sets, once, 1)
    assert not torch.equal(twice["task.0.conv.weight"], once["own"]["1"]["task.0.conv.weight"])


@pytest.mark.parametrize("kind", [LEAP, ENCODER, PROGRESSIVE])
def test_validation_of_meta_training_is_over_all_sets_whichever_are_drawn(sets, kind):
    problem, sharing = network(kind, sets)
    errors = iter([0.1, 0.2, 0.7, 0.4])
    visits = [Visit(2, 2, each.classes, lambda params, stats: torch.tensor(next(errors))) for each in sets]
    owned = [sharing.new(each.classes, stream(i)) for i, each in enumerate(sets)]
    learner = of_one(kind.learner)(problem, sharing, SETTINGS, visits, owned)
    state, found = learner.init(encoder()), []
    for drawn in ([1, 0], [1], [2]):  # sets that a meta-step has
        tasks = task_stack(sets, drawn, [3] * len(drawn), SETTINGS.batch, stream(3))
        state, _ = learner.step(state, tasks, stream())
        found.append([round(value, 1) for value in state["latest"].tolist()])
    assert found == [[0.2, 0.1, 2.0], [0.2, 0.7, 2.0], [0.2, 0.7, 0.4]]


# The experiment.


def whole_run(drawn, name, checkpoints=None):
    """The records of training and evaluation, without times."""
    this = one_run(drawn, "multicv", name)._replace(checkpoints=checkpoints)
    trained = run.train(this) if name != "scratch" else None
    records = run.judge(this, trained and trained.state).records + (trained.records if trained else [])
    return [record for record in records if record[2] not in TIMES]


def test_methods_of_a_seed_learn_a_held_out_set_from_the_same_batches_and_head(drawn, monkeypatch):
    seen = []
    plain = run.adapt
    monkeypatch.setattr(run, "adapt", lambda *rest, **more: seen.append(rest) or plain(*rest, **more))
    for name in ("scratch", "leap", "finetune", "hat"):
        whole_run(drawn, name)
    first_set = seen[:: len(drawn.sets)]
    for _, _, params, _, task, _ in first_set[1:]:
        assert torch.equal(task.order, first_set[0][4].order)
        assert torch.equal(params["head.weight"], first_set[0][2]["head.weight"])
    start = convnet(SETTINGS.filters, channels=3, size=32).init(generator(0, "init"))
    assert torch.equal(first_set[0][2]["task.0.conv.weight"][0], start["task.0.conv.weight"])


def test_validation_images_are_a_part_of_the_training_images_only(drawn):
    this = one_run(drawn, "multicv", "finetune", most_train=None, most_classes=None)
    each, (parts, classes) = drawn.sets["glyphs-0"], run.taken(this, "glyphs-0")
    assert (len(parts.train.y), len(parts.validation.y), len(classes)) == (255, 45, each.classes)
    cut = one_run(drawn, "multicv", "finetune", most_train=None, most_classes=None, most_validation=10)
    fewer, _ = run.taken(cut, "glyphs-0")  # images for validation that are not used are training images all the same
    assert len(fewer.validation.y) == 10 and fewer.n_train == parts.n_train == 300
    together = torch.cat([parts.train.x, parts.validation.x]).flatten(1).float().sum(1).sort().values
    torch.testing.assert_close(together, each.train_images.flatten(1).float().sum(1).sort().values)
    test = image_sets.take("glyphs-0", each, "test", classes, None, 0, CPU)
    assert torch.equal(test.x.flatten().sort().values, each.test_images.flatten().sort().values)
    assert torch.equal(classes[test.y].sort().values, each.test_labels.sort().values)


def test_meta_steps_draw_other_tasks_and_methods_the_same(drawn, monkeypatch):
    class Enough(Exception):
        pass

    found = {}

    def stop(learner, params, sample, how, members):
        found[members[0].name.split(",")[0]] = [sample(k, 0) for k in range(4)]
        raise Enough

    monkeypatch.setattr(fit, "fit", stop)
    for name in ("leap_1_epoch", "hat"):
        with pytest.raises(Enough):
            run.train(one_run(drawn, "multicv", name))
    for one, other in zip(found["leap_1_epoch"], found["hat"], strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.order, other.order)
    orders = [task.order for task in found["hat"]]
    assert not any(torch.equal(a, b) for a, b in pairwise(orders))
    assert set(torch.cat([task.index for task in found["hat"]]).tolist()) == {0, 1}  # and never the one held out


def test_every_image_comes_once_in_an_epoch():
    rows = image_sets.order(10, 5, 4, stream())
    assert rows.shape == (5, 4)
    flat = rows.flatten().tolist()
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))


@pytest.mark.parametrize("name", ["leap", "hat", "progressive"])
def test_a_run_that_was_stopped_ends_with_the_same_rows(drawn, tmp_path, monkeypatch, name):
    whole = whole_run(drawn, name)
    meta_step, taken = fit.meta_step, []
    learn, learnt = run.learn, []

    def stopped(done, number, function, what):
        """A version of `function` that fails at its call of that number."""

        def call(*rest):
            done.append(what(*rest))
            if len(done) == number:
                raise ZeroDivisionError
            return function(*rest)

        return call

    # In the second meta-step of the second set, and in the evaluation of the second set.
    monkeypatch.setattr(fit, "meta_step", stopped(taken, SETTINGS.meta_steps + 2, meta_step, lambda *rest: rest[4]))
    monkeypatch.setattr(run, "learn", stopped(learnt, 2, learn, lambda *rest: rest[1]))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            whole_run(drawn, name, tmp_path)
    resumed = whole_run(drawn, name, tmp_path)
    assert len(taken) == 3 * SETTINGS.meta_steps + 1  # only the meta-step that was stopped is made twice
    first, second, third = drawn.sets
    assert learnt == [first, second, second, third]  # only the held-out set that was stopped is learnt twice
    assert resumed == whole


@pytest.mark.parametrize("name", ["leap", "hat", "progressive"])
def test_what_was_learnt_is_evaluated_the_same_from_its_file(drawn, tmp_path, name):
    this = one_run(drawn, "multicv", name)
    state = run.train(this).state
    states.write(tmp_path / "state.safetensors", {(0, 0): state}, {"n_tasks": [0], "seeds": [0]})
    back = states.read(tmp_path / "state.safetensors")[0][0, 0]
    kept = {"leap": {"shared", "latest"}}.get(name, {"shared", "own", "met", "latest"})
    for held_out in drawn.sets:
        was, found = state["without"][held_out], back["without"][held_out]
        assert was.keys() == found.keys() == kept
        assert bool(found["shared"]) == (name != "progressive")
        torch.testing.assert_close(found, was, rtol=0, atol=0)
    untimed = [[record for record in run.judge(this, each).records if record[2] not in TIMES] for each in (state, back)]
    assert untimed[0] == untimed[1]


@pytest.mark.parametrize("name", ["leap", "hat", "progressive"])
def test_training_says_how_far_every_method_has_moved(drawn, name):
    """Without it no claim about the method could be decided."""
    records = run.train(one_run(drawn, "multicv", name)).records
    moved = [value for _, step, metric, value in records if metric == "moved_init" and step is None]
    assert len(moved) == len(drawn.sets) and min(moved) > 0


def test_training_reads_no_settings_of_evaluation(drawn):
    other = {"heldout_epochs": 1, "heldout_patience": 1, "most_test": 5, "curve_points": 2}
    assert other.keys() == run.EVALUATION
    for name in ("leap", "hat", "progressive"):
        one, two = (run.train(one_run(drawn, "multicv", name, **changes)) for changes in ({}, other))
        torch.testing.assert_close(one.state, two.state, rtol=0, atol=0)
        kept = [[record for record in each.records if record[2] not in TIMES] for each in (one, two)]
        assert kept[0] == kept[1]


def test_a_state_of_other_sets_is_refused(drawn):
    few = drawn._replace(sets=dict(list(drawn.sets.items())[:2]))
    state = run.train(one_run(few, "multicv", "finetune")).state
    with pytest.raises(ValueError, match="held-out sets glyphs-0, glyphs-1; needed glyphs-0, glyphs-1, glyphs-2"):
        run.judge(one_run(drawn, "multicv", "finetune"), state)


def test_memory_is_measured_once(drawn):
    this = one_run(drawn, "multicv", "finetune", heldout_epochs=1)
    trained = run.train(this)
    found = [trained.records, run.judge(this, trained.state).records, run.judge(this, None).records]
    assert [sum(record[2] == "peak_memory" for record in records) for records in found] == [1, 0, 1]


def test_the_growth_that_is_reported_is_that_of_the_parameters(drawn):
    for name in ("leap", "finetune", "hat", "progressive"):
        records = whole_run(drawn, name)
        growth = [value for _, _, metric, value in records if metric == "parameters_without_heads"]
        assert len(growth) == 3
        assert (growth[0] == growth[-1]) == (name in ("leap", "finetune"))
        assert growth[0] == run.count(encoder()) + (4 * SETTINGS.filters if name == "hat" else 0)
    assert growth[-1] == nets.parameters(SETTINGS.filters, 3)


# Table, figures, claims.


def made_up(seeds=(0, 1), skip=()):
    fixed = {
        "experiment": "multicv", "size": "quick", "data_source": "multicv-subsets", "data_checksum": "0a1b2c",
        "settings": "3d4e5f", "version": "0.1.0", "device": "cpu", "seconds": 1.0, "n_tasks": 0,
    }  # fmt: skip
    error = {"leap": 0.2, "finetune": 0.4, "progressive": 0.3, "hat": 0.5, "scratch": 0.25}
    frames = []
    for method, base in error.items():
        for seed in seeds:
            records = [("", None, "peak_memory", 500.0)]
            records += [("", k, "parameters_without_heads", 100.0 * (k if method == "hat" else 1)) for k in (1, 2, 3)]
            for task, shift in (("facescrub", 0.1), ("mnist", 0.0), ("chars74k", 0.2)):
                bad = base + shift + (0.2 if (method, task) == ("leap", "facescrub") else 0) + 0.01 * seed
                values = {
                    "accuracy": 1 - bad, "train_error": bad / 2, "error_area": 100 * bad, "steps": 10.0,
                    "step_seconds": 0.01, "parameters": 900.0 if method == "progressive" else 100.0,
                    "n_train": 400.0, "n_test": 50.0, "n_classes": 10.0, "meta_seconds": 3.0,
                }  # fmt: skip
                records += [(task, None, metric, value) for metric, value in values.items()]
                records += [(task, k, "heldout_accuracy", 0.1 * k) for k in (0, 5)]
                records += [(task, k, "train_batch_error", 0.5) for k in (0, 5)]
            if method not in skip:
                frames.append(rows.rows(records, method=method, seed=seed, **fixed))
    return pd.concat(frames, ignore_index=True)


def test_table_3_is_complete_and_as_printed():
    paper = read_paper(PAPER, "3")
    assert len(paper) == 8 * 5 * 3
    found = paper.set_index(["row", "method", "metric"])["value"]
    assert found["facescrub", "leap", "error"] == 19.9 and found["cifar100", "hat", "error_area"] == 58.4
    best = paper.loc[paper["metric"] == "error"].sort_values("value").groupby("row")["method"].first()
    assert (best == "leap").sum() == 7 and best["facescrub"] == "progressive"


def test_the_table_sets_ours_beside_the_papers_and_says_what_the_data_are():
    lines, text = told(made_up(), read_paper(PAPER, "3"), "a small one", bold=True)
    assert "- Size: `quick`: a small one.\n" in text
    assert "| mnist | Leap | **20.5 ± 0.7** / **0.7** |" in text
    assert "| facescrub | Leap | 50.5 ± 0.7 / 19.9 |" in text
    assert "| facescrub | No pretraining | **35.5 ± 0.7** / 18.2 |" in text
    assert "| svhn | Leap | – / **8.4** |" in text
    assert "| chars74k | 10 | 400 | 50 | taken where SVHN is missing; not SVHN |" in text
    assert "Left out, since they were not found: notmnist, fashion-mnist, cifar10, svhn" in text
    assert "| facescrub | No pretraining | Progressive Nets | No pretraining | Progressive Nets |" in text
    assert "| Finetuning (multi-head) | +15.0 | +15.0 to +15.0 |" in text
    assert set(lines["heldout"]) >= {"chars74k", "svhn"}
    for part in text.split("\n\n"):
        if part.startswith("|"):
            assert len({row.count("|") for row in part.splitlines()}) == 1


def test_one_seed_or_a_missing_method_leave_gaps_and_no_error():
    _, text = told(made_up((0,), skip=("hat", "scratch")), read_paper(PAPER, "3"))
    assert "| mnist | HAT | – / 0.8 |" in text and "Against no pretraining" not in text


def test_ranks_are_among_the_methods_of_the_table_and_leave_facescrub_out():
    frame = made_up()
    rank = quantity(frame, "rank")
    assert set(rank["task"]) == set(frame["task"]) - {"", "facescrub"}
    error = quantity(frame, "error").set_index(["method", "seed", "task"])["value"]
    for (seed, task), mine in rank.groupby(["seed", "task"]):
        errors = error.xs((seed, task), level=("seed", "task")).loc[mine["method"]].to_numpy()
        better = (errors[:, None] > errors).sum(1) + (errors[:, None] == errors).sum(1) / 2 + 0.5
        assert mine["value"].tolist() == pytest.approx(better.tolist())
    assert quantity(made_up(skip=("hat",)), "rank").empty
    assert quantity(frame, "error_mnist")["task"].unique().tolist() == ["mnist"]


def test_a_rank_needs_that_all_methods_have_learnt_every_set():
    frame = made_up((0, 1, 2)).loc[lambda all_: all_["seed"] < 3]
    lost = (frame["method"] == "hat") & (frame["seed"] == 1)
    gone = frame.loc[lost].head(1).assign(metric="diverged", task="", step=pd.NA, value=1.0)
    spec = {"kind": "difference", "metric": "rank", "more": "finetune", "less": "leap", "at": "largest"}
    claim = {"id": "L15x", "section": "", "claim": "", "experiment": "multicv", "data": "multicv-subsets"}
    book = claims.Book({"power": 0.8}, [], {}, [claim | {"parts": [spec]}])
    found = claims.decide(book, {"multicv": pd.concat([frame.loc[~lost], gone])}, "mine", "orders", {})
    assert "1 of 3 runs of HAT diverged" in found["reason"].iloc[0]


def test_the_parameters_that_claim_l20_counts_are_those_of_the_models():
    claims = yaml.safe_load((REPO / "paper/claims.yaml").read_text())["claims"]
    (part,) = next(claim for claim in claims if claim["id"] == "L20")["parts"]
    assert part["numbers"] == [PROGRESSIVE.parameters(64, 8), ENCODER.parameters(64, 8)]


def test_the_map_shows_differences_to_no_pretraining():
    final = quantity(made_up(), "error")
    cells = report.changes(final, ["mnist", "facescrub"], ["leap", "finetune"])
    np.testing.assert_allclose(cells, [[-5, 15], [15, 15]], atol=1e-9)
    assert np.isnan(report.changes(final, ["svhn"], ["leap"])).all()


def test_figures_are_drawn_whatever_is_missing(tmp_path):
    for frame in (made_up(), made_up((0,), skip=("scratch", "hat"))):
        rows.write(tmp_path / "rows.csv", frame)
        options = ["--rows", str(tmp_path / "rows.csv"), "--paper", str(PAPER), "--out-dir", str(tmp_path)]
        report_main(["figures", "multicv", *options])
        assert {path.stem for path in tmp_path.glob("*.png")} == {"multicv", "multicv_map", "multicv_curves"}


def test_the_official_counts_of_the_table_are_those_of_the_data():
    assert {name: (a.classes, a.n_train, a.n_test) for name, a in images.OFFICIAL.items()} == report.SETS


def test_the_gain_of_more_epochs_is_of_the_same_seed_and_set():
    frame = made_up()
    more = frame.loc[frame["method"] == "finetune"].assign(method="finetune_many_epochs")
    more.loc[more["metric"] == "accuracy", "value"] += 0.02
    one = frame.loc[frame["method"] == "leap"].assign(method="leap_1_epoch")
    one.loc[one["metric"] == "accuracy", "value"] -= 0.03
    gain = quantity(pd.concat([frame, more, one]), "epochs_gain").groupby("method")["value"]
    assert gain.mean().to_dict() == pytest.approx({"finetune": 2.0, "leap": 3.0}) and gain.size().tolist() == [6, 6]
    assert quantity(frame, "epochs_gain").empty


@pytest.mark.parametrize(("moved", "verdict"), [(0.0, "not tested"), (0.2, "supported")])
def test_a_gain_of_epochs_needs_that_both_methods_have_learnt(moved, verdict):
    frame = made_up((0, 1, 2)).loc[lambda all_: all_["method"] == "leap"]
    one = frame.assign(method="leap_1_epoch")
    places = one["metric"] == "accuracy"
    one.loc[places, "value"] -= 0.03 + 0.001 * one.loc[places, "seed"]
    record = frame.drop_duplicates("seed").assign(metric="moved_init", task="", step=pd.NA)
    frame = pd.concat([frame, one, record.assign(value=1.0), record.assign(method="leap_1_epoch", value=moved)])
    spec = {"kind": "bound", "metric": "epochs_gain", "method": "leap", "at_least": 0}
    claim = {
        "id": "L19x",
        "section": "",
        "claim": "",
        "experiment": "multicv",
        "data": "multicv-subsets",
        "parts": [spec],
    }
    gate = {"power": 0.8, "moved": {"warps": 0.5, "initialisation": 0.1}, "ahead": {"least": 0.1, "of": {}}}
    stated = {("L19x", "epochs_gain: Leap, at least 0"): {"effect": 3.0, "spread": 0.1}}
    found = claims.decide(claims.Book(gate, [], {}, [claim]), {"multicv": frame}, "mine", "orders", stated)
    assert found["part_verdict"].tolist() == [verdict]
    assert ("the initialisation moved by 0 of" in found["reason"].iloc[0]) == (verdict == "not tested")
