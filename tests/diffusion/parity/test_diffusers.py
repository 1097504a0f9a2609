"""Parity with diffusers: same denoiser, levels and noise give the same end, to 1e-6 in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.exact import GaussianDenoiser
from nirvana.diffusion.level import Level
from nirvana.diffusion.markov import Chain
from nirvana.diffusion.named import ddim
from nirvana.diffusion.prediction import Prediction, eps_from_x0
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.schedule import linear_betas
from nirvana.diffusion.solver import Ancestral, DataInLam, Multistep, NoiseInLam, NoiseInRatio, Solver

from .reference import (
    F64,
    SHAPE,
    Given,
    close,
    diffusers,
    draws,
    exploding,
    first,
    given_draws,
    mixture,
    ours,
    theirs,
    unit,
)

__all__ = ["diffusers"]  # a fixture

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # theirs, of numpy 2

Make = Callable[..., Any]
VP = (12.0, 7.0, 3.1, 1.9, 0.8, 0.33, 0.2, 0.05)
"""Ratios that fall unevenly, to a last level that still has noise: solvers of high order need lam to be finite."""
CHAIN = Chain(linear_betas(60, 1e-3, 0.15))
"""A chain short enough to be walked whole."""


def chain_walk(scheduler: Any, timesteps: list[int], var_frac: Tensor | None = None, **options: Any) -> Tensor:
    """The end of the walk of a scheduler that keeps `alphas_cumprod`: table index t + 1 is its timestep t."""
    x, denoiser = first(CHAIN.level(torch.tensor(timesteps[0] + 1))), mixture()
    for t in timesteps:
        level = CHAIN.level(torch.tensor(t + 1))
        said = eps_from_x0(x, denoiser(x, level, {}).x0, level)
        if var_frac is not None:
            said = torch.cat([said, 2 * var_frac - 1], dim=1)
        x = scheduler.step(said, t, x, **options).prev_sample
    return x


def chain_levels(timesteps: list[int]) -> list[Level]:
    return [CHAIN.level(torch.tensor(t + 1)) for t in [*timesteps, -1]]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 5, 12, 60])
def test_ddim(diffusers: Make, monkeypatch: pytest.MonkeyPatch, n: int, eta: float):
    scheduler = diffusers(
        "ddim",
        "DDIMScheduler",
        num_train_timesteps=60,
        trained_betas=CHAIN.beta.tolist(),
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(n)
    timesteps, numbers = scheduler.timesteps.tolist(), draws(n)
    given_draws(scheduler, monkeypatch, numbers)
    found = ours(ddim(eta), chain_levels(timesteps), numbers)
    assert close(found, chain_walk(scheduler, timesteps, eta=eta))


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("timesteps", [list(range(59, -1, -1)), [59, 41, 40, 17, 6, 0]], ids=["all", "some"])
def test_ddpm(
    diffusers: Make,
    monkeypatch: pytest.MonkeyPatch,
    timesteps: list[int],
    variance: Literal["small", "large", "learned"],
):
    scheduler = diffusers(
        "ddpm",
        "DDPMScheduler",
        num_train_timesteps=60,
        trained_betas=CHAIN.beta.tolist(),
        clip_sample=False,
        variance_type={"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}[variance],
    )
    scheduler.set_timesteps(timesteps=timesteps)
    numbers = draws(len(timesteps))
    given_draws(scheduler, monkeypatch, numbers)
    share = torch.rand(SHAPE, generator=torch.Generator().manual_seed(8), dtype=F64)

    class Learned:
        def __call__(self, x: Tensor, level: Level, cond: object, nxt: Level | None = None) -> Prediction:
            return Prediction(mixture()(x, level, {}).x0, share)

    levels = chain_levels(timesteps)
    *_, last = trajectory(Learned(), first(levels[0]), levels, Ancestral(variance), cond={}, noise=Given(numbers))
    assert close(last.x, chain_walk(scheduler, timesteps, share if variance == "learned" else None))


def test_ddim_encodes(diffusers: Make):
    scheduler = diffusers(
        "ddim_inverse",
        "DDIMInverseScheduler",
        num_train_timesteps=60,
        trained_betas=CHAIN.beta.tolist(),
        clip_sample=False,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(12)
    timesteps = [*scheduler.timesteps.tolist()]
    levels = [CHAIN.level(torch.tensor(t + 1)) for t in timesteps]
    x, denoiser = first(levels[0]), mixture()
    for now, t in zip(levels[:-1], timesteps[1:], strict=True):
        x = scheduler.step(eps_from_x0(x, denoiser(x, now, {}).x0, now), t, x).prev_sample
    assert close(ours(ddim(), levels), x)


def unipc(points: int, linear: Literal["bh1", "bh2"] = "bh2") -> Multistep:
    return Multistep(DataInLam(linear=linear), points, corrects=True)


DPM, UNIPC, DEIS = (
    ("dpmsolver_multistep", "DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
    ("unipc_multistep", "UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
    ("deis_multistep", "DEISMultistepScheduler", {}),
)
MULTISTEP: dict[str, tuple[tuple[str, str, dict[str, Any]], dict[str, Any], Solver[Any]]] = {
    "dpmpp-1": (DPM, {"solver_order": 1}, ddim()),
    "dpmpp-2m": (DPM, {"solver_order": 2}, Multistep(DataInLam(linear="bh2"), points=2)),
    "dpmpp-2m-exact": (DPM, {"solver_order": 2, "solver_type": "heun"}, Multistep(DataInLam(), points=2)),
    "unipc-1": (UNIPC, {"solver_order": 1}, unipc(1)),
    "unipc-2": (UNIPC, {"solver_order": 2}, unipc(2)),
    "unipc-2-bh1": (UNIPC, {"solver_order": 2, "solver_type": "bh1"}, unipc(2, "bh1")),
    "unipc-3": (UNIPC, {"solver_order": 3}, unipc(3)),
    "deis-2": (DEIS, {"solver_order": 2}, Multistep(NoiseInLam(), points=2)),
    "deis-3": (DEIS, {"solver_order": 3}, Multistep(NoiseInLam(), points=3)),
}


@pytest.mark.parametrize("case", MULTISTEP)
def test_multistep(diffusers: Make, case: str):
    (module, name, common), options, solver = MULTISTEP[case]
    scheduler = diffusers(module, name, lower_order_final=False, **common, **options)
    for ratios in (VP, VP[:2], VP[3:]):
        assert close(ours(solver, unit(*ratios)), theirs(scheduler, unit(*ratios)))


@pytest.mark.parametrize("order", [1, 2])
def test_dpm_solver_to_the_clean_end(diffusers: Make, order: int):
    scheduler = diffusers(
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        solver_order=order,
        lower_order_final=False,
        prediction_type="sample",
    )
    levels = unit(*VP, 0.0)
    assert close(ours(Multistep(DataInLam(linear="bh2"), points=order), levels), theirs(scheduler, levels, "x0"))


@pytest.mark.parametrize(
    ("options", "solver"),
    [
        ({"solver_order": 1}, ddim(1.0)),
        ({"solver_order": 2}, Multistep(DataInLam(1.0, "bh2"), points=2)),
        ({"solver_order": 2, "solver_type": "heun"}, Multistep(DataInLam(1.0), points=2)),
    ],
    ids=["1", "2m", "2m-exact"],
)
def test_dpm_solver_sde(diffusers: Make, options: dict[str, Any], solver: Solver[Any]):
    scheduler = diffusers(
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        algorithm_type="sde-dpmsolver++",
        final_sigmas_type="sigma_min",
        lower_order_final=False,
        **options,
    )
    levels, numbers = unit(*VP), draws(len(VP) - 1)
    assert close(ours(solver, levels, numbers), theirs(scheduler, levels, variance_noise=numbers))


@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_linear_multistep_in_sigma(diffusers: Make, points: int):
    scheduler = diffusers("lms_discrete", "LMSDiscreteScheduler")
    levels = exploding(9.0, 6.0, 5.5, 3.0, 1.9, 1.0, 0.4, 0.3, 0.0)
    own_step = scheduler.step
    scheduler.step = lambda said, t, x: own_step(said, t, x, order=points)
    assert close(ours(Multistep(NoiseInRatio(), points), levels), theirs(scheduler, levels))


def test_euler_is_the_first_order_step(diffusers: Make):
    levels = exploding(9.0, 6.0, 5.5, 3.0, 1.9, 1.0, 0.4, 0.0)
    assert close(ours(ddim(), levels), theirs(diffusers("euler_discrete", "EulerDiscreteScheduler"), levels))


def test_euler_of_rectified_flow_is_the_first_order_step(diffusers: Make):
    scheduler = diffusers("flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler")
    sigma = torch.tensor([1.0, 0.93, 0.7, 0.5, 0.2, 0.04, 0.0], dtype=F64)
    levels = [Level(1 - s, s) for s in sigma]
    scheduler.set_timesteps(6)
    scheduler.sigmas = sigma
    scheduler.set_begin_index(0)
    x, denoiser = first(levels[0]), mixture()
    for level, t in zip(levels, scheduler.timesteps, strict=False):
        x0 = denoiser(x, level, {}).x0
        x = scheduler.step(eps_from_x0(x, x0, level) - x0, t, x).prev_sample
    assert close(ours(ddim(), levels), x)


# Where the two differ: an oracle says who is right.


def gaussian() -> GaussianDenoiser:
    rng = torch.Generator().manual_seed(2)
    root = torch.randn(4, 4, generator=rng, dtype=F64)
    return GaussianDenoiser(torch.randn(SHAPE[1:], generator=rng, dtype=F64), root @ root.T / 4)


def primed(n: int) -> list[Level]:
    """n levels uniform in lam from -1.5 to 1.5, and behind the first two steps so small that their error counts not."""
    h = 3 / n
    lam = torch.cat([torch.tensor([0.0, h**2]), torch.linspace(2 * h**2, 3, n, dtype=F64)]) - 1.5
    return unit(*torch.exp(-lam).tolist())


def slope(end: Callable[[list[Level]], Tensor]) -> float:
    """The order of a solver on the Gaussian whose trajectories are known."""
    errors: list[float] = []
    for levels in (primed(n) for n in (24, 48, 96)):
        exact = gaussian().transport(first(levels[0]), levels[0], levels[-1])
        errors.append(float((end(levels) - exact).abs().max()))
    return math.log2(errors[-2] / errors[-1])


def test_deviation_1_third_order_multistep_is_of_order_three(diffusers: Make):
    """Its third-order update takes half of the second divided difference, where the integral of the parabola through
    the last three x0 takes all of it, so it is a second-order method; ours, and azula's, is of order 3."""
    scheduler = diffusers(
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        solver_order=3,
        final_sigmas_type="sigma_min",
        lower_order_final=False,
    )
    solver = Multistep(DataInLam(), points=3)
    assert slope(lambda levels: ours(solver, levels, denoiser=gaussian())) == pytest.approx(3, abs=0.15)
    assert slope(lambda levels: theirs(scheduler, levels, denoiser=gaussian())) == pytest.approx(2, abs=0.15)


def test_deviation_2_ddim_ends_at_the_data_whatever_the_number_of_steps(diffusers: Make):
    """It takes the previous step to be T // n below, which its own spacing is only where n divides T. Where all data is
    one point, DDIM is exact: ours ends there, its last step stops short of the clean end."""
    point = torch.full(SHAPE, 0.7, dtype=F64)

    class OnePoint:
        def __call__(self, x: Tensor, level: Level, cond: object, nxt: Level | None = None) -> Prediction:
            return Prediction(point)

    scheduler = diffusers(
        "ddim",
        "DDIMScheduler",
        num_train_timesteps=60,
        trained_betas=CHAIN.beta.tolist(),
        clip_sample=False,
        timestep_spacing="trailing",
    )
    off: list[float] = []
    for n in (6, 7):
        scheduler.set_timesteps(n)
        timesteps = scheduler.timesteps.tolist()
        levels = chain_levels(timesteps)
        x = first(levels[0])
        for level, t in zip(levels, timesteps, strict=False):
            x = scheduler.step(eps_from_x0(x, point, level), t, x).prev_sample
        off.append(float((x - point).abs().max()))
        assert torch.allclose(ours(ddim(), levels, denoiser=OnePoint()), point, rtol=0, atol=1e-12)
    assert off[0] < 1e-6
    assert off[1] > 0.02
