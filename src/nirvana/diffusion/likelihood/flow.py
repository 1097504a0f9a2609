"""The log-density of the probability flow.

The flow carries x from the data end of a grid to its noise end, where the density is that of N(0, I), and collects the
divergence of its velocity on the way: with the angle a and at unit norm,
    dx/da = v(x, a),    d log p_a(x(a))/da = -div v,    v = (cos(a) x - x0(x, a))/sin(a).

References:
    [S] Song et al. 2021, Score-Based Generative Modeling through SDEs, arXiv:2011.13456, section 4.3 and appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser, Remembers
from nirvana.diffusion.level import Level, left_align, moved, walk
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.solver import Solver

# The divergence.


@runtime_checkable
class Trace(Protocol):
    """The trace of d x0/d x of every item, where x0 was computed from x with a graph."""

    def __call__(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, "b"]:
        """sum_i d x0_i/d x_i."""
        ...


@dataclass(frozen=True)
class ExactTrace:
    """The trace itself: one backward pass a dimension."""

    def __call__(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, "b"]:
        """sum_i d x0_i/d x_i."""
        outputs = x0.flatten(1).unbind(1)
        rows = (_gradient(output.sum(), x).flatten(1)[:, i] for i, output in enumerate(outputs))
        return sum(rows, torch.zeros_like(outputs[0]))


@dataclass(frozen=True, eq=False)
class HutchinsonTrace:
    """z^T (d x0/d x) z: one backward pass, and the trace in the mean over probes z of independent signs.

    probe: z, of the shape of x, the same all along a solve, so that the solver sees a smooth function ([S] eq. 40).
    """

    probe: Float[Tensor, "b *s"]

    def __call__(self, x0: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"]) -> Float[Tensor, "b"]:
        """z^T (d x0/d x) z."""
        return (_gradient((x0 * self.probe).sum(), x) * self.probe).flatten(1).sum(1)


def signs(normal: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
    """A probe of independent signs (Rademacher) from unit normals: of all probes the one with the least variance."""
    return torch.where(normal < 0, -1.0, 1.0).to(normal)


def _gradient(y: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(y, x, retain_graph=True, materialize_grads=True)[0]


# The log-density of the probability flow.


@dataclass(frozen=True, eq=False)
class FlowDensity:
    """log_prob (b,): log p(x) in nats; latent: where the flow carries x, at unit norm."""

    log_prob: Float[Tensor, "b"]
    latent: Float[Tensor, "b *s"]


@dataclass(frozen=True, eq=False)
class _WithDensity:
    """The denoiser of (x, l), l = log p_a(x(a)) - log p(x) as one more number of every item.

    From dl/da = -div v and v_l = (cos(a) l - x0_l)/sin(a): x0_l = cos(a) (l + D) - trace(d x0/d x), D the dimensions of
    x. So every deterministic solver carries l along, at its own order.
    """

    denoiser: Denoiser
    trace: Trace
    shape: torch.Size

    def __call__(self, x: Float[Tensor, "b d"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        state, gained = x[:, :-1].reshape(-1, *self.shape), x[:, -1:]
        with torch.enable_grad():
            state = state.detach().requires_grad_()
            x0 = self.denoiser(state, level, cond, nxt).x0
            if not x0.requires_grad:
                raise ValueError("this denoiser gives an x0 without a derivative in x, which the divergence needs")
            trace = self.trace(x0, state)
        x0_l = left_align(level.alpha, gained) * (gained + state[0].numel()) - trace[:, None]
        return Prediction(torch.cat([x0.detach().flatten(1), x0_l], dim=1))


def flow_density(
    denoiser: Denoiser,
    x: Float[Tensor, "b *s"],
    levels: Sequence[Level],
    solver: Solver[Any],
    *,
    cond: Cond,
    trace: Trace,
) -> FlowDensity:
    """log p(x) of x at levels[0], by the probability flow along `levels` of rising noise ([S] eq. 39).

    p is what the flow makes of N(0, I) at the (unit-norm) last level: with alpha = 0 there, exactly what it makes of
    noise. levels: of shape (), the first with sigma > 0; x has the norm of levels[0]. The error in the step size has
    the order of `solver`, which is deterministic. Differentiates the denoiser in x: not under `inference_mode`.
    Raises ValueError where the levels fall, and what `trajectory` raises.
    """
    norm = levels[0].norm
    unit = walk(Level(torch.stack([u.unit().alpha for u in levels]), torch.stack([u.unit().sigma for u in levels])))
    if bool(unit[-1].angle <= unit[0].angle):
        raise ValueError("a density is carried from data to noise: give levels of rising noise")
    start = torch.cat([(x / left_align(norm, x)).flatten(1), x.new_zeros(len(x), 1)], dim=1)
    fresh = denoiser.fresh() if isinstance(denoiser, Remembers) else denoiser
    joint = _WithDensity(fresh, trace, x.shape[1:])
    unused = SeededNoise([0] * len(x), start.shape[1:])
    end = start
    for step in trajectory(joint, start, unit, solver, cond=cond, noise=unused):
        end = step.x
    latent, gained = end[:, :-1], end[:, -1]
    log_prior = -0.5 * (latent**2 + math.log(2 * math.pi)).sum(1)
    log_norm = x[0].numel() * moved(norm.log(), x.device, x.dtype)
    return FlowDensity(log_prior - gained - log_norm, latent.reshape(x.shape))
