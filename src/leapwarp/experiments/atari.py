"""Leap's reinforcement learning experiment (appendix H): Atari games, from a meta-learnt encoder or a random one.

    python -m leapwarp.experiments.atari --profile quick --method scratch --n-tasks 0 --seeds 0 \
        --data results/quick/atari/meta/step2 --out scratch.csv

An actor-critic learns games held out of meta-training, games met there, and games with more actions than any of those.
The encoder comes from a chain of meta-steps (experiments/atari_chain.py), the head is always random. The last method
plays at random: scores are put on a scale where it is 0.

One run takes, on a core: smoke, three seconds; quick, 40 s; paper, six hours. To expect: at quick no order at all,
for it trains for a three-hundredth of the published time after 2 of 100 meta-steps: it proves that the chain works.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from leapwarp.data.store import DataError, read
from leapwarp.experiments.atari_agent import Settings, pictures, train
from leapwarp.experiments.command import Record, main
from leapwarp.files import atomic
from leapwarp.models import actor_critic
from leapwarp.rng import generator
from leapwarp.trees import Params, to_device
from leapwarp.worlds import atari

PAPER = Settings()
QUICK = replace(
    PAPER,
    batch=8,  # so that each emulator plays long enough for its episodes to end
    updates=400,
    restart=200,
    every=20,
    pool=("air_raid", "demon_attack", "up_n_down"),
    heldout=("breakout",),
    seen=("up_n_down",),
    larger=("alien",),
)
SMOKE = replace(QUICK, updates=4, restart=2, every=1, pool=("demon_attack", "pong"), seen=("pong",), larger=("alien",))
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}
GROUPS = ("heldout", "seen", "larger")  # of games; a metric is named score_<group>
PICTURES, LONGEST = 8, 2000  # of an episode, and steps of it


class Method(NamedTuple):
    settings: Settings
    start: str
    """where the encoder comes from: meta, random, or nowhere where nothing is learnt"""
    pretrains: bool = False  # on games that are drawn anew for every meta-step, so that there is no count of tasks


def methods(settings: Settings) -> dict[str, Method]:
    return {
        "leap": Method(settings, "meta"),
        "scratch": Method(settings, "random"),
        "random_policy": Method(replace(settings, updates=min(settings.updates, PAPER.restart)), "nowhere"),
    }


class Games(NamedTuple):
    """The games, and the folder of initialisations, one file a seed."""

    folder: Path
    checksum: str
    source: str = "atari"


def load(folder: Path) -> Games:
    return Games(folder, atari.checksum())


def initialisation(folder: Path, profile: str, seed: int) -> tuple[Params, dict[str, str]]:
    """The encoder that the chain of a seed has come to, and what is known of it."""
    advice = "Delete it and let snakemake make it: `python -m leapwarp.experiments.atari_chain update` does."
    tensors, about = read(folder / f"seed{seed}.safetensors", advice)
    found = {name.removeprefix("params/"): leaf for name, leaf in tensors.items() if name.startswith("params/")}
    if found.keys() != actor_critic.encoder(generator(0)).keys():
        raise DataError(
            f"{folder}/seed{seed}.safetensors: found parameters {sorted(found)}, needed those of an encoder."
        )
    if (about.get("profile"), about.get("seed")) != (profile, str(seed)):
        of = f"profile {about.get('profile')}, seed {about.get('seed')}"
        raise DataError(f"{folder}/seed{seed}.safetensors: of {of}, needed profile {profile}, seed {seed}.")
    return found, about


def run(
    data: Games,
    method: Method,
    name: str,
    n_tasks: int,
    seed: int,
    device: torch.device,
    checkpoints: Path | None,
    identity: dict[str, Any],
) -> tuple[list[Record], float]:
    """Learn every game of the evaluation; each has a checkpoint of its own."""
    settings, seconds = method.settings, 0.0
    records: list[Record] = []
    meta, about = {}, {}
    if method.start == "meta":
        meta, about = initialisation(data.folder, identity["profile"], seed)
    if about:
        identity = identity | {"initialisation": about["checksum"]}
        records += [("", k, "meta_loss", loss) for k, loss in enumerate(json.loads(about["losses"]))]
        records += [("", None, name, float(about[name])) for name in ("meta_step", "games")]
    for group in GROUPS:
        for game in getattr(settings, group):
            # The same streams for all methods: episodes have the same seeds, and heads begin alike.
            encoder = meta or actor_critic.encoder(generator(seed, "evaluation", game, "encoder"))
            trained = train(
                game,
                to_device(encoder, device),
                settings,
                seed,
                ("evaluation", game),
                checkpoints / f"seed{seed}_{game}.pt" if checkpoints else None,
                identity | {"game": game, "ale_py": atari.VERSION},
                learns=method.start != "nowhere",
            )
            records += [
                (game, step, f"score_{group}" if metric == "score" else metric, value)
                for step, metric, value in trained["curve"]
            ]
            seconds += trained["seconds"]
            if checkpoints and seed == 0 and game == settings.heldout[0]:
                began = time.monotonic()
                keep(checkpoints / "pictures.npz", trained["params"], game, settings, identity["profile"])
                seconds += time.monotonic() - began
    records.append(("", None, "train_seconds", seconds))
    return records, seconds


def keep(path: Path, params: Params, game: str, settings: Settings, profile: str) -> None:
    """Write what a trained agent sees in one episode, for the contact sheet."""
    shown = pictures(params, game, settings, PICTURES, LONGEST)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            pixels=shown.pixels.numpy(),
            step=np.array(shown.steps),
            score=np.array(shown.scores),
            game=np.array(game),
            profile=np.array(profile),
        )


def cli(arguments: Sequence[str] | None = None) -> None:
    main("atari", __doc__, PROFILES, methods, load, run, arguments)


if __name__ == "__main__":
    cli()
