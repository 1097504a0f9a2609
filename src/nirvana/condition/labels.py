"""Class labels as a vector, learnt jointly with the network; the null class is what guidance compares with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nirvana.diffusion.level import moved
from nirvana.errors import Refused, unknown
from nirvana.files import Json


class LabelConditioner(nn.Module):
    """Class k of K -> row k of a learnt table; row K is the null class, which stands in for a dropped label.

    names: the K class names, in the order of their integer labels. dim: width of the vector. drop: the share of
    labels dropped in training (Ho & Salimans 2022, classifier-free guidance), which the caller draws: it is a pure
    function of (seed, sample index) there, so this module holds no randomness.
    """

    prompts = False
    token_dim = 0
    examples: tuple[str, ...] = ()

    def __init__(self, names: tuple[str, ...], dim: int, drop: float = 0.1) -> None:
        super().__init__()
        if not names or len(set(names)) != len(names):
            raise Refused(f"a label model needs distinct class names, got {list(names)}; name each class once")
        if dim < 1 or not 0.0 <= drop <= 1.0:
            raise Refused(f"a label conditioner needs dim >= 1 and drop in [0, 1], got dim={dim}, drop={drop}")
        self.names = names
        self.dim = dim
        self.drop = drop
        self.embedding = nn.Embedding(len(names) + 1, dim)

    def forward(
        self, labels: Int[Tensor, "b"], drop: Bool[Tensor, "b"] | None = None, texts: Sequence[str] = ()
    ) -> dict[str, Float[Tensor, "b d"]]:
        """{"vector": table[label]}, where `drop` marks the samples that get the null class instead; texts are not read.

        Raises ValueError on a label outside 0..K-1: the null class is reached by `drop` or `null` only.
        """
        del texts
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.names):
            raise ValueError(
                f"labels must be in 0..{len(self.names) - 1}, got {int(labels.min())}..{int(labels.max())}"
            )
        rows = labels if drop is None else torch.where(drop, len(self.names), labels)
        # Labels come on the CPU, where checking them waits for no device.
        return {"vector": self.embedding(moved(rows, self.embedding.weight.device))}

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "b d"]]:
        """The null class for the batch of `cond`: the weak branch of guidance."""
        return {"vector": self.embedding.weight[-1].expand(cond["vector"].shape[0], -1)}

    def dropped(self, coin: Float[Tensor, "b"]) -> Bool[Tensor, "b"]:
        """Which labels are dropped, by a uniform number in [0, 1) for each."""
        return coin < self.drop

    def index(self, name: str) -> int:
        """The integer label of a class name; Refused names the nearest."""
        if name not in self.names:
            raise unknown("label", name, self.names)
        return self.names.index(name)

    def config(self) -> dict[str, Json]:
        """What `conditioner_from_config` rebuilds it from (JSON)."""
        return {"kind": "labels", "names": list(self.names), "dim": self.dim, "drop": self.drop}


class NoConditioner(nn.Module):
    """The conditioner of a model that takes none: no slots, no classes."""

    names: tuple[str, ...] = ()
    prompts = False
    examples: tuple[str, ...] = ()
    dim: int = 0
    token_dim: int = 0
    drop: float = 0.0

    def forward(
        self, labels: Int[Tensor, "b"], drop: Bool[Tensor, "b"] | None = None, texts: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """{}, whatever the labels and texts: data may have some that this model does not use."""
        del labels, drop, texts
        return {}

    def dropped(self, coin: Float[Tensor, "b"]) -> Bool[Tensor, "b"]:
        """None: there is nothing to drop."""
        return torch.zeros_like(coin, dtype=torch.bool)

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{}: strong and weak are the same."""
        del cond
        return {}

    def index(self, name: str) -> int:
        """Refused: there is no class to ask for."""
        raise Refused(f"this model was trained without labels, so it cannot be asked for '{name}'; leave the label out")

    def config(self) -> dict[str, Json]:
        """What `conditioner_from_config` rebuilds it from (JSON)."""
        return {"kind": "none"}
