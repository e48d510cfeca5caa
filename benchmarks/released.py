"""The authors' released code beside this package: the same steps, and the same experiment.

    .venv/bin/python benchmarks/released.py CHECKOUT --data FOLDER                   the steps, in seconds
    .venv/bin/python benchmarks/released.py CHECKOUT --data FOLDER --rows ROW ...    whole runs, see --help
    .venv/bin/python benchmarks/released.py --table benchmarks/released.csv          the table of the documents

CHECKOUT is a clone of github.com/flennerhag/warpgrad or of github.com/amzn/metalearn-leap, which has Leap alone. This
file has none of that code: it imports it. FOLDER holds Omniglot (docs/data.md).

The steps are three meta-steps in float64 from the same weights on the same mini-batches, theirs and ours. Whole runs
are those of `omniglot_warp` at a small size, on the same alphabets. All changes to
the released code, for current PyTorch and for one thread, are in `checkout`, `theirs` and `their_tasks`.
"""

import argparse
import csv
import importlib
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from statistics import mean
from tempfile import gettempdir
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from leapwarp import host
from leapwarp.data import omniglot, pictures
from leapwarp.data.alphabets import SIZE, Alphabets, build
from leapwarp.evaluate import area
from leapwarp.experiments.base import Run
from leapwarp.experiments.omniglot import Method, Settings, held, judge, path_learner, train
from leapwarp.experiments.omniglot_warp.run import PUBLISHED, warp_leap_learner
from leapwarp.inner import Fold, Stop
from leapwarp.learners import Learner, leap, warp_leap
from leapwarp.learners.leap import leap_fold
from leapwarp.models.convnet import BLOCKS, Warp, convnet
from leapwarp.optim import sgd
from leapwarp.problem import Batch, Problem, Task, supervised
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, partition, subtract
from leapwarp.worlds.alphabets import CLASSES, draw_batch, draw_tasks, images, meta_batch, split

RATE = 0.1  # of tasks, warps and initialisation, in the paper and in the released code


class InTurn:
    """A replacement for `joblib.Parallel`, whose threads would use more than one core."""

    def __init__(self, **_: Any) -> None: ...

    def __enter__(self) -> "InTurn":
        return self

    def __exit__(self, *_: Any) -> None: ...

    def __call__(self, calls: Iterator[Callable[[], Any]]) -> list[Any]:
        return [call() for call in calls]


def checkout(path: Path) -> SimpleNamespace:
    """The modules of a checkout; those of the Omniglot experiment have names such as `data` and `model`."""
    source = path / "src"
    if not (source / "omniglot/wrapper.py").is_file():
        sys.exit(f"{path}: no src/omniglot/wrapper.py; needed a clone of flennerhag/warpgrad or amzn/metalearn-leap.")
    joblib: Any = ModuleType("joblib")
    joblib.Parallel, joblib.delayed = InTurn, lambda function: partial(partial, function)
    sys.modules["joblib"] = joblib
    sys.path[:0] = [str(source / name) for name in ("omniglot", "leap", "maml", "warpgrad")]
    code = {name: importlib.import_module(name) for name in ("data", "model", "wrapper")}
    return SimpleNamespace(**code, has_warps=(source / "warpgrad").is_dir(), name=path.resolve().name)


def theirs(code: SimpleNamespace, warped: bool, filters: int, params: Params) -> Any:
    """Their meta-learner, from `params` of our network."""
    layers = {"num_filters": filters, "padding": 1}
    if warped:
        kinds = {"warp_num_filters": filters, "warp_act_fun": "None", "warp_batch_norm": False}  # their script's own
        model, wrapper = code.model.WarpedOmniConv(CLASSES, **layers, **kinds), code.wrapper.WarpGradWrapper
    else:
        model, wrapper = code.model.OmniConv(CLASSES, **layers), code.wrapper.LeapWrapper
    for name, leaf in named(model).items():
        leaf.data.copy_(params[name])
    built = wrapper(model, "sgd", "sgd", {"lr": RATE}, {"lr": RATE}, {}, nn.CrossEntropyLoss())
    # `zero_grad` sets gradients to None since PyTorch 2.0, with which Leap fails at its second meta-step.
    built.meta_optimizer.zero_grad = partial(built.meta_optimizer.zero_grad, set_to_none=False)
    if not warped:  # else the graph of every step is kept; this changes no number
        update = built.meta.update
        built.meta.update = lambda loss, model: update(loss.detach(), model)
    return built


def named(model: nn.Module) -> Params:
    """The parameters of their network by the names of ours."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    convolutions, norms, heads = ([m for m in model.modules() if isinstance(m, kind)] for kind in kinds)
    every = len(convolutions) // BLOCKS  # 2 with warps, since convolutions of tasks and warps alternate
    parts: dict[str, nn.Module] = {"head": heads[0]}
    for block in range(BLOCKS):
        parts |= {f"task.{block}.conv": convolutions[every * block], f"task.{block}.norm": norms[block]}
        parts |= {f"warp.{block}.conv": convolutions[every * block + 1]} if every == 2 else {}
    return {f"{part}.{n}": leaf for part, module in parts.items() for n, leaf in module.named_parameters()}


def learnt(built: Any, warped: bool) -> Params:
    """The parameters that their meta-learner has learnt, by our names."""
    if not warped:
        built.meta.to(built.model)
        return {name: leaf.detach().clone() for name, leaf in named(built.model).items()}
    model, start = built.model.model, dict(built.model.named_init_parameters(suffix=None))
    ids = {id(leaf): start.get(name, leaf) for name, leaf in model.named_parameters()}
    return {name: ids[id(leaf)].detach().clone() for name, leaf in named(model).items()}


class Drawn:
    """One of our tasks for their loops: a loader that is its own data set.

    The first iteration yields the batches of adaptation. Each later one yields the next two batches, for the replay.
    """

    def __init__(self, batches: list[tuple[Tensor, Tensor]], held_out: tuple[Tensor, Tensor], steps: int) -> None:
        self.batches, self.held_out, self.steps = batches, held_out, steps
        self.dataset, self.trains, self.next = self, True, 0

    def train(self) -> None:
        self.trains = True

    def eval(self) -> None:
        self.trains = False

    def __len__(self) -> int:
        return self.steps if self.trains else 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.trains:
            return iter([self.held_out])
        first, self.next = self.next, self.next + (2 if self.next else self.steps)
        return iter(self.batches[first : self.next])


def drawn(problem: Problem, tasks: Task, steps: int, replayed: bool) -> list[Drawn]:
    """Our tasks in the form that their code takes, each with the mini-batches that our learners draw."""
    who = torch.arange(len(tasks.index))
    numbers = [*range(steps), *(range(steps + 1, 3 * steps + 1) if replayed else ())]
    batches = [problem.draw(tasks, who, torch.full_like(who, number)) for number in numbers]
    seen = lambda x: x.unsqueeze(1).to(batches[0].x.dtype)  # noqa: E731
    return [
        Drawn([(seen(b.x[i]), b.y[i]) for b in batches], (seen(tasks.x_test[i]), tasks.y_test[i]), steps) for i in who
    ]


def without_last(fold: Fold, steps: int) -> Fold:
    """A fold that leaves out the last segment of a path, as the released code does."""
    return lambda total, before, after: total if before.number == steps - 1 else fold(total, before, after)


def departed_warp_leap(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
    """Warp-Leap as released: the inner gradient is a constant, and the path is one of parameters alone."""
    rate, steps = sgd(settings.inner_lr), settings.inner_steps
    path = without_last(leap_fold(loss=False), steps)
    return warp_leap(problem, rate, sgd(settings.outer_lr), steps, settings.tasks_at_a_time, order=1, path=path)


# --- three meta-steps in float64 --------------------------------------------------------------------------------------


def compare_steps(code: SimpleNamespace, data: Alphabets, seed: int, filters: int = 8, steps: int = 10) -> None:
    """Print the distance of our code from theirs after one meta-step and after three, with and without departures."""
    torch.set_default_dtype(torch.float64)
    draw, one, parts = draw_batch(released=True), sgd(RATE), split(data, seed, 3, 1, 1)

    def in_double(tasks: Task, who: Tensor, number: Tensor) -> Batch:
        batch = draw(tasks, who, number)
        return Batch(batch.x.double(), batch.y)

    pool, everyone = images(data, parts.train, seed, torch.device("cpu")), torch.arange(3)
    sampled = [
        draw_tasks(pool, everyone, generator(seed, "meta", k), 3 * steps + 1, 20, "affine", released=True)
        for k in range(3)
    ]
    length, short = leap_fold(loss=False), without_last(leap_fold(loss=False), steps)
    print(f"{code.name}: 3 tasks of {steps} steps, {filters} filters, float64; norm of the difference over that of")
    print(f"{'the change, after meta-step':48}{'1: warps  initialisation':>26}{'3: warps  initialisation':>28}")
    for warped in [False] + [True] * code.has_warps:
        model = convnet(filters, CLASSES, warp=Warp() if warped else None)
        problem = supervised(model, draw=in_double)
        first = model.init(generator(seed, "init"))
        built, their_ways = theirs(code, warped, filters, first), []
        if code.has_warps and not warped:  # this checkout's Leap draws a new head at every task; keep the head instead
            built.model.head.reset_parameters = lambda: None
        for k, tasks in enumerate(sampled):
            with replayed_as_ours(len(everyone) * steps, seed, k):
                built(drawn(problem, tasks, steps, warped), meta_train=True)
            their_ways.append(subtract(learnt(built, warped), first))
        kinds: dict[str, Learner] = {
            "Leap, departed as released": leap(problem, one, one, steps - 1),
            "Leap, as in the paper": leap(problem, one, one, steps),
        }
        if warped:
            kinds = {
                "Warp-Leap, departed as released": warp_leap(problem, one, one, steps, order=1, path=short),
                "  but the warps' gradient exact": warp_leap(problem, one, one, steps, path=short),
                "  but all K segments of the path": warp_leap(problem, one, one, steps, order=1, path=length),
                "  but the path with loss and stabiliser": warp_leap(problem, one, one, steps, order=1),
                "Warp-Leap, as in the paper": warp_leap(problem, one, one, steps),
            }
        for name, learner in kinds.items():
            state, shown = learner.init(alone(first)), ""
            for k, tasks in enumerate(sampled):
                state, _ = learner.step(state, tasks, [generator(seed, "learner", k)])
                way = subtract({n: leaf[0] for n, leaf in (state["params"] | state.get("warp", {})).items()}, first)
                warps, start = partition(way, "warp") if warped else ({}, way)
                if k != 1:
                    shown += f"{distance(warps, their_ways[k]) if warped else '':>12}"
                    shown += f"{distance(start, their_ways[k]):>15}"
            print(f"{name:48}{shown}", flush=True)
    torch.set_default_dtype(torch.float32)


def replayed_as_ours(points: int, seed: int, k: int) -> Any:
    """A context in which their code replays its buffer of so many points in our order of meta-step k."""
    order = torch.randperm(points, generator=generator(seed, "learner", k)).tolist()

    def shuffle(found: list[Any]) -> None:
        found[:] = [found[i] for i in order]

    return mock.patch("numpy.random.shuffle", shuffle)


def distance(mine: Params, others: Params) -> str:
    """The norm of the difference divided by the norm of `others`, for the names of `mine`."""
    norm = lambda tree: torch.cat([leaf.flatten() for leaf in tree.values()]).norm()  # noqa: E731
    own = {name: others[name] for name in mine}
    return f"{float(norm(subtract(mine, own)) / norm(own)):.1e}"


# --- whole runs -------------------------------------------------------------------------------------------------------


def their_images(root: Path, folder: Path) -> Path:
    """Their folder of images of 28 pixels, resized as in their code, where Pillow uses NEAREST for 1-bit images."""
    done = folder / "omniglot-py/images_resized"
    if not done.exists():
        making = folder / "omniglot-py/unfinished"
        for part in (omniglot._open(root, name) for name in omniglot.PARTS):
            for character, drawings in part.characters.items():
                (making / character).mkdir(parents=True, exist_ok=True)
                for drawing in drawings:
                    name = f"{character}/{drawing}"
                    image = pictures.decode(part.read(name), name, "1")
                    image.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(making / name)
        making.rename(done)
    return folder


def nearest(folder: Path, data: Alphabets) -> Alphabets:
    """Our alphabets with the pixels of their images."""
    files = sorted((folder / "omniglot-py/images_resized").glob("*/*/*.png"))
    ink = torch.from_numpy(np.stack([255 - np.asarray(Image.open(file).convert("L")) for file in files]))
    return build(ink.view_as(data.images), data.alphabet, data.names, data.source)


def their_tasks(code: SimpleNamespace, folder: Path, train: list[str], test: list[str]) -> Any:
    """Their data, on our alphabets: characters, drawings, mini-batches and transforms are drawn by them."""
    container = object.__new__(code.data.DataContainer)
    code.data.SubOmniglot.loader = staticmethod(lru_cache(None)(lambda path: Image.open(path).convert("L")))
    alphabet = lambda name: code.data.SubOmniglot(  # noqa: E731
        folder, [name], CLASSES, code.data.HOLD_OUT, transform=code.data.DEFAULT_TRANSFORM
    )
    container.data_train, container.data_val = [alphabet(name) for name in train], []
    container.data_test, container.kwargs = [alphabet(name) for name in test], {}
    return container


def run_theirs(code: SimpleNamespace, warped: bool, run: Run, folder: Path | None) -> tuple[list[float], list[float]]:
    """Accuracy and area of each held-out alphabet, of their learner on their tasks, or on ours if `folder` is None."""
    settings, seed = run.method.settings, run.seed
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - their replay is shuffled by it
    parts = split(run.data, seed, run.n_tasks, settings.n_test, settings.n_validation)
    model = convnet(settings.filters, CLASSES, warp=Warp() if warped else None)
    problem, steps = supervised(model, draw=draw_batch(settings.released_pixels)), settings.inner_steps
    built = theirs(code, warped, settings.filters, model.init(generator(seed, "init")))
    if folder:
        container = their_tasks(code, folder, parts.train, parts.test)
        sample = lambda k: container.train(settings.meta_batch, settings.batch, steps)  # noqa: E731
        tests = container.test(settings.batch, settings.eval_steps)
    else:
        data, draws = images(run.data, parts.train, seed, run.device), 3 * steps + 1 if warped else steps

        def sample(k: int) -> list[Drawn]:
            stream = generator(seed, "meta", k)
            index = meta_batch(run.n_tasks, settings.meta_batch, stream)
            tasks = draw_tasks(data, index, stream, draws, settings.batch, "affine", settings.released_pixels)
            return drawn(problem, tasks, steps, warped)

        tests = drawn(problem, held(run, settings, parts.test, "test", settings.eval_steps), settings.eval_steps, False)
    began = time.monotonic()
    for k in range(settings.meta_steps):
        with nullcontext() if folder else replayed_as_ours(settings.meta_batch * steps, seed, k):
            loss = built(sample(k), meta_train=True).train_loss
        print(f"meta-step {k + 1}/{settings.meta_steps} loss {loss:.3f} {time.monotonic() - began:.0f} s", flush=True)
    found = [built([task], meta_train=False) for task in tests]
    curves = torch.tensor(np.stack([each.train_res[0].accs for each in found]))
    return [float(each.val_acc) for each in found], area(curves).tolist()


def run_ours(runs: Sequence[Run]) -> list[tuple[list[float], list[float]]]:
    """The same of each of our runs, which train side by side."""
    results = []
    for run, trained in zip(runs, train(runs), strict=True):
        records = judge(run, trained.state).records
        accuracy, auc = ([value for _, _, metric, value in records if metric == name] for name in ("accuracy", "auc"))
        results.append((accuracy, auc))
    return results


def whole_runs(code: SimpleNamespace, root: Path, data: Alphabets, options: argparse.Namespace) -> None:
    """Train and evaluate the requested rows, print each, and add it to the file."""
    small = replace(PUBLISHED, filters=options.filters, meta_batch=options.meta_batch, meta_steps=options.meta_steps)
    released = replace(small, released_pixels=True)
    shorter = replace(released, inner_steps=released.inner_steps - 1)  # K - 1 segments of the same path
    folder = their_images(root, options.images)
    coarse = nearest(folder, data)
    ours = {
        "leap:paper": (data, Method(small, path_learner(leap))),
        "leap:departed": (coarse, Method(shorter, path_learner(leap))),
        "warp_leap:paper": (data, Method(small, warp_leap_learner, Warp())),
        "warp_leap:departed": (coarse, Method(released, departed_warp_leap, Warp())),
    }
    ours |= {f"{method}:nearest": ours[f"{method}:departed"] for method in ("leap", "warp_leap")}
    for row in options.rows:
        method, what = row.split(":")
        pixels, how = ours.get(row, (coarse, Method(released, path_learner(leap))))
        runs = [Run(pixels, how, row, options.tasks, seed, torch.device("cpu"), None, {}) for seed in options.seeds]
        if row in ours:
            with mock.patch.object(
                F, "grid_sample", partial(F.grid_sample, mode="nearest" if what == "nearest" else "bilinear")
            ):
                found = run_ours(runs)
        else:
            tasks = folder if what == "theirs" else None
            found = [run_theirs(code, method == "warp_leap", run, tasks) for run in runs]
        for seed, (accuracy, auc) in zip(options.seeds, found, strict=True):
            line = {
                "code": "leapwarp" if row in ours else code.name,
                "method": method,
                "row": what,
                "filters": options.filters,
                "n_tasks": options.tasks,
                "meta_batch": options.meta_batch,
                "meta_steps": options.meta_steps,
                "seed": seed,
                "accuracy": round(mean(accuracy), 4),
                "area": round(mean(auc), 4),
            }
            print(line, flush=True)
            if options.csv:
                new = not options.csv.exists()
                with options.csv.open("a", newline="") as file:
                    writer = csv.DictWriter(file, line, lineterminator="\n")
                    if new:
                        writer.writeheader()
                    writer.writerow(line)


# --- the table --------------------------------------------------------------------------------------------------------

CALLED = {
    "theirs": "released, on its own tasks",
    "theirs_on_ours": "released, on our tasks and in our order",
    "nearest": "ours, with the departures and transforms by the nearest pixel",
    "departed": "ours, with the departures",
    "paper": "ours, as in the paper",
}
"""what a row of the file is called in the table, in order"""


def table(path: Path) -> str:
    """The rows of the file as a table in Markdown: means over seeds, with those of each seed in brackets."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    titles, order = {"leap": "Leap", "warp_leap": "Warp-Leap"}, list(CALLED)
    key = lambda r: (r["method"], int(r["meta_batch"]), int(r["meta_steps"]), order.index(r["row"]), r["code"])  # noqa: E731
    lines = ["| Method | Tasks x meta-steps | Code | Seeds | Accuracy [%] | Area |", "|---|---|---|---|---|---|"]
    for (method, tasks, steps, row, code), group in groupby(sorted(rows, key=key), key):
        found, name = list(group), CALLED[order[row]]
        cells = [titles[method], f"{tasks} x {steps}", name if code == "leapwarp" else f"{name} (`{code}`)"]
        cells.append(", ".join(r["seed"] for r in found))
        for column, scale, digits in (("accuracy", 100, 1), ("area", 1, 3)):
            values = [scale * float(r[column]) for r in found]
            each = f" ({', '.join(f'{value:.{digits}f}' for value in values)})" if len(values) > 1 else ""
            cells.append(f"{mean(values):.{digits}f}{each}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?", help="a clone of the released code")
    parser.add_argument("--data", type=Path, help="the folder that holds Omniglot")
    parser.add_argument("--images", type=Path, default=Path(gettempdir()) / "released", help="where theirs are made")
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="METHOD:CODE", help=f"leap or warp_leap : {', '.join(CALLED)}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[100])
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=25, help="alphabets to pretrain on")
    parser.add_argument("--meta-batch", type=int, default=5)
    parser.add_argument("--meta-steps", type=int, default=45)
    parser.add_argument("--csv", type=Path, help="file that the runs' rows are added to")
    parser.add_argument("--table", type=Path, metavar="CSV", help="print the table of such a file, and nothing else")
    options = parser.parse_args()
    if options.table:
        print(table(options.table))
        return
    known = {f"{method}:{code}" for method in ("leap", "warp_leap") for code in CALLED}
    if options.checkout is None or options.data is None or set(options.rows) - known:
        parser.error(f"needed CHECKOUT, --data, and rows among {', '.join(sorted(known))}.")
    host.settle()
    code = checkout(options.checkout)
    root = omniglot.find(options.data)
    if root is None:
        sys.exit(f"{options.data}: no Omniglot in it; docs/data.md says how it may lie.")
    data = omniglot.read(root)
    if options.rows:
        whole_runs(code, root, data, options)
    else:
        compare_steps(code, data, options.seeds[0])


if __name__ == "__main__":
    main()
