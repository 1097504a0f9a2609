"""The mathematics of models that draw a picture from a latent vector in one call: GANs and VAEs."""

from __future__ import annotations

from nirvana.latent.adversarial import CriticLoss, Relativistic, squared_gradient
from nirvana.latent.variational import Evidence, Posterior, log_scale
from nirvana.latent.walk import between, slerp

__all__ = [
    "CriticLoss",
    "Evidence",
    "Posterior",
    "Relativistic",
    "between",
    "log_scale",
    "slerp",
    "squared_gradient",
]
