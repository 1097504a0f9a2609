"""Does a model repeat its training pictures? Distances to the nearest one say so."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt8

_BLOCK = 512


def nearest_distances(
    queries: UInt8[np.ndarray, "n *shape"], references: UInt8[np.ndarray, "m *shape"]
) -> Float64[np.ndarray, "n"]:
    """For each query the distance to the nearest reference: ||a - b||_2 over all pixel values scaled to [0, 1].

    Exact: the sums run over whole numbers below 2^53, so that a copy is at distance 0 and not at a rounding error.
    Memory stays at a few blocks of 512 pictures whatever n and m are. ValueError where there is no reference.
    """
    if len(references) == 0:
        raise ValueError("no reference pictures to measure the distance to")
    smallest = np.full(len(queries), np.inf)
    for column in range(0, len(references), _BLOCK):
        b = _flat(references[column : column + _BLOCK])
        b_squared = np.einsum("ij,ij->i", b, b)
        for row in range(0, len(queries), _BLOCK):
            a = _flat(queries[row : row + _BLOCK])
            squared = np.einsum("ij,ij->i", a, a)[:, None] + b_squared - 2 * (a @ b.T)
            rows = slice(row, row + _BLOCK)
            smallest[rows] = np.minimum(smallest[rows], squared.min(axis=1))
    return np.sqrt(smallest) / 255


def copy_ratio(
    samples: UInt8[np.ndarray, "n *shape"],
    train: UInt8[np.ndarray, "m *shape"],
    test: UInt8[np.ndarray, "k *shape"],
) -> float:
    """median nearest distance samples -> train, divided by that of test -> train.

    About 1: samples are as far from the training pictures as new real pictures are. 0: they are copies. A model that
    draws smoother pictures than the real ones comes out below 1 without copying. ValueError where there are no samples,
    training or test pictures, or where the test pictures are themselves training pictures.
    """
    if len(samples) == 0 or len(test) == 0:
        raise ValueError("no samples or no test pictures to compare with the training pictures")
    scale = float(np.median(nearest_distances(test, train)))
    if scale == 0:
        raise ValueError("most test pictures are training pictures, so they set no scale for what a copy is")
    return float(np.median(nearest_distances(samples, train))) / scale


def _flat(images: UInt8[np.ndarray, "n *shape"]) -> Float64[np.ndarray, "n d"]:
    return images.reshape(len(images), -1).astype(np.float64)
