"""Solvers: how a denoiser takes x from one level to the next."""

from __future__ import annotations

from nirvana.diffusion.solver.ancestral import Ancestral, Renoise
from nirvana.diffusion.solver.churn import Churn
from nirvana.diffusion.solver.coordinate import DataInLam, NoiseInLam, NoiseInRatio, VelocityInAngle, ddim_coefficients
from nirvana.diffusion.solver.multistep import Multistep
from nirvana.diffusion.solver.protocol import Denoise, Solver, Step
from nirvana.diffusion.solver.runge_kutta import RungeKutta, Tableau

# fmt: off
__all__ = [
    "Ancestral", "Churn", "DataInLam", "Denoise", "Multistep", "NoiseInLam", "NoiseInRatio", "Renoise", "RungeKutta",
    "Solver", "Step", "Tableau", "VelocityInAngle", "ddim_coefficients",
]
