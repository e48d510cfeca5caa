"""Few-shot learning on tiered-ImageNet: the second part of Table 1 of the WarpGrad paper (section 3(a), appendix I).

    python -m leapwarp.experiments.few_shot_tiered --profile quick --method warp_maml --n-tasks 0 --seeds 0 1 \\
        --data results/data/tiered_imagenet.safetensors --out warp_maml.csv

`leapwarp.experiments.few_shot` on classes that are further apart, with the two learners that the paper compares there.
Where tiered-ImageNet is not there, the same images stand in for it as for mini-ImageNet: the rows then repeat that
experiment with a shorter meta-training.

One run takes, on a core: smoke, a second; quick, 6 s for maml and 14 for warp_maml.
"""

from collections.abc import Sequence
from dataclasses import replace

from leapwarp.data.classes import load
from leapwarp.experiments import few_shot
from leapwarp.experiments.command import main
from leapwarp.experiments.few_shot import ONE_SHOT, Method, Settings, run

PROFILES = {
    "smoke": few_shot.SMOKE,
    "quick": replace(few_shot.QUICK, meta_steps=100, validate_every=50),
    "paper": few_shot.PAPER,
}


def methods(settings: Settings) -> dict[str, Method]:
    names = ("maml", "warp_maml", "maml" + ONE_SHOT, "warp_maml" + ONE_SHOT)
    return {name: method for name, method in few_shot.methods(settings).items() if name in names}


def cli(arguments: Sequence[str] | None = None) -> None:
    main("few_shot_tiered", __doc__, PROFILES, methods, load, run, arguments)


if __name__ == "__main__":
    cli()
