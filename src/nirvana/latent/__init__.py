"""The mathematics of models that draw a picture from a latent vector in one call: GANs and VAEs."""

from __future__ import annotations

from nirvana.latent.adversarial import CriticLoss, Relativistic, squared_gradient
from nirvana.latent.variational import Evidence, Posterior, log_scale

__all__ = [
    "CriticLoss",
    "Evidence",
    "Posterior",
    "Relativistic",
    "log_scale",
    "squared_gradient",
]
