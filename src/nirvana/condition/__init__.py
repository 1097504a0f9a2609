"""Conditioners: what a picture is of, as the named slots a network takes."""

from __future__ import annotations

from nirvana.condition.labels import Conditioner, LabelConditioner, NoConditioner, conditioner_from_config

__all__ = ["Conditioner", "LabelConditioner", "NoConditioner", "conditioner_from_config"]
