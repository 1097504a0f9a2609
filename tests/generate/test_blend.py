"""Blends: their ends are their pictures, what lies between is as normal as they are, and the conditions go along."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nirvana.diffusion import DDIM, GaussianDenoiser, RectifiedFlow, SeededNoise, uniform
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.noise import angle_between, spherical
from nirvana.edit import Photo
from nirvana.errors import Refused
from nirvana.generate.asked import asked
from nirvana.generate.beginning import Canvas
from nirvana.generate.changes import UNREAD, Changes, Taken, blending
from nirvana.generate.drawing import Drawing
from nirvana.generate.editing import EditPreview
from nirvana.generate.edits import Edit, Edited, prepare_edit
from nirvana.generate.encoding import Blended, Encoded
from nirvana.generate.model import Model, load
from nirvana.generate.reproduction import reproduce
from nirvana.generate.request import SampleRequest
from tiny_run import NAMES, make_run, spec

RNG = np.random.default_rng(4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_run(tmp_path_factory.mktemp("runs") / "run"), device="cpu")


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of colour pictures without classes."""
    return load(make_run(tmp_path_factory.mktemp("runs") / "run", spec((), channels=3)), device="cpu")


def photo(height: int, width: int, channels: int = 1, deep: bool = False) -> Photo:
    values = RNG.integers(0, 65536 if deep else 256, (height, width, channels))
    return Photo(values.astype(np.uint16 if deep else np.uint8))


def prepared(model: Model, first: Any, last: Any, change: Changes, context: int | None = None, **settings: Any) -> Edit:
    ask = partial(Drawing(**{"n": 3, **settings}).request, model, None)
    return prepare_edit(model, first, end=last, change=change, context=context, ask=ask)


def far(a: Photo, b: Photo) -> float:
    return float(np.abs(a.pixels.astype(float) - b.pixels).mean())


def test_of_a_gaussian_it_is_the_arc_between_the_two() -> None:
    # Its flow is linear: the noise of x0 is x0/std, so the blend of the noises, drawn, is the blend of the pictures.
    oracle = GaussianDenoiser(torch.zeros(1, 2, 4), 0.25 * torch.eye(8))
    a, b = (0.5 * SeededNoise([seed], (1, 2, 4)).initial().expand(3, -1, -1, -1) for seed in (1, 2))
    parts = [0.0, 0.25, 1.0]
    canvas = Canvas(a, torch.zeros(1, 1, 1, 1, dtype=torch.bool), b)
    told = lambda rows: (oracle, {})  # noqa: E731 - two lines would say no more
    errors = list[float]()
    for steps in (40, 80):
        levels = uniform(RectifiedFlow(), steps)
        walk = Blended(canvas, b, (told, told), parts)(oracle, levels, DDIM(), {}, SeededNoise([0] * 3, (1, 2, 4)))
        *_, last = walk
        expected = spherical(a, b, parts, angle_between(a, b))
        errors.append(float((last.x - expected).abs().max()))
    assert errors[1] < 0.05 and errors[0] / errors[1] == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize(
    ("solver", "steps", "bound"), [(DDIM(), (40, 80), 0.06), (SOLVERS["dpmpp-2s"](), (20, 40), 0.02)]
)
def test_beside_a_known_part_the_ends_are_still_the_two(solver: Any, steps: tuple[int, int], bound: float) -> None:
    # Rows are correlated with each other, and the upper one is known: a path of it that is not its own moves the lower.
    oracle = GaussianDenoiser(torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]).kron(torch.eye(2)))
    a = torch.tensor([[[1.2, -0.7], [0.3, 0.4]]]).expand(3, 1, 2, 2)
    b = torch.cat([a[:, :, :1], torch.tensor([-0.8, 1.1]).expand(3, 1, 1, 2)], 2)
    known = torch.tensor([[True, True], [False, False]])[None, None]
    told = lambda rows: (oracle, {})  # noqa: E731
    errors = list[float]()
    for n in steps:
        levels, noise = uniform(RectifiedFlow(), n), SeededNoise([0] * 3, (1, 2, 2))
        blended = Blended(Canvas(a, known, b), b, (told, told), [0.0, 0.5, 1.0])
        *_, last = blended(oracle, levels, solver, {}, noise)
        *_, alone = Encoded(Canvas(b, known), told)(oracle, levels, solver, {}, noise)
        torch.testing.assert_close(alone.x[2], last.x[2], rtol=0, atol=1e-5)
        free = last.x[:, :, 1]
        errors.append(float(torch.stack([free[0] - a[0, :, 1], free[2] - b[2, :, 1]]).abs().max()))
    assert errors[1] < bound and errors[1] < 0.7 * errors[0], errors


def test_the_ends_are_the_two_pictures_at_the_order_of_the_solver(model: Model) -> None:
    first, last = Photo(np.full((8, 8, 1), 110, np.uint8)), Photo(np.full((8, 8, 1), 150, np.uint8))
    settings = {"solver": "ddim", "grid": "uniform", "batch": 3}
    errors = list[float]()
    for steps in (4, 12):
        out = prepared(model, first, last, blending(["cat", "dog"]), steps=steps, **settings).result()
        errors.append(far(out[0], first) + far(out[2], last))
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("width", [8, 14])
def test_a_picture_blended_with_itself_stays(model: Model, width: int) -> None:
    one = photo(8, width)
    out = prepared(model, one, one, blending("cat"), steps=4).result()
    assert max(far(out[0], other) for other in out) <= 1


def test_each_picture_is_encoded_once_under_what_it_shows_and_the_prompts_go_from_the_one_to_the_other(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = prepared(model, photo(8, 8), photo(8, 8), blending(["cat", "dog"]), n=5, steps=4)
    request = edit.request
    assert (request.labels, request.to, request.guidance) == (("cat",), "dog", 1.0)
    assert request.solver == "dpmpp-2m" != model.parts.recommended.solver  # type: ignore[union-attr]
    assert request.way and request.seed_of(3) == request.seed
    middle = {ask.label: weight for ask, weight in asked(request, 1, NAMES, prompts=False)}
    assert middle == {"cat": 0.75, "dog": 0.25}
    rows = list[int]()
    net = model.diffusion("ema", "pictures").parts.denoiser.net
    hook = net.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    try:
        events = [event for event in edit.run() if isinstance(event, EditPreview)]
    finally:
        hook.remove()
    # Three steps of each encoding and one to begin it, of one picture; then four of five, between two conditions.
    assert rows[:8] == [1] * 8 and len(rows) == 12 and min(rows[8:]) >= 5
    assert [event.drawing.step for event in events] == list(range(1, 11)) and edit.steps() == 10
    assert all(event.pictures.shape == (5, 8, 8, 1) for event in events)
    swapped = prepared(model, photo(8, 8), photo(8, 8), blending(["dog", "cat"]), n=5, steps=4)
    assert (swapped.request.labels, swapped.request.to) == (("dog",), "cat")


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        ((), {}, ((), None, 0.0, (None, None))),
        ("cat", {}, (("cat",), None, 1.0, ("cat", "cat"))),
        (("cat", "cat"), {}, (("cat",), None, 1.0, ("cat", "cat"))),
        (("cat", "dog"), {"label": "otter"}, (("otter",), None, 1.0, ("cat", "dog"))),
        (("cat", "dog"), {"guidance": 3.0}, (("cat",), "dog", 3.0, ("cat", "dog"))),
        ((), {"label": "dog", "rule": "apg:w=2"}, (("dog",), None, 2.0, (None, None))),
    ],
)
def test_what_is_drawn_is_what_is_said_or_else_what_the_pictures_are_encoded_under(
    model: Model, source: Any, settings: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    request = prepared(model, photo(8, 8), photo(8, 8), blending(source), **settings).request
    assert request.edit is not None
    assert (request.labels, request.to, request.guidance, request.edit.sources) == expected


def test_larger_pictures_are_blended_window_by_window_and_keep_what_they_are(flat: Model) -> None:
    first, last = photo(8, 14), photo(8, 14, 3, deep=True)
    last = replace(last, alpha=np.full((8, 14), 13107, np.uint16))
    edit = prepared(flat, first, last, blending(), context=2, n=3, batch=2)
    out = edit.result()
    assert len(edit.editing.order) == 2 and len(out) == 3
    for i, alpha in enumerate((65535, 39321, 13107)):
        assert out[i].size == (8, 14) and out[i].pixels.dtype == np.uint16 and out[i].pixels.shape[2] == 3
        assert out[i].alpha is not None and (out[i].alpha == alpha).all()
    events = [event for event in edit.run([range(2)]) if isinstance(event, EditPreview)]
    whole = events[-1].pictures
    assert np.array_equal(whole.astype(np.uint16) * 257, np.stack([one.pixels for one in out.photos[:2]]))
    # What a window knows is what the one before it drew, though its picture is another.
    begun = [event for event in events if event.drawing.step == 1][1]
    assert np.array_equal(begun.before[:, :, :8], whole[:, :, :8])


def test_in_any_batch_it_is_the_same(flat: Model) -> None:
    first, last = photo(8, 8, 3), photo(8, 8, 3)
    whole, by_one = (prepared(flat, first, last, blending(), n=3, batch=b).result() for b in (3, 1))
    assert max(far(a, b) for a, b in zip(whole, by_one, strict=True)) < 0.1


def test_its_record_is_read_again_and_pictures_and_grid_are_reproduced(model: Model, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(photo(8, 8).pixels[..., 0]).save(tmp_path / f"{name}.png")
    edit = prepared(model, tmp_path / "a.png", tmp_path / "b.png", blending(["cat", "dog"]), n=3, batch=2)
    change = edit.request.edit
    assert change is not None and change.end is not None and change.end.path == str(tmp_path / "b.png")
    assert change.end.sha256 != change.picture.sha256
    assert SampleRequest.from_json(edit.request.to_json()) == edit.request
    out: Edited = edit.result()
    files = out.save(tmp_path / "out")
    assert [file.name for file in files] == ["000.png", "001.png", "002.png", "grid.png"]
    with Image.open(files[-1]) as grid:
        assert grid.width > 3 * 64 > grid.height  # one row
    for file in files:
        assert reproduce(file).same_bytes
    Image.fromarray(photo(8, 8).pixels[..., 0]).save(tmp_path / "b.png")
    with pytest.raises(Refused, match=r"b\.png has changed since it was edited"):
        reproduce(files[1])


def test_what_blends_are_not_is_refused(model: Model) -> None:
    a = photo(8, 8)
    with pytest.raises(Refused, match="the way to another picture needs two pictures or more, got 1"):
        prepared(model, a, a, blending(), n=1)
    with pytest.raises(Refused, match="takes a solver without noise"):
        prepared(model, a, a, blending(), solver="ddpm")
    with pytest.raises(Refused, match="bird"):
        prepared(model, a, a, blending("bird")).result()
    with pytest.raises(Refused, match="3 sources were given"):
        blending(["a", "b", "c"])
    with pytest.raises(Refused, match="add --fit"):
        prepared(model, a, photo(9, 8), blending())
    assert prepared(model, a, photo(9, 8), blending(fit=True)).editing.photo.size == (8, 8)
    edit = Changes(Taken("a", "1"), encode=True, end=Taken("b", "2"))
    for values, message in (
        ({"mask": UNREAD}, "leave mask and margins out"),
        ({"left": 2}, "leave mask and margins out"),
        ({"encode": False}, "encode them, at strength 1"),
        ({"strength": 0.5}, "encode them, at strength 1"),
        ({"end": None, "end_source": "cat"}, "no picture to end at"),
    ):
        with pytest.raises(Refused, match=message):
            replace(edit, **values)
    for values, message in (({"to_seed": 4}, "no way to go"), ({"version": 6}, "version 6 has no 'end'")):
        with pytest.raises(Refused, match=message):
            SampleRequest(n=3, edit=edit, **values)
    assert SampleRequest(n=3, edit=edit, labels=("cat",), to="dog").way


def test_a_request_of_version_six_is_read_and_written_as_it_was() -> None:
    plain = SampleRequest(edit=Changes(Taken("a", "1"), strength=0.5))
    old = {**plain.to_json(), "version": 6}
    old["edit"] = {name: value for name, value in old["edit"].items() if not name.startswith("end")}  # type: ignore[union-attr]
    read = SampleRequest.from_json(old)
    assert read.edit == plain.edit and read.to_json() == old
    assert math.isclose(read.edit.strength if read.edit else 0, 0.5)
