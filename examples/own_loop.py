"""Leap around an ordinary training loop, on waves y = a sin(x + b), compared with an untrained initialisation."""

import copy

import torch
import torch.nn.functional as F

import leapwarp

torch.manual_seed(0)


def wave():
    """A task: a function that gives batches of 20 points of one wave."""
    a, b = 1 + torch.rand(2)

    def batch():
        x = 6 * torch.rand(20, 1) - 3
        return x, a * torch.sin(x + b)

    return batch


def train(net, params, batch, task=None, steps=20):
    """An ordinary training loop. Leap adds only the lines with `task`."""
    inner = torch.optim.SGD(params, 0.05)
    for _ in range(steps):
        x, y = batch()
        inner.zero_grad()
        loss = F.mse_loss(net(x), y)
        loss.backward()
        if task:
            task.step(loss)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        inner.step()
    x, y = batch()
    loss = F.mse_loss(net(x), y)
    if task:
        task.finish(loss)
    return loss.item()


net = torch.nn.Sequential(torch.nn.Linear(1, 40), torch.nn.Tanh(), torch.nn.Linear(40, 1))
fresh = copy.deepcopy(net)
meta = leapwarp.Leap(net)
outer = torch.optim.Adam(meta.parameters(), 0.01)
for meta_step in range(30):
    for _ in range(5):
        with meta.task() as task:
            train(net, meta.task_parameters(), wave(), task)
    seen = meta.backward()
    outer.step()
    if meta_step % 10 == 0:
        print(f"meta-step {meta_step}: loss {seen['loss']:.3f}, length of a path {seen['length']:.3f}")

tasks = [wave() for _ in range(5)]
results = {}
for name, start in (("Leap", net), ("fresh", fresh)):
    copies = [copy.deepcopy(start) for _ in tasks]
    results[name] = sum(train(own, list(own.parameters()), t) for own, t in zip(copies, tasks, strict=True)) / len(
        tasks
    )
print("loss on new waves after 20 steps:", results)
