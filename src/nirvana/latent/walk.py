"""Ways between latent vectors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def slerp(a: Float[Tensor, "b n"], b: Float[Tensor, "b n"], part: Float[Tensor, " b"]) -> Float[Tensor, "b n"]:
    """From a (part 0) to b (part 1) along the arc between their directions, the length going evenly from one to other.

    (sin((1 - part) w) a/|a| + sin(part w) b/|b|)/sin(w) ((1 - part)|a| + part |b|), w the angle between a and b. Normal
    vectors of many dimensions all have about the same length, which points on the straight line between two have not.
    Where a and b point the same way or lie opposite there is no arc, and the line is taken.
    Source: Shoemake 1985, section 3.3; White 2016.
    """
    lengths = a.norm(dim=1), b.norm(dim=1)
    unit_a, unit_b = (x / size.clamp_min(1e-12)[:, None] for x, size in zip((a, b), lengths, strict=True))
    angle = (unit_a * unit_b).sum(1).clamp(-1.0, 1.0).acos()
    flat = angle.sin() < 1e-3  # below, acos has no digits in float32, and the arc is the line
    sine = torch.where(flat, 1.0, angle.sin())
    first, second = ((1 - part) * angle).sin() / sine, (part * angle).sin() / sine
    arc = first[:, None] * unit_a + second[:, None] * unit_b
    bowed = arc * ((1 - part) * lengths[0] + part * lengths[1])[:, None]
    found = torch.where(flat[:, None], torch.lerp(a, b, part[:, None]), bowed)
    # The ends are exact: the first picture of a way is the picture of its seed.
    return torch.where((part == 0)[:, None], a, torch.where((part == 1)[:, None], b, found))


def between(index: int, stretch: int) -> tuple[int, float]:
    """The stretch of a way that `index` lies on, and how far along it, 0 to less than 1; `stretch` steps each."""
    place, step = divmod(index, stretch)
    return place, step / stretch
