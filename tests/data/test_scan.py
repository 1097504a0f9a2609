"""Which files a folder holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nirvana.data.scan import folder, natural, scan


def touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(root: Path) -> list[str]:
    return [file.name for file in scan(root).files]


def test_natural_order() -> None:
    expected = ["1.png", "2.png", "10.png", "a/9", "a2/x1y3", "a2/x1y20", "A10/0", "b", "b0"]
    assert sorted(sorted(expected), key=natural) == expected
    assert sorted(["x01", "x1"], key=natural) == sorted(["x1", "x01"], key=natural)  # a total order
    assert sorted(["٣.png", "²", "12"], key=natural)  # digits of other scripts do not stop it


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2.png", "b/10.png", "a/1.png", "z.png", "c/d/e/5.png"):
        touch(tmp_path / name)
    (tmp_path / "k").symlink_to(tmp_path / "z.png")
    (tmp_path / "j").symlink_to(tmp_path / "b")
    outside = touch(tmp_path.parent / f"{tmp_path.name} outside.png")
    for name in ("m10", "m9", "m11"):  # the first in natural order gives the file its name
        (tmp_path / name).symlink_to(outside)
    expected = ["a/1.png", "b/2.png", "b/10.png", "c/d/e/5.png", "m9", "z.png"]
    assert names(tmp_path) == expected
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: sorted(real(path), key=lambda entry: entry.name, reverse=True))
    assert names(tmp_path) == expected
    monkeypatch.setattr(os, "scandir", lambda path: sorted(real(path), key=lambda entry: entry.name))
    assert names(tmp_path) == expected


def test_hidden_files_and_macosx_are_passed_over(tmp_path: Path) -> None:
    for name in (".hidden.png", ".git/a.png", "__MACOSX/._a.png", "a/__MACOSX/b.png", "a/ok.png"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["a/ok.png"]


def test_symlink_loops_end_and_each_real_file_counts_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    real = touch(root / "m" / "real.png")
    touch(tmp_path / "sibling" / "stranger.png")
    (root / "m" / "self").symlink_to(root / "m")
    (root / "m" / "up").symlink_to(root)
    (root / "m" / "far up").symlink_to(tmp_path)  # holds the sibling, which must not be dragged in
    (root / "a").symlink_to(root / "m")  # sorts before the real folder, which still wins
    (root / "copy.png").symlink_to(real)
    (root / "x").symlink_to(root / "y")
    (root / "y").symlink_to(root / "x")
    found = scan(root)
    assert [file.name for file in found.files] == ["m/real.png"]
    assert sorted(item["path"] for item in found.rejected) == ["x", "y"]


def test_links_to_elsewhere_are_followed_under_their_own_name(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    (root / "cats").symlink_to(tmp_path / "elsewhere")
    (root / "gone.png").symlink_to(tmp_path / "nothing")
    found = scan(root)
    assert [file.name for file in found.files] == ["cats/b.png"]
    assert found.rejected == ({"path": "gone.png", "reason": "a broken link, or gone"},)


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    touch(tmp_path / "ok.png")
    assert names(tmp_path) == ["ok.png"]


def test_run_folders_inside_are_left_out_by_name(tmp_path: Path) -> None:
    touch(tmp_path / "runs" / "demo" / "run.json")
    touch(tmp_path / "runs" / "demo" / "samples" / "000.png")
    touch(tmp_path / "ok.png")
    found = scan(tmp_path)
    assert [file.name for file in found.files] == ["ok.png"]
    assert found.left_out == ({"path": "runs/demo", "reason": "a run of nirvana"},)
    assert "samples/000.png" in names(tmp_path / "runs" / "demo")  # asked for by name


def test_folders_that_cannot_be_listed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "locked" / "a.png")
    touch(tmp_path / "ok.png")
    real = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = scan(tmp_path)
    assert [file.name for file in found.files] == ["ok.png"]
    assert found.rejected == ({"path": "locked", "reason": "folder: no permission to read it"},)


def test_names_that_are_not_utf8_become_writable(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    assert names(tmp_path) == ["caf\\xe9.png"]


def test_fingerprint_shows_every_change(tmp_path: Path) -> None:
    file = touch(tmp_path / "a.png", b"1234")
    other = touch(tmp_path / "b.png")
    seen = [folder(tmp_path).fingerprint]
    assert folder(tmp_path).fingerprint == seen[0]
    os.utime(file, ns=(10**18, 10**18))
    seen.append(folder(tmp_path).fingerprint)
    stat = file.stat()
    file.write_bytes(b"12345")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    seen.append(folder(tmp_path).fingerprint)
    other.chmod(0o600)  # a file may have become readable
    seen.append(folder(tmp_path).fingerprint)
    other.rename(tmp_path / "c.png")
    seen.append(folder(tmp_path).fingerprint)
    (tmp_path / "d.png").symlink_to("nowhere")
    seen.append(folder(tmp_path).fingerprint)
    assert len(set(seen)) == len(seen)
