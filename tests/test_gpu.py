"""Tests that need a GPU (marker `gpu`), and of its benchmark, which runs on a CPU too."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import SmallWarped, small_warped
from test_host import BUILT, STEPS, a_problem, one_step

import leapwarp
from leapwarp import host
from leapwarp.inner import adapt
from leapwarp.learners import warp_leap
from leapwarp.learners.leap import leap_fold
from leapwarp.models import twice
from leapwarp.models.convnet import Warp
from leapwarp.optim import Optimizer, sgd
from leapwarp.problem import Task
from leapwarp.trees import map_leaves, zeros_like

ROOT = Path(__file__).parents[1]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def moved(tasks):
    return Task(*(field.to("cuda") if isinstance(field, torch.Tensor) else field for field in tasks))


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", BUILT)
def test_a_meta_step_by_graphs_equals_one_without(name, monkeypatch):
    host.settle()
    by_graphs = one_step(name, "cuda")
    monkeypatch.setattr(host, "CAPTURE", False)
    torch.testing.assert_close(by_graphs, one_step(name, "cuda"), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("products", [True, False], ids=["products", "grouped"])
@pytest.mark.parametrize("name", BUILT)
def test_a_meta_step_on_a_gpu_equals_one_on_a_cpu(name, products, monkeypatch):
    """They are compared in float64. In float32 rounding sometimes decides which pixel is the largest."""
    monkeypatch.setattr(twice, "PRODUCTS", products)
    theirs = one_step(name, double=True)
    torch.testing.assert_close(one_step(name, "cuda", True), theirs, rtol=1e-8, atol=1e-9, check_device=False)


def front_on(device, replay):
    """Gradients of a meta-batch of two tasks by WarpGrad."""
    net = SmallWarped().double().to(device)
    tasks = small_warped(draws=20)[2]

    def loss(batch):
        return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])

    def batch(t, k):
        return tasks.x[t, tasks.order[t, k]].to(device), tasks.y[t, tasks.order[t, k]].to(device)

    meta = leapwarp.WarpGrad(net, loss, "warp", 0.1, replay=replay, replay_device="cpu")
    for t in range(2):
        with meta.task() as task:
            inner = torch.optim.AdamW(meta.task_parameters(), 0.01)
            for k in range(3):
                inner.zero_grad()
                task.backward(loss(batch(t, k)), batch(t, k + 5), batch(t, k) if replay else None)
                inner.step()
            task.finish(loss(batch(t, 9)))
    found = []
    assert all(not leaf.is_cuda for point in meta.points for leaf in (*point.theta.values(), *point.meta_batch))
    for _ in meta.replay(eta=100) if replay else ():
        found = [leaf.grad.cpu() for leaf in meta.warp_parameters()]
    meta.backward()
    return found + [leaf.grad.cpu() for leaf in meta.parameters() if leaf.grad is not None]


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("replay", [None, 9])
def test_a_front_on_a_gpu_equals_one_on_a_cpu(replay):
    torch.testing.assert_close(front_on("cuda", replay), front_on("cpu", replay), rtol=1e-8, atol=1e-9)


@pytest.mark.gpu
@on_gpu
def test_no_step_of_adaptation_waits_for_the_host():
    problem, params, tasks = a_problem()
    start = {name: leaf.repeat_interleave(2, 0).to("cuda") for name, leaf in params.items()}

    def watch(step, params, stats):
        torch.cuda.set_sync_debug_mode("default" if step in (0, STEPS) else "error")

    fold, everyone = leap_fold(), moved(tasks)
    for observe in (None, watch):  # the first captures
        adapt(problem, sgd(0.1), start, {}, everyone, STEPS, fold, zeros_like(start), observe=observe)


@pytest.mark.gpu
@on_gpu
def test_no_update_of_the_warps_waits_for_the_host():
    problem, params, tasks = a_problem(Warp())
    plain, watching, seen = sgd(0.1), [], []

    def update(params, grads, state):
        seen.append(1)
        torch.cuda.set_sync_debug_mode("error" if watching and len(seen) < 2 * STEPS else "default")
        return plain.update(params, grads, state)

    learner = warp_leap(problem, plain, Optimizer(plain.init, update), STEPS, 4)
    state = map_leaves(lambda leaf: leaf.to("cuda"), learner.init(params))
    for _ in range(2):
        learner.step(state, moved(tasks), [torch.Generator().manual_seed(seed) for seed in (3, 4)])
        seen.clear()
        watching.append(True)


@pytest.mark.full
def test_the_benchmark_runs_without_a_gpu():
    words = "--device cpu --filters 2 --runs 1 2 --steps 2 --repeats 1 --experiments 1"
    done = subprocess.run(
        [sys.executable, "gpu.py", *words.split()], cwd=ROOT / "benchmarks", capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "| 2 | 2 | captured |" in done.stdout and "| **omniglot_warp** |" in done.stdout
