"""How often the verdicts' intervals contain the true value (docs/claims.md), and the power stated (docs/power.md).

    .venv/bin/python benchmarks/coverage.py [--repetitions 10000] [--docs docs]

Studies with known true values are simulated, for each kind of quantity and for 2, 3, 4, 5 and 10 seeds. They are
decided by the rule of `leapwarp.report.claims`. In the snapshot of 26 November, a contrast of two methods on ten
held-out tasks varies by 5 to 9 points between tasks, and mostly by 1 to 4 between seeds.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from leapwarp import catalogue
from leapwarp.files import atomic
from leapwarp.plan import read_size
from leapwarp.report import claims
from leapwarp.report.document import grid
from leapwarp.report.stats import LEVEL, interval, power

REPO = Path(__file__).parents[1]
SEEDS = (2, 3, 4, 5, 10)
PARTS = 6  # parts of the claim whose effects are all zero
MARGIN = 3.0

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""(stream, seeds) -> contrasts whose expectation is 0, [seed, task]"""


def normal(of_seeds: float, of_tasks: float, n_tasks: int = 10) -> Draw:
    def draw(stream: np.random.Generator, n: int) -> np.ndarray:
        return stream.normal(0, of_seeds, (n, 1)) + stream.normal(0, of_tasks, (n, n_tasks))

    return draw


def skewed_tasks(stream: np.random.Generator, n: int) -> np.ndarray:
    """A few tasks on which a method is far worse: exponential, with normal seeds."""
    return stream.normal(0, 2, (n, 1)) + 5 * (stream.exponential(1, (n, 10)) - 1)


def one(stream: np.random.Generator, n: int) -> np.ndarray:
    return stream.normal(0, 2, (n, 1))


def skewed(stream: np.random.Generator, n: int) -> np.ndarray:
    """A gamma distribution with a skewness of 1."""
    return stream.gamma(4, 1, (n, 1)) - 4


def more_skewed(stream: np.random.Generator, n: int) -> np.ndarray:
    """An exponential distribution, with a skewness of 2."""
    return stream.exponential(1, (n, 1)) - 1


def difference_of_skewed(stream: np.random.Generator, n: int) -> np.ndarray:
    """Two methods' losses, each lognormal, with the same distribution."""
    a, b = np.exp(stream.normal(0, 0.5, (2, n, 1)))
    return a - b


def ratio(stream: np.random.Generator, n: int) -> np.ndarray:
    """Logarithms of the quotient of two times, each lognormal."""
    a, b = np.exp(stream.normal(0, 0.4, (2, n, 1)))
    return np.log2(a / b)


def log_bound(stream: np.random.Generator, n: int) -> np.ndarray:
    """The logarithm of an error that is lognormal, over five tasks, with a random level for each seed."""
    return np.log2(np.exp(stream.normal(0, 0.4, (n, 1)) + stream.normal(0, 0.6, (n, 5))))


def fall_per_doubling(stream: np.random.Generator, n: int) -> np.ndarray:
    """The slope of an error on the logarithm of the number of tasks, with noise for all numbers and for each."""
    x = np.log2([1, 5, 25])
    x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    errors = stream.normal(0, 2, (n, 1, 1)) + stream.normal(0, 2, (n, 1, 3)) + stream.normal(0, 5, (n, 10, 3))
    return -(errors * x).sum(-1)


KINDS: dict[str, Draw] = {
    "difference, 10 tasks; seeds 2, tasks 5": normal(2, 5),
    "difference, 10 tasks; seeds 4, tasks 6": normal(4, 6),
    "difference, 10 tasks; seeds 0, tasks 5": normal(0, 5),
    "difference, 10 tasks; skewed tasks": skewed_tasks,
    "difference or bound, one value a seed": one,
    "difference of two skewed values a seed": difference_of_skewed,
    "bound, one value a seed, skewness 1": skewed,
    "bound, one value a seed, skewness 2": more_skewed,
    "ratio of two skewed values a seed": ratio,
    "bound in times, skewed, 5 tasks": log_bound,
    "slope over 1, 5 and 25 tasks": fall_per_doubling,
}


def coverage(draw: Draw, n: int, repetitions: int) -> float:
    """The share of studies whose interval contains 0."""
    stream, held = np.random.default_rng([7, n]), 0
    for _ in range(repetitions):
        _, low, high = interval(list(draw(stream, n)), LEVEL)
        held += low <= 0 <= high
    return held / repetitions


def verdicts(
    draw: Draw, n: int, repetitions: int, shift: float, margin: float | None, n_parts: int
) -> dict[str, float]:
    """For claims of `n_parts` parts with the true effect `shift`, the share of each verdict."""
    stream, found = np.random.default_rng([8, n]), Counter()
    for _ in range(repetitions):
        studies = [list(draw(stream, n) + shift) for _ in range(n_parts)]
        found[claims.together([claims.of_interval(study, margin, n_parts)[1] for study in studies])] += 1
    return {verdict: found[verdict] / repetitions for verdict in claims.VERDICTS}


def covered(repetitions: int) -> str:
    """A row for each kind of quantity and a column for each number of seeds; then shares of verdicts at the margins."""
    shown: list[Sequence[str]] = [
        [name, *(f"{coverage(draw, n, repetitions):.3f}" for n in SEEDS)] for name, draw in KINDS.items()
    ]
    fewer, mistakes = repetitions // 2, {}
    for n in SEEDS:
        none = verdicts(normal(2, 5), n, fewer, 0.0, None, PARTS)
        edge = verdicts(normal(2, 5), n, fewer, MARGIN, MARGIN, 1)
        lone = verdicts(skewed, n, fewer, 0.0, None, 1)
        mistakes[n] = (none["contradicted"], lone["contradicted"], edge["supported"], edge["contradicted"])
    names = [
        f"*a claim of {PARTS} parts, all effects zero: contradicted*",
        "*a claim of one part of skewness 1, effect zero: contradicted*",
        "*equality, at its margin: supported*",
        "*equality, at its margin: contradicted*",
    ]
    shown += [[name, *(f"{mistakes[n][i]:.3f}" for n in SEEDS)] for i, name in enumerate(names)]
    return grid(["Quantity, spreads in points", *(f"{n} seeds" for n in SEEDS)], shown)


def n_parts(claim: dict[str, Any], entry: dict[str, Any]) -> int:
    """The number of parts of a claim at the numbers of tasks of a size."""
    parts = claims.at_counts(claim, set(entry.get("n_tasks", [])), catalogue.find(claim["experiment"]).methods)
    return len(parts) + sum(spec["kind"] == "counted" for spec in claim["parts"])


def stated() -> str:
    """For each size with a table of power: each claim, its part of least power, and how many parts have enough."""
    book, shown = claims.read(REPO / "paper/claims.yaml", catalogue.names()), []
    for path in sorted((REPO / "workflow/sizes").glob("*.power.csv")):
        entries = read_size(path.with_name(path.name.replace(".power.csv", ".yaml"))).entries
        wanted = {claim["id"]: n_parts(claim, entries.get(claim["experiment"], {})) for claim in book.claims}
        parts: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for (name, part), line in claims.read_power(path).items():
            parts.setdefault(name, []).append((part, line))
        for name, mine in parts.items():
            part, line = min(mine, key=lambda each: each[1]["power"])
            enough = sum(line["power"] >= 0.8 for _, line in mine)
            numbers = [
                f"{line['effect']:.3g}",
                f"{line['spread']:.3g}",
                str(line["n_trials"] or "none"),
                str(line["seeds"]),
                f"{line['power']:.2f}",
                str(line["seeds_needed"]),
                f"{enough} of {wanted[name]}",
                line["source"],
            ]
            shown.append([path.name.removesuffix(".power.csv"), f"{name}, {part}", *numbers])
    head = [
        "Size",
        "Claim, weakest part",
        "Effect",
        "Spread",
        "Trial seeds",
        "Seeds",
        "Power",
        "Seeds for 0.8",
        "Parts at 0.8",
        "Trials",
    ]
    return grid(head, shown) if shown else "No size states a power yet."


def detectable() -> str:
    """The smallest effect with a power of 0.8, in spreads."""
    least = [f"{brentq(lambda effect, n=n: power(effect, 1.0, n, 1) - 0.8, 0.1, 200):.1f}" for n in SEEDS]
    return grid(["", *(f"{n} seeds" for n in SEEDS)], [["least effect, in spreads", *least]])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Coverage of the verdicts' intervals, and the power stated.")
    parser.add_argument(
        "--repetitions", type=int, default=10_000, metavar="N", help="studies of each kind and number; 0: power only"
    )
    parser.add_argument("--docs", type=Path, default=REPO / "docs", metavar="DIR", help="the folder of the two pages")
    options = parser.parse_args(arguments)
    write(options.docs / "power.md", "power", f"{detectable()}\n\n{stated()}")
    if options.repetitions:
        write(options.docs / "claims.md", "coverage", covered(options.repetitions))


def write(page: Path, mark: str, table: str) -> None:
    """Put a table between the marks of its name in a page."""
    before, _, rest = page.read_text().partition(f"<!-- {mark} -->\n")
    _, _, after = rest.partition(f"<!-- end of {mark} -->")
    with atomic(str(page)) as path:
        path.write_text(f"{before}<!-- {mark} -->\n{table}\n<!-- end of {mark} -->{after}")
    print(table)


if __name__ == "__main__":
    main()
