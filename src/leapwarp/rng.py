"""Randomness is drawn outside the algorithms, from streams that have names."""

import hashlib

import torch


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream `names` of `seed`.

    Streams of different names are independent, so that adding a draw to one leaves the others as they were:
    `generator(0, "split")` gives the same alphabets whatever else the run draws.
    """
    text = "/".join(str(part) for part in (seed, *names))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return torch.Generator().manual_seed(number % (1 << 63))
