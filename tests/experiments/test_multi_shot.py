"""The multi-shot experiment: its network against plain operations, its tasks, its runs and its table."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from calls import REPO
from cases import DOUBLE, dies_after, of_one, small_warped
from sizes import one_run
from told import told

from leapwarp import fit, trees
from leapwarp.data import textures
from leapwarp.data.classes import Classes, for_choosing
from leapwarp.experiments.multi_shot import report
from leapwarp.experiments.multi_shot import run as multi_shot
from leapwarp.learners import warp_leap_online
from leapwarp.models.conv6 import conv6
from leapwarp.optim import momentum_sgd, sgd
from leapwarp.problem import Task
from leapwarp.report import rows
from leapwarp.report.table import read_paper
from leapwarp.rng import generator
from leapwarp.worlds.episodes import draw_episodes
from leapwarp.worlds.multi_shot import as_tasks, draw_batch

WIDTHS = (2, 3, 3, 4, 2, 5)
WAYS, SHOTS, QUERIES = 10, 4, 2


def slow_conv6(params: trees.Params, x: torch.Tensor) -> torch.Tensor:
    """One task's network in plain operations, as appendix I lists them."""
    h = x
    for block in range(6):
        name = "warp.stem" if block == 0 and "warp.stem.conv.weight" in params else f"task.{block}"
        h = F.conv2d(h, params[f"{name}.conv.weight"], params[f"{name}.conv.bias"], padding=1)
        h = F.batch_norm(h, None, None, params[f"{name}.norm.weight"], params[f"{name}.norm.bias"], True)
        h = F.relu(h) if block == 5 else F.max_pool2d(F.relu(h), 2)
        if f"warp.{block}.conv.weight" in params:
            h = F.conv2d(h, params[f"warp.{block}.conv.weight"], params[f"warp.{block}.conv.bias"], padding=1)
    return F.linear(h.flatten(1), params["head.weight"], params["head.bias"])


@pytest.mark.parametrize("warped", [False, True])
def test_the_network_is_that_of_appendix_i(warped):
    model = conv6(WIDTHS, 10, 64, warped)
    stack = {n: leaf.double() for n, leaf in trees.repeat(model.init(generator(0, "init")), 2).items()}
    stream = torch.Generator().manual_seed(5)
    stack = {n: leaf + 0.1 * torch.randn(leaf.shape, generator=stream, dtype=DOUBLE) for n, leaf in stack.items()}
    assert len([name for name in stack if name.startswith("warp.")]) == (4 + 5 * 2 if warped else 0)
    x = torch.randn(2, 6, 3, 64, 64, generator=stream, dtype=DOUBLE)
    outputs, _ = model.apply(stack, trees.repeat({n: s.double() for n, s in model.stats().items()}, 2), x, True)
    for task in range(2):
        expected = slow_conv6({n: leaf[task] for n, leaf in stack.items()}, x[task])
        torch.testing.assert_close(outputs[task], expected, rtol=1e-9, atol=1e-11)


def test_the_published_network_has_its_features():
    params = conv6(multi_shot.PUBLISHED.widths, 10, 84).init(generator(0, "init"))
    assert params["head.weight"].shape == (10, 2 * 2 * 256)


def test_with_momentum_warps_learn_along_its_path_by_plain_steps():
    """Central differences of Algorithm 1's objective: theta_k has momentum, and the step of equation 3 has none."""
    problem, params, tasks = small_warped()
    steps, rate, momentum = 4, 0.2, 0.9
    learner = of_one(warp_leap_online)(problem, momentum_sgd(rate, momentum), sgd(1.0), sgd(1.0), steps)
    state = learner.init(params)
    after, _ = learner.step(state, tasks, torch.Generator())

    who = torch.arange(len(tasks.index))

    def gradient(theta, warp, number):
        theta = {name: leaf.detach().requires_grad_() for name, leaf in theta.items()}
        batch = problem.draw(tasks, who, torch.full_like(who, number))
        loss = problem.loss({**theta, **trees.repeat(warp, len(who))}, {}, batch).loss.sum()
        return dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True))

    theta = trees.repeat(state["params"], len(who))
    velocity, path = trees.zeros_like(theta), []
    for k in range(steps):
        path.append(theta)
        grads = gradient(theta, state["warp"], k)
        velocity = {name: momentum * velocity[name] + grads[name] for name in theta}
        theta = {name: theta[name] - rate * velocity[name] for name in theta}

    def objective(warp):
        total = 0.0
        for k, theta in enumerate(path):
            grads = gradient(theta, warp, steps + 1 + 2 * k)
            stepped = {name: theta[name] - rate * grads[name] for name in theta}
            batch = problem.draw(tasks, who, torch.full_like(who, steps + 2 + 2 * k))
            total += float(problem.loss({**stepped, **trees.repeat(warp, len(who))}, {}, batch).loss.sum())
        return total

    stream = torch.Generator().manual_seed(3)
    along = {name: torch.randn(leaf.shape, generator=stream, dtype=DOUBLE) for name, leaf in state["warp"].items()}
    ends = [objective(trees.add_scaled(state["warp"], sign * 1e-5, along)) for sign in (1, -1)]
    slope = sum(float(((state["warp"][name] - after["warp"][name]) * along[name]).sum()) for name in along)
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


# ---------------------------------------------------------------- tasks


@pytest.fixture(scope="module")
def data() -> Classes:
    return textures.make((11, 10, 10), 8, 32)


def draw_tasks(data: Classes, part: str, n: int, draws: int, stream: torch.Generator, batch: int = 8) -> Task:
    episodes = draw_episodes(data, part, n, WAYS, SHOTS, QUERIES, stream)
    return as_tasks(data, episodes, draws, batch, 32, stream, torch.device("cpu"))


def test_tasks_keep_to_their_classes_and_hold_images_out(data):
    numbered = torch.arange(len(data.label))
    marked = torch.stack([numbered % 256, numbered // 256, data.label], 1).to(torch.uint8)
    marked = data._replace(images=marked[:, :, None, None].expand(-1, 3, 32, 32).contiguous())
    tasks = draw_tasks(marked, "validation", 3, 5, generator(0, "v"))
    x_test = ((tasks.x_test + 1) * 127.5).round().to(torch.uint8)
    for task in range(3):
        learnt, judged = ({tuple(image[:, 0, 0].tolist()) for image in part[task]} for part in (tasks.x, x_test))
        assert len(learnt) == WAYS * SHOTS and len(judged) == WAYS * QUERIES and not learnt & judged
        for part, labels in ((tasks.x, tasks.y), (x_test, tasks.y_test)):
            classes = part[task, :, 2, 0, 0].reshape(10, -1)
            assert (classes == classes[:, :1]).all() and set(classes[:, 0].tolist()) == set(data.split["validation"])
            assert labels[task].tolist() == torch.arange(10).repeat_interleave(classes.shape[1]).tolist()


def test_images_do_not_depend_on_mini_batches_and_all_come_as_often(data):
    tasks = draw_tasks(data, "train", 2, 10, generator(0, "t"))
    other = draw_tasks(data, "train", 2, 3, generator(0, "t"), batch=16)
    assert torch.equal(tasks.x, other.x) and torch.equal(tasks.x_test, other.x_test)
    assert tasks.order[0].flatten().bincount().tolist() == [2] * 40  # 10 draws of 8 from 40 images
    uneven = draw_tasks(data, "train", 8, 13, generator(0, "t"))  # 104 images of 40: some come three times
    counts = torch.stack([order.flatten().bincount(minlength=40) for order in uneven.order])
    assert set(counts.flatten().tolist()) == {2, 3}
    of_label = (counts == 3).sum(0).view(10, 4).sum(1)  # whatever their class: 24 of 40 images in 8 tasks
    assert int(of_label.min()) > 10 and int(of_label.max()) < 29
    batch = draw_batch(tasks, torch.tensor([1]), torch.tensor([4]))
    row = int(tasks.order[1, 4, 2])
    assert torch.equal(batch.x[0, 2], tasks.x[1, row].float() / 127.5 - 1) and batch.y[0, 2] == tasks.y[1, row]
    assert batch.x.min() >= -1 and batch.x.max() <= 1


def test_too_few_classes_or_images_are_named(data):
    with pytest.raises(ValueError, match="has 10 test classes, a task needs 11"):
        draw_episodes(data, "test", 1, 11, SHOTS, QUERIES, generator(0))
    with pytest.raises(ValueError, match=r"has 8 images, a task needs 7 \+ 2"):
        draw_episodes(data, "test", 1, WAYS, 7, QUERIES, generator(0))


# ---------------------------------------------------------------- runs


def run(data, name, checkpoints=None, **changed):
    """The records of a run, without times."""
    one = one_run(data, "multi_shot", name, **changed)._replace(checkpoints=checkpoints)
    trained = multi_shot.train([one])[0]
    records = trained.records + multi_shot.judge(one, trained.state).records
    return [record for record in records if not record[2].endswith("seconds")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reptile", "leap", "warp_leap"])
def test_a_run_that_goes_on_from_its_checkpoint_ends_as_one_that_never_stopped(data, tmp_path, name):
    often = {"meta_steps": 3, "checkpoint_every": 1}
    whole = run(data, name, **often)
    with dies_after(2):
        run(data, name, tmp_path, **often)
    assert fit.read(tmp_path / "seeds0.pt")[0]["meta_step"] == 2
    assert run(data, name, tmp_path, **often) == whole


@pytest.mark.slow
def test_nothing_that_is_chosen_sees_test_classes(data):
    test_rows = torch.isin(data.label, torch.tensor(data.split["test"]))
    spoilt = data._replace(images=torch.where(test_rows[:, None, None, None], 255 - data.images, data.images))
    assert run(for_choosing(data), "leap") == run(for_choosing(spoilt), "leap")
    assert run(data, "leap") != run(spoilt, "leap")
    # the stored records of meta-training do not depend on them either
    meta = [[r for r in run(which, "leap") if r[2] in ("meta_loss", "validation_error")] for which in (data, spoilt)]
    assert meta[0] == meta[1]


def test_training_does_not_know_how_it_is_judged(data):
    settings = ({}, {"n_test": 1, "eval_steps": 7, "curve_every": 3})
    one, other = (multi_shot.train([one_run(data, "multi_shot", "leap", **changed)])[0] for changed in settings)
    for path, leaf in trees.leaves(one.state).items():
        assert torch.equal(leaf, trees.leaves(other.state)[path]), path
    assert [r for r in one.records if r[2] != "meta_seconds"] == [r for r in other.records if r[2] != "meta_seconds"]


def test_the_tasks_that_are_watched_are_those_of_evaluation(data):
    records = run(data, "reptile", meta_steps=1)
    watched = [value for _, _, metric, value in records if metric == "meta_test_accuracy"]
    found = [value for _, _, metric, value in records if metric == "accuracy"]
    assert watched == pytest.approx([sum(found) / len(found)])


def test_training_from_scratch_comes_with_large_batches_and_as_the_meta_learners_train(data):
    named = multi_shot.methods(multi_shot.PUBLISHED)
    large, alone, leap = (named[name].settings for name in ("sgd_large", "scratch", "leap"))
    assert large == replace(alone, batch=640)
    training = {field: getattr(leap, field) for field in vars(multi_shot.untrained(leap)) if not getattr(alone, field)}
    assert replace(alone, **training) == leap
    runs = (one_run(data, "multi_shot", "scratch", meta_batch=n) for n in (2, 5))  # only for meta-training
    records = [[r for r in multi_shot.judge(each, None).records if r[2] != "adapt_seconds"] for each in runs]
    assert records[0] == records[1] and ("", None, "meta_steps", 0) in records[0]


def test_paper_settings_are_those_of_appendix_i():
    paper = multi_shot.PUBLISHED
    assert (paper.ways, paper.shots, paper.queries, paper.batch, paper.momentum) == (10, 640, 50, 64, 0.9)
    assert (paper.inner_steps, paper.meta_steps, paper.meta_batch) == (100, 2000, 5)


# ---------------------------------------------------------------- the table


def made_up(curves: dict[tuple[str, int], list[float]]) -> pd.DataFrame:
    """Rows of (method, seed) -> held-out accuracies of its one task, every fifth step."""
    same = {"experiment": "multi_shot", "n_tasks": 0, "size": "quick", "data_source": "textures"}
    same |= {"data_checksum": "0", "settings": "0", "version": "0", "device": "cpu", "seconds": 1.0}
    frames = []
    for (method, seed), values in curves.items():
        records = [("task0", 5 * k, "heldout_accuracy", value) for k, value in enumerate(values)]
        records += [("task0", None, "accuracy", values[-1]), ("task0", None, "heldout_area", sum(values) / len(values))]
        frames.append(rows.rows([*records, ("", None, "adapt_seconds", 1.0)], **same, method=method, seed=seed))
    return pd.concat(frames, ignore_index=True)


def test_steps_until_the_baseline_is_reached():
    found = report.steps_to_baseline(
        made_up(
            {
                ("sgd_large", 0): [0.1, 0.3, 0.5],
                ("leap", 0): [0.1, 0.6, 0.7],
                ("sgd_large", 1): [0.1, 0.2, 0.4],
                ("leap", 1): [0.1, 0.3, 0.4],
                ("reptile", 0): [0.1, 0.2, 0.3],
                ("reptile", 1): [0.5, 0.5, 0.5],
            }
        )
    )
    assert (found["leap"], found["sgd_large"]) == (7.5, 10.0)
    assert pd.isna(found["reptile"])  # it does not reach the level with seed 0


def test_a_state_of_a_user_comes_last_under_its_own_name():
    paper = read_paper(REPO / "paper" / "warpgrad.csv", "multi")
    frame = made_up({("mine", 0): [0.1, 0.5, 0.5, 0.6], ("sgd_large", 0): [0.1, 0.3, 0.4]})  # and learns for longer
    lines, text = told(frame, paper)
    assert set(lines["method"]) == {"mine", "sgd_large"}
    assert text.index("| SGD, large batches |") < text.index("| mine | 60.0 | – | – | 42.5 | 5 | 1.00 |")
    legend = report.multi_shot(frame, paper).axes[0].get_legend()
    assert [entry.get_text() for entry in legend.get_texts()] == ["SGD, large batches", "mine"]
