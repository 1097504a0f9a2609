"""Guidance: a denoiser made of denoisers and a rule on their x0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nirvana.diffusion.guidance.around import Composed, Interval, Rescaled, Thresholded
from nirvana.diffusion.guidance.classifier import ClassifierGuided, LogProb
from nirvana.diffusion.guidance.denoisers import Clipped, Guided, WithCond, guided
from nirvana.diffusion.guidance.rules import APG, CFG, CFGpp, Rule


def rescaled_cfg(w: float, phi: float = 0.7) -> Rescaled:
    """`CFG(w)`, `Rescaled`."""
    return Rescaled(CFG(w), phi)


def thresholded_cfg(w: float, percentile: float = 0.995) -> Thresholded:
    """`CFG(w)`, `Thresholded` at the bound 1 of pictures."""
    return Thresholded(CFG(w), percentile)


RULES: Mapping[str, Callable[..., Rule]] = MappingProxyType(
    {"cfg": CFG, "cfg++": CFGpp, "rescale": rescaled_cfg, "apg": APG, "threshold": thresholded_cfg}
)
"""Name -> factory of (w, and numbers by name) -> rule of the branches (strong, weak)."""

__all__ = [
    "APG",
    "CFG",
    "RULES",
    "CFGpp",
    "ClassifierGuided",
    "Clipped",
    "Composed",
    "Guided",
    "Interval",
    "LogProb",
    "Rescaled",
    "Rule",
    "Thresholded",
    "WithCond",
    "guided",
]
