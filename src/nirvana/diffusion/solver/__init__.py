"""Solvers: how a denoiser takes x from one level to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nirvana.diffusion.solver.ancestral import Ancestral
from nirvana.diffusion.solver.ddim import DDIM, ddim_coefficients
from nirvana.diffusion.solver.protocol import Denoise, Solver, Step

SOLVERS: Mapping[str, Callable[[], Solver[None]]] = MappingProxyType(
    {
        "ddim": DDIM,
        "ddpm": lambda: Ancestral("small"),
        "ddpm-large": lambda: Ancestral("large"),
        "ddpm-learned": lambda: Ancestral("learned"),
    }
)
"""Name -> factory."""

__all__ = ["DDIM", "SOLVERS", "Ancestral", "Denoise", "Solver", "Step", "ddim_coefficients"]
