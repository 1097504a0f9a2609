"""A class and a text at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nirvana.condition.labels import LabelConditioner
from nirvana.condition.reading import Reading
from nirvana.condition.text import TextConditioner
from nirvana.errors import Refused
from nirvana.files import Json

_LABEL, _TEXT = 0, 1


class LabelAndTextConditioner(nn.Module):
    """The slots of both; their vectors add up. Each can be missing, and both together are the null condition.

    In training the share `drop` of samples goes without both, and as many each without the label and without the text.
    """

    prompts = True

    def __init__(self, label: LabelConditioner, text: TextConditioner) -> None:
        super().__init__()
        if label.dim != text.dim or label.drop != text.drop or label.drop > 1 / 3:
            raise Refused(
                f"a label and a text need one dim and one drop of at most 1/3, got dims {label.dim} and {text.dim},"
                f" drops {label.drop} and {text.drop}"
            )
        self.label, self.text = label, text
        self.names, self.dim, self.drop = label.names, label.dim, label.drop
        self.token_dim, self.examples = text.token_dim, text.examples

    def forward(
        self,
        labels: Int[Tensor, "b"],
        drop: Bool[Tensor, "b"] | Bool[Tensor, "b 2"] | None = None,
        texts: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """The slots of `TextConditioner`. drop: samples without both, or in two columns without label, without text."""
        columns = None if drop is None else drop if drop.ndim == 2 else drop[:, None].expand(-1, 2)
        cond = self.text(labels, None if columns is None else columns[:, _TEXT], texts)
        vector = self.label(labels, None if columns is None else columns[:, _LABEL])["vector"]
        return {**cond, "vector": cond["vector"] + vector}

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Neither label nor text, for the batch of `cond`."""
        nothing = self.text.null(cond)
        return {**nothing, "vector": nothing["vector"] + self.label.null(cond)["vector"]}

    def dropped(self, coin: Float[Tensor, "b"]) -> Bool[Tensor, "b 2"]:
        """[0, d): both; [d, 2d): the label alone; [2d, 3d): the text alone."""
        third = (coin / self.drop).floor() if self.drop else torch.full_like(coin, 3)
        return torch.stack([(third == 0) | (third == 1), (third == 0) | (third == 2)], dim=1)

    @property
    def places(self) -> int:
        """Token states of a text that is not longer than those of the training."""
        return self.text.places

    def index(self, name: str) -> int:
        """The integer label of a class name; Refused names the nearest."""
        return self.label.index(name)

    def read(self, text: str) -> Reading:
        """How the encoder reads a text."""
        return self.text.read(text)

    def config(self) -> dict[str, Json]:
        """What `conditioner_from_config` rebuilds it from (JSON)."""
        return {"kind": "label+text", "label": self.label.config(), "text": self.text.config()}
