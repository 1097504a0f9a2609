"""Inception-v3 as the Fréchet Inception Distance uses it, with weights from a file of the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

from nirvana.errors import Refused
from nirvana.evaluate.space import ModuleSpace
from nirvana.evaluate.weights import fill, read_weights

WIDTH = 2048
SIDE = 299

Kernel = int | tuple[int, int]
Filters = tuple[str, int, Kernel, int]
"""Name, channels out, kernel, stride; a stride of 2 goes without padding, every other keeps the size."""


class Filter(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, *, padded: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Chains of filters beside each other, and a pooled one; the last link of a chain may be two filters in parallel.

    pool: "mean" (without the padding in the mean, as the first network of FID has it) or "max".
    """

    def __init__(
        self, inputs: int, chains: Sequence[Sequence[Filters]], pool: str, projected: int, forks: Mapping[str, str]
    ) -> None:
        super().__init__()
        self._pool, self._forks = pool, forks
        self._chains = [[link[0] for link in chain] for chain in chains]
        self._stride = max(chain[-1][3] for chain in chains)
        self.outputs = projected if projected else inputs
        for chain in chains:
            width = inputs
            for name, outputs, kernel, stride in chain:
                self.add_module(name, Filter(width, outputs, kernel, stride, padded=stride == 1))
                if name in forks:
                    crossed = (kernel[1], kernel[0]) if isinstance(kernel, tuple) else kernel
                    self.add_module(forks[name], Filter(width, outputs, crossed))
                    self.outputs += outputs
                width = outputs
            self.outputs += width
        if projected:
            self.branch_pool = Filter(inputs, projected, 1)
        self._projected = bool(projected)

    def forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for chain in self._chains:
            h = x
            for name in chain:
                forked = self.get_submodule(self._forks[name])(h) if name in self._forks else None
                h = self.get_submodule(name)(h)
                parts += [h] if name == chain[-1] else []
                parts += [] if forked is None else [forked]
        return torch.cat([*parts, self._pooled(x)], dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self._stride == 2:
            return max_pool2d(x, 3, 2)
        pooled = max_pool2d(x, 3, 1, 1) if self._pool == "max" else avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return self.branch_pool(pooled)


def _a(inputs: int, projected: int) -> Mixed:
    chains: list[list[Filters]] = [
        [("branch1x1", 64, 1, 1)],
        [("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)],
        [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 1)],
    ]
    return Mixed(inputs, chains, "mean", projected, {})


def _b(inputs: int) -> Mixed:
    chains: list[list[Filters]] = [
        [("branch3x3", 384, 3, 2)],
        [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 2)],
    ]
    return Mixed(inputs, chains, "max", 0, {})


def _c(inputs: int, middle: int) -> Mixed:
    wide, high = (1, 7), (7, 1)
    double = [("branch7x7dbl_1", middle, 1, 1)]
    double += [(f"branch7x7dbl_{i}", middle, kernel, 1) for i, kernel in ((2, high), (3, wide), (4, high))]
    chains: list[list[Filters]] = [
        [("branch1x1", 192, 1, 1)],
        [("branch7x7_1", middle, 1, 1), ("branch7x7_2", middle, wide, 1), ("branch7x7_3", 192, high, 1)],
        [*double, ("branch7x7dbl_5", 192, wide, 1)],
    ]
    return Mixed(inputs, chains, "mean", 192, {})


def _d(inputs: int) -> Mixed:
    start: list[Filters] = [("branch7x7x3_1", 192, 1, 1), ("branch7x7x3_2", 192, (1, 7), 1)]
    chains: list[list[Filters]] = [
        [("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)],
        [*start, ("branch7x7x3_3", 192, (7, 1), 1), ("branch7x7x3_4", 192, 3, 2)],
    ]
    return Mixed(inputs, chains, "max", 0, {})


def _e(inputs: int, pool: str) -> Mixed:
    chains: list[list[Filters]] = [
        [("branch1x1", 320, 1, 1)],
        [("branch3x3_1", 384, 1, 1), ("branch3x3_2a", 384, (1, 3), 1)],
        [("branch3x3dbl_1", 448, 1, 1), ("branch3x3dbl_2", 384, 3, 1), ("branch3x3dbl_3a", 384, (1, 3), 1)],
    ]
    forks = {"branch3x3_2a": "branch3x3_2b", "branch3x3dbl_3a": "branch3x3dbl_3b"}
    return Mixed(inputs, chains, pool, 192, forks)


class InceptionV3(nn.Module):
    """Pooled features (2048) of pictures with values in [-1, 1], by the names that FID's torch weights have.

    Source: Szegedy et al. 2016, with the poolings of the network of Heusel et al. 2017: means leave the padding out,
    and the last block takes a maximum.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Filter(3, 32, 3, 2, padded=False)
        self.Conv2d_2a_3x3 = Filter(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Filter(32, 64, 3)
        self.Conv2d_3b_1x1 = Filter(64, 80, 1)
        self.Conv2d_4a_3x3 = Filter(80, 192, 3, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c = _c(768, 128), _c(768, 160)
        self.Mixed_6d, self.Mixed_6e = _c(768, 160), _c(768, 192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = _d(768), _e(1280, "mean"), _e(2048, "max")

    def forward(self, x: Float[Tensor, "b 3 299 299"]) -> Float[Tensor, "b 2048"]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


def inception_space(file: str, device: torch.device | str = "cpu") -> ModuleSpace:
    """The space Inception with the weights of a local file (FID's own, or torchvision's; both end in a classifier).

    Refused where the file is not there or holds other weights.
    """
    if not file:
        raise Refused("Inception-v3 has no weights of its own here; name their file: inception:FILE")
    path = Path(file).expanduser()
    weights = read_weights(path)
    kept = {name: value for name, value in weights.items() if not name.startswith(("fc.", "AuxLogits."))}
    network = InceptionV3()
    fill(network, kept, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    identity = f"inception {digest}"
    return ModuleSpace("Inception", WIDTH, network, side=SIDE, prepare=_prepare, identity=identity, device=device)


def _prepare(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    return x / 127.5 - 1
