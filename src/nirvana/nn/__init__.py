"""Networks and layers. They know no diffusion."""

from nirvana.nn.dit import DiT, DiTConfig
from nirvana.nn.pyramid import Critic, Decoder, Encoder, PyramidConfig
from nirvana.nn.unet import UNet, UNetConfig

__all__ = ["Critic", "Decoder", "DiT", "DiTConfig", "Encoder", "PyramidConfig", "UNet", "UNetConfig"]
