"""Results for the tests of page and snapshot, with and without a random search."""

import json
import shutil

import made_page
import pytest
import yaml

from leapwarp import catalogue
from leapwarp.report import rows as results
from leapwarp.report import search


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return made_page.make(tmp_path_factory.mktemp("page") / "quick")


@pytest.fixture
def with_search(made, tmp_path, monkeypatch):
    """The results, and a search of three trials of Warp-Leap, one of which diverged. -> folder"""
    folder = tmp_path / "quick"
    shutil.copytree(made, folder)
    here = folder / "search/omniglot_warp/warp_leap"
    paths = []
    for number, (eta, filters, accuracy) in enumerate([(0.5, 4, 0.25), (3.0, 8, 0.75), (9.0, 4, None)]):
        record = ("", None, "diverged", 1.0) if accuracy is None else ("task", None, "accuracy", accuracy)
        about = {"experiment": "omniglot_warp", "method": "warp_leap", "n_tasks": 0, "seed": 100, "size": "quick"}
        about |= {"data_source": "omniglot", "data_checksum": "0", "device": "cpu", "version": "0.1.0+gabc"}
        paths.append(here / f"trials/{number}.csv")
        results.write(paths[-1], results.rows([record], seconds=1.0, settings="0", **about))
        origin = (
            about
            | made_page.MADE_BY
            | {"held_out": "validation", "machine": "CPU", "settings_hash": "0", "seconds": 60.0}
        )
        paths[-1].with_suffix(".json").write_text(json.dumps([origin | {"training": {}}]))
        drawn = {"eta": eta, "filters": filters}
        trial = {"experiment": "omniglot_warp", "method": "warp_leap", "trial": number, "drawn": sorted(drawn)}
        paths[-1].with_suffix(".yaml").write_text(yaml.safe_dump(trial | {"settings": drawn}))
    search.main(["table", "--criterion", "accuracy", "--out-dir", str(here), *map(str, paths)])
    search.main(["figure", "--trials", str(here / "trials.csv"), "--out", str(here / "search.png")])
    space = {"eta": {"log_uniform": [0.1, 10]}, "filters": {"choice": [4, 8]}}
    declared = made_page.BOTH[0]._replace(search={"criterion": "accuracy", "spaces": {"warp_leap": space}})
    find = catalogue.find
    monkeypatch.setattr(catalogue, "find", lambda where: declared if where == "omniglot_warp" else find(where))
    return folder
