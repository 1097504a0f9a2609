"""Sources of pictures, the cache, and the deterministic order. numpy and Pillow only."""

from __future__ import annotations

from nirvana.data.augmentation import flips, mirrored
from nirvana.data.dataset import Dataset, Manifest
from nirvana.data.open import open_data
from nirvana.data.order import order

__all__ = ["Dataset", "Manifest", "flips", "mirrored", "open_data", "order"]
