"""`nirvana pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Console


def pack(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    *,
    out: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")] = None,
) -> None:
    """Make a small copy of a trained model, to give away: its description and its averaged weights in 16 bits.

    The copy generates, is evaluated and is a start for --from like the run itself; training does not go on in it.
    It holds the names and hashes of the training files (data.json), and none of their content.

    examples:
      nirvana pack runs/flowers
      nirvana pack runs/flowers --out flowers-model

    Args:
        model: a run folder, or the name of one in runs/
        out: the folder of the copy (MODEL-packed)
    """
    from nirvana.generate.model import find
    from nirvana.train.pack import pack as made
    from nirvana.train.run import RunFolder

    run = RunFolder.open(find(model))
    target = Path(out).expanduser() if out is not None else run.path.with_name(f"{run.path.resolve().name}-packed")
    packed = made(run, target)
    size = sum(file.stat().st_size for file in packed.path.rglob("*") if file.is_file())
    console.result(f"{packed.path}: {size / 1e6:.1f} MB", {"out": str(packed.path), "bytes": size})
