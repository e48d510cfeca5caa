"""Atari: games, the actor-critic, Leap's sum along a path, the chain of jobs, and numbers computed from rows."""

import json
import math
import shutil
from itertools import pairwise

import ale_py
import numpy as np
import pandas as pd
import pytest
import torch
from calls import REPO, SIZES, edit, snakemake, work_out_settings
from told import drawn, told
from torch import nn

from leapwarp import plan
from leapwarp.data.store import read
from leapwarp.experiments import states
from leapwarp.experiments.atari import agent, chain, report, run
from leapwarp.experiments.atari.run import PUBLISHED
from leapwarp.experiments.base import Run
from leapwarp.experiments.resolve import of_experiment
from leapwarp.experiments.settings import changed
from leapwarp.interrupt import Interrupted
from leapwarp.models import actor_critic
from leapwarp.optim import adam, rmsprop
from leapwarp.report import rows
from leapwarp.report.quantities import quantity
from leapwarp.rl.a2c import a2c_loss, shannon
from leapwarp.rl.returns import bootstrapped, returns
from leapwarp.rl.unroll import Choices, pick, unroll
from leapwarp.rng import generator
from leapwarp.worlds import atari

DEPARTURES = {"updates": 5, "restart": 2, "every": 2, "batch": 3, "pool": ["demon_attack", "pong"]}
JUDGED = {"heldout": ["breakout"], "seen": ["pong"], "larger": ["alien"]}
TINY = changed(PUBLISHED, DEPARTURES | JUDGED, "the settings of these tests")
CHOICES = Choices(0.9, 0.5, 0.01, 5.0)


# ---------------------------------------------------------------- games


def test_the_pool_is_the_games_of_few_actions_without_those_held_out():
    assert len(atari.FEW_ACTIONS) == 27 and max(atari.FEW_ACTIONS.values()) <= 10
    assert len(atari.POOL) == 25 and not set(atari.POOL) & {"breakout", "space_invaders"}
    assert set(PUBLISHED.seen) <= set(PUBLISHED.pool)
    assert min(atari.ACTIONS[game] for game in PUBLISHED.larger) > 10
    assert PUBLISHED.updates * PUBLISHED.batch * PUBLISHED.length == 5_000_000


def test_games_have_the_actions_that_are_listed(monkeypatch):
    for game in atari.ACTIONS:
        atari.start(game, 1, 4, 0)  # raises
    monkeypatch.setitem(atari.ACTIONS, "pong", 7)
    with pytest.raises(ValueError, match=r"pong has 6 actions in ale-py .*, needed 7"):
        atari.start("pong", 1, 4, 0)
    with pytest.raises(ValueError, match="'combat' is not a game that is known here"):
        atari.start("combat", 1, 4, 0)


def play(world, seed, steps=20):
    pixels = atari.reset(world, generator(seed))
    actions = torch.randint(world.n_actions, (steps, 2), generator=generator(seed, "actions"))
    seen = [atari.step(world, action) for action in actions]
    return torch.stack([pixels, *(step.pixels for step in seen)]), torch.stack([step.reward for step in seen])


def test_a_reset_game_forgets_what_was_played():
    world, fresh = (atari.start("demon_attack", 2, 4, 30) for _ in range(2))
    play(world, 1)
    again, anew, other = play(world, 0), play(fresh, 0), play(world, 1)
    assert again[0].shape == (21, 2, 84, 84, 3) and again[0].dtype == torch.uint8
    assert torch.equal(again[0], anew[0]) and torch.equal(again[1], anew[1])
    assert not torch.equal(again[0], other[0])
    assert not torch.equal(again[0][:, 0], again[0][:, 1])  # emulators have seeds of their own


def test_the_data_are_the_games_themselves():
    assert atari.checksum(("pong",)) != atari.checksum(("breakout",))
    assert atari.checksum() == atari.checksum(tuple(reversed(list(atari.ACTIONS))))
    needed = f"ale-py {ale_py.__version__} has no game 'pongg'"
    with pytest.warns(UserWarning, match="pongg"), pytest.raises(ValueError, match=needed):
        atari.checksum(("pongg",))


# ---------------------------------------------------------------- the actor-critic


def test_bootstrapped_returns_by_hand():
    reward = torch.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    ended = torch.tensor([[False, False], [False, True], [False, False]])
    found = bootstrapped(reward, ended, torch.tensor([8.0, 8.0]), 0.5)
    assert found.tolist() == [[4.0, 2.0], [6.0, 2.0], [8.0, 8.0]]
    over = torch.zeros(3, 2, dtype=torch.bool)
    assert torch.equal(bootstrapped(reward, over, torch.zeros(2), 0.5), returns(reward, 0.5))


def slow_loss(outputs, action, reward, ended, value, choices):
    """The A2C loss of every step and game, one number at a time."""
    losses = []
    for game in range(outputs.shape[1]):
        for t in range(len(outputs)):
            target, discount = 0.0, 1.0
            for later in range(t, len(outputs)):
                clipped = max(-choices.reward_clip, min(choices.reward_clip, float(reward[later, game])))
                target, discount = target + discount * clipped, discount * choices.discount
                if ended[later, game]:
                    break
            else:
                target += discount * float(value[game])
            *logits, baseline = outputs[t, game]
            policy = torch.stack(logits).exp() / torch.stack(logits).exp().sum()
            advantage = target - baseline
            entropy = -sum(p * p.log() for p in policy)
            loss = -policy[action[t, game]].log() * advantage.detach() + choices.value_weight * advantage**2
            losses.append(loss - choices.entropy_weight * entropy)
    return torch.stack(losses).mean()


def test_the_loss_is_that_of_a_slow_reference():
    rng = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, 4, 7, dtype=torch.float64, generator=rng).requires_grad_()
    action = torch.randint(6, (5, 4), generator=rng)
    reward = 8 * torch.randn(5, 4, dtype=torch.float64, generator=rng)  # some beyond the clip
    ended = torch.rand(5, 4, generator=rng) < 0.3
    value = torch.randn(4, dtype=torch.float64, generator=rng)
    found = bootstrapped(reward.clamp(-5, 5), ended, value, CHOICES.discount)
    loss = a2c_loss(outputs, action, found, CHOICES.value_weight, CHOICES.entropy_weight, spread=shannon).mean()
    slow = slow_loss(outputs, action, reward, ended, value, CHOICES)
    torch.testing.assert_close(loss, slow, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(loss, outputs)[0], torch.autograd.grad(slow, outputs)[0], rtol=1e-10, atol=1e-14
    )


def layers(params):
    """The network of PyTorch's own layers."""
    net = nn.Sequential(
        nn.Conv2d(3, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(2592, 256), nn.ReLU(), nn.Linear(256, len(params["head.bias"])),
    ).to(torch.float64)  # fmt: skip
    with torch.no_grad():
        for leaf, given in zip(net.parameters(), params.values(), strict=True):
            leaf.copy_(given)
    return net


def network(n_actions, seed=0):
    params = actor_critic.encoder(generator(seed)) | actor_critic.head(n_actions, generator(seed, "head"))
    return {name: leaf.double() for name, leaf in params.items()}


def test_an_unroll_is_play_and_then_the_gradient_of_what_was_seen():
    rng = torch.Generator().manual_seed(1)
    pictures = torch.randint(256, (6, 3, 84, 84, 3), generator=rng, dtype=torch.uint8)
    rewards = 4 * torch.randn(5, 3, generator=rng)
    ends = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]).bool()
    taken = []

    def step(action):
        taken.append(action)
        t = len(taken)
        return atari.Seen(pictures[t], rewards[t - 1], ends[t - 1])

    params = network(4)
    played = unroll(step, params, pictures[0], 5, generator(2), CHOICES)
    net = layers(params)
    outputs = net((pictures.flatten(0, 1).permute(0, 3, 1, 2) / 255).double()).unflatten(0, (6, 3))
    slow = slow_loss(outputs[:5], torch.stack(taken), rewards.double(), ends, outputs[5, :, -1].detach(), CHOICES)
    torch.testing.assert_close(played.loss, slow.detach(), rtol=1e-6, atol=0)  # pictures are float32 before they are 64
    slow.backward()
    for found, leaf in zip(played.grads.values(), net.parameters(), strict=True):
        torch.testing.assert_close(found, leaf.grad, rtol=1e-5, atol=1e-8)
    assert torch.equal(played.pixels, pictures[5])
    assert torch.equal(played.reward, rewards)


def test_actions_are_drawn_from_the_policy():
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(30_000, 3)
    found = torch.bincount(pick(logits, generator(0)), minlength=3) / 30_000
    torch.testing.assert_close(found, logits[0].softmax(0), atol=0.01, rtol=0)


def test_rmsprop_is_pytorchs():
    leaf = torch.linspace(-1, 1, 7, dtype=torch.float64)
    ours, state = {"w": leaf.clone()}, {"w": torch.zeros_like(leaf)}
    theirs = leaf.clone().requires_grad_()
    reference = torch.optim.RMSprop([theirs], lr=0.1, alpha=0.9, eps=1e-4)
    update = rmsprop(0.1, 0.9, 1e-4).update
    for _ in range(5):
        theirs.grad = theirs.detach().sin()
        ours, state = update(ours, {"w": ours["w"].sin()}, state)
        reference.step()
    torch.testing.assert_close(ours["w"], theirs.detach(), rtol=1e-12, atol=0)


def test_scores_are_of_the_last_episode_that_ended():
    latest = torch.full((2,), math.nan, dtype=torch.float64)
    running = torch.zeros_like(latest)
    reward = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    ended = torch.tensor([[False, False], [True, False], [False, False]])
    latest, running = agent.tally(latest, running, reward, ended)
    assert latest[0] == 3 and running.tolist() == [3, 3] and latest[1].isnan()
    assert agent.score(latest, running) == 3.0


# ---------------------------------------------------------------- learning a game


def learn(checkpoint=None, game="demon_attack", leap=True):
    return agent.train(
        game, actor_critic.encoder(generator(0, "encoder")), TINY, 0, ("meta", 0, 0), checkpoint, {"of": game}, leap
    )


def test_leap_is_summed_up_on_the_way(monkeypatch):
    """The energy's meta-gradient from the stored path: minus the displacement, plus |change of loss| gradient."""
    assert learn(leap=False)["total"]["encoder.0.weight"].count_nonzero() == 0
    path, losses = [], [0.0, 1e3, -2e3, 5e3, 4e3, 9e3]  # large, so that their part of the sum matters

    def spy(step, params, *args, learns=True, **kwargs):
        played = unroll(step, params, *args, learns=learns, **kwargs)._replace(loss=torch.tensor(losses[len(path)]))
        path.append((params, played))
        return played

    monkeypatch.setattr(agent, "unroll", spy)
    found = learn()["total"]
    assert len(path) == TINY.updates + 1  # the end of the path has a loss too
    assert set(found) == {name for name in path[0][0] if name.startswith("encoder.")}
    for name, total in found.items():
        way = path[0][0][name].double() - path[-1][0][name].double()
        term = torch.zeros_like(way)
        for (_, here), (_, there) in pairwise(path):
            term = term + (there.loss - here.loss).abs().double() * here.grads[name].double()
        assert term.abs().max() > way.abs().max()
        torch.testing.assert_close(total.double(), way + term, rtol=1e-4, atol=1e-4 * float(term.abs().max()))


@pytest.mark.slow
def test_a_game_that_was_stopped_goes_on_as_if_it_had_not(tmp_path, monkeypatch):
    whole, calls = learn(), []

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:  # in the second segment
            raise Interrupted("SIGTERM")
        return unroll(*args, **kwargs)

    monkeypatch.setattr(agent, "unroll", stopping)
    with pytest.raises(Interrupted):
        learn(tmp_path / "game.pt")
    assert torch.load(tmp_path / "game.pt", weights_only=True)["update"] == 2
    resumed = learn(tmp_path / "game.pt")
    assert len(calls) == 4 + 4  # the three updates that were missing, and the loss at the end
    assert resumed["curve"] == whole["curve"] and torch.equal(resumed["latest"], whole["latest"])
    for group in ("params", "square", "total"):
        for name, leaf in whole[group].items():
            assert torch.equal(resumed[group][name], leaf), name


# ---------------------------------------------------------------- the chain


def job(name, out, *words, size="smoke", **departures):
    settings = json.dumps(DEPARTURES | departures)
    chain.main([str(word) for word in [name, *words, "--size", size, "--settings", settings, "--out", out]])
    return out


def game_job(folder, seed, k, place, start=None, games=2, **departures):
    out = folder / f"step{k}/seed{seed}/game{place}.safetensors"
    options = ["--start", start] if start else []
    numbers = ["--seed", seed, "--meta-step", k, "--game", place, "--games", games]
    files = ["--curve", out.with_suffix(".csv"), "--checkpoints", folder / "checkpoints", "--device", "cpu"]
    return job("game", out, *numbers, *options, *files, **departures)


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """The files that the two games of a first meta-step write; tests use copies."""
    folder = tmp_path_factory.mktemp("shares")
    for place in range(2):
        game_job(folder, 0, 0, place)
    return folder


def copied(shares, folder):
    """Copy the files of both games into the test's own folder. -> their paths"""
    shutil.copytree(shares, folder, dirs_exist_ok=True)
    return [folder / f"step0/seed0/game{place}.safetensors" for place in range(2)]


def update_job(folder, seed, k, shares, start=None, **departures):
    out = folder / f"step{k + 1}/seed{seed}.safetensors"
    options = ["--start", start] if start else []
    return job("update", out, "--seed", seed, "--meta-step", k, *options, "--shares", *shares, **departures)


def state_job(folder, *ends, size="smoke"):
    words = ["--method", "leap", "--initialisations", *ends, "--history", folder / "leap.csv", "--device", "cpu"]
    return job("state", folder / "leap.safetensors", *words, size=size)


@pytest.mark.slow
def test_split_jobs_make_the_update_of_one_process(tmp_path):
    first = update_job(tmp_path, 3, 0, [game_job(tmp_path, 3, 0, place) for place in range(2)])
    second = update_job(tmp_path, 3, 1, [game_job(tmp_path, 3, 1, place, first) for place in range(2)], first)
    assert not list((tmp_path / "checkpoints").iterdir())

    params = actor_critic.encoder(generator(3, "encoder"))
    outer, losses = adam(TINY.outer_lr), []
    state = outer.init(params)
    for k in range(2):
        games = chain.drawn(TINY, 3, k, 2)
        trained = [
            agent.train(game, params, TINY, 3, ("meta", k, place), None, {}, leap=True)
            for place, game in enumerate(games)
        ]
        mean = {name: (trained[0]["total"][name] + trained[1]["total"][name]) / 2 for name in params}
        params, state = outer.update(params, mean, state)
        losses.append(sum(each["curve"][-1][2] for each in trained) / 2)
    tensors, _ = read(second)
    for name, leaf in params.items():
        assert torch.equal(tensors[f"params/{name}"], leaf)
        assert torch.equal(tensors[f"square/{name}"], state["square"][name])
    assert not torch.equal(
        params["encoder.0.weight"], actor_critic.encoder(generator(3, "encoder"))["encoder.0.weight"]
    )

    # Evaluation reads the same parameters, and the history is there too.
    learnt, about = states.read(state_job(tmp_path, second))
    assert about["method"] == "leap" and about["settings"] == json.loads(json.dumps(chain.of_training(TINY)))
    assert about["seeds"] == [3] and about["seconds"]["seed3"] > 0
    assert learnt.keys() == {(0, 3)} and learnt[0, 3]["params"].keys() == params.keys()
    assert all(torch.equal(learnt[0, 3]["params"][name], leaf) for name, leaf in params.items())
    history = rows.read(tmp_path / "leap.csv")
    assert history.loc[history["metric"] == "meta_loss", ["step", "value"]].to_numpy().tolist() == [
        [0, losses[0]], [1, losses[1]]
    ]  # fmt: skip
    ends = history.loc[history["step"].isna()].set_index("metric")["value"]
    assert ends.pop("moved_init") > 0 and ends.to_dict() == {"meta_step": 2.0, "games": 2.0}


def test_meta_training_does_not_read_the_games_of_the_evaluation(tmp_path):
    one = game_job(tmp_path / "one", 0, 0, 0, games=1, updates=1)
    other = game_job(tmp_path / "other", 0, 0, 0, games=1, updates=1, heldout=["pong"], larger=[])
    assert read(one)[1]["checksum"] == read(other)[1]["checksum"]
    update_job(tmp_path, 0, 0, [one], updates=1, seen=["alien"])
    assert run.EXPERIMENT.evaluation == {"heldout", "seen", "larger"}


@pytest.mark.slow
def test_a_share_of_something_else_is_refused(tmp_path, shares):
    shares = copied(shares, tmp_path)
    with pytest.raises(SystemExit, match=r"found shares of games number \[0, 0\], needed each from 0 once"):
        update_job(tmp_path, 0, 0, [shares[0], shares[0]])
    with pytest.raises(SystemExit, match="not a share of this meta-step: games is 2, needed 1"):
        update_job(tmp_path, 0, 0, shares[:1])
    with pytest.raises(SystemExit, match="seed is 0, needed 1"):
        update_job(tmp_path, 1, 0, shares)
    with pytest.raises(SystemExit, match="settings is '.*', needed '"):
        update_job(tmp_path, 0, 0, shares, learning_rate=0.5)
    with pytest.raises(SystemExit, match="size is 'smoke', needed 'quick'"):
        update_job(tmp_path, 0, 0, shares, size="quick")
    made = update_job(tmp_path, 0, 0, shares)
    with pytest.raises(SystemExit, match="not the initialisation of this meta-step: meta_step is 1, needed 2"):
        game_job(tmp_path, 0, 2, 0, made)
    with pytest.raises(SystemExit, match="seed is 0, needed 1"):
        game_job(tmp_path, 1, 1, 0, made)
    with pytest.raises(SystemExit, match="settings is '.*', needed '"):
        game_job(tmp_path, 0, 1, 0, made, learning_rate=0.5)
    with pytest.raises(SystemExit, match="not the end of such a chain: size is 'smoke', needed 'quick'"):
        state_job(tmp_path, made, size="quick")
    with pytest.raises(SystemExit, match="found the seed 0 twice"):
        state_job(tmp_path, made, made)
    shares[1].write_bytes(shares[1].read_bytes()[:-8])
    with pytest.raises(SystemExit, match="damaged.*call snakemake again"):
        update_job(tmp_path, 0, 0, shares)
    with pytest.raises(SystemExit, match="step9.safetensors: no such data file. Delete it and call snakemake again"):
        state_job(tmp_path, tmp_path / "step9.safetensors")


def test_the_command_train_says_that_training_is_a_chain():
    with pytest.raises(ValueError, match="the training of leap is a chain of jobs.*`snakemake atari` runs"):
        run.train_by_jobs(of_method("leap", None))


def test_no_game_is_drawn_twice_for_a_meta_step():
    found = [chain.drawn(PUBLISHED, 0, k, 16) for k in range(100)]
    assert all(len(set(games)) == 16 for games in found)
    assert set().union(*found) == set(atari.POOL)
    with pytest.raises(ValueError, match="needed 1 to 25"):
        chain.drawn(PUBLISHED, 0, 0, 26)


@pytest.mark.slow
@pytest.mark.full
def test_a_chain_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path):
    """A chain of the workflow stops after one game of its second meta-step. The same jobs run in one process."""
    folder, last = tmp_path / "cut", "results/smoke/atari/meta/step2/seed0.safetensors"
    folder.mkdir()
    shutil.copy(REPO / "config.yaml", folder)
    edit(folder / "config.yaml", lambda config: config.update(size="smoke"))
    work_out_settings(folder)
    for target in ("results/smoke/atari/meta/step1/seed0/game0.csv", last):
        result = snakemake(folder, target, "--cores", "1")
        assert result.returncode == 0, result.stdout
    assert result.stdout.count("Shell command: exec") == 1  # of four games, only the missing one is played again
    assert not list((folder / "results/smoke/atari/meta").rglob("game*.safetensors"))  # removed after the sum

    entry = plan.read_size(SIZES / "smoke.yaml", ["atari"]).entries["atari"]
    settings, end = of_experiment("atari", entry, "smoke")["leap"]["train"], None
    for k in range(2):
        shares = [game_job(tmp_path / "whole", 0, k, place, end, **settings) for place in range(2)]
        end = update_job(tmp_path / "whole", 0, k, shares, end, **settings)
    assert read(folder / last)[1]["checksum"] == read(end)[1]["checksum"]


def of_method(name, folder):
    return Run(None, run.methods(TINY)[name], name, 0, 0, torch.device("cpu"), folder, {"of": name})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["leap", "scratch", "random_policy"])
def test_an_evaluation_learns_all_games_and_leaves_pictures(tmp_path, monkeypatch, name):
    monkeypatch.setattr(run, "LONGEST", 20)
    learnt = {"params": actor_critic.encoder(generator(5))} if name == "leap" else None
    found = run.judge(of_method(name, tmp_path), learnt)
    metrics = {(task, metric) for task, _, metric, _ in found.records}
    assert {("breakout", "score_heldout"), ("pong", "score_seen"), ("alien", "score_larger")} <= metrics
    assert {path.name for path in tmp_path.iterdir()} == {f"seed0-{game}.pt" for game in ("breakout", "pong", "alien")}
    assert found.arrays["pictures/pixels"].shape == (8, 84, 84, 3) and found.arrays["pictures/step"][0] == 0
    again = run.judge(of_method(name, tmp_path), learnt)  # from the checkpoints
    assert again.records == found.records

    ended = torch.load(tmp_path / "seed0-pong.pt", weights_only=True)["params"]
    if name == "random_policy":
        assert ended["head.weight"].count_nonzero() == 0
    else:
        encoder = learnt["params"] if learnt else actor_critic.encoder(generator(0, "evaluation", "pong", "encoder"))
        way = ended["encoder.0.weight"] - encoder["encoder.0.weight"]
        assert 0 < way.abs().max() < 0.01  # so training began at the learnt encoder


def test_other_seeds_leave_no_pictures(monkeypatch):
    monkeypatch.setattr(run, "train", lambda *args, **kwargs: {"curve": [], "seconds": 1.0})
    assert not run.judge(of_method("scratch", None)._replace(seed=1), None).arrays


# ---------------------------------------------------------------- rows


@pytest.fixture
def frame():
    """Two seeds of two games, in rows: random play scores 10 and 0, the best mean is 30 and 0."""
    parts = []
    for method, curves in {
        "random_policy": {"breakout": [10.0], "pong": [0.0], "alien": [5.0]},
        "scratch": {"breakout": [10.0, 20.0], "pong": [-4.0, -2.0], "alien": [5.0, 5.0]},
        "leap": {"breakout": [20.0, 30.0], "pong": [0.0, -1.0], "alien": [5.0, 5.0]},
    }.items():
        for seed, shift in ((0, -1.0), (1, 1.0)):
            records = [
                (game, 10 * (i + 1), f"score_{group}", value + (shift if game == "breakout" else 0.0))
                for (game, values), group in zip(curves.items(), ("heldout", "seen", "larger"), strict=True)
                for i, value in enumerate(values)
            ]
            parts.append(
                rows.rows(
                    records, experiment="atari", method=method, n_tasks=0, seed=seed, size="quick",
                    data_source="atari", data_checksum="0", settings="0", version="0", device="cpu", seconds=1.0,
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_scores_are_on_the_scale_of_their_game(frame):
    found = report.normalised(frame, "score_heldout")
    assert set(found["method"]) == {"leap", "scratch"}
    means = found.groupby(["method", "step"])["value"].mean()
    assert means.tolist() == [0.5, 1.0, 0.0, 0.5]
    assert quantity(frame, "score_area_heldout").groupby("method")["value"].mean().tolist() == [0.75, 0.25]
    assert quantity(frame, "score_end_heldout").groupby("method")["value"].mean().tolist() == [1.0, 0.5]
    # Nothing is above random play: the largest distance is the unit; no distance at all is 0.
    below = report.normalised(frame, "score_seen").groupby(["method", "step"])["value"].mean()
    assert below.tolist() == [0.0, -0.25, -1.0, -0.5]
    assert (report.normalised(frame, "score_larger")["value"] == 0).all()
    alone = frame.loc[frame["method"] != "random_policy"]
    assert report.normalised(alone, "score_heldout").empty  # without random play there is no scale
    assert "Random play was not run" in told(alone, alone)[1]


def test_table_and_figures(frame):
    lines, text = told(frame, frame)
    assert "| Breakout | held-out games | 30.0 ± 1.4 | 10.0 ± 1.4 | 20.0 ± 1.4 |" in text
    assert set(lines["method"]) == {"leap", "scratch"} and len(lines) == 12
    figures = drawn(frame)
    assert [axes.get_title(loc="left") for axes in figures["atari_scores"].axes] == [
        "Breakout (held out)", "Pong (seen in meta-training)", "Alien (more actions)"
    ]  # fmt: skip
    curve = figures["atari_scores"].axes[0].get_lines()[0].get_xydata()
    assert np.asarray(curve).tolist() == [[10, 0.5], [20, 1.0]]
    assert "nothing was meta-trained" in figures["atari_meta"].axes[0].texts[0].get_text()
    assert "no pictures" in figures["atari_pictures"].axes[0].texts[0].get_text()


def test_the_figure_of_pictures_has_a_row_a_method(frame, tmp_path):
    for method, seeds in (("scratch", "0-0"), ("scratch", "1-1"), ("leap", "0-0")):
        path = tmp_path / f"{method}/seeds{seeds}.npz"
        path.parent.mkdir(exist_ok=True)
        pixels = np.full((8, 84, 84, 3), 10 if method == "leap" else 20, dtype=np.uint8)
        arrays = {"pixels": pixels, "step": 3 * np.arange(8), "score": np.arange(8) / 2}
        np.savez(path, **({f"seed0/pictures/{name}": each for name, each in arrays.items()} if seeds == "0-0" else {}))
    figure = report.atari_pictures(frame, frame, sorted(tmp_path.glob("*/*.npz")))
    assert len(figure.axes) == 16 and figure.axes[15].get_title() == "step 21, score 3.5"
    assert [figure.axes[i].get_ylabel() for i in (0, 8)] == ["Leap", "No pretraining"]
    assert [int(figure.axes[i].images[0].get_array().max()) for i in (0, 8)] == [10, 20]
    assert figure.get_suptitle() == "Atari: what the agents see in Breakout"


# ---------------------------------------------------------------- curves of meta-training


def meta_curves(folder, scores):
    """The file of curves, gathered from those of single games: score of (seed, meta-step, place) -> [step]."""
    for (seed, k, place), values in scores.items():
        path = folder / f"step{k}/seed{seed}/game{place}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [("score", value) for value in values] + [("loss", 1.0) for _ in values]
        curve = pd.DataFrame(lines, columns=["metric", "value"]).assign(
            step=2 * [10 * (i + 1) for i in range(len(values))]
        )
        curve.assign(game=("pong", "air_raid")[place]).to_csv(path, index=False)
    seeds, meta_steps, games = (max(key[i] for key in scores) + 1 for i in range(3))
    words = ["curves", "--folder", folder, "--size", "quick", "--seeds", *range(seeds), "--meta-steps", meta_steps]
    chain.main([str(word) for word in [*words, "--games", games, "--out", folder / "meta_curves.csv"]])
    return folder / "meta_curves.csv"


@pytest.mark.slow
def test_curves_of_meta_training_are_those_that_the_jobs_wrote(tmp_path, shares):
    paths = [path.with_suffix(".csv") for path in copied(shares, tmp_path)]
    found = chain.collect(tmp_path, "smoke", [0], 1, 2)
    wrote = pd.concat(pd.read_csv(path) for path in paths)
    for metric in ("score", "loss"):
        assert found[metric].tolist() == wrote.loc[wrote["metric"] == metric, "value"].tolist()
    games = chain.drawn(TINY, 0, 0, 2)
    assert found.groupby("place")["game"].unique().map(list).tolist() == [[game] for game in games]
    assert set(found["meta_step"]) == {1} and len(found) == len(wrote) / 2

    with pytest.raises(ValueError, match=r"step1/seed0/game0.csv: found no curve.*call snakemake again"):
        chain.collect(tmp_path, "smoke", [0], 2, 2)
    paths[1].write_text("\n".join(paths[1].read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ValueError, match=r"game1.csv: found games .* and 1 gaps, needed a score and a loss at each"):
        chain.collect(tmp_path, "smoke", [0], 1, 2)


def test_the_figure_of_meta_training_has_a_line_a_meta_step(frame, tmp_path):
    curves = meta_curves(tmp_path, {
        (0, 0, 0): [0.0, 1.0], (1, 0, 0): [0.0, 3.0], (0, 0, 1): [100.0, 200.0], (1, 0, 1): [100.0, 200.0],
        (0, 1, 0): [2.0, 3.0], (1, 1, 0): [4.0, 5.0], (0, 1, 1): [200.0, 300.0], (1, 1, 1): [200.0, 500.0],
    })  # fmt: skip
    figure = report.atari_meta(frame, frame, [curves])
    lines = {
        axes.get_title(loc="left"): [line.get_ydata().tolist() for line in axes.get_lines()] for axes in figure.axes
    }
    assert lines["Pong"] == [[0.0, 2.0], [3.0, 4.0]] and lines["AirRaid"] == [[100.0, 200.0], [200.0, 400.0]]
    assert lines["mean over games"] == [
        pytest.approx([0.0, (2 / 4 + 1 / 3) / 2]), pytest.approx([(3 / 4 + 1 / 3) / 2, 1.0])
    ]  # fmt: skip
    pong = figure.axes[1].collections[0].get_paths()[0].get_extents()
    assert (pong.y0, pong.y1) == (0.0, pytest.approx(2 + 2**0.5))  # of the last point: 1 and 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1", "2"]
    with pytest.raises(ValueError, match="meta-training at quick, needed those at paper"):
        report.atari_meta(frame.assign(size="paper"), frame, [curves])


def test_many_meta_steps_and_points_share_a_line_and_a_point():
    keys = [(seed, k, step) for seed in range(2) for k in range(1, 13) for step in range(1, 121)]
    curves = pd.DataFrame(keys, columns=["seed", "meta_step", "step"]).assign(game="pong")
    curves["score"] = 1000.0 * curves["meta_step"] + curves["step"]
    means, names = report.blocks(curves)
    assert names == ["1 to 3", "4 to 6", "7 to 8", "9 to 10", "11 to 12"]
    assert len(means) == 2 * 5 * report.POINTS and means["step"].max() == 120
    first = means.loc[(means["seed"] == 0) & (means["block"] == 0) & (means["step"] == 3), "score"]
    assert first.tolist() == [2002.0]
