"""Solvers: how a denoiser takes x from one level to the next."""

from __future__ import annotations

from nirvana.diffusion.solver.ancestral import Ancestral
from nirvana.diffusion.solver.coordinate import DataInLam, NoiseInLam, NoiseInRatio, VelocityInAngle, ddim_coefficients
from nirvana.diffusion.solver.multistep import Multistep
from nirvana.diffusion.solver.named import SOLVERS, Named, ddim
from nirvana.diffusion.solver.protocol import Denoise, Solver, Step

DDIM = ddim

__all__ = [
    "DDIM",
    "SOLVERS",
    "Ancestral",
    "DataInLam",
    "Denoise",
    "Multistep",
    "Named",
    "NoiseInLam",
    "NoiseInRatio",
    "Solver",
    "Step",
    "VelocityInAngle",
    "ddim",
    "ddim_coefficients",
]
