"""Leap's meta-training on Atari as a chain of jobs: the games of a meta-step each on their own, then one update.

    python -m leapwarp.experiments.atari_chain game --profile quick --seed 0 --meta-step 0 --game 0 --games 3 \
        --out game0.safetensors --curve game0.csv
    python -m leapwarp.experiments.atari_chain update --profile quick --seed 0 --meta-step 0 \
        --shares game0.safetensors game1.safetensors game2.safetensors --out seed0.safetensors

`game` learns one game of the meta-batch from the initialisation (`--start`; random before the first update) and writes
its share of the meta-gradient, which Leap has summed up on the way, and its learning curve. `update` takes the mean of
the shares and makes the next initialisation. Everything random is named by seed, meta-step and number of the game, so
that a chain that was cut off anywhere goes on as if it had not been.

A game takes, on a core: smoke, a second; quick, 13 s; paper, three quarters of an hour. An update takes a second.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from leapwarp import host, interrupt, provenance
from leapwarp.data.store import DataError, read, write
from leapwarp.experiments.atari import PROFILES
from leapwarp.experiments.atari_agent import Settings, train
from leapwarp.experiments.command import NOT_RESULTS, job, pick_device, seed_number
from leapwarp.files import atomic
from leapwarp.models import actor_critic
from leapwarp.optim import adam
from leapwarp.rng import generator
from leapwarp.trees import Params, map_tree, to_device, zeros_like
from leapwarp.worlds import atari

ADVICE = "Delete it and call snakemake again: it makes the file anew."


def drawn(settings: Settings, seed: int, meta_step: int, games: int) -> list[str]:
    """The games of one meta-step, none of them twice."""
    if not 1 <= games <= len(settings.pool):
        raise ValueError(f"a meta-batch of {games} games, needed 1 to {len(settings.pool)}: as many as the pool has.")
    order = torch.randperm(len(settings.pool), generator=generator(seed, "games", meta_step))
    return [settings.pool[i] for i in order[:games].tolist()]


def pack(group: str, tree: Params) -> dict[str, Tensor]:
    return {f"{group}/{name}": leaf for name, leaf in tree.items()}


def unpack(group: str, tensors: dict[str, Tensor]) -> Params:
    return {name.removeprefix(f"{group}/"): leaf for name, leaf in tensors.items() if name.startswith(f"{group}/")}


def numbers_of(settings: Settings) -> dict[str, Any]:
    """Whatever of the settings a share depends on."""
    return {name: value for name, value in asdict(settings).items() if name not in NOT_RESULTS}


def begin(
    path: Path | None, settings: Settings, profile: str, seed: int, meta_step: int
) -> tuple[Params, dict[str, Params | int], dict[str, str]]:
    """Initialisation, state of Adam, and what the file says of them; the random ones where there is no file.

    Raises:
        DataError: the file is damaged, or of another profile, seed or meta-step.
    """
    if path is None:
        params = actor_critic.encoder(generator(seed, "encoder"))
        return params, adam(settings.outer_lr).init(params), {"checksum": "random", "losses": "[]"}
    tensors, about = read(path, ADVICE)
    needed = {"profile": profile, "seed": str(seed), "meta_step": str(meta_step)}
    wrong = [
        f"{name} is {about.get(name)}, needed {value}" for name, value in needed.items() if about.get(name) != value
    ]
    if wrong:
        raise DataError(f"{path}: not the initialisation of this meta-step: {'; '.join(wrong)}.")
    state = {"mean": unpack("mean", tensors), "square": unpack("square", tensors), "count": int(about["meta_step"])}
    return unpack("params", tensors), state, about


def play_game(options: argparse.Namespace, settings: Settings) -> None:
    """One game of a meta-step."""
    seed, k, place = options.seed, options.meta_step, options.game
    games = drawn(settings, seed, k, options.games)
    if not 0 <= place < len(games):
        raise ValueError(f"game number {place}, needed 0 to {len(games) - 1}.")
    encoder, _, about = begin(options.start, settings, options.profile, seed, k)
    numbers = numbers_of(settings)
    shared = {  # by all games of one meta-step
        "profile": options.profile,
        "seed": seed,
        "meta_step": k,
        "games": options.games,
        "start": about["checksum"],
        "settings": provenance.digest(numbers),
    }
    identity = shared | numbers | {"game": games[place], "data": atari.checksum((games[place],))}
    identity |= {"code": provenance.code(), "torch": torch.__version__, "ale_py": atari.VERSION}
    checkpoint = options.checkpoints / f"game{place}.pt" if options.checkpoints else None
    names = ("meta", k, place)
    encoder = to_device(encoder, pick_device(options.device))
    trained = train(games[place], encoder, settings, seed, names, checkpoint, identity, leap=True)
    curve = pd.DataFrame(trained["curve"], columns=["step", "metric", "value"])
    with atomic(options.curve) as path:
        curve.assign(game=games[place]).to_csv(path, index=False, lineterminator="\n")
    last = {metric: float(rows["value"].iloc[-1]) for metric, rows in curve.groupby("metric")}
    about = {"shared": json.dumps(shared), "place": str(place), "game": games[place], "last": json.dumps(last)}
    write(options.out, trained["total"], about | {"seconds": f"{trained['seconds']:.1f}"})
    if checkpoint:
        checkpoint.unlink(missing_ok=True)  # the share holds what is needed of it
    print(f"{games[place]}: {trained['seconds']:.0f} s", flush=True)


def update(options: argparse.Namespace, settings: Settings) -> None:
    """The next initialisation."""
    encoder, state, about = begin(options.start, settings, options.profile, options.seed, options.meta_step)
    total, places, losses = zeros_like(encoder), [], []
    needed = {"seed": options.seed, "meta_step": options.meta_step, "start": about["checksum"]}
    needed |= {"profile": options.profile, "games": len(options.shares)}
    needed["settings"] = provenance.digest(numbers_of(settings))
    for path in options.shares:
        share, of_share = read(path, ADVICE)
        found = json.loads(of_share["shared"])
        wrong = [name for name, value in needed.items() if found[name] != value]
        if wrong:
            listing = "; ".join(f"{name} is {found[name]!r}, needed {needed[name]!r}" for name in wrong)
            raise DataError(f"{path}: not a share of this meta-step: {listing}. {ADVICE}")
        places.append(int(of_share["place"]))
        losses.append(json.loads(of_share["last"])["loss"])
        total = map_tree(torch.add, total, share)
    if sorted(places) != list(range(len(places))):
        raise DataError(f"found shares of games number {sorted(places)}, needed each from 0 once.")
    gradient = map_tree(lambda leaf: leaf / len(places), total)
    params, state = adam(settings.outer_lr).update(encoder, gradient, state)
    bad = [name for name, leaf in params.items() if not leaf.isfinite().all()]
    if bad:
        raise FloatingPointError(f"{bad[0]} is no longer finite after the meta-update. Lower the meta learning rate.")
    history = [*json.loads(about["losses"]), sum(losses) / len(losses)]
    tensors = pack("params", params) | pack("mean", state["mean"]) | pack("square", state["square"])
    about = {"profile": options.profile, "seed": str(options.seed), "meta_step": str(options.meta_step + 1)}
    about |= {"games": str(len(places)), "losses": json.dumps(history)}
    write(options.out, tensors, about)
    print(f"meta-step {options.meta_step + 1}: loss at the end of {len(places)} games {history[-1]:.4f}", flush=True)


def cli(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.experiments.atari_chain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    of_game = commands.add_parser("game", help="learn one game of a meta-step")
    of_update = commands.add_parser("update", help="make the next initialisation of the shares of all games")
    for command in (of_game, of_update):
        command.add_argument("--profile", choices=list(PROFILES), default="quick", help="size of the experiment")
        command.add_argument("--seed", type=seed_number, required=True)
        command.add_argument("--meta-step", type=seed_number, required=True, help="from 0")
        command.add_argument("--start", type=Path, help="the initialisation; random where there is none")
        command.add_argument("--out", type=Path, required=True, help="file to write")
    of_game.add_argument("--game", type=seed_number, required=True, help="its number in the meta-batch, from 0")
    of_game.add_argument("--games", type=int, required=True, help="how many there are")
    of_game.add_argument("--curve", type=Path, required=True, help="CSV of the learning curve to write")
    of_game.add_argument("--checkpoints", type=Path, help="folder to keep a checkpoint in, and to resume from")
    of_game.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    of_update.add_argument("--shares", type=Path, nargs="+", required=True, help="what the games wrote, in order")
    options = parser.parse_args(arguments)
    if (options.meta_step > 0) != bool(options.start):
        parser.error("argument --start: needed from meta-step 1 on, and not before")
    interrupt.watch()
    host.settle()
    print(shlex.join(["python", "-m", "leapwarp.experiments.atari_chain", *(arguments or sys.argv[1:])]), flush=True)
    with job(f"{options.command} of meta-step {options.meta_step}, seed {options.seed}", options.out):
        (play_game if options.command == "game" else update)(options, PROFILES[options.profile])


if __name__ == "__main__":
    cli()
