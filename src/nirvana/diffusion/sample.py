"""The one sampling loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser, first_order_only, freshened
from nirvana.diffusion.level import Level, check_aligned, left_align, strictly_monotone
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.solver.protocol import Denoise, Solver, Step

S = TypeVar("S")

Edit = Callable[[Tensor, Level, Denoise, Noise], Tensor]
"""(x, level, denoise, noise) -> x, applied at `now` before the step; returns x itself where it changes nothing."""


def start(noise: Noise, level: Level) -> Tensor:
    """The x a trajectory starts from: sigma * a unit normal, which at alpha = 0 is exact."""
    initial = noise.initial()
    return left_align(level.sigma, initial) * initial


def trajectory(
    denoiser: Denoiser,
    x: Float[Tensor, "b *s"],
    levels: Sequence[Level],
    solver: Solver[S],
    *,
    cond: Cond,
    noise: Noise,
    edits: Sequence[Edit] = (),
) -> Iterator[Step]:
    """Walk x along `levels`, one `Step` per pair of neighbours: n + 1 levels give n steps.

    x: at levels[0], float32 or float64. Falling noise samples; rising noise encodes and takes a deterministic solver
    and a first level with sigma > 0. An edit that returns another x makes the solver drop what it evaluated before.
    Raises ValueError at once, before the first network call, where x or the levels do not fit. Break off to cancel.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the state is {x.dtype}: give float32 or float64 (networks of 16 bits convert on their own)")
    if strictly_monotone(levels) == "rising":
        if not solver.deterministic:
            raise ValueError("rising levels (encoding) take a deterministic solver, such as DDIM with eta=0")
        if bool((levels[0].sigma == 0).any()):
            raise ValueError("encoding starts at the first level with sigma > 0: drop the clean one")
    if first_order_only(denoiser) and not (solver.order == 1 and solver.deterministic):
        raise ValueError(
            "this guidance (CFG++) takes a deterministic solver of the first order, such as DDIM with eta=0"
        )
    for shape in {c.shape for level in levels for c in (level.alpha, level.sigma)}:
        check_aligned(shape, x)
    return _steps(freshened(denoiser), x, levels, solver, cond, noise, edits)


def _steps(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[Level],
    solver: Solver[S],
    cond: Cond,
    noise: Noise,
    edits: Sequence[Edit],
) -> Iterator[Step]:
    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        return denoiser(x, level, cond, nxt)

    state = solver.init(x)
    for index, (now, nxt) in enumerate(pairwise(levels)):
        for edit in edits:
            edited = edit(x, now, denoise, noise)
            if edited is not x:
                x, state = edited, solver.revise(state)
        step, state = solver.step(denoise, x, now, nxt, state, noise)
        x = step.x
        yield Step(step.now, step.nxt, x, step.prediction, index)
