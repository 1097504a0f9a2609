"""Likelihood: log-densities by the probability flow, variational bounds, and bits per dimension of 8-bit data."""

from __future__ import annotations

from nirvana.diffusion.likelihood.bound import (
    Bound,
    Decoder,
    byte_decoder,
    density_decoder,
    ladder,
    variational_bound,
)
from nirvana.diffusion.likelihood.data import (
    Estimate,
    Flow,
    Terms,
    bits_per_dim,
    bound_terms,
    noise_terms,
    uniform_terms,
)
from nirvana.diffusion.likelihood.flow import (
    ExactTrace,
    FlowDensity,
    HutchinsonTrace,
    Trace,
    flow_density,
    signs,
)

__all__ = [
    "Bound",
    "Decoder",
    "Estimate",
    "ExactTrace",
    "Flow",
    "FlowDensity",
    "HutchinsonTrace",
    "Terms",
    "Trace",
    "bits_per_dim",
    "bound_terms",
    "byte_decoder",
    "density_decoder",
    "flow_density",
    "ladder",
    "noise_terms",
    "signs",
    "uniform_terms",
    "variational_bound",
]
