"""What a model of pairs makes of some of its inputs, beside what was wanted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8

from nirvana.data import Dataset
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import Sampler
from nirvana.modality import grid, to_png_bytes


def translations(sampler: Sampler, request: SampleRequest, data: Dataset, columns: int) -> bytes:
    """A PNG file: inputs spread over the data, what is drawn from them, and their partners. ValueError: no pairs."""
    if data.inputs is None:
        raise ValueError("these pictures have no inputs")
    count = min(columns, len(data))
    rows = [i * len(data) // count for i in range(count)]
    inputs, wanted = data.inputs.images[rows], data.images[rows]
    asked = replace(
        request,
        n=count,
        labels=tuple(data.names[data.labels[row]] for row in rows)
        if request.labels and data.labels is not None
        else request.labels,
        prompts=tuple(next(iter(data.captions[row]), "") for row in rows)
        if request.prompts and data.captions is not None
        else request.prompts,
    )
    shown = torch.from_numpy(np.array(inputs)).permute(0, 3, 1, 2)
    drawn = np.concatenate([sampler.finished(p) for p in sampler.translated(asked, shown) if p.done])
    channels = max(inputs.shape[3], wanted.shape[3])
    pictures = np.concatenate([_coloured(part, channels) for part in (inputs, drawn, wanted)])
    return to_png_bytes(np.asarray(grid(pictures, columns=count)))


def _coloured(pictures: UInt8[np.ndarray, "n h w c"], channels: int) -> UInt8[np.ndarray, "n h w d"]:
    return np.repeat(pictures, channels, axis=3) if pictures.shape[3] < channels else pictures
