"""The maze, its agents and their learning: examples by hand, slow references in float64, and two ways to one answer."""

import gymnasium
import numpy as np
import pandas as pd
import pytest
import sizes
import torch
from cases import dies_after, of_one
from gymnasium.utils.env_checker import check_env
from told import told
from torch import nn

from leapwarp import catalogue
from leapwarp.experiments.base import SIMULATED
from leapwarp.experiments.maze import report
from leapwarp.experiments.maze import run as experiment
from leapwarp.learners.recurrent import Block, stream
from leapwarp.models import recurrent
from leapwarp.optim import adam, sgd
from leapwarp.problem import join_tasks
from leapwarp.report import __main__ as command
from leapwarp.report import rows
from leapwarp.report.quantities import quantity
from leapwarp.rl.a2c import a2c_loss, clip
from leapwarp.rl.returns import returns, shifted
from leapwarp.rl.rollout import Choices, actor_critic, play, policy
from leapwarp.rng import generator
from leapwarp.trees import alone, leaves, map_tree, pick, stack
from leapwarp.worlds import maze, maze_gym

INPUTS, ACTIONS = maze.N_INPUTS, maze.N_ACTIONS
UP, DOWN, LEFT, RIGHT = range(ACTIONS)
CHOICES = Choices(discount=0.9, value_weight=0.1, entropy_weight=0.03)
NOTHING = torch.zeros(1, ACTIONS)  # the bias of a policy without network
PICTURE_5 = ["#######", "#.....#", "#.#.#.#", "#.....#", "#.#.#.#", "#.....#", "#######"]


FIXED = {
    "experiment": "maze",
    "size": "quick",
    "data_source": "simulated",
    "data_checksum": "none",
    "settings": "3d4e5f",
    "version": "0.1.0",
    "device": "cpu",
    "seconds": 1.0,
    "n_tasks": 0,
}


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def wide(world, draws):
    """Draws in float64; those of several runs are joined run by run."""
    return world._replace(views=world.views.double()), draws._replace(gumbel=draws.gumbel.double())


# ---------------------------------------------------------------- world


def test_the_maze_is_the_one_drawn():
    drawn = torch.tensor([[letter == "#" for letter in line] for line in PICTURE_5])
    assert torch.equal(maze.maze(5).walls, drawn)
    assert len(maze.maze(11).free) == 97  # 121 - 25 pillars, and the centre free although row and column are even
    with pytest.raises(ValueError, match="is 4 cells"):
        maze.maze(4)


def test_moves_rewards_teleports_and_observations_by_hand():
    world = maze.maze(5)  # numbered in rows of 7; the centre is 24
    state, goal, landing = maze.start(world, 1), torch.tensor([23]), torch.tensor([8])
    first = maze.observe(world, state, 0.0)[0]
    assert first.tolist() == [1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]  # pillars at the four corners
    state, found = maze.step(world, state, torch.tensor([UP]), goal, landing)
    assert (int(state.cell), bool(found)) == (17, False)
    state, found = maze.step(world, state, torch.tensor([LEFT]), goal, landing)
    assert (int(state.cell), bool(found)) == (17, False)  # there is a pillar, so the agent stays
    state, _ = maze.step(world, state, torch.tensor([DOWN]), goal, landing)
    state, found = maze.step(world, state, torch.tensor([LEFT]), goal, landing)
    assert (int(state.cell), bool(found)) == (8, True)  # it found the goal at 23 and was moved to the corner
    seen = maze.observe(world, state, 0.25)[0]
    assert seen.tolist() == [1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 1, 0.25, 10, 0, 0, 1, 0]
    assert float(world.views[:, maze.TIME].abs().max()) == 0  # observing leaves the tables as they are


def naive_episode(world, draws, e, actions):
    """One episode in plain Python: cells and rewards."""
    walls, side = world.walls.tolist(), world.side
    row = column = side // 2
    cells, found = [], []
    for t, action in enumerate(actions):
        cells.append(row * side + column)
        to = (row + maze.MOVES[action][0], column + maze.MOVES[action][1])
        if not walls[to[0]][to[1]]:
            row, column = to
        found.append(row * side + column == int(draws.goal[e]))
        if found[-1]:
            row, column = divmod(int(draws.landing[e, t]), side)
    return cells, found


def test_a_batch_of_episodes_is_single_episodes_in_plain_python():
    world = maze.maze(5)
    draws = maze.draw(world, 40, 300, generator(0))
    played = play(world, None, NOTHING, NOTHING, draws)
    assert played.found.any()
    for e in range(40):
        cells, found = naive_episode(world, draws, e, played.action[:, e].tolist())
        assert played.cell[:, e].tolist() == cells
        assert played.found[:, e].tolist() == found


@pytest.mark.parametrize("interior", [3, 5, 11])
def test_nobody_is_ever_inside_a_wall_and_goals_and_landings_are_fair(interior):
    world = maze.maze(interior)
    draws = maze.draw(world, 2000, 100, generator(1))
    played = play(world, None, NOTHING, NOTHING, draws)
    walls = world.walls.flatten()
    for cells in (draws.goal, draws.landing, played.cell):
        assert not walls[cells].any()
    assert not (draws.goal == maze.centre(world)).any() and not (draws.goal == draws.landing.T).any()
    assert len(draws.goal.unique()) == len(world.free) - 1
    share = torch.bincount(draws.landing.flatten(), minlength=len(walls))[world.free] / draws.landing.numel()
    assert share.tolist() == pytest.approx([1 / len(world.free)] * len(world.free), rel=0.25)


def test_the_released_teleport_lands_in_pillars_a_fifth_of_the_time():
    world = maze.maze(11, teleport_into_pillars=True)
    landing = maze.draw(world, 100, 1000, generator(0)).landing
    assert float(world.walls.flatten()[landing].double().mean()) == pytest.approx(24 / 121, abs=0.005)


def test_noise_makes_samples_of_the_policy():
    draws = maze.draw(maze.maze(3), 100, 1000, generator(0))
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    share = torch.bincount((logits + draws.gumbel).argmax(-1).flatten(), minlength=4) / 1e5
    assert share.tolist() == pytest.approx(logits.softmax(0).tolist(), abs=0.005)


def test_the_gymnasium_environment_passes_its_checker_and_agrees_with_the_batch():
    env = gymnasium.make(maze_gym.NAME, interior=5, steps=30).unwrapped
    check_env(env, skip_render_check=True)
    env.reset(seed=3)
    world, actions = maze.maze(5), torch.randint(4, (30,), generator=generator(0)).tolist()
    cells, found = naive_episode(world, env.draws, 0, actions)
    for t, action in enumerate(actions):
        assert int(env.state.cell) == cells[t]
        seen, reward, terminated, truncated, _ = env.step(action)
        assert (reward, terminated, truncated) == (10.0 * found[t], False, t == 29)
        assert seen[maze.REWARD] == reward and seen[maze.LAST_ACTION + action] == 1
        assert seen[maze.TIME] == pytest.approx((t + 1) / 30) and seen[maze.BIAS] == 1


# ---------------------------------------------------------------- actor-critic


def test_returns_credit_the_action_that_was_rewarded():
    reward = torch.tensor([[0.0, 1.0], [2.0, 0.0], [4.0, 0.0]])
    assert returns(reward, 0.5).tolist() == [[2.0, 1.0], [4.0, 0.0], [4.0, 0.0]]
    assert returns(shifted(reward), 0.5).tolist() == [[0.5, 0.5], [1.0, 1.0], [2.0, 0.0]]


def test_the_loss_of_two_steps_by_hand(double):
    outputs = torch.tensor([[[0.0, 0.0, 1.0]], [[0.0, 0.0, 3.0]]])  # probabilities of a half, values 1 and 3
    loss = a2c_loss(outputs, torch.tensor([[0], [1]]), torch.tensor([[2.0], [1.0]]), 0.1, 0.03)
    log_half = torch.log(torch.tensor(0.5))
    expected = ((-log_half * 1 + 0.1 * 1) + (-log_half * -2 + 0.1 * 4)) / 2 + 0.03 * 0.5
    assert torch.allclose(loss, expected[None])


def test_each_episode_has_its_own_baseline_and_the_first_ones_only_as_released(double):
    outputs = torch.zeros(1, 2, 3)
    outputs[0, :, -1] = torch.tensor([1.0, 5.0])
    value = outputs.requires_grad_()
    arguments = torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[1.0, 5.0]]), 1.0, 0.0
    assert a2c_loss(value, *arguments).tolist() == [0.0, 0.0]
    log_two = 0.6931471805599453
    assert a2c_loss(value, *arguments, first_baseline=True).tolist() == pytest.approx([0.0, 16 + 4 * log_two])


def test_the_actor_does_not_move_the_value_through_the_advantage(double):
    outputs = torch.randn(3, 2, 5, generator=generator(0), dtype=torch.float64).requires_grad_()
    a2c_loss(outputs, torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 2), 0.0, 0.03).sum().backward()
    assert float(outputs.grad[..., -1].abs().max()) == 0


def test_clipping_keeps_short_gradients_and_shortens_long_ones():
    grads = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    assert clip(grads, 10.0)["a"].item() == 3.0
    assert clip(grads, 1.0)["b"].item() == pytest.approx(0.8, rel=1e-5)
    assert clip(grads, float("inf"))["b"].item() == 4.0
    two = {"a": torch.tensor([3.0, 0.3]), "b": torch.tensor([[4.0], [0.4]])}
    assert clip(two, 1.0)["b"].flatten().tolist() == pytest.approx([0.8, 0.4], rel=1e-5)  # each run by itself


# ---------------------------------------------------------------- agents

PLAIN = {
    "rnn": (recurrent.rnn_step, 0),
    "tnets_rnn": (recurrent.tnets_step, 0),
    "warp_rnn": (recurrent.warp_step, 2),
}


def cell_of(name, hidden=6, warp_hidden=5):
    settings = experiment.Settings(hidden=hidden, warp_hidden=warp_hidden)
    return experiment.methods(settings)[name].cell(settings)


def some_params(cell, runs=1):
    """Parameters that differ from the initial ones, since some of these are zero."""
    stream_ = generator(0, "noise")
    params = stack([cell.init(generator(seed)) for seed in range(runs)])
    return {name: leaf + 0.3 * torch.randn(leaf.shape, generator=stream_) for name, leaf in params.items()}


@pytest.mark.parametrize("name", PLAIN)
def test_tapes_equal_the_plain_equations_under_autograd(double, name):
    cell, (plain, n_more) = cell_of(name), PLAIN[name]

    def tape(params, steps, batch):
        memory = (torch.zeros(2, batch, 6), *[torch.zeros(2, batch, 5) for _ in range(n_more)])
        return recurrent.Recorded(plain, params, memory)

    world, draws = wide(maze.maze(3), maze.draw(maze.maze(3), 8, 15, generator(2)))
    params = some_params(cell, runs=2)
    fast = actor_critic(world, cell, CHOICES)(params, draws)
    slow = actor_critic(world, cell._replace(tape=tape), CHOICES)(params, draws)
    assert fast[2].tolist() == slow[2].tolist() and (fast[2].sum(1) > 0).all()
    assert torch.allclose(fast[0], slow[0], rtol=1e-12)
    for key, grad in slow[1].items():
        assert float(grad.abs().max()) > 0
        assert torch.allclose(fast[1][key], grad, rtol=1e-10, atol=1e-13), key


@pytest.mark.parametrize("name", ["hebbian", "hebbian_retroactive"])
def test_tapes_of_plastic_weights_equal_the_plain_equations_under_autograd(double, name):
    """Some plastic weights reach their limits, where their gradient is zero."""
    steps, batch = 30, 4
    plain = {"hebbian": recurrent.hebbian_step, "hebbian_retroactive": recurrent.retroactive_step}[name]
    params = {key: leaf for key, leaf in some_params(cell_of(name), runs=2).items() if "head" not in key}
    params["task.modulation.bias"] = params["task.modulation.bias"] + 1
    if name == "hebbian_retroactive":
        params["task.eta"] = torch.tensor([0.3, 0.6])
    zero = torch.zeros(2, batch, 6)
    none = [torch.zeros(2, batch, 6, 6)] * {"hebbian": 1, "hebbian_retroactive": 2}[name]
    fast, slow = cell_of(name).tape(params, steps, batch), recurrent.Recorded(plain, params, (zero, *none))
    memory = (zero, *none)
    for t in range(steps):
        x = torch.randn(2, batch, INPUTS, generator=generator(t, "x"))
        assert torch.allclose(fast.step(x), slow.step(x), rtol=1e-10, atol=1e-12)
        memory = plain(params, x, memory)
    share = float((memory[1].abs() == 1).double().mean())
    assert 0.05 < share < 0.95
    assert torch.allclose(fast.hidden(), slow.hidden(), rtol=1e-10, atol=1e-12)
    grad = torch.randn(2, steps, batch, 6, generator=generator(0, "grad"))
    ours, theirs = fast.backward(grad), slow.backward(grad)
    assert ours.keys() == theirs.keys()
    for key, leaf in theirs.items():
        assert float(leaf.abs().max()) > 0
        assert torch.allclose(ours[key], leaf, rtol=1e-9, atol=1e-11), key


@pytest.mark.parametrize("name", ["rnn", "hebbian", "hebbian_retroactive", "hyper_rnn", "tnets_rnn"])
def test_gradients_are_finite_differences(double, name):
    """The actions, and the advantage that multiplies their log-probability, are constant, as in the estimator."""
    cell = cell_of(name)
    world, draws = wide(maze.maze(3), maze.draw(maze.maze(3), 3, 10, generator(4)))
    params = some_params(cell)
    _, grads, _ = actor_critic(world, cell, CHOICES)(params, draws)

    def outputs(params):
        body = {key: leaf for key, leaf in params.items() if "head" not in key}
        tape, state, hidden = cell.tape(body, 10, 3), maze.start(world, 3), []
        for t in range(10):
            hidden.append(tape.step(maze.observe(world, state, t / 10)[None])[0].clone())
            state, _ = maze.step(world, state, action[t], draws.goal, draws.landing[:, t])
        return torch.stack(hidden) @ params["task.head.weight"][0].T + params["task.head.bias"]

    body = {key: leaf for key, leaf in params.items() if "head" not in key}
    played = play(world, cell.tape(body, 10, 3), *policy(params), draws)
    action = played.action
    found = returns(10.0 * played.found.double(), 0.9)
    held = found - outputs(params)[..., -1]

    def loss(params):
        out = outputs(params)
        log_policy = out[..., :-1].log_softmax(-1)
        chosen = log_policy.gather(-1, action[..., None])[..., 0]
        entropy = log_policy.exp().square().sum(-1)
        return float((0.1 * (found - out[..., -1]).square() - chosen * held + 0.03 * entropy).mean())

    for key, leaf in params.items():
        direction = torch.randn(leaf.shape, generator=generator(5, key), dtype=torch.float64)
        moved = [loss({**params, key: leaf + sign * 1e-5 * direction}) for sign in (1, -1)]
        assert (moved[0] - moved[1]) / 2e-5 == pytest.approx(float((grads[key] * direction).sum()), rel=1e-5, abs=1e-8)


def test_equation_15_with_the_lstm_of_pytorch(double):
    """One step of `warp_step` equals one that is written with diagonal matrices and nn.LSTMCell, for one episode."""
    whole = some_params(cell_of("warp_rnn"))
    params = pick(whole, 0)
    lstm = nn.LSTMCell(INPUTS + 6, 5)
    with torch.no_grad():
        lstm.weight_ih.copy_(params["warp.lstm.weight"][:, : INPUTS + 6])
        lstm.weight_hh.copy_(params["warp.lstm.weight"][:, INPUTS + 6 :])
        lstm.bias_ih.copy_(params["warp.lstm.bias"])
        lstm.bias_hh.zero_()
    x, h, z, c = (torch.randn(1, n, generator=generator(6, n)).double() for n in (INPUTS, 6, 5, 5))
    new = [part[0] for part in recurrent.warp_step(whole, x[None], (h[None], z[None], c[None]))]
    z1, c1 = lstm(torch.cat([x, h], 1), (z, c))
    blocks = params["warp.project"].split([INPUTS, 6, 6, 6, 6])
    u1_x, u1_h, u2_x, u2_h, u_b = (torch.diag((block @ z1[0]).tanh()) for block in blocks)
    a = u2_h @ params["task.v"] @ u1_h @ h[0] + u2_x @ params["task.w"] @ u1_x @ x[0] + u_b @ params["task.b"]
    assert torch.allclose(new[0][0], a.tanh()) and torch.allclose(new[1], z1) and torch.allclose(new[2], c1)


def test_retroactive_modulation_acts_on_what_was_before(double):
    """Plastic weights are updated by the trace first, and the trace is updated by the present step afterwards."""
    params = some_params(cell_of("hebbian_retroactive"))
    h, zero = torch.rand(1, 1, 6, generator=generator(7)).double(), torch.zeros(1, 1, 6, 6)
    x = torch.ones(1, 1, INPUTS)
    new, plastic, trace = recurrent.retroactive_step(params, x, (h, zero, zero))
    assert float(plastic.abs().max()) == 0
    eta, outer = params["task.eta"], new[0, 0, :, None] * h[0, 0, None, :]
    assert torch.allclose(trace[0, 0], eta * outer)
    newer, plastic, later = recurrent.retroactive_step(params, x, (new, plastic, trace))
    assert torch.allclose(later[0, 0], (1 - eta) * trace[0, 0] + eta * newer[0, 0, :, None] * new[0, 0, None, :])
    m = (newer[0, 0] @ params["task.modulation.weight"][0] + params["task.modulation.bias"]).tanh()
    assert torch.allclose(plastic[0, 0], m * trace[0, 0])
    _, simple = recurrent.hebbian_step(params, x, (h, zero))
    m = (new[0, 0] @ params["task.modulation.weight"][0] + params["task.modulation.bias"]).tanh()
    assert torch.allclose(simple[0, 0], m * outer)
    _, full = recurrent.hebbian_step(params, x, (h, torch.ones(1, 1, 6, 6)))
    assert float(full.abs().max()) <= 1
    for end in (-1.0, 1.0):
        trace = 100 * torch.ones(1, 1, 6, 6) * end
        _, clipped, _ = recurrent.retroactive_step(params, x, (h, end * torch.ones(1, 1, 6, 6), trace))
        assert float(clipped.abs().max()) == 1
        _, clipped, _ = recurrent.retroactive_step(params, x, (h, end * torch.ones(1, 1, 6, 6), -trace))
        assert float(clipped.abs().max()) == 1


def test_tnets_begin_as_the_plain_rnn():
    world = maze.maze(5)
    draws = maze.draw(world, 5, 20, generator(0))
    plain, linear = cell_of("rnn"), cell_of("tnets_rnn")
    loss, grads, _ = actor_critic(world, plain, CHOICES)(alone(plain.init(generator(1))), draws)
    warped, of_warped, _ = actor_critic(world, linear, CHOICES)(alone(linear.init(generator(1))), draws)
    assert torch.allclose(loss, warped)
    assert torch.allclose(grads["task.v"], of_warped["task.v"], atol=1e-6)


def test_all_agents_of_a_seed_begin_at_the_same_task_parameters():
    plain = cell_of("rnn").init(generator(0))
    for name in ("hebbian", "hebbian_retroactive", "hyper_rnn", "tnets_rnn", "warp_rnn"):
        params = cell_of(name).init(generator(0))
        assert all(torch.equal(params[key], leaf) for key, leaf in plain.items())


# ---------------------------------------------------------------- Algorithm 3


def test_algorithm_3_written_out(double):
    """theta moves after every batch, and phi after `eta` batches along the mean of their gradients."""

    def gradient(params, target):  # of (theta + phi - target)^2 / 2 in both
        error = params["task"] + params["warp.p"] - target
        return error.square() / 2, {"task": error, "warp.p": error}, error

    def halved(grads):  # in place of clipping, for both gradients; that of the warps is a mean
        assert set(grads) in ({"task"}, {"warp.p"})
        return {name: leaf / 2 for name, leaf in grads.items()}

    learner = of_one(stream)(gradient, sgd(0.2), sgd(1.0), 3, halved)
    state = learner.init({"task": torch.zeros(1), "warp.p": torch.ones(1)})
    targets = [torch.tensor([float(k)]) for k in range(7)]
    theta, phi, total = 0.0, 1.0, 0.0
    for k in range(7):
        error = theta + phi - k
        theta, total = theta - 0.1 * error, total + error
        if k % 3 == 2:
            phi, total = phi - 0.5 * total / 3, 0.0
    for block in (targets[:2], targets[2:5], targets[5:]):  # blocks do not matter
        state, _ = learner.step(state, Block(torch.tensor([0]), block), torch.Generator())
    assert float(state["params"]["task"]) == pytest.approx(theta)
    assert float(state["warp"]["warp.p"]) == pytest.approx(phi)
    assert float(state["sum"]["warp.p"]) == pytest.approx(total) and state["count"] == 1


def test_the_hyper_rnn_is_one_adam_on_everything_but_for_clipping():
    method = sizes.one_run(SIMULATED, "maze", "hyper_rnn", clip=None).method
    settings = method.settings
    world, cell = experiment.world_of(settings, torch.device("cpu")), method.cell(settings)
    learner = of_one(experiment.learner)(world, cell, settings)
    params, block = cell.init(generator(0)), experiment.block(world, settings, 0, 0)
    after, _ = learner.step(learner.init(params), block, generator(0))
    gradient, optimizer = actor_critic(world, cell, experiment.choices(settings)), adam(0.001, epsilon=1e-4)
    params = alone(params)
    state = optimizer.init(params)
    for draws in block.batches:
        params, state = optimizer.update(params, gradient(params, draws)[1], state)
    for name, leaf in params.items():
        assert torch.allclose({**after["params"], **after["warp"]}[name], leaf[0], atol=1e-7)


def test_eta_is_30_for_warps_and_1_for_the_hyper_rnn():
    named = experiment.methods(experiment.PUBLISHED)
    assert {name: named[name].settings.eta for name in ("warp_rnn", "tnets_rnn", "hyper_rnn")} == {
        "warp_rnn": 30, "tnets_rnn": 30, "hyper_rnn": 1,
    }  # fmt: skip


def test_the_hebbian_agents_begin_with_little_plasticity():
    params = cell_of("hebbian_retroactive").init(generator(0))
    assert 0 <= float(params["task.alpha"].min()) < 0.002 < 0.008 < float(params["task.alpha"].max()) <= 0.01
    assert float(params["task.eta"]) == pytest.approx(0.01)


TRAINED = [name for name, method in experiment.methods(experiment.PUBLISHED).items() if method.cell]


@pytest.mark.parametrize("name", TRAINED)
def test_each_run_of_a_stack_learns_as_alone(double, name):
    """This holds up to rounding for any other runs, even if one is not finite, and for any order of the runs."""
    settings = experiment.methods(experiment.Settings(3, steps=15, batch=4, hidden=6, warp_hidden=5, eta=2, every=3))
    settings, make = settings[name]
    cell, world = make(settings), experiment.world_of(settings, torch.device("cpu"))
    learner = experiment.learner(world._replace(views=world.views.double()), cell, settings)
    starts = [pick(some_params(cell, runs=4), i) for i in range(4)]
    starts[3] = {key: leaf * torch.nan for key, leaf in starts[3].items()}

    def learnt(seeds):
        block = join_tasks([experiment.block(world, settings, seed, 0) for seed in seeds])
        return learner.step(learner.init(stack([starts[i] for i in seeds])), block, [generator(i) for i in seeds])

    together = learnt([2, 3, 0, 1])
    for row, i in ((0, 2), (2, 0), (3, 1)):
        for ours, theirs in zip(together, learnt([i]), strict=True):
            torch.testing.assert_close(leaves(pick(ours, row)), leaves(pick(theirs, 0)), rtol=1e-9, atol=1e-12)
    assert len(set(together[1]["return"].sum(1).tolist())) > 1


@pytest.mark.parametrize("name", TRAINED)
def test_no_batch_waits_for_the_host(name):
    """Tensors on the device `meta` have no values, so every operation that needs a value fails."""
    settings, make = experiment.methods(experiment.Settings(3, steps=5, batch=4, hidden=6, warp_hidden=5))[name]
    world, cell = experiment.world_of(settings, torch.device("cpu")), make(settings)
    draws = maze.draw(world, 8, settings.steps, generator(0))
    params, world, draws = (
        {key: part.to("meta") if isinstance(part, torch.Tensor) else part for key, part in each.items()}
        for each in (some_params(cell, runs=2), world._asdict(), draws._asdict())
    )
    gradient = actor_critic(maze.Maze(**world), cell, experiment.choices(settings))
    loss, grads, reward = gradient(params, maze.Draws(**draws))
    assert {part.device.type for part in (loss, reward, *grads.values())} == {"meta"}


# ---------------------------------------------------------------- the experiment


def records_of(run):
    """The records of training, if the method is trained, and of evaluation."""
    trained = experiment.EXPERIMENT.train([run])[0] if run.method.cell else None
    evaluated = experiment.judge(run, trained.state if trained else None)
    return [*(trained.records if trained else []), *evaluated.records]


def test_a_job_goes_on_to_the_same_rows_when_it_is_interrupted_given_a_seed_more_or_loses_one(
    tmp_path, monkeypatch, capsys
):
    def told(seeds, checkpoints=None):
        """For each seed: its learnt parameters, its rows without times, and its error."""
        run = sizes.one_run(SIMULATED, "maze", "warp_rnn", checkpoint_every=1)._replace(checkpoints=checkpoints)
        found = experiment.train([run._replace(seed=seed) for seed in seeds])
        rows_ = [{record[:3]: record[3] for record in each.records if record[2] != "train_seconds"} for each in found]
        return [(leaves(each.state), values, each.error) for each, values in zip(found, rows_, strict=True)]

    whole = told([0, 1])
    with dies_after(2):
        told([0, 1], tmp_path)
    assert (tmp_path / "seeds0_1.pt").exists()
    more, stacked = told([0, 1, 2], tmp_path), []
    torch.testing.assert_close(more, [*whole, *told([2])], rtol=0, atol=0)

    def spoilt(trees):
        stacked.append([*trees[:-1], map_tree(lambda leaf: leaf * torch.nan, trees[-1])])
        return stack(stacked[-1])

    monkeypatch.setattr(experiment, "stack", spoilt)
    *good, bad = told([1, 0, 3])
    assert "seed 3, meta-step 0: the training loss" in bad[2] and bad[2] in capsys.readouterr().out
    assert not bad[0] and not bad[1] and len(stacked) == 1
    torch.testing.assert_close(good, whole[::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_plain_rnn_learns_a_small_maze():
    random, trained = (
        [value
         for _, step, metric, value in records_of(
             sizes.one_run(SIMULATED, "maze", name, size="quick", seed=100, updates=1000)
         )
         if metric == "return" and step > 800]
        for name in ("random", "rnn")
    )  # fmt: skip
    assert min(trained) > 2 * max(random)


@pytest.fixture(scope="module")
def smoke():
    """The rows of all agents at smoke."""
    frames = []
    for name in sizes.methods("maze"):
        for seed in (0, 1):
            records = records_of(sizes.one_run(SIMULATED, "maze", name, seed=seed))
            frames.append(rows.rows(records, method=name, seed=seed, **FIXED))
    return rows.ordered(pd.concat(frames, ignore_index=True), "maze")


def test_every_agent_reports_its_curve_and_its_parameters(smoke):
    curves_ = smoke.loc[smoke["metric"] == "return"].groupby(["method", "seed"])["step"]
    settings = sizes.methods("maze")["rnn"].settings
    assert set(curves_.max()) == {settings.updates}
    counts = smoke.loc[smoke["seed"] == 0].set_index(["method", "metric"])["value"]
    hidden, n = settings.hidden, INPUTS
    plain = hidden * n + hidden * hidden + hidden + (ACTIONS + 1) * (hidden + 1)
    for name in ("rnn", "warp_rnn", "hyper_rnn", "tnets_rnn"):
        assert counts[name, "task_parameters"] == plain
    assert counts["hebbian", "task_parameters"] == plain + hidden * hidden + hidden + 1
    assert counts["hebbian_retroactive", "task_parameters"] == counts["hebbian", "task_parameters"] + 1
    assert counts["rnn", "warp_parameters"] == 0 and counts["tnets_rnn", "warp_parameters"] == 3 * hidden**2
    assert counts["warp_rnn", "warp_parameters"] == counts["hyper_rnn", "warp_parameters"]
    alike = smoke.loc[smoke["metric"] == "return"].set_index(["method", "seed", "step"])["value"]
    # All agents of a seed have the same episodes, so at first the plain RNN and T-Nets have the same return.
    assert alike["rnn", 0, 3] == alike["tnets_rnn", 0, 3]
    losses = smoke.loc[smoke["metric"] == "meta_loss"].set_index(["method", "seed", "step"])["value"]
    for name in ("rnn_shifted", "rnn_first_baseline", "rnn_pillars", "rnn_epsilon"):  # twelve updates need no clipping
        assert not losses["rnn"].equals(losses[name]), name


def curve(method, seed, values):
    records = [("", step, "return", float(value)) for step, value in enumerate(values)]
    return rows.rows(records, method=method, seed=seed, **FIXED)


def test_what_is_read_off_curves():
    frame = pd.concat([curve("rnn", seed, np.arange(20.0) + at) for seed, at in enumerate((0, 1, 5, 5))])
    assert quantity(frame, "final_return")["value"].tolist() == [18.5, 19.5, 23.5, 23.5]
    assert quantity(frame, "return_height")["value"].tolist() == [9.5, 10.5, 14.5, 14.5]
    assert report.quartile_width(frame, "return") == {"rnn": pytest.approx(4.25)}  # quartiles 0.75 and 5


def test_table_and_figures_are_made_from_rows(smoke, tmp_path):
    lines, text = told(smoke, pd.DataFrame())
    assert set(lines["method"]) == set(catalogue.find("maze").methods)
    assert "| Random policy |" in text and "| Warp-RNN |" in text
    rows.write(tmp_path / "rows.csv", smoke)
    command.main(["figures", "maze", "--rows", str(tmp_path / "rows.csv"), "--out-dir", str(tmp_path)])
    assert {path.stem for path in tmp_path.glob("*.png")} == set(catalogue.find("maze").figures)
