"""One meta-step of every method that is meta-trained, at the settings of `paper`, on made-up data."""

import pytest
import torch
from calls import jobs_of
from sizes import methods, one_run

from leapwarp import catalogue
from leapwarp.data import alphabets, classes, images
from leapwarp.experiments.atari import agent
from leapwarp.experiments.base import SIMULATED
from leapwarp.models import actor_critic
from leapwarp.rng import generator
from leapwarp.trees import leaves

pytestmark = pytest.mark.full
JOBS = jobs_of("paper")
# Settings that are reduced where a meta-step takes minutes on a core. Networks and image sizes are the published ones.
REDUCED = {
    "inner_steps": 3,
    "meta_batch": 3,
    "train_shots": 3,  # of few_shot, whose widest network has 512 filters
    "queries": 5,
    "n_validation": 2,  # tasks to validate on, which a single meta-step does not
    "n_watched": 1,
}
ONE_STEP = {"meta_steps": 1, "updates": 1, "every": 1}  # agents count updates
TRAINED = [
    (name, method)
    for name, jobs in JOBS.items()
    for method, about in jobs.about.methods.items()
    if about.trains and not jobs.chain
]


@pytest.fixture(scope="module")
def data():
    """kind of data -> noise images, with as many classes and images as the published tasks need."""
    stream = torch.Generator().manual_seed(0)
    drawings = torch.randint(256, (50 * 20, 20, 28, 28), generator=stream, dtype=torch.uint8)
    label = torch.arange(30).repeat_interleave(690)  # 640 to learn from and 50 held out
    pictures = torch.randint(256, (len(label), 3, 84, 84), generator=stream, dtype=torch.uint8)
    parts = {"train": [*range(10)], "validation": [*range(10, 20)], "test": [*range(20, 30)]}
    noise = classes.build(pictures, label, [f"{i:02d}" for i in range(30)], parts, "noise")
    names = [f"noise_{i:02d}" for i in range(50)]
    return {
        None: SIMULATED,
        "alphabets": alphabets.build(drawings, torch.arange(50).repeat_interleave(20), names, "noise"),
        "mini_imagenet": noise,
        "tiered_imagenet": noise,
        "images": images.ImageSets(images.glyph_sets(3), images.GLYPHS, "made up"),
    }


def reduced(settings):
    """The settings that are reduced."""
    shorter = {
        key: min(value, getattr(settings, key))
        for key, value in REDUCED.items()
        if hasattr(settings, key) and (key != "n_validation" or hasattr(settings, "validate_every"))
    }
    return shorter | {key: value for key, value in ONE_STEP.items() if hasattr(settings, key)}


@pytest.mark.parametrize(("name", "method"), TRAINED)
def test_a_meta_step_at_the_settings_of_paper(data, name, method):
    jobs, settings = JOBS[name], methods(name, "paper")[method].settings
    run = one_run(data[jobs.about.data], name, method, jobs.n_tasks[-1], size="paper", **reduced(settings))
    trained = catalogue.find(name).module("run").EXPERIMENT.train([run])[0]
    found = leaves(trained.state)
    assert found and all(leaf.isfinite().all() for leaf in found.values())
    assert len({step for _, step, metric, _ in trained.records if metric == "meta_loss"}) <= 1
    assert trained.seconds > 0


def test_a_game_of_a_meta_step_at_the_settings_of_paper():
    settings = one_run(None, "atari", "leap", size="paper", updates=2, restart=2, every=1).method.settings
    encoder = actor_critic.encoder(generator(0, "encoder"))
    trained = agent.train(settings.pool[0], encoder, settings, 0, ("meta", 0, 0), None, {}, leap=True)
    assert set(trained["total"]) == set(encoder)
    assert all(leaf.isfinite().all() for leaf in trained["total"].values())


@pytest.mark.parametrize("method", JOBS["theorem1"].about.methods)
def test_a_meta_step_of_the_theorem_at_the_settings_of_paper(method):
    run = one_run(SIMULATED, "theorem1", method, size="paper", meta_steps=1)
    found = catalogue.find("theorem1").module("run").EXPERIMENT.evaluate(run, None).records
    assert {step for _, step, _, _ in found} >= {0, 1}
