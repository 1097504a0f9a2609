"""Which sub-folders are labels."""

from __future__ import annotations

import pytest

from nirvana.data.labelling import label
from nirvana.errors import Refused


def test_sub_folders_are_labels_however_deep() -> None:
    found = label(["cat/1.png", "cat/x/y/2.png", "dog/1.png"], "pets")
    assert found.labels == {"cat/1.png": "cat", "cat/x/y/2.png": "cat", "dog/1.png": "dog"}
    assert found.left_out == ()


def test_flat_folders_and_single_sub_folders_have_no_labels() -> None:
    for paths in (
        ["a.png", "b.png"],
        ["images/a.png", "images/b.png"],
        ["x/y/a.png", "x/y/b.png"],
        ["a.png", "x/b.png"],
    ):
        assert label(paths, "s").labels == dict.fromkeys(paths)
    assert label([], "s").labels == {}
    assert label(["x/a.png"], "s").labels == {"x/a.png": None}


def test_folders_above_the_labels_are_passed_through() -> None:
    assert label(["train/cat/1.png", "train/dog/1.png"], "s").labels == {
        "train/cat/1.png": "cat",
        "train/dog/1.png": "dog",
    }
    assert label(["x/cat/1.png", "x/cat/2.png", "x/3.png"], "s").labels == dict.fromkeys(
        ["x/cat/1.png", "x/cat/2.png", "x/3.png"]
    )


def test_a_minority_of_loose_pictures_is_left_out_and_named() -> None:
    found = label(["cat/1.png", "dog/1.png", "cover.png", "back.png"], "s")
    assert found.labels == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert [item["path"] for item in found.left_out] == ["cover.png", "back.png"]
    assert "no label" in found.left_out[0]["reason"]


def test_a_majority_of_loose_pictures_means_no_labels() -> None:
    paths = ["cat/1.png", "dog/1.png", "a.png", "b.png", "c.png"]
    found = label(paths, "s")
    assert found.labels == dict.fromkeys(paths)
    assert found.left_out == ()
    assert len(found.notes) == 1


def test_labels_are_composed_unicode() -> None:
    assert set(label(["cafe\u0301/1.png", "caf\u00e9/2.png", "b/3.png"], "s").labels.values()) == {"caf\u00e9", "b"}


def test_splits_are_no_labels() -> None:
    with pytest.raises(Refused, match=r"holds the splits Test, train.*s/train"):
        label(["train/cat/1.png", "Test/cat/1.png"], "s")
    assert set(label(["train/1.png", "bus/1.png"], "s").labels.values()) == {"train", "bus"}
