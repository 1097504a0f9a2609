"""Pictures to vectors and vectors to pictures: a pyramid of plain residual blocks, climbed or descended."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from nirvana.nn.layers import (
    MEMORY_FORMATS,
    Downsample,
    M,
    Upsample,
    conv,
    crop_to,
    pad_to_multiple,
    shuffle,
    unshuffle,
    zeroed,
)

SLOPE = 0.2
"""Of the leaky rectifier left of 0."""


@dataclass(frozen=True)
class PyramidConfig:
    """The shape of a pyramid; plain numbers only, so that it can be stored as JSON.

    channels, size: of the picture, one to three sizes. width: channels at the finest level; `multipliers` scale it
    level by level, each level half the size of the one before. blocks: residual blocks a level. stem: side of the cells
    that are moved into channels first. vector_dim: of the condition vector, 0 for none.
    Raises ValueError where a number is out of range.
    """

    channels: int
    size: tuple[int, ...]
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 2
    stem: int = 1
    vector_dim: int = 0

    def __post_init__(self) -> None:
        for name in ("channels", "width", "blocks", "stem"):
            if getattr(self, name) < 1:
                raise ValueError(f"pyramid: {name} must be at least 1, not {getattr(self, name)}")
        if len(self.size) not in MEMORY_FORMATS or min(self.size) < 1:
            raise ValueError(f"pyramid: size must be one to three positive numbers, not {self.size}")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"pyramid: multipliers must be positive and at least one, not {self.multipliers}")
        if self.vector_dim < 0:
            raise ValueError(f"pyramid: vector_dim cannot be negative, not {self.vector_dim}")

    @property
    def dims(self) -> int:
        """Spatial dimensions: 1 (sound), 2 (pictures) or 3 (video)."""
        return len(self.size)

    @property
    def stride(self) -> int:
        """Sizes are padded to a multiple of this number."""
        return self.stem * 2 ** (len(self.multipliers) - 1)

    @property
    def top(self) -> tuple[int, ...]:
        """The sizes of the coarsest level."""
        return tuple(-(-size // self.stride) for size in self.size)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the levels, finest first."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def numbers(self) -> int:
        """How many numbers the coarsest level has."""
        return self.widths[-1] * math.prod(self.top)


class PlainBlock(nn.Module):
    """x + conv(act(conv(act(x)))) without normalisation; the last convolution starts at 0, so the block as identity.

    Source: He et al. 2016; without normalisation: Zhang et al. 2019 (Fixup), as Huang et al. 2024 do, section 3.
    """

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.conv_in = scaled(conv(dims, width, width))
        self.conv_out = zeroed(conv(dims, width, width))

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        return x + self.conv_out(leaky_relu(self.conv_in(leaky_relu(x, SLOPE)), SLOPE))


class Encoder(nn.Module):
    """A picture to a vector: (b, channels, s...) of `config.size`, and a condition vector, -> (b, outputs)."""

    def __init__(self, config: PyramidConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        dims, widths = config.dims, config.widths
        self.stem = conv(dims, config.channels * config.stem**dims, widths[0])
        levels: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                levels.append(Downsample(dims, widths[level - 1], width))
            levels += [PlainBlock(dims, width) for _ in range(config.blocks)]
        self.levels = nn.Sequential(*levels)
        self.out = nn.Linear(config.numbers + config.vector_dim, outputs)
        _in_memory_format(self, dims)

    def forward(
        self, x: Float[Tensor, "b c *s"], vector: Float[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b outputs"]:
        x = unshuffle(pad_to_multiple(x, self.config.stride), self.config.stem)
        x = self.stem(x.contiguous(memory_format=MEMORY_FORMATS[self.config.dims]))
        seen = leaky_relu(self.levels(x), SLOPE).flatten(1)
        return self.out(_with(seen, vector, self.config))


class Decoder(nn.Module):
    """A vector to a picture: (b, latent), and a condition vector, -> (b, channels, s...) of `config.size`."""

    def __init__(self, config: PyramidConfig, latent: int) -> None:
        super().__init__()
        self.config = config
        dims, widths = config.dims, config.widths
        self.into = nn.Linear(latent + config.vector_dim, config.numbers)
        levels: list[nn.Module] = []
        for level in reversed(range(len(widths))):
            levels += [PlainBlock(dims, widths[level]) for _ in range(config.blocks)]
            if level:
                levels.append(Upsample(dims, widths[level], widths[level - 1]))
        self.levels = nn.Sequential(*levels)
        self.out = conv(dims, widths[0], config.channels * config.stem**dims)
        _in_memory_format(self, dims)

    def forward(
        self, z: Float[Tensor, "b latent"], vector: Float[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b c *s"]:
        x = self.into(_with(z, vector, self.config)).unflatten(1, (self.config.widths[-1], *self.config.top))
        x = self.levels(x.contiguous(memory_format=MEMORY_FORMATS[self.config.dims]))
        return crop_to(shuffle(self.out(leaky_relu(x, SLOPE)), self.config.stem), self.config.size)


class Critic(nn.Module):
    """A picture to one number, how real it looks: w.h(x) + b, and with a condition + v.h(x)/sqrt(features).

    (b, channels, s...) -> (b,). Source: the projection onto the class, Miyato & Koyama 2018, equation 3.
    """

    def __init__(self, config: PyramidConfig, features: int) -> None:
        super().__init__()
        self.encoder = Encoder(config, features)
        self.head = nn.Linear(features, 1)

    def forward(
        self, x: Float[Tensor, "b c *s"], vector: Float[Tensor, "b features"] | None = None
    ) -> Float[Tensor, " b"]:
        features = leaky_relu(self.encoder(x), SLOPE)
        score = self.head(features).squeeze(1)
        return score if vector is None else score + (features * vector).sum(1) / math.sqrt(features.shape[1])


def scaled(module: M) -> M:
    """`module` with weights that keep the variance through the leaky rectifier before it (He et al. 2015, eq. 15)."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, a=SLOPE)
        else:
            nn.init.zeros_(parameter)
    return module


def _with(x: Float[Tensor, "b n"], vector: Float[Tensor, "b v"] | None, config: PyramidConfig) -> Float[Tensor, "b m"]:
    if (vector is not None) != bool(config.vector_dim):
        raise ValueError(
            f"pyramid: vector_dim is {config.vector_dim}, and {'no' if vector is None else 'a'} vector came"
        )
    return x if vector is None else torch.cat([x, vector.to(x.dtype)], dim=1)


def _in_memory_format(module: nn.Module, dims: int) -> None:
    if dims > 1:
        module.to(memory_format=MEMORY_FORMATS[dims])  # pyright: ignore[reportCallIssue]
