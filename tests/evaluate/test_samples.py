"""Samples are kept as they are made, and an interrupted evaluation draws none of them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nirvana.evaluate import samples as module
from nirvana.evaluate.samples import Goal, draw, turns
from nirvana.generate.model import Model, load
from tiny_run import make_run


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(module, "_CHUNK", 8)
    return load(make_run(tmp_path / "pets"))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the numbers of the pictures that are drawn from now on."""
    drawn: list[int] = []
    stream = Model.stream

    def counting(self: Model, request: Any, batches: Any = None) -> Any:
        drawn.extend(i for batch in batches for i in batch)
        return stream(self, request, batches)

    monkeypatch.setattr(Model, "stream", counting)
    return drawn


def test_are_those_of_generate_and_are_drawn_once(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = model.request(steps=2, seed=5, batch=4)
    expected = model.generate(steps=2, seed=5, batch=4, n=21).array
    drawn = counted(monkeypatch)
    found = draw(model, request, Goal(21), tmp_path / "s")
    np.testing.assert_array_equal(np.concatenate(list(found.chunks())), expected)
    assert (len(found), found.request.n, drawn) == (21, 21, list(range(21)))
    again = draw(model, request, Goal(13), tmp_path / "s")
    np.testing.assert_array_equal(np.concatenate(list(again.chunks())), expected[:13])
    assert len(drawn) == 21
    draw(model, request, Goal(24), tmp_path / "s")
    assert drawn[21:] == list(range(16, 24))  # the last chunk was too short


def test_an_interrupted_one_goes_on(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = model.request(steps=2, batch=4)
    expected = model.generate(steps=2, batch=4, n=32).array
    drawn = counted(monkeypatch)

    def interrupting(done: int, _: int) -> None:
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(model, request, Goal(32), tmp_path / "s", interrupting)
    assert drawn == list(range(16))
    second = next((tmp_path / "s").rglob("00000008.npy"))
    second.write_bytes(second.read_bytes()[:-3])
    found = draw(model, request, Goal(32), tmp_path / "s")
    assert drawn[16:] == [*range(8, 16), *range(16, 32)]  # the damaged chunk and the rest
    np.testing.assert_array_equal(np.concatenate(list(found.chunks())), expected)


def test_other_settings_are_other_samples(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = counted(monkeypatch)
    for request in (model.request(steps=2), model.request(steps=3), model.request(steps=2, guidance=1.5)):
        draw(model, request, Goal(8), tmp_path / "s")
    assert len(drawn) == 24
    assert len(list((tmp_path / "s").iterdir())) == 3


def test_a_time_draws_at_least_the_least_and_at_most_the_most(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        now[0] += 10.0
        seen.append((done, total))

    request = model.request(steps=1, batch=8)
    assert len(draw(model, request, Goal(None, 5.0, 24, 80), tmp_path / "a", progress)) == 24
    assert seen[0] == (0, 24) and seen[-1] == (24, 24)
    seen.clear()
    assert len(draw(model, request, Goal(None, 45.0, 8, 80), tmp_path / "b", progress)) == 40
    assert seen[2] == (16, 36)  # 16 in 20 seconds, so 20 more in 25
    assert len(draw(model, request, Goal(None, 1e9, 8, 16), tmp_path / "c", progress)) == 16


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_classes_take_turns_by_their_counts(counts: list[int]) -> None:
    names = [f"c{i}" for i in range(len(counts))]
    found = turns(names, counts)
    assert set(found) <= set(names)
    for end in range(1, len(found) + 1):
        for name, count in zip(names, counts, strict=True):
            assert abs(found[:end].count(name) - end * count / sum(counts)) < len(counts)
    if len(set(counts)) > 1:
        assert [found.count(name) for name in names] == counts


def test_equal_classes_come_once_each_and_none_gives_none() -> None:
    assert turns(("a", "b"), (7, 7)) == ("a", "b")
    assert turns((), ()) == ()
    assert len(turns(("a", "b"), (90_000, 10_000))) == 1000
