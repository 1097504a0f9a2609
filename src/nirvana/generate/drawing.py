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

    def request(self, model: Draws, prompt: str | None, edit: Changes) -> SampleRequest:
        """What is asked of `model`. Refused where it cannot do it."""
        to, guidance = None, self.guidance
        if edit.end is not None:
            prompt, to, guidance = self._along(model, prompt, edit)
        return model.request(
            prompt,
            label=self.label or None,
            n=self.n,
            steps=self.steps,
            solver=ENCODER if self.solver is None and edit.encode else self.solver,
            guidance=guidance,
            rule=self.rule,
            negative=self.negative,
            grid=self.grid,
            seed=self.seed,
            batch=self.batch,
            to=to,
            edit=edit,
        )

    def _along(self, model: Draws, prompt: str | None, edit: Changes) -> tuple[str | None, str | None, float | None]:
        """Prompt, its end, and guidance of a blend: unless it is said, it is drawn as its pictures are encoded.

        Then its ends are these pictures.
        """
        sampler = model.diffusion("ema", "pictures to blend")
        said = prompt is not None or bool(self.label)
        plain = 1.0 if said or edit.source is not None or not sampler.subjects else 0.0
        guided = self.guidance is not None or taken("rule", self.rule, "w")[1] is not None
        guidance = self.guidance if guided else plain
        if said:
            return prompt, None, guidance
        if edit.source is None:
            return ("" if sampler.parts.conditioner.prompts else None), None, guidance
        return edit.source, None if edit.end_source == edit.source else edit.end_source, guidance
