"""A zoo with one small model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nirvana import zoo
from nirvana.train.pack import pack
from nirvana.train.run import RunFolder
from tiny_run import make_run

SAID = {
    "draws": "noise",
    "size": "8x8",
    "prompt": "cat",
    "needs": None,
    "licence": "CC0-1.0",
    "trained": "1 minute",
}


def plant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model `tiny` in the zoo at `home`, which takes the place of ours."""
    pack(RunFolder.open(make_run(home.parent / "made")), home / "tiny")
    (home / "tiny" / zoo.CARD).write_text(json.dumps(SAID))
    (home / "tiny" / zoo.TEXT).write_text("# tiny\n\nIt draws noise.\n")
    (home / "tiny" / "samples.png").touch()
    monkeypatch.setattr(zoo, "_HERE", home)
