"""Tasks with different numbers of classes and of steps. Each has its own head, and Leap learns the body."""

import torch
import torch.nn.functional as F
from torch import nn

import leapwarp

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(8, 32), nn.ReLU()), nn.Identity()

    def forward(self, x):
        return self.head(self.body(x))


net = Net()
classes = [2, 3, 5]
steps = [5, 10, 20]
heads = [nn.Linear(32, n) for n in classes]  # stay with their tasks from one meta-step to the next
mixes = [torch.randn(8, n) for n in classes]
net.head = heads[0]
meta = leapwarp.Leap(net, exclude="head")  # the head is not part of the path, and Leap never changes it
outer = torch.optim.Adam(meta.parameters(), 0.01)
for meta_step in range(16):
    for head, mix, n_steps in zip(heads, mixes, steps, strict=True):
        net.head = head
        with meta.task() as task:
            inner = torch.optim.Adam(meta.task_parameters(), 0.01)
            for _ in range(n_steps):
                x = torch.randn(16, 8)
                inner.zero_grad()
                task.backward(F.cross_entropy(net(x), (x @ mix).argmax(1)))
                inner.step()
            x = torch.randn(16, 8)
            task.finish(F.cross_entropy(net(x), (x @ mix).argmax(1)))
    seen = meta.backward()
    outer.step()
    if meta_step % 5 == 0:
        print(f"meta-step {meta_step}: loss {seen['loss']:.3f}")
