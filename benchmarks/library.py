"""Time and memory of a step of `Leap` and `WarpGrad` beside a plain training step, on a resnet18 with warps.

    python benchmarks/library.py [--device cuda] [--side 64] [--batch 16] [--steps 8] [--rounds 3]

Prints the milliseconds of a step and the memory beside the module, in copies of the parameters: on a GPU the peak, on a
CPU without activations. The measured task is the second of a meta-batch, when the sum of the first one is in memory.
Every time (on a CPU, of the process) is the fastest of `--rounds` tasks, which take turns, since other work on the
machine can only slow one down. The beginning and the end of a task are not counted.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

import leapwarp


class Warped(nn.Module):
    """A block with a 1x1 convolution behind it."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.block, self.warp = block, nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.dirac_(self.warp.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.warp(self.block(x))


def network(device: torch.device) -> nn.Module:
    net = resnet18(num_classes=10)
    for name, channels in (("layer1", 64), ("layer2", 128), ("layer3", 256), ("layer4", 512)):
        getattr(net, name)[1] = Warped(getattr(net, name)[1], channels)
    return net.to(device)


def held(device: torch.device) -> int:
    """Bytes of tensors: on a GPU the peak since the last call, on a CPU those that exist now."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak
    gc.collect()
    found = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    found += [each.grad for each in found if each.is_leaf and each.grad is not None]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}
    return sum(storages.values())


@contextmanager
def bare() -> Iterator[None]:
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    for name, value in (("side", 64), ("batch", 16), ("steps", 8), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    clock = time.perf_counter if device.type == "cuda" else time.process_time  # which other work does not prolong
    net = network(device)
    size = sum(leaf.numel() * leaf.element_size() for leaf in net.parameters())
    x = torch.randn(options.batch, 3, options.side, options.side, device=device)
    y = torch.arange(options.batch, device=device) % 10

    def loss_of(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(net(batch[0]), batch[1])

    def steps(name: str) -> tuple[float, float]:
        """-> seconds of a step, copies of the parameters held"""
        kinds: dict[str, Callable] = {
            "bare": lambda: None,
            "Leap": lambda: leapwarp.Leap(net),
            "WarpGrad, exact": lambda: leapwarp.WarpGrad(net, loss_of, "*.warp.*", 0.01),
            "WarpGrad, order 1": lambda: leapwarp.WarpGrad(net, loss_of, "*.warp.*", 0.01, order=1),
            "WarpGrad, replay on CPU": lambda: leapwarp.WarpGrad(
                net, loss_of, "*.warp.*", 0.01, replay=2, replay_device="cpu"
            ),
        }
        meta = kinds[name]()

        def gradients(task: Any, loss: torch.Tensor) -> None:
            if task is None:
                loss.backward()
            elif name == "Leap":
                task.backward(loss)
            else:
                task.backward(loss, (x, y), (x, y) if "replay" in name else None)

        before, times = held(device), []
        if meta:
            with meta.task() as task:
                gradients(task, loss_of((x, y)))
                torch.optim.SGD(meta.task_parameters(), 1e-4).step()
                task.finish(loss_of((x, y)).detach())
        with meta.task() if meta else bare() as task:
            params = meta.task_parameters() if meta else list(net.parameters())
            inner = torch.optim.SGD(params, 1e-4, momentum=0.9)
            for _ in range(options.steps):
                began = clock()
                inner.zero_grad()
                loss = loss_of((x, y))
                gradients(task, loss)
                inner.step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(clock() - began)
            del loss
            copies = (held(device) - before) / size
            if task:
                task.finish(loss_of((x, y)).detach())
        for leaf in net.parameters():
            leaf.grad = None
        return min(times[1:]), copies

    names = ["bare", "Leap", "WarpGrad, exact", "WarpGrad, order 1", "WarpGrad, replay on CPU"]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            found[name].append(steps(name))
    first, held_bare = min(t for t, _ in found["bare"]), min(m for _, m in found["bare"])
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread"
    print(f"resnet18 with warps, {options.batch} images of {options.side} x {options.side}, {where}")
    for name in names:
        seconds, copies = min(t for t, _ in found[name]), min(m for _, m in found[name])
        print(f"{name:<24} {1000 * seconds:8.1f} ms  x {seconds / first:4.2f}  + {copies - held_bare:4.1f} copies")


if __name__ == "__main__":
    main()
