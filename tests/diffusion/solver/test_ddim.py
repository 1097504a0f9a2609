"""DDIM: order, exact cases, agreement with the posterior of the chain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.denoiser import Cond
from nirvana.diffusion.exact import GaussianDenoiser
from nirvana.diffusion.grid import Grid, karras, uniform, uniform_lam
from nirvana.diffusion.level import Level
from nirvana.diffusion.named import DDIM
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.schedule import Cosine, LinearVP, RectifiedFlow, Schedule, Tabulated
from nirvana.diffusion.solver import Ancestral, ddim_coefficients

F64 = torch.float64
BETA = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
TABLE = Tabulated.from_beta(BETA)


class Constant:
    """A denoiser that always says the same x0."""

    def __init__(self, x0: Tensor) -> None:
        self.x0 = x0

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        return Prediction(self.x0.expand_as(x))


def gaussian() -> GaussianDenoiser:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(4, 4, generator=generator, dtype=F64)
    return GaussianDenoiser(torch.randn(4, generator=generator, dtype=F64), root @ root.T / 4)


def noise(*, keep_path: bool = False) -> SeededNoise:
    return SeededNoise([1, 2, 3], (4,), dtype=F64, keep_path=keep_path)


def end(denoiser: GaussianDenoiser | Constant, x: Tensor, levels: Sequence[Level], eta: float = 0.0) -> Tensor:
    *_, last = trajectory(denoiser, x, levels, DDIM(eta), cond={}, noise=noise())
    return last.x


@pytest.mark.parametrize(
    ("schedule", "grid"),
    [
        (RectifiedFlow(), uniform),
        (Cosine(), uniform),
        (LinearVP(), uniform),
        (RectifiedFlow(), karras()),
        (RectifiedFlow(), uniform_lam((-4.0, 6.0))),
    ],
    ids=["flow", "cosine", "linear-vp", "karras", "lam"],
)
def test_converges_to_the_closed_form_with_order_one(schedule: Schedule, grid: Grid):
    denoiser, steps = gaussian(), [40, 80, 160]
    errors: list[float] = []
    for n in steps:
        levels = grid(schedule, n)
        x = noise().initial() * levels[0].sigma
        errors.append(float((end(denoiser, x, levels) - denoiser.transport(x, levels[0], levels[-1])).abs().max()))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(slopes) >= 0.85 and max(slopes) < 1.3
    assert errors[-1] < 0.1
    assert DDIM().order == DDIM().started_order == 1


def test_encoding_is_the_reverse_walk():
    denoiser, rising = gaussian(), uniform(RectifiedFlow(), 400)[-2::-1][:-1]
    x = denoiser.transport(noise().initial(), Level.of(0.0, 1.0), rising[0])
    found, expected = end(denoiser, x, rising), denoiser.transport(x, rising[0], rising[-1])
    assert float((found - expected).abs().max()) < 0.03


def pairs() -> list[tuple[Level, Level]]:
    walk = [Level.from_lam(lam) for lam in (-math.inf, -5.0, -0.3, 0.2, 0.2000001, 3.0, 9.0, math.inf)]
    scales = [1.0, 3.0, 0.2, 1.0, 1.0, 11.0, 0.5, 2.0]
    mixed = [level.scaled(c) for level, c in zip(walk, scales, strict=True)]
    return [*pairwise(walk), *pairwise(mixed), (walk[0], walk[-1]), (mixed[0], mixed[-1])]


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_constant_x0_keeps_the_marginals_at_any_scale(eta: float):
    """alpha and the total variance of x_nxt are those of the level: c_x alpha + c_0, (c_x sigma)^2 + s^2."""
    for now, nxt in pairs():
        c_x, c_0, s = ddim_coefficients(now, nxt, eta)
        assert float(c_x * now.alpha + c_0) == pytest.approx(float(nxt.alpha), rel=1e-14, abs=1e-15)
        assert float((c_x * now.sigma) ** 2 + s**2) == pytest.approx(float(nxt.sigma**2), rel=1e-13, abs=0)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_steps_are_the_same_at_any_scale(eta: float):
    for now, nxt in pairs():
        c_x, c_0, s = ddim_coefficients(now, nxt, eta)
        scaled = ddim_coefficients(now.scaled(5.0), nxt.scaled(0.3), eta)
        assert float(scaled[0]) == pytest.approx(float(c_x) * 0.3 / 5, rel=1e-9, abs=0)
        assert float(scaled[1]) == pytest.approx(float(c_0) * 0.3, rel=1e-7, abs=1e-16)
        assert float(scaled[2]) == pytest.approx(float(s) * 0.3, rel=1e-7, abs=0)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_noise_is_the_papers(eta: float):
    """s = eta sqrt((1 - a_nxt)/(1 - a)) sqrt(1 - a/a_nxt), a = alpha_bar (Song, Meng & Ermon 2021, eq. 16)."""
    a, b = TABLE.at(700), TABLE.at(300)
    now, nxt = float(a.alpha) ** 2, float(b.alpha) ** 2
    expected = eta * math.sqrt((1 - nxt) / (1 - now)) * math.sqrt(1 - now / nxt)
    assert float(ddim_coefficients(a, b, eta)[2]) == pytest.approx(expected, rel=1e-12)


def test_eta_one_is_the_posterior_of_the_chain():
    """mu~ and beta~ of Ho et al. 2020, eq. 7, for every t of the table."""
    now, nxt = Level(TABLE.alpha[2:], TABLE.sigma[2:]), Level(TABLE.alpha[1:-1], TABLE.sigma[1:-1])
    c_x, c_0, s = ddim_coefficients(now, nxt, 1.0)
    beta = BETA[1:]
    variance = nxt.sigma**2 / now.sigma**2 * beta
    assert torch.allclose(s**2, variance, rtol=1e-11, atol=0)
    assert torch.allclose(c_0, nxt.alpha * beta / now.sigma**2, rtol=1e-11, atol=0)
    assert torch.allclose(c_x, (1 - beta).sqrt() * nxt.sigma**2 / now.sigma**2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [1, 5, 50])
def test_eta_one_draws_what_ancestral_draws(n: int):
    levels, x = uniform(TABLE, n), noise().initial()
    walks = [trajectory(gaussian(), x, levels, s, cond={}, noise=noise()) for s in (DDIM(1.0), Ancestral("small"))]
    for one, other in zip(*walks, strict=True):
        assert torch.allclose(one.x, other.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine()], ids=["flow", "cosine"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 13])
def test_a_constant_x0_is_reached_exactly_from_pure_noise(n: int, eta: float, schedule: Schedule):
    x0 = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=F64)
    found = end(Constant(x0), noise().initial(), uniform(schedule, n), eta)
    assert torch.equal(found, x0.expand(3, 4))


@pytest.mark.parametrize("n", [1, 4, 10])
def test_noisy_steps_refine_exactly(n: int):
    """For a constant x0, n and 2n steps of DDIM(eta=1) along one kept Brownian path end at the same x."""
    x0, kept = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=F64), noise(keep_path=True)
    for first in (0.0, 0.2):
        fine = [RectifiedFlow()(torch.tensor(1 - first - 0.7 * i / (2 * n), dtype=F64)) for i in range(2 * n + 1)]
        fine = [level.scaled(1.0 + i % 3) for i, level in enumerate(fine)]
        x = kept.initial() * fine[0].norm
        ends: list[Tensor] = []
        for levels in (fine[::2], fine):
            *_, last = trajectory(Constant(x0), x, levels, DDIM(1.0), cond={}, noise=kept)
            ends.append(last.x)
        assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-12)
        assert float((ends[0] - fine[-1].alpha * x0).abs().min()) > 1e-3


def test_levels_per_item_equal_one_at_a_time():
    lam = torch.tensor([-1.0, 0.0, 1.0], dtype=F64)
    x = noise().initial()
    together = end(gaussian(), x, [Level.from_lam(lam), Level.from_lam(lam + 1)], eta=0.0)
    for i in range(3):
        alone = end(gaussian(), x[i : i + 1], [Level.from_lam(lam[i]), Level.from_lam(lam[i] + 1)])
        assert torch.allclose(together[i : i + 1], alone, rtol=0, atol=1e-14)


def test_the_state_stays_float32():
    *_, last = trajectory(
        Constant(torch.zeros(4)), torch.ones(3, 4), uniform(Cosine(), 3), DDIM(1.0), cond={}, noise=noise()
    )
    assert last.x.dtype == torch.float32


def test_no_step_starts_at_a_clean_level():
    with pytest.raises(ValueError, match="first level with sigma > 0"):
        ddim_coefficients(Level.of(1.0, 0.0), Level.of(0.0, 1.0))


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan, math.inf])
def test_eta_out_of_range_is_refused(eta: float):
    with pytest.raises(ValueError, match="eta is"):
        DDIM(eta)
