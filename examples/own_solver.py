"""An own schedule, an own solver and the bare sampling loop, on any trained run: python examples/own_solver.py RUN."""

import sys
from dataclasses import dataclass

import torch

import nirvana
from nirvana.diffusion import Level, SeededNoise, Step, eps_from_x0, guided, left_align, start, trajectory, uniform


class Quadratic:
    """An own schedule: angle = pi/2 * t^2, more of the time at little noise."""

    def __call__(self, t):
        return Level.from_angle(torch.pi / 2 * t**2)

    def time(self, lam):
        return (Level.from_lam(lam).angle / (torch.pi / 2)).sqrt()


@dataclass(frozen=True)
class Heun:
    """An own solver: a first-order step, then the same step with the mean of both predictions of x0."""

    order = started_order = 2
    deterministic = True

    def calls(self, levels):
        return 2 * (len(levels) - 1)

    def init(self, x):
        return None

    def revise(self, state):
        return None

    def step(self, denoise, x, now, nxt, state, noise):
        first = denoise(x, now, nxt)
        guess = self.move(x, first.x0, now, nxt)
        x0 = first.x0 if nxt.is_clean else (first.x0 + denoise(guess, nxt).x0) / 2
        return Step(now, nxt, self.move(x, x0, now, nxt), first), state

    def move(self, x, x0, now, nxt):
        return left_align(nxt.alpha, x) * x0 + left_align(nxt.sigma, x) * eps_from_x0(x, x0, now)


if __name__ == "__main__":
    model = nirvana.load(sys.argv[1])
    parts, noise = model.parts, SeededNoise(range(7, 11), model.parts.shape)
    levels = uniform(Quadratic(), 12)
    cond = parts.conditioner(torch.arange(4) % max(1, len(model.labels)))
    denoiser = guided(parts.denoiser, cond, parts.conditioner.null(cond), 2.0) if cond else parts.denoiser
    with torch.inference_mode():
        for step in trajectory(denoiser, start(noise, levels[0]), levels, Heun(), cond=cond, noise=noise):
            print(f"step {step.index + 1}: sigma {float(step.nxt.sigma):.3f}, std of x {step.x.std():.3f}")
