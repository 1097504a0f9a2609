"""What the examples cut out of a photograph, the model never sees."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_patch_touches_the_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    edit = example("edit_photo")
    monkeypatch.setattr(edit, "PATCHES", 200)
    mask = edit.hole(96, 128)
    photo = np.full((96, 128, 3), 10, np.uint8)
    photo[mask > 0] = 200
    found = edit.patches(photo, mask)
    assert found.shape == (200, edit.SIDE, edit.SIDE, 3) and (found == 10).all()
    assert 0.03 < (mask > 0).mean() < 0.06 and mask[48, 64] == 255 and not mask[[0, -1]].any()
