"""Train, evaluate, and check settings, of any experiment.

    python -m leapwarp.experiments train omniglot_warp --method leap --n-tasks 5 --seeds 0 \\
        --settings '{"filters": 8}' --data results/data/alphabets.safetensors --out leap.safetensors --history leap.csv
    python -m leapwarp.experiments evaluate omniglot_warp --method leap --states leap.safetensors \\
        --settings '{"n_test": 5}' --data results/data/alphabets.safetensors --out rows.csv
    python -m leapwarp.experiments settings workflow/sizes/quick.yaml

Settings that are not named are the published ones. Each command explains its options with --help.
"""

import sys

from leapwarp.experiments import command, resolve, trial

COMMANDS = {"train": command.train, "evaluate": command.evaluate, "settings": resolve.main, "trial": trial.main}


def main() -> None:
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print((__doc__ or "").strip())
    elif name in COMMANDS:
        COMMANDS[name](rest)
    else:
        sys.exit(f"error: unknown command {name!r}. Known: {', '.join(COMMANDS)}.")


if __name__ == "__main__":
    main()
