"""Random numbers as a function of (seed, stream, step, position): no state, so nothing to restore.

Every draw of a run names its stream ("caption", "crop", "noise", ...) and the numbers of what it is
for. The key of a counter-based generator (Philox, Salmon et al. 2011) is a digest of all of them, so
the same draw is made in whatever process, order and number of processes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""Constants of splitmix64 (Steele et al. 2014): of its steps, and of its mixer."""


def _digest(size_bytes: int, seed: int, stream: str, numbers: tuple[int, ...]) -> int:
    text = "/".join((str(seed), stream, *map(str, numbers)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size_bytes).digest(), "little")


def key64(seed: int, stream: str, *numbers: int) -> int:
    """A 64-bit key of (seed, stream, numbers)."""
    return _digest(8, seed, stream, numbers)


def generator(seed: int, stream: str, *numbers: int) -> np.random.Generator:
    """The generator of one draw.

    Args:
        seed: the run's.
        stream: what is drawn; no two draws share a stream and numbers.
        numbers: what it is drawn for, such as step and position in the global batch.
    """
    return np.random.Generator(np.random.Philox(key=_digest(16, seed, stream, numbers)))


def normal(shape: Sequence[int], seed: int, stream: str, *numbers: int) -> Tensor:
    """Standard normal numbers, float32, of the draw that `generator` would make."""
    drawn = generator(seed, stream, *numbers).standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(np.asarray(drawn))


def mix64(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer: a bijection of 64-bit numbers in which every bit moves every bit."""
    x = np.asarray(numbers, np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX[0])
    x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX[1])
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def keys64(key: int, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One key for each number, from a common key: splitmix64 started at ``key``."""
    steps = (np.asarray(numbers, np.uint64) + np.uint64(1)) * np.uint64(GOLDEN)
    return mix64(np.uint64(key) + steps)


def uniforms(key: int, numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each of ``numbers``."""
    return np.asarray((keys64(key, numbers) >> np.uint64(11)) * math.ldexp(1, -53), np.float64)
