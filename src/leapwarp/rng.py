"""Randomness is drawn outside the algorithms, from streams that have names."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream `names` of `seed`.

    Streams of different names are independent, so that adding a draw to one leaves the others as they were:
    `generator(0, "split")` gives the same alphabets whatever else the run draws.
    """
    text = "/".join(str(part) for part in (seed, *names))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return torch.Generator().manual_seed(number % (1 << 63))


@contextmanager
def global_draws_from(generators: Sequence[torch.Generator]) -> Iterator[Callable[[], bool]]:
    """What draws from PyTorch's global streams in here, such as dropout, draws from one that `generators` decide.

    Afterwards the global streams are as before. What is given in here says whether something was drawn. A generator is
    read, and moves on by one number only if so, so that what else it draws is the same for a network without dropout.
    """
    states = b"".join(bytes(each.get_state().tolist()) for each in generators)
    seed = int.from_bytes(hashlib.sha256(states).digest()[:8], "big") % (1 << 63)
    with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed)
        before = _global_states()
        drawn = lambda: any(not torch.equal(a, b) for a, b in zip(before, _global_states(), strict=True))  # noqa: E731
        yield drawn
        moved = drawn()
    for each in generators if moved else ():
        torch.rand((), generator=each)


def _global_states() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]
