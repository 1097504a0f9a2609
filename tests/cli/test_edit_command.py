"""`nirvana inpaint`, `outpaint`, `vary`, `blend` and `translate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny_families
from nirvana import load
from nirvana.cli.main import main
from nirvana.condition import Concat
from nirvana.edit import read_photo
from nirvana.generate import origin
from nirvana.generate.editing import Editing
from nirvana.generate.edits import Edited
from nirvana.modality.png import read_png_metadata
from tiny_run import make_run, spec

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("runs") / "run", spec(concat=Concat("masked", 1))))


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("runs") / "run", spec((), concat=Concat("paired", 3))))


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 10), np.uint8)
    mask[2:5, 3:9] = 255
    for folder in ("photos", "masks"):
        Path(folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (8, 10), dtype=np.uint8)).save(f"photos/{name}.png")
        Image.fromarray(mask).save(f"masks/{name}.png")
    (tmp_path / "photos" / ".tmp-1-c.png").write_bytes(b"half")
    Path("twins").mkdir()
    for name in ("white.png", "twins/a.png", "twins/a.jpg"):
        Image.fromarray(np.full((8, 10), 255, np.uint8)).save(name)


def stopped_at_the_second(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """The batches that are begun; the second is interrupted."""
    own, begun = Editing.run, list[range]()

    def run(self: Editing, *args: Any) -> Any:
        begun.append(args[-1])
        if len(begun) == 2:
            raise KeyboardInterrupt
        return own(self, *args)

    monkeypatch.setattr(Editing, "run", run)
    return begun


def test_inpaint_writes_pictures_with_their_record(run: str, capsys: Captured) -> None:
    assert main(["inpaint", run, "photos/a.png", "masks/a.png", "dog", "-n", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["edited/a-000.png", "edited/a-001.png"]
    before, mask = read_photo("photos/a.png").pixels, read_photo("masks/a.png").pixels
    for i, file in enumerate(said["files"]):
        after = read_photo(file).pixels
        assert np.array_equal(after[mask == 0], before[mask == 0]) and (after[mask > 0] != before[mask > 0]).any()
        told: Any = read_png_metadata(Path(file))
        assert (told["kind"], told["seed"], told["label"]) == ("edit", i, "dog")
        assert told["request"]["edit"]["method"] == "langevin"


def test_a_folder_goes_on_where_it_was_stopped(run: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["inpaint", run, "photos", "masks", "cat", "--out", "filled"]
    begun = stopped_at_the_second(monkeypatch)
    assert main(command) == 130
    first = Path("filled/a.png").read_bytes()
    assert sorted(path.name for path in Path("filled").iterdir()) == ["a.png"]
    assert main(command) == 0
    assert len(begun) == 3 and "1 was there already" in capsys.readouterr().out
    assert sorted(path.name for path in Path("filled").iterdir()) == ["a.png", "b.png"]
    assert Path("filled/a.png").read_bytes() == first
    assert main([*command, "--seed", "1"]) == 2
    assert "filled/a.png is there and was made otherwise (seed 0, now 1); choose" in capsys.readouterr().err
    assert main([*command, "--seed", "1", "--overwrite"]) == 0
    assert Path("filled/a.png").read_bytes() != first


def test_with_overwrite_a_folder_goes_on_too_also_in_place(
    run: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = stopped_at_the_second(monkeypatch)
    for folder in ("varied", "photos"):
        drawn.clear()
        command = ["vary", run, "photos", "cat", "--strength", "0.4", "--out", folder, "--overwrite"]
        Path(folder).mkdir(exist_ok=True)
        Path(folder, ".tmp-9999999-a.png").write_bytes(b"of a process that has ended")
        assert main(command) == 130
        first = Path(folder, "a.png").read_bytes()
        assert main(command) == 0 and "1 picture edited in" in (said := capsys.readouterr().out)
        assert "1 was there already" in said and Path(folder, "a.png").read_bytes() == first
        assert len(drawn) == 3 and not list(Path(folder).glob(".tmp-9999999-*"))
        assert main([*command, "--seed", "1"]) == 0 and "2 pictures edited" in capsys.readouterr().out
        assert Path(folder, "a.png").read_bytes() != first


def test_a_folder_goes_on_on_another_machine_and_not_with_other_weights(
    run: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = ["vary", run, "photos", "cat", "--out", "varied"]
    assert main(command) == 0
    monkeypatch.setattr(origin, "_versions", lambda: {"torch": "0.1"})
    monkeypatch.setattr(origin, "machine", lambda *_: {"threads": 64})
    capsys.readouterr()
    assert main(command) == 0 and "2 were there already" in capsys.readouterr().out
    assert main([*command, "--overwrite"]) == 0 and "2 pictures edited" in capsys.readouterr().out
    older: Any = read_png_metadata(Path("varied/a.png"))
    written = {name: value for name, value in older.items() if name not in ("share", "to", "read")}
    Path("varied/a.png").write_bytes(read_photo("varied/a.png").png(written))
    assert main(command) == 0 and "2 were there already" in capsys.readouterr().out
    other = str(make_run(tmp_path / "other", seed=5))
    assert main(["vary", other, "photos", "cat", "--out", "varied"]) == 2
    assert "varied/a.png is there and was made otherwise (by other weights)" in capsys.readouterr().err
    Path("photos/a.png").write_bytes(Path("photos/b.png").read_bytes())
    assert main(command) == 2
    assert "was made otherwise (of another picture)" in capsys.readouterr().err


def test_what_cannot_be_edited_is_left_out_and_said(run: str, capsys: Captured) -> None:
    for name, size in (("black", (8, 10)), ("small", (5, 5))):
        Image.fromarray(np.zeros((8, 10), np.uint8)).save(f"photos/{name}.png")
        Image.fromarray(np.zeros(size, np.uint8)).save(f"masks/{name}.png")
    Path("photos/folder.png").mkdir()
    Path("photos/gone.png").symlink_to("nowhere.png")
    Path("photos/loop.png").symlink_to("loop.png")
    for name in ("gone", "loop"):
        Image.fromarray(np.zeros((8, 10), np.uint8)).save(f"masks/{name}.png")
    assert main(["inpaint", run, "photos", "masks", "--out", "filled"]) == 2
    said = capsys.readouterr()
    assert "2 pictures edited in filled" in said.out
    for message in (
        "photos/black.png: the mask ",
        "masks/black.png is black everywhere",
        "photos/small.png: masks/small.png is 5x5",
        "photos/gone.png: no such file",
        "photos/loop.png: Too many levels",
    ):
        assert message in said.err, message
    assert "4 of 6 pictures were left out, the first being photos/black.png: " in said.err.splitlines()[-1]
    assert sorted(path.name for path in Path("filled").iterdir()) == ["a.png", "b.png"]
    assert main(["inpaint", run, "photos", "masks", "--method", "learned", "--out", "filled"]) == 2
    assert "left out" not in capsys.readouterr().err  # no picture can have it


def test_the_mask_is_never_overwritten(run: str, capsys: Captured) -> None:
    before = Path("masks/a.png").read_bytes()
    assert main(["inpaint", run, "photos/a.png", "masks/a.png", "--out", "masks", "--overwrite"]) == 2
    assert "masks/a.png is the mask; choose another --out" in capsys.readouterr().err
    Path("photos/a-mask.png").write_bytes(before)
    assert main(["inpaint", run, "photos", "photos/a-mask.png", "cat", "--out", "photos", "--overwrite"]) == 0
    assert Path("photos/a-mask.png").read_bytes() == before and "2 pictures edited" in capsys.readouterr().out
    Path("photos/a-mask.png").unlink()
    assert main(["inpaint", run, "photos", "masks", "--out", "masks", "--overwrite"]) == 2
    assert "masks is a folder that pictures come from" in capsys.readouterr().err
    assert Path("masks/a.png").read_bytes() == before


def test_folders_are_blended_pair_by_pair_and_go_on(run: str, capsys: Captured) -> None:
    Path("others").mkdir()
    for name in ("a", "b"):
        Image.open(f"photos/{name}.png").rotate(180).save(f"others/{name}.png")
    command = ["blend", run, "photos", "others", "-n", "2", "--steps", "2", "--out", "blended"]
    assert main([*command, "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert files == [f"blended/{x}-{x}-{end}.png" for x in "ab" for end in ("000", "001", "grid")]
    Path("blended/b-b-001.png").unlink()
    assert main(command) == 0
    assert "1 blend of 2 pictures made in blended" in (said := capsys.readouterr().out) and "1 was there" in said
    assert main(["blend", run, "photos/a.png", "others", "-n", "2", "--steps", "2", "--out", "fan"]) == 0
    assert {path.name for path in Path("fan").glob("*-000.png")} == {"a-a-000.png", "a-b-000.png"}
    Path("others/b.png").unlink()
    assert main([*command, "--overwrite"]) == 2
    assert "others has no picture to end at for b.png (1 lack one)" in capsys.readouterr().err


def test_a_damaged_picture_of_a_folder_is_left_out_and_said(run: str, capsys: Captured) -> None:
    whole = Path("photos/b.png").read_bytes()
    Path("photos/a.png").write_bytes(Path("photos/a.png").read_bytes()[:60])
    command = ["inpaint", run, "photos", "masks/b.png", "cat", "--out", "filled"]
    assert main(command) == 2
    said = capsys.readouterr()
    assert "1 picture edited in filled" in said.out and "left out: photos/a.png: " in said.err
    assert "1 of 2 pictures were left out, the first being photos/a.png: " in said.err.splitlines()[-1]
    assert [path.name for path in Path("filled").iterdir()] == ["b.png"]
    Path("photos/a.png").write_bytes(whole)
    assert main(command) == 0
    assert sorted(path.name for path in Path("filled").iterdir()) == ["a.png", "b.png"]


def test_the_picture_itself_is_only_overwritten_when_asked(run: str, capsys: Captured) -> None:
    before = Path("photos/a.png").read_bytes()
    command = ["inpaint", run, "photos/a.png", "masks/a.png", "cat", "--out", "photos"]
    assert main(command) == 2
    assert "is the picture that is edited" in capsys.readouterr().err
    assert Path("photos/a.png").read_bytes() == before
    assert main([*command, "--overwrite"]) == 0
    assert Path("photos/a.png").read_bytes() != before


def test_outpaint_and_vary(run: str, capsys: Captured) -> None:
    assert main(["outpaint", run, "photos/a.png", "cat", "--to", "20x9", "--out", "o"]) == 0
    assert read_photo("o/a.png").size == (9, 20)
    assert np.array_equal(read_photo("o/a.png").pixels[:8, 5:15], read_photo("photos/a.png").pixels)
    assert main(["outpaint", run, "photos/a.png", "cat", "--left", "2", "--out", "p"]) == 0
    assert read_photo("p/a.png").size == (8, 12)
    assert main(["vary", run, "photos", "cat", "--strength", "0.4", "--out", "v"]) == 0
    assert read_photo("v/b.png").size == (8, 10)
    assert main(["vary", run, "photos/a.png", "cat", "--encode", "--source", "dog", "--out", "e"]) == 0
    told: Any = read_png_metadata(Path("e/a.png"))
    assert told["request"]["edit"]["encode"] is True and told["request"]["edit"]["source"] == "dog"
    assert "1 picture edited" in capsys.readouterr().out


def test_a_model_that_has_learned_to_inpaint_does_so_by_itself(learned: str, capsys: Captured) -> None:
    for options, method in ([], "learned"), (["--method", "ddnm"], "ddnm"):
        assert main(["inpaint", learned, "photos/a.png", "masks/a.png", "dog", "--out", method, *options]) == 0
        told: Any = read_png_metadata(Path(method, "a.png"))
        assert told["request"]["edit"]["method"] == method
    before, mask = read_photo("photos/a.png").pixels, read_photo("masks/a.png").pixels
    after = read_photo("learned/a.png").pixels
    assert np.array_equal(after[mask == 0], before[mask == 0]) and (after != read_photo("ddnm/a.png").pixels).any()
    assert main(["generate", learned, "--label", "dog", "-n", "1", "--out", "new"]) == 0
    assert main(["info", learned]) == 0
    assert "what is known of a picture" in capsys.readouterr().out


def test_translate_makes_pictures_of_a_folder_and_goes_on(translator: str, capsys: Captured) -> None:
    assert main(["translate", translator, "photos/a.png", "-n", "2", "--out", "one"]) == 0
    assert [read_photo(f"one/a-00{i}.png").size for i in (0, 1)] == [(8, 8)] * 2
    assert main(["translate", translator, "photos", "--out", "all"]) == 0
    first = Path("all/a.png").read_bytes()
    Path("all/b.png").unlink()
    assert main(["translate", translator, "photos", "--out", "all"]) == 0
    assert "1 was there already" in capsys.readouterr().out
    assert Path("all/a.png").read_bytes() == first and Path("all/b.png").is_file()
    assert main(["reproduce", "all/b.png"]) == 0
    assert "byte for byte" in capsys.readouterr().out


def test_blend_goes_from_a_to_b_and_on_where_it_was_stopped(
    run: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["blend", run, "photos/a.png", "photos/b.png", "--source", "cat", "--source", "dog", "--batch", "3"]
    begun = stopped_at_the_second(monkeypatch)
    assert main([*command, "-n", "4", "--animate"]) == 130
    assert sorted(path.name for path in Path("edited").iterdir()) == [f"a-b-00{i}.png" for i in range(3)]
    assert main([*command, "-n", "4", "--animate", "--json"]) == 0
    assert begun[2:] == [range(3, 4)]
    said = json.loads(capsys.readouterr().out)
    pictures = [f"edited/a-b-00{i}.png" for i in range(4)]
    assert said["files"] == [*pictures, "edited/a-b-grid.png", "edited/a-b-animation.webp"]
    told: Any = read_png_metadata(Path(pictures[3]))
    assert told["request"]["to"] == "dog" and told["request"]["edit"]["end_source"] == "dog"
    with Image.open("edited/a-b-animation.webp") as animation:
        assert animation.n_frames == 6  # pyright: ignore[reportAttributeAccessIssue]
    assert main(["reproduce", "edited/a-b-grid.png"]) == 0
    assert "byte for byte" in capsys.readouterr().out
    assert main([*command, "-n", "4"]) == 0 and "1 was there already" in capsys.readouterr().out
    Path("edited/a-b-grid.png").write_bytes(Path("photos/a.png").read_bytes())
    assert main([*command, "-n", "4"]) == 2
    assert "a-b-grid.png is there and was made otherwise" in capsys.readouterr().err
    assert main([*command, "-n", "4", "--overwrite"]) == 0
    assert len(read_png_metadata(Path("edited/a-b-grid.png"))) > 1


@pytest.mark.parametrize("options", [["-n", "2"], ["-n", "2", "--overwrite"], []])
def test_results_do_not_lie_among_the_pictures(run: str, options: list[str], capsys: Captured) -> None:
    for folder in ("photos", "masks"):
        assert main(["inpaint", run, "photos", "masks", "--out", folder, *options]) == 2
        assert f"{folder} is a folder that pictures come from" in capsys.readouterr().err
        assert len(list(Path(folder).glob("*.png"))) == 2 + (folder == "photos")
    assert main(["vary", run, "photos", "--out", "photos", "--overwrite"]) == 0
    Image.fromarray(np.zeros((8, 10), np.uint8)).save("photos/c.jpg")
    assert main(["vary", run, "photos", "--out", "photos", "--overwrite"]) == 2
    assert "cannot take the place of photos/c.jpg; choose another --out" in capsys.readouterr().err
    Path("photos/c.jpg").unlink()
    assert main(["outpaint", run, "photos", "--to", "12x9", "--out", "photos", "--overwrite"]) == 2
    assert "that was extended could not be told from one that was not" in capsys.readouterr().err


def test_a_mask_that_is_white_everywhere_is_said(run: str, capsys: Captured) -> None:
    assert main(["inpaint", run, "photos/a.png", "white.png", "--out", "all"]) == 0
    assert "the mask white.png leaves nothing as it was" in capsys.readouterr().err
    assert main(["inpaint", run, "photos/a.png", "masks/a.png", "--out", "part"]) == 0
    assert "leaves nothing" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "call"),
    [
        (["inpaint", "photos/a.png", "masks/a.png", "dog", "--feather", "1", "--guidance", "1.5"], "inpaint"),
        (["outpaint", "photos/a.png", "dog", "--to", "14x9", "--method", "ddnm"], "outpaint"),
        (["vary", "photos/a.png", "dog", "--strength", "0.4", "--solver", "ddpm"], "vary"),
        (["blend", "photos/a.png", "photos/b.png", "dog", "--source", "cat", "-n", "2", "--steps", "2"], "blend"),
    ],
)
def test_python_makes_the_same_files(run: str, args: list[str], call: str, capsys: Captured) -> None:
    assert main([args[0], run, *args[1:], "--json"]) == 0
    file = Path(json.loads(capsys.readouterr().out)["files"][0])
    model, a, b, mask = load(run, device="cpu"), "photos/a.png", Path("photos/b.png"), "masks/a.png"
    calls: dict[str, Callable[[], Edited]] = {
        "inpaint": lambda: model.inpaint(a, mask, "dog", feather=1, guidance=1.5),
        "outpaint": lambda: model.outpaint(a, "dog", to=(14, 9), method="ddnm"),
        "vary": lambda: model.vary(a, "dog", strength=0.4, solver="ddpm"),
        "blend": lambda: model.blend(a, b, "dog", source="cat", n=2, steps=2),
    }
    assert calls[call]().png(0) == file.read_bytes()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["inpaint", "RUN", "photos/a.png", "masks/a.png", "--method", "learned"], "has not learned to inpaint"),
        (["inpaint", "RUN", "photos/a.png", "masks/a.png", "--method", "lerned"], "did you mean 'learned'"),
        (["translate", "RUN", "photos/a.png"], "was not trained on pairs"),
        (["inpaint", "RUN", "photos/none.png", "masks/a.png"], "photos/none.png: no such file"),
        (["inpaint", "RUN", "photos/a.png", "masks"], "name one mask"),
        (["inpaint", "RUN", "photos/a.png", "masks/a.png", "--strength", "0"], "strength must be more than 0"),
        (["inpaint", "RUN", "photos/a.png", "masks/a.png", "--metod", "ddnm"], "did you mean '--method'"),
        (["inpaint", "RUN", "photos/a.png", "masks/a.png", "--guidence", "2"], "did you mean '--guidance'"),
        (["inpaint", "RUN", "photos/a.png", "masks/a.png", "--out", "photos/a.png"], "photos/a.png is a file"),
        (["outpaint", "RUN", "photos/a.png"], "say how far"),
        (["outpaint", "RUN", "photos/a.png", "--to", "5x5"], "larger than 5x5"),
        (["outpaint", "RUN", "photos/a.png", "--to", "10x8"], "the picture is 10x8 already"),
        (["inpaint", "RUN", "photos/a.png", "white.png", "--invert"], "white everywhere"),
        (["vary", "RUN", "twins"], "twins/a.jpg and twins/a.png have one name"),
        (["outpaint", "RUN", "photos/a.png", "--to", "five"], "such as 512x256, got 'five'"),
        (["outpaint", "RUN", "photos/a.png", "--to", "²x5"], "such as 512x256, got '²x5'"),
        (["vary", "RUN", "photos/a.png", "--source", "cat"], "encode the picture"),
        (["vary", "RUN", "empty"], "has no pictures"),
        (["blend", "RUN", "photos/none.png", "photos/b.png"], "photos/none.png: no such file"),
        (["blend", "RUN", "photos/a.png", "broken.png"], "broken.png: "),
        (["blend", "RUN", "empty", "photos/b.png"], "empty has no pictures"),
        (["vary", "RUN", "loop.png"], "loop.png"),
        (["outpaint", "RUN", "photos/a.png", "--to", "60000x60000"], "more than 134217728 pixels"),
        (["outpaint", "RUN", "photos/a.png", "--to", "20x20", "--rule", "cfg++"], "use the method ddnm"),
        (["vary", "RUN", "photos/a.png", "--guidance", "3"], "needs labels, and the request has none"),
        (["blend", "RUN", "photos/a.png", "photos/b.png", "-n", "-1"], "n must be at least 1, got -1"),
        (["blend", "RUN", "photos/a.png", "photos/b.png", "-n", "1"], "needs two pictures or more, got 1"),
        (["blend", "RUN", "photos/a.png", "photos/b.png", "--solver", "ddpm"], "takes a solver without noise"),
        (["blend", "RUN", "photos/a.png", "photos/b.png", "--strength", "1"], "unknown option '--strength'"),
        (["blend", "RUN", "photos/a.png", "photos/b.png", "--source", "bird"], "bird"),
        (["blend", "GAN", "photos/a.png", "photos/b.png"], "is a GAN, which has no pictures to edit"),
    ],
)
def test_bad_requests_are_one_line_and_nothing_is_written(
    run: str, capsys: Captured, args: list[str], message: str
) -> None:
    Path("empty").mkdir()
    Path("loop.png").symlink_to("loop.png")
    Path("broken.png").write_bytes(Path("photos/a.png").read_bytes()[:60])
    if "GAN" in args:
        tiny_families.make_run(Path("gan"), "gan")
    before = sorted(Path().rglob("*"))
    assert main([{"RUN": run, "GAN": "gan"}.get(arg, arg) for arg in args]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    Path("masks/b.png").unlink()
    assert main(["inpaint", run, "photos", "masks"]) == 2
    assert "has no mask for b.png (1 lack one)" in capsys.readouterr().err
