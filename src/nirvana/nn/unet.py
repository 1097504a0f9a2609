"""The U-Net: a network from a noisy picture, its noise level and conditions to a picture of the same size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import silu

from nirvana.nn.attention import CrossAttention, SelfAttention, token_entry
from nirvana.nn.embedding import Embedding, Positions
from nirvana.nn.layers import (
    MEMORY_FORMATS,
    Downsample,
    Upsample,
    conv,
    crop_to,
    group_norm,
    pad_to_multiple,
    shuffle,
    unshuffle,
    zeroed,
)


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net; plain numbers only, so that it can be stored as JSON.

    channels, out_channels: of the picture and of the result (learned variance asks for twice as many).
    dims: spatial dimensions, 1 (sound), 2 (pictures) or 3 (video). width: channels at the finest level; `multipliers`
    scale it level by level, each level half the size of the one before. blocks: residual blocks a level.
    attention: the levels (0 is the finest) that have attention over cells, and (every second stage) over tokens.
    stem: side of the cells that are moved into channels first, so that 64 px at stem 2 cost what 32 px do.
    vector_dim, token_dim, concat_channels: sizes of the condition slots; 0 means the network has no such slot.
    positions: add to every cell where it lies, for conditions that say where something is ("on the left").
    Raises ValueError where a number is out of range.
    """

    channels: int
    out_channels: int
    dims: int = 2
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    stem: int = 1
    head_width: int = 64
    group_width: int = 32
    dropout: float = 0.0
    vector_dim: int = 0
    token_dim: int = 0
    concat_channels: int = 0
    positions: bool = False

    def __post_init__(self) -> None:
        positive = ("channels", "out_channels", "width", "blocks", "stem", "head_width", "group_width")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"U-Net: {name} must be at least 1, not {getattr(self, name)}")
        if self.dims not in MEMORY_FORMATS:
            raise ValueError(f"U-Net: dims must be 1, 2 or 3, not {self.dims}")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"U-Net: multipliers must be positive and at least one, not {self.multipliers}")
        if any(not 0 <= level < len(self.multipliers) for level in self.attention):
            raise ValueError(f"U-Net: attention levels {self.attention} lie outside 0..{len(self.multipliers) - 1}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"U-Net: dropout must lie in [0, 1), not {self.dropout}")
        if min(self.vector_dim, self.token_dim, self.concat_channels) < 0:
            raise ValueError("U-Net: the size of a condition slot cannot be negative")

    @property
    def token_width(self) -> int:
        """Tokens enter once, and are as wide inside as the coarsest level."""
        return self.width * self.multipliers[-1]

    @property
    def stride(self) -> int:
        """Sizes are padded inside the network to a multiple of this number."""
        return self.stem * 2 ** (len(self.multipliers) - 1)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))) (1 + scale) + shift)), scale and shift from the embedding.

    x (b, c, s...), embedding (b, e) -> (b, c_out, s...). The last convolution starts at 0.
    Source: Dhariwal & Nichol 2021, section 3 (adaptive group normalisation), after He et al. 2016.
    """

    def __init__(self, config: UNetConfig, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm_in = group_norm(inputs, config.group_width)
        self.conv_in = conv(config.dims, inputs, outputs)
        self.scale_shift = nn.Linear(embedding, 2 * outputs)
        self.norm_out = group_norm(outputs, config.group_width, affine=False)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_out = zeroed(conv(config.dims, outputs, outputs))
        self.skip = nn.Identity() if inputs == outputs else conv(config.dims, inputs, outputs, kernel=1)

    def forward(self, x: Float[Tensor, "b c *s"], embedding: Float[Tensor, "b e"]) -> Float[Tensor, "b c_out *s"]:
        hidden = self.conv_in(silu(self.norm_in(x)))
        scale, shift = self.scale_shift(embedding)[(...,) + (None,) * (x.ndim - 2)].chunk(2, dim=1)
        hidden = silu(self.norm_out(hidden) * (1 + scale) + shift)
        return self.skip(x) + self.conv_out(self.dropout(hidden))


class Stage(nn.Module):
    """A residual block, then attention over cells where the level has it, and over tokens where the stage `reads`."""

    def __init__(
        self, config: UNetConfig, inputs: int, outputs: int, embedding: int, attention: bool, reads: bool
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(config, inputs, outputs, embedding)
        heads = (config.head_width, config.group_width)
        self.cells = SelfAttention(outputs, *heads) if attention else None
        reads = reads and attention and config.token_dim > 0
        self.tokens = CrossAttention(outputs, config.token_width, *heads, config.dims) if reads else None

    def forward(
        self,
        x: Float[Tensor, "b c *s"],
        embedding: Float[Tensor, "b e"],
        tokens: Float[Tensor, "b l d"] | None,
        mask: Bool[Tensor, "b l"] | None,
    ) -> Float[Tensor, "b c_out *s"]:
        x = self.block(x, embedding)
        if self.cells is not None:
            x = self.cells(x)
        if self.tokens is not None and tokens is not None:
            x = self.tokens(x, tokens, mask)
        return x


def reads(stage: int, stages: int) -> bool:
    """Whether a stage of a level attends to the tokens of a text: every second one does, the last among them."""
    return (stages - 1 - stage) % 2 == 0


class UNet(nn.Module):
    """Encoder, decoder and skip connections: F = net(x, noise, cond).

    x (b, channels, s...), noise (b,) a number in about 0..1000 that codes the level, cond: the slots of `slots`:
    vector (b, vector_dim), tokens (b, l, token_dim) with tokens_mask (b, l), concat (b, concat_channels, s...);
    result (b, out_channels, s...), 0 at the start of training. What `concat` holds enters by weights that start at 0,
    so that a trained network which is given this slot says at first, bit for bit, what it said before. Any size:
    inside, the last cells are repeated up to a multiple of `config.stride` and the result is cropped, so at multiples
    nothing is padded.
    Source: Ronneberger et al. 2015; Ho et al. 2020, appendix B; the stem: Shi et al. 2016.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        dims, cells = config.dims, config.stem**config.dims
        embedding = 4 * config.width
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.embedding = Embedding(2 * config.width, embedding, config.vector_dim)
        self.stem = conv(dims, config.channels * cells, widths[0])
        # A convolution of channels side by side is the sum of two; apart, the second can start at 0.
        self.concat = zeroed(conv(dims, config.concat_channels * cells, widths[0])) if config.concat_channels else None
        self.positions = Positions(dims, widths[0]) if config.positions else None
        self.tokens = token_entry(config.token_dim, config.token_width) if config.token_dim else None
        self.encoder = nn.ModuleList()
        self.down = nn.ModuleList()
        skips = [widths[0]]
        for level, width in enumerate(widths):
            if level:
                self.down.append(Downsample(dims, widths[level - 1], width))
                skips.append(width)
            attention = level in config.attention
            self.encoder.append(
                nn.ModuleList(
                    Stage(config, width, width, embedding, attention, reads(i, config.blocks))
                    for i in range(config.blocks)
                )
            )
            skips += [width] * config.blocks
        deepest = len(widths) - 1 in config.attention
        self.middle = nn.ModuleList(
            Stage(config, widths[-1], widths[-1], embedding, deepest and i == 0, True) for i in range(2)
        )
        self.decoder = nn.ModuleList()
        self.up = nn.ModuleList()
        channels = widths[-1]
        for level in reversed(range(len(widths))):
            stages = nn.ModuleList()
            for i in range(config.blocks + 1):
                inputs, attention = channels + skips.pop(), level in config.attention
                stages.append(Stage(config, inputs, widths[level], embedding, attention, reads(i, config.blocks + 1)))
                channels = widths[level]
            self.decoder.append(stages)
            if level:
                self.up.append(Upsample(dims, channels, widths[level - 1]))
                channels = widths[level - 1]
        self.norm = group_norm(channels, config.group_width)
        self.out = zeroed(conv(dims, channels, config.out_channels * cells))
        if dims > 1:
            self.to(memory_format=MEMORY_FORMATS[dims])  # pyright: ignore[reportCallIssue]

    @property
    def slots(self) -> frozenset[str]:
        """The names of the conditions the network takes."""
        config = self.config
        names = [("vector", config.vector_dim), ("tokens", config.token_dim), ("tokens_mask", config.token_dim)]
        return frozenset(name for name, size in [*names, ("concat", config.concat_channels)] if size)

    def forward(
        self, x: Float[Tensor, "b c *s"], noise: Float[Tensor, " b"], cond: Mapping[str, Tensor]
    ) -> Float[Tensor, "b c_out *s"]:
        config, sizes = self.config, x.shape[2:]
        if x.ndim - 2 != config.dims:
            raise ValueError(f"U-Net of {config.dims} dimensions: x has {x.ndim - 2} ({tuple(x.shape)})")
        beside = None if self.concat is None else self.concat(self._cells(cond["concat"].to(x.dtype)))
        x = self.stem(self._cells(x))
        if beside is not None:
            x = x + beside
        if self.positions is not None:
            x = x + self.positions(x.shape[2:]).T.unflatten(1, x.shape[2:]).to(x.dtype)
        tokens = None if self.tokens is None else self.tokens(cond["tokens"])
        context = (self.embedding(noise, cond.get("vector")), tokens, cond.get("tokens_mask"))
        skips = [x, *self._encode(x, context)]
        x = skips[-1]
        for stage in self.middle:
            x = stage(x, *context)
        for level, stages in enumerate(self.decoder):
            if level:
                x = self.up[level - 1](x)
            for stage in stages:  # pyright: ignore[reportGeneralTypeIssues]
                x = stage(torch.cat([x, skips.pop()], dim=1), *context)
        return crop_to(shuffle(self.out(silu(self.norm(x))), config.stem), sizes)

    def _cells(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """Padded, and the cells of the stem in channels."""
        cells = unshuffle(pad_to_multiple(x, self.config.stride), self.config.stem)
        return cells.contiguous(memory_format=MEMORY_FORMATS[self.config.dims])

    def _encode(
        self, x: Float[Tensor, "b c *s"], context: tuple[Tensor, Tensor | None, Tensor | None]
    ) -> Iterator[Float[Tensor, "b c *s"]]:
        for level, stages in enumerate(self.encoder):
            if level:
                x = self.down[level - 1](x)
                yield x
            for stage in stages:  # pyright: ignore[reportGeneralTypeIssues]
                x = stage(x, *context)
                yield x
