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
    steps: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None,
    solver: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None,
    grid: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None,
    guidance: Annotated[float | None, arg(metavar="W", help_behavior_hint="")] = None,
) -> None:
    """Make a small copy of a trained model, to give away: its description and its averaged weights in 16 bits.

    The copy generates, is evaluated and is a start for --from like the run itself; training does not go on in it.
    It holds the names and hashes of the training files (data.json), and none of their content.

    examples:
      nirvana pack runs/flowers
      nirvana pack runs/flowers --out flowers-model
      nirvana pack runs/flowers --solver dpmpp-2m --steps 15

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        out: the folder of the copy (MODEL-packed)
        steps: draw with so many steps where the user of the copy does not say (as the run does)
        solver: draw with this solver (as the run does); nirvana solvers lists them
        grid: lay the steps on this grid (as the run does)
        guidance: draw with this guidance (as the run does)
    """
    from nirvana.generate.family import recommending
    from nirvana.generate.model import find
    from nirvana.train.pack import pack as made
    from nirvana.train.run import RunFolder

    run = RunFolder.open(find(model))
    target = Path(out).expanduser() if out is not None else run.path.with_name(f"{run.path.resolve().name}-packed")
    asked = {"steps": steps, "solver": solver, "grid": grid, "guidance": guidance}
    changes = {name: value for name, value in asked.items() if value is not None}
    packed = made(run, target, recommending(run.model_spec, str(run.path), changes))
    size = sum(file.stat().st_size for file in packed.path.rglob("*") if file.is_file())
    console.result(f"{packed.path}: {size / 1e6:.1f} MB", {"out": str(packed.path), "bytes": size})
