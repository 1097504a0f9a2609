"""`nirvana reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from nirvana import files
from nirvana.cli.console import Console
from nirvana.errors import Refused


def reproduce(
    console: Console,
    file: Annotated[Positional[str], arg(metavar="FILE")],
    *,
    out: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None,
    model: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None,
) -> None:
    """Make a generated picture again from what its file says, and compare.

    On the same machine with the same versions the bytes are the same; else the largest difference is said.

    examples:
      nirvana reproduce pictures/003.png
      nirvana reproduce pictures/grid.png --out again.png

    Args:
        file: a picture or grid that nirvana made
        out: also write the new file there
        model: where the run is now, if it moved
    """
    from nirvana.evaluate import CLASSIFIERS
    from nirvana.generate.images import check_folder
    from nirvana.generate.reproduction import reproduce as again

    target = None if out is None else Path(out).expanduser()
    if target is not None:
        if target.is_dir():
            raise Refused(f"{target} is a folder; name the file to write with --out")
        check_folder(target.parent)
    made = again(file, model, classifiers=CLASSIFIERS)
    if target is not None:
        with files.explained(target, "make room, or choose another --out"):
            target.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(target, made.data)
    console.result(
        made.sentence(),
        {
            "file": str(made.file),
            "same_bytes": made.same_bytes,
            "largest_difference": made.difference,
            "changed": list(made.changed),
            "out": None if target is None else str(target),
        },
    )
