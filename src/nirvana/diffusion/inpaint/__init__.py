"""Inpainting: what is known of a picture stays, the rest is drawn to fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nirvana.diffusion.inpaint.langevin import Langevin
from nirvana.diffusion.inpaint.method import DDNM, Method, Replacement
from nirvana.diffusion.inpaint.observed import Known, Observed
from nirvana.diffusion.inpaint.repaint import RePaint
from nirvana.diffusion.inpaint.sample import calls, inpainted

METHODS: Mapping[str, Callable[..., Method]] = MappingProxyType(
    {"ddnm": DDNM, "replacement": Replacement, "repaint": RePaint, "langevin": Langevin}
)
"""Name -> factory of numbers by name -> method."""

__all__ = [
    "DDNM",
    "METHODS",
    "Known",
    "Langevin",
    "Method",
    "Observed",
    "RePaint",
    "Replacement",
    "calls",
    "inpainted",
]
