"""Scenes as pictures: antialiased by exact coverage along each of `ROWS` lines a pixel. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from nirvana.data.dataset import BACKGROUND
from nirvana.data.shapes.scene import COLOURS, Scene

ROWS = 8
"""Lines a pixel."""


def _star() -> list[tuple[float, float]]:
    """Five points, stretched to fill the unit box."""
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radii = np.where(np.arange(10) % 2, 0.45, 1.0)
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
    low, high = points.min(0), points.max(0)
    return [(float(x), float(y)) for x, y in 2 * (points - low) / (high - low) - 1]


_T = 1 / 3
POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "star": _star(),
    "cross": [
        *((-_T, -1), (_T, -1), (_T, -_T), (1, -_T), (1, _T), (_T, _T)),
        *((_T, 1), (-_T, 1), (-_T, _T), (-1, _T), (-1, -_T), (-_T, -_T)),
    ],
}
"""Corners in the box from -1 to 1, y down. The circle is the unit circle."""


def spans(shape: str, y: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m k 2"]:
    """Where horizontal lines at heights `y` enter and leave a unit shape; empty spans have no length."""
    if shape == "circle":
        half = np.sqrt(np.maximum(0.0, 1 - y**2))
        return np.stack([-half, half], -1)[:, None]
    corners = np.array(POLYGONS[shape])
    ends = np.roll(corners, -1, axis=0)
    crossed = (corners[:, 1] <= y[:, None]) != (ends[:, 1] <= y[:, None])
    rise = np.where(corners[:, 1] == ends[:, 1], 1.0, ends[:, 1] - corners[:, 1])
    x = corners[:, 0] + (y[:, None] - corners[:, 1]) / rise * (ends - corners)[:, 0]
    x = np.sort(np.where(crossed, x, 2.0), axis=1)  # crossings come in pairs, the rest moves to the end
    return x[:, : len(corners) // 2 * 2].reshape(len(y), -1, 2)


def coverage(shape: str, x: float, y: float, radius: float, height: int, width: int) -> Float[np.ndarray, "h w"]:
    """The share of each pixel that a shape covers; centre and radius are in pixels."""
    result = np.zeros((height, width))
    top, bottom = max(0, int(np.floor(y - radius))), min(height, int(np.ceil(y + radius)))
    left, right = max(0, int(np.floor(x - radius))), min(width, int(np.ceil(x + radius)))
    if top >= bottom or left >= right:
        return result
    lines = top + (np.arange((bottom - top) * ROWS) + 0.5) / ROWS
    ends = spans(shape, (lines - y) / radius) * radius + x
    inside = np.clip(ends[..., None] - np.arange(left, right), 0, 1)
    rows = (inside[:, :, 1] - inside[:, :, 0]).sum(1)
    result[top:bottom, left:right] = rows.reshape(bottom - top, ROWS, -1).mean(1)
    return result


def render(scene: Scene, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The scene as a picture of `size` x `size` pixels on white."""
    picture = np.full((size, size, 3), BACKGROUND, np.float64)
    for thing in scene.things:
        share = coverage(thing.shape, thing.x * size, thing.y * size, thing.radius * size, size, size)[..., None]
        picture += share * (np.array(COLOURS[thing.colour]) - picture)
    return np.round(picture).astype(np.uint8)


def render_all(scenes: Sequence[Scene], size: int) -> UInt8[np.ndarray, "n size size 3"]:
    """Several scenes."""
    return np.stack([render(scene, size) for scene in scenes])
