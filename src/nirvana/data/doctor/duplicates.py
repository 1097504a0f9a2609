"""Near duplicates among many pictures: one picture re-compressed, resized or slightly cropped.

Three sieves, each finer and dearer than the one before. All pairs: the cosine of the low frequencies, one matrix
product. Then the tangent distance (Simard et al., 1998): the part of one picture's frequencies that no small shift or
scaling of the other explains. What is left is laid over each other pixel by pixel (`alignment`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from PIL import Image

from nirvana.data.doctor.alignment import SIDE, Copies, same

FLAT = 2.0
"""Pictures with less contrast (standard deviation of the low frequencies, of 0 to 255) all resemble each other."""

_FREQUENCIES = 8
_COSINE, _TANGENT = 0.88, 0.03
_MEAN, _NORM = 12.0, 0.25
"""Largest differences of the mean level and of the logarithm of the contrast."""
_FEW, _ROWS, _PAIRS = 32, 512, 20_000

Frequencies = Float32[np.ndarray, "n 63"]
Frames = Float32[np.ndarray, "n 63 5"]
Pairs = Int64[np.ndarray, "m 2"]


def small_copy(picture: Image.Image) -> Image.Image:
    """The whole of an RGB picture as a square of `SIDE` pixels."""
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)


@dataclass(frozen=True)
class Features:
    """What the first two sieves see: mean level, contrast, low frequencies of unit length, and the tangent frames."""

    mean: Float32[np.ndarray, " n"]
    contrast: Float32[np.ndarray, " n"]
    frequencies: Frequencies
    frames: Frames


def near_duplicates(
    copies: Copies,
    sides: Int64[np.ndarray, " n"],
    fixed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """Pairs (i, j), i < j, of pictures that are one: which picture j there is no need of, and which i stands for it.

    `copies` and shorter `sides` in pixels come in the order of preference. A picture that another stands for stands for
    none itself, so pictures are no chain; the first `fixed` always may. Flat pictures are in no pair. `progress(done,
    total)` counts pictures.
    """
    features = _features(copies)
    needed = np.ones(len(copies), bool)
    found = [np.zeros((0, 2), np.int64)]
    start, rows = 0, _FEW  # few at first: where most pictures are one, this shows before all pairs are looked at
    while start < len(copies):
        first, second = _alike(features, start, rows)
        useful = needed[first] & needed[second]
        pairs = _verified(copies, sides, features, first[useful], second[useful])
        for i, j in pairs:
            if needed[i] and needed[j]:
                found.append(np.array([[i, j]]))
                needed[j] = j < fixed
        start, rows = start + rows, min(2 * rows, _ROWS)
        if progress is not None:
            progress(min(start, len(copies)), len(copies))
    return np.concatenate(found)


def _verified(
    copies: Copies,
    sides: Int64[np.ndarray, " n"],
    features: Features,
    first: Int64[np.ndarray, " p"],
    second: Int64[np.ndarray, " p"],
) -> Pairs:
    """The pairs that pass the finer sieves."""
    found = [np.zeros((0, 2), np.int64)]
    for at in range(0, len(first), _PAIRS):
        i, j = first[at : at + _PAIRS], second[at : at + _PAIRS]
        close = _tangent(features, i, j) < _TANGENT
        i, j = i[close], j[close]
        one = same(copies, sides, i, j)
        found.append(np.stack([i[one], j[one]], 1))
    return np.concatenate(found)


def _features(copies: Copies) -> Features:
    parts = [_features_of(copies[start : start + _ROWS]) for start in range(0, max(1, len(copies)), _ROWS)]
    return Features(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _features_of(
    copies: Copies,
) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"], Frequencies, Frames]:
    grey = copies.astype(np.float32).mean(-1)
    own = _low(grey)
    norm = np.linalg.norm(own, axis=1)
    dy, dx = np.gradient(grey, axis=(1, 2))
    place = np.linspace(-1, 1, SIDE, dtype=np.float32)
    moved = [_low(slope) for slope in (dx, dx * place, dy, dy * place[:, None])]
    frames = np.linalg.qr(np.stack([own, *moved], -1))[0]
    return grey.mean((1, 2)), norm / SIDE, own / np.maximum(norm, 1e-6)[:, None], frames


def _low(grey: Float32[np.ndarray, "n 32 32"]) -> Frequencies:
    """The lowest coefficients of the cosine transform but the mean."""
    k, at = np.arange(_FREQUENCIES)[:, None], np.arange(SIDE)
    basis = np.cos(np.pi * (at + 0.5) * k / SIDE) * np.sqrt(np.where(k == 0, 1, 2) / SIDE)
    basis = basis.astype(np.float32)
    return (basis @ grey @ basis.T).reshape(len(grey), -1)[:, 1:]


def _alike(features: Features, start: int, count: int) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """The pairs whose first picture is among `count` from `start` on, by cosine, level and contrast."""
    rows = features.frequencies[start : start + count]
    cosine = rows @ features.frequencies[start:].T
    i, j = (found + start for found in np.nonzero(cosine > _COSINE))
    contrast = np.log(np.maximum(features.contrast, 1e-3))
    keep = (i < j) & (np.minimum(features.contrast[i], features.contrast[j]) > FLAT)
    keep &= np.abs(features.mean[i] - features.mean[j]) < _MEAN
    keep &= np.abs(contrast[i] - contrast[j]) < _NORM
    return i[keep], j[keep]


def _tangent(features: Features, i: Int64[np.ndarray, " p"], j: Int64[np.ndarray, " p"]) -> Float32[np.ndarray, " p"]:
    """The share of the one picture's energy that the other and its small moves do not explain, the lesser way round."""
    own, frames = features.frequencies, features.frames
    one, other = (1 - (np.matmul(own[a][:, None], frames[b]) ** 2).sum((1, 2)) for a, b in ((i, j), (j, i)))
    return np.minimum(one, other)
