"""How the new part of an edit is drawn: what all edits share. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nirvana.generate.changes import ENCODER, Changes
from nirvana.generate.named import taken

if TYPE_CHECKING:
    from nirvana.generate.edits import Draws
    from nirvana.generate.request import SampleRequest


@dataclass(frozen=True)
class Drawing:
    """The values of a request that an edit has as well. What is None is the run's recommendation.

    Where a picture is encoded the solver is `ENCODER` unless it is said.
    """

    label: str | Sequence[str] | None = None
    n: int = 1
    steps: int | None = None
    solver: str | None = None
    guidance: float | None = None
    rule: str = "cfg"
    negative: str | None = None
    grid: str | None = None
    seed: int = 0
    batch: int | None = None
    strict: bool = False

    def request(self, model: Draws, prompt: str | None, edit: Changes) -> SampleRequest:
        """What is asked of `model`. Refused where it cannot do it."""
        said = prompt is not None or bool(self.label)
        to = None if said or edit.end_source == edit.source else edit.end_source
        prompt = prompt if said else edit.source
        return model.request(
            prompt,
            label=self.label or None,
            n=self.n,
            steps=self.steps,
            solver=ENCODER if self.solver is None and edit.encode else self.solver,
            guidance=self._near_the_ends(edit) if said or prompt is not None else self.guidance,
            rule=self.rule,
            negative=self.negative,
            grid=self.grid,
            seed=self.seed,
            batch=self.batch,
            to=to,
            edit=edit,
            strict=self.strict,
        )

    def _near_the_ends(self, edit: Changes) -> float | None:
        """The guidance; of a blend, unless it is said, the one that its pictures are encoded with, to be its ends."""
        unsaid = self.guidance is None and taken("rule", self.rule, "w")[1] is None
        return 1.0 if unsaid and edit.end is not None else self.guidance
