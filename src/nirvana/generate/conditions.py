"""From what is asked for to the slots of the network: each thing is encoded once, whatever the number of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nirvana.condition import Conditioner
from nirvana.diffusion.denoiser import Cond
from nirvana.generate.asked import Ask


class Conditions:
    """The conditions that `conditioner` makes of asks, kept for the next ones."""

    def __init__(self, conditioner: Conditioner, device: torch.device) -> None:
        self.conditioner = conditioner
        self._device = device
        self._known: dict[Ask, Mapping[str, Tensor]] = {}

    def of(self, columns: Sequence[Sequence[Ask]]) -> list[Cond]:
        """A condition for each column, all of the same shapes: shorter texts are padded by tokens that do not count."""
        self._learn(list(dict.fromkeys(ask for column in columns for ask in column)))
        places = max(
            (len(self._known[ask]["tokens"]) for column in columns for ask in column if "tokens" in self._known[ask]),
            default=0,
        )
        return [self._stacked(column, places) for column in columns]

    def _learn(self, asks: Sequence[Ask]) -> None:
        new = [ask for ask in asks if ask not in self._known]
        if not new:
            return
        conditioner = self.conditioner
        rows = [0 if ask.label is None else conditioner.index(ask.label) for ask in new]
        labels, drop = torch.tensor(rows, device=self._device), None
        if conditioner.names:
            missing = [[ask.label is None, not ask.text.strip()] for ask in new]
            drop = torch.tensor(missing, device=self._device)[:, slice(2) if conditioner.prompts else 0]
        cond = conditioner(labels, drop, [ask.text for ask in new])
        for row, ask in enumerate(new):
            self._known[ask] = {name: value[row] for name, value in cond.items()}

    def _stacked(self, column: Sequence[Ask], places: int) -> Cond:
        rows = [self._known[ask] for ask in column]
        return {name: torch.stack([_padded(name, row[name], places) for row in rows]) for name in rows[0]}


def _padded(name: str, value: Tensor, places: int) -> Tensor:
    if name == "tokens":
        return nn.functional.pad(value, (0, 0, 0, places - len(value)))
    return nn.functional.pad(value, (0, places - len(value))) if name == "tokens_mask" else value
