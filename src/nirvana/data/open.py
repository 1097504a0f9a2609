"""The one way to open a source of pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nirvana.data.builtin import BUILTINS, open_builtin
from nirvana.data.dataset import Dataset
from nirvana.data.folder import open_folder
from nirvana.errors import Refused, nearest

MAX_SIZE = 4096


def open_data(
    source: str,
    *,
    size: int | None = None,
    allow_bad: bool = False,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Square pictures of `size` pixels from a built-in or a folder whose sub-folders are labels.

    Built-ins are `digits`, `digits:test`, `fashion-mnist` (the full set where its files are found, else the embedded
    subset), `fashion-mnist:test`, `fashion-mnist:subset` and `fashion-mnist:subset-test`; a folder of the same name is
    written `./digits`. `size` None takes a built-in's own size, and for folders the rule of `open_folder`.
    `progress(done, total)` is called after each decoded file, and not at all where the cache still holds. Refused:
    whatever the user can mend.
    """
    if size is not None and not 1 <= size <= MAX_SIZE:
        raise Refused(f"size {size}: pictures are 1 to {MAX_SIZE} pixels wide; give a size in that range, or none")
    name, _, part = source.partition(":")
    if name in BUILTINS:
        return open_builtin(name, part, size)
    path = Path(os.path.expanduser(source))
    if not source or not os.path.exists(path):
        hint = nearest(source, BUILTINS) or f"; give a folder of pictures or a built-in ({', '.join(sorted(BUILTINS))})"
        raise Refused(f"{source or repr(source)}: no such folder, and no built-in of that name{hint}")
    if not path.is_dir():
        raise Refused(f"{source}: not a folder; give the folder that holds the pictures, such as {path.parent}")
    return open_folder(path, source, size, allow_bad, cache_dir, progress)
