"""What one step of sampling shows."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from nirvana.codec import Identity


@dataclass(frozen=True, eq=False)
class Preview:
    """What one step of one batch shows: `batch` are the pictures' numbers in the request, `step` counts from 1.

    before: the noisy state that the step began with, None for a model that has none; x: the state after it; x0: what
    the model believed on the way.
    """

    batch: range
    step: int
    steps: int
    before: Float[Tensor, "b c *s"] | None
    x0: Float[Tensor, "b c *s"]
    x: Float[Tensor, "b c *s"]
    codec: Identity

    @property
    def done(self) -> bool:
        """Whether this batch is finished."""
        return self.step == self.steps

    @property
    def pictures(self) -> UInt8[ndarray, "b h w c"]:
        """x0 as bytes; at the last step the finished pictures."""
        return to_bytes(self.codec, self.x if self.done else self.x0)


def to_bytes(codec: Identity, x: Float[Tensor, "b c h w"]) -> UInt8[ndarray, "b h w c"]:
    """Decoded pictures, channels last, in memory of their own."""
    return codec.decode(x).permute(0, 2, 3, 1).cpu().contiguous().numpy()
