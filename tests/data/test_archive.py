"""Zip and tar archives read in place, and shards of them."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana.data import Dataset, archive, open_data
from nirvana.errors import Refused

FILES = [f"pets/{label}/{i}.{ending}" for label in ("cat", "dog") for i in (1, 2, 10) for ending in ("png", "txt")]


def content(name: str) -> bytes:
    if name.endswith("txt"):
        return f"the {name}".encode()
    rng = np.random.default_rng(list(name.encode()))
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (7, 6, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_zip(path: Path, names: list[str] = FILES, kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as out:
        for name in names:
            out.writestr(name, content(name))
    return path


def write_tar(path: Path, names: list[str] = FILES, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as out:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content(name))
            out.addfile(info, io.BytesIO(content(name)))
    return path


def opened(source: Path | str, cache: Path, **options: object) -> Dataset:
    return open_data(str(source), cache_dir=cache / "cache", **options)


@pytest.fixture
def folder(tmp_path: Path) -> Dataset:
    """The same files, unpacked."""
    for name in FILES:
        path = tmp_path / "unpacked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))
    return opened(tmp_path / "unpacked", tmp_path)


@pytest.mark.parametrize("kind", ["deflated", "stored", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_is_the_folder_it_was_made_of(
    tmp_path: Path, folder: Dataset, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled = sorted(FILES, key=lambda name: content(name))
    path = tmp_path / "archive.bin"  # the content tells, not the name
    if kind.startswith("tar"):
        write_tar(path, shuffled, f"w:{kind[4:]}")
    else:
        write_zip(path, shuffled, zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    data = opened(path, tmp_path)
    assert np.array_equal(data.images, folder.images)
    assert data.captions == folder.captions and data.names == folder.names == ("cat", "dog")
    assert data.manifest.files == folder.manifest.files
    assert data.manifest.kind == "archive"
    assert data.files([2]) == ["pets/cat/10.png"]
    assert list(work.iterdir()) == [], "something was unpacked"
    assert opened(path, tmp_path).manifest == data.manifest


def test_an_unchanged_archive_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar.gz", mode="w:gz")
    first = opened(path, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(archive, "_tar", lambda *_: pytest.fail("read"))
        assert opened(path, tmp_path).manifest == first.manifest
    os.utime(path, ns=(10**18, 10**18))
    monkeypatch.setattr(archive, "_tar", lambda *_: pytest.raises(ZeroDivisionError))
    with pytest.raises(AttributeError):
        opened(path, tmp_path)


def test_shards_by_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in (0, 2, 10):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as out:
            for key in ("a", "b"):
                rows = {"png": content(f"{shard}{key}.png"), "txt": f"{key} of {shard}".encode(), "cls": b"%d" % shard}
                for ending, data in rows.items():
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(data)
                    out.addfile(info, io.BytesIO(data))
    data = opened(tmp_path / "train-*.tar", tmp_path)
    assert data.files(range(6)) == [f"train-{n}.tar/{key}.png" for n in (0, 2, 10) for key in "ab"]
    assert data.captions == tuple((f"{key} of {n}",) for n in (0, 2, 10) for key in "ab")
    assert data.names == ("0", "2", "10")
    assert opened(tmp_path / "train-{2..2}.tar", tmp_path).files([0]) == ["a.png"]
    (tmp_path / "train-1.tar").write_bytes((tmp_path / "train-2.tar").read_bytes())
    assert len(opened(tmp_path / "train-{0..2}.tar", tmp_path)) == 6
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match=r"train-3\.tar is missing \(1 of 3 are\)"):
        opened("train-{1..3}.tar", tmp_path)
    with pytest.raises(Refused, match="must rise"):
        opened("train-{3..1}.tar", tmp_path)
    with pytest.raises(Refused, match=r"no such folder"):
        opened("valid-*.tar", tmp_path)


def test_folders_in_shards_are_labels_and_shards_are_not(tmp_path: Path) -> None:
    for shard in (1, 2):
        write_zip(tmp_path / f"{shard}.zip", [f"{label}/{shard}.png" for label in ("x", "y")])
    data = opened(tmp_path / "?.zip", tmp_path)
    assert data.names == ("x", "y")
    assert data.labels is not None and data.labels.tolist() == [0, 1, 0, 1]
    write_zip(tmp_path / "3.zip", ["a.png", "b.png"])
    assert opened(tmp_path / "3.zip", tmp_path).labels is None


def test_a_folder_of_archives_says_how_to_open_them(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for i in range(2):
        write_tar(tmp_path / "shards" / f"{i}.tar")
    with pytest.raises(Refused, match=r"holds no picture but 0\.tar \(and 1 more\); give one of them"):
        opened(tmp_path / "shards", tmp_path)


def test_hidden_members_and_system_folders_are_passed_over(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.png", "b.png", ".c.png", "__MACOSX/a.png", ".git/d.png"])
    assert opened(path, tmp_path).files(range(2)) == ["a.png", "b.png"]
    assert len(opened(path, tmp_path)) == 2


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "a\\..\\..\\x.png", "\\x.png"])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_paths_that_lead_out_are_refused(tmp_path: Path, write: object, name: str) -> None:
    path = (write_zip if write is write_zip else write_tar)(tmp_path / "a", [*FILES, name])
    with pytest.raises(Refused, match=r"leads out of it; pack the pictures again") as refused:
        opened(path, tmp_path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "x.png").exists() and not (tmp_path.parent / "x.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_tars_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = write_tar(tmp_path / "a.tar")
    with tarfile.open(path, "a") as out:
        info = tarfile.TarInfo("odd.png")
        info.type, info.linkname = kind, "pets/cat/1.png"
        out.addfile(info)
    with pytest.raises(Refused, match=r"'odd\.png', which is a link, a device"):
        opened(path, tmp_path)


def test_links_and_encryption_in_zips_are_refused(tmp_path: Path) -> None:
    link = write_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(link, "a") as out:
        info = zipfile.ZipInfo("odd.png")
        info.external_attr = 0o120777 << 16
        out.writestr(info, "/etc/passwd")
    with pytest.raises(Refused, match=r"'odd\.png', which is a link"):
        opened(link, tmp_path)
    locked = write_zip(tmp_path / "b.zip", ["a.png", "b.png"])
    data = bytearray(locked.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 8] |= 1  # the flag of the last entry in the directory
    locked.write_bytes(data)
    with pytest.raises(Refused, match=r"'b\.png', which is encrypted"):
        opened(locked, tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("damage", ["cut", "header"])
def test_corrupt_archives_are_refused(tmp_path: Path, kind: str, damage: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        write_zip(path)
    else:
        write_tar(path, mode=f"w:{kind[4:]}")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        at = {"tar": 1024, "zip": data.rfind(b"PK\x01\x02"), "tar.gz": 4, "tar.xz": 40}[kind]
        data[at : at + 100] = bytes(b ^ 0x55 for b in data[at : at + 100])
        path.write_bytes(data)
    with pytest.raises(Refused, match=r"a corrupt archive .*; copy or download it again") as refused:
        opened(path, tmp_path)
    assert "\n" not in str(refused.value)


def test_a_damaged_member_is_one_unreadable_picture(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["a.png", "b.png", "c.png"], zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"b.png") + 60
    data[at] ^= 1
    path.write_bytes(data)
    found = opened(path, tmp_path)
    assert found.files(range(2)) == ["a.png", "c.png"]
    assert [item["path"] for item in found.manifest.rejected] == ["b.png"]
    assert "CRC" in found.manifest.rejected[0]["reason"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(archive, "BOMB_BYTES", 10**6)
    path = tmp_path / f"a.{kind}"
    zeros = bytes(3 * 10**6)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("a.png", zeros)
    else:
        with tarfile.open(path, "w:gz") as out:
            info = tarfile.TarInfo("a.png")
            info.size = len(zeros)
            out.addfile(info, io.BytesIO(zeros))
    with pytest.raises(Refused, match="a decompression bomb"):
        opened(path, tmp_path)


def test_large_members_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBER", len(content("a.png")) + 1000)
    path = write_zip(tmp_path / "a.zip", ["a.png", "b.png"])
    with zipfile.ZipFile(path, "a") as out:
        out.writestr("c.png", content("a.png") + bytes(2000))
    data = opened(path, tmp_path)
    assert len(data) == 2
    assert data.manifest.rejected[0]["path"] == "c.png" and "larger than" in data.manifest.rejected[0]["reason"]


def test_the_later_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", ["a.png", "b.png"])
    with tarfile.open(path, "a") as out:
        info = tarfile.TarInfo("a.png")
        info.size = len(content("z.png"))
        out.addfile(info, io.BytesIO(content("z.png")))
    data = opened(path, tmp_path, size=6)
    assert data.files(range(2)) == ["a.png", "b.png"] and len(data) == 2
    other = opened(write_tar(tmp_path / "b.tar", ["z.png", "b.png"]), tmp_path, size=6)
    assert np.array_equal(data.images[0], other.images[1])
