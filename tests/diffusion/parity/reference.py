"""How a sampler of another library walks the same levels with the same denoiser and the same noise, in float64."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.denoiser import Denoiser
from nirvana.diffusion.exact import MixtureDenoiser
from nirvana.diffusion.level import Level, walk
from nirvana.diffusion.prediction import eps_from_x0
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.solver import Solver

F64 = torch.float64
SHAPE = (3, 2, 2)
"""Three pictures of four numbers."""


def mixture() -> MixtureDenoiser:
    """What every walk denoises with: smooth, far from linear, and exact."""
    rng = torch.Generator().manual_seed(5)
    means = torch.randn(3, *SHAPE[1:], generator=rng, dtype=F64)
    return MixtureDenoiser(torch.tensor([0.5, 0.3, 0.2]), means, torch.tensor([0.2, 0.05, 0.4], dtype=F64))


def draws(count: int) -> list[Tensor]:
    """The noise of `count` steps, after the start."""
    rng = torch.Generator().manual_seed(6)
    return [torch.randn(SHAPE, generator=rng, dtype=F64) for _ in range(count)]


def first(level: Level) -> Tensor:
    """The x that every walk starts from."""
    return draws(1)[0] * level.norm


class Given:
    """A `Noise` that hands out given draws one after the other."""

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        self._numbers = iter(numbers)

    def initial(self) -> Tensor:
        raise AssertionError("a walk with a given start draws none")

    def path(self, now: Level, nxt: Level) -> Tensor:
        return next(self._numbers)

    def fresh(self, key: object) -> Tensor:
        return next(self._numbers)


def ours(
    solver: Solver[Any], levels: Sequence[Level], numbers: Sequence[Tensor] = (), denoiser: Denoiser | None = None
) -> Tensor:
    """The end of our walk."""
    *_, last = trajectory(denoiser or mixture(), first(levels[0]), levels, solver, cond={}, noise=Given(numbers))
    return last.x


def close(found: Tensor, expected: Tensor) -> bool:
    """1e-6, relative to numbers of order 1, in float64."""
    assert found.dtype == expected.dtype == F64
    return torch.allclose(found, expected, rtol=0, atol=1e-6)


def unit(*ratios: float) -> list[Level]:
    """Levels of unit norm: "variance preserving"."""
    return walk(Level.from_ratio(torch.tensor(ratios, dtype=F64)))


def exploding(*ratios: float) -> list[Level]:
    """Levels with alpha = 1: "variance exploding"."""
    sigma = torch.tensor(ratios, dtype=F64)
    return walk(Level(torch.ones_like(sigma), sigma))


class InDouble:
    """A module whose float32 is float64: what a scheduler rounds by, so that rounding is not what is compared."""

    def __init__(self, module: object) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


@pytest.fixture
def diffusers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes a scheduler of diffusers, by the name of its module and class, that computes in float64."""

    def make(module: str, name: str, **options: Any) -> Any:
        source = importlib.import_module(f"diffusers.schedulers.scheduling_{module}")
        for library in ("torch", "np"):
            if not isinstance(getattr(source, library, InDouble), InDouble | type):
                monkeypatch.setattr(source, library, InDouble(getattr(source, library)))
        return getattr(source, name)(**options)

    return make


def given_draws(scheduler: Any, monkeypatch: pytest.MonkeyPatch, numbers: Sequence[Tensor]) -> None:
    """Makes a scheduler that draws its own noise draw `numbers`, one after the other."""
    left: Iterator[Tensor] = iter(numbers)
    source = importlib.import_module(type(scheduler).__module__)
    monkeypatch.setattr(source, "randn_tensor", lambda *_, **__: next(left))


def theirs(
    scheduler: Any,
    levels: Sequence[Level],
    output: str = "eps",
    denoiser: Denoiser | None = None,
    **each: Sequence[Tensor],
) -> Tensor:
    """The end of the walk of a diffusers scheduler that keeps its levels in `sigmas` (sigma/alpha, or sigma alone).

    Its grid is replaced by ours; a scheduler that visits levels twice repeats them in the way it had repeated its own.
    output: what the network says, "eps" or "x0". each: arguments of `step` that have a value for every call.
    """
    scheduler.set_timesteps(len(levels) - 1)
    own = scheduler.sigmas
    order = [0, *(own[1:] != own[:-1]).cumsum(0).tolist()]
    ratios = torch.stack([level.sigma / level.alpha for level in levels])
    assert order[-1] == len(levels) - 1
    scheduler.sigmas = ratios[order]
    scheduler.set_begin_index(0)
    x, denoiser = first(levels[0]), denoiser or mixture()
    for call, t in enumerate(scheduler.timesteps):
        level = levels[order[call]]
        x0 = denoiser(x, level, {}).x0
        scheduler.scale_model_input(x, t)  # some insist; the denoiser scales for itself
        said = x0 if output == "x0" else eps_from_x0(x, x0, level)
        x = scheduler.step(said, t, x, **{name: values[call] for name, values in each.items()}).prev_sample
    return x
