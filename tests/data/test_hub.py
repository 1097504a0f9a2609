"""Parquet files and data sets of the hub, read by the real `datasets`; nothing is downloaded."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from nirvana.data import Dataset, hub, open_data
from nirvana.errors import Refused

N = 6


def png(i: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((6, 6, 3), (i, 0, 9), np.uint8)).save(out, "PNG")
    return out.getvalue()


def columns(n: int = N) -> dict[str, list[Any]]:
    return {
        "image": [{"bytes": png(i), "path": f"{i}.png"} for i in range(n)],
        "text": [f"number {i}" for i in range(n)],
        "kind": [i % 2 for i in range(n)],
    }


FEATURES = datasets.Features(
    {"image": datasets.Image(), "text": datasets.Value("string"), "kind": datasets.ClassLabel(names=["even", "odd"])}
)


def opened(source: Path | str, cache: Path, **options: object) -> Dataset:
    return open_data(str(source), cache_dir=cache / "cache", **options)


def test_parquet_in_the_convention_of_the_hub(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    datasets.Dataset.from_dict(columns(), features=FEATURES).to_parquet(path)
    data = opened(path, tmp_path, captions=True)
    assert data.images[:, 0, 0].tolist() == [[i, 0, 9] for i in range(N)]
    assert data.captions == tuple((f"number {i}",) for i in range(N))
    assert data.labels is not None
    assert (data.names, data.labels.tolist()) == (("even", "odd"), [0, 1] * 3)
    assert data.manifest.kind == "table"
    assert data.files([4]) == ["row 4"]
    again = opened(path, tmp_path, progress=lambda *_: pytest.fail("decoded again"))
    assert again.manifest == data.manifest and again.captions == data.captions


def test_plain_structs_lists_of_captions_and_several_files(tmp_path: Path) -> None:
    for part in range(2):
        held = columns(3)
        held["captions"] = [["a", "b", " "], [], [f"part {part}"]]
        held["label"] = ["x", "y", None]
        del held["text"], held["kind"]
        datasets.Dataset.from_dict(held).to_parquet(tmp_path / f"{part}.parquet")
    data = opened(tmp_path / "*.parquet", tmp_path)
    assert data.captions == (("a", "b"), (), ("a", "b"), ())
    assert data.names == ("x", "y")
    assert [item["path"] for item in data.manifest.left_out] == ["row 2", "row 5"]


def test_rows_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    held = columns()
    held["image"][1] = None
    held["image"][2] = {"bytes": b"no picture", "path": None}
    held["kind"][3] = -1
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict(held, features=FEATURES).to_parquet(path)
    data = opened(path, tmp_path)
    assert data.files(range(3)) == ["row 0", "row 4", "row 5"]
    assert data.captions == (("number 0",), ("number 4",), ("number 5",))
    assert [item["path"] for item in data.manifest.left_out] == ["row 3"]


def test_tables_without_pictures_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict({"text": ["a", "b"]}).to_parquet(path)
    with pytest.raises(Refused, match=r"no column of pictures among text; give a table"):
        opened(path, tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Refused, match=r"no parquet that can be read \(.*\); download it again") as refused:
        opened(path, tmp_path)
    assert "\n" not in str(refused.value)


def test_the_hub_is_asked_for_name_config_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    table = datasets.Dataset.from_dict(columns(), features=FEATURES)

    def load(path: str, config: str | None, *, split: str) -> datasets.Dataset:
        asked.append((path, config, split))
        if path == "me/gone":
            raise ConnectionError("no\n such data set")
        return table

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = opened("hf:me/pets", tmp_path)
    assert data.captions is not None and len(data) == N
    assert data.manifest.source == "hf:me/pets"
    opened("hf:me/pets:test", tmp_path)
    opened("hf:me/pets:small:test", tmp_path)
    assert asked == [("me/pets", None, "train"), ("me/pets", None, "test"), ("me/pets", "small", "test")]
    with pytest.raises(Refused, match=r"hf:me/gone: cannot be loaded \(no such data set\); check name"):
        opened("hf:me/gone", tmp_path)
    for odd in ("hf:", "hf:a:b:c:d"):
        with pytest.raises(Refused, match="give hf:NAME"):
            opened(odd, tmp_path)


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict(columns(), features=FEATURES).to_parquet(path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (path, "hf:me/pets"):
        with pytest.raises(Refused, match=r"needs the extra 'hub'; install it with: pip install 'nirvana\[hub\]'"):
            opened(source, tmp_path)


def test_nothing_of_ours_loads_it_before_it_is_needed() -> None:
    assert not hasattr(hub, "datasets")
