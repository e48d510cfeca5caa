"""The few-shot learners against finite differences and each other; their network, tasks and table."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from calls import REPO
from cases import DOUBLE, SmallModulated, of_one, small_warped
from sizes import one_run
from told import drawn, told

from leapwarp import learners, trees
from leapwarp.data import textures
from leapwarp.data.classes import Classes, for_choosing
from leapwarp.experiments.base import Run
from leapwarp.experiments.few_shot import report
from leapwarp.experiments.few_shot import run as few_shot
from leapwarp.inner import adapt
from leapwarp.learners.base import Learner
from leapwarp.learners.warpgrad import warp_gradient
from leapwarp.models.conv4 import PLAIN, Extra, conv4
from leapwarp.optim import sgd
from leapwarp.problem import Batch, Problem, Task, lift, supervised
from leapwarp.report import rows
from leapwarp.report.table import read_paper
from leapwarp.rng import generator
from leapwarp.worlds.episodes import as_tasks, draw_episodes

STEPS = 3
EXTRAS = {
    "plain": PLAIN,
    "warps": Extra(warps=True),
    "projections": Extra(projections=True),
    "context": Extra(context=6),
}


def small(module: torch.nn.Module | None = None) -> tuple[Problem, trees.Params, Task]:
    problem, params, tasks = small_warped(draws=STEPS)
    if module is None:
        return problem, params, tasks
    model = lift(module.double())
    return supervised(model), model.init(torch.Generator()), tasks


def unit_gradient(learner: Learner, state: dict, tasks: Task) -> dict:
    """The meta-gradient of a learner whose outer optimizers are sgd(1), from the change of each meta-parameter."""
    after, _ = learner.step(state, tasks, torch.Generator())
    before, after = trees.leaves(state), trees.leaves(after)
    return {path: before[path] - after[path] for path in before}


def after_adaptation(problem: Problem, learner: Learner, state: dict, tasks: Task) -> torch.Tensor:
    """The mean loss on held-out data, computed by the code of evaluation."""
    inner = learner.optimizer(state) if learner.optimizer else sgd(0.3)
    start, fixed = learner.start(state, tasks)
    adapted = adapt(problem, inner, start, fixed, tasks, STEPS)
    return problem.loss({**adapted.params, **fixed}, adapted.stats, Batch(tasks.x_test, tasks.y_test)).loss.mean()


cavia, maml, metasgd = map(of_one, (learners.cavia, learners.maml, learners.metasgd))
tnets, warp_maml = map(of_one, (learners.tnets, learners.warp_maml))
BUILD = {
    "maml": lambda problem: maml(problem, sgd(0.3), sgd(1.0), STEPS),
    "metasgd": lambda problem: metasgd(problem, 0.3, sgd(1.0), STEPS),
    "tnets": lambda problem: tnets(problem, sgd(0.3), sgd(1.0), STEPS),
    "cavia": lambda problem: cavia(problem, sgd(0.3), sgd(1.0), STEPS),
}


@pytest.mark.parametrize("name", BUILD)
def test_the_meta_gradient_is_that_of_finite_differences(name):
    problem, params, tasks = small(SmallModulated() if name == "cavia" else None)
    learner = BUILD[name](problem)
    state = learner.init(params)
    found = unit_gradient(learner, state, tasks)
    stream = torch.Generator().manual_seed(3)
    for path in (path for path in found if path.startswith("params/")):
        key = path.removeprefix("params/")
        leaf, gap = state["params"][key], 1e-5
        direction = torch.randn(leaf.shape, generator=stream, dtype=DOUBLE)
        values = []
        for sign in (1, -1):
            moved = state | {"params": state["params"] | {key: leaf + sign * gap * direction}}
            values.append(after_adaptation(problem, learner, moved, tasks))
        expected = (values[0] - values[1]) / (2 * gap)
        torch.testing.assert_close((found[path] * direction).sum(), expected, rtol=1e-6, atol=1e-9)


def test_metasgd_at_one_rate_for_all_moves_the_initialisation_as_maml():
    problem, params, tasks = small()
    of_maml = unit_gradient(BUILD["maml"](problem), BUILD["maml"](problem).init(params), tasks)
    learner = BUILD["metasgd"](problem)
    of_metasgd = unit_gradient(learner, learner.init(params), tasks)
    for path, grad in of_maml.items():
        torch.testing.assert_close(of_metasgd[path], grad, rtol=1e-12, atol=1e-14)
    assert all(of_metasgd[f"params/rate.{name}"].abs().max() > 0 for name in params)


def test_cavia_is_tnets_that_adapts_the_context_alone():
    problem, params, tasks = small(SmallModulated())
    renamed = {name if name == "context" else f"warp.{name}": leaf for name, leaf in params.items()}
    plain = lambda tree: {name.removeprefix("warp."): leaf for name, leaf in tree.items()}  # noqa: E731
    twin = problem._replace(loss=lambda tree, stats, batch: problem.loss(plain(tree), stats, batch))
    of_cavia = unit_gradient(BUILD["cavia"](problem), BUILD["cavia"](problem).init(params), tasks)
    of_tnets = unit_gradient(BUILD["tnets"](twin), BUILD["tnets"](twin).init(renamed), tasks)
    assert "params/context" not in of_cavia
    for path, grad in of_cavia.items():
        torch.testing.assert_close(of_tnets[path.replace("params/", "params/warp.")], grad, rtol=1e-12, atol=1e-14)


def test_tnets_from_the_identity_adapts_as_maml():
    plain, tnet = (conv4(4, 5, 16, extra) for extra in (PLAIN, Extra(projections=True)))
    params = {name: leaf.double() for name, leaf in tnet.init(generator(0, "init")).items()}
    tasks = images(2)
    theta = {name: leaf for name, leaf in params.items() if not name.startswith("warp.")}
    both = [maml(supervised(plain), sgd(0.1), sgd(1.0), 2), tnets(supervised(tnet), sgd(0.1), sgd(1.0), 2)]
    grads = [unit_gradient(learner, learner.init(p), tasks) for learner, p in zip(both, (theta, params), strict=True)]
    for path, grad in grads[0].items():
        torch.testing.assert_close(grads[1][path], grad, rtol=1e-9, atol=1e-12)


def test_first_order_maml_is_the_gradient_at_the_end():
    problem, params, tasks = small()
    learner = maml(problem, sgd(0.3), sgd(1.0), STEPS, order=1)
    state = learner.init(params)
    start, fixed = learner.start(state, tasks)
    adapted = adapt(problem, sgd(0.3), start, fixed, tasks, STEPS)
    end = {name: leaf.requires_grad_() for name, leaf in adapted.params.items()}
    loss = problem.loss(end, adapted.stats, Batch(tasks.x_test, tasks.y_test)).loss
    grads = torch.autograd.grad(loss.mean(), list(end.values()))
    for (name, leaf), grad in zip(unit_gradient(learner, state, tasks).items(), grads, strict=True):
        torch.testing.assert_close(leaf, grad.sum(0), rtol=1e-12, atol=1e-14, msg=name)
    with pytest.raises(ValueError, match="order is 3, needed 2 or 1"):
        maml(problem, sgd(0.3), sgd(1.0), STEPS, order=3)


def test_warp_maml_is_the_warp_objective_along_the_path_and_maml_with_the_warps_held():
    problem, params, tasks = small()
    learner = warp_maml(problem, sgd(0.3), sgd(1.0), sgd(1.0), STEPS, scale=0.7)
    state = learner.init(params)
    found = unit_gradient(learner, state, tasks)
    held_out, who = Batch(tasks.x_test, tasks.y_test), torch.arange(3)
    total = trees.zeros_like(state["warp"])
    theta, fixed = learner.start(state, tasks)
    for k in range(STEPS):
        batch = problem.draw(tasks, who, torch.full_like(who, k))
        _, grads = warp_gradient(problem, sgd(0.3), theta, trees.alone(state["warp"]), batch, held_out)
        total = trees.add_scaled(total, 1.0, trees.pick(grads, 0))
        alone = tasks._replace(order=tasks.order[:, k : k + 1])
        theta = adapt(problem, sgd(0.3), theta, fixed, alone, 1).params
    for name, grad in total.items():
        torch.testing.assert_close(found[f"warp/{name}"], grad, rtol=1e-10, atol=1e-13)
    tnet = BUILD["tnets"](problem)
    of_tnets = unit_gradient(tnet, tnet.init(params), tasks)
    for name in state["params"]:
        torch.testing.assert_close(found[f"params/{name}"], 0.7 * of_tnets[f"params/{name}"], rtol=1e-10, atol=1e-13)


# ---------------------------------------------------------------- the network


def images(n_tasks: int, n: int = 10, size: int = 16) -> Task:
    stream = torch.Generator().manual_seed(4)
    x, x_test = (torch.randn(n_tasks, n, 3, size, size, generator=stream, dtype=DOUBLE) for _ in range(2))
    y = torch.arange(5).repeat(n // 5).expand(n_tasks, n)
    return Task(torch.arange(n_tasks), x, y, torch.arange(n).expand(n_tasks, 3, n), x_test, y)


def slow_conv4(params: trees.Params, x: torch.Tensor) -> torch.Tensor:
    """One task's network in plain operations, as appendix I lists them."""
    h = x
    for block in range(4):
        name = "warp.stem" if block == 0 and "warp.stem.conv.weight" in params else f"task.{block}"
        h = F.conv2d(h, params[f"{name}.conv.weight"], params[f"{name}.conv.bias"], padding=1)
        if f"warp.{block}.weight" in params:
            h = F.conv2d(h, params[f"warp.{block}.weight"])
        h = F.batch_norm(h, None, None, params[f"{name}.norm.weight"], params[f"{name}.norm.bias"], True)
        if block == 2 and "context" in params:
            scale, shift = F.linear(params["context"], params["film.weight"], params["film.bias"]).chunk(2)
            h = scale[:, None, None] * h + shift[:, None, None]
        h = F.max_pool2d(F.relu(h), 2)
        if f"warp.{block}.conv.weight" in params:
            h = F.conv2d(h, params[f"warp.{block}.conv.weight"], params[f"warp.{block}.conv.bias"], padding=1)
    h = F.linear(h.flatten(1), params["head.weight"], params["head.bias"])
    return F.linear(h, params["warp.head.weight"]) if "warp.head.weight" in params else h


@pytest.mark.parametrize("name", EXTRAS)
def test_the_network_is_that_of_appendix_i(name):
    model = conv4(4, 5, 32, EXTRAS[name])
    stream = torch.Generator().manual_seed(5)
    stack = {n: leaf.double() for n, leaf in trees.repeat(model.init(generator(0, "init")), 2).items()}
    stack = {n: leaf + 0.1 * torch.randn(leaf.shape, generator=stream, dtype=DOUBLE) for n, leaf in stack.items()}
    x = images(2, size=32).x
    outputs, _ = model.apply(stack, trees.repeat({n: s.double() for n, s in model.stats().items()}, 2), x, True)
    for task in range(2):
        expected = slow_conv4({n: leaf[task] for n, leaf in stack.items()}, x[task])
        torch.testing.assert_close(outputs[task], expected, rtol=1e-9, atol=1e-11)


def test_evaluation_normalises_by_the_images_seen_last():
    model = conv4(4, 5, 16)
    params = trees.repeat({n: leaf.double() for n, leaf in model.init(generator(0, "init")).items()}, 1)
    fresh = trees.repeat({n: s.double() for n, s in model.stats().items()}, 1)
    many = torch.randn(1, 4000, 3, 16, 16, generator=torch.Generator().manual_seed(6), dtype=DOUBLE)
    outputs, stats = model.apply(params, fresh, many, True)
    again, kept = model.apply(params, stats, many, False)
    torch.testing.assert_close(again, outputs, rtol=1e-3, atol=1e-3)  # the two variances differ by 1 / n
    assert all(torch.equal(kept[name], stats[name]) for name in stats)
    one, _ = model.apply(params, stats, many[:, :1], False)
    torch.testing.assert_close(one, again[:, :1])  # no image depends on another


# ---------------------------------------------------------------- tasks and runs


@pytest.fixture(scope="module")
def data() -> Classes:
    return textures.make((6, 5, 5), 12, 16)


def test_episodes_keep_to_their_classes_and_hold_images_out(data):
    episodes = draw_episodes(data, "test", 20, 5, 5, 4, generator(0, "test"))
    for support, query in zip(episodes.support, episodes.query, strict=True):
        labels = data.label[torch.cat([support, query], 1)]
        assert (labels == labels[:, :1]).all() and sorted(labels[:, 0].tolist()) == data.split["test"]
        rows = torch.cat([support, query], 1).flatten()
        assert len(rows.unique()) == len(rows)
    one = draw_episodes(data, "test", 20, 5, 1, 4, generator(0, "test"))
    assert torch.equal(one.query, episodes.query) and torch.equal(one.support, episodes.support[:, :, :1])
    tasks = as_tasks(data, one, 3, 16, torch.device("cpu"))
    assert tasks.order.shape == (20, 3, 5) and torch.equal(tasks.y[0], torch.arange(5))
    expected = data.images[one.query[7, 2, 1]].float() / 127.5 - 1
    assert torch.equal(tasks.x_test[7, 2 * 4 + 1], expected)


def test_too_few_classes_or_images_are_named(data):
    with pytest.raises(ValueError, match=r"class texture_\d+ of textures has 12 images, a task needs 10 \+ 4"):
        draw_episodes(data, "train", 1, 5, 10, 4, generator(0, "test"))
    short = data._replace(split=data.split | {"test": [0, 1, 2]})
    with pytest.raises(ValueError, match="textures has 3 test classes, a task needs 5"):
        draw_episodes(short, "test", 1, 5, 1, 1, generator(0, "test"))


def results(run: Run) -> list:
    """The records of training and evaluation, without times."""
    (trained,) = few_shot.train([run])
    records = trained.records + few_shot.judge(run, trained.state).records
    return [record for record in records if not record[2].endswith("seconds")]


@pytest.mark.parametrize("name", ["maml", "warp_maml_1shot", "cavia"])
def test_a_run_repeats_itself_and_reads_its_checkpoint(data, tmp_path, name):
    run = one_run(data, "few_shot", name, seed=3)
    kept, first = run._replace(checkpoints=tmp_path), results(run)
    assert results(kept) == first
    assert (tmp_path / "seeds3.pt").exists() and results(kept) == first
    assert {step for _, step, metric, _ in first if metric == "validation_error"} == {1, 2}  # meta-steps done
    tasks = {task for task, _, metric, _ in first if metric == "accuracy"}
    assert tasks == {f"task{i:03d}" for i in range(run.method.settings.n_test)}


@pytest.mark.parametrize("name", ["metasgd", "warp_maml", "cavia_1shot"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data, tmp_path, monkeypatch, name):
    run = one_run(data, "few_shot", name, seed=3, meta_steps=4)._replace(checkpoints=tmp_path)
    whole = results(run)
    (tmp_path / "seeds3.pt").unlink()
    calls, real = [], few_shot.draw_episodes

    def stopped(*arguments):
        calls.append(arguments[1])
        return real(*arguments) if calls.count("train") < 4 else 1 / 0

    monkeypatch.setattr(few_shot, "draw_episodes", stopped)
    with pytest.raises(ZeroDivisionError):
        results(run)
    monkeypatch.setattr(few_shot, "draw_episodes", real)
    assert (tmp_path / "seeds3.pt").exists() and results(run) == whole


def test_training_does_not_know_how_many_tasks_it_is_judged_on(data):
    few, many = (few_shot.train([one_run(data, "few_shot", "warp_maml", n_test=n)])[0] for n in (2, 7))
    for path, leaf in trees.leaves(few.state).items():
        assert torch.equal(leaf, trees.leaves(many.state)[path]), path
    assert [r for r in few.records if r[2] != "meta_seconds"] == [r for r in many.records if r[2] != "meta_seconds"]


def test_a_run_has_the_contexts_of_its_own_settings(data):
    trained = few_shot.train([one_run(data, "few_shot", "cavia_1shot", contexts=7)])[0]
    assert trained.state["params"]["film.weight"].shape[-1] == 7


def test_paper_settings_are_those_of_appendix_i():
    methods = few_shot.methods(few_shot.PUBLISHED)
    five, one = (methods[name].settings for name in ("warp_maml", "warp_maml_1shot"))
    assert (five.shots, five.train_shots, one.shots, one.train_shots) == (5, 15, 1, 5)
    assert (five.queries, five.inner_steps, five.meta_steps, five.meta_batch, five.n_test) == (15, 5, 60_000, 1, 600)
    assert five.filters == 128 and five.size >> 4 == 5
    assert methods["cavia"].settings.filters == 512 and methods["maml_wide_1shot"].settings.filters == 128


# ---------------------------------------------------------------- the table and the figures


def made_up(values: dict[str, list[list[float]]], experiment: str = "few_shot", source: str = "mini-imagenet"):
    """Rows of methods, [seed, task] accuracies each; inductive accuracy is a tenth lower."""
    frames = []
    for method, of_seeds in values.items():
        for seed, accuracies in enumerate(of_seeds):
            records = []
            for i, value in enumerate(accuracies):
                of_task = {"accuracy": value, "inductive_accuracy": value - 0.1, "normalisation_gain": 0.1}
                records += [(f"task{i:03d}", None, metric, v) for metric, v in of_task.items()]
            for k in range(3):
                records += [("", k, "heldout_accuracy", 0.2 + 0.1 * k), ("", 10 * k + 10, "validation_error", 0.7)]
            run = {"experiment": experiment, "method": method, "n_tasks": 0, "seed": seed, "size": "quick"}
            run |= {"data_source": source, "data_checksum": "0", "settings": "0", "version": "0", "device": "cpu"}
            frames.append(rows.rows(records, **run, seconds=1.0))
    return pd.concat(frames, ignore_index=True)


ROWS = {"warp_maml_1shot": [[0.4, 0.6], [0.4, 0.6]], "maml": [[0.5, 0.7], [0.6, 1.0]], "warp_maml": [[0.8, 0.8]] * 2}


def test_the_table_has_intervals_over_tasks_and_the_papers_numbers():
    paper = read_paper(REPO / "paper" / "warpgrad.csv", "1 mini")
    lines, text = told(made_up(ROWS), paper, "small")
    ours = lines.loc[lines["metric"] == "accuracy"].set_index("method")
    assert list(ours.index) == ["warp_maml", "maml", "warp_maml_1shot"]
    half = [1.96 * np.std(seed, ddof=1) / 2**0.5 for seed in ([50, 70], [60, 100])]
    assert ours.loc["maml", ["mean", "interval"]].tolist() == pytest.approx([70, np.mean(half)])
    assert ours.loc["maml", "std"] == pytest.approx(np.std([60, 80], ddof=1)) and ours.loc["maml", "paper"] == 63.2
    assert lines.loc[lines["metric"] == "normalisation_gain", "mean"].tolist() == pytest.approx([10] * 3)
    assert "| Warp-MAML | 80.0 ± 0.0 | 0.0 | 68.4 ± 0.6 | +11.6 | 70.0 ± 0.0 |" in text
    assert "- Size: `quick`: small.\n" in text
    assert "## 5-shot" in text and "## 1-shot" in text and "did not verify" in " ".join(text.split())
    assert "(here:" not in text and "(here: textures)" in told(made_up(ROWS, source="textures"), paper)[1]


def test_figures_are_drawn_with_and_without_one_shot_runs():
    for values, panels in ((ROWS, 4), ({"maml": ROWS["maml"]}, 2)):
        frame = made_up(values, "few_shot_tiered", "tiny-imagenet")
        paper = read_paper(REPO / "paper" / "warpgrad.csv", "1 tiered")
        figures = drawn(frame, paper)
        assert set(figures) == {"few_shot", "few_shot_curves"} and len(figures["few_shot_curves"].axes) == panels
        assert "tiered-ImageNet (here: tiny-imagenet)" in figures["few_shot"].get_suptitle()
        curve = figures["few_shot_curves"].axes[1].lines[0]
        assert curve.get_xdata().tolist() == [10, 20, 30] and curve.get_ydata().tolist() == pytest.approx([30] * 3)


def test_methods_of_one_shot_alone_have_their_names_in_the_legend():
    values = ROWS | {"maml_wide_1shot": ROWS["warp_maml_1shot"]}
    [legend] = report.few_shot_curves(made_up(values)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["Warp-MAML", "MAML", "MAML (wide)"]


def test_a_state_of_a_user_comes_last_under_its_own_name():
    frame = made_up(ROWS | {"mine": [[0.3, 0.5]]})
    frame = frame.loc[(frame["method"] != "mine") | (frame["metric"] != "validation_error")]  # without its history
    paper = read_paper(REPO / "paper" / "warpgrad.csv", "1 mini")
    lines, text = told(frame, paper)
    assert list(lines["method"][:4]) == ["warp_maml", "maml", "warp_maml_1shot", "mine"]
    assert "| mine | 40.0 ± 19.6 | – | – | – | 30.0 ± 19.6 |\n\n## 1-shot" in text
    [legend] = report.few_shot_curves(frame).legends
    assert legend.get_texts()[-1].get_text() == "mine"


# ---------------------------------------------------------------- choices


def few(data, **changed):
    return results(one_run(data, "few_shot", "warp_maml", **changed))


def test_nothing_that_is_chosen_sees_test_classes(data):
    test_rows = torch.isin(data.label, torch.tensor(data.split["test"]))
    spoilt = data._replace(images=torch.where(test_rows[:, None, None, None], 255 - data.images, data.images))
    assert few(for_choosing(data)) == few(for_choosing(spoilt)) and few(data) != few(spoilt)
    meta = [[r for r in few(which) if r[2] in ("meta_loss", "validation_error")] for which in (data, spoilt)]
    assert meta[0] == meta[1]


def test_lambda_is_seen_under_adam(data):
    losses = [[r[3] for r in few(data, maml_weight=weight) if r[2] == "meta_loss"] for weight in (1.0, 10.0)]
    assert losses[0][0] == losses[1][0] and losses[0][1] != pytest.approx(losses[1][1], rel=1e-6)
