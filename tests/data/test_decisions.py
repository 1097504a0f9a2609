"""Training obeys a manifest, and notices where the source has changed since."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana.data import open_data
from nirvana.data.decisions import Decisions, read_decisions, stored
from nirvana.data.doctor import diagnose
from nirvana.errors import Refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "pets"
    path.mkdir()
    for i, seed in enumerate((0, 1, 2, 0)):
        noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path / f"{i}.png")
    return path


def decided(root: Path) -> Decisions:
    diagnose(str(root)).decisions.write(root.parent / "manifest.json")
    return read_decisions(root.parent)


def test_what_is_left_out_is_not_trained_on(root: Path) -> None:
    cache = root.parent / "cache"
    decisions = decided(root)
    everything = open_data(str(root), cache_dir=cache)
    for _ in range(2):  # decoded, then from the cache
        data = open_data(str(root), cache_dir=cache, decisions=decisions)
        assert np.array_equal(data.images, everything.images[:3])
        assert data.manifest.left_out == ({"path": "3.png", "reason": "manifest: the same as 0.png"},)
    assert len(open_data(str(root), cache_dir=cache)) == 4


def test_the_user_has_the_last_word(root: Path) -> None:
    decided(root)
    path = root.parent / "manifest.json"
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "1.png" in line)
    lines[at] = lines[at].replace('"use": true', '"use": false')
    path.write_text("\n".join(lines))
    data = open_data(str(root), cache_dir=root.parent / "cache", decisions=read_decisions(path))
    assert data.files(range(len(data))) == ["0.png", "2.png"]
    assert data.manifest.left_out[0] == {"path": "1.png", "reason": "manifest: not used"}


def test_a_source_that_has_changed_is_refused(root: Path) -> None:
    decisions = decided(root)
    picture = (root / "1.png").read_bytes()
    Image.new("RGB", (16, 16)).save(root / "1.png")
    with pytest.raises(Refused, match=r"1\.png is not the picture that was checked; check the source again"):
        open_data(str(root), cache_dir=root.parent / "cache", decisions=decisions)
    (root / "1.png").write_bytes(picture)
    (root / "new.png").write_bytes(picture)
    with pytest.raises(Refused, match=r"1 pictures are not in the manifest \(first: new\.png\)"):
        open_data(str(root), cache_dir=root.parent / "cache", decisions=decisions)


def test_arrays_and_built_ins_that_have_changed(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    decisions = diagnose(str(tmp_path / "a.npy")).decisions
    np.save(tmp_path / "a.npy", values + 1)
    with pytest.raises(Refused, match="#0 is not the picture that was checked"):
        open_data(str(tmp_path / "a.npy"), cache_dir=tmp_path / "cache", decisions=decisions)
    with pytest.raises(Refused, match="not in the manifest"):
        open_data("digits", decisions=decisions)


def test_built_ins_obey(root: Path) -> None:
    decisions = diagnose("digits:test").decisions
    whole = open_data("digits:test")
    flipped = Decisions(
        decisions.source, tuple(type(d)(d.path, d.sha256, i >= 300) for i, d in enumerate(decisions.pictures))
    )
    data = open_data("digits:test", decisions=flipped)
    assert np.array_equal(data.images, whole.images[300:])
    assert data.labels is not None and whole.labels is not None
    assert data.labels.tolist() == whole.labels[300:].tolist()
    assert (data.manifest.pictures, len(data.manifest.left_out)) == (59, 300)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("{}", "is no manifest of a check"),
        ('{"format_version": 9, "pictures": []}', "update nirvana"),
        ('{"format_version": 1, "source": "a", "pictures": [{"path": "a", "sha256": "", "use": 1}]}', "neither true"),
        ('{"format_version": 1, "source": "a", "pictures": [{"path": "a"}]}', "no manifest"),
        (
            '{"format_version": 1, "source": "a", "pictures": [{"path": "a", "sha256": "", "use": true},'
            ' {"path": "a", "sha256": "", "use": true}]}',
            "twice",
        ),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(Refused, match=message):
        read_decisions(tmp_path)
    with pytest.raises(Refused, match="is missing"):
        read_decisions(tmp_path / "none")


def test_a_run_stores_them(root: Path) -> None:
    decisions = decided(root)
    assert stored({"decisions": decisions.to_json()}) == decisions
    assert stored({}) is None
