"""The diffusion transformer: a network over patches of a noisy picture, steered by adaptive layer norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from nirvana.nn.attention import TokenAttention, token_entry
from nirvana.nn.embedding import Embedding, Positions
from nirvana.nn.layers import MEMORY_FORMATS, crop_to, pad_to_multiple, shuffle, unshuffle, zeroed
from nirvana.nn.transformer import Feedforward, MultiHead

READS = 4
"""Every so many-th block attends to the tokens of a text: more cost time and teach little more."""


@dataclass(frozen=True)
class DiTConfig:
    """The shape of a diffusion transformer; plain numbers only, so that it can be stored as JSON.

    channels, out_channels: of the picture and of the result. dims: spatial dimensions. width: of a token; depth: number
    of blocks; patch: side of the cells that become one token each. vector_dim, token_dim, concat_channels: sizes of the
    condition slots; 0 means the network has no such slot. Raises ValueError where a number is out of range.
    """

    channels: int
    out_channels: int
    dims: int = 2
    width: int = 256
    depth: int = 8
    patch: int = 4
    head_width: int = 64
    vector_dim: int = 0
    token_dim: int = 0
    concat_channels: int = 0

    def __post_init__(self) -> None:
        for name in ("channels", "out_channels", "width", "depth", "patch", "head_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"transformer: {name} must be at least 1, not {getattr(self, name)}")
        if self.dims not in MEMORY_FORMATS:
            raise ValueError(f"transformer: dims must be 1, 2 or 3, not {self.dims}")
        if min(self.vector_dim, self.token_dim, self.concat_channels) < 0:
            raise ValueError("transformer: the size of a condition slot cannot be negative")

    @property
    def stride(self) -> int:
        """Sizes are padded inside the network to a multiple of this number."""
        return self.patch


class DiTBlock(nn.Module):
    """x + g (attention(norm(x) (1 + a) + s)), the same with a feedforward, and, where it reads, attention to tokens.

    The two scales a, shifts s and gates g are linear in the embedding and start at 0, so the block starts as the
    identity. Source: Peebles & Xie 2023, section 3.2 (adaLN-Zero); Chen et al. 2024, section 2.2 (attention to texts).
    """

    def __init__(self, config: DiTConfig, reads: bool) -> None:
        super().__init__()
        width, reads = config.width, reads and config.token_dim > 0
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = MultiHead(width, config.head_width)
        self.norm_tokens = nn.LayerNorm(width) if reads else None
        self.tokens = TokenAttention(width, width, config.head_width) if reads else None
        self.norm_feedforward = nn.LayerNorm(width, elementwise_affine=False)
        self.feedforward = Feedforward(width)
        # The gates are at 0 already; a second 0 behind them would keep both from learning.
        self.attention.out.reset_parameters()
        self.feedforward.out.reset_parameters()

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        embedding: Float[Tensor, "b w"],
        tokens: Float[Tensor, "b l e"] | None,
        mask: Bool[Tensor, "b l"] | None,
    ) -> Float[Tensor, "b n w"]:
        scale, shift, gate, scale_2, shift_2, gate_2 = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        x = x + gate * self.attention(self.norm_attention(x) * (1 + scale) + shift)
        if self.tokens is not None and self.norm_tokens is not None and tokens is not None:
            x = x + self.tokens(self.norm_tokens(x), tokens, mask)
        return x + gate_2 * self.feedforward(self.norm_feedforward(x) * (1 + scale_2) + shift_2)


class DiT(nn.Module):
    """Patches, transformer blocks, patches: F = net(x, noise, cond), of the slots and sizes that `UNet` has.

    x (b, channels, s...), noise (b,) a number in about 0..1000 that codes the level; result (b, out_channels, s...), 0
    at the start of training. The weights of `concat` start at 0, as there. Any size: the last cells are repeated up to
    a multiple of patch.
    Source: Peebles & Xie 2023; Dosovitskiy et al. 2021.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        cells = config.patch**config.dims
        self.embedding = Embedding(config.width, config.width, config.vector_dim)
        self.enter = nn.Linear(config.channels * cells, config.width)
        self.concat = (
            zeroed(nn.Linear(config.concat_channels * cells, config.width)) if config.concat_channels else None
        )
        self.positions = Positions(config.dims, config.width)
        self.tokens = token_entry(config.token_dim, config.width) if config.token_dim else None
        self.blocks = nn.ModuleList(DiTBlock(config, i % READS == 0) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(config.width, 2 * config.width))
        self.out = zeroed(nn.Linear(config.width, config.out_channels * cells))

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
            raise ValueError(f"transformer of {config.dims} dimensions: x has {x.ndim - 2} ({tuple(x.shape)})")
        patches = self._patches(x)
        places = patches.shape[2:]
        hidden = self.enter(patches.flatten(2).transpose(1, 2)) + self.positions(places).to(x.dtype)
        if self.concat is not None:
            hidden = hidden + self.concat(self._patches(cond["concat"].to(x.dtype)).flatten(2).transpose(1, 2))
        embedding = self.embedding(noise, cond.get("vector"))
        tokens = None if self.tokens is None else self.tokens(cond["tokens"])
        for block in self.blocks:
            hidden = block(hidden, embedding, tokens, cond.get("tokens_mask"))
        scale, shift = self.modulation(embedding)[:, None].chunk(2, dim=-1)
        out = self.out(self.norm(hidden) * (1 + scale) + shift)
        return crop_to(shuffle(out.transpose(1, 2).unflatten(2, places), config.patch), sizes)

    def _patches(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """Padded, and the cells of a patch in channels."""
        return unshuffle(pad_to_multiple(x, self.config.patch), self.config.patch)
