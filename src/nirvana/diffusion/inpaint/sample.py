"""The sampling loop, for a picture of which a part is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser, first_order_only
from nirvana.diffusion.inpaint.method import Method
from nirvana.diffusion.inpaint.observed import Known, Observed
from nirvana.diffusion.level import Level, strictly_monotone
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.solver.protocol import Solver, Step

S = TypeVar("S")


def inpainted(
    method: Method,
    denoiser: Denoiser,
    x: Float[Tensor, "b *s"],
    observed: Observed,
    levels: Sequence[Level],
    solver: Solver[S],
    *,
    cond: Cond,
    noise: Noise,
) -> Iterator[Step]:
    """`trajectory` of `Known(denoiser, observed)` with the edits of `method`: where it ends clean, x has y bit for bit.

    x: at levels[0], with the known part in it: `observed.begun(noise, levels[0])`. Guidance goes inside: `denoiser`.
    Raises ValueError at once where x, y, the mask or the levels do not fit, where noise rises, and for CFG++ with a
    method that calls the network between steps.
    """
    for name, part in (("y", observed.y), ("known", observed.known)):
        if not _fits(part.shape, x.shape):
            raise ValueError(f"{name} has shape {tuple(part.shape)}, which does not fit x, {tuple(x.shape)}")
    if strictly_monotone(levels) == "rising":
        raise ValueError("inpainting goes from noise to data: give levels of falling noise")
    if first_order_only(denoiser) and method.calls(levels):
        raise ValueError("this guidance (CFG++) is for the steps of a solver only: inpaint with ddnm or replacement")
    known, edits = Known(denoiser, observed), method.edits(observed, levels)
    walk = trajectory(known, x, levels, solver, cond=cond, noise=noise, edits=edits)
    return (_settled(step, observed) for step in walk)


def _settled(step: Step, observed: Observed) -> Step:
    """Without the rounding of the solver in what is known, where the step leads to clean data."""
    return replace(step, x=observed.put(step.x, step.nxt, torch.zeros_like(step.x))) if step.nxt.is_clean else step


def _fits(shape: torch.Size, whole: torch.Size) -> bool:
    return len(shape) <= len(whole) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(whole), strict=False))


def calls(method: Method, solver: Solver[Any], levels: Sequence[Level]) -> int | None:
    """The exact number of network calls of `inpainted`; None where the solver adapts."""
    steps = solver.calls(levels)
    return None if steps is None else steps + method.calls(levels)
