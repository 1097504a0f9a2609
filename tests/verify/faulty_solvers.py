"""Solvers and grids with one planted fault each, and the sound ones they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nirvana.diffusion import Level, Noise, Prediction, Schedule, Step, eps_from_x0, left_align, uniform
from nirvana.diffusion.solver import Denoise


def toward(x: Tensor, x0: Tensor, now: Level, nxt: Level) -> Tensor:
    """The first-order step."""
    rest = nxt.sigma / now.sigma
    return left_align(rest, x) * x + left_align(nxt.alpha - rest * now.alpha, x) * x0


@dataclass(frozen=True)
class Euler:
    """A sound first-order solver."""

    order: int = 1
    started_order: int = 1
    deterministic: bool = True

    def calls(self, levels: Sequence[Level]) -> int:
        return len(levels) - 1

    def init(self, x: Tensor) -> Any:
        return None

    def revise(self, state: Any) -> Any:
        return state

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        prediction = denoise(x, now, nxt)
        return Step(now, nxt, toward(x, prediction.x0, now, nxt), prediction), state


class Boasting(Euler):
    """It claims the second order."""

    def __init__(self) -> None:
        super().__init__(order=2, started_order=2)


@dataclass(frozen=True)
class Heun(Euler):
    """A sound second-order solver: two calls a step, one in the last."""

    order: int = 2
    started_order: int = 2

    def calls(self, levels: Sequence[Level]) -> int:
        return 2 * (len(levels) - 1) - levels[-1].is_clean

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        first = denoise(x, now, nxt)
        guess = toward(x, first.x0, now, nxt)
        x0 = first.x0 if nxt.is_clean else self.mean(first.x0, self.second(denoise, guess, now, nxt), now, nxt)
        return Step(now, nxt, toward(x, x0, now, nxt), first), state

    def mean(self, first: Tensor, second: Tensor, now: Level, nxt: Level) -> Tensor:
        return (first + second) / 2

    def second(self, denoise: Denoise, guess: Tensor, now: Level, nxt: Level) -> Tensor:
        return denoise(guess, nxt).x0


class StageAtTheWrongSigma(Heun):
    """The second stage is told the level of the first."""

    def second(self, denoise: Denoise, guess: Tensor, now: Level, nxt: Level) -> Tensor:
        return denoise(guess, now).x0


class CallsOneTooMany(Heun):
    """It forgets that the last step needs no second stage."""

    def calls(self, levels: Sequence[Level]) -> int:
        return 2 * (len(levels) - 1)


class StageAtSigmaZero(Heun):
    """It asks the network of clean data."""

    def calls(self, levels: Sequence[Level]) -> int:
        return 2 * (len(levels) - 1)

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        step, state = super().step(denoise, x, now, nxt, state, noise)
        if nxt.is_clean:
            denoise(step.x, nxt)
        return step, state


class InPlace(Euler):
    """It changes the x it is given."""

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        step, state = super().step(denoise, x, now, nxt, state, noise)
        return Step(now, nxt, x.copy_(step.x), step.prediction), state


class RepeatsALevel(Euler):
    """Its first step stays where it is, and says so."""

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        step, _ = super().step(denoise, x, now, nxt, state, noise)
        return (step if state else Step(now, now, x, step.prediction)), True


class WrongEnd(Euler):
    """The last step stops at a hundredth of the noise."""

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        step, state = super().step(denoise, x, now, nxt, state, noise)
        return Step(now, nxt, step.x + 0.1 * nxt.is_clean, step.prediction), state


class BatchMean(Euler):
    """An item depends on the others of its batch."""

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        step, state = super().step(denoise, x, now, nxt, state, noise)
        return Step(now, nxt, step.x + 1e-3 * step.x.mean(0), step.prediction), state


@dataclass(frozen=True)
class UniformStride(Euler):
    """Adams-Bashforth of order 2 that takes the last step for as long as this one."""

    order: int = 2
    started_order: int = 2

    def weight(self, before: Level, now: Level, nxt: Level) -> Tensor:
        return torch.tensor(0.5)

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        prediction = denoise(x, now, nxt)
        x0 = prediction.x0
        if state is not None and not nxt.is_clean:
            before, x0_before = state
            x0 = x0 + left_align(self.weight(before, now, nxt), x) * (x0 - x0_before)
        return Step(now, nxt, toward(x, x0, now, nxt), prediction), (now, prediction.x0)


class AnyStride(UniformStride):
    """The sound one: half the ratio of the steps in lam."""

    def weight(self, before: Level, now: Level, nxt: Level) -> Tensor:
        weight = (nxt.lam - now.lam) / (now.lam - before.lam) / 2
        return torch.where(weight.isfinite(), weight, 0.0)


@dataclass(frozen=True)
class Churned(Heun):
    """A sound stochastic solver: it adds noise up to a higher level, evaluates there, and steps down."""

    deterministic: bool = False

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        lift = torch.sqrt(1 + (nxt.lam - now.lam).clamp(max=0.4).nan_to_num(0.4))
        higher = Level(now.alpha, now.sigma * lift)
        added = left_align((higher.sigma**2 - now.sigma**2).sqrt(), x)
        noisier = x + added * noise.fresh(f"churn at {float(now.lam)}")
        first = self.evaluated(denoise, x, noisier, now, higher, nxt)
        guess = toward(noisier, first.x0, higher, nxt)
        x0 = first.x0 if nxt.is_clean else (first.x0 + denoise(guess, nxt).x0) / 2
        return Step(now, nxt, toward(noisier, x0, higher, nxt), first), state

    def evaluated(self, denoise: Denoise, x: Tensor, noisier: Tensor, now: Level, higher: Level, nxt: Level) -> Any:
        return denoise(noisier, higher, nxt)


class ChurnAfterTheEvaluation(Churned):
    """The network sees x without the noise, and its eps is taken for that of x with the noise."""

    def evaluated(self, denoise: Denoise, x: Tensor, noisier: Tensor, now: Level, higher: Level, nxt: Level) -> Any:
        seen = denoise(x, now, nxt)
        if now.is_pure_noise:
            return seen
        eps = eps_from_x0(x, seen.x0, now)
        return Prediction((noisier - left_align(higher.sigma, x) * eps) / left_align(higher.alpha, x))


class ChurnWithOneKey(Churned):
    """The same noise at every step."""

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        same = noise.fresh("churn")

        class Same:
            def fresh(self, key: Any) -> Tensor:
                return same

        return super().step(denoise, x, now, nxt, state, Same())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Posterior(Euler):
    """A sound ancestral sampler: draws of q(x_nxt | x_now, x0)."""

    deterministic: bool = False

    def std(self, now: Level, nxt: Level) -> Tensor:
        return nxt.sigma * torch.sqrt(-torch.expm1(2 * (now.lam - nxt.lam)))

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        prediction = denoise(x, now, nxt)
        rest = nxt.sigma / now.sigma * torch.exp(now.lam - nxt.lam)
        mean = left_align(rest, x) * x + left_align(nxt.alpha - rest * now.alpha, x) * prediction.x0
        drawn = mean if nxt.is_clean else mean + left_align(self.std(now, nxt), x) * noise.path(now, nxt)
        return Step(now, nxt, drawn, prediction), state


class WrongVariance(Posterior):
    """Its variance is that of the step's start."""

    def std(self, now: Level, nxt: Level) -> Tensor:
        return 1.1 * super().std(now, nxt)


class OwnNumbers(Posterior):
    """It draws from the global generator."""

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        step, state = super().step(denoise, x, now, nxt, state, noise)
        return Step(now, nxt, step.x + 0.01 * torch.randn_like(x), step.prediction), state


class SecretlyStochastic(Posterior):
    """It says it is deterministic."""

    def __init__(self) -> None:
        super().__init__(deterministic=True)


class Raises(Euler):
    """Division by zero at the second step."""

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        if state:
            raise ZeroDivisionError("float division by zero")
        return super().step(denoise, x, now, nxt, state, noise)[0], True


def one_too_many(schedule: Schedule, n: int) -> list[Level]:
    return uniform(schedule, n + 1)


def repeats_the_last(schedule: Schedule, n: int) -> list[Level]:
    levels = uniform(schedule, n)
    return [*levels[:-2], levels[-1], levels[-1]]


def ends_above_zero(schedule: Schedule, n: int) -> list[Level]:
    return [*uniform(schedule, n)[:-1], Level.of(1.0, 1e-4)]


def none_is_one(schedule: Schedule, n: int) -> list[Level]:
    return uniform(schedule, max(1, n))
