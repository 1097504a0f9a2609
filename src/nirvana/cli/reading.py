"""What is said of texts that a model does not read as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nirvana.cli.console import Console

if TYPE_CHECKING:
    from nirvana.condition import Reading

_SHOWN = 60


def note_readings(console: Console, readings: Sequence[Reading]) -> None:
    """Say of each text what deserves to be said, once."""
    for reading in {reading.text: reading for reading in readings}.values():
        said = reading.sentence()
        if said is not None:
            text = reading.text if len(reading.text) <= _SHOWN else f"{reading.text[: _SHOWN - 3]}..."
            console.note(f"the prompt '{text}': {said}")
