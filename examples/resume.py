"""Checkpoints: a run that is killed resumes with the same numbers. Logs go to TensorBoard if it is installed."""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

import leapwarp

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    SummaryWriter = None


def train(folder, meta_steps, log=lambda name, value, step: None):
    """Meta-train up to `meta_steps`, from the checkpoint in `folder` if there is one."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 20), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(20, 1))
    meta = leapwarp.Leap(net)
    outer = torch.optim.Adam(meta.parameters(), 0.01)
    file, first = folder / "checkpoint.pt", 0
    if file.exists():
        state = torch.load(file)
        meta.load_state_dict(state["meta"])  # the initialisation is in it
        outer.load_state_dict(state["outer"])
        torch.set_rng_state(state["random"])  # of dropout and of this example's data
        first = state["next"]
        print("going on at meta-step", first)
    for meta_step in range(first, meta_steps):
        for a in 1 + torch.rand(3):
            with meta.task() as task:
                inner = torch.optim.SGD(meta.task_parameters(), 0.05)
                for _ in range(5):
                    x = 6 * torch.rand(10, 1) - 3
                    inner.zero_grad()
                    task.backward(F.mse_loss(net(x), a * x.sin()))
                    inner.step()
                task.finish(F.mse_loss(net(x), a * x.sin()))
        for name, value in meta.backward().items():
            log(name, value, meta_step)
        outer.step()
        state = {"meta": meta.state_dict(), "outer": outer.state_dict(), "random": torch.get_rng_state()}
        torch.save(state | {"next": meta_step + 1}, folder / "new.pt")
        (folder / "new.pt").replace(file)  # whole, or not at all
    return net.state_dict()


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    writer = SummaryWriter(name) if SummaryWriter else None
    uninterrupted = train(
        folder, 10, writer.add_scalar if writer else lambda name, value, step: print(step, name, value)
    )
    (folder / "checkpoint.pt").unlink()
    train(folder, 4)  # "killed" after four meta-steps
    resumed = train(folder, 10)
    print("equal to the bit:", all(torch.equal(resumed[key], uninterrupted[key]) for key in resumed))
