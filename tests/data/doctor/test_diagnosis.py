"""The check of a source: every planted defect is found, clean data are clean, and training obeys what was decided."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana.data import open_data
from nirvana.data.decisions import read_decisions
from nirvana.data.doctor import Diagnosis, Gravity, diagnose, page
from nirvana.errors import Refused

from .planted import clean, defective, picture


def named(found: Diagnosis) -> dict[str, set[str]]:
    """The pictures of each kind of finding."""
    return {item.kind: {m.name for group in item.groups for m in group if not m.reference} for item in found.findings}


def test_every_planted_defect_is_found_and_nothing_else(tmp_path: Path) -> None:
    planted = defective(tmp_path / "flowers")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = diagnose(str(tmp_path / "flowers"))
    seen = named(found)
    assert "no-caption" in seen and "roses/1.jpg" not in seen.pop("no-caption")
    assert seen == planted
    gone = {kind: planted[kind] for kind in ("corrupt", "truncated", "bomb", "two-labels", "duplicate", "tiny")}
    left_out = {decision.path for decision in found.decisions.pictures if not decision.use}
    assert left_out == set().union(*gone.values(), planted["near-duplicate"])
    reasons = {decision.path: decision.because for decision in found.decisions.pictures}
    assert reasons["roses/same.jpg"] == "the same as roses/1.jpg"
    assert reasons["roses/crop.png"] == "nearly the same as roses/7.jpg"
    assert reasons["tulips/other-label.jpg"] == "the same as roses/3.jpg, labelled roses"
    assert reasons["tulips/empty.png"] == "an empty file"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_clean_data_are_clean(tmp_path: Path) -> None:
    found = diagnose(str(clean(tmp_path / "flowers")), captions=True)
    assert found.findings == ()
    assert found.used == 12
    assert "Nothing was found" in page(found, "nirvana train flowers")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_of_it_gives_the_same(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "flowers"
    defective(root)
    path = tmp_path / f"flowers.{kind}"
    files = sorted(file for file in root.rglob("*") if file.is_file())
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as out:
            for file in files:
                out.write(file, file.relative_to(root))
    else:
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as out:
            for file in files:
                out.add(file, file.relative_to(root))
    folder, archive = diagnose(str(root)), diagnose(str(path))
    assert named(archive) == named(folder)
    assert archive.decisions.digest == folder.decisions.digest


def test_which_of_several_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    picture(0).save(root / "1.jpg", quality=60)
    picture(0).save(root / "2.png")
    (root / "3.jpg").write_bytes((root / "1.jpg").read_bytes())
    picture(1).save(root / "4.png")
    picture(1, 60, 45).save(root / "5.png")
    (root / "5.txt").write_text("said of this one alone")
    found = diagnose(str(root))
    reasons = {d.path: d.because for d in found.decisions.pictures if not d.use}
    assert reasons == {
        "1.jpg": "nearly the same as 2.png",
        "3.jpg": "the same as 2.png",
        "4.png": "nearly the same as 5.png",
    }


def test_classes_of_unequal_size(tmp_path: Path) -> None:
    for i in range(12):
        path = tmp_path / "flowers" / ("many" if i else "few") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(path)
    (item,) = diagnose(str(tmp_path / "flowers")).findings
    assert (item.kind, item.count) == ("imbalance", 11)
    assert item.text == "many has 11 pictures, few 1; smallest: few 1"


def test_leaks_into_a_test_set(tmp_path: Path) -> None:
    train, test = clean(tmp_path / "train"), tmp_path / "test"
    test.mkdir()
    (test / "same.jpg").write_bytes((train / "roses" / "1.jpg").read_bytes())
    with Image.open(train / "tulips" / "4.jpg") as opened:
        opened.resize((80, 60)).save(test / "near.png")
    picture(200).save(test / "new.png")
    found = diagnose(str(train), test=str(test))
    assert named(found) == {"leak": {"roses/1.jpg", "tulips/4.jpg"}}
    assert found.serious[0].about.gravity is Gravity.SERIOUS
    reasons = {d.path: d.because for d in found.decisions.pictures if not d.use}
    assert reasons == {
        "roses/1.jpg": f"the same as same.jpg of the test set {test}",
        "tulips/4.jpg": f"nearly the same as near.png of the test set {test}",
    }
    assert page(found, "").count("data:image/jpeg") == 4
    assert diagnose(str(train), test=str(test), keep=["leak"]).used == 12
    with pytest.raises(Refused, match="fewer than 2 pictures"):
        diagnose(str(train), test=str(train))


def test_built_ins_are_held_against_their_test_part() -> None:
    found = diagnose("digits")
    assert found.test is not None and found.test.source == "digits:test"
    leaks = next(item for item in found.findings if item.kind == "leak")
    assert 0 < leaks.count < 10
    assert diagnose("digits:test").test is None


def test_arrays_with_a_picture_of_nan(tmp_path: Path) -> None:
    values = np.stack([np.asarray(picture(i, 24, 24)) for i in range(6)]).astype(np.float32) / 255
    values[2, 3, 3, 0] = np.nan
    values[4] = values[1]
    path = tmp_path / "a.npz"
    np.savez(path, images=values, labels=np.array([0, 1, 2, 0, 1, 0]))
    found = diagnose(str(path))
    assert named(found) == {"corrupt": {"#2"}, "duplicate": {"#4"}}
    found.decisions.write(tmp_path / "manifest.json")
    decisions = read_decisions(tmp_path)
    data = open_data(str(path), cache_dir=tmp_path / "cache", decisions=decisions)
    assert np.array_equal(data.images, np.round(values[[0, 1, 3, 5]] * 255).astype(np.uint8))
    assert data.labels is not None
    assert (data.labels.tolist(), data.names) == ([0, 1, 0, 0], ("0", "1"))
    assert [item["path"] for item in data.manifest.left_out] == ["#2", "#4"]


def test_a_table_in_parquet(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images = [picture(i) for i in (0, 1, 0)]
    table = datasets.Dataset.from_dict(
        {"image": images, "text": ["a", "b", ""]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    table.to_parquet(tmp_path / "a.parquet")
    found = diagnose(str(tmp_path / "a.parquet"))
    assert named(found) == {"duplicate": {"row 2"}, "empty-caption": {"row 2"}}


def test_the_page_is_whole_and_escapes_names(tmp_path: Path) -> None:
    root = clean(tmp_path / "flowers")
    (root / "roses" / "<b>&.jpg").write_bytes((root / "roses" / "1.jpg").read_bytes())
    text = page(diagnose(str(root)), "nirvana train")
    assert "&lt;b&gt;&amp;.jpg" in text and "<b>&.jpg" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert json.dumps(text)
