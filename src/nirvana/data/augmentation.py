"""Augmentation as a pure function of (seed, global sample index)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from nirvana.data.order import FLIP, raw_words


def flips(seed: int, indices: range) -> Bool[np.ndarray, "m"]:
    """Whether each global sample index is shown mirrored: a fair coin each, whatever the range around it.

    ValueError: a negative index, or a seed outside 0 <= seed < 2**63.
    """
    if not indices:
        return np.zeros(0, np.bool_)
    low, high = min(indices), max(indices)
    if low < 0:
        raise ValueError(f"negative sample index {low}")
    block = low // 4  # Philox makes four words at a time
    coins = raw_words(seed, FLIP, block, high + 1 - 4 * block) >> np.uint64(63) == 1
    return coins[np.arange(indices.start, indices.stop, indices.step) - 4 * block]


def mirrored(images: UInt8[np.ndarray, "m h w c"], which: Bool[np.ndarray, "m"]) -> UInt8[np.ndarray, "m h w c"]:
    """A copy of `images` in which those of `which` are flipped left to right."""
    result = np.array(images)
    result[which] = result[which][:, :, ::-1]
    return result
