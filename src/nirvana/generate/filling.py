"""A canvas filled by a sampler, as an edit says: from noise, from a picture, or from between two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from nirvana.diffusion.noise import SeededNoise
from nirvana.generate.beginning import Beginning, Canvas, OnCanvas
from nirvana.generate.changes import Changes
from nirvana.generate.editing import Fill, method_of, seen
from nirvana.generate.encoding import Blended, Encoded, Told
from nirvana.generate.preview import Preview
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import Sampler
from nirvana.generate.wanted import wanted


def filling(sampler: Sampler, request: SampleRequest) -> Fill:
    """What draws the free part of canvases, as the edit `request` says: texts are encoded once for all of them.

    Refused at once where the model cannot do the request.
    """
    sampler.check(request)
    change, steering, levels = cast(Changes, request.edit), sampler.steering(request), sampler.levels(request)
    told = [_told(sampler, request, source) for source in change.sources]

    def beginning(batch: range, canvas: Canvas) -> Beginning:
        if not told:
            return OnCanvas(canvas, method_of(change), whole=change.strength == 1)
        if canvas.end is None:
            return Encoded(canvas, told[0])
        return Blended(canvas, canvas.end, (told[0], told[1]), [request.share(i) for i in batch])

    def fill(batch: range, canvas: Canvas, seeds: Sequence[int]) -> Iterator[Preview]:
        noise, canvas = SeededNoise(seeds, sampler.parts.shape, device=sampler.device), canvas.to(sampler.device)
        beside = seen(change, canvas, sampler.parts.concat)
        return sampler.drawn(steering, levels, batch, noise, beginning(batch, canvas), beside)

    return fill


def _told(sampler: Sampler, request: SampleRequest, source: str | None) -> Told:
    """What a picture is encoded with under `source`, whatever it is to become: the model without guidance."""
    plain = replace(request, rule="cfg", negative=None, autoguidance=None, classifier=None, to=None)
    if source is None:
        plain = replace(plain, guidance=0.0 if sampler.subjects else 1.0)
    else:
        labels, prompts = wanted(sampler.parts.conditioner, sampler.where, source, None, sampler.labels)
        plain = replace(plain, guidance=1.0, labels=labels, prompts=prompts)
    steering = sampler.steering(plain)
    return lambda rows: steering.conditioned(range(rows))
