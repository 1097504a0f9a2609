"""How far a network in another engine is from the same network in PyTorch, on fresh inputs and on final pictures."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nirvana.diffusion.denoiser import Cond
from nirvana.diffusion.level import Level, left_align
from nirvana.files import Json
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import Sampler
from nirvana.generate.spec import ModelParts

BATCHES = (1, 3, 16)
"""The batch sizes that are compared: one picture, an odd number, many."""

PICTURES, TOGETHER = 4, 3
"""So many pictures are drawn both ways, so many at once: the last batch is a smaller one."""

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Deviation:
    """absolute: the largest difference of an output; relative: that over the largest magnitude of the reference."""

    absolute: float
    relative: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[Tensor, Tensor]]) -> Deviation:
        """The deviation of the first of each pair from the second; NaN where anything is not finite."""
        difference = torch.stack([(a.double() - b.double()).abs().amax() for a, b in pairs]).amax()
        largest = torch.stack([b.double().abs().amax() for _, b in pairs]).amax()
        relative = difference / largest if largest > 0 or difference > 0 else difference
        return cls(float(difference), float(relative))

    def to_json(self) -> dict[str, Json]:
        """Both numbers."""
        return {"absolute": self.absolute, "relative": self.relative}


@dataclass(frozen=True)
class Calls:
    """Fresh calls of a network: the inputs as sampling makes them, and what PyTorch gives in float32 and float64."""

    inputs: list[tuple[Tensor, Tensor, Cond]]
    float32: list[Tensor]
    float64: list[Tensor]

    def deviations(self, net: nn.Module) -> dict[str, Deviation]:
        """How far `net` is from PyTorch in float32 and in float64, and how far these two are from each other."""
        with torch.inference_mode():
            outputs = [net(*inputs) for inputs in self.inputs]
        return {
            "float32": Deviation.of(list(zip(outputs, self.float32, strict=True))),
            "float64": Deviation.of(list(zip(outputs, self.float64, strict=True))),
            "torch": Deviation.of(list(zip(self.float32, self.float64, strict=True))),
        }


@dataclass(frozen=True)
class Pictures:
    """Largest and mean difference of finished pictures drawn both ways, in units of x0 and in bytes (0 to 255)."""

    request: SampleRequest
    largest: float
    mean: float
    largest_byte: int
    mean_byte: float

    def to_json(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {
            "largest": self.largest,
            "mean": self.mean,
            "largest_byte": self.largest_byte,
            "mean_byte": self.mean_byte,
            "request": self.request.to_json(),
        }


def fresh_calls(parts: ModelParts, seed: int = 0) -> Calls:
    """Calls of the network of `parts` in batches of `BATCHES`, with levels across the trained range.

    x = alpha x0 + sigma eps with x0 uniform in [-1, 1]; random classes, some of them dropped.
    """
    rng = torch.Generator().manual_seed(seed)
    lam = torch.linspace(*parts.trained_lam, sum(BATCHES), dtype=torch.float64)
    lams = lam[torch.randperm(len(lam), generator=rng)].split(list(BATCHES))
    wide = copy.deepcopy(parts.denoiser.net).double()
    inputs: list[tuple[Tensor, Tensor, Cond]] = []
    outputs: list[Tensor] = []

    def keep(net: nn.Module, args: tuple[Tensor, Tensor, Cond], output: Tensor) -> None:
        del net
        inputs.append(args)
        outputs.append(output)

    with parts.denoiser.net.register_forward_hook(keep), torch.inference_mode():
        for level in map(Level.from_lam, lams):
            x, cond = _noisy(parts.shape, level, rng), random_cond(parts, len(level.alpha), rng)
            parts.denoiser(x, level, cond)
        exact = [wide(x.double(), noise.double(), _double(cond)) for x, noise, cond in inputs]
    return Calls(inputs, outputs, exact)


def _noisy(shape: tuple[int, ...], level: Level, rng: torch.Generator) -> Float[Tensor, "b *s"]:
    size = (len(level.alpha), *shape)
    x0, eps = torch.rand(size, generator=rng) * 2 - 1, torch.randn(size, generator=rng)
    return (left_align(level.alpha, x0) * x0 + left_align(level.sigma, x0) * eps).float()


def random_cond(parts: ModelParts, batch: int, rng: torch.Generator) -> Cond:
    """Conditions of random classes and examples of texts, a third of them dropped, and of noise that is seen beside.

    None where the model has none.
    """
    classes = len(parts.conditioner.names)
    labels = torch.randint(max(classes, 1), (batch,), generator=rng)
    texts = tuple(islice(cycle(parts.conditioner.examples), batch))
    told = parts.conditioner(labels, torch.rand(batch, generator=rng) < 1 / 3, texts)
    concat, size = parts.concat, parts.shape[1:]
    if concat is None:
        return told
    picture = torch.rand(batch, concat.channels, *size, generator=rng) * 2 - 1
    return {**told, **concat.slot(picture, torch.rand(batch, 1, *size, generator=rng) < 2 / 3)}


def _double(cond: Cond) -> Cond:
    return {name: value.double() if value.is_floating_point() else value for name, value in cond.items()}


def compare_pictures(parts: ModelParts, net: nn.Module, where: str) -> Pictures:
    """Pictures at the recommended settings, drawn by `parts` and by `net` in the place of their network.

    Refused, naming `where`, where one of them gives numbers that are not finite.
    """
    reference = Sampler(parts, _CPU, where)
    driven = Sampler(dataclasses.replace(parts, denoiser=parts.denoiser.around(net)), _CPU, where)
    request = reference.request(n=PICTURES, batch=TOGETHER)
    (x, pixels), (other, others) = (_drawn(sampler, request) for sampler in (reference, driven))
    difference, bytes_apart = (x - other).abs(), np.abs(pixels.astype(np.int16) - others)
    return Pictures(
        request,
        largest=float(difference.max()),
        mean=float(difference.mean()),
        largest_byte=int(bytes_apart.max()),
        mean_byte=float(bytes_apart.mean()),
    )


def _drawn(sampler: Sampler, request: SampleRequest) -> tuple[Tensor, np.ndarray]:
    done = [preview for preview in sampler.stream(request) if preview.done]
    return torch.cat([preview.x for preview in done]), np.concatenate([sampler.finished(preview) for preview in done])
