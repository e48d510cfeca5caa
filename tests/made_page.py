"""Synthetic results of a size, in the form that the workflow writes, and their page."""

import json

import numpy as np
import pandas as pd
from calls import REPO

from leapwarp import catalogue
from leapwarp.report import __main__ as report
from leapwarp.report import claims, page, published
from leapwarp.report import rows as results

QUICK = REPO / "workflow/sizes/quick.yaml"
ABOUT = "smaller networks & shorter training"
BOTH = [catalogue.find(name) for name in ("omniglot_warp", "omniglot_leap")]
MADE_BY = {"version": "0.1.0+gabc", "code": "0d", "packages": {"torch": "2.14"}, "started": "2026-01-02T03:04:05+00:00"}
ACCURACY = {("warp_leap", 1): 0.5, ("warp_leap", 10): 0.8, ("leap", 1): 0.3, ("leap", 10): 0.9, ("scratch", 0): 0.1}
ACCURACY |= {("finetune", 10): 0.8, ("reptile", 10): 0.3}
CERTAIN = ["Leap", "Finetuning (multi-head)", "Reptile"]  # what Warp-Leap is compared with at a power that is stated


def make(folder, source="omniglot", size="quick"):
    """Results of one experiment as the workflow writes them, from synthetic rows with names that need escaping."""
    here, frames, stream = folder / "omniglot_warp", [], np.random.default_rng(0)
    runs = []
    for (method, count), accuracy in ACCURACY.items():
        same = {"experiment": "omniglot_warp", "method": method, "n_tasks": count, "size": size, "device": "cpu"}
        same |= {"data_source": source, "data_checksum": "0a1b", "version": "0.1.0+gabc"}
        for seed in (0, 1):
            records = [
                (f"<b>{task}</b> & co", None, "accuracy", accuracy + float(noise))
                for task, noise in enumerate(stream.normal(0, 0.001, 10))
            ]
            records += [("", None, moved, 1.0) for moved in ("moved_warps", "moved_init") if count]
            records += [("", None, "adapt_seconds", 1.0)]
            frames.append(results.rows(records, seed=seed, settings="0c", seconds=2.0, **same))
            training = same | MADE_BY | {"machine": "GPU <fast> & co", "device": "cuda", "seconds": {"0": 1.0}}
            settings = {"filters": 8, "eta": 3 if method == "warp_leap" else 1}
            run = same | MADE_BY | {"seed": seed, "held_out": "test", "machine": "CPU <slow>", "settings": settings}
            run |= {"settings_hash": "0c", "seconds": 2.0 + 2.0 * seed, "training": training if count else {}}
            runs.append(run)
    frame = pd.concat(frames, ignore_index=True)
    results.write(here / "rows.csv", frame)
    (here / "runs.json").write_text(json.dumps(runs))
    for command, out in (("table", here), ("figures", here / "figures")):
        report.main([command, "omniglot_warp", "--rows", str(here / "rows.csv"), "--out-dir", str(out)])
    command = ["decide", "--claims", str(REPO / "paper/claims.yaml"), "--size", size, "--decides"]
    command += ["orders" if size == "quick" else "nothing", "--experiments", "omniglot_warp"]
    parts = [f"accuracy: Warp-Leap − {name}, 10 tasks" for name in CERTAIN]
    stated = [
        dict.fromkeys(claims.POWER_COLUMNS, "") | {"claim": "W1", "part": part, "effect": 9.0, "spread": 0.01}
        for part in parts
    ]
    pd.DataFrame(stated).to_csv(folder / "power.csv", index=False)
    command += ["--power", str(folder / "power.csv")]
    claims.main([*command, "--rows", str(here / "rows.csv"), "--out", str(folder / "claims.csv")])
    beside = ["--folder", str(folder), "--experiments", *(about.name for about in BOTH)]
    published.main([*beside, "--out", str(folder / "published.json")])
    write_page(folder, folder / "index.html", *BOTH)
    return folder


def write_page(folder, out, *abouts):
    arguments = ["--folder", str(folder), "--about", ABOUT, "--out", str(out), "--experiments"]
    page.main([*arguments, *(about.name for about in abouts)])
