"""Pictures that are edited: read with all they have, changed only where they may, written without a loss."""

from nirvana.edit.mask import feathered, read_mask
from nirvana.edit.pair import alike, faded
from nirvana.edit.picture import Photo, Unreadable, read_photo
from nirvana.edit.windows import Window, windows

__all__ = ["Photo", "Unreadable", "Window", "alike", "faded", "feathered", "read_mask", "read_photo", "windows"]
