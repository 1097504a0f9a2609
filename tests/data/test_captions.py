"""Captions and labels beside the pictures: tables and sidecars."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana.data import Dataset, open_data
from nirvana.data.dataset import caption_digest
from nirvana.errors import Refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "pets"
    for i, name in enumerate(["1.png", "2.png", "10.png"]):
        path.mkdir(exist_ok=True)
        Image.new("RGB", (6, 6), (i, 0, 9)).save(path / name)
    return path


def opened(root: Path, **options: object) -> Dataset:
    return open_data(str(root), cache_dir=root.parent / "cache", **options)


def said(root: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each picture, by its file; read twice, so that the cache is seen to keep them."""
    first, again = opened(root), opened(root)
    assert first.captions == again.captions and first.manifest == again.manifest
    assert first.captions is not None
    assert isinstance(again.images, np.memmap)
    return dict(zip(first.files(range(len(first))), first.captions, strict=True))


def test_sidecars(root: Path) -> None:
    (root / "1.txt").write_text("\ufeffa red cat\n\n  two lines are two captions \n", "utf-8")
    (root / "2.caption").write_text("ein Käfer")
    (root / "10.json").write_text('{"caption": ["a", "b"], "width": 6}')
    (root / "readme.txt").write_text("no picture of that name")
    data = opened(root, captions=True)
    assert said(root) == {
        "1.png": ("a red cat", "two lines are two captions"),
        "2.png": ("ein Käfer",),
        "10.png": ("a", "b"),
    }
    assert data.manifest.captioned == 3
    assert data.manifest.captions == caption_digest(data.captions)
    assert data.manifest.notes == ("1 caption files belong to no picture (first: readme.txt)",)
    assert data.labels is None


def test_texts_that_match_no_picture_are_listed_beside_the_pictures_without_one(root: Path) -> None:
    for name in ("one", "two"):
        (root / f"{name}.txt").write_text("a cat")
    assert opened(root).manifest.notes == (
        "2 caption files belong to no picture (first: one.txt, two.txt), and 3 pictures have no caption (first: 1.png,"
        " 2.png, 10.png): give both the same names",
    )


def test_a_table_in_the_imagefolder_convention(root: Path) -> None:
    rows = [
        {"file_name": "10.png", "text": "ten", "label": "b", "extra": 1},
        {"file_name": "./1.png", "text": "one\u2028line", "label": "a"},
        {"file_name": "2.png", "text": None, "label": "b"},
    ]
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    data = opened(root)
    assert said(root) == {"1.png": ("one\u2028line",), "2.png": (), "10.png": ("ten",)}
    assert data.labels is not None
    assert (data.names, data.labels.tolist()) == (("a", "b"), [0, 1, 1])
    assert data.manifest.captioned == 2
    assert data.manifest.notes == ("1 of 3 pictures have no caption (first: 2.png)",)


def test_a_csv_adds_up_several_rows_of_a_picture_and_sidecars(root: Path) -> None:
    (root / "captions.csv").write_text('image,Caption\n1.png,"a cat, asleep"\n1.png,a pet\n2.png,dog\ngone.png,x\n')
    (root / "1.txt").write_text("a pet\nanother")
    assert said(root) == {"1.png": ("a cat, asleep", "a pet", "another"), "2.png": ("dog",), "10.png": ()}
    assert opened(root).manifest.notes[0] == "1 of 4 rows of captions.csv name no picture (gone.png)"


def test_names_are_relative_to_the_table_and_labels_may_be_folders(root: Path) -> None:
    for label in ("a", "b"):
        (root / label).mkdir()
        Image.new("L", (6, 6), 3).save(root / label / "é.png")  # composed in the name, decomposed in the table
        (root / label / "metadata.csv").write_text(f"file_name,text\ne\u0301.png,in {label}\n", "utf-8")
    for name in ("1.png", "2.png", "10.png"):
        (root / name).unlink()
    data = opened(root)
    assert data.names == ("a", "b")
    assert data.captions == (("in a",), ("in b",))


def test_webdataset_classes_are_labels(root: Path) -> None:
    for name, label in (("1", "7"), ("2", "cat")):
        (root / f"{name}.cls").write_text(label)
    data = opened(root)
    assert data.names == ("7", "cat")
    assert data.manifest.left_out == ({"path": "10.png", "reason": "has no label, and most pictures have one"},)
    (root / "2.cls").unlink()
    data = opened(root)
    assert data.labels is None and len(data) == 3
    assert data.manifest.notes == ("fewer than half of the pictures have a stated label, so these are not used",)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "captions.csv",
            "file,caption\nx.png,a\ny.png,b\n",
            r"captions\.csv names no picture .*x\.png, y\.png, and.*1\.png",
        ),
        ("metadata.jsonl", '{"file_name": "1.png"}\n{"file', r"metadata\.jsonl: line 2 is no JSON"),
        ("metadata.jsonl", "[1]", r"line 1 is no JSON object"),
        ("metadata.csv", "file_name,text\n1.png,a cat, asleep\n", r"row 2 has 3 fields, and the first has 2"),
        ("metadata.csv", 'file_name,text\n1.png,"open', r"no CSV that can be read"),
        ("metadata.csv", "\udcff", r"cannot be read as UTF-8"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(root: Path, name: str, text: str, message: str) -> None:
    (root / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Refused, match=message) as refused:
        opened(root)
    assert "\n" not in str(refused.value)


def test_captions_that_were_asked_for_and_are_not_there(root: Path) -> None:
    with pytest.raises(Refused, match=r"no captions for its 3 pictures \(first: 1\.png\).*1\.txt.*metadata\.jsonl"):
        opened(root, captions=True)
    (root / "metadata.csv").write_text("name,text\n1.png,a\n")
    with pytest.raises(Refused, match=r"metadata\.csv has no column file_name and was not read"):
        opened(root, captions=True)
    (root / "2.txt").write_text("  \n")
    with pytest.raises(Refused, match="no captions"):
        opened(root, captions=True)


def test_sidecars_that_cannot_be_read_are_named(root: Path) -> None:
    (root / "1.txt").write_bytes(b"\xff\xfe\x00")
    (root / "2.json").write_text("{")
    (root / "10.txt").write_text("fine")
    data = opened(root)
    assert data.captions == ((), (), ("fine",))
    assert data.manifest.notes[0].startswith("2 caption files cannot be read (1.txt: damaged")


def test_a_changed_caption_is_another_data_set(root: Path) -> None:
    digests = [opened(root).manifest.digest]
    for text in ("a", "b", "a\nb"):
        (root / "1.txt").write_text(text)
        digests.append(opened(root).manifest.digest)
    assert len(set(digests)) == 4
    (root / "1.txt").rename(root / "2.txt")
    assert opened(root).manifest.digest not in digests
    (root / "2.txt").rename(root / "1.txt")
    assert opened(root).manifest.digest == digests[-1]


def test_a_damaged_caption_in_the_cache_is_noticed(root: Path) -> None:
    (root / "1.txt").write_text("a cat")
    expected = opened(root)
    (entry,) = (root.parent / "cache").iterdir()
    stored = entry / "beside.json"
    for damage in (stored.read_text().replace("cat", "dog"), "{", None):
        if damage is None:
            stored.unlink()
        else:
            stored.write_text(damage)
        assert opened(root).captions == expected.captions
