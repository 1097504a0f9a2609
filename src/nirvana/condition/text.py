"""Texts as token states for cross-attention, and a pooled vector beside the noise level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nirvana.condition.encoder import TextEncoder
from nirvana.condition.reading import Reading
from nirvana.errors import Refused
from nirvana.files import Json


class TextConditioner(nn.Module):
    """A text -> the states of its tokens, and W norm(their mean) as a vector. The empty text is the null condition.

    Null: no token counts, and a learnt vector. dim: width of the vector. drop: the share of captions dropped in
    training (Ho & Salimans 2022), which the caller draws. examples: captions that pictures are made of where nobody
    says of what. The weights of an encoder that is not trained jointly are no part of this module.
    """

    names: tuple[str, ...] = ()
    prompts = True

    def __init__(self, encoder: TextEncoder, dim: int, drop: float = 0.1, examples: tuple[str, ...] = ()) -> None:
        super().__init__()
        if dim < 1 or not 0.0 <= drop <= 1.0:
            raise Refused(f"a text conditioner needs dim >= 1 and drop in [0, 1], got dim={dim}, drop={drop}")
        self.encoder = encoder
        self.dim = dim
        self.token_dim = encoder.width
        self.drop = drop
        self.examples = examples
        self.norm = nn.LayerNorm(encoder.width)
        self.vector = nn.Linear(encoder.width, dim)
        self.nothing = nn.Parameter(torch.zeros(dim))

    def forward(
        self,
        labels: Int[Tensor, "b"] | None = None,
        drop: Bool[Tensor, "b"] | None = None,
        texts: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """{"vector": (b, dim), "tokens": (b, l, w), "tokens_mask": (b, l)} of the texts; those of `drop` get the null.

        Equal texts are encoded once. Without texts there are as many empty ones as labels. l is the longest of them in
        training, and else at least `places`: an exported network takes one length.
        """
        texts = texts or ("",) * (0 if labels is None else len(labels))
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        states, mask = self.encoder(list(distinct))
        if not self.training:
            more = max(self.places - states.shape[1], 0)
            states, mask = nn.functional.pad(states, (0, 0, 0, more)), nn.functional.pad(mask, (0, more))
        device = self.nothing.device
        states, mask = states.to(device), mask.to(device)
        shares = mask.to(states.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
        pooled = self.vector(self.norm((states * shares[..., None]).sum(1)))
        empty = torch.tensor([not text.strip() for text in distinct], device=device)
        rows = torch.tensor([distinct[text] for text in texts], device=device)
        states, mask, pooled, null = states[rows], mask[rows], pooled[rows], empty[rows]
        if drop is not None:
            null = null | drop.to(device)
        return {
            "vector": torch.where(null[:, None], self.nothing.to(pooled.dtype), pooled),
            "tokens": states,
            "tokens_mask": mask & ~null[:, None],
        }

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The null condition for the batch of `cond`, of its shapes: the weak branch of guidance."""
        return {
            "vector": self.nothing.expand(cond["vector"].shape[0], -1),
            "tokens": torch.zeros_like(cond["tokens"]),
            "tokens_mask": torch.zeros_like(cond["tokens_mask"]),
        }

    def dropped(self, coin: Float[Tensor, "b"]) -> Bool[Tensor, "b"]:
        """Which captions are dropped, by a uniform number in [0, 1) for each."""
        return coin < self.drop

    @property
    def places(self) -> int:
        """Token states of a text that is not longer than those of the training."""
        return self.encoder.places

    def index(self, name: str) -> int:
        """Refused: there is no class to ask for."""
        raise Refused(f"this model takes prompts, not labels; give '{name}' as a prompt")

    def read(self, text: str) -> Reading:
        """How the encoder reads a text."""
        return self.encoder.read(text)

    def config(self) -> dict[str, Json]:
        """What `conditioner_from_config` rebuilds it from (JSON)."""
        return {
            "kind": "text",
            "encoder": self.encoder.config(),
            "dim": self.dim,
            "drop": self.drop,
            "examples": list(self.examples),
        }
