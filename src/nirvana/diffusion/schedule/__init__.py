"""Schedules: time t in [0, 1] (0 is data, 1 is noise) to a noise level, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nirvana.diffusion.schedule.betas import BETAS, cosine_betas, linear_betas, scaled_linear_betas
from nirvana.diffusion.schedule.closed import VE, Cosine, EDMPath, LinearVP, RectifiedFlow
from nirvana.diffusion.schedule.protocol import Schedule, derivative
from nirvana.diffusion.schedule.table import Tabulated
from nirvana.diffusion.schedule.wrapped import Shifted, ZeroTerminalSNR, timestep_shift, zero_terminal_snr

SCHEDULES: Mapping[str, Callable[..., Schedule]] = MappingProxyType(
    {
        "rectified-flow": RectifiedFlow,
        "cosine": Cosine,
        "linear-vp": LinearVP,
        "ve": VE,
        "edm": EDMPath,
        "linear": lambda: Tabulated.from_beta(linear_betas()),
        "scaled-linear": lambda: Tabulated.from_beta(scaled_linear_betas()),
    }
)
"""Name -> factory, whose arguments are numbers. The last two are tables of T = 1000."""

WRAPPERS: Mapping[str, Callable[..., Schedule]] = MappingProxyType(
    {"shifted": Shifted, "timestep-shift": timestep_shift, "zero-terminal-snr": zero_terminal_snr}
)
"""Name -> factory of a schedule from another one, `of`, and numbers."""

__all__ = [
    "BETAS",
    "SCHEDULES",
    "VE",
    "WRAPPERS",
    "Cosine",
    "EDMPath",
    "LinearVP",
    "RectifiedFlow",
    "Schedule",
    "Shifted",
    "Tabulated",
    "ZeroTerminalSNR",
    "cosine_betas",
    "derivative",
    "linear_betas",
    "scaled_linear_betas",
    "timestep_shift",
    "zero_terminal_snr",
]
