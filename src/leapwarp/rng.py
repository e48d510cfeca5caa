"""Random streams with names. Random numbers are drawn outside the algorithms, from such streams."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream `names` of `seed`.

    Streams of different names are independent, so another draw from one stream does not change the others. For example,
    `generator(0, "split")` gives the same alphabets whatever else a run draws.
    """
    text = "/".join(str(part) for part in (seed, *names))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return torch.Generator().manual_seed(number % (1 << 63))


@contextmanager
def global_draws_from(generators: Sequence[torch.Generator]) -> Iterator[Callable[[], bool]]:
    """Inside this context, PyTorch's global streams (for dropout, say) are seeded from the states of `generators`.

    These are the streams of the CPU and of CUDA.
    Afterwards the global streams are as before. The context gives a function that tells whether something was drawn.
    Each generator advances by one number if so, and else not at all. So its other draws do not depend on this context
    for a network without dropout.
    """
    states = b"".join(bytes(each.get_state().tolist()) for each in generators)
    seed = int.from_bytes(hashlib.sha256(states).digest()[:8], "big") % (1 << 63)
    begun = torch.cuda.is_initialized()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if begun else []):
        torch.manual_seed(seed)
        before = _global_states()
        drawn = lambda: any(not torch.equal(a, b) for a, b in zip(before, _global_states(), strict=True))  # noqa: E731
        yield drawn
        moved = drawn()
    if not begun:  # PyTorch remembers the last seed until CUDA begins
        torch.cuda.manual_seed_all(torch.initial_seed())
    for each in generators if moved else ():
        torch.rand((), generator=each)


def _global_states() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]
