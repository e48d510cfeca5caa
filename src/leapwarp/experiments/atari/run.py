"""Leap's reinforcement learning experiment (appendix H): Atari games, from a meta-learnt encoder or a random one.

    snakemake atari

An actor-critic learns games that were held out of meta-training, games that were used in it, and games with more
actions than these. The encoder comes from a chain of meta-steps, which consists of many jobs (chain.py). The head is
always random. The last method plays at random, and its score is the zero of the scale of scores.

One evaluation takes, on a core: smoke, three seconds; quick, 40 s; paper, six hours. To expect: no order of the methods
at quick, which trains for a three-hundredth of the published time after 2 of 100 meta-steps. It shows that the chain
works.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from leapwarp.experiments.atari.agent import Settings, pictures, train
from leapwarp.experiments.base import Evaluated, Experiment, Record, Run, Trained, in_turn
from leapwarp.learners.base import State
from leapwarp.models import actor_critic
from leapwarp.rng import generator
from leapwarp.trees import to_device
from leapwarp.worlds import atari

PUBLISHED = Settings(
    updates=31_250,  # of 32 x 5 steps, 5 million in all: Leap App. H
    batch=32,  # Leap App. H
    length=5,  # Leap App. H
    learning_rate=1e-4,  # Leap App. H
    decay=0.99,  # alpha: Leap App. H
    epsilon=1e-4,  # Leap App. H
    entropy_weight=0.01,  # Leap App. H
    reward_clip=5.0,  # Leap App. H
    discount=0.99,  # Leap App. H
    value_weight=0.5,  # the paper is silent
    outer_lr=0.001,  # the paper is silent
    frame_skip=4,  # the paper is silent
    noops=30,  # the paper is silent
    restart=3_125,
    every=125,
    pool=atari.POOL,  # Leap App. H
    heldout=("breakout", "space_invaders"),  # Leap App. H
    seen=("air_raid", "up_n_down", "wizard_of_wor"),  # chosen at random in print; those of its figure
    larger=("alien", "gravitar", "road_runner"),  # likewise: more than ten actions
)
GROUPS = ("heldout", "seen", "larger")  # of games of the evaluation; a metric is named score_<group>
PICTURES, LONGEST = 8, 2000  # of an episode, and steps of it


class Method(NamedTuple):
    settings: Settings
    learns: bool = True
    """if False, it plays at random"""


def methods(settings: Settings) -> dict[str, Method]:
    """The lines of the figure, and random play, which does not change and needs few updates."""
    untrained = replace(settings, outer_lr=0.0, pool=())  # without the settings of meta-training
    shorter = replace(untrained, updates=min(settings.updates, PUBLISHED.restart))
    return {"leap": Method(settings), "scratch": Method(untrained), "random_policy": Method(shorter, learns=False)}


class Games(NamedTuple):
    """The games that ale-py ships."""

    checksum: str
    source: str = "atari"


def load(path: Path | None) -> Games:
    return Games(atari.checksum())


def train_by_jobs(run: Run) -> Trained:
    """Raise ValueError, since the games of a meta-step are learnt in parallel, by many processes."""
    raise ValueError(
        f"the training of {run.name} is a chain of jobs (leapwarp.experiments.atari.chain), which `snakemake atari` "
        "runs. Call that in place of the command train."
    )


def judge(run: Run, state: State | None) -> Evaluated:
    """Learn every game of the evaluation, with a checkpoint for each."""
    settings, seconds = run.method.settings, 0.0
    records: list[Record] = []
    arrays: dict[str, Tensor] = {}
    for group in GROUPS:
        for game in getattr(settings, group):
            # All methods have the same streams, so that episodes have the same seeds and heads the same initial values.
            names = ("evaluation", game)
            encoder = state["params"] if state else actor_critic.encoder(generator(run.seed, *names, "encoder"))
            trained = train(
                game,
                to_device(encoder, run.device),
                settings,
                run.seed,
                names,
                run.checkpoint(game),
                run.identity | {"game": game, "ale_py": atari.VERSION},
                learns=run.method.learns,
            )
            records += [
                (game, step, f"score_{group}" if metric == "score" else metric, value)
                for step, metric, value in trained["curve"]
            ]
            seconds += trained["seconds"]
            if run.seed == 0 and game == min(settings.heldout):
                shown = pictures(trained["params"], game, settings, PICTURES, LONGEST)
                arrays = {f"pictures/{name}": array for name, array in shown.items()}
    return Evaluated([*records, ("", None, "train_seconds", seconds)], arrays)


EXPERIMENT = Experiment(PUBLISHED, methods, judge, in_turn(train_by_jobs), load, frozenset(GROUPS))
