"""RePaint: replacement, with jumps back to more noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.inpaint.method import index_of
from nirvana.diffusion.inpaint.observed import Observed
from nirvana.diffusion.level import Level, between, combined
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.sample import Edit
from nirvana.diffusion.solver.ancestral import Ancestral
from nirvana.diffusion.solver.protocol import Denoise


def renoised(x: Float[Tensor, "b *s"], low: Level, high: Level, noise: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
    """x at `low` with as much noise as `high` has: a draw of q(x_high | x_low).

    alpha_high/alpha_low x + sigma_high sqrt(1 - exp(2 (lam_high - lam_low))) noise.
    """
    of_x, std = between(_upwards, low, high)
    return combined((of_x, x), (std, noise.to(x)))


def _upwards(low: Level, high: Level) -> tuple[Tensor, Tensor]:
    return high.alpha / low.alpha, high.sigma * torch.sqrt(-torch.expm1(2 * (high.lam - low.lam)))


@dataclass(frozen=True)
class _Keyed:
    """A noise whose path is fresh: a walk over levels that are passed several times."""

    noise: Noise
    key: tuple[str | int, ...]

    def initial(self) -> Tensor:
        return self.noise.initial()

    def path(self, now: Level, nxt: Level) -> Tensor:
        del now, nxt
        return self.noise.fresh(self.key)

    def fresh(self, key: str | int | tuple[str | int, ...]) -> Tensor:
        return self.noise.fresh(key)


@dataclass(frozen=True)
class RePaint:
    """Replacement, and jumps back: from every `jump`-th level `resample` times down `jump` levels and up again.

    Down by steps of the posterior q(x_nxt | x_now, x0), with the known part replaced, and up by its noise: what is
    free sees what is known again and again (Lugmayr et al. 2022, algorithm 1; theirs is jump = 10, resample = 9 on 250
    levels). The bias of the mean falls as it resamples, that of its steps down stays. The first jump starts at the
    second level; none starts at pure noise, which forgets it, or goes down to clean data.
    Raises ValueError unless resample >= 0 and jump >= 1.
    """

    resample: int = 4
    jump: int = 4

    def __post_init__(self) -> None:
        if self.resample < 0 or self.jump < 1:
            raise ValueError(f"resample = {self.resample} and jump = {self.jump}: give at least 0 and 1")

    def edits(self, observed: Observed, levels: Sequence[Level]) -> tuple[Edit, ...]:
        """One, which acts at all levels but the first."""
        return (_Resampled(self, observed, tuple(levels)),)

    def calls(self, levels: Sequence[Level]) -> int:
        """`resample` times the length of each jump."""
        return sum(self.resample * len(self.below(levels, index)) for index in range(len(levels) - 1))

    def below(self, levels: Sequence[Level], index: int) -> Sequence[Level]:
        """The levels that are walked down from that at `index`; none where no jump starts."""
        if (index - 1) % self.jump or levels[index].is_pure_noise:
            return ()
        return [level for level in levels[index + 1 : index + 1 + self.jump] if not level.is_clean]


@dataclass(frozen=True, eq=False)
class _Resampled:
    method: RePaint
    observed: Observed
    levels: tuple[Level, ...]

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, denoise: Denoise, noise: Noise) -> Tensor:
        index = index_of(level, self.levels)
        if index:
            x = self.observed.put(x, level, noise.fresh(("replacement", index)))
        below = self.method.below(self.levels, index)
        for turn in range(self.method.resample if below else 0):
            keys = (("repaint", index, turn, draw) for draw in count())
            x = self._there_and_back(x, [level, *below], denoise, noise, keys)
        return x

    def _there_and_back(
        self, x: Tensor, walk: Sequence[Level], denoise: Denoise, noise: Noise, keys: Iterator[tuple[str | int, ...]]
    ) -> Tensor:
        for now, nxt in pairwise(walk):
            step, _ = Ancestral().step(denoise, x, now, nxt, None, _Keyed(noise, next(keys)))
            x = self.observed.put(step.x, nxt, noise.fresh(next(keys)))
        return renoised(x, walk[-1], walk[0], noise.fresh(next(keys)))
