"""The learning curves of Atari's meta-training, one a game of a meta-step, in one file.

    python -m leapwarp.tables.atari_meta --folder results/quick/atari/meta --profile quick --seeds 2 --meta-steps 2 \
        --games 3 --out results/quick/atari/meta_curves.csv

The jobs of the chain leave step<k>/seed<seed>/game<place>.csv. Here every line says which it is from; a curve of a seed
or meta-step beyond those asked for is left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from leapwarp.files import atomic, one_line

COLUMNS = ["profile", "seed", "meta_step", "place", "game", "step", "score", "loss"]


def read_curve(path: Path) -> pd.DataFrame:
    """Columns game, step, score and loss; raises ValueError where the file is missing, damaged or of two games."""
    advice = "Delete it and call snakemake again: it makes the file anew."
    try:
        lines = pd.read_csv(path, dtype={"game": str, "step": "int64", "value": float})
        wide = lines.pivot(index=["game", "step"], columns="metric", values="value").reset_index()
        curve = pd.DataFrame({name: wide[name] for name in ("game", "step", "score", "loss")})
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: found no curve of score and loss by step ({error}). {advice}") from None
    games, gaps = sorted(set(curve["game"])), int(curve.isna().to_numpy().sum())
    if len(games) != 1 or gaps:
        raise ValueError(
            f"{path}: found games {games} and {gaps} gaps, needed a score and a loss at each step of one game. {advice}"
        )
    return curve


def collect(folder: Path, profile: str, seeds: int, meta_steps: int, games: int) -> pd.DataFrame:
    """All curves, in the order of COLUMNS."""
    parts = [
        read_curve(folder / f"step{k}" / f"seed{seed}" / f"game{place}.csv").assign(
            profile=profile, seed=seed, meta_step=k + 1, place=place
        )
        for seed in range(seeds)
        for k in range(meta_steps)
        for place in range(games)
    ]
    return pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.tables.atari_meta", description="Gather the learning curves of Atari's meta-training."
    )
    parser.add_argument("--folder", required=True, type=Path, metavar="DIR", help="where the chain leaves its files")
    parser.add_argument("--profile", required=True, help="size of the experiment")
    for name in ("seeds", "meta-steps", "games"):
        parser.add_argument(f"--{name}", required=True, type=int, help="how many")
    parser.add_argument("--out", required=True, type=Path, metavar="CSV", help="the file to write")
    options = parser.parse_args(arguments)
    with one_line(parser):
        frame = collect(options.folder, options.profile, options.seeds, options.meta_steps, options.games)
        with atomic(options.out) as path:
            frame.to_csv(path, index=False, lineterminator="\n")
    print(f"{options.out}: {options.seeds * options.meta_steps * options.games} curves")


if __name__ == "__main__":
    main()
