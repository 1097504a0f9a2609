"""Conditioners: what a picture is of, as the named slots a network takes."""

from __future__ import annotations

from nirvana.condition.both import LabelAndTextConditioner
from nirvana.condition.concat import MASKED, PAIRED, Concat, concat_from_config
from nirvana.condition.config import Conditioner, conditioner_from_config
from nirvana.condition.encoder import JointEncoder, TextEncoder, extended_table, joint_config, joint_extended
from nirvana.condition.frozen import MINILM, FrozenEncoder, frozen_from_config, has_minilm
from nirvana.condition.labels import LabelConditioner, NoConditioner
from nirvana.condition.reading import Reading
from nirvana.condition.text import TextConditioner
from nirvana.condition.tokens import BytePairs

__all__ = [
    "MASKED",
    "MINILM",
    "PAIRED",
    "BytePairs",
    "Concat",
    "Conditioner",
    "FrozenEncoder",
    "JointEncoder",
    "LabelAndTextConditioner",
    "LabelConditioner",
    "NoConditioner",
    "Reading",
    "TextConditioner",
    "TextEncoder",
    "concat_from_config",
    "conditioner_from_config",
    "extended_table",
    "frozen_from_config",
    "has_minilm",
    "joint_config",
    "joint_extended",
]
