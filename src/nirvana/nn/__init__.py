"""Networks and layers. They know no diffusion."""

from nirvana.nn.dit import DiT, DiTConfig
from nirvana.nn.unet import UNet, UNetConfig

__all__ = ["DiT", "DiTConfig", "UNet", "UNetConfig"]
