"""`nirvana profile`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Console
from nirvana.errors import Refused

if TYPE_CHECKING:
    from nirvana.recipes.profile import Half, RunProfile
    from nirvana.train.profile import Row, StepProfile

HEAD = ("", "ms", "share", "GFLOP", "GFLOP/s", "MB moved", "GB/s", "calls")
_WIDTHS = (-26, 9, 8, 9, 9, 10, 8, 8)


def profile(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    *,
    batch: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None,
    device: Annotated[str, arg(metavar="NAME")] = "auto",
) -> None:
    """Say where the time of a training step and of a sampling step goes, in about half a minute.

    MODEL is only read; it may be in training (which then takes a part of the machine).

    examples:
      nirvana profile runs/flowers
      nirvana profile runs/flowers --batch 64 --json

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        batch: pictures a step (those of the training's plan; 16 for sampling)
        device: auto, cpu, cuda, cuda:1 or mps
    """
    if batch is not None and batch < 1:
        raise Refused(f"--batch must be at least 1, got {batch}")
    from nirvana.recipes.profile import profile_run

    found = profile_run(model, batch=batch, device=device, say=console.note)
    console.result(text(found), found.to_json())


def text(found: RunProfile) -> str:
    """The measured profile as tables for people, at most 100 columns wide."""
    shape = "x".join(map(str, found.shape))
    threads = f", {found.threads} threads" if found.device == "cpu" else ""
    lines = [f"{found.path}: {found.parameters / 1e6:.1f} million parameters, pictures of {shape}"]
    lines.append(f"on {found.device}{threads}")
    for name, half in (("training", found.training), ("sampling", found.sampling)):
        lines += ["", *([f"no {name} step: {found.missing[name]}"] if half is None else _half(name, half))]
    return "\n".join(lines)


def _half(name: str, half: Half) -> list[str]:
    said = (f"{what:<9}{said}" for what, said in notes(half).items())
    return [title(name, half), _line(HEAD), *(_line(row) for row in rows(half.step)), *said]


def title(name: str, half: Half) -> str:
    """What was measured, and how long it takes."""
    how = f" by {half.how}" if half.how else ""
    precision = str(half.step.dtype).removeprefix("torch.")
    return f"a {name} step of {half.batch} pictures{how}, {precision}: {1e3 * half.step.seconds:.1f} ms"


def rows(step: StepProfile) -> list[tuple[str, ...]]:
    """The table below `HEAD`: the kinds, longest first, and their sum. Empty cells where there is nothing."""
    ordered = sorted(step.rows, key=lambda row: row.seconds, reverse=True)
    return [_cells(row, step.seconds) for row in (*ordered, step.total)]


def _cells(row: Row, whole: float) -> tuple[str, ...]:
    numbers = (
        _short(1e3 * row.seconds),
        f"{row.seconds / whole:.1%}",
        _short(row.flops / 1e9) if row.flops else "",
        _short(row.flops / row.seconds / 1e9) if row.flops and row.seconds else "",
        _short(row.bytes / 1e6) if row.bytes else "",
        _short(row.bytes / row.seconds / 1e9) if row.bytes and row.seconds else "",
    )
    return (row.kind, *numbers, str(row.calls or ""))


def _short(number: float) -> str:
    """Two decimals below 1000 and none above."""
    return f"{number:.{2 if number < 1000 else 0}f}"


def notes(half: Half) -> dict[str, str]:
    """What else was measured, by name."""
    ceiling, own = half.of_ceiling(), half.of_ceiling("convolution")
    step, whole = half.step, f" with {half.steps} steps" if half.steps > 1 else ""
    low, high = (1e3 * seconds for seconds in step.quartiles)
    said = {
        "speed": f"{half.pictures_per_second:.1f} pictures/s{whole}",
        "spread": f"half of {step.timed} steps took {low:.1f} to {high:.1f} ms",
        "ceiling": f"{half.ceiling / 1e9:.0f} GFLOP/s, by a 3x3 convolution of 128 channels, forward and backward",
        "reached": f"{ceiling:.0%} of it by the step, {own:.0%} by its convolutions",
    }
    if half.sizes is not None:
        said["data"] = f"the loop waits {100 * step.waiting:.1f}% of a step for data"
        said["held"] = ", ".join(f"{what} {size / 2**20:.1f} MiB" for what, size in vars(half.sizes).items())
    peak, before = (size / 2**20 for size in (step.memory.peak, step.memory.before))
    return {**said, "memory": f"peak {peak:.0f} MiB, {before:.0f} MiB of it before the first step"}


def _line(values: tuple[str, ...]) -> str:
    """Cells in their columns."""
    return "".join(f"{v:<{-w}}" if w < 0 else f"{v:>{w}}" for v, w in zip(values, _WIDTHS, strict=True)).rstrip()
