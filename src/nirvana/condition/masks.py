"""Random masks for learned inpainting: functions of uniform numbers, made on the device where the pictures are."""

from __future__ import annotations

from itertools import accumulate

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STROKES, VERTICES = 3, 4
"""At most so many strokes of a free-form mask, each of so many points."""

_STROKE = 3 + 2 * (VERTICES - 1)
"""Numbers of a stroke: two of its start, its radius, and the direction and the length of each way to the next point."""
NUMBERS = 2 + STROKES * _STROKE
"""Uniform numbers that a mask is made of: its kind, those of the strokes, and how many strokes there are."""

SHARES = (0.4, 0.3, 0.15, 0.15)
"""How often the hidden part is a few strokes, a box, a half plane, all but a box (what extends a picture)."""


def hidden(u: Float[Tensor, "b k"], size: tuple[int, int]) -> Bool[Tensor, "b 1 h w"]:
    """What of pictures of `size`, (h, w), is hidden, by `NUMBERS` uniform numbers for each: one of four kinds."""
    places, numbers = _places(size, u), u[:, 1:]
    kinds = torch.stack(
        [
            _strokes(numbers, places),
            _box(numbers, places, least=0.2, most=0.8),
            _half(numbers, places),
            ~_box(numbers, places, least=0.3, most=0.8),
        ],
        dim=1,
    )
    ends = torch.tensor([*accumulate(SHARES)][:-1], device=u.device, dtype=u.dtype)
    kind = torch.bucketize(u[:, 0].contiguous(), ends, right=True)
    return kinds[torch.arange(len(u), device=u.device), kind].unflatten(1, size)[:, None]


def _places(size: tuple[int, int], u: Tensor) -> Float[Tensor, "p 2"]:
    """The middles of the pixels, row by row, in the unit square."""
    rows, columns = ((torch.arange(n, device=u.device, dtype=u.dtype) + 0.5) / n for n in size)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)


def _box(u: Float[Tensor, "b k"], places: Float[Tensor, "p 2"], *, least: float, most: float) -> Bool[Tensor, "b p"]:
    """Inside a box somewhere in the square, of sides from `least` to `most`."""
    sides = least + (most - least) * u[:, :2]
    corner = (u[:, 2:4] * (1 - sides))[:, None]
    return ((places >= corner) & (places < corner + sides[:, None])).all(-1)


def _half(u: Float[Tensor, "b k"], places: Float[Tensor, "p 2"]) -> Bool[Tensor, "b p"]:
    """On one side of a line in any direction, not far from the middle."""
    return _direction(u[:, 0]) @ (places - 0.5).T > 0.7 * (u[:, 1:2] - 0.5)


def _strokes(u: Float[Tensor, "b k"], places: Float[Tensor, "p 2"]) -> Bool[Tensor, "b p"]:
    """Nearer than its radius to one of the ways of one to `STROKES` strokes, which turn at their points."""
    strokes = u[:, : STROKES * _STROKE].unflatten(1, (STROKES, _STROKE))
    number = 1 + (STROKES * u[:, STROKES * _STROKE]).floor()
    there = torch.arange(STROKES, device=u.device) < number[:, None]
    radius = torch.where(there, 0.03 + 0.09 * strokes[..., 2], -1.0)
    turns, lengths = strokes[..., 3:].chunk(2, dim=-1)
    turns = torch.cat([turns[..., :1], 2 / 3 * (turns[..., 1:] - 0.5)], dim=-1).cumsum(-1)
    ways = (0.1 + 0.3 * lengths[..., None]) * _direction(turns)
    ends = strokes[..., None, :2] + ways.cumsum(-2)
    near = _distance(places, (ends - ways).flatten(1, 2), ways.flatten(1, 2)).unflatten(1, (STROKES, -1))
    return (near < radius[..., None, None]).flatten(1, 2).any(1)


def _direction(turn: Float[Tensor, "*b"]) -> Float[Tensor, "*b 2"]:
    """Unit vectors, by parts of a whole turn."""
    angle = 2 * torch.pi * turn
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def _distance(
    places: Float[Tensor, "p 2"], begin: Float[Tensor, "b s 2"], way: Float[Tensor, "b s 2"]
) -> Float[Tensor, "b s p"]:
    """From each place to each segment, begin + t way with t in [0, 1]."""
    to = places - begin[:, :, None]
    t = ((to * way[:, :, None]).sum(-1) / way.square().sum(-1, keepdim=True)).clamp(0, 1)
    return (to - t[..., None] * way[:, :, None]).norm(dim=-1)
