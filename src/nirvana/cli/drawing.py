"""How new content is drawn: the options that all edits share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from nirvana.generate import drawing


@dataclass(frozen=True)
class Drawing(drawing.Drawing):
    """How what is new is drawn, and where it goes; unless you say otherwise, as the run recommends."""

    label: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME[:W][+...]", help_behavior_hint="")] = ()
    """class of what is new, or several with weights; repeat it for some that take turns"""
    n: Annotated[int, arg(aliases=["-n"], metavar="N")] = 1
    """how many variants"""
    steps: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None
    """steps that are really walked (what the run recommends)"""
    solver: Annotated[str | None, arg(metavar="NAME[:KEY=X,...]", help_behavior_hint="")] = None
    """how a step is made (what the run recommends; where a picture is encoded dpmpp-2m)"""
    guidance: Annotated[float | None, arg(metavar="W", help_behavior_hint="")] = None
    """0 ignores the prompt or label, 1 follows it, more exaggerates it (what the run recommends; 0 where nothing is
    said)"""
    rule: Annotated[str, arg(metavar="NAME[:KEY=X,...]")] = "cfg"
    """how guidance is applied: cfg, cfg++, rescale, apg, threshold"""
    negative: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")] = None
    """prompt or class to lead away from"""
    grid: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """where the noise levels lie (what the run recommends)"""
    seed: Annotated[int, arg(metavar="S")] = 0
    """seed of the first variant"""
    batch: Annotated[int | None, arg(metavar="B", help_behavior_hint="")] = None
    """variants computed at once (by their size)"""
    strict: bool = False
    """refuse a prompt that is too long to be read at once"""
    out: Annotated[str, arg(metavar="DIR")] = "edited"
    """folder for the pictures: NAME.png, or NAME-000.png, NAME-001.png, ..."""
    overwrite: bool = False
    """replace pictures that are there, also the one that is edited"""
    no_preview: bool = False
    """show no pictures in the terminal while they are drawn"""
    device: Annotated[str, arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda, cuda:1 or mps"""
