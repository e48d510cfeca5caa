"""The clock, and functions that a GPU replays as CUDA graphs (`leapwarp.host.captured`), tested on a CPU.

For graphs there are two substitutes for the GPU. `make_fx` records the operations of a function once, with every number
and tensor that is not an argument as a constant, as a graph does. The replayed record must give the result of the
function. The device `meta` has shapes but no values, so operations that would wait for the host or copy from it fail
there. The tests on a GPU are in `test_gpu.py`.
"""

import time
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from leapwarp import host, inner, provenance
from leapwarp.experiments import command
from leapwarp.experiments.base import Evaluated
from leapwarp.learners import finetune, leap, warp_leap
from leapwarp.learners.warpgrad import Rates
from leapwarp.models import twice
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import sgd
from leapwarp.problem import Batch, Task, supervised
from leapwarp.trees import map_leaves, stack
from leapwarp.worlds.alphabets import draw_batch

STEPS = 3

FILTERS, BATCH = 4, 6


def draw_in_float64(tasks, who, number):
    """Images without transforms, which are equal on every device to the last digit."""
    picked = tasks.order[who, number]
    return Batch(tasks.x[who[:, None], picked].double() / 255, tasks.y[who[:, None], picked])


def a_problem(warp=None, double=False):
    """The real draws of images and a small version of the real network. -> the problem, and its tasks, [run x task]"""
    model = convnet(FILTERS, 5, warp=warp)
    stream = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (4, 40, 28, 28), generator=stream, dtype=torch.uint8)
    labels = torch.arange(40).remainder(5).expand(4, 40)
    draws = 3 * STEPS + 1
    order = torch.randint(40, (4, draws, BATCH), generator=stream)
    affine = torch.eye(2, 3) + 0.1 * torch.randn(4, draws, BATCH, 2, 3, generator=stream)
    tasks = Task(torch.arange(4), pictures, labels, order, pictures[:, :10].float() / 255, labels[:, :10], affine)
    draw = draw_in_float64 if double else draw_batch(False)
    problem = supervised(model, draw=draw)._replace(capture=True)
    params = stack([model.init(torch.Generator().manual_seed(seed)) for seed in (1, 2)])
    return problem, map_leaves(torch.Tensor.double, params) if double else params, tasks


def one_step(name, device="cpu", double=False):
    build, warp = BUILT[name], Warp() if name.startswith("warp") else None
    problem, params, tasks = a_problem(warp, double)
    learner = build(problem, sgd(0.1), sgd(0.1), STEPS, 4)
    streams = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    tasks = Task(*(field.to(device) if isinstance(field, torch.Tensor) else field for field in tasks))
    state = map_leaves(lambda leaf: leaf.to(device), learner.init(params))
    for _ in range(2):
        state, info = learner.step(state, tasks, streams)
    return state, info


@pytest.fixture
def written_down(monkeypatch):
    """Replace graphs by records of operations on the CPU. -> the records that were captured"""
    count = []

    def record(function):
        count.append(1)
        listed = make_fx(lambda: tree_flatten(function())[0])()
        made = function()
        results, _ = tree_flatten(made)

        def replay():
            for result, value in zip(results, listed(), strict=True):
                result.copy_(value)

        return replay, made

    monkeypatch.setattr(host, "_record", record)
    monkeypatch.setattr(host, "_gpu_in_use", lambda: True)
    monkeypatch.setattr(
        host, "_can_be_captured", lambda leaves: not any(getattr(leaf, "requires_grad", False) for leaf in leaves)
    )
    inner._captured_gradient.cache_clear()
    yield count
    inner._captured_gradient.cache_clear()


BUILT = {
    "leap": leap,
    "finetune": lambda problem, inner, outer, steps, n: finetune(problem, inner, steps, n),
    "warp_leap_eta": partial(warp_leap, eta=4),  # six points of each run: four, and then two
    "warp_leap_rates": partial(warp_leap, rates=Rates(0.1, 0.5, outer_lr=0.1)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["leap", "finetune", "warp_leap_eta", pytest.param("warp_leap_rates", marks=pytest.mark.full)]
)
def test_a_meta_step_by_graphs_equals_one_without(name, written_down, monkeypatch):
    by_graphs = one_step(name)
    assert 0 < len(written_down) <= 8
    monkeypatch.undo()
    inner._captured_gradient.cache_clear()
    torch.testing.assert_close(by_graphs, one_step(name), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_a_meta_step_by_products_equals_one_by_grouped_convolutions(name, monkeypatch):
    theirs = one_step(name, double=True)
    monkeypatch.setattr(twice, "_as_products", lambda h: True)
    torch.testing.assert_close(one_step(name, double=True), theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", BUILT)
def test_what_is_captured_asks_the_host_for_nothing(name, monkeypatch):
    seen = []

    def shapes_alone(function, leaves, spec):
        away = [leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        made, _ = tree_flatten(function(*tree_unflatten(away, spec)))
        seen.append(all(leaf.device.type == "meta" for leaf in made))
        return lambda leaves: function(*tree_unflatten(leaves, spec))

    monkeypatch.setattr(host, "_capture", shapes_alone)
    monkeypatch.setattr(host, "_gpu_in_use", lambda: True)
    monkeypatch.setattr(host, "_can_be_captured", lambda leaves: True)
    inner._captured_gradient.cache_clear()
    one_step(name)
    inner._captured_gradient.cache_clear()
    assert seen and all(seen)


def test_graphs_are_bounded_and_captured_anew_for_other_shapes(written_down):
    double = host.captured(lambda tree, factor: {"x": tree["x"] * factor})
    for n in (*range(1, host.MOST_GRAPHS + 2), 1, host.MOST_GRAPHS + 1):
        x = torch.randn(n)
        assert torch.equal(double({"x": x}, 2)["x"], 2 * x)
    assert len(written_down) == host.MOST_GRAPHS + 2  # the first was dropped, and the last is kept
    assert torch.equal(double({"x": x}, 3)["x"], 3 * x)  # a number is part of the graph


def test_a_graph_sees_arguments_that_were_changed_in_place(written_down):
    negative = host.captured(lambda x: -x)
    x = torch.ones(2)
    first = negative(x)
    assert torch.equal(negative(x), first)
    x.add_(1)
    assert torch.equal(negative(x), torch.tensor([-2.0, -2.0])) and torch.equal(first, torch.tensor([-1.0, -1.0]))


def test_on_a_cpu_the_function_itself_is_called():
    marker = object()
    assert host.captured(lambda x: marker)(torch.ones(1)) is marker


class OnGpu(torch.Tensor):
    """A tensor that says that it is on the GPU `number`."""

    number = 0
    device = property(lambda self: torch.device("cuda", self.number))

    def get_device(self):
        return self.number


class OnSecond(OnGpu):
    number = 1


def test_graphs_are_captured_and_replayed_on_the_device_of_their_arguments_and_belong_to_it(monkeypatch):
    chosen, notes = [0], []

    @contextmanager
    def device(number):
        chosen.append(number)
        yield
        chosen.pop()

    def capture(function, leaves, spec):
        notes.append(("captured", chosen[-1]))
        return lambda leaves: notes.append(("replayed", chosen[-1]))

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(host, "_gpu_in_use", lambda: True)
    monkeypatch.setattr(host, "_can_be_captured", lambda leaves: True)
    monkeypatch.setattr(host, "_capture", capture)
    negative = host.captured(lambda x, y: -x)
    for kind in (OnSecond, OnSecond, OnGpu):
        negative(torch.ones(2).as_subclass(kind), torch.ones(1))
    assert notes == [
        *(("captured", 1), ("replayed", 1), ("replayed", 1)),
        *(("captured", 0), ("replayed", 0)),
    ]
    assert chosen == [0]


def test_the_clock_of_a_cpu_counts_work_and_no_waiting():
    seconds = host.clock("cpu")
    began = seconds()
    time.sleep(1.0)
    slept, began = seconds() - began, seconds()
    while seconds() - began < 0.05:  # ends only if work counts
        pass
    assert slept < 0.5
    assert host.clock("cuda") is time.monotonic


def test_a_stored_evaluation_is_made_again_on_another_machine(tmp_path, monkeypatch):
    made = []

    def evaluate(run, state):
        made.append(state)
        return Evaluated([("", None, "accuracy", 0.5)])

    device = torch.device("cpu")
    run = SimpleNamespace(
        checkpoint=lambda name: tmp_path / f"{name}.pt",
        n_tasks=1,
        identity={"seed": 0},
        device=device,
        seed=0,
        name="x",
    )
    for machine, times in (("one", 1), ("one", 1), ("another", 2)):
        monkeypatch.setattr(provenance, "machine", lambda device, machine=machine: machine)
        found, _ = command.evaluated_before(run, SimpleNamespace(evaluate=evaluate), SimpleNamespace(state={"w": 1}))
        assert found.records == [("", None, "accuracy", 0.5)] and len(made) == times
