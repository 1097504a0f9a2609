"""Statistics of real pictures in a feature space, computed once and kept in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from safetensors import SafetensorError
from safetensors.numpy import load, save

from nirvana import files
from nirvana.data import Dataset, order
from nirvana.data.cache import default_root
from nirvana.evaluate.frechet import Moments
from nirvana.evaluate.space import FeatureSpace

MOST, KEPT = 20_000, 10_000
"""So many pictures, drawn at random, give the moments; of so many the features are kept, so memory has a bound."""

_FORMAT = 1
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Reference:
    """Real pictures in a space. features: of `places` in the data set, in random order; moments: of at least these."""

    moments: Moments
    features: Float32[np.ndarray, "n d"]
    places: Int64[np.ndarray, "n"]

    def halves(self, most: int) -> tuple[Float32[np.ndarray, "n d"], Float32[np.ndarray, "m d"]]:
        """At most `most` real pictures of one half, and all that are kept of the other: what sets the floor."""
        half = len(self.features) // 2
        return self.features[: min(half, most)], self.features[half:]


def reference_of(
    space: FeatureSpace,
    data: Dataset,
    progress: Callable[[int, int], None] | None = None,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Reference:
    """The statistics of at most `MOST` pictures of `data`: from the cache, or computed and written there in one step.

    progress(done, total) is called where they are computed. A damaged entry is computed anew; a cache that cannot be
    written is said and costs only the time.
    """
    key = json.dumps([_FORMAT, space.identity, space.width, data.manifest.pixels, MOST, KEPT])
    root = cache if cache is not None else default_root().parent / "features"
    path = root / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    found = _read(path, space.width)
    if found is not None:
        return found
    made = _computed(space, data, progress)
    moments = made.moments
    tensors = {
        "count": np.array([moments.count]),
        "mean": moments.mean,
        "scatter": moments.scatter,
        "features": made.features,
        "places": made.places,
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        files.remove_abandoned(path)
        files.write_bytes(path, save(tensors))
    except OSError as error:
        say(f"the cache {root} cannot be written ({error.strerror or error}): the data are measured anew each time")
    return made


def _computed(space: FeatureSpace, data: Dataset, progress: Callable[[int, int], None] | None) -> Reference:
    places = order(0, len(data), range(min(len(data), MOST)))
    moments, kept = Moments.none(space.width), list[Float32[np.ndarray, "m d"]]()
    for start in range(0, len(places), _CHUNK):
        found = space(data.images[places[start : start + _CHUNK]])
        moments = moments + Moments.of(found)
        if start < KEPT:
            kept.append(found)
        if progress is not None:
            progress(start + len(found), len(places))
    return Reference(moments, np.concatenate(kept)[:KEPT], places[:KEPT])


def _read(path: Path, width: int) -> Reference | None:
    with contextlib.suppress(OSError, SafetensorError, KeyError, ValueError):
        found = load(path.read_bytes())
        moments = Moments(int(found["count"][0]), found["mean"], found["scatter"])
        if found["features"].shape[1] == width and moments.scatter.shape == (width, width):
            return Reference(moments, found["features"], found["places"])
    return None
