"""Time an agent that learns Atari games: steps a second on one thread, and where the time goes.

    python benchmarks/atari.py [--games breakout pong] [--updates 30]

An update is 32 emulators x 5 steps. It is timed in two ways. The library's way is shown with the shares of the
emulators (ale-py's batch, one thread), of the network (policy, gradient, RMSProp, Leap's sum) and of the rest, which is
Python. The straightforward way has a Python loop over 32 emulators whose frames are scaled one by one, a policy without
gradient, and the network once more over all 160 frames for the gradient. The two take turns in every round, so that
other work on the machine slows both down. Times are the fastest, and the ratio is a median.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import ale_py
import torch
import torch.nn.functional as F
from ale_py import roms
from torch import Tensor

from leapwarp import host
from leapwarp.experiments.atari.agent import choices, encoder_of
from leapwarp.experiments.atari.run import PUBLISHED
from leapwarp.inner import Step
from leapwarp.learners.leap import leap_fold
from leapwarp.models import actor_critic
from leapwarp.optim import rmsprop
from leapwarp.rl.a2c import a2c_loss, shannon
from leapwarp.rl.returns import bootstrapped
from leapwarp.rl.unroll import pick, unroll
from leapwarp.rng import generator
from leapwarp.trees import Params, repeat, zeros_like
from leapwarp.worlds import atari


class Clock:
    """Seconds spent in the calls of a wrapped function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds += time.perf_counter() - began
            return result

        return timed


def agent(game: str) -> Params:
    return actor_critic.encoder(generator(0)) | actor_critic.head(atari.ACTIONS[game], generator(1))


def ours(game: str, of_emulators: Clock, of_network: Clock) -> Callable[[], None]:
    """An update with Leap's sum, as in `experiments.atari.agent`."""
    world = atari.start(game, PUBLISHED.batch, PUBLISHED.frame_skip, PUBLISHED.noops)
    rng, optimizer, fold = (
        generator(0),
        rmsprop(PUBLISHED.learning_rate, PUBLISHED.decay, PUBLISHED.epsilon),
        leap_fold(False),
    )
    params = agent(game)
    run: dict[str, Any] = {"params": params, "square": zeros_like(params), "before": None}
    run |= {"pixels": atari.reset(world, rng), "total": repeat(zeros_like(encoder_of(params)), 1)}
    step = of_emulators.wrap(lambda action: atari.step(world, action))

    def learn(grads: Params, loss: Tensor) -> None:
        here = Step(0, repeat(encoder_of(run["params"]), 1), repeat(encoder_of(grads), 1), loss[None])
        if run["before"]:
            run["total"] = fold(run["total"], run["before"], here)
        run["params"], run["square"] = optimizer.update(run["params"], grads, run["square"])
        run["before"] = here

    def update() -> None:
        inside = of_emulators.seconds
        began = time.perf_counter()
        played = unroll(step, run["params"], run["pixels"], PUBLISHED.length, rng, choices(PUBLISHED))
        learn(played.grads, played.loss)
        run["pixels"] = played.pixels
        of_network.seconds += time.perf_counter() - began - (of_emulators.seconds - inside)

    return update


def network_alone(game: str) -> Callable[[], None]:
    """The network's part of an update, on given frames."""
    params, rng = agent(game), generator(0)
    pixels = torch.randint(256, (PUBLISHED.batch, 84, 84, 3), generator=rng, dtype=torch.uint8)
    seen = atari.Seen(pixels, torch.zeros(PUBLISHED.batch), torch.zeros(PUBLISHED.batch, dtype=torch.bool))
    optimizer, fold = rmsprop(PUBLISHED.learning_rate, PUBLISHED.decay, PUBLISHED.epsilon), leap_fold(False)
    square, total = zeros_like(params), repeat(zeros_like(encoder_of(params)), 1)

    def update() -> None:
        played = unroll(lambda action: seen, params, pixels, PUBLISHED.length, rng, choices(PUBLISHED))
        here = Step(0, repeat(encoder_of(params), 1), repeat(encoder_of(played.grads), 1), played.loss[None])
        fold(total, here, here)
        optimizer.update(params, played.grads, square)

    return update


class PythonEmulators:
    """The same batch, one emulator after another."""

    def __init__(self, game: str) -> None:
        self.all = [ale_py.ALEInterface() for _ in range(PUBLISHED.batch)]
        for i, each in enumerate(self.all):
            each.setInt("random_seed", i)
            each.setFloat("repeat_action_probability", 0.0)
            each.loadROM(roms.get_rom_path(game))
        self.actions = self.all[0].getMinimalActionSet()

    def step(self, action: Tensor) -> atari.Seen:
        pixels, rewards, ends = [], [], []
        for each, chosen in zip(self.all, action.tolist(), strict=True):
            reward, pictures = 0.0, []
            for frame in range(PUBLISHED.frame_skip):
                reward += each.act(self.actions[chosen])
                if frame >= PUBLISHED.frame_skip - 2:
                    pictures.append(torch.from_numpy(each.getScreenRGB()))
            brighter = torch.maximum(*pictures).permute(2, 0, 1)[None].float()
            pixels.append(F.interpolate(brighter, (84, 84), mode="area")[0].permute(1, 2, 0).to(torch.uint8))
            rewards.append(reward)
            ends.append(each.game_over())
            if ends[-1]:
                each.reset_game()
        return atari.Seen(torch.stack(pixels), torch.tensor(rewards), torch.tensor(ends))


def straightforward(game: str) -> Callable[[], None]:
    emulators, rng, params = PythonEmulators(game), generator(0), agent(game)
    free = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    optimizer = torch.optim.RMSprop(
        free.values(), lr=PUBLISHED.learning_rate, alpha=PUBLISHED.decay, eps=PUBLISHED.epsilon
    )
    run = {"pixels": emulators.step(torch.zeros(PUBLISHED.batch, dtype=torch.int64)).pixels}

    def update() -> None:
        pictures, actions, rewards, ends = [], [], [], []
        for _ in range(PUBLISHED.length):
            with torch.no_grad():
                actions.append(pick(actor_critic.forward(free, run["pixels"])[:, :-1], rng))
            pictures.append(run["pixels"])
            seen = emulators.step(actions[-1])
            run["pixels"] = seen.pixels
            rewards.append(seen.reward.clamp(-PUBLISHED.reward_clip, PUBLISHED.reward_clip))
            ends.append(seen.ended)
        outputs = actor_critic.forward(free, torch.cat(pictures)).unflatten(0, (PUBLISHED.length, PUBLISHED.batch))
        with torch.no_grad():
            value = actor_critic.forward(free, run["pixels"])[:, -1]
        found = bootstrapped(torch.stack(rewards), torch.stack(ends), value, PUBLISHED.discount)
        weights = (PUBLISHED.value_weight, PUBLISHED.entropy_weight)
        optimizer.zero_grad()
        a2c_loss(outputs, torch.stack(actions), found, *weights, spread=shannon).mean().backward()
        optimizer.step()

    return update


def seconds(function: Callable[[], None]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def measure(game: str, updates: int) -> None:
    of_emulators, of_rest = Clock(), Clock()
    fast, slow, net = ours(game, of_emulators, of_rest), straightforward(game), network_alone(game)
    for warm in (fast, slow, net):
        warm()
    steps, found = PUBLISHED.batch * PUBLISHED.length, []
    for _ in range(updates):
        of_emulators.seconds = of_rest.seconds = 0.0
        whole = seconds(fast)
        found.append((whole, of_emulators.seconds, seconds(net), seconds(slow)))
    whole, emulators, network, other = (min(each) for each in zip(*found, strict=True))
    ratio = statistics.median(line[3] / line[0] for line in found)
    rest = max(0.0, whole - emulators - network)
    print(
        f"{game:16s} {steps / whole:7.0f} {emulators / whole:10.2f} {network / whole:8.2f} {rest / whole:7.2f}"
        f" {steps / other:16.0f} {ratio:7.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=["breakout", "pong", "up_n_down", "wizard_of_wor", "alien"])
    parser.add_argument("--updates", type=int, default=30, help="rounds a game")
    options = parser.parse_args()
    host.settle()
    print(f"torch {torch.__version__}, ale-py {ale_py.__version__}, one thread, {PUBLISHED.batch} emulators")
    print(f"{'':16s} steps/s  emulators  network  Python  straightforward   ratio")
    for game in options.games:
        measure(game, options.updates)


if __name__ == "__main__":
    main()
