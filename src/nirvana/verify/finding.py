"""What a proof found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from nirvana.files import Json


@dataclass(frozen=True)
class Finding:
    """One thing that was proven, or was not.

    proof: which one; subject: the solver (or parameterization, rule, grid) it is about; setting: schedule, and where it
    matters the spacing of the levels; declared, measured: an order or another number, None where there is none;
    calls: of the network, None where nothing was counted; detail: one line of what was seen.
    """

    proof: str
    subject: str
    setting: str
    passed: bool
    detail: str
    declared: float | None = None
    measured: float | None = None
    calls: int | None = None

    @property
    def schedule(self) -> str:
        """The first word of the setting."""
        return self.setting.partition(" ")[0]

    @property
    def verdict(self) -> str:
        """pass or FAIL."""
        return "pass" if self.passed else "FAIL"

    def to_json(self) -> dict[str, Json]:
        """All fields; a number that is not finite becomes null."""
        fields: dict[str, Json] = asdict(self)
        for name in ("declared", "measured"):
            value = getattr(self, name)
            fields[name] = None if value is None or not math.isfinite(value) else value
        return fields
