"""A user's module in stacks: what is learnt, what is constant, and errors that come at once."""

import copy
import warnings
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from cases import DOUBLE, dies_after
from torch import nn

from leapwarp import optim
from leapwarp.evaluate import evaluate
from leapwarp.fit import Fit, Member, fit
from leapwarp.inner import adapt
from leapwarp.learners import finetune, leap, maml, reptile, warp_leap, warp_leap_online, warp_maml
from leapwarp.problem import (
    Batch,
    Task,
    cross_entropy,
    each_task,
    held_out_batch,
    join_tasks,
    lift,
    mean_square,
    stack_tasks,
    supervised,
)
from leapwarp.rng import generator
from leapwarp.trees import alone, pick, repeat, stack


def tasks_of(n_tasks=3, draws=12, classes=3, inputs=4, n=20):
    stream = torch.Generator().manual_seed(5)
    data = [(torch.randn(n, inputs, generator=stream, dtype=DOUBLE), torch.arange(n) % classes) for _ in range(n_tasks)]
    return stack_tasks(data, draws, 5, stream)


class Deep(nn.Module):
    """A module with warps at two depths, batch norm, a frozen layer, and a part that is named `embedding`."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(4, 4)
        block = lambda: nn.ModuleDict({"body": nn.Linear(4, 4), "warp": nn.Linear(4, 4), "norm": nn.BatchNorm1d(4)})  # noqa: E731
        self.blocks, self.warp, self.head = nn.ModuleList([block(), block()]), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.embedding(x)
        for block in self.blocks:
            x = torch.tanh(block["warp"](block["body"](block["norm"](x))))
        return self.head(self.warp(x))


def made(build=Deep):
    torch.manual_seed(0)
    return build().double()


def one_step(learner, model, tasks):
    state = learner.init(alone(model.init(torch.Generator())))
    return learner.step(state, tasks, [torch.Generator()])[0]


# Where the initialisation comes from


def test_a_function_that_makes_the_module_gives_each_seed_its_own_weights():
    """As if each had been made with its own global seed, which `init` leaves as it was."""
    torch.manual_seed(5)
    model, before = lift(lambda: nn.Linear(3, 2)), torch.get_rng_state()
    one, same, other = (model.init(generator(seed, "init")) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one["weight"], same["weight"]) and not torch.equal(one["weight"], other["weight"])
    x = torch.rand(2, 4, 3)
    stacked, _ = model.apply(stack([one, other]), {}, x, True)
    for i, params in enumerate((one, other)):
        torch.testing.assert_close(stacked[i], x[i] @ params["weight"].T + params["bias"])


def test_what_makes_no_module_is_refused():
    with pytest.raises(TypeError, match="the function that was lifted makes Tensor; needed one that makes a torch mod"):
        lift(lambda: torch.ones(1))
    with pytest.raises(TypeError, match="the generator is NoneType; needed a torch.Generator, for new weights"):
        lift(lambda: nn.Linear(1, 1)).init(None)


# What is learnt


@pytest.mark.parametrize("build", ["leap", "maml"])
def test_frozen_parameters_stay_and_are_no_part_of_the_state(build):
    net, tasks = made(), tasks_of()
    net.requires_grad_(False)
    for part in (net.blocks[0], net.head):
        part.requires_grad_(True)
    net.blocks[0]["warp"].requires_grad_(False)
    model, before = lift(net, warp=()), copy.deepcopy(net.state_dict())
    learner = {"leap": leap, "maml": maml}[build](supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3)
    state = one_step(learner, model, tasks)
    assert set(state["params"]) == {f"blocks.0.{p}.{q}" for p in ("body", "norm") for q in ("weight", "bias")} | {
        "head.weight",
        "head.bias",
    }
    after = model.state_dict(pick(state["params"], 0))
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    assert moved == set(state["params"])
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_leap_of_a_part_is_leap_of_a_module_that_has_the_rest_as_constants():
    """The norm of a path has the learnt parameters only."""
    net, tasks = made(), tasks_of()
    net.embedding.requires_grad_(False)
    rest = copy.deepcopy(net)
    whole = lift(net, warp=())

    class Without(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks, self.warp, self.head = rest.blocks, rest.warp, rest.head

        def forward(self, x):
            return rest.__class__.forward(rest, x)

    part = lift(Without(), warp=())
    found = [
        one_step(leap(supervised(m), optim.sgd(0.1), optim.sgd(0.1), 3), m, tasks)["params"] for m in (whole, part)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_warps_at_any_depth_are_warps_and_come_back_by_their_names():
    net, tasks = made(), tasks_of(draws=10)
    wrapped = nn.ModuleDict({"net": net})
    wrapped.forward = net.forward
    model, before = lift(wrapped, warp=["*.warp.*"]), copy.deepcopy(net.state_dict())
    learner = warp_leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3)
    state = one_step(learner, model, tasks)
    assert set(state["warp"]) == {
        f"warp.net.{place}warp.{part}" for place in ("", "blocks.0.", "blocks.1.") for part in ("weight", "bias")
    }
    adapted = adapt(supervised(model), optim.sgd(0.1), *learner.start(state, tasks), tasks, 3)
    assert not adapted.params.keys() & state["warp"].keys()
    full = model.state_dict(pick(state["params"] | state["warp"], 0))
    wrapped.load_state_dict(full)  # strict
    moved = {name for name in before if not torch.equal(net.state_dict()[name], before[name])}
    assert {name for name in before if "warp" in name} < moved
    own = model.state_dict(pick(adapted.params | repeat(pick(state["warp"], 0), 3), 1), pick(adapted.stats, 1))
    assert own["net.blocks.0.norm.num_batches_tracked"] == 3
    torch.testing.assert_close(own["net.warp.weight"], pick(state["warp"], 0)["warp.net.warp.weight"])


def test_parts_whose_names_have_a_meaning_for_learners_are_learnt():
    """And two parts that would have one name are an error."""
    net = nn.ModuleDict({"rate": nn.Linear(2, 2), "task_only": nn.Linear(2, 2), "embedding": nn.Linear(2, 2)})
    assert list(lift(net).init(torch.Generator()))[::2] == [
        "task.rate.weight",
        "task.task_only.weight",
        "task.embedding.weight",
    ]
    net["task"] = nn.ModuleDict({"embedding": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="embedding.weight and task.embedding.weight would both be called task.emb"):
        lift(net)


def test_a_warp_that_is_not_chosen_is_an_error_and_an_embedding_is_learnt():
    net = made()
    with pytest.raises(ValueError, match="blocks.0.warp.weight.*: the name says warp, but it is not chosen as one"):
        lift(net)  # there is a warp at the top
    with pytest.raises(ValueError, match="blocks.1.warp.weight, blocks.1.warp.bias: the name says warp"):
        lift(net, warp=["warp", net.blocks[0]["warp"]])
    with pytest.raises(ValueError, match="the name says warp"):
        lift(nn.Sequential(nn.ModuleDict({"warp": nn.Linear(2, 2)})))
    model, tasks = lift(net, warp="*.warp.*"), tasks_of(draws=10)
    state = one_step(warp_leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3), model, tasks)
    assert not torch.equal(state["params"]["task.embedding.weight"][0], net.embedding.weight)


INNER, OUTER = optim.sgd(0.1), optim.adam(0.1)
LEARNERS = {
    "leap": lambda problem: leap(problem, INNER, OUTER, 3),
    "reptile": lambda problem: reptile(problem, INNER, OUTER, 3),
    "maml": lambda problem: maml(problem, INNER, OUTER, 3),
    "finetune": lambda problem: finetune(problem, INNER, 3, n_tasks=3),
    "warp_leap": lambda problem: warp_leap(problem, INNER, OUTER, 3),
    "warp_leap_online": lambda problem: warp_leap_online(problem, INNER, OUTER, OUTER, 3),
    "warp_maml": lambda problem: warp_maml(problem, INNER, OUTER, OUTER, 3),
}


@pytest.mark.parametrize("build", LEARNERS)
def test_what_belongs_to_the_task_alone_moves_in_tasks_and_is_not_learnt(build):
    net, tasks = made(), tasks_of(draws=10)
    model = lift(net, warp="*.warp.*" if build.startswith("warp") else (), task_only="head")
    problem = supervised(model)
    learner = LEARNERS[build](problem)
    start, _ = learner.start(one_step(learner, model, tasks), tasks)
    name = "task_only.head.weight"
    assert all(torch.equal(row, net.head.weight) for row in start[name])
    assert not torch.equal(start["blocks.0.body.weight"][0], net.blocks[0]["body"].weight)
    state = one_step(learner, model, tasks)
    adapted = adapt(problem, optim.sgd(0.1), *learner.start(state, tasks), tasks, 3)
    assert not torch.equal(adapted.params[name][0], adapted.params[name][1])
    assert "task_only" in str(model.groups()) and "head.weight, head.bias" in str(model.groups())


def test_an_unused_parameter_is_named():
    net = made()
    net.extra = nn.Linear(2, 2)
    model = lift(net.double(), warp=())
    with pytest.raises(ValueError, match="the loss does not depend on extra.weight, extra.bias; needed"):
        one_step(leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3), model, tasks_of())


# Modes and randomness


def test_batch_norm_in_eval_keeps_its_averages_and_modes_come_back():
    net = made()
    norm = net.blocks[0]["norm"]
    norm.eval()
    with torch.no_grad():
        norm.running_mean.fill_(0.5)
    model, tasks = lift(net, warp=()), tasks_of()
    start = repeat(model.init(torch.Generator()), 3)
    adapted = adapt(supervised(model), optim.sgd(0.1), start, {}, tasks, 3)
    assert adapted.stats["blocks.0.norm.num_batches_tracked"].tolist() == [0] * 3
    assert adapted.stats["blocks.0.norm.running_mean"].unique().tolist() == [0.5]
    assert adapted.stats["blocks.1.norm.num_batches_tracked"].tolist() == [3] * 3
    assert net.training and not norm.training and net.blocks[1]["norm"].training
    expected = copy.deepcopy(net)
    outputs, _ = model.apply(start, {n: b.repeat(3, *[1] * b.dim()) for n, b in model.stats().items()}, tasks.x, True)
    torch.testing.assert_close(outputs[1], expected(tasks.x[1]), rtol=1e-10, atol=1e-12)
    everything = lift(net, warp=(), keep_modes=False)
    adapted = adapt(supervised(everything), optim.sgd(0.1), start, {}, tasks, 3)
    assert adapted.stats["blocks.0.norm.num_batches_tracked"].tolist() == [3] * 3


def with_dropout():
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))


def test_dropout_draws_from_the_streams_of_the_step():
    net, tasks = made(with_dropout), tasks_of()
    model = lift(net)
    learner = leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3)
    start, found = learner.init(alone(model.init(torch.Generator()))), []
    for seed, noise in ((0, 0), (0, 1), (1, 0)):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        found.append(learner.step(start, tasks, [generator(seed, "learner")])[0]["params"]["0.weight"])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1]) and not torch.allclose(found[0], found[2])
    stream = generator(0, "learner")
    first, second = (learner.step(start, tasks, [stream])[0]["params"]["0.weight"] for _ in range(2))
    assert torch.equal(first, found[0]) and not torch.allclose(first, second)


@pytest.mark.parametrize("build", [leap, warp_leap])
def test_a_run_of_a_stack_with_dropout_draws_what_it_draws_alone(build):
    net, each = made(with_dropout), [tasks_of(), tasks_of()]
    each[1].x.neg_()
    model = lift(net, warp="2" if build is warp_leap else ())
    learner = build(supervised(model), optim.sgd(0.1), optim.adam(0.1), 3, size=2)
    first = model.init(torch.Generator())

    def trained(tasks, streams):
        state, info = learner.init(repeat(first, len(streams))), {}
        for _ in range(2):
            state, info = learner.step(state, tasks, streams)
        return state, info

    streams = [generator(seed, "learner") for seed in range(2)]
    state, info = trained(join_tasks(each), streams)
    for run in range(2):
        stream = generator(run, "learner")
        alone_state, alone_info = trained(each[run], [stream])
        torch.testing.assert_close(pick(state, run), pick(alone_state, 0), rtol=0, atol=0)
        torch.testing.assert_close(info["loss"].view(2, 3, 3)[run], alone_info["loss"], rtol=0, atol=0)
        assert torch.equal(stream.get_state(), streams[run].get_state())


def test_a_killed_run_with_dropout_ends_as_an_uninterrupted_one(tmp_path):
    model = lift(made(with_dropout))
    learner = leap(supervised(model), optim.sgd(0.1), optim.adam(0.1), 3)

    def run(name):
        how = Fit(4, checkpoints=tmp_path / name, checkpoint_every=1)
        start = alone(model.init(torch.Generator()))
        return fit(learner, start, lambda k, i: tasks_of(), how, [Member(0, "run", {})])[0].state["params"]

    torch.manual_seed(0)
    whole = run("whole")
    with dies_after(2):
        run("killed")
    torch.manual_seed(1)
    torch.testing.assert_close(run("killed"), whole, rtol=0, atol=0)


def test_without_dropout_the_stream_of_a_step_is_left_to_what_draws_from_it():
    net, stream = made(), generator(0, "learner")
    model = lift(net, warp=())
    before = stream.get_state()
    learner = leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3)
    learner.step(learner.init(alone(model.init(stream))), tasks_of(), [stream])
    assert torch.equal(stream.get_state(), before)


# Losses


def test_ignored_labels_count_for_nothing():
    stream = torch.Generator().manual_seed(0)
    outputs, y = torch.randn(2, 6, 3, generator=stream, dtype=DOUBLE), torch.arange(12).view(2, 6) % 3
    y[0, 1:] = -100
    loss, accuracy = cross_entropy(outputs, y)
    for t in range(2):
        torch.testing.assert_close(loss[t], F.cross_entropy(outputs[t], y[t]))
        counted = y[t] != -100
        assert accuracy[t] == (outputs[t].argmax(-1) == y[t])[counted].double().mean()
    pixels, labels = torch.randn(2, 4, 3, 5, 5, generator=stream), torch.randint(3, (2, 4, 5, 5), generator=stream)
    torch.testing.assert_close(cross_entropy(pixels, labels)[0][1], F.cross_entropy(pixels[1], labels[1]))


def test_targets_of_another_shape_are_refused():
    outputs, y = torch.zeros(2, 5, 1), torch.zeros(2, 5)
    with pytest.raises(ValueError, match=r"the outputs have shape \[2, 5, 1\] and the targets \[2, 5\]"):
        mean_square(outputs, y)
    with pytest.raises(ValueError, match=r"a task's outputs have shape \[5, 1\] and its targets \[5\]"):
        each_task(F.mse_loss)(outputs, y)
    with pytest.raises(ValueError, match=r"outputs have shape \[2, 5, 3\] and the labels \[2, 4\]"):
        cross_entropy(torch.zeros(2, 5, 3), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"the loss of one task has shape \[5, 1\]; needed one number"):
        each_task(lambda out, y: out)(outputs, y)


def smoothed(outputs, y):
    """A user's loss for one task, with its accuracy."""
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=outputs.dtype)
    return F.cross_entropy(outputs, y, weight, label_smoothing=0.1), (outputs.argmax(-1) == y).float().mean()


def test_a_loss_written_for_one_task_is_taken():
    net, tasks = made(), tasks_of(n_tasks=1)
    model = lift(net, warp=())
    problem = supervised(model, smoothed)
    adapted = adapt(problem, optim.sgd(0.1), alone(model.init(torch.Generator())), {}, tasks, 3)
    plain = made()
    rates = torch.optim.SGD(plain.parameters(), 0.1)
    for k in range(3):
        rows = tasks.order[0, k]
        loss, _ = smoothed(plain(tasks.x[0, rows]), tasks.y[0, rows])
        assert adapted.loss[0, k].item() == pytest.approx(loss.item(), rel=1e-6)
        rates.zero_grad()
        loss.backward()
        rates.step()
    torch.testing.assert_close(adapted.params["head.weight"][0], plain.head.weight.detach(), rtol=1e-10, atol=1e-12)


# Modules that cannot be vectorised


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.warp, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.warp(self.cell(x[:, None].expand(-1, 3, -1))[0][:, -1])
        return self.head(h * 2 if h.abs().max().item() > 1e9 else h)


def test_a_module_that_cannot_be_vectorised_runs_in_a_loop_with_one_warning():
    model, tasks = lift(made(Recurrent)), tasks_of(draws=13)
    learner = warp_leap_online(supervised(model), optim.sgd(0.1), optim.sgd(0.1), optim.sgd(0.1), 4)
    with pytest.warns(UserWarning, match="Recurrent cannot take a stack of tasks at once.*lstm") as told:
        state = one_step(learner, model, tasks)
    assert len(told) == 1
    again = lift(made(Recurrent))
    alone_at_a_time = warp_leap_online(supervised(again), optim.sgd(0.1), optim.sgd(0.1), optim.sgd(0.1), 4, size=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = one_step(alone_at_a_time, again, tasks)
    torch.testing.assert_close(state, other, rtol=1e-10, atol=1e-12)


def test_what_is_wrong_with_a_module_itself_is_said_as_it_is():
    model = lift(nn.Linear(3, 3).double())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        one_step(leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3), model, tasks_of())


class Twice(nn.Module):
    """A module with a layer that has two names, a parameter of one number, and a buffer that every call replaces."""

    def __init__(self):
        super().__init__()
        self.first, self.head, self.scale = nn.Linear(4, 4), nn.Linear(4, 3), nn.Parameter(torch.tensor(0.7))
        self.body = nn.ModuleList([self.first, self.first])
        self.register_buffer("calls", torch.tensor(1.0))

    def forward(self, x):
        self.calls = self.calls + 1
        for part in self.body:
            x = torch.tanh(part(x)) * self.calls.log()
        return self.head(self.scale * x)


@pytest.mark.parametrize("size", [3, 1])
def test_a_module_with_two_names_is_adapted_as_in_a_loop_and_stays_whole(size):
    net, tasks = made(Twice), tasks_of()
    before, model = copy.deepcopy(net.state_dict()), lift(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = adapt(supervised(model), optim.sgd(0.1), repeat(model.init(torch.Generator()), 3), {}, tasks, 3)
        state = one_step(leap(supervised(model), optim.sgd(0.1), optim.sgd(1.0), 3, size=size), model, tasks)
    total = 0
    for t in range(3):
        own, path = copy.deepcopy(net), []
        inner = torch.optim.SGD(own.parameters(), 0.1)
        for k in range(4):
            inner.zero_grad()
            rows = tasks.order[t, k]
            loss = F.cross_entropy(own(tasks.x[t, rows]), tasks.y[t, rows])
            loss.backward()
            here = ([leaf.detach() for leaf in own.parameters()], [leaf.grad for leaf in own.parameters()])
            path.append([*(torch.cat([leaf.flatten() for leaf in each]) for each in here), loss.detach()])
            if k < 3:
                calls = own.calls
                inner.step()
        for (a, grad, f), (b, _, g) in pairwise(path):
            total = total - (b - a - (g - f).abs() * grad) / ((b - a).square().sum() + (g - f).square()).sqrt() / 3
        for name, leaf in own.named_parameters():
            torch.testing.assert_close(adapted.params[name][t], leaf.detach(), rtol=1e-10, atol=1e-12)
        assert adapted.stats["calls"][t] == calls == 4
    moved = torch.cat([(leaf.detach() - state["params"][name][0]).flatten() for name, leaf in net.named_parameters()])
    torch.testing.assert_close(moved, total, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


class Padded(nn.Module):
    """An embedding with a row for padding, whose gradient is 0; and hooks on gradients, inside and around."""

    def __init__(self, what):
        super().__init__()
        self.words, self.head = nn.Embedding(3, 4, padding_idx=1 if what == "padding" else None), nn.Linear(4, 3)
        self.what = what
        if what == "module hook":
            self.head.register_full_backward_hook(lambda module, inputs, outputs: (0.5 * inputs[0],))

    def forward(self, x):
        h = self.words((x > 0).long() + (x > 1).long()).mean(1)
        if self.what == "hook" and h.requires_grad:
            h.register_hook(lambda grad: 0.5 * grad)
        return self.head(h)


@pytest.mark.parametrize("what", ["padding", "hook", "module hook"])
def test_what_is_wrong_under_vmap_without_a_word_runs_in_a_loop(what):
    model, tasks = lift(made(lambda: Padded(what))), tasks_of()
    start = model.init(torch.Generator())
    with pytest.warns(UserWarning, match="Padded cannot take a stack .* under vmap") as told:
        adapted = adapt(supervised(model), optim.sgd(0.1), repeat(start, 3), {}, tasks, 3)
    assert len(told) == 1
    for t in range(3):
        net = made(lambda: Padded(what))
        inner = torch.optim.SGD(net.parameters(), 0.1)
        for k in range(3):
            inner.zero_grad()
            rows = tasks.order[t, k]
            F.cross_entropy(net(tasks.x[t, rows]), tasks.y[t, rows]).backward()
            inner.step()
        for name, leaf in net.named_parameters():
            torch.testing.assert_close(adapted.params[name][t], leaf.detach(), rtol=1e-10, atol=1e-12)


class Carries(nn.Linear):
    """Keeps its last outputs as an attribute, and computes with them."""

    last = 0

    def forward(self, x):
        self.last = super().forward(x) + self.last
        return self.last


def test_an_attribute_of_the_module_is_as_it_was_after_every_call():
    """Else a tensor of vmap would stay there."""
    model, tasks = lift(made(lambda: Carries(4, 3))), tasks_of()
    plain = lift(made(lambda: nn.Linear(4, 3)))
    found = [
        adapt(supervised(m), optim.sgd(0.1), repeat(m.init(torch.Generator()), 3), {}, tasks, 3).params
        for m in (model, plain)
    ]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_a_transformer_in_eval_is_trained_through():
    def build():
        net = Attends()
        net.body.eval()
        return net

    model, tasks = lift(made(build), warp=()), tasks_of()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Attends cannot take")
        learner = leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 2)
        state = one_step(learner, model, tasks)
    again = lift(made(build), warp=())
    other = one_step(leap(supervised(again), optim.sgd(0.1), optim.sgd(0.1), 2, size=1), again, tasks)
    torch.testing.assert_close(state, other, rtol=1e-10, atol=1e-12)
    assert torch.backends.mha.get_fastpath_enabled()


class Shifts(nn.Linear):
    """Writes into its inputs, before something that vmap cannot do if `stops`."""

    stops = False

    def forward(self, x):
        x.sub_(1)
        return super().forward(x) + (x.sum().item() if self.stops else 0)


@pytest.mark.parametrize("stops", [False, True])
def test_a_module_that_writes_into_its_inputs_leaves_the_data_of_the_tasks(stops):
    net, tasks = made(lambda: Shifts(4, 3)), tasks_of()
    net.stops, before = stops, tasks.x_test.clone()
    model = lift(net)
    expected = [net(x.clone()).detach() for x in tasks.x_test]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            found, _ = model.apply(repeat(model.init(torch.Generator()), 3), {}, tasks.x_test, False)
            torch.testing.assert_close(found.detach(), torch.stack(expected), rtol=1e-12, atol=1e-12)
    assert torch.equal(tasks.x_test, before)


class Renormed(nn.Module):
    """An embedding that scales its rows in place when it is called."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(3, 4, max_norm=0.5), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.words((x > 0).long()).mean(1))


@pytest.mark.parametrize("n_tasks", [1, 3])
def test_a_module_that_writes_into_its_parameters_is_refused(n_tasks):
    """Tasks share the initialisation, which would move."""
    model = lift(made(Renormed))
    with pytest.raises(ValueError, match="words.weight: Renormed writes into its own parameters when it is called"):
        one_step(leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3), model, tasks_of(n_tasks))


class Checkpointed(nn.Linear):
    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3, dtype=torch.complex128))


@pytest.mark.parametrize("n_tasks", [1, 3])
def test_a_checkpointed_part_is_refused_in_stacks(n_tasks):
    """It would be computed again with the module's own parameters, without a message."""
    model = lift(Checkpointed(4, 3).double())
    with pytest.raises(
        RuntimeError, match="a part of Checkpointed is checkpointed .* would be computed again with other"
    ):
        one_step(leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3), model, tasks_of(n_tasks))


@pytest.mark.parametrize("n_tasks", [1, 3])
def test_a_reentrant_checkpoint_is_refused_in_stacks(n_tasks):
    class Hidden(nn.Sequential):
        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self[1], self[0](x), use_reentrant=True)

    model = lift(Hidden(nn.Linear(4, 4), nn.Linear(4, 3)).double())
    with pytest.raises(RuntimeError, match="checkpointed with use_reentrant=True, which hides .* and none in lift"):
        one_step(leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3), model, tasks_of(n_tasks))


def test_what_no_stack_can_hold_is_told_at_once():
    hooked = nn.Linear(4, 3)
    hooked.weight.register_hook(lambda grad: 0.5 * grad)
    with pytest.raises(ValueError, match="weight: with a hook on its gradient, which no stack runs. A front"):
        lift(hooked)
    with pytest.raises(ValueError, match="weight: complex; learners take real numbers. A front"):
        lift(Complex())
    with pytest.raises(ValueError, match="0: sparse=True; needed sparse=False in lift"):
        lift(nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Linear(4, 3)))


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.warp, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.warp(self.body(x[:, None].expand(-1, 3, -1))).mean(1))


def test_attention_has_a_second_derivative_in_the_exact_objective():
    model, tasks = lift(made(Attends)), tasks_of(draws=4, n_tasks=1)
    learner = warp_leap_online(supervised(model), optim.sgd(0.1), optim.sgd(0.1), optim.sgd(1.0), 1)
    state = one_step(learner, model, tasks)
    params, step = model.init(torch.Generator()), 1e-4
    direction = {n: torch.randn_like(p, generator=None) for n, p in params.items() if n.startswith("warp")}

    def objective(shift):
        moved = {n: p + shift * direction.get(n, torch.zeros(())) for n, p in params.items()}
        theta = {n: p.requires_grad_() for n, p in moved.items() if not n.startswith("warp")}
        loss = lambda p, k: F.cross_entropy(  # noqa: E731
            torch.func.functional_call(made(Attends), p, (tasks.x[0, tasks.order[0, k]],)),
            tasks.y[0, tasks.order[0, k]],
        )
        grads = torch.autograd.grad(loss(moved, 2), list(theta.values()))
        stepped = {n: p - 0.1 * g for (n, p), g in zip(theta.items(), grads, strict=True)}
        return loss(moved | stepped, 3).item()

    slope = (objective(step) - objective(-step)) / (2 * step)
    ours = sum(((params[n] - state["warp"][n][0]) * d).sum().item() for n, d in direction.items())
    assert ours == pytest.approx(slope, rel=1e-5)


# Data, and errors that come at once


class Pictures(torch.utils.data.Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"image": torch.full((4,), float(100 * self.n + i)), "label": i % 3}


def test_data_sets_of_different_sizes_become_tasks_and_their_filling_is_never_drawn():
    sizes = (3, 7, 5)
    tasks = stack_tasks(
        [Pictures(n) for n in sizes], 200, 4, torch.Generator().manual_seed(0), item=lambda i: (i["image"], i["label"])
    )
    assert tasks.x.shape == (3, 7, 4) and tasks.order.shape == (3, 200, 4)
    for t, n in enumerate(sizes):
        assert set(tasks.order[t].flatten().tolist()) == set(range(n))
        assert tasks.x[t, :n, 0].tolist() == [100 * n + i for i in range(n)]
        assert (tasks.y_test[t, n:] == -100).all() and (tasks.y_test[t, :n] >= 0).all()
    loss, accuracy = cross_entropy(F.one_hot(tasks.y_test.clamp(min=0), 3).double(), tasks.y_test)
    assert accuracy.tolist() == [1.0] * 3 and torch.allclose(loss[0], loss[1])


def counted(outputs, y):
    """A loss in which -100 is a target like others."""
    return F.poisson_nll_loss(outputs[:, 0], y)


@pytest.mark.parametrize("loss", [cross_entropy, counted])
@pytest.mark.parametrize("build", ["maml", "warp_maml"])
def test_held_out_data_of_different_sizes_gives_what_each_task_gives_alone(build, loss):
    """Padding would enter the statistics of batch norm, and be a target of most losses."""
    model = lift(made(), warp="*.warp.*" if build == "warp_maml" else ())
    problem, one = supervised(model, loss), optim.sgd(1.0)
    more = (one,) if build == "warp_maml" else ()
    learner = {"maml": maml, "warp_maml": warp_maml}[build](problem, optim.sgd(0.1), one, *more, 2)
    data = [(x, y) for x, y in zip(tasks_of().x, tasks_of().y, strict=True)]
    held_out = [(x[:n], y[:n]) for n, (x, y) in zip((20, 5, 9), data, strict=True)]
    tasks = stack_tasks(data, 2, 5, torch.Generator().manual_seed(0), held_out)
    assert tasks.n_test is not None and tasks.n_test.tolist() == [20, 5, 9]
    start = learner.init(alone(model.init(torch.Generator())))

    def moved(tasks):
        state, _ = learner.step(start, tasks, [torch.Generator()])
        return {
            name: leaf - start[g][name] for g in ("params", "warp") if g in start for name, leaf in state[g].items()
        }

    whole, each = moved(tasks), []
    for i, (x, y) in enumerate(held_out):
        own = Task(*(part[i : i + 1] for part in tasks[:4]), x[None], y[None])
        each.append(moved(own))
    for name, leaf in whole.items():
        total = sum(part[name] for part in each) / (1 if name.startswith("warp") else 3)  # warps sum over tasks
        torch.testing.assert_close(leaf, total, rtol=1e-9, atol=1e-12)


def test_padding_is_left_out_of_what_is_measured_on_held_out_data():
    own = lambda outputs, y: (counted(outputs, y), (outputs.argmax(1) == y).double().mean())  # noqa: E731
    norm = lambda: nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))  # noqa: E731
    model, one = lift(made(norm)), tasks_of()
    problem, sizes = supervised(model, own), (20, 5, 9)
    data = [(x[:n], y[:n]) for n, x, y in zip(sizes, one.x, one.y, strict=True)]
    tasks, start = stack_tasks(data, 2, 5, torch.Generator()), repeat(model.init(torch.Generator()), 3)
    whole = problem.evaluate(start, {}, held_out_batch(tasks))
    first = {name: leaf[:1] for name, leaf in start.items()}
    each = [problem.evaluate(first, {}, Batch(x[None], y[None])) for x, y in data]
    torch.testing.assert_close(whole.loss, torch.cat([part.loss for part in each]), rtol=1e-12, atol=1e-12)
    assert whole.accuracy.tolist() == [part.accuracy.item() for part in each]


def test_regression_on_tasks_of_different_sizes_is_measured_on_the_rows_of_each():
    model, rng = lift(nn.Linear(1, 1)), torch.Generator().manual_seed(0)
    data = [(x, 2 * x) for x in (torch.rand(n, 1, generator=rng) for n in (12, 30, 5))]
    problem, tasks = supervised(model, mean_square), stack_tasks(data, 3, 10, rng)
    whole = problem.evaluate(repeat(model.init(rng), 3), {}, held_out_batch(tasks))
    net = nn.Linear(1, 1)
    net.load_state_dict(model.state_dict(model.init(rng)))
    torch.testing.assert_close(whole.loss, torch.stack([0.5 * (net(x) - y).square().mean() for x, y in data]))


def test_runs_with_and_without_padding_are_joined():
    with_it, without = (stack_tasks([pair(7), pair(n)], 2, 4, torch.Generator()) for n in (3, 7))
    assert without.n_test is None
    for joined, expected in (((with_it, without), [7, 3, 7, 7]), ((without, with_it), [7, 7, 7, 3])):
        assert join_tasks(joined).n_test.tolist() == expected


def test_runs_whose_largest_tasks_differ_are_joined_as_if_they_were_stacked_together():
    rng = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    data = [({"a": torch.rand(n, 2, generator=rng())}, torch.arange(n) % 3) for n in (5, 3, 9, 7)]
    held_out = [data[i] for i in (1, 0, 3, 2)]
    joined = join_tasks([stack_tasks(data[i : i + 2], 2, 4, rng(), held_out[i : i + 2]) for i in (0, 2)])
    whole = stack_tasks(data, 2, 4, rng(), held_out)
    for name in ("y", "y_test", "n_test"):
        assert torch.equal(getattr(joined, name), getattr(whole, name)), name
    assert torch.equal(joined.x["a"], whole.x["a"]) and torch.equal(joined.x_test["a"], whole.x_test["a"])
    numbers = [stack_tasks([(torch.rand(n, 1), torch.rand(n, 1))], 2, 4, rng()) for n in (4, 6)]
    joined = join_tasks(numbers)
    assert joined.y_test[0, 4:].tolist() == [[0], [0]] and joined.n_test.tolist() == [4, 6]


def test_constants_that_differ_between_the_modules_of_a_function_are_told():
    def build():
        net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        net[0].requires_grad_(False)
        net.register_buffer("noise", torch.rand(2))
        return net

    model = lift(build)
    with pytest.warns(UserWarning, match="0.weight, 0.bias, noise: constants or buffers that differ between"):
        model.init(torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lift(lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))).init(torch.Generator().manual_seed(1))


def test_making_modules_leaves_the_seed_that_cuda_begins_with(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    seeds = []  # of which PyTorch takes the last one when CUDA begins
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    for seed in (1, 2):
        torch.manual_seed(seed)
        lift(lambda: nn.Linear(2, 1)).init(torch.Generator())
        assert len(set(seeds)) > 1 and seeds[-1] == seed


def test_a_task_has_its_number_among_the_training_tasks():
    assert stack_tasks([pair(5)] * 3, 2, 4, torch.Generator()).index.tolist() == [0, 1, 2]
    for index in ([7, 0, 2], torch.tensor([7, 0, 2])):
        assert stack_tasks([pair(5)] * 3, 2, 4, torch.Generator(), index=index).index.tolist() == [7, 0, 2]


class Words(nn.Module):
    """A module that takes a dictionary of tokens with a nested one of weights, or the same in one tensor."""

    def __init__(self):
        super().__init__()
        self.words, self.body, self.warp = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, item):
        if isinstance(item, torch.Tensor):
            item = {"tokens": item[:, :5].long(), "more": {"weight": item[:, 5:]}}
        h = torch.tanh(self.body(self.words(item["tokens"]).mean(1) * item["more"]["weight"]))
        return self.head(torch.tanh(self.warp(h)))


def texts(sizes=(10, 14, 12)):
    stream = torch.Generator().manual_seed(0)
    found = []
    for n in sizes:
        tokens = torch.randint(7, (n, 5), generator=stream)
        weight = torch.rand(n, 1, generator=stream, dtype=DOUBLE)
        found.append(({"tokens": tokens, "more": {"weight": weight}}, tokens[:, 0] % 3))
    return found


def test_dictionaries_as_inputs_give_what_the_same_in_one_tensor_gives():
    found, model = [], lift(made(Words), warp="warp")
    for packed in (False, True):
        data = [
            (torch.cat([x["tokens"].double(), x["more"]["weight"]], 1), y) if packed else (x, y) for x, y in texts()
        ]
        tasks = stack_tasks(data, 13, 4, torch.Generator().manual_seed(1))
        learner = warp_leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 4, size=2)
        state, info = learner.step(learner.init(alone(model.init(torch.Generator()))), tasks, [generator(0)])
        held_out = evaluate(learner, state, supervised(model), optim.sgd(0.1), tasks, 4, 2, 2)
        found.append([state["params"], state["warp"], info["loss"], held_out.loss_curve, held_out.accuracy])
        two = join_tasks([tasks, tasks])
        assert packed or two.x["more"]["weight"].shape == (6, 14, 1)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_any_iterable_of_tasks_is_taken():
    data = texts((4, 6))
    found = [
        stack_tasks(kind(data), 3, 2, torch.Generator().manual_seed(0), kind(data)) for kind in (list, tuple, iter)
    ]
    assert all(torch.equal(a.order, b.order) and torch.equal(a.y_test, b.y_test) for a, b in pairwise(found))


def test_items_of_dictionaries_are_stacked_by_their_keys():
    item = lambda item: ({"picture": item["image"], "number": item["label"]}, item["label"])  # noqa: E731
    tasks = stack_tasks([Pictures(3), Pictures(5)], 2, 4, torch.Generator(), item=item)
    assert tasks.x["picture"][1, :, 0].tolist() == [500, 501, 502, 503, 504]
    assert tasks.x["number"].tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 0, 1]]


def pair(n, m=None, width=4):
    return torch.zeros(n, width), torch.zeros(m or n, dtype=torch.long)


WRONG_DATA = {
    "lengths": (lambda: [pair(5), pair(5, 4)], {}, "task 1 has 5 inputs and 4 targets; needed as many of both"),
    "held out": (
        lambda: [pair(5)] * 3,
        {"held_out": [pair(5)] * 2},
        "2 held-out sets for 3 tasks; needed one for each",
    ),
    "none": (list, {}, "0 tasks, 4 draws, batches of 2; needed at least 1 of each"),
    "widths": (lambda: [pair(5), pair(5, width=3)], {}, r"the tasks' inputs have shapes \[\(3,\), \(4,\)\]"),
    "items": (lambda: [Pictures(3)], {}, "task 0: found dict; needed tensors .x, y., or a data set of such pairs"),
    "a loader": (
        lambda: [torch.utils.data.DataLoader(Pictures(3))],
        {},
        "task 0: found DataLoader; needed tensors .x, y., or a data set with len and items",
    ),
    "keys": (
        lambda: [({"a": torch.zeros(3)}, torch.zeros(3)), ({"b": torch.zeros(3)}, torch.zeros(3))],
        {},
        r"the tasks' inputs are \['a'\] and \['b'\]; a stack needs tensors everywhere, or dictionaries with the same",
    ),
    "no tensors": (
        lambda: [({"a": torch.zeros(3), "b": ["x"] * 3}, torch.zeros(3))],
        {},
        r"the tasks' inputs\['b'\] are list; a stack needs tensors everywhere",
    ),
    "rows of one key": (
        lambda: [({"a": torch.zeros(3), "b": torch.zeros(4)}, torch.zeros(3))],
        {},
        "task 0 has 3 and 4 inputs and 3 targets; needed as many of both",
    ),
    "one pair": (
        lambda: torch.utils.data.TensorDataset(*pair(5)),
        {},
        r"task 0: found a single example; needed tensors .x, y. with a row for each.*list of one task: \[data\]",
    ),
    "too few numbers": (
        lambda: [pair(5)] * 3,
        {"index": [0, 1]},
        r"the index is \[0, 1\]; needed .* each of the 3 tasks",
    ),
    "a negative number": (lambda: [pair(5)], {"index": [-1]}, r"the index is \[-1\]; needed a whole number"),
    "half a number": (lambda: [pair(5)], {"index": torch.tensor([0.5])}, r"the index is tensor\(\[0.5000\]\); needed"),
    "one number": (lambda: [pair(5)], {"index": 3}, "the index is 3; needed a whole number for each of the 1 tasks"),
}


@pytest.mark.parametrize("name", WRONG_DATA)
def test_wrong_data_is_told_at_once(name):
    data, options, message = WRONG_DATA[name]
    with pytest.raises(ValueError, match=message) as error:
        stack_tasks(data(), 4, 2, torch.Generator(), **options)
    assert "\n" not in str(error.value)


def test_too_few_draws_for_a_learner_are_told_at_once():
    model = lift(made(), warp=())
    tasks = tasks_of(draws=5)  # enough for adapt
    learner = warp_leap(supervised(lift(made(), warp="*.warp.*")), optim.sgd(0.1), optim.sgd(0.1), 5)
    state = learner.init(alone(lift(made(), warp="*.warp.*").init(torch.Generator())))
    with pytest.raises(
        ValueError, match="a step of this learner needs 16 mini-batches of every task; the tasks have 5"
    ):
        learner.step(state, tasks, [torch.Generator()])
    assert (
        adapt(supervised(model), optim.sgd(0.1), repeat(model.init(torch.Generator()), 3), {}, tasks, 5).steps[0] == 5
    )


def test_a_loss_that_is_not_finite_ends_the_step():
    model, tasks = lift(made(), warp=()), tasks_of()
    tasks.x[1] = torch.nan
    learner = leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3)
    state = learner.init(alone(model.init(torch.Generator())))
    with pytest.raises(FloatingPointError, match="the training loss of task 1 is nan at step 0. Needed finite losses"):
        learner.step(state, tasks, [torch.Generator()])
    two = learner.init(repeat(model.init(torch.Generator()), 2))
    both = Task(*(torch.cat([part, part.nan_to_num()]) for part in tasks[:6]))
    after, _ = learner.step(two, both, [torch.Generator()] * 2)  # the other run continues
    assert after["params"]["head.weight"][0].isnan().any() and after["params"]["head.weight"][1].isfinite().all()


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


def adapted_from(model, problem, tasks, rows):
    return adapt(problem, optim.sgd(0.1), repeat(model.init(torch.Generator()), rows), {}, tasks, 3)


def learner_of(problem, **options):
    return leap(**({"problem": problem, "inner": optim.sgd(0.1), "outer": optim.sgd(0.1), "steps": 3} | options))


def flat(model):
    return {name: leaf.flatten()[:3] for name, leaf in model.init(torch.Generator()).items()}


def step_of(model, tasks, state=None, generators=None):
    learner = learner_of(supervised(model))
    state = learner.init(alone(model.init(torch.Generator()))) if state is None else state
    return learner.step(state, tasks, [torch.Generator()] if generators is None else generators)


WRONG_USE = {
    "a lifted module": (
        lambda model, tasks: learner_of(model),
        r"problem is Lifted; needed leapwarp.supervised\(leapwarp.lift\(module\), loss\)",
    ),
    "a module": (lambda model, tasks: learner_of(made()), "problem is Deep; needed leapwarp.supervised"),
    "a lifted module in maml": (
        lambda model, tasks: maml(model, optim.sgd(0.1), optim.sgd(0.1), 3),
        "problem is Lifted; needed",
    ),
    "a lifted module to adapt": (
        lambda model, tasks: adapted_from(model, model, tasks, 3),
        "problem is Lifted; needed leapwarp.supervised",
    ),
    "a lifted module to evaluate": (
        lambda model, tasks: evaluate(learner_of(supervised(model)), {}, model, optim.sgd(0.1), tasks, 3, 1, 1),
        "problem is Lifted; needed leapwarp.supervised",
    ),
    "a problem for a model": (
        lambda model, tasks: supervised(supervised(model)),
        "the model is Problem; needed leapwarp.lift",
    ),
    "a loss for a model": (
        lambda model, tasks: supervised(mean_square, model),
        "the model is the function mean_square",
    ),
    "a problem for a module": (lambda model, tasks: lift(supervised(model)), "the module is Problem; needed a torch"),
    "a class of optimizers": (
        lambda model, tasks: learner_of(supervised(model), inner=torch.optim.SGD),
        r"inner is the class SGD; needed one of leapwarp.optim, such as leapwarp.optim.sgd\(0.1\)",
    ),
    "a function of optimizers": (
        lambda model, tasks: learner_of(supervised(model), outer=optim.adam),
        "outer is the function adam; needed one of leapwarp.optim",
    ),
    "a rate": (lambda model, tasks: learner_of(supervised(model), outer=0.1), "outer is float; needed one of leapwarp"),
    "half a step": (lambda model, tasks: learner_of(supervised(model), steps=2.5), "steps is float; needed a whole"),
    "parameters in a generator": (
        lambda model, tasks: learner_of(supervised(model)).init(made().parameters()),
        r"the parameters are generator; needed a dictionary of stacks .* leapwarp.trees.alone\(model.init",
    ),
    "parameters of one run without its axis": (
        lambda model, tasks: step_of(model, tasks, learner_of(supervised(model)).init(model.init(torch.Generator()))),
        r"1 generators, and a state of 4 runs; .* learner.init\(leapwarp.trees.alone\(model.init\(generator\)\)\)",
    ),
    "parameters of one task": (
        lambda model, tasks: adapt(supervised(model), optim.sgd(0.1), flat(model), {}, tasks, 3),
        r"weight has shape \[3\]; needed a stack of \[4, 4\] with a row for each task or run, such as leapwarp.trees",
    ),
    "a pair for parameters": (
        lambda model, tasks: adapt(supervised(model), optim.sgd(0.1), ({}, {}), {}, tasks, 3),  # pyright: ignore[reportArgumentType]
        "params is tuple; needed a dictionary of stacks of tensors, such as learner.start gives",
    ),
    "parameters for a state": (
        lambda model, tasks: step_of(model, tasks, alone(model.init(torch.Generator()))),
        r"the state is a dictionary without parameters in groups; needed that of learner.init\(params\)",
    ),
    "parameters for a start": (
        lambda model, tasks: learner_of(supervised(model)).start(alone(model.init(torch.Generator())), tasks),
        r"the state is a dictionary without parameters in groups; needed that of learner.init\(params\)",
    ),
    "a pair for tasks": (
        lambda model, tasks: step_of(model, (tasks.x, tasks.y)),
        "tasks are tuple and generators a list of 1; needed tasks of stack_tasks",
    ),
    "a pair for tasks to adapt": (
        lambda model, tasks: adapted_from(model, supervised(model), (tasks.x, tasks.y), 3),
        "tasks is tuple; needed tasks of leapwarp.stack_tasks",
    ),
    "a seed": (
        lambda model, tasks: step_of(model, tasks, generators=0),
        "tasks are Task and generators int; needed tasks",
    ),
    "more streams than runs": (
        lambda model, tasks: step_of(model, tasks, generators=[torch.Generator()] * 2),
        "2 generators, and a state of 1 runs; needed one for each run. The state of a single run is learner.init",
    ),
    "half a draw": (
        lambda model, tasks: stack_tasks([(torch.ones(3), torch.ones(3))], 2.5, 2, torch.Generator()),  # pyright: ignore[reportArgumentType]
        "draws are float, batch int and item NoneType; needed two whole numbers",
    ),
    "a key for an item": (
        lambda model, tasks: stack_tasks([Pictures(3)], 2, 2, torch.Generator(), item="image"),  # pyright: ignore[reportArgumentType]
        "draws are int, batch int and item str; needed two whole numbers .* and a function of an item or None",
    ),
    "no graph": (
        lambda model, tasks: adapted_from(
            cut := lift(nn.Sequential(nn.Linear(4, 3), Detached()).double()), supervised(cut), tasks, 3
        ),
        "the loss depends on no parameter that learns. Needed outputs that were computed from them",
    ),
    "a class for a loss": (
        lambda model, tasks: supervised(model, nn.CrossEntropyLoss),
        "the loss is the class CrossEntropyLoss; needed a function of outputs and targets",
    ),
    "a loss that is no tensor": (
        lambda model, tasks: adapted_from(model, supervised(model, lambda outputs, y: 1.0), tasks, 3),
        "the loss of one task is float; needed a tensor",
    ),
    "rows of other numbers": (
        lambda model, tasks: adapted_from(model, supervised(model), tasks, 2),
        r"the parameters have \[2\] rows; needed stacks with one row for each of the 3 tasks",
    ),
    "no stack of runs": (
        lambda model, tasks: fit(
            leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3),
            model.init(torch.Generator()),
            lambda k, i: tasks,
            Fit(1),
            [Member(0, "run", {})],
        ),
        r"the parameters have \[3, 4\] rows for 1 members; needed a stack with one row for each run",
    ),
    "a number for the draws": (
        lambda model, tasks: stack_tasks([(torch.ones(3), torch.ones(3))], 2, 2, 0),  # pyright: ignore[reportArgumentType]
        "the generator is int; needed a torch.Generator",
    ),
    "no streams": (
        lambda model, tasks: (
            (learner := leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3)),
            learner.step(learner.init(alone(model.init(torch.Generator()))), tasks, []),
        ),
        "generators a list of 0; needed tasks of stack_tasks, and a list of generators",
    ),
    "a module for a model": (
        lambda model, tasks: supervised(made()),
        "the model is Deep; needed leapwarp",
    ),
    "an optimizer of PyTorch": (
        lambda model, tasks: adapt(supervised(model), torch.optim.SGD(made().parameters()), {}, {}, tasks, 3),
        "optimizer is SGD; needed one of leapwarp.optim",
    ),
    "one generator": (
        lambda model, tasks: leap(supervised(model), optim.sgd(0.1), optim.sgd(0.1), 3).step({}, tasks, generator(0)),
        "tasks are Task and generators Generator; needed tasks of stack_tasks, and a list",
    ),
    "two outputs": (
        lambda model, tasks: one_step(
            leap(supervised(lift(Pair(4, 3).double())), optim.sgd(0.1), optim.sgd(0.1), 3),
            lift(Pair(4, 3).double()),
            tasks,
        ),
        "Pair gives tuple; needed a tensor, of which a loss is taken",
    ),
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_a_wrong_use_of_the_learners_is_told_in_one_line(name):
    wrong, message = WRONG_USE[name]
    with pytest.raises((TypeError, ValueError), match=message) as error:
        wrong(lift(made(), warp=()), tasks_of())
    assert "\n" not in str(error.value)


def test_a_state_of_several_tasks_is_no_state_of_a_module():
    model = lift(made(), warp=())
    with pytest.raises(ValueError, match=r"blocks.0.*has shape \[3, 4, 4\], the module's \[4, 4\]|has shape \[3"):
        model.state_dict(repeat(model.init(torch.Generator()), 3))
    with pytest.raises(TypeError, match="the parameters are generator; needed a dictionary such as"):
        model.state_dict(made().parameters())
    with pytest.raises(ValueError, match="the parameters differ in names from the module's"):
        model.state_dict({"odd": torch.zeros(1)})
