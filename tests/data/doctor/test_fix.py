"""The cleaned copy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana.data import open_data
from nirvana.data.decode import decode
from nirvana.data.doctor import diagnose, write_fixed
from nirvana.errors import Refused

from .planted import clean, defective, picture, rotated


def test_the_copy_is_clean_and_says_the_same(tmp_path: Path) -> None:
    root, copy = tmp_path / "flowers", tmp_path / "clean"
    defective(root)
    found = diagnose(str(root))
    assert write_fixed(found, copy) == found.used
    again = diagnose(str(copy))
    drops = {item.kind for item in again.findings if item.about.drops}
    assert drops | {"rotated", "wrong-extension"} & {item.kind for item in again.findings} == set()
    assert again.used == found.used
    assert (copy / "roses" / "png.png").read_bytes() == (root / "roses" / "png.jpg").read_bytes()
    assert (copy / "roses" / "1.jpg").read_bytes() == (root / "roses" / "1.jpg").read_bytes()
    said = {p.name.rpartition(".")[0]: (p.label, p.captions) for p in again.subject.pictures}
    used = (p for p, d in zip(found.subject.pictures, found.decisions.pictures, strict=True) if d.use)
    assert said == {p.name.rpartition(".")[0]: (p.label, p.captions) for p in used}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_rotation_is_applied(tmp_path: Path, kind: str) -> None:
    root = clean(tmp_path / "flowers", 2)
    path = root / "roses" / f"turned.{kind.lower()}"
    rotated(path, 300, kind)
    write_fixed(diagnose(str(root)), tmp_path / "clean")
    made = tmp_path / "clean" / "roses" / path.name
    with Image.open(made) as opened:
        assert (opened.size, opened.format, opened.getexif().get(0x0112, 1)) == ((90, 120), kind, 1)
    before, after = (decode(p.read_bytes(), 32).astype(int) for p in (path, made))
    assert np.abs(before - after).max() <= (0 if kind != "JPEG" else 6)


def test_names_that_would_be_one(tmp_path: Path) -> None:
    root = tmp_path / "flowers"
    root.mkdir()
    picture(0).save(root / "a.png")
    picture(1).save(root / "a.jpg", "PNG")
    picture(2).save(root / "v1.5 final", "PNG")
    write_fixed(diagnose(str(root)), tmp_path / "clean")
    assert sorted(p.name for p in (tmp_path / "clean").iterdir()) == ["a-2.png", "a.png", "v1.5 final.png"]


def test_arrays_become_files(tmp_path: Path) -> None:
    values = np.stack([np.asarray(picture(i, 24, 24)) for i in (0, 1, 0)])
    np.savez(tmp_path / "a.npz", images=values, labels=np.array(["x", "y", "x"]), captions=np.array(["p", "q", "r"]))
    write_fixed(diagnose(str(tmp_path / "a.npz")), tmp_path / "clean")
    data = open_data(str(tmp_path / "clean"), cache_dir=tmp_path / "cache")
    assert np.array_equal(data.images, values[:2])
    assert (data.names, data.captions) == (("x", "y"), (("p",), ("q",)))


def test_the_original_is_never_written_to(tmp_path: Path) -> None:
    root = clean(tmp_path / "flowers")
    found = diagnose(str(root))
    (tmp_path / "link").symlink_to(root)
    for place in (root / "clean", root, tmp_path / "link" / "clean"):
        with pytest.raises(Refused, match="never written to"):
            write_fixed(found, place)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(Refused, match="is there already"):
        write_fixed(found, tmp_path / "full")
    assert len([path for path in root.rglob("*") if path.is_file()]) == 24


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = diagnose(str(clean(tmp_path / "flowers")))
    write, done = os.write, []

    def full(handle: int, data: bytes) -> int:
        done.append(1)
        if len(done) > 5:
            raise OSError(28, "No space left on device")
        return write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(Refused, match=r"no space left.*--fix"):
            write_fixed(found, tmp_path / "clean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flowers"]
    leftover = tmp_path / ".tmp-999999999-clean"  # of a process that was killed
    leftover.mkdir()
    assert write_fixed(found, tmp_path / "clean") == 12
    assert not leftover.exists()
