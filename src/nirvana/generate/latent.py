"""Pictures from latent vectors, by a GAN or a VAE: one call of the decoder for a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.noise import SeededNoise
from nirvana.errors import Refused
from nirvana.generate.family import ARTICLES, Parts
from nirvana.generate.latent_spec import DIRECT, LatentParts
from nirvana.generate.preview import Preview
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import PictureSampler, Sampler
from nirvana.generate.spec import ModelParts
from nirvana.latent import between, slerp

ONE_WAY: Mapping[str, object] = {
    "steps": 1,
    "solver": DIRECT,
    "grid": DIRECT,
    "clip": False,
    "guidance_interval": None,
    "precision": "float32",
    "engine": "torch",
    "rule": "cfg",
    "negative": None,
    "autoguidance": None,
    "classifier": None,
    "guidance": 1.0,
}
"""What a request says where there is nothing to choose: a model of these draws in one call."""


class LatentSampler(PictureSampler[LatentParts]):
    """Makes what a request asks of a GAN or a VAE: picture i from the unit normal of its seed."""

    def check(self, request: SampleRequest) -> None:
        """Refused where the request has what a diffusion model alone can do, or labels that are not known."""
        for name, only in ONE_WAY.items():
            if getattr(request, name) != only:
                raise Refused(
                    f"{self.where} is {ARTICLES[self.parts.family]}, which draws in one call: it has no"
                    f" {name.replace('_', ' ')} to choose; leave '{name.replace('_', '-')}' out"
                )
        if self.labels and not request.labels:
            raise Refused(
                f"{self.where} needs labels, and the request has none; name some of: {', '.join(self.labels)}"
            )
        for label in request.labels:
            self.parts.conditioner.index(label)

    def stream(self, request: SampleRequest, batches: Sequence[range] | None = None) -> Iterator[Preview]:
        """A `Preview` of every batch (or only of `batches`), finished at its first step. Stop iterating to cancel.

        Refused at once, before any network call, where the model cannot do the request.
        """
        self.check(request)
        return self._stream(request, request.batches() if batches is None else batches)

    def _stream(self, request: SampleRequest, batches: Sequence[range]) -> Iterator[Preview]:
        for batch in batches:
            with torch.inference_mode():
                x0 = self.parts.draw(self._latent(request, batch), self._cond(request, batch))
            yield Preview(batch, 1, 1, None, x0, x0, self.parts.codec)

    def _latent(self, request: SampleRequest, batch: range) -> Float[Tensor, "b latent"]:
        if request.interpolate is None:
            return self._normal(request, list(batch))
        places = [between(i, request.interpolate) for i in batch]
        start, end = (self._normal(request, [place + more for place, _ in places]) for more in (0, 1))
        return slerp(start, end, torch.tensor([part for _, part in places], device=self.device))

    def _normal(self, request: SampleRequest, places: Sequence[int]) -> Float[Tensor, "b latent"]:
        """The unit normals of the seeds that lie so far behind the request's."""
        seeds = [request.seed + place for place in places]
        return SeededNoise(seeds, (self.parts.latent,), device=self.device).initial()

    def _cond(self, request: SampleRequest, batch: range) -> Mapping[str, Tensor]:
        if not self.labels:
            return {}
        stretch = request.interpolate or 1
        places = [between(i, stretch) for i in batch]
        start, end = (self._classes(request, [place + more for place, _ in places]) for more in (0, 1))
        parts = torch.tensor([part for _, part in places], device=self.device)
        return {name: torch.lerp(value, end[name], parts[:, None]) for name, value in start.items()}

    def _classes(self, request: SampleRequest, places: Sequence[int]) -> Mapping[str, Tensor]:
        conditioner = self.parts.conditioner
        names = [request.labels[place % len(request.labels)] for place in places]
        return conditioner(torch.tensor([conditioner.index(name) for name in names]))


def any_sampler(parts: Parts, device: torch.device, where: str) -> PictureSampler[Any]:
    """What samples a model of whatever family, without engines, earlier moments or classifiers."""
    return Sampler(parts, device, where) if isinstance(parts, ModelParts) else LatentSampler(parts, device, where)
