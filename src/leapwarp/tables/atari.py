"""Leap's Atari experiment in numbers: how fast and how far each game is learnt, and the games' own scores.

python -m leapwarp.tables.atari --rows results/quick/atari/rows.csv --out-dir results/quick/atari
"""

import pandas as pd

from leapwarp import results, tables
from leapwarp.figures import style
from leapwarp.tables import scores
from leapwarp.tables.summaries import markdown, summaries

SHOWN = [f"score_{what}_{group}" for what in ("area", "end") for group in tables.GAMES]
SIZES = {
    "smoke": "Nothing can be read from this size.",
    "quick": "No order of methods is to be expected: the size shows that the chain works on the real emulator.",
    "paper": "The published sizes.",
}


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One line a method and quantity, and the text; raises ValueError where rows are of several sizes."""
    results.provenance(frame, "atari")
    lines = summaries(frame, SHOWN)
    steps = int(frame.loc[frame["step"].notna() & frame["metric"].str.startswith("score_"), "step"].max())
    document = f"""# Leap, Atari: scores of episodes (higher: better)

{tables.origin(frame, quick="the published network and much less training")}
- {SIZES.get(frame["profile"].iloc[0], "")}
- {steps:,} steps a game, 5,000,000 as published. {meta_training(frame)}
- The paper prints curves and no numbers. ± is the sample standard deviation over seeds.
- On every game 0 is what random play scores (a mean over the second half of its runs) and 1 the best that a method's
  mean over seeds reached at any point, noise and all: where that is little above random play (second table), the scale
  says nothing. The area is the mean of that curve, so a method that learns faster has more of it; the end is its
  last tenth. Until an emulator's first episode has ended it counts with what it has so far.

{markdown(lines, SHOWN, "Encoder")}

## The games' own scores at the end

{games(frame)}
"""
    return lines, document


def meta_training(frame: pd.DataFrame) -> str:
    """How the encoder was meta-trained, where it was."""
    found = {name: sorted(set(frame.loc[frame["metric"] == name, "value"])) for name in ("meta_step", "games")}
    if not all(found.values()):
        return ""
    steps, games = (" or ".join(f"{value:.0f}" for value in found[name]) for name in ("meta_step", "games"))
    return f"Meta-training: {steps} meta-steps of {games} games, 100 of 16 as published."


def games(frame: pd.DataFrame) -> str:
    """A markdown table, a game a row."""
    methods = style.ordered(frame["method"])
    text = ["| Game | | " + " | ".join(style.method(method).name for method in methods) + " |"]
    text.append("|---" * (len(methods) + 2) + "|")
    for group, title in tables.GAMES.items():
        found = results.summary(scores.raw(frame, f"score_{group}"), ["method", "task", "n_tasks", "metric"])
        cells = {(line["method"], line["task"]): line for line in found.to_dict("records")}
        for game in sorted(set(found["task"])):
            shown = [tables.number(cells[method, game]["mean"], cells[method, game]["std"], 1) for method in methods]
            text.append(f"| {name(game)} | {title} | " + " | ".join(shown) + " |")
    return "\n".join(text)


def name(game: str) -> str:
    """The game as the paper writes it: air_raid is AirRaid."""
    return "".join(part.capitalize() for part in game.split("_"))


if __name__ == "__main__":
    tables.main(
        build,
        module="atari",
        description="Write what the learning curves of the Atari games show.",
        paper="leap",
        name="table_atari",
    )
