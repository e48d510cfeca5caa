"""Atari games: a batch of emulators of one game, which are stepped together. ale-py contains the games."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import ale_py
import torch
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from torch import Tensor

FEW_ACTIONS = {  # the games of Gym's list with at most ten actions, with their numbers of actions
    "air_raid": 6, "amidar": 10, "assault": 7, "asterix": 9, "atlantis": 4, "beam_rider": 9, "bowling": 6,
    "breakout": 4, "carnival": 6, "crazy_climber": 9, "demon_attack": 6, "enduro": 9, "freeway": 3, "gopher": 8,
    "ms_pacman": 9, "name_this_game": 6, "phoenix": 8, "pong": 6, "pooyan": 6, "qbert": 6, "skiing": 3,
    "space_invaders": 6, "time_pilot": 10, "tutankham": 8, "up_n_down": 6, "video_pinball": 9, "wizard_of_wor": 10,
}  # fmt: skip
HELD_OUT = ("breakout", "space_invaders")  # Leap App. H
POOL = tuple(game for game in FEW_ACTIONS if game not in HELD_OUT)
# Only known games are opened, since some files, such as combat.bin, end the process when they are loaded.
ACTIONS = FEW_ACTIONS | {"alien": 18, "gravitar": 18, "road_runner": 18}

VERSION = ale_py.__version__

ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)


class Game(NamedTuple):
    name: str
    n_actions: int
    emulators: AtariVectorEnv


class Seen(NamedTuple):
    """The result of one step of all emulators."""

    pixels: Tensor
    """[env, 84, 84, 3] bytes; if an episode has ended, the first frame of the next one"""
    reward: Tensor
    """[env] the game's own reward, not clipped"""
    ended: Tensor
    """[env] bool"""


def start(name: str, n_envs: int, frame_skip: int, noops: int) -> Game:
    """`n_envs` emulators of a game, in one thread. Call `reset` before the first step.

    Args:
        frame_skip: frames for which an action is repeated. The observation is the maximum of the last two.
        noops: largest number of idle actions at the start of an episode.

    Raises:
        ValueError: the game is not listed in ACTIONS, or has another number of actions in this version of ale-py.
    """
    if name not in ACTIONS:
        raise ValueError(f"{name!r} is not a game that is known here. Known: {', '.join(sorted(ACTIONS))}.")
    emulators = AtariVectorEnv(
        name,
        n_envs,
        num_threads=1,
        grayscale=False,
        stack_num=1,
        frameskip=frame_skip,
        noop_max=noops,
        reward_clipping=False,
        repeat_action_probability=0.0,
        episodic_life=False,
        use_fire_reset=True,
        maxpool=True,
        autoreset_mode="SameStep",
    )
    found = len(emulators.ale.get_action_set())
    if found != ACTIONS[name]:
        raise ValueError(f"{name} has {found} actions in ale-py {VERSION}, needed {ACTIONS[name]}.")
    return Game(name, found, emulators)


def reset(game: Game, rng: torch.Generator) -> Tensor:
    """Restart all episodes. They depend only on the stream, and not on earlier play. -> pixels"""
    seed = int(torch.randint(2**30, (), generator=rng))
    pixels, _ = game.emulators.reset(seed=seed)
    return torch.from_numpy(pixels)[:, 0]


def step(game: Game, action: Tensor) -> Seen:
    pixels, reward, terminated, truncated, _ = game.emulators.step(action.cpu().numpy())
    # ale-py ends an episode after half an hour of play, and this counts as its end.
    return Seen(
        torch.from_numpy(pixels)[:, 0], torch.from_numpy(reward).float(), torch.from_numpy(terminated | truncated)
    )


def checksum(games: tuple[str, ...] = tuple(ACTIONS)) -> str:
    """SHA-256 of the files of the games."""
    digest = hashlib.sha256()
    for name in sorted(games):
        path = roms.get_rom_path(name)
        if path is None:
            raise ValueError(f"ale-py {VERSION} has no game {name!r}: install the version of requirements.lock.")
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()
