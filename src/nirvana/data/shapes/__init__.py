"""Captioned scenes of simple shapes, without end: the yardstick of prompt-following.

`scene(seed, i)` is scene i, `captions` describes it, `render` draws it, `read` reads a picture back, and `score` says
which of its attributes are right.
"""

from __future__ import annotations

from nirvana.data.shapes.checker import Score, read, score
from nirvana.data.shapes.grammar import captions
from nirvana.data.shapes.render import render, render_all
from nirvana.data.shapes.scene import COLOURS, SHAPES, SIZES, Relation, Scene, Thing, scene
from nirvana.data.shapes.source import Scenes

__all__ = [
    "COLOURS",
    "SHAPES",
    "SIZES",
    "Relation",
    "Scene",
    "Scenes",
    "Score",
    "Thing",
    "captions",
    "read",
    "render",
    "render_all",
    "scene",
    "score",
]
