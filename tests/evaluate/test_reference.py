from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nirvana import files
from nirvana.data import open_data
from nirvana.evaluate import reference as module
from nirvana.evaluate.frechet import Moments
from nirvana.evaluate.reference import reference_of
from nirvana.evaluate.space import ModuleSpace
from tiny_evaluation import space


def test_statistics_are_those_of_the_pictures_and_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data("digits:test")
    made = reference_of(space(), data, cache=tmp_path)
    batch = Moments.of(space()(data.images))
    assert made.moments.count == len(data)
    np.testing.assert_allclose(made.moments.covariance, batch.covariance, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(made.features, space()(data.images[made.places]))
    assert sorted(made.places) == list(range(len(data))) != list(made.places)
    monkeypatch.setattr(ModuleSpace, "__call__", lambda *_: pytest.fail("computed again"))
    again = reference_of(space(), data, cache=tmp_path)
    np.testing.assert_array_equal(again.features, made.features)
    np.testing.assert_array_equal(again.moments.scatter, made.moments.scatter)
    assert again.moments.count == made.moments.count


def test_other_pictures_another_space_or_a_damaged_entry_are_computed_anew(tmp_path: Path) -> None:
    data = open_data("digits:test")
    made = reference_of(space(), data, cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(entry.read_bytes()[:-5])
    np.testing.assert_array_equal(reference_of(space(), data, cache=tmp_path).features, made.features)
    other = ModuleSpace("coarse", 16, space()._module, side=8, prepare=lambda x: 1 - x / 255, identity="negative")
    assert not np.array_equal(reference_of(other, data, cache=tmp_path).features, made.features)
    reference_of(space(), open_data("digits"), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_memory_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 300)
    monkeypatch.setattr(module, "KEPT", 100)
    seen: list[tuple[int, int]] = []
    made = reference_of(space(), open_data("digits"), lambda *p: seen.append(p), cache=tmp_path)
    assert (made.moments.count, len(made.features), len(made.places)) == (300, 100, 100)
    assert seen[-1] == (300, 300)
    some, others = made.halves(30)
    assert (len(some), len(others)) == (30, 50)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_bytes", full)
    said: list[str] = []
    made = reference_of(space(), open_data("digits:test"), cache=tmp_path, say=said.append)
    assert made.moments.count == 359
    assert "No space left" in said[0] and len(said) == 1
