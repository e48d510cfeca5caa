"""Communication between the processes of `torch.distributed`. With one process, or none, nothing is sent."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist


def n_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def this_process() -> int:
    return dist.get_rank() if n_processes() > 1 else 0


def begin_alike(module: nn.Module) -> None:
    """Give every process the parameters and buffers of the first process."""
    if n_processes() > 1:
        for leaf in [*module.parameters(), *module.buffers()]:
            dist.broadcast(leaf.detach(), 0)


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in one message for each type of number."""
    if n_processes() == 1:
        return
    for dtype in dict.fromkeys(leaf.dtype for leaf in tensors):
        group = [leaf for leaf in tensors if leaf.dtype == dtype]
        flat = torch.cat([leaf.flatten() for leaf in group])
        dist.all_reduce(flat)
        for leaf, part in zip(group, flat.split([leaf.numel() for leaf in group]), strict=True):
            leaf.copy_(part.view_as(leaf))


def counts(own: int, device: torch.device) -> list[int]:
    """The number `own` of every process."""
    if n_processes() == 1:
        return [own]
    every = torch.zeros(n_processes(), dtype=torch.long, device=device)
    every[this_process()] = own
    dist.all_reduce(every)
    return every.tolist()
