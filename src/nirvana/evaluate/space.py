"""Feature spaces: what turns pictures into vectors whose distances mean something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nirvana.errors import Refused, unknown

_BATCH = 16
"""Small enough that the activations of a batch stay in the cache of a CPU: four times as fast as 64 at 128 pixels."""


@runtime_checkable
class FeatureSpace(Protocol):
    """name: stands in the name of every score, so it says the network and, if not its own, the size it sees.

    width: of a feature vector. identity: changes whenever features change, for caches.
    """

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def identity(self) -> str: ...

    def __call__(self, pictures: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n d"]: ...


class ModuleSpace:
    """The features of any torch module that maps (b, 3, side, side) to (b, width).

    prepare: from pixels in 0..255 as float32 to what the module reads. Pictures are resized to `side` with a bilinear
    filter that averages where it shrinks (as Parmar et al. 2022 ask for), grey ones are shown in three channels.
    Memory is flat in the number of pictures, apart from the result.
    """

    def __init__(
        self,
        name: str,
        width: int,
        module: nn.Module,
        *,
        side: int,
        prepare: Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b 3 h w"]],
        identity: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name, self.width, self.side = name, width, side
        self.identity = f"{identity or name} {side} {width}"
        self._device = torch.device(device)
        # The module is not changed where it is, but for `eval`, which features need.
        self._module = module.eval().to(self._device)
        self._prepare = prepare

    def __call__(self, pictures: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n d"]:
        """One row a picture. ValueError where the pictures are no pictures, or the features not finite or too wide."""
        check_pictures(pictures)
        result = np.empty((len(pictures), self.width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                found = self._module(self._read(pictures[start : start + _BATCH]))
                count = min(_BATCH, len(pictures) - start)
                if found.shape != (count, self.width):
                    raise ValueError(
                        f"the space {self.name} gave features of shape {tuple(found.shape)} for {count} pictures;"
                        f" it must give ({count}, {self.width}): state its true width"
                    )
                result[start : start + count] = found.float().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
        if bad.size:
            raise ValueError(f"the space {self.name} gave features that are not finite for picture {bad[0]}")
        return result

    def _read(self, pictures: UInt8[np.ndarray, "b h w c"]) -> Float[Tensor, "b 3 s s"]:
        x = torch.from_numpy(np.array(pictures)).to(self._device).permute(0, 3, 1, 2).float()
        x = x.expand(-1, 3, -1, -1)
        if x.shape[2:] != (self.side, self.side):
            x = interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True)
        return self._prepare(x).contiguous(memory_format=torch.channels_last)


def check_pictures(pictures: np.ndarray) -> None:
    """ValueError unless `pictures` are bytes, (n, h, w, 1 or 3)."""
    if pictures.ndim != 4 or pictures.shape[3] not in (1, 3) or pictures.dtype != np.uint8:
        raise ValueError(
            f"pictures of type {pictures.dtype} and shape {pictures.shape}; bytes (n, h, w, 1 or 3) are needed"
        )


def to_bytes(pictures: Float[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n h w c"]:
    """Pictures with values in [0, 1] as bytes. ValueError naming the first picture with a NaN or a value outside."""
    flat = pictures.reshape(len(pictures), -1)
    bad = np.flatnonzero(~(np.isfinite(flat).all(axis=1) & (flat.min(axis=1) >= 0) & (flat.max(axis=1) <= 1)))
    if bad.size:
        raise ValueError(f"picture {bad[0]} has values that are no numbers in [0, 1]; mend or leave out that picture")
    return np.round(pictures * 255).astype(np.uint8)


DEFAULT_SPACE = "efflite0"


def open_space(text: str = DEFAULT_SPACE, device: torch.device | str = "cpu") -> FeatureSpace:
    """The space written as "efflite0", "efflite0:224" (the side it sees), "inception:FILE" or "dinov2:FOLDER".

    Refused where there is no such space, or its weights are not there.
    """
    kind, _, rest = text.partition(":")
    if kind == "efflite0":
        from nirvana.evaluate.efficientnet import SIDE, efficientnet_space

        if rest and not (rest.isdecimal() and 32 <= int(rest) <= 512):
            raise Refused(f"'{text}': EfficientNet-Lite0 sees pictures of 32 to 512 pixels; write efflite0:224")
        return efficientnet_space(int(rest or SIDE), device)
    if kind == "inception":
        from nirvana.evaluate.inception import inception_space

        return inception_space(rest, device)
    if kind == "dinov2":
        from nirvana.evaluate.dinov2 import dinov2_space

        return dinov2_space(rest, device)
    raise unknown("feature space", text, ("efflite0", "efflite0:SIDE", "inception:FILE", "dinov2:FOLDER"))
