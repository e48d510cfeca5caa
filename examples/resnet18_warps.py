"""A resnet18 with frozen layers, and 1x1 convolutions behind its blocks as warps, learnt offline (Algorithm 2)."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

import leapwarp

torch.manual_seed(0)


class Warped(nn.Module):
    """A block with a warp behind it, which begins as the identity."""

    def __init__(self, block, channels):
        super().__init__()
        self.block, self.warp = block, nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.dirac_(self.warp.weight)

    def forward(self, x):
        return self.warp(self.block(x))


net = resnet18(num_classes=3)
for part in (net.conv1, net.bn1, net.layer1):  # as if pretrained
    part.requires_grad_(False).eval()
for name, channels in (("layer2", 128), ("layer3", 256)):
    getattr(net, name)[1] = Warped(getattr(net, name)[1], channels)


def loss_of(batch):
    return F.cross_entropy(net(batch[0]), batch[1])


def task_data():
    """Three classes of images that differ in colour, each task with its own colours."""
    colours = torch.randn(3, 3, 1, 1)

    def batch():
        y = torch.arange(6) % 3
        return colours[y] + 0.5 * torch.randn(6, 3, 32, 32), y

    return batch


meta = leapwarp.WarpGrad(net, loss_of, warp="*.warp.*", inner=0.05, replay=8, replay_device="cpu")
print(meta.groups)
outer = torch.optim.AdamW(meta.parameters(), 1e-3)
for meta_step in range(2):
    for _ in range(2):
        batch = task_data()
        with meta.task() as task:
            inner = torch.optim.SGD(meta.task_parameters(), 0.05, momentum=0.9)
            for _ in range(2):
                inner.zero_grad()
                task.backward(loss_of(batch()), meta_batch=batch(), task_batch=batch())
                inner.step()
            task.finish(loss_of(batch()))
    losses = []
    for loss in meta.replay(eta=2):  # two points of the replay for each step of the warps
        outer.step()
        losses.append(loss)
    seen = meta.backward()
    outer.step()
    print(f"meta-step {meta_step}: loss {seen['loss']:.3f}, of the warps {sum(losses) / len(losses):.3f}")
