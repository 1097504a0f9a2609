"""Levels: exact ends, no cancellation, alignment, monotonicity."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import pytest
import torch

from nirvana.diffusion.level import Level, left_align, strictly_monotone

INF = math.inf
F64 = torch.float64


def exact_unit(lam: float) -> tuple[float, float]:
    """(alpha, sigma) = (sqrt(1/(1 + e^-2lam)), sqrt(1/(1 + e^2lam))) with 60 digits."""
    getcontext().prec = 60
    e = (2 * Decimal(lam)).exp()
    return float((e / (1 + e)).sqrt()), float((1 / (1 + e)).sqrt())


@pytest.mark.parametrize("lam", [-300.0, -40.0, -19.3, -5.0, -0.7, -1e-9, 0.0, 0.3, 4.0, 17.7, 25.0, 38.0, 300.0])
def test_from_lam_has_no_cancellation(lam: float):
    level = Level.from_lam(lam)
    alpha, sigma = exact_unit(lam)
    assert float(level.alpha) == pytest.approx(alpha, rel=4e-16 * max(1, abs(lam)))
    assert float(level.sigma) == pytest.approx(sigma, rel=4e-16 * max(1, abs(lam)))
    assert float(level.lam) == pytest.approx(lam, rel=1e-15, abs=1e-15)


@pytest.mark.parametrize(
    ("pure", "clean"),
    [
        (Level.from_lam(-INF), Level.from_lam(INF)),
        (Level.from_ratio(INF), Level.from_ratio(0.0)),
        (Level.from_angle(math.pi / 2), Level.from_angle(0.0)),
    ],
    ids=["lam", "ratio", "angle"],
)
def test_ends_are_exact(pure: Level, clean: Level):
    assert (float(pure.alpha), float(pure.sigma)) == (0.0, 1.0)
    assert (float(clean.alpha), float(clean.sigma)) == (1.0, 0.0)
    assert pure.is_pure_noise and not pure.is_clean
    assert clean.is_clean and not clean.is_pure_noise
    assert float(pure.lam) == -INF and float(clean.lam) == INF
    assert float(pure.ratio) == INF and float(clean.ratio) == 0
    assert float(pure.snr) == 0 and float(clean.snr) == INF
    assert float(pure.angle) == math.pi / 2 and float(clean.angle) == 0


@pytest.mark.parametrize("ratio", [1e-150, 1e-9, 0.002, 0.5, 1.0, 3.0, 80.0, 1e12, 1e150])
def test_ratio_round_trip(ratio: float):
    level = Level.from_ratio(ratio)
    assert float(level.ratio) == pytest.approx(ratio, rel=1e-15)
    assert float(level.norm) == pytest.approx(1, rel=1e-15)
    assert float(level.lam) == pytest.approx(-math.log(ratio), rel=1e-14, abs=1e-15)


def test_coordinates_agree_and_do_not_depend_on_the_scale():
    lam = torch.linspace(-12, 12, 101, dtype=F64)
    level = Level.from_lam(lam)
    for c in (1.0, 0.01, 77.0):
        scaled = level.scaled(c)
        assert torch.allclose(scaled.norm, torch.full_like(lam, c), rtol=1e-15, atol=0)
        assert torch.allclose(scaled.lam, lam, rtol=1e-14, atol=1e-14)
        assert torch.allclose(scaled.ratio, torch.exp(-lam), rtol=1e-14, atol=0)
        assert torch.allclose(scaled.snr, torch.exp(2 * lam), rtol=1e-13, atol=0)
        assert torch.allclose(torch.tan(scaled.angle), torch.exp(-lam), rtol=1e-9, atol=0)
        assert torch.allclose(scaled.unit().alpha, level.alpha, rtol=1e-15, atol=0)
        assert torch.allclose(scaled.unit().sigma, level.sigma, rtol=1e-15, atol=0)
    again = Level.from_angle(level.angle)
    assert torch.allclose(again.alpha, level.alpha, rtol=1e-10, atol=0)
    assert torch.allclose(again.sigma, level.sigma, rtol=1e-15, atol=0)


def test_a_level_is_float64_whatever_it_is_made_of():
    level = Level(torch.tensor(0.6, dtype=torch.float32), torch.tensor(0.8, dtype=torch.bfloat16))
    assert level.alpha.dtype == level.sigma.dtype == F64


def test_like_casts_moves_and_aligns_on_the_left():
    x = torch.zeros(2, 3, 4, 5, device="meta", dtype=torch.float32)
    per_channel = Level.from_lam(torch.arange(6, dtype=F64).reshape(2, 3))
    cast = per_channel.like(x)
    assert cast.alpha.shape == cast.sigma.shape == (2, 3, 1, 1)
    assert cast.alpha.dtype == torch.float32 and cast.alpha.device.type == "meta"
    alpha, _ = Level.from_lam(torch.tensor([0.0, 2.0])).like(torch.zeros(2, 3, 4))
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(alpha * x, torch.stack([alpha[0, 0, 0] * x[0], alpha[1, 0, 0] * x[1]]))
    assert Level.of(1.0, 0.5).like(x).sigma.shape == ()


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 4, 1)])
def test_a_shape_that_does_not_align_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="does not align"):
        left_align(torch.zeros(shape), torch.zeros(2, 3, 4))


def walk(*lams: float) -> list[Level]:
    return [Level.from_lam(float(lam)) for lam in lams]


def test_strictly_monotone_tells_the_direction():
    assert strictly_monotone(walk(-INF, -3, 0, 1e-12, 5, INF)) == "falling"
    assert strictly_monotone(walk(INF, 2, -1, -INF)) == "rising"
    per_item = [Level.from_lam(torch.tensor([a, b], dtype=F64)) for a, b in ((-1.0, -2.0), (0.0, 3.0))]
    assert strictly_monotone(per_item) == "falling"
    assert strictly_monotone([Level.of(1.0, 80.0), Level.of(0.2, 1.0), Level.of(7.0, 0.0)]) == "falling"


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (walk(1.0), "at least 2 levels, got 1"),
        (walk(-1, 0, 0, 1), "levels 1 and 2 .* lam goes from 0.0 to 0.0"),
        (walk(-1, 0, -0.5), "levels 1 and 2"),
        (walk(1, 0, 0.5), "levels 1 and 2 .* rise everywhere"),
        (walk(-INF, -INF), "levels 0 and 1"),
        (walk(-1, math.nan, 1), "level 1 is no noise level"),
        ([Level.of(0.0, 1.0), Level.of(0.0, 0.0)], "level 1 is no noise level"),
        ([Level.of(-0.5, -0.5), Level.of(1.0, 0.0)], "level 0 is no noise level"),
        ([Level.of(0.0, INF), Level.of(1.0, 0.0)], "level 0 is no noise level"),
        ([Level.from_lam(torch.tensor([a, b], dtype=F64)) for a, b in ((-1.0, 2.0), (0.0, 1.0))], "levels 0 and 1"),
    ],
)
def test_strictly_monotone_refuses(levels: list[Level], message: str):
    with pytest.raises(ValueError, match=message):
        strictly_monotone(levels)
