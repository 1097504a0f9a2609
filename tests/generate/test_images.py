from __future__ import annotations

import errno
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nirvana import files
from nirvana.errors import Refused
from nirvana.generate import animate
from nirvana.generate.animate import Recorder
from nirvana.generate.images import Images
from nirvana.generate.model import Model, load
from nirvana.generate.reproduction import reproduce
from nirvana.generate.sheet import axis, requests, sheet
from nirvana.modality.image import grid
from nirvana.modality.png import read_png, write_png
from tiny_run import make_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_run(tmp_path_factory.mktemp("images") / "pets"))


@pytest.fixture(scope="module")
def images(model: Model) -> Images:
    return model.generate(n=5, seed=7, batch=2)


def test_images_are_a_sequence_of_pictures(images: Images) -> None:
    assert len(images) == 5
    assert len(images.pil) == 5
    assert images[3].size == (8, 8)
    assert np.array_equal(np.asarray(images[3]), images.array[3, :, :, 0])
    with Image.open(BytesIO(images._repr_png_())) as shown:
        assert shown.size == images.grid().size


def test_the_grid_has_a_labelled_column_for_each_class(images: Images) -> None:
    assert images.grid().tobytes() == grid(images.array, 3, column_labels=("cat", "dog", "otter")).tobytes()


def test_saved_files_say_everything(images: Images, model: Model, tmp_path: Path) -> None:
    paths = images.save(tmp_path / "a" / "out")
    assert [path.name for path in paths] == ["000.png", "001.png", "002.png", "003.png", "004.png", "grid.png"]
    for i in range(5):
        pixels, saved = read_png(paths[i])
        assert np.array_equal(pixels, images.array[i])
        assert (saved["kind"], saved["seed"], saved["index"]) == ("picture", 7 + i, i)
        assert saved["label"] == model.labels[i % 3]
        assert saved["batch"] == [[0, 2], [0, 2], [2, 4], [2, 4], [4, 5]][i]
        assert saved["request"] == images.request.to_json()
        origin: Any = saved["origin"]
        assert origin["path"] == str(model.run.path.resolve())
        assert len(origin["sha256"]) == 64
        assert origin["versions"]["torch"] == torch.__version__
        assert origin["machine"]["threads"] == torch.get_num_threads()
    assert read_png(paths[5])[1]["kind"] == "grid"


def test_saving_into_a_folder_that_exists_keeps_what_else_is_there(images: Images, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    images.save(tmp_path)
    assert (tmp_path / "note.txt").read_text() == "mine"
    assert len(list(tmp_path.glob("*.png"))) == 6
    with pytest.raises(Refused, match="is a file"):
        images.save(tmp_path / "note.txt")
    with pytest.raises(Refused, match=r"note\.txt is a file"):
        images.save(tmp_path / "note.txt" / "deeper")


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_no_half_written_file(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    whole, count = files.write_chunks, iter(range(100))

    def full(path: Path, chunks: Any) -> Any:
        if next(count) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return whole(path, chunks)

    monkeypatch.setattr(files, "write_chunks", full)
    with pytest.raises(Refused, match="no space left on the disk"):
        images.save(out)
    left = sorted(path.name for path in out.iterdir()) if exists else list(tmp_path.iterdir())
    assert left == (["000.png", "001.png"] if exists else [])
    assert all(read_png(path) for path in out.glob("*.png"))


def test_reproduce_gives_the_same_bytes(images: Images, tmp_path: Path) -> None:
    paths = images.save(tmp_path / "out")
    for i in (0, 3, 4, 5):
        made = reproduce(paths[i])
        assert made.data == paths[i].read_bytes()
        assert (made.same_bytes, made.difference, made.changed) == (True, 0, ())
        assert "byte for byte" in made.sentence()


def test_reproduce_runs_the_batch_with_its_threads(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "three.png"
    saved: Any = images.metadata(3)
    saved["origin"]["machine"]["threads"] = 2
    write_png(path, images.array[3], saved)
    threads, seen, stream = [1], [], Model.stream
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)

    def watched(self: Model, *args: Any) -> Any:
        for preview in stream(self, *args):
            seen.append((threads[-1], preview.x.shape))
            yield preview

    monkeypatch.setattr(Model, "stream", watched)
    made = reproduce(path)
    assert set(seen) == {(2, torch.Size([2, 1, 8, 8]))}
    assert threads == [1, 2, 1]
    assert made.same_bytes


def test_reproduce_says_what_differs(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "edited.png"
    changed = images.array[1].copy()
    changed[2, 3, 0] ^= 64
    saved: Any = images.metadata(1)
    saved["origin"]["versions"]["torch"] = "1.0"
    write_png(path, changed, saved)
    made = reproduce(path)
    assert (made.same_bytes, made.difference) == (False, 64)
    assert made.changed == (f"torch 1.0 -> {torch.__version__}",)
    assert "64/255" in made.sentence()
    assert "torch 1.0" in made.sentence()


def test_reproduce_notices_other_weights_a_moved_run_and_a_missing_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "pets", seed=1)
    paths = load(run).generate(n=1).save(tmp_path / "out")
    run.rename(tmp_path / "moved")
    with pytest.raises(Refused, match=r"is not there .*--model"):
        reproduce(paths[0])
    made = reproduce(paths[0], tmp_path / "moved")
    assert made.difference == 0
    make_run(tmp_path / "pets", seed=2)
    with pytest.raises(Refused, match=r"weights of .* have changed"):
        reproduce(paths[0])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"record": 2}, "newer than this nirvana"),
        ({"record": None}, "damaged"),
        ({"kind": "poem"}, "damaged"),
        ({"kind": "sheet"}, "sheet of many requests"),
        ({"origin": {}}, "damaged"),
        ({"index": 5}, "index must be at most 4"),
        ({"index": "0"}, "index must be a whole number"),
        ({"request": {"version": 1}}, "lacks its field"),
    ],
)
def test_reproduce_refuses_damaged_records(images: Images, tmp_path: Path, edit: dict[str, Any], message: str) -> None:
    path = tmp_path / "x.png"
    write_png(path, images.array[0], {**images.metadata(0), **edit})
    with pytest.raises(Refused, match=message):
        reproduce(path)


def test_reproduce_refuses_other_files(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(Refused, match="does not say how it was made"):
        reproduce(tmp_path / "plain.png")
    with pytest.raises(Refused, match="no such file"):
        reproduce(tmp_path / "none.png")


def test_the_animation_goes_from_the_noise_to_the_pictures(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    request = model.request(n=3, batch=2, steps=3)
    recorder = Recorder(request)
    previews = []
    for preview in model.stream(request):
        recorder.add(preview)
        previews.append(preview)
    frames = recorder.frames()
    assert len(frames) == 4
    noise = torch.cat([previews[0].before, previews[3].before])
    first = model.parts.codec.decode(noise).permute(0, 2, 3, 1).numpy()
    assert frames[0].tobytes() == grid(first, 3, column_labels=model.labels).tobytes()
    assert frames[-1].tobytes() == model.gather(request, iter(previews)).grid().tobytes()
    monkeypatch.setattr(animate, "MOST_FRAMES", 2)
    recorder = Recorder(request)
    for preview in previews:
        recorder.add(preview)
    assert [frame.tobytes() for frame in recorder.frames()] == [frames[i].tobytes() for i in (0, 2, 3)]


def test_every_cell_of_a_sheet_is_the_picture_of_its_settings(model: Model, tmp_path: Path) -> None:
    base = model.request(label="dog", seed=3)
    done: list[tuple[int, int]] = []
    made = sheet(model, base, axis("steps=1,2"), axis("guidance=0.5,3"), lambda *d: done.append(d))
    for i, guidance in enumerate((0.5, 3.0)):
        for j, steps in enumerate((1, 2)):
            alone = model.generate(label="dog", seed=3, steps=steps, guidance=guidance, batch=base.batch).array
            assert np.array_equal(made.array[i, j], alone)
    assert done == [(i, 6) for i in range(1, 7)]
    path = made.save(tmp_path / "deep" / "sheet.png")
    pixels, saved = read_png(path)
    labelled = grid(
        made.array[:, :, 0].reshape(4, 8, 8, 1), 2, ["guidance=0.5", "guidance=3.0"], ["steps=1", "steps=2"]
    )
    assert np.array_equal(pixels[:, :, 0], np.asarray(labelled))
    assert saved["x"] == {"field": "steps", "values": [1, 2]}
    assert saved["request"] == base.to_json()


def test_sheets_over_labels_seeds_and_solvers(model: Model) -> None:
    cells = requests(model, model.request(), axis("label=cat,otter"), axis("seed=4,5"))
    assert [[(r.labels, r.seed) for r in row] for row in cells] == [
        [(("cat",), 4), (("otter",), 4)],
        [(("cat",), 5), (("otter",), 5)],
    ]
    assert [r.solver for r in requests(model, model.request(), axis("solver=ddim,ddpm"))[0]] == ["ddim", "ddpm"]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ("stpes=1", None, "did you mean 'steps'"),
        ("steps=", None, "write a field and its values"),
        ("steps", None, "write a field and its values"),
        ("steps=1,,2", None, "write a field and its values"),
        ("steps=1.5", None, "steps takes whole numbers"),
        ("guidance=big", None, "guidance takes numbers"),
        ("steps=0,1", None, "steps must be at least 1"),
        ("guidance=nan", None, "finite"),
        ("label=cat,oter", None, "did you mean 'otter'"),
        ("steps=1", "steps=2", "both axes"),
        ("seed=" + ",".join(map(str, range(100))), "steps=" + ",".join(map(str, range(1, 51))), "more than 4096"),
    ],
)
def test_impossible_sheets_are_refused(model: Model, x: str, y: str | None, message: str) -> None:
    with pytest.raises(Refused, match=message):
        requests(model, model.request(), axis(x), None if y is None else axis(y))
