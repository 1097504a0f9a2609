"""The real pictures of an evaluation: what was trained on, what samples are held against, and what is unseen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from nirvana.data import Dataset, open_data, open_pairs
from nirvana.data.builtin import BUILTINS
from nirvana.data.decisions import stored
from nirvana.errors import Refused
from nirvana.evaluate.pairs import check_inputs, is_paired, training_pairs
from nirvana.generate.model import Model

_LEAST_REAL = 12
"""So many real pictures at least, that each half has more than the neighbours that are looked at."""


@dataclass(frozen=True, eq=False)
class Data:
    """real: what the samples should be like. train, unseen: None where they are not known. notes: what to say of it."""

    real: Dataset
    train: Dataset | None
    unseen: Dataset | None
    notes: tuple[str, ...]


def data_of(model: Model, against: str | None, inputs: str | None = None) -> Data:
    """The training data, what the samples are held against, and pictures that were not trained on.

    inputs: what those of `against` are to be made of, for a model of pairs. Refused where neither the training data nor
    --against can be read.
    """
    manifest = model.run.data
    source, side, paired = str(manifest.get("source")), model.parts.shape[1], is_paired(model)
    if paired and (against is None) != (inputs is None):
        raise Refused(
            f"{model.run.path} makes pictures of others; name both: --against, the pictures, and --inputs, what they"
            " are made of"
        )
    notes: list[str] = []
    try:
        train = training_pairs(model) if paired else open_data(source, size=side, decisions=stored(manifest))
    except Refused as error:
        if against is None:
            raise Refused(f"the training data are not there ({error}); name real pictures with --against") from None
        train = None
        notes.append(f"the training data are not there ({error}): no look for copies")
    if train is not None and manifest.get("pixels") not in (None, train.manifest.pixels):
        notes.append(f"{source} has changed since the training")
    other = None
    if against is not None:
        other = open_data(against, size=side) if inputs is None else open_pairs(inputs, against, size=side)
    if other is not None and train is not None and other.manifest.pixels == train.manifest.pixels:
        other = None
    real = other if other is not None else cast("Dataset", train)
    if len(real) < _LEAST_REAL:
        raise Refused(
            f"{real.manifest.source}: {len(real)} pictures are too few to compare with; name at least {_LEAST_REAL}"
            " with --against"
        )
    if paired:
        check_inputs(model, real, str(inputs or model.run.config.get("source")))
    held_out = other if other is not None or paired else _held_out(source, side)
    return Data(real, train, held_out, tuple(notes))


def _held_out(source: str, side: int) -> Dataset | None:
    """The test part of a built-in; None for what has none."""
    name, _, part = source.partition(":")
    test = f"{part}-test" if part else "test"
    return open_data(f"{name}:{test}", size=side) if test in BUILTINS.get(name, ()) else None
