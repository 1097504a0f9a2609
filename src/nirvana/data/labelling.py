"""Which label each picture has: what is said of it, or its sub-folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nirvana.data.dataset import Rejection
from nirvana.errors import Refused

_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}


@dataclass(frozen=True)
class Labelling:
    """The label of each used picture by its path (None: no labels), what is left out, and what to tell the user."""

    labels: dict[str, str | None]
    left_out: tuple[Rejection, ...] = ()
    notes: tuple[str, ...] = ()


def label(paths: Sequence[str], source: str) -> Labelling:
    """The labels of pictures from their paths inside the folder.

    Folders that hold all pictures between them and the root are passed through. Then a picture's label is the first
    sub-folder on its path (in Unicode's composed form), however deep below it lies. There are labels only when at
    least two sub-folders hold pictures and no more pictures lie loose beside them than in them; the loose ones are
    then left out, and listed. Otherwise every picture is used, without a label. Sub-folders that are all named like
    splits (train, test, val) are refused.
    """
    parts = {path: PurePosixPath(path).parts for path in paths}
    depth = 0
    while paths and len({p[depth] for p in parts.values()}) == 1 and all(len(p) > depth + 1 for p in parts.values()):
        depth += 1
    placed = {path: unicodedata.normalize("NFC", p[depth]) for path, p in parts.items() if len(p) > depth + 1}
    loose = [path for path in paths if path not in placed]
    names = sorted(set(placed.values()))
    if len(names) < 2 or len(loose) > len(placed):
        note = "most pictures lie beside the sub-folders, so these are not taken as labels"
        return Labelling(dict.fromkeys(paths), notes=(note,) if len(names) > 1 else ())
    if all(name.casefold() in _SPLITS for name in names):
        raise Refused(
            f"{source}: holds the splits {', '.join(names)}, not labels; train on one of them: {source}/{names[-1]}"
        )
    why = "lies beside the label folders and so has no label"
    return Labelling(dict(placed), tuple({"path": path, "reason": why} for path in loose))


def label_by(said: Mapping[str, str | None]) -> Labelling | None:
    """The labels that tables or sidecars give; None where they give none, or to less than half of the pictures.

    Pictures without one are left out, and listed.
    """
    unlabelled = [path for path, name in said.items() if name is None]
    if len(unlabelled) == len(said) or 2 * len(unlabelled) > len(said):
        return None
    why = "has no label, and most pictures have one"
    left_out: tuple[Rejection, ...] = tuple({"path": path, "reason": why} for path in unlabelled)
    labels: dict[str, str | None] = {path: name for path, name in said.items() if name is not None}
    return Labelling(labels, left_out)
