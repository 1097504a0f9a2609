"""Which memory format, normalisation, attention kernel and head width the U-Net uses, decided by measurement.

Forward and backward in float32, candidates in turn, medians. Run: make bench, or python benchmarks/bench_layers.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import paired, publish, table
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from nirvana.nn.attention import plain_attention
from nirvana.nn.layers import Upsample

BATCH = 64


def step(module: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    """Forward and backward of `module` at x."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    gradient = torch.ones_like(module(x))

    def run() -> None:
        x.grad = None
        module(x).backward(gradient)

    return run


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def block(channels: int) -> nn.Sequential:
    """Half a residual block."""
    return nn.Sequential(nn.GroupNorm(channels // 16, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))


def ratio(found: dict[str, float], a: str, b: str) -> str:
    """How many times as long a takes as b."""
    return f"{found[a] / found[b]:.2f}"


def milliseconds(found: dict[str, float]) -> list[str]:
    """The figures of a row."""
    return [f"{1e3 * seconds:.1f}" for seconds in found.values()]


def layouts() -> tuple[str, dict[str, float]]:
    """A residual block's parts in both memory formats."""
    rows, values = [], {}
    for channels, side in ((64, 14), (128, 7), (64, 32)):
        x = torch.randn(BATCH, channels, side, side, generator=rng())
        last = x.to(memory_format=torch.channels_last)
        found = paired(
            {
                "default": step(block(channels), x),
                "channels last": step(block(channels).to(memory_format=torch.channels_last), last),
            }
        )
        name = f"{channels} channels, {side}x{side}"
        rows.append([name, *milliseconds(found), ratio(found, "default", "channels last")])
        values[name] = found
    return table(["norm, SiLU, convolution", "default, ms", "channels last, ms", "ratio"], rows), values


def norms() -> tuple[str, dict[str, float]]:
    """Group normalisation by the width of its groups, channels last."""
    rows, values = [], {}
    for channels, side in ((64, 14), (64, 32), (128, 16)):
        x = torch.randn(BATCH, channels, side, side, generator=rng()).to(memory_format=torch.channels_last)
        widths = [w for w in (2, 8, 16, 32, 64) if w <= channels]
        found = paired({str(w): step(nn.GroupNorm(channels // w, channels), x) for w in widths})
        rows.append([f"{channels} channels, {side}x{side}", *(f"{1e3 * found[str(w)]:.1f}" for w in widths)])
        values[rows[-1][0]] = found
    return table(["group norm, ms, by channels a group", "2", "8", "16", "32", "64"], rows), values


def attention() -> tuple[str, dict[str, float]]:
    """The written-out product against the fused kernel, by keys and head width (128 channels)."""
    rows, values = [], {}
    for keys in (49, 64, 196, 256, 1024):
        for width in (8, 64, 128):
            batch = BATCH if keys < 1024 else 8
            q = torch.randn(batch, 128 // width, keys, width, generator=rng())
            found = paired(
                {
                    "plain": step(lambda x: plain_attention(x, x, x, None), q),
                    "fused": step(lambda x: scaled_dot_product_attention(x, x, x), q),
                },
                rounds=5,
            )
            rows.append([str(keys), str(width), *milliseconds(found), ratio(found, "fused", "plain")])
            values[f"{keys} keys, heads of {width}"] = found
    return table(["keys", "head width", "plain, ms", "fused, ms", "fused / plain"], rows), values


def upsampling() -> tuple[str, dict[str, float]]:
    """Our upsampling (a pointwise map and a shuffle) against nearest-neighbour and a convolution."""
    rows, values = [], {}
    for channels, side in ((128, 7), (64, 16)):
        x = torch.randn(BATCH, channels, side, side, generator=rng()).to(memory_format=torch.channels_last)
        ours = Upsample(2, channels, channels // 2).to(memory_format=torch.channels_last)
        wide = nn.Conv2d(channels, channels // 2, 3, padding=1).to(memory_format=torch.channels_last)
        transposed = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2).to(memory_format=torch.channels_last)
        nearest = nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2), wide)
        found = paired({"shuffle": step(ours, x), "transposed": step(transposed, x), "nearest": step(nearest, x)})
        rows.append([f"{channels} channels, {side}x{side}", *milliseconds(found)])
        values[rows[-1][0]] = found
    return table(["upsampling, ms", "pointwise and shuffle", "transposed, kernel 2", "nearest and 3x3"], rows), values


def main() -> None:
    parts = [layouts(), norms(), attention(), upsampling()]
    publish(
        "layers",
        "What the U-Net is made of",
        "python benchmarks/bench_layers.py",
        "\n".join(text for text, _ in parts) + "\n",
        [values for _, values in parts],
    )


if __name__ == "__main__":
    main()
