"""The experiment `inner_cost`: bytes of live tensors are counted, and memory grows for the right methods."""

import pandas as pd
import pytest
import sizes
import torch
from told import told

from leapwarp import catalogue
from leapwarp.experiments.base import SIMULATED
from leapwarp.experiments.inner_cost import report
from leapwarp.experiments.inner_cost.run import draw_task, judge, peak_bytes
from leapwarp.models.conv4 import conv4
from leapwarp.problem import supervised
from leapwarp.report import rows
from leapwarp.rng import generator
from leapwarp.trees import alone


def test_bytes_alive_are_counted():
    def call():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1
        del a
        c = b + 1
        c.view(10, 100).add_(1)  # neither views nor operations in place allocate memory
        del b, c
        torch.zeros(500)

    assert peak_bytes(call) == 8000


def test_what_autograd_keeps_is_counted():
    x = torch.zeros(1000, requires_grad=True)

    def chain(n):
        y = x
        for _ in range(n):
            y = y.exp()
        y.sum().backward()

    assert peak_bytes(lambda: chain(20)) - peak_bytes(lambda: chain(10)) == 10 * 4000


@pytest.mark.parametrize("name", catalogue.find("inner_cost").methods)
def test_memory_grows_where_it_must_and_nowhere_else(name):
    method = sizes.methods("inner_cost")[name]
    model = conv4(4, 5, 16, method.extra)
    params = alone(model.init(generator(0, "init")))

    def memory(steps):
        learner = method.learner(supervised(model), method.settings, steps)
        tasks = draw_task(method.settings, learner.draws, 0, torch.device("cpu"))
        state = learner.init(params)
        return peak_bytes(lambda: learner.step(state, tasks, [generator(0, "learner")]))

    two, four, eight = memory(2), memory(4), memory(8)
    if "maml" in name and name != "fomaml":
        assert eight - four == pytest.approx(2 * (four - two), rel=0.05) and eight > 1.5 * two
    else:
        assert eight < 1.05 * two


def test_table_and_figure_are_made_from_rows():
    fixed = {"experiment": "inner_cost", "n_tasks": 0, "seed": 0, "size": "smoke", "data_source": "simulated"}
    fixed |= {"data_checksum": "none", "settings": "3d4e5f", "version": "0.1.0", "device": "cpu", "seconds": 1.0}
    frame = pd.concat(
        [
            rows.rows(judge(sizes.one_run(SIMULATED, "inner_cost", name), None).records, method=name, **fixed)
            for name in ("leap", "maml")
        ]
    )
    value = frame.set_index(["method", "metric", "step"])["value"]
    lines, text = told(frame, pd.DataFrame())
    growth = lines.set_index(["method", "metric"])["mean"]
    for name in ("leap", "maml"):
        assert growth[name, "memory_growth"] == value[name, "memory", 3] / value[name, "memory", 1]
    assert f"| MAML | {value['maml', 'memory', 1] / 1e6:.1f} | {value['maml', 'memory', 3] / 1e6:.1f} |" in text
    figure = report.inner_cost(frame)
    drawn = [line.get_ydata().tolist() for line in figure.axes[0].lines]
    assert drawn[1] == pytest.approx([value["maml", "memory", step] / 1e6 for step in (1, 3)])
