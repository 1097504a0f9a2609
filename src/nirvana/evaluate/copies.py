"""Does a model repeat its training pictures? Distances to the nearest one say so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from PIL import Image

from nirvana.evaluate.manifold import nearest

_BLOCK = 512
_SIDE = 32
"""Pictures are compared at no more pixels a side than this: a copy stays one, and the search stays quick."""
_NEIGHBOURS = 10
"""A training picture may have this many twins, less one, and still be seen to be copied."""
_TAIL = 0.05
_ASSIGNMENTS = 20_000


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


@dataclass(frozen=True, eq=False)
class Memorization:
    """What a test for copies found.

    p: small where samples lie closer to single training pictures than unseen pictures do. closest: the samples, the
    most suspicious first. ratio, place: of each sample; held_out: the ratios of the unseen pictures.
    """

    p: float
    ratio: Float64[np.ndarray, "n"]
    place: Int64[np.ndarray, "n"]
    held_out: Float64[np.ndarray, "k"]

    @property
    def closest(self) -> Int64[np.ndarray, "n"]:
        return np.argsort(self.ratio, kind="stable")


def memorization(
    samples: UInt8[np.ndarray, "n h w c"],
    train: UInt8[np.ndarray, "m h w c"],
    test: UInt8[np.ndarray, "k h w c"],
) -> Memorization:
    """A test of whether samples copy training pictures, against real pictures that were not trained on.

    Each picture has the ratio of its distances to the nearest and to the 10th nearest training picture (pixels, at most
    32 a side): 0 for a copy. Unlike the distance itself it does not fall because a model draws smoothly. The statistic
    is the sum of 1 + log(R/r) over the samples whose rank r is among the R = 5% smallest ratios of samples and unseen
    pictures together: what the other samples are like cannot hide copies. Where both have one distribution, every
    assignment of the ranks is equally likely: p is its share in 20,000 such ones that weighs as much.
    ValueError for no samples or test pictures, or fewer than 10 training pictures.
    Source: the idea of three samples is of Meehan, Chaudhuri, Dasgupta 2020; the ratio of Yoon et al. 2023.
    """
    if len(samples) == 0 or len(test) == 0:
        raise ValueError("no samples or no test pictures to compare with the training pictures")
    references = _reduced(train)
    k = min(_NEIGHBOURS, len(references))
    distances, places = nearest(_reduced(samples), references, k)
    unseen, _ = nearest(_reduced(test), references, k)
    ratio, held_out = _ratio(distances), _ratio(unseen)
    both = np.concatenate([ratio, held_out])
    drawn = max(1, round(_TAIL * len(both)))
    lowest = np.argsort(both, kind="stable")[:drawn]
    weights = 1 + np.log(drawn / np.arange(1, drawn + 1))
    p = _chance(float(weights[lowest < len(ratio)].sum()), weights, len(ratio), len(both))
    return Memorization(p, ratio, places[:, 0], held_out)


def _chance(seen: float, weights: Float64[np.ndarray, "r"], marked: int, total: int) -> float:
    """The share of random assignments of `marked` marks to `total` places whose first places weigh at least `seen`."""
    rng = np.random.default_rng(0)
    left, sums = np.full(_ASSIGNMENTS, marked), np.zeros(_ASSIGNMENTS)
    for place, weight in enumerate(weights):
        here = rng.random(_ASSIGNMENTS) * (total - place) < left
        sums += weight * here
        left -= here
    return float(1 + (sums >= seen - 1e-9).sum()) / (1 + _ASSIGNMENTS)


def _ratio(distances: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n"]:
    far = distances[:, -1]
    return np.divide(distances[:, 0], far, out=np.ones(len(far)), where=far > 0)


def _reduced(images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n d"]:
    """Pixels in [0, 1], one row a picture, shrunk where they are more than 32 a side."""
    factor = max(images.shape[1:3]) / _SIDE
    if factor > 1:
        size = (max(1, round(images.shape[2] / factor)), max(1, round(images.shape[1] / factor)))
        modes = "L" if images.shape[3] == 1 else "RGB"
        flat = images[..., 0] if images.shape[3] == 1 else images
        images = np.stack(
            [np.asarray(Image.fromarray(x, modes).resize(size, Image.Resampling.BOX)) for x in np.asarray(flat)]
        )
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _flat(images: UInt8[np.ndarray, "n *shape"]) -> Float64[np.ndarray, "n d"]:
    return images.reshape(len(images), -1).astype(np.float64)
