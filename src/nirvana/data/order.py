"""The order of training pictures as a pure function of (seed, global sample index)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt64

_ORDER = 1
FLIP = 2
SCENE = 3
CAPTION = 4
TAGS = 5
"""Second words of the Philox key: one stream for each use of randomness in data."""


def raw_words(seed: int, stream: int, block: int, count: int, epoch: int = 0) -> UInt64[np.ndarray, "count"]:
    """`count` uniform words of a stream from word 4 * `block` on: raw Philox output, equal in every numpy version."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed {seed} is out of range: 0 <= seed < 2**63")
    counter = np.array([block, 0, 0, epoch], np.uint64)
    return np.random.Philox(counter=counter, key=np.array([seed, stream], np.uint64)).random_raw(count)


@lru_cache(maxsize=4)
def _permutation(seed: int, n: int, epoch: int) -> Int64[np.ndarray, "n"]:
    # Sorting raw words, not Generator.permutation: numpy keeps raw streams for ever and may change its methods.
    return np.argsort(raw_words(seed, _ORDER, 0, n, epoch), kind="stable")


def order(seed: int, n: int, indices: range) -> Int64[np.ndarray, "m"]:
    """Which of `n` pictures each global sample index shows: i is place i mod n of the permutation of epoch i div n.

    Every epoch shows each picture once; any range can be asked for at any time, at the cost of one permutation an
    epoch. ValueError: n < 1, a negative index, or a seed outside 0 <= seed < 2**63.
    """
    if n < 1:
        raise ValueError(f"order of {n} pictures: at least 1 is needed")
    wanted = np.arange(indices.start, indices.stop, indices.step, dtype=np.int64)
    if wanted.size and wanted.min() < 0:
        raise ValueError(f"negative sample index {wanted.min()}")
    result = np.empty_like(wanted)
    epochs, places = np.divmod(wanted, n)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        result[here] = _permutation(seed, n, int(epoch))[places[here]]
    return result
