"""The cache of decoded pictures: reused, checked, rebuilt, never half there."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from nirvana.data import Dataset, cache, open_data, pictures, survey
from nirvana.errors import Refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for label in "ab":
        (path / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path / label / f"{i}.png")
    return path


class Counter:
    """Counts how many files were decoded."""

    def __init__(self) -> None:
        self.decoded = 0

    def open(self, root: Path, **options: object) -> Dataset:
        def progress(done: int, total: int) -> None:
            self.decoded = done

        self.decoded = 0
        return open_data(str(root), cache_dir=root.parent / "cache", progress=progress, **options)


def entry(root: Path) -> Path:
    (found,) = (root.parent / "cache").iterdir()
    return found


def test_an_unchanged_folder_is_neither_decoded_nor_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter()
    first = counter.open(root)
    assert counter.decoded == 6
    monkeypatch.setattr(survey, "read_header", lambda path: pytest.fail("read"))
    second = counter.open(root)
    assert counter.decoded == 0
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    assert np.array_equal(first.images, second.images)
    assert first.manifest == second.manifest
    assert second.labels is not None and second.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_changed_folder_is_decoded_again_and_replaces_its_entry(root: Path) -> None:
    counter = Counter()
    old = counter.open(root)
    before = np.array(old.images)
    Image.new("RGB", (6, 6), (1, 2, 3)).save(root / "a" / "0.png")
    new = counter.open(root)
    assert counter.decoded == 6
    assert (new.images[0] == [1, 2, 3]).all()
    assert np.array_equal(old.images, before)  # a run that has it open keeps it
    assert entry(root).is_dir()


def test_sizes_have_their_own_entries(root: Path) -> None:
    counter = Counter()
    counter.open(root)
    counter.open(root, size=3)
    assert counter.decoded == 6
    counter.open(root)
    assert counter.decoded == 0


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage", ["pixel", "short", "long header", "no images", "no manifest", "no json", "edited", "other type", "a list"]
)
def test_damaged_entries_are_rebuilt(root: Path, damage: str) -> None:
    counter = Counter()
    expected = counter.open(root)
    pixels = np.array(expected.images)
    images, manifest = entry(root) / "images.npy", entry(root) / "manifest.json"
    if damage == "pixel":
        flip_byte(images, -5)
    elif damage == "short":
        os.truncate(images, images.stat().st_size - 7)
    elif damage == "long header":
        flip_byte(images, 8)
    elif damage == "no images":
        images.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "no json":
        manifest.write_bytes(manifest.read_bytes()[:-20])
    elif damage == "edited":
        manifest.write_text(manifest.read_text().replace('"label": "b"', '"label": "a"'))
    elif damage == "other type":
        np.save(images, pixels.view(np.int8))
    else:
        manifest.write_text("[1]")
    again = counter.open(root)
    assert counter.decoded == 6, "the damage was not noticed"
    assert np.array_equal(again.images, pixels)
    assert again.manifest == expected.manifest
    counter.open(root)
    assert counter.decoded == 0
    assert not [path for path in (root.parent / "cache").iterdir() if path.name.startswith(".tmp-")]


def test_a_killed_build_leaves_no_entry_and_its_remains_go_when_stale(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(images: np.ndarray) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "pixel_digest", killed)
        patch.setattr(cache.shutil, "rmtree", lambda *_, **__: None)  # as kill -9: nothing is cleaned up
        with pytest.raises(KeyboardInterrupt):
            Counter().open(root)
    (leftover,) = (root.parent / "cache").iterdir()
    assert leftover.name.startswith(".tmp-")
    Counter().open(root)
    assert leftover.exists()  # it may belong to a running process
    os.utime(leftover, (0, 0))
    Counter().open(root, size=2)
    assert not leftover.exists()


def test_two_builders_at_once_agree(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.array(Counter().open(root).images)
    (entry(root) / "manifest.json").write_text("{}")  # both find it damaged
    results: list[Dataset] = []
    threads = [Thread(target=lambda: results.append(Counter().open(root))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result.images, expected) for result in results)
    assert entry(root).is_dir()


def test_the_loser_of_a_race_keeps_the_winners_entry(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, racing = os.rename, True

    def slow(source: Path, target: Path) -> None:
        nonlocal racing
        if racing:
            racing = False
            Counter().open(root)
            marks.append(target.stat().st_ino)
        rename(source, target)

    marks: list[int] = []
    monkeypatch.setattr(os, "rename", slow)
    data = Counter().open(root)
    assert len(data) == 6
    assert entry(root).stat().st_ino == marks[0]


@pytest.mark.parametrize("failing", ["write", "mkdir"])
def test_without_a_cache_the_pictures_are_decoded_for_this_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    cache_dir = root.parent / "cache"
    if failing == "mkdir":
        cache_dir.write_text("a file where the folder should be")
    else:
        place = cache._put_in_place

        def full(work: Path, target: Path, fingerprint: str) -> None:
            if cache_dir in target.parents:
                raise OSError(errno.ENOSPC, "No space left on device")
            place(work, target, fingerprint)

        monkeypatch.setattr(cache, "_put_in_place", full)
    monkeypatch.setattr(tempfile, "tempdir", str(root.parent / "tmp"))
    (root.parent / "tmp").mkdir()
    data = Counter().open(root)
    assert np.array_equal(data.images[5], np.asarray(Image.open(root / "b" / "2.png")))
    assert len(data.notices) == 1 and "cannot be written" in data.notices[0]
    assert list((root.parent / "tmp").iterdir()) == []
    assert data.manifest.notes == ()


def test_no_room_anywhere_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_put_in_place", full)
    with pytest.raises(Refused, match=r"no room.*No space left on device.*XDG_CACHE_HOME"):
        Counter().open(root)
    assert list((root.parent / "cache").iterdir()) == []


def test_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_root() == tmp_path / "nirvana" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.default_root() == tmp_path / "home" / ".cache" / "nirvana" / "data"


def test_entries_are_plain_files(root: Path) -> None:
    data = Counter().open(root)
    assert np.array_equal(np.load(entry(root) / "images.npy", allow_pickle=False), data.images)
    stored = json.loads((entry(root) / "manifest.json").read_text())["manifest"]
    assert stored["digest"] == data.manifest.digest
    assert stored == data.manifest.to_json()
