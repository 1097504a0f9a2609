"""`nirvana prompt`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Console
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.asked import prompts_in

if TYPE_CHECKING:
    from nirvana.condition import Reading


def prompt(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    text: Annotated[Positional[str], arg(metavar="PROMPT")],
    *,
    strict: bool = False,
) -> None:
    """Show how a model reads a prompt: the tokens it keeps, drops, and does not know.

    examples:
      nirvana prompt runs/shapes "a red circle above a blue square"
      nirvana prompt runs/shapes "a red circle:1.5 + a blue square:0.5" --json

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        text: the prompt, as for `nirvana generate`
        strict: refuse a prompt that is too long to be read at once
    """
    from nirvana.generate.model import load

    sampler = load(model, device="cpu").sampler()
    parts = prompts_in(text)
    request = sampler.request(text, strict=strict)
    readings = sampler.readings(request)
    if not readings:
        raise Refused(f"{model} takes labels, not prompts; see `nirvana info {model}`")
    blocks = [_shown(reading, weight) for reading, (_, weight) in zip(readings, parts, strict=True)]
    values: list[Json] = [
        {"text": reading.text, "weight": weight, "pieces": list(reading.tokens), **reading.to_json()}
        for reading, (_, weight) in zip(readings, parts, strict=True)
    ]
    console.result("\n\n".join(blocks), {"prompts": values})


def _shown(reading: Reading, weight: float) -> str:
    """The prompt, its tokens line by line with what becomes of them, and what deserves to be said."""
    lines = [f"{reading.text!r}" + (f", weight {weight:g}" if weight != 1 else "")]
    for number, (token, unknown) in enumerate(zip(reading.tokens, reading.unknown, strict=True)):
        piece = f"piece {number // reading.window + 1}" if reading.chunks > 1 else ""
        fate = "dropped" if number >= reading.kept else "unknown" if unknown else "kept"
        lines.append(f"  {number + 1:>4}  {token!r:<20} {fate:<8}{piece}".rstrip())
    lines.append(f"{reading.kept} of {len(reading.tokens)} tokens kept; {reading.window} are read at once")
    said = reading.sentence()
    return "\n".join([*lines, *([said] if said else [])])
