"""The codec of pixel models: bytes to [-1, 1] and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nirvana.errors import unknown
from nirvana.files import Json


class Identity:
    """z = x / 127.5 - 1, and back by rounding: `decode(encode(x)) == x` for every byte."""

    stride: int = 1
    bounds: tuple[float, float] = (-1.0, 1.0)

    def encode(self, x: UInt8[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """Bytes to float32 in [-1, 1]."""
        return x.to(torch.float32) / 127.5 - 1.0

    def decode(self, z: Float[Tensor, "b c *s"]) -> UInt8[Tensor, "b c *s"]:
        """The nearest bytes; what lies outside [-1, 1] is clamped, NaN becomes black."""
        return ((z.float().nan_to_num(-1.0) + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)

    def preview(self, z: Float[Tensor, "b c *s"]) -> UInt8[Tensor, "b c *s"]:
        """A cheap decode; here the decode itself."""
        return self.decode(z)

    def config(self) -> dict[str, Json]:
        """What `codec_from_config` rebuilds it from (JSON)."""
        return {"kind": "identity"}


def codec_from_config(config: Mapping[str, object]) -> Identity:
    """The codec that `config()` described; Refused on an unknown kind."""
    kind = config.get("kind")
    if kind != "identity":
        raise unknown("codec", str(kind), ("identity",))
    return Identity()
