"""Splits, tasks and pixels of the Omniglot experiments, on glyphs. The same code is used for the real images."""

from itertools import pairwise

import pytest
import sizes
import torch

from leapwarp import plan
from leapwarp.data import glyphs
from leapwarp.data.alphabets import build
from leapwarp.evaluate import area
from leapwarp.experiments.omniglot import judge, train
from leapwarp.rng import generator
from leapwarp.trees import leaves
from leapwarp.worlds.alphabets import draw_batch, draw_heldout, draw_tasks, images, meta_batch, pixels, split

CPU = torch.device("cpu")
COUNTS = (1, 3, 5, 10, 15, 20, 25, 26)


@pytest.fixture(scope="module")
def alphabets():
    """Alphabets with Omniglot's numbers of characters and blank images, which is all that splits need."""
    sizes = glyphs.sizes()
    alphabet = torch.arange(50).repeat_interleave(torch.tensor(sizes))
    names = [f"alphabet_{i:02d}" for i in range(50)]
    return build(torch.zeros(len(alphabet), 20, 28, 28, dtype=torch.uint8), alphabet, names, "blank")


@pytest.fixture(scope="module")
def drawn():
    return glyphs.make(4)


@pytest.mark.parametrize("seed", range(3))
def test_splits_are_disjoint_nested_and_leave_the_test_alphabets_alone(alphabets, seed):
    splits = {n: split(alphabets, seed, n, 10, 10) for n in COUNTS}
    small = {alphabets.names[i] for i, size in enumerate(glyphs.sizes()) if size < 20}
    assert len(small) == 4
    for n, parts in splits.items():
        assert (len(parts.train), len(parts.validation), len(parts.test)) == (n, 10, 10)
        assert len({*parts.train, *parts.validation, *parts.test} - small) == n + 20
        assert parts.test == splits[1].test and parts.validation == splits[1].validation
    for fewer, more in pairwise(COUNTS):
        assert splits[more].train[:fewer] == splits[fewer].train


def test_seeds_hold_out_different_alphabets(alphabets):
    tests = {tuple(split(alphabets, seed, 1, 10, 10).test) for seed in range(5)}
    assert len(tests) == 5


def test_too_many_tasks_are_refused(alphabets):
    with pytest.raises(ValueError, match="found 46 alphabets .*; 27 training tasks, 10 for validation and 10 held out"):
        split(alphabets, 0, 27, 10, 10)


def test_every_count_of_the_papers_fits(alphabets):
    for name in ("omniglot_leap", "omniglot_warp"):
        for size in ("quick", "paper"):
            settings = sizes.methods(name, size)["leap"].settings
            for n in plan.read_size(sizes.SIZES / f"{size}.yaml", [name]).entries[name]["n_tasks"]:
                split(alphabets, 0, n, settings.n_test, settings.n_validation)


def test_no_drawing_and_no_drawer_is_in_both_parts_of_a_task(drawn):
    numbered = drawn._replace(images=torch.zeros_like(drawn.images))
    flat = numbered.images.view(*numbered.images.shape[:2], -1)
    flat[..., 0] = torch.arange(20, dtype=torch.uint8)  # the drawer
    flat[..., 1] = (torch.arange(len(flat)) % 256)[:, None].to(torch.uint8)  # the character
    data = images(numbered, drawn.names[1:3], 0, CPU)
    train, test = (part.flatten(2)[..., :2] for part in (data.train, data.test))
    assert train.shape[:2] == (2, 300) and test.shape[:2] == (2, 100)
    for t in range(2):
        drawers = [set(part[t, :, 0].tolist()) for part in (train, test)]
        assert [len(d) for d in drawers] == [15, 5] and not drawers[0] & drawers[1]
        for part, labels in ((train, data.train_labels), (test, data.test_labels)):
            characters = [set(part[t, labels == label, 1].tolist()) for label in range(20)]
            assert all(len(c) == 1 for c in characters) and len(set.union(*characters)) == 20
    again = images(numbered, drawn.names[1:3], 0, CPU)
    assert torch.equal(again.train, data.train)
    assert not torch.equal(images(numbered, drawn.names[1:3], 1, CPU).train, data.train)


def test_ink_is_1_on_background_0_and_the_released_pixels_are_its_negative_inside(drawn):
    pictures = drawn.images[:4, 0]
    still = torch.eye(2, 3).expand(4, 2, 3)
    ours, theirs = (pixels(pictures, still, released) for released in (False, True))
    torch.testing.assert_close(ours, pictures.float() / 255)
    torch.testing.assert_close(theirs, 1 - ours)
    turned = torch.tensor([[0.7071, -0.7071, 0], [0.7071, 0.7071, 0]]).expand(4, 2, 3)
    corners = [pixels(pictures, turned, released)[:, 0, 0] for released in (False, True)]
    assert (corners[0] == 0).all() and (corners[1] == 0).all()  # background here, ink there


def test_mini_batches_cover_the_training_images_evenly(drawn):
    data = images(drawn, drawn.names[1:3], 0, CPU)
    tasks = draw_tasks(data, torch.tensor([1, 0]), generator(0, "t"), 30, 20, "affine", False)
    counts = torch.bincount(tasks.order[0].flatten(), minlength=300)
    assert counts.min() == counts.max() == 2  # 600 draws of 300 images
    assert tasks.index.tolist() == [1, 0]
    batch = draw_batch(False)(tasks, torch.tensor([0, 1, 1]), torch.tensor([3, 3, 4]))
    assert batch.x.shape == (3, 20, 28, 28) and batch.y.shape == (3, 20)
    rows = tasks.order[1, 4]
    torch.testing.assert_close(batch.x[2], pixels(data.train[0][rows], tasks.affine[1, 4], False))
    assert torch.equal(batch.y[2], data.train_labels[rows])
    held_out = draw_heldout(tasks, torch.tensor([1]), torch.tensor([4]))
    torch.testing.assert_close(held_out.x[0], tasks.x_test[1, rows % 100])
    assert torch.equal(held_out.y[0], data.test_labels[rows % 100])


def test_a_meta_batch_repeats_few_tasks_and_samples_many():
    assert meta_batch(1, 5, generator(0)).tolist() == [0] * 5
    assert torch.bincount(meta_batch(3, 20, generator(0)), minlength=3).tolist() in ([7, 7, 6], [7, 6, 7], [6, 7, 7])
    chosen = meta_batch(25, 20, generator(0)).tolist()
    assert len(set(chosen)) == 20


def test_the_area_under_a_curve():
    curves = torch.tensor([[0.0, 0.5, 1.0], [1.0, 1.0, 1.0], [0.2, 0.4, torch.nan]])
    torch.testing.assert_close(area(curves), torch.tensor([0.5, 1.0, (0.3 + 0.4) / 2]))


def test_sizes_keep_the_rates_of_the_papers():
    for name in ("omniglot_leap", "omniglot_warp"):
        found = [sizes.methods(name, size) for size in ("smoke", "quick", "paper")]
        for method in found[0]:
            assert len({one[method].settings.inner_lr for one in found}) == 1


def test_the_stand_in_is_too_hard_for_scratch_in_100_steps(drawn):
    """Glyphs must leave room for improvement by meta-learning."""
    run = sizes.one_run(drawn, "omniglot_warp", "scratch", size="quick", n_test=2, n_validation=0)
    accuracy = [value for _, _, metric, value in judge(run, None).records if metric == "accuracy"]
    assert len(accuracy) == 2 and 0.05 < sum(accuracy) / 2 < 0.5


@pytest.mark.parametrize("name", ["leap", "finetune"])
def test_settings_of_evaluation_do_not_reach_training(drawn, name):
    few = {"n_test": 1, "n_validation": 1, "validate_every": 1, "patience": 5}
    other = {"eval_steps": 3, "curve_every": 2, "dampings": (7.0,), "damping_tasks": 1}
    one, two = (
        train([sizes.one_run(drawn, "omniglot_leap", name, 2, **few, **changes)])[0] for changes in ({}, other)
    )  # fmt: skip
    assert [record for record in one.records if "seconds" not in record[2]] == [
        record for record in two.records if "seconds" not in record[2]
    ]
    for key, leaf in leaves(one.state).items():
        assert torch.equal(leaf, leaves(two.state)[key])


def test_held_out_mini_batches_do_not_depend_on_the_steps_of_meta_training(drawn):
    """So that MAML, which has fewer, learns the held-out tasks as the others do."""
    rows = [
        [record for record in judge(run, None).records if "seconds" not in record[2]]
        for run in (sizes.one_run(drawn, "omniglot_warp", "scratch", eval_steps=3, inner_steps=n) for n in (2, 5))
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("name", ["leap", "warp_leap", "finetune", "maml"])
def test_runs_with_different_numbers_of_alphabets_train_in_one_stack(drawn, name):
    few = {"filters": 3, "inner_steps": 3, "meta_steps": 2, "meta_batch": 2, "n_test": 1, "n_validation": 0}
    runs = [sizes.one_run(drawn, "omniglot_warp", name, count, seed=seed, **few) for count in (1, 3) for seed in (0, 1)]
    seen = set()
    for run, together in zip(runs, train(runs), strict=True):
        (alone,) = train([run])
        found, needed = leaves(together.state), leaves(alone.state)
        for key, leaf in needed.items():
            mine = found[key][: len(leaf)] if key.startswith("heads/") else found[key]  # one for each alphabet of most
            torch.testing.assert_close(mine, leaf, rtol=0, atol=0.005)  # rounding decides which pixel is the largest
        losses = [[v for _, _, metric, v in each.records if metric == "meta_loss"] for each in (together, alone)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3) and len(losses[0]) == 2
        seen.add(round(losses[0][0], 5))
    assert len(seen) == 4  # the runs differ


def test_what_is_learnt_is_judged_without_more_than_the_state(drawn):
    """Evaluation from the state alone gives the same rows twice. They differ from those of the random start."""
    run = sizes.one_run(drawn, "omniglot_warp", "warp_leap", 2, n_test=1, n_validation=1)
    state = train([run])[0].state
    rows = [
        [record for record in judge(run, start).records if "seconds" not in record[2]] for start in (state, state, None)
    ]
    assert rows[0] == rows[1] != rows[2]
