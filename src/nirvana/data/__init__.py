"""Sources of pictures, the cache, and the deterministic order. numpy and Pillow only."""

from __future__ import annotations

from nirvana.data.augmentation import flips, mirrored
from nirvana.data.dataset import Dataset, Manifest
from nirvana.data.folder import DEFAULT_SIZE, native_side
from nirvana.data.open import open_data
from nirvana.data.order import order

__all__ = ["DEFAULT_SIZE", "Dataset", "Manifest", "flips", "mirrored", "native_side", "open_data", "order"]
