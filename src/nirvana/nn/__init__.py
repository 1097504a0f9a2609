"""Networks and layers. They know no diffusion."""

from nirvana.nn.unet import UNet, UNetConfig

__all__ = ["UNet", "UNetConfig"]
