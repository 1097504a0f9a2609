"""Folders of pictures, from files to a data set."""

from __future__ import annotations

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from nirvana.data import Dataset, open_data, parallel
from nirvana.errors import Refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pets"


def save(path: Path, colour: int | tuple[int, int, int] = 0, size: tuple[int, int] = (8, 8), kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path, kind)
    return path


def spoil(root: Path, count: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (root / f"bad{i}.jpg").write_bytes(b"\xff\xd8\xff garbage")


def opened(root: Path, **options: object) -> Dataset:
    return open_data(str(root), cache_dir=root.parent / "cache", **options)


def test_pictures_labels_names_and_files_agree(root: Path) -> None:
    for i, name in enumerate(["dog/10.png", "dog/9.PNG", "ant/x.png", "cat/deep/1.png"]):
        save(root / name, (10 * i, i, 0))
    data = opened(root)
    assert data.names == ("ant", "cat", "dog")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 2]
    assert data.files(range(4)) == ["ant/x.png", "cat/deep/1.png", "dog/9.PNG", "dog/10.png"]
    assert data.images[:, 0, 0].tolist() == [[20, 2, 0], [30, 3, 0], [10, 1, 0], [0, 0, 0]]
    assert data.manifest.counts == (1, 1, 2)
    entry = data.manifest.files[0]
    assert entry == {
        "path": "ant/x.png",
        "label": "ant",
        "sha256": hashlib.sha256((root / "ant/x.png").read_bytes()).hexdigest(),
    }


def test_content_decides_not_the_name(root: Path) -> None:
    save(root / "a.jpg", 1)  # a PNG
    save(root / "B.JPEG", 2, kind="JPEG")
    save(root / "no extension", 3)
    save(root / "c.txt", 4)
    (root / "notes.txt").write_text("P5 is a nice name for a picture")
    (root / "list.csv").write_text("BM,1,2")
    (root / "empty.md").touch()
    (root / "empty.png").touch()
    (root / "text.png").write_text("hello")
    data = opened(root)
    assert data.files(range(len(data))) == ["a.jpg", "B.JPEG", "c.txt", "no extension"]
    assert list(data.manifest.rejected) == [
        {"path": "empty.png", "reason": "an empty file"},
        {"path": "text.png", "reason": "no picture in a known format"},
    ]


@pytest.mark.parametrize("colour", [(10, 9, 9), (9, 10, 9), (9, 9, 10)])
def test_channels_are_grey_only_when_every_picture_is(root: Path, colour: tuple[int, int, int]) -> None:
    save(root / "a.png", 7)
    save(root / "b.png", (9, 9, 9))  # grey, stored as colour
    grey = opened(root)
    assert grey.images.shape == (2, 8, 8, 1)
    assert grey.manifest.channels == 1
    assert grey.images[:, 0, 0, 0].tolist() == [7, 9]
    save(root / "c.png", colour)
    mixed = opened(root)
    assert mixed.images.shape == (3, 8, 8, 3)
    assert mixed.images[:, 3, 3].tolist() == [[7] * 3, [9] * 3, list(colour)]


@pytest.mark.parametrize(
    ("sides", "expected"),
    [([(40, 8), (9, 9), (12, 12)], 9), ([(32, 99)] * 2, 32), ([(33, 99)] * 2, 64), ([(5, 5), (9, 9)], 5)],
)
def test_default_size(root: Path, sides: list[tuple[int, int]], expected: int) -> None:
    for i, side in enumerate(sides):
        save(root / f"{i}.png", i, side)
    assert opened(root).images.shape[1:3] == (expected, expected)


def test_asked_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2):
        save(root / f"{i}.png", i * 100, (30, 20))
    data = opened(root, size=5)
    assert data.images.shape == (2, 5, 5, 1)
    assert data.images[1].tolist() == [[[100]] * 5] * 5
    monkeypatch.setattr("nirvana.data.open.MAX_SIZE", 6)
    assert opened(root, size=6).manifest.size == 6
    assert opened(root, size=1).manifest.size == 1


@pytest.mark.parametrize("size", [0, -3, 4097])
def test_size_out_of_range(root: Path, size: int) -> None:
    for source in (str(root), "digits"):
        with pytest.raises(Refused, match=f"size {size}"):
            open_data(source, size=size)


@pytest.mark.parametrize(
    ("good", "bad", "refused"),
    [(39, 10, True), (40, 10, False), (5, 9, False), (36, 9, False), (41, 11, True), (44, 11, False)],
)
def test_a_fifth_and_ten_unreadable_are_refused(root: Path, good: int, bad: int, refused: bool) -> None:
    spoil(root, bad)
    for i in range(good):
        save(root / f"{i}.png", i, (2, 2))
    if refused:
        with pytest.raises(Refused, match=rf"{bad} of {good + bad} .*bad0\.jpg: .*--allow-bad"):
            opened(root)
    data = opened(root, allow_bad=refused)
    assert len(data) == good
    assert len(data.manifest.rejected) == bad
    assert {item["reason"] for item in data.manifest.rejected} == {"no picture in a known format"}


def test_files_that_fail_late_are_named_and_skipped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for i in range(4):
        root.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root / f"{i}.png")
    cut = root / "1.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    real, seen = Path.open, set[str]()

    def guarded(self: Path, mode: str = "r", *rest: Any, **more: Any) -> IO[Any]:
        if self.name == "2.png" and self.name in seen:
            raise PermissionError(13, "Permission denied")
        seen.add(self.name)
        return real(self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", guarded)
    steps: list[tuple[int, int]] = []
    data = opened(root, size=40, progress=lambda done, total: steps.append((done, total)))
    assert data.files(range(len(data))) == ["0.png", "3.png"]
    assert np.array_equal(data.images[1], np.asarray(Image.open(root / "3.png")))
    assert [item["path"] for item in data.manifest.rejected] == ["1.png", "2.png"]
    assert "damaged" in data.manifest.rejected[0]["reason"]
    assert data.manifest.rejected[1]["reason"] == "no permission to read it"
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_bombs_are_rejected_without_a_warning(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    monkeypatch.setattr("nirvana.data.decode.MAX_PIXELS", 500)
    save(root / "a.png", 0)
    save(root / "b.png", 1, (20, 20))  # Pillow warns of it
    save(root / "c.png", 1, (20, 26))
    save(root / "d", 1, (200, 200))  # Pillow refuses it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = opened(root)
    assert data.files(range(len(data))) == ["a.png", "b.png"]
    assert [item["path"] for item in data.manifest.rejected] == ["c.png", "d"]
    assert "more than 500" in data.manifest.rejected[0]["reason"]


def test_loose_pictures_beside_labels_are_left_out_by_name(root: Path) -> None:
    for name in ("a/1.png", "b/1.png", "cover.png"):
        save(root / name)
    data = opened(root)
    assert data.names == ("a", "b")
    assert [item["path"] for item in data.manifest.left_out] == ["cover.png"]
    assert data.manifest.rejected == ()


def test_a_class_without_a_readable_picture_is_no_class(root: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        save(root / name)
    spoil(root / "c", 1)
    assert opened(root).names == ("a", "b")


def test_refusals_say_what_where_and_what_to_do(root: Path) -> None:
    with pytest.raises(Refused, match=r"pets: no such folder"):
        opened(root)
    with pytest.raises(Refused, match=r"no such folder.*did you mean 'fashion-mnist'"):
        open_data("fashion-mnits")
    for odd in ("", "a\0b", "x" * 300, "~nobody-of-that-name/x"):
        with pytest.raises(Refused, match="no such folder"):
            open_data(odd)
    root.mkdir()
    with pytest.raises(Refused, match=r"pets: the folder is empty"):
        opened(root)
    (root / "notes.txt").write_text("hello")
    with pytest.raises(Refused, match=r"pets: no readable picture .*; give a source"):
        opened(root)
    spoil(root, 1)
    with pytest.raises(Refused, match=r"no readable picture \(1 unreadable, first bad0.jpg: "):
        opened(root)
    path = save(root / "one.png")
    with pytest.raises(Refused, match="only one readable picture"):
        opened(root)
    with pytest.raises(Refused, match=r"one\.png: not a folder, archive, array or table; .*pets"):
        open_data(str(path))


def test_digest_changes_with_every_decision_and_not_with_the_place(root: Path, tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        save(root / name, (1, 2, 3), (9, 9))
    digests = [opened(root).manifest.digest]
    assert opened(root).manifest.digest == digests[0]
    (tmp_path / "elsewhere").mkdir()
    root = root.rename(tmp_path / "elsewhere" / "animals")
    assert opened(root).manifest.digest == digests[0]
    (root / "b/1.png").rename(root / "a/3.png")  # a label
    save(root / "b/2.png", (1, 2, 3), (9, 9))
    digests.append(opened(root).manifest.digest)
    with open(root / "a/1.png", "ab") as file:  # a byte that changes no pixel
        file.write(b"\0")
    digests.append(opened(root).manifest.digest)
    save(root / "a/1.png", (1, 2, 4), (9, 9))
    digests.append(opened(root).manifest.digest)
    (root / "b").rename(root / "c")
    digests.append(opened(root).manifest.digest)
    digests.append(opened(root, size=7).manifest.digest)
    spoil(root, 1)
    digests.append(opened(root).manifest.digest)
    assert len(set(digests)) == len(digests)


def test_built_in_names_win_and_a_path_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("digits/a.png", "digits/b.png", "x:test/a.png", "x:test/b.png"):
        save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    assert open_data("digits", cache_dir=cache).manifest.kind == "embedded"
    assert open_data("./digits", cache_dir=cache).manifest.kind == "folder"
    assert open_data(str(tmp_path / "digits"), cache_dir=cache).manifest.source == str(tmp_path / "digits")
    assert open_data("x:test", cache_dir=cache).manifest.kind == "folder"


def test_decoding_uses_the_processors_of_the_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(root / "a.png")
    save(root / "b.png")
    pools: list[int] = []
    of_python = parallel.ThreadPoolExecutor

    def pool(workers: int) -> ThreadPoolExecutor:
        pools.append(workers)
        return of_python(workers)

    monkeypatch.setattr(parallel, "ThreadPoolExecutor", pool)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for processors, expected in ((3, 3), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid, n=processors: set(range(n)), raising=False)
        opened(root, size=4 + processors)
        assert pools.pop() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for side, (asked, expected) in enumerate((("", 4), ("3", 3), ("9", 4), ("0", 4), ("2,1", 4)), start=4):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        opened(root, size=100 + side)
        assert pools.pop() == expected
