"""Sources of pictures, the cache, and the deterministic order. numpy and Pillow only."""

from __future__ import annotations

from nirvana.data.augmentation import flips, mirrored
from nirvana.data.dataset import Captions, Dataset, Manifest
from nirvana.data.open import open_data
from nirvana.data.order import order
from nirvana.data.pairs import open_pairs
from nirvana.data.pictures import DEFAULT_SIZE
from nirvana.data.wording import Wording, said

__all__ = [
    "DEFAULT_SIZE",
    "Captions",
    "Dataset",
    "Manifest",
    "Wording",
    "flips",
    "mirrored",
    "open_data",
    "open_pairs",
    "order",
    "said",
]
