"""What every measure of an evaluation is given: the samples, what was asked of them, and the real pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from nirvana.data import Dataset
from nirvana.evaluate.frechet import Moments, blocks_of
from nirvana.evaluate.reference import KEPT, Reference
from nirvana.evaluate.samples import Drawn
from nirvana.evaluate.scores import Findings
from nirvana.evaluate.space import FeatureSpace

Pictures = UInt8[np.ndarray, "n h w c"]


@dataclass(frozen=True, eq=False)
class Subject:
    """Samples beside real pictures.

    drawn: all samples, on the disk. pictures, features, asked: of the first of them, so many that memory has a bound;
    asked[i] is a place in `real.names`, -1 where the class is none of them. texts: what they were asked for in words,
    None where they were not. blocks: moments over all samples.
    partners: the row of `real` that each should have become, for a model of pairs.
    real: what the samples should be like. train: what was trained on, unseen: what was not; None where unknown.
    """

    space: FeatureSpace
    drawn: Drawn
    pictures: Pictures
    features: Float32[np.ndarray, "n d"]
    blocks: Sequence[Moments]
    asked: Int64[np.ndarray, "n"] | None
    real: Dataset
    reference: Reference
    train: Dataset | None
    unseen: Dataset | None
    texts: Sequence[str] | None = None
    partners: Int64[np.ndarray, "n"] | None = None

    @property
    def said(self) -> list[str]:
        """What each sample was asked for: its text, or else its class."""
        request = self.drawn.request
        return [request.label(i) or "" for i in range(len(self.pictures))] if self.texts is None else list(self.texts)

    @property
    def real_labels(self) -> Int64[np.ndarray, "n"] | None:
        """The labels of the pictures whose features the reference keeps."""
        return None if self.real.labels is None else self.real.labels[self.reference.places]


@runtime_checkable
class Measure(Protocol):
    """One question put to the samples. Likelihoods, prompts and whatever else is asked come in by this door."""

    def __call__(self, subject: Subject) -> Findings: ...


def subject_of(
    space: FeatureSpace,
    drawn: Drawn,
    real: Dataset,
    reference: Reference,
    train: Dataset | None,
    unseen: Dataset | None,
    progress: Callable[[int, int], None] | None = None,
) -> Subject:
    """Take the features of all samples, one chunk at a time."""
    pictures: list[Pictures] = []
    kept: list[Float32[np.ndarray, "m d"]] = []
    done = 0

    def measured() -> Iterator[Float32[np.ndarray, "m d"]]:
        nonlocal done
        for chunk in drawn.chunks():
            shown = like(chunk, real)
            found = space(shown)
            if done < KEPT:
                pictures.append(shown)
                kept.append(found)
            done += len(found)
            if progress is not None:
                progress(done, len(drawn))
            yield found

    blocks = blocks_of(measured(), len(drawn), space.width)
    number = {name: i for i, name in enumerate(real.names)}
    names = [drawn.request.label(i) for i in range(min(len(drawn), KEPT))]
    asked = np.array([number.get(name or "", -1) for name in names], np.int64) if drawn.request.labels else None
    return Subject(
        space=space,
        drawn=drawn,
        pictures=np.concatenate(pictures)[:KEPT],
        features=np.concatenate(kept)[:KEPT],
        blocks=blocks,
        asked=asked,
        real=real,
        reference=reference,
        train=train,
        unseen=unseen,
        texts=[drawn.request.prompt(i) or "" for i in range(min(len(drawn), KEPT))]
        if any(drawn.request.prompts)
        else None,
    )


def like(pictures: Pictures, data: Dataset) -> Pictures:
    """`pictures` with the channels that `data` has: grey ones become three equal channels."""
    channels = data.images.shape[3]
    return np.repeat(pictures, channels, axis=3) if pictures.shape[3] == 1 and channels > 1 else pictures
