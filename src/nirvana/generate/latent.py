"""Pictures from latent vectors, by a GAN or a VAE: one call of the decoder for a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from nirvana.errors import Refused
from nirvana.generate.asked import asked
from nirvana.generate.family import ARTICLES, Parts
from nirvana.generate.latent_spec import DIRECT, LatentParts
from nirvana.generate.preview import Preview
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import PictureSampler, Sampler
from nirvana.generate.spec import ModelParts

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
        if request.to is not None and not self.labels:
            raise Refused(
                f"{self.where} was trained without labels; leave the way to '{request.to}' out, or go to a seed"
            )
        for label in (*request.labels, *([] if request.to is None else [request.to])):
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
                z = self.noise(request, batch, (self.parts.latent,)).initial()
                x0 = self.parts.draw(z, self._cond(request, batch))
            yield Preview(batch, 1, 1, None, x0, x0, self.parts.codec)

    def _cond(self, request: SampleRequest, batch: range) -> Mapping[str, Tensor]:
        """The vector of every picture's class; on the way to another class it lies on the line between the two."""
        if not self.labels:
            return {}
        conditioner = self.parts.conditioner
        shares = torch.zeros(len(batch), len(self.labels), device=self.device)
        for row, i in zip(shares, batch, strict=True):
            for ask, share in asked(request, i, self.labels, prompts=False):
                row[conditioner.index(cast(str, ask.label))] = share
        return {name: shares @ table for name, table in conditioner(torch.arange(len(self.labels))).items()}


def any_sampler(parts: Parts, device: torch.device, where: str) -> PictureSampler[Any]:
    """What samples a model of whatever family, without engines, earlier moments or classifiers."""
    return Sampler(parts, device, where) if isinstance(parts, ModelParts) else LatentSampler(parts, device, where)
