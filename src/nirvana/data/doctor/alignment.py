"""Two small copies laid over each other, and what is left between them: whether two pictures are one.

A re-compressed or resized picture differs a little everywhere, a cropped one is also moved and enlarged; another
picture differs a lot somewhere. So the crop is undone by least squares (scale and shift along each axis, Gauss-Newton
as in Lucas and Kanade, 1981), and the smoothed difference is judged by its largest spot.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

SIDE = 32
"""Copies are squares of so many pixels, whatever the shape of the picture."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SPOT, _TINT, _SHARE = 12.0, 14.0, 0.15
"""Largest differences of one picture from itself: of grey in a spot, of colour in a larger spot (both in levels of 0 to
255), and of grey over all as a share of the contrast. `scripts/measure_duplicates.py` measures what they are worth."""
_BLURS = np.array([1.0, 1.5, 2.0, 3.0])
_ROUNDS, _MOST = 3, 2.0
_CHUNK = 256

_PLACE = np.linspace(-1, 1, SIDE, dtype=np.float32)

Copies = UInt8[np.ndarray, "n 32 32 3"]
Batch = Float32[np.ndarray, "p 32 32 3"]
Greys = Float32[np.ndarray, "p 32 32"]
Moves = Float32[np.ndarray, "p 4"]
"""Along x: scale at the edge and shift, then the same along y; in pixels of the copy."""


def same(
    copies: Copies, sides: Int64[np.ndarray, " n"], first: Int64[np.ndarray, " p"], second: Int64[np.ndarray, " p"]
) -> Bool[np.ndarray, " p"]:
    """Whether pictures `first[i]` and `second[i]` are one, by their copies and their shorter sides in pixels.

    Of small pictures fine detail is no evidence: the difference is smoothed by as much as the smaller one lost.
    """
    verdicts = np.zeros(len(first), bool)
    for start in range(0, len(first), _CHUNK):
        at = slice(start, start + _CHUNK)
        a, b = (copies[which[at]].astype(np.float32) for which in (first, second))
        small = np.minimum(sides[first[at]], sides[second[at]])
        verdicts[at] = _judged(a, b, small)
    return verdicts


def _judged(a: Batch, b: Batch, sides: Int64[np.ndarray, " p"]) -> Bool[np.ndarray, " p"]:
    grey_a, grey_b = a @ _LUMA, b @ _LUMA
    moves = _aligned(grey_a, grey_b)
    across, down = _positions(moves[:, :2]), _positions(moves[:, 2:])
    left = (b - _warped(a, across, down)) * (_inside(across)[:, None, :, None] * _inside(down)[:, :, None, None])
    left = _smoothed(left, sides)
    grey = left @ _LUMA
    spot = np.abs(_means(grey[..., None], 2)[:, 1:-1, 1:-1]).max((1, 2, 3))  # at the border a crop guesses
    tint = np.abs(_means(left - grey[..., None], 4)).max((1, 2, 3))
    share = np.sqrt((grey**2).mean((1, 2))) / np.maximum(grey_b.std((1, 2)), 1e-3)
    return (spot <= _SPOT) & (tint <= _TINT) & (share <= _SHARE)


def _aligned(a: Greys, b: Greys) -> Moves:
    """The moves that lay `a` over `b` with the least squared difference, none of them larger than `_MOST` pixels."""
    moves = np.zeros((len(a), 4), np.float32)
    inner = np.zeros((SIDE, SIDE, 1), np.float32)
    inner[1:-1, 1:-1] = 1  # outside of the picture nothing is known
    for _ in range(_ROUNDS):
        warped = _warped(a[..., None], _positions(moves[:, :2]), _positions(moves[:, 2:]))[..., 0]
        dy, dx = np.gradient(warped, axis=(1, 2))
        slopes = np.stack([dx * _PLACE, dx, dy * _PLACE[:, None], dy], -1) * inner
        slopes = slopes.reshape(len(a), -1, 4).astype(np.float64)
        rest = ((b - warped) * inner[..., 0]).reshape(len(a), -1, 1)
        turned = slopes.transpose(0, 2, 1)
        normal = turned @ slopes + 100 * np.eye(4)  # where nothing shows a move, there is none
        moves += np.linalg.solve(normal, turned @ rest)[..., 0].astype(np.float32)
        moves = np.clip(moves, -_MOST, _MOST)
    return moves


def _positions(moves: Float32[np.ndarray, "p 2"]) -> Float32[np.ndarray, "p 32"]:
    """Where along one axis of the source each pixel is taken from."""
    return np.arange(SIDE, dtype=np.float32) + moves[:, :1] * _PLACE + moves[:, 1:]


def _inside(positions: Float32[np.ndarray, "p 32"]) -> Float32[np.ndarray, "p 32"]:
    return ((positions >= -0.25) & (positions <= SIDE - 0.75)).astype(np.float32)


def _warped(
    a: Float32[np.ndarray, "p 32 32 c"], across: Float32[np.ndarray, "p 32"], down: Float32[np.ndarray, "p 32"]
) -> Float32[np.ndarray, "p 32 32 c"]:
    """The pictures at other positions, which are those of a grid: one matrix an axis."""
    return _separable(_cubic(down), a, _cubic(across))


def _separable(
    down: Float32[np.ndarray, "p 32 32"],
    a: Float32[np.ndarray, "p 32 32 c"],
    across: Float32[np.ndarray, "p 32 32"],
) -> Float32[np.ndarray, "p 32 32 c"]:
    channels = a.transpose(0, 3, 1, 2)
    return (down[:, None] @ channels @ across.transpose(0, 2, 1)[:, None]).transpose(0, 2, 3, 1)


def _cubic(positions: Float32[np.ndarray, "p 32"]) -> Float32[np.ndarray, "p 32 32"]:
    """Catmull-Rom interpolation as matrices, the borders continued."""
    away = np.abs(np.clip(positions, 0, SIDE - 1)[..., None] - np.arange(SIDE, dtype=np.float32))
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, 0))
    return weights / weights.sum(-1, keepdims=True)


def _smoothed(a: Batch, sides: Int64[np.ndarray, " p"]) -> Batch:
    """Each picture smoothed by what one of that side cannot show."""
    steps = np.searchsorted(_BLURS[:-1], 0.75 * SIDE / np.maximum(sides, 1))
    blur = _BLURS[steps].astype(np.float32)[:, None, None]
    at = np.arange(SIDE, dtype=np.float32)
    kernel = np.exp(-0.5 * ((at[:, None] - at) / blur) ** 2)
    kernel /= kernel.sum(-1, keepdims=True)
    return _separable(kernel, a, kernel)


def _means(a: Float32[np.ndarray, "p 32 32 c"], k: int) -> Float32[np.ndarray, "p m m c"]:
    """Means over squares of k pixels."""
    return a.reshape(len(a), SIDE // k, k, SIDE // k, k, a.shape[-1]).mean((2, 4))
