"""Leap's meta-training on Atari as a chain of jobs: in a meta-step a job for each game, then one update.

    python -m leapwarp.experiments.atari.chain game --seed 0 --meta-step 0 --game 0 --games 3 \\
        --out game0.safetensors --curve game0.csv
    python -m leapwarp.experiments.atari.chain update --seed 0 --meta-step 0 \\
        --shares game0.safetensors game1.safetensors game2.safetensors --out seed0.safetensors
    python -m leapwarp.experiments.atari.chain state --method leap --initialisations seed0.safetensors \\
        --out leap.safetensors --history leap.csv

`game` learns one game of the meta-batch from the initialisation (`--start`; random before the first update). It writes
the game's share of the meta-gradient, which is Leap's sum along the path, and its learning curve. `update` takes the
mean of the shares and writes the next initialisation. `state` writes the last initialisations of the seeds in the form
of the command `train`. `curves` gathers the learning curves of all games. Random streams are named by seed, meta-step
and number of the game, so a chain that was interrupted gives the same results as an uninterrupted one.

A game takes, on a core: smoke, a second; quick, 13 s; paper, three quarters of an hour. The others take seconds.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from leapwarp import host, provenance
from leapwarp.data.store import DataError, read, write
from leapwarp.experiments import command
from leapwarp.experiments.atari.agent import Settings, train
from leapwarp.experiments.atari.run import EXPERIMENT, PUBLISHED
from leapwarp.experiments.base import Record, Trained
from leapwarp.experiments.settings import changed
from leapwarp.files import atomic
from leapwarp.fit import moved
from leapwarp.models import actor_critic
from leapwarp.optim import adam
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, map_tree, to_device, zeros_like
from leapwarp.worlds import atari

PROGRAM = "leapwarp.experiments.atari.chain"
ADVICE = "Delete it and call snakemake again: it makes the file anew."
COLUMNS = ["size", "seed", "meta_step", "place", "game", "step", "score", "loss"]  # of the curves of all games


def drawn(settings: Settings, seed: int, meta_step: int, games: int) -> list[str]:
    """The games of one meta-step, drawn without replacement."""
    if not 1 <= games <= len(settings.pool):
        raise ValueError(f"a meta-batch of {games} games, needed 1 to {len(settings.pool)}: as many as the pool has.")
    order = torch.randperm(len(settings.pool), generator=generator(seed, "games", meta_step))
    return [settings.pool[i] for i in order[:games].tolist()]


def pack(group: str, tree: Params) -> dict[str, Tensor]:
    return {f"{group}/{name}": leaf for name, leaf in tree.items()}


def unpack(group: str, tensors: dict[str, Tensor]) -> Params:
    return {name.removeprefix(f"{group}/"): leaf for name, leaf in tensors.items() if name.startswith(f"{group}/")}


def of_training(settings: Settings) -> dict[str, Any]:
    """The settings that a share depends on."""
    return {name: value for name, value in asdict(settings).items() if name not in EXPERIMENT.evaluation}


def of_chain(size: str, settings: Settings) -> dict[str, Any]:
    """The metadata of all files of a chain."""
    return {"size": size, "settings": provenance.digest(of_training(settings))}


def read_part(path: Path, what: str, needed: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a share or an initialisation, and the file's metadata, with its checksum.

    Raises:
        DataError: the file is damaged, or its metadata differ from `needed`.
    """
    tensors, metadata = read(path, ADVICE)
    about = json.loads(metadata.get("about", "{}")) | {"checksum": metadata["checksum"]}
    wrong = [
        f"{name} is {about.get(name)!r}, needed {value!r}" for name, value in needed.items() if about.get(name) != value
    ]
    if wrong:
        raise DataError(f"{path}: not {what}: {'; '.join(wrong)}. {ADVICE}")
    return tensors, about


def begin(
    path: Path | None, settings: Settings, needed: Mapping[str, Any]
) -> tuple[Params, dict[str, Params | int], dict[str, Any]]:
    """Initialisation, state of Adam, and their metadata. Without a file, the random initialisation.

    Raises:
        DataError: as `read_part`.
    """
    if path is None:
        params = actor_critic.encoder(generator(needed["seed"], "encoder"))
        return params, adam(settings.outer_lr).init(params), {"checksum": "random", "losses": [], "seconds": 0.0}
    tensors, about = read_part(path, "the initialisation of this meta-step", needed)
    state = {"mean": unpack("mean", tensors), "square": unpack("square", tensors), "count": about["meta_step"]}
    return unpack("params", tensors), state, about


def game(options: argparse.Namespace) -> None:
    """One game of a meta-step."""
    seed, k, place = options.seed, options.meta_step, options.game
    settings, device = changed(PUBLISHED, options.settings, "--settings"), host.pick_device(options.device)
    games = drawn(settings, seed, k, options.games)
    if place >= len(games):
        raise ValueError(f"game number {place}, needed 0 to {len(games) - 1}.")
    shared = of_chain(options.size, settings) | {"seed": seed, "meta_step": k}
    encoder, _, start = begin(options.start, settings, shared)
    shared |= {"games": options.games, "start": start["checksum"]}
    identity = shared | of_training(settings) | {"game": games[place], "data": atari.checksum((games[place],))}
    identity |= {"code": provenance.code(), "torch": torch.__version__, "ale_py": atari.VERSION}
    checkpoint = options.checkpoints / f"game{place}.pt" if options.checkpoints else None
    names = ("meta", k, place)
    trained = train(games[place], to_device(encoder, device), settings, seed, names, checkpoint, identity, leap=True)
    curve = pd.DataFrame(trained["curve"], columns=["step", "metric", "value"])
    with atomic(options.curve) as path:
        curve.assign(game=games[place]).to_csv(path, index=False, lineterminator="\n")
    loss = float(curve.loc[curve["metric"] == "loss", "value"].iloc[-1])
    about = shared | {"place": place, "game": games[place], "loss": loss, "seconds": trained["seconds"]}
    write(options.out, trained["total"], {"about": json.dumps(about)})
    if checkpoint:
        checkpoint.unlink(missing_ok=True)  # the share holds what is needed of it
    print(f"{games[place]}: {trained['seconds']:.0f} s", flush=True)


def update(options: argparse.Namespace) -> None:
    """The next initialisation."""
    settings = changed(PUBLISHED, options.settings, "--settings")
    known = of_chain(options.size, settings) | {"seed": options.seed, "meta_step": options.meta_step}
    encoder, state, start = begin(options.start, settings, known)
    known |= {"games": len(options.shares), "start": start["checksum"]}
    total, found = zeros_like(encoder), []
    for path in options.shares:
        share, about = read_part(path, "a share of this meta-step", known)
        total = map_tree(torch.add, total, share)
        found.append(about)
    places = sorted(about["place"] for about in found)
    if places != list(range(len(places))):
        raise DataError(f"found shares of games number {places}, needed each from 0 once.")
    gradient = map_tree(lambda leaf: leaf / len(places), total)
    params, state = adam(settings.outer_lr).update(encoder, gradient, state)
    bad = [name for name, leaf in params.items() if not leaf.isfinite().all()]
    if bad:
        raise FloatingPointError(f"{bad[0]} is no longer finite after the meta-update. Lower the meta learning rate.")
    loss = sum(about["loss"] for about in found) / len(found)
    tensors = pack("params", params) | pack("mean", state["mean"]) | pack("square", state["square"])
    known |= {"meta_step": options.meta_step + 1, "losses": [*start["losses"], loss]}
    known |= {"seconds": start["seconds"] + sum(about["seconds"] for about in found)}
    write(options.out, tensors, {"about": json.dumps(known)})
    print(f"meta-step {options.meta_step + 1}: loss at the end of {len(places)} games {loss:.4f}", flush=True)


def state(options: argparse.Namespace) -> None:
    """Write the last initialisations of some seeds in the files that the command `train` writes."""
    job = command.Job(options)
    needed = of_chain(options.size, job.method(options.method, {"--settings": options.settings}).settings)
    ends: dict[int, Trained] = {}
    for path in options.initialisations:
        tensors, about = read_part(path, "the end of such a chain", needed)
        needed |= {name: about[name] for name in ("meta_step", "games")}  # all chains have the same
        if about["seed"] in ends:
            raise DataError(f"{path}: found the seed {about['seed']} twice, needed each once.")
        records: list[Record] = [("", k, "meta_loss", loss) for k, loss in enumerate(about["losses"])]
        records += [("", None, name, float(about[name])) for name in ("meta_step", "games")]
        params, began = unpack("params", tensors), actor_critic.encoder(generator(about["seed"], "encoder"))
        way = moved(alone({"params": params}), alone({"params": began}))
        records += [("", None, name, of_run) for name, (of_run,) in way.items()]
        ends[about["seed"]] = Trained({"params": params}, records, about["seconds"])
    job.experiment = job.experiment._replace(train=lambda runs: [ends[run.seed] for run in runs])
    options.seeds = list(ends)
    command.train_runs(job, options)


def read_curve(path: Path) -> pd.DataFrame:
    """Columns game, step, score and loss. Raises ValueError if the file is missing, damaged or of two games."""
    try:
        lines = pd.read_csv(path, dtype={"game": str, "step": "int64", "value": float})
        wide = lines.pivot(index=["game", "step"], columns="metric", values="value").reset_index()
        curve = pd.DataFrame({name: wide[name] for name in ("game", "step", "score", "loss")})
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: found no curve of score and loss by step ({error}). {ADVICE}") from None
    games, gaps = sorted(set(curve["game"])), int(curve.isna().to_numpy().sum())
    if len(games) != 1 or gaps:
        raise ValueError(
            f"{path}: found games {games} and {gaps} gaps, needed a score and a loss at each step of one game. {ADVICE}"
        )
    return curve


def collect(folder: Path, size: str, seeds: Sequence[int], meta_steps: int, games: int) -> pd.DataFrame:
    """The curves of step<k>/seed<seed>/game<place>.csv, with meta-step, seed and place in every line, in COLUMNS."""
    parts = [
        read_curve(folder / f"step{k}" / f"seed{seed}" / f"game{place}.csv").assign(
            size=size, seed=seed, meta_step=k + 1, place=place
        )
        for seed in seeds
        for k in range(meta_steps)
        for place in range(games)
    ]
    return pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS)


def curves(options: argparse.Namespace) -> None:
    """Gather the learning curves of all games of these seeds, up to a number of meta-steps."""
    frame = collect(options.folder, options.size, options.seeds, options.meta_steps, options.games)
    with atomic(options.out) as path:
        frame.to_csv(path, index=False, lineterminator="\n")
    print(f"{options.out}: {len(options.seeds) * options.meta_steps * options.games} curves")


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog=f"python -m {PROGRAM}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = whole.add_subparsers(dest="command", required=True)
    of_game = commands.add_parser("game", help="learn one game of a meta-step")
    of_update = commands.add_parser("update", help="make the next initialisation of the shares of all games")
    of_state = commands.add_parser("state", help="make a state of the last initialisations")
    of_curves = commands.add_parser("curves", help="gather the learning curves of all games")
    for each, run in ((of_game, game), (of_update, update), (of_state, state), (of_curves, curves)):
        each.set_defaults(run=run)
        each.add_argument("--size", default="own", help="the name of the size in files and rows")
        each.add_argument("--out", type=Path, required=True, help="file to write")
    for each in (of_game, of_update, of_state):
        each.add_argument("--settings", type=command.mapping, default={}, metavar="JSON", help="changed settings")
    for each in (of_game, of_update):
        each.add_argument("--seed", type=command.whole_number, required=True)
        each.add_argument("--meta-step", type=command.whole_number, required=True, help="its number, from 0")
        each.add_argument("--start", type=Path, help="the initialisation; random if left out")
    for each in (of_game, of_state):
        each.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    of_game.add_argument("--game", type=command.whole_number, required=True, help="its place in the meta-batch, from 0")
    of_game.add_argument("--games", type=int, required=True, help="how many games a meta-batch has")
    of_game.add_argument("--curve", type=Path, required=True, help="CSV of the learning curve to write")
    of_game.add_argument("--checkpoints", type=Path, help="folder for the checkpoint, to resume from")
    of_update.add_argument("--shares", type=Path, nargs="+", required=True, help="files of the games, in order")
    of_state.add_argument("--method", required=True)
    of_state.add_argument("--initialisations", type=Path, nargs="+", required=True, help="a file for each seed")
    of_state.add_argument("--history", type=Path, required=True, metavar="CSV", help="rows of training to write")
    of_state.set_defaults(experiment="atari", n_tasks=[0], data=None, winner=None, checkpoints=None, held_out="test")
    of_curves.add_argument("--folder", type=Path, required=True, help="where step<k>/seed<seed>/game<place>.csv are")
    of_curves.add_argument("--seeds", type=command.whole_number, nargs="+", required=True)
    for name in ("meta-steps", "games"):
        of_curves.add_argument(f"--{name}", type=command.whole_number, required=True, help="their number")
    return whole


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    whole = parser()
    options = whole.parse_args(arguments)
    name = options.command
    if name in ("game", "update"):
        if (options.meta_step > 0) != bool(options.start):
            whole.error("argument --start: needed from meta-step 1 on, and not before")
        name += f" of meta-step {options.meta_step}, seed {options.seed}"
    command.begin(PROGRAM, arguments)
    with command.job(name, options.out):
        options.run(options)


if __name__ == "__main__":
    main()
