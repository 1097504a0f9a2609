"""Coordinates: corrections against quadrature in 50 digits, what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mpmath
import pytest
import torch
from torch import Tensor

from diffusion.solver.parts import F64
from nirvana.diffusion.level import Level
from nirvana.diffusion.solver.coordinate import (
    Coordinate,
    DataInLam,
    NoiseInLam,
    NoiseInRatio,
    VelocityInAngle,
    corrections,
    ddim_coefficients,
)

mpmath.mp.dps = 50

LEVELS = [Level.from_lam(lam).scaled(c) for lam, c in ((-1.7, 1.0), (-0.9, 2.0), (-0.2, 0.5), (0.9, 3.0))]


def shifted(coordinate: Coordinate, f: Sequence[Tensor]) -> float:
    """What f at the first three levels adds to x, from the third level to the fourth."""
    of_now, *of_others = corrections(coordinate, LEVELS[2], LEVELS[3], LEVELS[:2])
    return float(of_now * f[2] + of_others[0] * f[0] + of_others[1] * f[1])


def test_corrections_are_those_of_the_integral_in_each_coordinate():
    """Added to the first-order step they make it exact for f a quadratic polynomial of the variable."""

    def poly(q: Tensor) -> Tensor:
        return 0.3 - 0.7 * q + 0.45 * q**2

    now, nxt = LEVELS[2], LEVELS[3]
    h, lam = float(nxt.lam - now.lam), float(now.lam)
    for eta, kappa in ((0.0, 1), (1.0, 2)):
        full = mpmath.quad(
            lambda u, kappa=kappa: kappa * mpmath.exp(-kappa * (h - u)) * (poly(lam + u) - poly(lam)), [0, h]
        )
        f = [poly(level.lam) for level in LEVELS[:3]]
        assert shifted(DataInLam(eta), f) == pytest.approx(float(nxt.alpha) * float(full), rel=1e-13)
    full = mpmath.quad(lambda u: mpmath.exp(h - u) * (poly(lam + u) - poly(lam)), [0, h])
    f = [poly(level.lam) for level in LEVELS[:3]]
    assert shifted(NoiseInLam(), f) == pytest.approx(-float(nxt.sigma) * float(full), rel=1e-13)
    for coordinate, scale in ((NoiseInRatio(), nxt.alpha), (VelocityInAngle(), nxt.norm)):
        a, b = (float(coordinate.position(level)) for level in (now, nxt))
        full = mpmath.quad(lambda q, a=a: poly(q) - poly(a), [a, b])
        f = [poly(coordinate.position(level)) for level in LEVELS[:3]]
        assert shifted(coordinate, f) == pytest.approx(float(scale) * float(full), rel=1e-13)


@pytest.mark.parametrize("coordinate", [DataInLam(), DataInLam(0.6), NoiseInLam(), NoiseInRatio(), VelocityInAngle()])
def test_values_positions_and_first_steps_belong_together(coordinate: Coordinate):
    """A level is found again at its position; and where f is constant along the way, the first-order step is exact."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, dtype=F64, generator=generator)
    for now, nxt in ((LEVELS[0], LEVELS[2]), (LEVELS[1], LEVELS[3])):
        again = coordinate.level(coordinate.position(now))
        assert float(again.lam) == pytest.approx(float(now.lam), rel=1e-13)
        assert float(again.norm) == pytest.approx(1, rel=1e-14)
        c_x, c_0, s = coordinate.first(now, nxt)
        x = now.alpha * x0 + now.sigma * eps
        f = coordinate.value(x, x0, now)
        v = (now.alpha * eps - now.sigma * x0) / now.norm
        assert torch.allclose(f, {DataInLam: x0, NoiseInLam: eps, NoiseInRatio: eps}.get(type(coordinate), v))
        moved = c_x * x + c_0 * x0
        if isinstance(coordinate, VelocityInAngle):
            expected = nxt.norm * (x / now.norm + (nxt.angle - now.angle) * v)
        else:
            expected = nxt.alpha * x0 + torch.sqrt(nxt.sigma**2 - s**2) * eps
        assert torch.allclose(moved, expected, rtol=1e-13, atol=1e-14)
        assert float(coordinate.moments(now, nxt, 1)[0]) != 0


def test_the_first_order_step_of_ddim_has_no_cancellation():
    """c_0 of a step of 1e-10 in lam at lam = 12, to 6 digits: a difference of alphas would have none."""
    for eta, kappa in ((0.0, 1), (1.0, 2)):
        now, nxt = Level.from_lam(12.0), Level.from_lam(12.0 + 1e-10)
        h = float(nxt.lam - now.lam)
        assert float(ddim_coefficients(now, nxt, eta)[1]) == pytest.approx(-math.expm1(-kappa * h), rel=1e-6)


def test_no_correction_from_or_to_infinity():
    ends = Level.of(0.0, 1.0), Level.from_lam(-0.5), Level.from_lam(0.5), Level.of(1.0, 0.0)
    for coordinate in (DataInLam(), DataInLam(1.0), NoiseInLam()):
        assert [float(d) for d in corrections(coordinate, ends[0], ends[1], [ends[1]])] == [0, 0]
        assert [float(d) for d in corrections(coordinate, ends[2], ends[3], ends[1:2])] == [0, 0]
        assert [float(d) for d in corrections(coordinate, ends[1], ends[2], ends[:1])] == [0, 0]
    assert [float(d) for d in corrections(NoiseInRatio(), ends[0], ends[1], [ends[1]])] == [0, 0]
    assert all(float(d) for d in corrections(NoiseInRatio(), ends[2], ends[3], ends[1:2]))
    assert all(float(d) for d in corrections(VelocityInAngle(), ends[0], ends[1], [ends[1]]))


def test_levels_per_item_have_the_corrections_of_each():
    lam = torch.tensor([[-1.0, -math.inf, 0.2], [-0.4, -0.4, 0.9], [0.3, 0.3, math.inf]], dtype=F64)
    for coordinate in (DataInLam(0.5), NoiseInLam(), NoiseInRatio(), VelocityInAngle()):
        before, now, nxt = (Level.from_lam(row) for row in lam)
        together = corrections(coordinate, now, nxt, [before])
        for i in range(3):
            alone = corrections(coordinate, *(Level.from_lam(lam[k, i]) for k in (1, 2)), [Level.from_lam(lam[0, i])])
            assert [float(d[i]) for d in together] == [float(d) for d in alone]


def test_bh_weights_are_half_of_b():
    now, nxt, before = LEVELS[1], LEVELS[2], LEVELS[0]
    h, r = float(nxt.lam - now.lam), float((now.lam - before.lam) / (nxt.lam - now.lam))
    for linear, b in (("bh1", h), ("bh2", -math.expm1(-h))):
        of_now, of_before = corrections(DataInLam(0.0, linear), now, nxt, [before])
        assert float(of_now) == pytest.approx(float(nxt.alpha) * b / (2 * r), rel=1e-14)
        assert float(of_before) == -float(of_now)
        three = [corrections(DataInLam(0.0, name), nxt, LEVELS[3], LEVELS[:2]) for name in (linear, "exact")]
        assert three[0] == three[1]


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_out_of_range_is_refused(eta: float):
    with pytest.raises(ValueError, match="eta is"):
        DataInLam(eta)


def test_an_unknown_linear_weight_is_refused():
    coordinate = DataInLam()
    object.__setattr__(coordinate, "linear", "bh3")  # past the annotations, which the tests check and users need not
    with pytest.raises(ValueError, match=r"unknown linear weight 'bh3' \(known: exact, bh1, bh2\)"):
        coordinate.__post_init__()
