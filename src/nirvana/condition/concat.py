"""A picture that the network sees beside the noisy one: what the slot `concat` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nirvana.errors import Refused, unknown
from nirvana.files import Json

MASKED, PAIRED = "masked", "paired"

DROP = 0.1
"""The share of training samples that see nothing, so that the model also draws without a picture."""


@dataclass(frozen=True)
class Concat:
    """concat = (shown, shown * picture): where a picture is seen, and what is seen there. All 0, the null condition.

    kind: "masked", what is known of the picture itself (learned inpainting; Nichol et al. 2022, GLIDE), or "paired",
    another picture, all of it (translation; Saharia et al. 2022, Palette). channels: of that picture. drop: the share
    of training samples that see nothing. Raises Refused where a value is out of range.
    """

    kind: str
    channels: int
    drop: float = DROP

    def __post_init__(self) -> None:
        if self.kind not in (MASKED, PAIRED):
            raise unknown("kind of concat", self.kind, (MASKED, PAIRED))
        if self.channels < 1 or not 0 <= self.drop <= 1:
            raise Refused(f"concat needs channels >= 1 and drop in [0, 1], got {self.channels} and {self.drop}")

    @property
    def width(self) -> int:
        """Channels of the slot."""
        return 1 + self.channels

    def slot(
        self, picture: Float[Tensor, "b c h w"], shown: Bool[Tensor, "_b 1 _h _w"]
    ) -> dict[str, Float[Tensor, "b d h w"]]:
        """{"concat": (b, 1 + c, h, w)} of pictures in the model's space, and where each is seen (broadcast to it).

        What a picture holds where it is not seen does not matter.
        """
        where = shown.to(picture.device).expand(len(picture), 1, *picture.shape[2:])
        return {"concat": torch.cat([where.to(picture), torch.where(where, picture, 0.0)], dim=1)}

    def nothing(self, batch: int, size: tuple[int, ...], device: torch.device) -> dict[str, Float[Tensor, "b d h w"]]:
        """The null condition for so many pictures of `size`, (h, w)."""
        return {"concat": torch.zeros(batch, self.width, *size, device=device)}

    def config(self) -> dict[str, Json]:
        """What `concat_from_config` rebuilds it from (JSON)."""
        return asdict(self)


def concat_from_config(config: Mapping[str, object]) -> Concat:
    """What `config()` described; Refused on an unknown kind or a malformed entry."""
    kind, channels, drop = config.get("kind"), config.get("channels"), config.get("drop", DROP)
    if not isinstance(channels, int) or isinstance(channels, bool) or not isinstance(drop, int | float):
        raise Refused(f"concat needs whole channels and a number drop, got channels={channels!r}, drop={drop!r}")
    return Concat(cast(str, kind), channels, float(drop))
