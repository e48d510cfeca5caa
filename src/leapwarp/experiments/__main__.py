"""Commands that train and evaluate any experiment, and check its settings.

    python -m leapwarp.experiments train omniglot_warp --method leap --n-tasks 5 --seeds 0 \\
        --settings '{"filters": 8}' --data results/data/alphabets.safetensors --out leap.safetensors --history leap.csv
    python -m leapwarp.experiments evaluate omniglot_warp --method leap --states leap.safetensors \\
        --settings '{"n_test": 5}' --data results/data/alphabets.safetensors --out rows.csv
    python -m leapwarp.experiments settings workflow/sizes/quick.yaml

Settings that are not given have their published values. Each command explains its options with --help.
"""

import sys

COMMANDS = ("train", "evaluate", "settings", "trial")


def main() -> None:
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print((__doc__ or "").strip())
        return
    if name not in COMMANDS:
        sys.exit(f"error: unknown command {name!r}. Known: {', '.join(COMMANDS)}.")
    try:
        from leapwarp.experiments import command, resolve, trial

        functions = {
            "train": command.train,
            "evaluate": command.evaluate,
            "settings": resolve.main,
            "trial": trial.main,
        }
        functions[name](rest)
    except Exception as error:  # whatever the command itself has not put into a line
        from leapwarp.files import said

        sys.exit(f"error: {name}: {said(error)}")


if __name__ == "__main__":
    main()
