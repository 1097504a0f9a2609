"""Defaults that papers state, and the edges of what is allowed: one wrong number or sign in them changes results."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.exact import GaussianDenoiser
from nirvana.diffusion.grid import below, karras, uniform
from nirvana.diffusion.guidance import APG, RULES
from nirvana.diffusion.inpaint import Langevin
from nirvana.diffusion.level import Level, combined, strictly_monotone, walk
from nirvana.diffusion.likelihood import ExactTrace, flow_density, ladder
from nirvana.diffusion.markov import reverse
from nirvana.diffusion.named import DDIM, SOLVERS
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.schedule import VE, EDMPath, RectifiedFlow, Tabulated, timestep_shift
from nirvana.diffusion.solver import Churn, RungeKutta

F64 = torch.float64


def given(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def gaussian() -> GaussianDenoiser:
    return GaussianDenoiser(given(0.3, -0.2), torch.tensor([[1.0, 0.5], [0.5, 0.7]], dtype=F64))


def test_the_defaults_of_the_papers() -> None:
    assert APG(2.0).momentum == -0.5 and APG(2.0).norm == 15.0 and APG(2.0).eta == 0.0
    assert RULES["threshold"](2.0).percentile == 0.995  # pyright: ignore[reportAttributeAccessIssue]
    assert (VE().sigma_min, VE().sigma_max) == (0.01, 50.0)
    assert (Langevin().steps, Langevin().size, Langevin().friction) == (4, 1.0, 0.2)
    churn = Churn(DDIM())
    assert (churn.s_churn, churn.s_tmin, churn.s_tmax, churn.s_noise) == (40.0, 0.05, 50.0, 1.0)
    # SNR(t) of the shifted schedule is that of the plain one over 3^2.
    plain, shifted = RectifiedFlow()(given(0.4)), timestep_shift(RectifiedFlow())(given(0.4))
    assert float(shifted.lam - plain.lam) == pytest.approx(-math.log(3.0))


def test_the_whole_strength_keeps_the_first_level_of_a_grid_that_begins_below_pure_noise() -> None:
    for grid in (uniform, karras()):
        own, whole = grid(EDMPath(), 5), below(grid, 1.0)(EDMPath(), 5)
        assert [float(level.ratio) for level in whole] == [float(level.ratio) for level in own]


def test_without_momentum_nothing_is_remembered() -> None:
    rule = APG(3.0, eta=1.0, norm=math.inf, momentum=0.0)
    level = Level.of(0.6, 0.8)
    for rows in (2, 3):  # another shape: what remembers would refuse it
        strong, weak = torch.ones(rows, 4, dtype=F64), torch.zeros(rows, 4, dtype=F64)
        assert torch.equal(rule((strong, weak), strong, level), strong + 2 * strong)


def test_a_number_and_a_tensor_mix() -> None:
    x, y = torch.ones(2, 3, dtype=F64), torch.full((2, 3), 2.0, dtype=F64)
    per_item = given(1.0, 10.0)
    assert combined((3.0, x), (per_item, y)).tolist() == [[5.0] * 3, [23.0] * 3]
    assert combined((per_item, x), (3.0, y)).tolist() == [[7.0] * 3, [16.0] * 3]
    assert combined((2.0, x), (3.0, y)).tolist() == [[8.0] * 3] * 2
    assert combined((1.0, x), (3.0, y), (0.0, x), (1.0, y)).tolist() == [[9.0] * 3] * 2
    assert x.tolist() == [[1.0] * 3] * 2  # which the number 1 did not copy


def test_a_refusal_names_the_first_fault() -> None:
    with pytest.raises(ValueError, match=r"level 1\b.*nan|1.*nan"):
        strictly_monotone([Level.of(0.1, 1.0), Level.of(0.5, math.nan), Level.of(0.6, math.nan), Level.of(1.0, 0.0)])
    now, nxt = Level(given(1.0, 1.0, 1.0), given(4.0, 2.0, 1.0)), Level(given(1.0, 1.0, 1.0), given(3.0, 3.0, 5.0))
    with pytest.raises(ValueError, match=r"goes 2 -> 3"):
        reverse(now, nxt)


@pytest.mark.parametrize("lam", [(-math.inf, 1.0), (0.0, math.inf), (1.0, 1.0)])
def test_a_ladder_has_finite_ends_that_rise(lam: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="at least 2 levels in a finite range"):
        ladder(lam, 4)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.0, 1.0), (2.0, 1.0), (1.0, math.inf)])
def test_variance_explodes_between_two_different_levels(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="sigma_min < sigma_max must hold"):
        VE(low, high)


def test_an_item_without_noise_is_not_encoded() -> None:
    levels = [Level(given(1.0, 1.0), given(0.0, 0.1)), Level(given(1.0, 1.0), given(1.0, 1.0))]
    with pytest.raises(ValueError, match="first level with sigma > 0"):
        trajectory(gaussian(), torch.zeros(2, 2, dtype=F64), levels, DDIM(), cond={}, noise=SeededNoise([0, 1], (2,)))


def test_a_density_takes_two_levels_that_rise_at_the_norm_of_the_first() -> None:
    denoiser, x = gaussian(), given(0.4, 0.1)[None]
    rising = walk(Level(given(0.5, 0.4), given(0.25, 3.0)))
    found = flow_density(denoiser, x, rising, DDIM(), cond={}, trace=ExactTrace())
    # The same point at another norm: density is per volume, so log p differs by D log of the factor.
    scaled = walk(Level(given(1.5, 0.4), given(0.75, 3.0)))
    other = flow_density(denoiser, 3 * x, scaled, DDIM(), cond={}, trace=ExactTrace())
    assert float(found.log_prob - other.log_prob) == pytest.approx(2 * math.log(3.0), abs=1e-9)
    for end in ((0.5, 0.25), (0.5, 0.2)):
        falling = [Level.of(0.5, 0.25), Level.of(*end)]
        with pytest.raises(ValueError, match="levels of rising noise"):
            flow_density(denoiser, x, falling, DDIM(), cond={}, trace=ExactTrace())


def test_churn_reaches_its_ends() -> None:
    denoiser, noise = gaussian(), SeededNoise([3], (2,), dtype=F64)
    levels = walk(Level(given(1.0, 1.0), given(5.0, 2.0)))
    x = given(1.0, 2.0)[None]
    churned = Churn(DDIM(), 40.0, 5.0, 5.0)
    step, _ = churned.step(lambda x, level, nxt=None: denoiser(x, level, {}, nxt), x, *levels, churned.init(x), noise)
    plain, _ = DDIM().step(lambda x, level, nxt=None: denoiser(x, level, {}, nxt), x, *levels, DDIM().init(x), noise)
    assert not torch.allclose(step.x, plain.x)


def test_calls_count_every_stage_where_any_item_takes_them() -> None:
    # The first item goes a regular way, the second to the clean end, where one call is enough.
    levels = [Level(given(1.0, 1.0), given(2.0, 2.0)), Level(given(1.0, 1.0), given(1.0, 0.0))]
    assert SOLVERS["heun"]().calls(levels) == 2
    assert SOLVERS["heun"]().calls([Level.of(1.0, 2.0), Level.of(1.0, 0.0)]) == 1


def test_a_place_beside_a_point_of_a_table_is_not_taken_for_it() -> None:
    table = Tabulated.from_beta(torch.linspace(1e-4, 0.02, 1000, dtype=F64))
    for point in (200, 400):
        off = 2e-11
        part = table.angle[point] + off * (table.angle[point + 1] - table.angle[point])
        assert float(table.index(Level.from_angle(part).lam)) - point == pytest.approx(off, rel=0.2)
        assert float(table.index(table.at(point).lam)) == point


def test_an_adaptive_step_grows_by_the_order_of_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # From one length to the next the error falls by the order: a wrong power tries lengths that are refused again and
    # again, half of all, where few are.
    tries, own = list[tuple[float, float]](), RungeKutta._moved  # pyright: ignore[reportPrivateUsage]

    def moved(self: RungeKutta, denoise: Any, x: Tensor, now: Level, nxt: Level) -> Any:
        tries.append((float(now.angle), float(nxt.angle)))
        return own(self, denoise, x, now, nxt)

    monkeypatch.setattr(RungeKutta, "_moved", moved)
    denoiser, x, solver = gaussian(), given(1.0, 2.0)[None], SOLVERS["adaptive"](tolerance=1e-7)
    noise = SeededNoise([0], (2,), dtype=F64)
    levels = Level.of(1.0, 50.0), Level.of(1.0, 0.002)
    solver.step(lambda x, level, nxt=None: denoiser(x, level, {}, nxt), x, *levels, solver.init(x), noise)
    refused = sum(before[0] == after[0] for before, after in itertools.pairwise(tries))
    assert 40 < len(tries) < 100 and refused <= 6
