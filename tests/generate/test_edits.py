"""Edits: what was to stay stays, windows see each other, and strength and encoding are what they say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nirvana.condition import Concat
from nirvana.edit import Photo, read_photo
from nirvana.errors import Refused
from nirvana.generate.changes import Changes, Taken
from nirvana.generate.editing import Editing, EditPreview
from nirvana.generate.edits import Edit, Edited, as_photo, prepare_edit
from nirvana.generate.model import Model, load
from nirvana.generate.reproduction import reproduce
from nirvana.generate.request import SampleRequest
from tiny_run import make_run, spec

UNREAD = Taken(None, "")
RNG = np.random.default_rng(3)


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


def hole(height: int, width: int, *box: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    top, bottom, left, right = box
    mask[top:bottom, left:right] = 255
    return mask


def prepared(
    model: Model, picture: Any, mask: Any, change: Changes, context: int | None = None, **settings: Any
) -> Edit:
    ask = partial(_asked, model, settings)
    return prepare_edit(model, picture, mask, change=change, context=context, ask=ask)


def _asked(model: Model, settings: dict[str, Any], edit: Changes) -> SampleRequest:
    return model.request(**settings, edit=edit)


def edited(model: Model, picture: Photo, mask: np.ndarray | None, change: Changes, **settings: Any) -> Edited:
    return prepared(model, picture, mask, change, **settings).result()


@pytest.mark.parametrize("method", ["langevin:steps=2", "ddnm", "replacement", "repaint:resample=1"])
@pytest.mark.parametrize("deep", [False, True])
def test_outside_of_the_mask_every_pixel_stays_in_edit_after_edit(flat: Model, method: str, deep: bool) -> None:
    first = now = photo(13, 17, 3, deep)
    mask = hole(13, 17, 3, 9, 2, 14)
    for seed in range(3):
        now = edited(flat, now, mask, Changes(UNREAD, UNREAD, method=method, feather=1), seed=seed)[0]
    assert np.array_equal(now.pixels[mask == 0], first.pixels[mask == 0]) and now.pixels.dtype == first.pixels.dtype
    assert (now.pixels[mask > 0] != first.pixels[mask > 0]).any(-1).mean() > 0.8


def test_a_single_pixel_changes_alone(flat: Model) -> None:
    picture, mask = photo(20, 20, 3), hole(20, 20, 5, 6, 7, 8)
    for feather in (0, 3):
        out = edited(flat, picture, mask, Changes(UNREAD, UNREAD, feather=feather))[0]
        changed = (out.pixels != picture.pixels).any(-1)
        assert changed[5, 7] and changed.sum() == 1


def test_a_hole_is_filled_within_the_range_of_the_data_unless_told_otherwise(model: Model) -> None:
    """A network that predicts x0 far out of the range is followed out of it by Langevin steps, but for the default."""
    picture, mask = photo(8, 8), hole(8, 8, 0, 8, 2, 8)

    def farthest(change: Changes, mask: np.ndarray | None, **settings: Any) -> float:
        edit = prepared(model, picture, mask, change, label="cat", guidance=30.0, steps=6, **settings)
        *_, last = (event for event in edit.run() if isinstance(event, EditPreview))
        return float(last.drawing.x.abs().max())

    filled = Changes(UNREAD, UNREAD, method="langevin:steps=2")
    assert farthest(filled, mask, clip=False) > 1.5
    assert farthest(filled, mask) <= 1 and farthest(Changes(UNREAD, left=4, method="ddnm"), None) <= 1
    assert farthest(Changes(UNREAD, strength=0.9), None) > 1.5


def test_a_variant_is_the_same_alone_and_in_any_batch(model: Model) -> None:
    picture, mask = photo(8, 14), hole(8, 14, 0, 8, 3, 14)
    change = Changes(UNREAD, UNREAD, method="langevin:steps=1")
    together = edited(model, picture, mask, change, n=3, label="cat")
    by_two = edited(model, picture, mask, change, n=3, batch=2, label="cat")
    alone = edited(model, picture, mask, change, n=1, seed=2, label="cat")
    for a, b in ((together[0], by_two[0]), (together[2], by_two[2]), (together[2], alone[0])):
        assert np.abs(a.pixels.astype(int) - b.pixels.astype(int)).max() <= 1
    assert (together[0].pixels != together[1].pixels).any()


def test_a_larger_hole_is_filled_window_by_window_and_each_window_begins_with_noise_of_its_own(model: Model) -> None:
    picture = Photo(np.full((8, 40, 1), 90, np.uint8))
    edit = prepared(model, picture, None, Changes(UNREAD, method="ddnm"), context=2, label="cat")
    events = [event for event in edit.run() if isinstance(event, EditPreview)]
    assert len(events) == edit.steps() == len(edit.editing.order) * edit.request.steps
    places = [event.place.left for event in events if event.drawing.step == 1]
    assert places == sorted(places) and len(places) == 7
    begun = [event.drawing.before for event in events if event.drawing.step == 1]
    free = [before[..., 2:] for before in begun if before is not None]
    assert not any(torch.equal(free[0], other) for other in free[1:])
    # What a window knows is what the one before it drew.
    drawn = {e.place.left: e.drawing.pictures for e in events if e.drawing.done}
    assert np.array_equal(drawn[6][0, :, :2], drawn[0][0, :, 6:])


def test_what_nothing_is_said_of_is_nothing_in_particular(model: Model) -> None:
    """Not one of the classes, in turn: in the record, and in the picture; led away from something where asked."""
    picture, mask = photo(8, 8), hole(8, 8, 0, 8, 2, 8)
    change = Changes(UNREAD, UNREAD, method="ddnm")
    plain = edited(model, picture, mask, change, n=2)
    assert (plain.request.labels, plain.request.guidance, plain.metadata(1)["label"]) == ((), 0.0, None)
    ignored = edited(model, picture, mask, change, n=2, label="cat", guidance=0.0)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(plain, ignored, strict=True))
    one = edited(model, picture, mask, change, n=2, guidance=1.0)
    assert all(
        far <= 1 for far in (np.abs(a.pixels.astype(int) - b.pixels).max() for a, b in zip(plain, one, strict=True))
    )
    away = edited(model, picture, mask, change, n=2, negative="dog")
    assert (away.request.labels, away.request.guidance) == ((), 2.0)
    assert (away[0].pixels != plain[0].pixels).any()
    with pytest.raises(Refused, match="needs labels, and the request has none; name some of: cat, dog, otter"):
        edited(model, picture, mask, change, guidance=3.0)
    assert len(model.request().labels) == 3  # new pictures are of all classes in turn


@pytest.mark.parametrize(("said", "shown", "guidance"), [("dog", "dog", 2.0), (None, "cat", 2.0)])
def test_an_encoded_picture_is_drawn_under_what_is_said_or_what_it_shows(
    model: Model, said: str | None, shown: str, guidance: float
) -> None:
    out = model.vary(np.zeros((8, 8), np.uint8), said, encode=True, source="cat", steps=2)
    assert (out.request.labels, out.request.guidance, out.request.prompts) == ((shown,), guidance, ())
    unsaid = model.vary(np.zeros((8, 8), np.uint8), encode=True, steps=2).request
    assert (unsaid.labels, unsaid.guidance) == ((), 0.0)


def test_conditions_are_made_once_for_all_windows(model: Model) -> None:
    made: list[int] = []
    conditioner = model.diffusion("ema", "pictures").parts.conditioner
    hook = conditioner.register_forward_hook(lambda *_: made.append(1))
    try:
        edited(model, photo(8, 40), None, Changes(UNREAD, method="ddnm"), context=2, label="cat", n=4, batch=2)
    finally:
        hook.remove()
    assert len(made) == 1


def test_margins_are_added_and_the_picture_stays(model: Model) -> None:
    picture = photo(6, 9)
    change = Changes(UNREAD, left=3, top=1, right=5, bottom=2, method="ddnm")
    out = edited(model, picture, None, change, label="dog")[0]
    assert out.size == (9, 17) and np.array_equal(out.pixels[1:7, 3:12], picture.pixels)
    middle = prepare_edit(model, picture, change=Changes(UNREAD), size=(12, 9))
    assert middle.request.edit is not None and middle.request.edit.margins == (1, 1, 2, 2)
    with pytest.raises(Refused, match="the picture is 9x6, larger than 8x20"):
        prepare_edit(model, picture, change=Changes(UNREAD), size=(8, 20))


def test_a_picture_smaller_than_the_canvas_is_edited_and_keeps_its_size(model: Model) -> None:
    picture, mask = photo(5, 3), hole(5, 3, 0, 2, 0, 3)
    out = edited(model, picture, mask, Changes(UNREAD, UNREAD))[0]
    assert out.size == (5, 3) and np.array_equal(out.pixels[2:], picture.pixels[2:])


def test_strength_begins_at_its_level_and_walks_the_steps_that_were_asked_for(model: Model) -> None:
    picture = photo(8, 8)
    edit = prepared(model, picture, None, Changes(UNREAD, strength=0.3), steps=5, label="cat")
    sampler = model.diffusion("ema", "pictures")
    levels = sampler.levels(edit.request)
    assert len(levels) == 6 and float(levels[0].angle) == pytest.approx(0.3 * np.pi / 2)
    events = [event for event in edit.run() if isinstance(event, EditPreview)]
    assert [event.drawing.step for event in events] == [1, 2, 3, 4, 5]
    y = picture.pixels[..., 0].astype(np.float64) / 127.5 - 1
    before = events[0].drawing.before
    assert before is not None
    noise = (before[0, 0].double().numpy() - np.cos(0.15 * np.pi) * y) / np.sin(0.15 * np.pi)
    assert abs(noise.mean()) < 0.5 and 0.7 < noise.std() < 1.3
    weak = edited(model, picture, None, Changes(UNREAD, strength=0.01), label="cat")[0]
    assert np.abs(weak.pixels.astype(int) - picture.pixels.astype(int)).max() < 12


@pytest.mark.parametrize("width", [8, 14])
def test_an_encoded_picture_comes_back_at_the_order_of_the_solver(model: Model, width: int) -> None:
    picture, errors = Photo(np.full((8, width, 1), 128, np.uint8)), list[float]()
    change = Changes(UNREAD, encode=True, source="cat", strength=0.6)
    settings = {"label": "cat", "guidance": 1.0, "solver": "ddim", "grid": "uniform"}
    for steps in (12, 4):
        out = edited(model, picture, None, change, **settings, steps=steps)[0]
        errors.append(float(np.abs(out.pixels.astype(float) - picture.pixels).mean()))
    assert errors[0] < 0.5 * errors[1]
    other = edited(model, picture, None, replace(change, source="dog"), **{**settings, "label": "otter"}, steps=4)[0]
    assert (other.pixels != out.pixels).any()


def test_an_edit_is_in_the_record_and_a_request_reads_it_again(model: Model, tmp_path: Path) -> None:
    Image.fromarray(photo(8, 8).pixels[..., 0]).save(tmp_path / "p.png")
    Image.fromarray(hole(8, 8, 0, 4, 0, 4)).save(tmp_path / "m.png")
    change = Changes(UNREAD, UNREAD, method="ddnm", feather=1)
    edit = prepared(model, tmp_path / "p.png", tmp_path / "m.png", change, label="cat")
    request = edit.request
    assert request.edit is not None and request.edit.mask is not None
    assert request.edit.picture.path == str(tmp_path / "p.png")
    assert request.edit.picture == Taken.of(read_photo(tmp_path / "p.png"), tmp_path / "p.png")
    assert request.edit.picture.sha256 != request.edit.mask.sha256
    assert SampleRequest.from_json(request.to_json()) == request
    result = edit.result()
    (tmp_path / "out.png").write_bytes(result.png(0))
    assert Image.open(tmp_path / "out.png").text.keys() == {"nirvana"}  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("deep", [False, True])
def test_an_edit_is_reproduced_byte_for_byte_while_its_picture_is_as_it_was(
    flat: Model, tmp_path: Path, deep: bool
) -> None:
    picture = photo(8, 11, 3, deep)
    (tmp_path / "p.png").write_bytes(picture.png())
    Image.fromarray(hole(8, 11, 0, 8, 2, 9)).save(tmp_path / "m.png")
    change = Changes(UNREAD, UNREAD, method="ddnm")
    result = prepared(flat, tmp_path / "p.png", tmp_path / "m.png", change, n=3, batch=2).result()
    for i in (0, 2):
        (tmp_path / f"{i}.png").write_bytes(result.png(i))
        assert reproduce(tmp_path / f"{i}.png").same_bytes
    changed = Photo(np.where(result[0].pixels > 0, result[0].pixels - 1, 0).astype(result[0].pixels.dtype))
    (tmp_path / "other.png").write_bytes(changed.png(result.metadata(0)))
    assert reproduce(tmp_path / "other.png").difference == 1
    (tmp_path / "p.png").write_bytes(photo(8, 11, 3, deep).png())
    with pytest.raises(Refused, match=r"p\.png has changed since it was edited"):
        reproduce(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(prepared(flat, picture, None, Changes(UNREAD, strength=0.5)).result().png(0))
    with pytest.raises(Refused, match="came from memory"):
        reproduce(tmp_path / "1.png")


def test_pictures_from_memory() -> None:
    array = RNG.integers(0, 256, (4, 5, 4)).astype(np.uint8)
    for form in (array, Image.fromarray(array)):
        found = as_photo(form)
        assert found.alpha is not None and np.array_equal(np.dstack([found.pixels, found.alpha]), array)
    assert as_photo(array[..., 0]).pixels.shape == (4, 5, 1)
    flat = np.zeros((4,), np.uint8)
    for bad in (array.astype(np.float32), flat, np.zeros((4, 4, 5), np.uint8), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(Refused, match="is no picture"):
            as_photo(bad)


@pytest.mark.parametrize(
    ("change", "mask", "settings", "message"),
    [
        (Changes(UNREAD, UNREAD), hole(8, 8, 0, 0, 0, 0), {}, "black everywhere"),
        (Changes(UNREAD, UNREAD), hole(7, 8, 0, 1, 0, 1), {}, "is 8x7 pixels and the picture 8x8; add --fit"),
        (Changes(UNREAD, UNREAD, method="magic"), hole(8, 8, 0, 1, 0, 1), {}, "unknown method 'magic'"),
        (Changes(UNREAD, UNREAD, method="langevin:size=3"), hole(8, 8, 0, 1, 0, 1), {}, "below 2"),
        (Changes(UNREAD), None, {"context": 8}, "leaves nothing to draw on the model's canvas of 8x8"),
        (Changes(UNREAD, encode=True), None, {"solver": "ddpm"}, "takes a solver without noise"),
        (Changes(UNREAD, encode=True, source="bird"), None, {}, "bird"),
        (Changes(UNREAD, UNREAD), hole(8, 8, 0, 1, 0, 1), {"rule": "cfg++"}, "use the method ddnm"),
        (
            Changes(UNREAD, UNREAD, method="repaint:jump=2"),
            hole(8, 8, 0, 1, 0, 1),
            {"rule": "cfg++", "steps": 9},
            "use the method ddnm",
        ),
        (Changes(UNREAD, strength=0.5), None, {"rule": "cfg++"}, "has no guidance for; use another rule"),
        (Changes(UNREAD), None, {"to": "dog", "n": 2}, "an edit has no way to go"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(
    model: Model, change: Changes, mask: np.ndarray | None, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refused, match=message):
        edited(model, photo(8, 8), mask, change, **settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": 0.0}, "strength must be more than 0"),
        ({"strength": 1.5}, "at most 1"),
        ({"strength": float("nan")}, "finite"),
        ({"left": -1}, "left must be at least 0"),
        ({"feather": 2**11}, "feather must be at most 1024"),
        ({"method": "ddnm:"}, "NAME:KEY=VALUE"),
        ({"source": "cat"}, "encode the picture"),
        ({"invert": True}, "no mask to invert"),
    ],
)
def test_bad_values_of_an_edit_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(Refused, match=message):
        replace(Changes(UNREAD), **values)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with labels that sees what is known."""
    description = spec(concat=Concat("masked", 1))
    return load(make_run(tmp_path_factory.mktemp("runs") / "run", description), device="cpu")


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model without labels that makes grey pictures of coloured ones."""
    description = spec((), concat=Concat("paired", 3))
    return load(make_run(tmp_path_factory.mktemp("runs") / "run", description), device="cpu")


def seen(model: Model, edit: Edit) -> list[torch.Tensor]:
    """What the network is given in its slot, call by call."""
    given: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, args: Any) -> None:
        given.append(args[2]["concat"])

    with model.parts.denoiser.net.register_forward_pre_hook(keep):
        edit.result()
    return given


def test_a_learned_model_sees_what_is_known_in_both_branches_and_nothing_else(learned: Model) -> None:
    picture, mask = photo(8, 8), hole(8, 8, 2, 6, 1, 5)
    edit = prepared(learned, picture, mask, Changes(UNREAD, UNREAD), label="dog", n=2, steps=3, guidance=2.0)
    assert edit.request.edit is not None and edit.request.edit.method == "learned"  # the default of such a model
    shown = torch.from_numpy(mask == 0).float()
    part = shown * (torch.from_numpy(picture.pixels[..., 0]).float() / 127.5 - 1)
    calls = seen(learned, edit)
    assert len(calls) == 3  # a step is one call, of both branches at once
    for slot in calls:
        assert torch.equal(slot, torch.stack([shown, part]).expand(4, -1, -1, -1))


@pytest.mark.parametrize("method", ["langevin:steps=1", "ddnm", "replacement", "repaint:resample=1"])
def test_with_the_other_methods_it_sees_nothing(learned: Model, method: str) -> None:
    edit = prepared(learned, photo(8, 8), hole(8, 8, 2, 6, 1, 5), Changes(UNREAD, UNREAD, method=method), label="cat")
    assert all(not slot.any() for slot in seen(learned, edit))


def test_the_slot_carries_what_is_known_where_x_is_pure_noise(learned: Model) -> None:
    """One step from pure noise: there x says nothing of what is known, and only the slot does."""
    mask, change = hole(8, 8, 2, 6, 1, 5), Changes(UNREAD, UNREAD)
    dark, bright = (Photo(np.full((8, 8, 1), value, np.uint8)) for value in (0, 255))

    def drawn(picture: Photo, method: str) -> np.ndarray:
        made = edited(learned, picture, mask, replace(change, method=method), label="cat", steps=1)
        return made[0].pixels[mask > 0]

    assert np.array_equal(drawn(dark, "ddnm"), drawn(bright, "ddnm"))
    assert (drawn(dark, "learned") != drawn(bright, "learned")).any()


@pytest.mark.parametrize("deep", [False, True])
def test_learned_inpainting_keeps_every_pixel_and_is_made_again(learned: Model, tmp_path: Path, deep: bool) -> None:
    picture, mask = photo(13, 17, 1, deep), hole(13, 17, 3, 11, 2, 14)
    for name, one in (("photo", picture), ("mask", Photo(mask[..., None]))):
        (tmp_path / f"{name}.png").write_bytes(one.png())
    edit = prepared(learned, tmp_path / "photo.png", tmp_path / "mask.png", Changes(UNREAD, UNREAD), label="cat")
    made = edit.result()
    after = made.photos[0].pixels
    assert np.array_equal(after[mask == 0], picture.pixels[mask == 0]) and (after != picture.pixels).any()
    file = tmp_path / "made.png"
    file.write_bytes(made.png(0))
    assert reproduce(file).same_bytes


def test_methods_that_a_model_has_not_learned_are_refused(learned: Model, translator: Model, flat: Model) -> None:
    picture, mask = photo(8, 8), hole(8, 8, 0, 4, 0, 4)
    for model in (flat, translator):
        with pytest.raises(Refused, match="has not learned to inpaint; use the method langevin"):
            prepared(model, picture, mask, Changes(UNREAD, UNREAD, method="learned"))
    for model in (flat, learned):
        with pytest.raises(Refused, match="was not trained on pairs"):
            prepared(model, picture, None, Changes(UNREAD, method="paired"))
    with pytest.raises(Refused, match="translated picture is all new"):
        Changes(UNREAD, UNREAD, method="paired")


def test_a_translation_is_drawn_from_the_fitted_picture_alone(translator: Model) -> None:
    picture = photo(11, 9, 3)
    edit = prepared(translator, picture, None, Changes(UNREAD, method="paired"), n=3, steps=2, batch=2)
    fitted = np.asarray(picture.pil.crop((0, 1, 9, 10)).resize((8, 8), Image.Resampling.LANCZOS))
    inputs = torch.from_numpy(fitted.copy()).permute(2, 0, 1)[None]
    for slot in seen(translator, edit):
        assert slot[:, 0].eq(1).all()
        assert torch.equal(slot[:, 1:], (inputs.float() / 127.5 - 1).expand(len(slot), -1, -1, -1))
    made = edit.result()
    assert [one.pixels.shape for one in made] == [(8, 8, 1)] * 3
    again = translator.translate(picture, n=3, steps=2, batch=2)
    assert [one.png() for one in again] == [one.png() for one in made]
    sampler = translator.diffusion("ema", "pairs")
    plain = replace(edit.request, edit=None)
    streamed = np.concatenate([sampler.finished(p) for p in sampler.translated(plain, inputs) if p.done])
    assert np.array_equal(np.stack([one.pixels for one in made]), streamed)
    other = prepared(translator, photo(11, 9, 3), None, Changes(UNREAD, method="paired"), n=3, steps=2).result()
    assert (made[0].pixels != other[0].pixels).any()


def test_each_translated_picture_has_an_input_of_its_own(translator: Model) -> None:
    sampler, request = translator.diffusion("ema", "pairs"), translator.request(n=5, steps=2, batch=2)
    inputs = torch.from_numpy(RNG.integers(0, 256, (3, 3, 8, 8), dtype=np.uint8))
    together = np.concatenate([sampler.finished(p) for p in sampler.translated(request, inputs) if p.done])
    for i in range(5):
        one = replace(request, n=1, seed=i)
        alone = [sampler.finished(p) for p in sampler.translated(one, inputs[[i % 3]]) if p.done]
        assert np.abs(together[i].astype(int) - alone[0][0]).max() <= 1


@pytest.mark.parametrize(("channels", "shown"), [(1, 3), (3, 1), (1, 1)])
def test_a_model_is_shown_the_channels_that_it_was_trained_with(channels: int, shown: int) -> None:
    picture = photo(8, 8, shown, deep=shown == 1)
    beside = Editing.translation(picture, (2, 8, 8), channels).beside
    assert beside is not None and np.array_equal(beside, Photo(picture.bytes(shown)).bytes(channels))
    clear = replace(picture, alpha=np.zeros((8, 8), picture.pixels.dtype))
    white = Editing.translation(clear, (2, 8, 8), channels).beside
    assert white is not None and (white == 255).all()  # as transparent pictures are read for training


def test_a_translation_is_made_again_and_guided_by_what_is_seen(translator: Model, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo(8, 8, 3).png())
    made = [
        prepared(
            translator, tmp_path / "photo.png", None, Changes(UNREAD, method="paired"), guidance=w, steps=2
        ).result()
        for w in (0.0, 1.0, 3.0)
    ]
    nothing = translator.generate(n=1, steps=2, guidance=1.0).array[0]
    assert np.array_equal(made[0][0].pixels, nothing)  # w = 0 is the model that sees nothing
    assert (made[1][0].pixels != nothing).any() and (made[2][0].pixels != made[1][0].pixels).any()
    file = tmp_path / "made.png"
    file.write_bytes(made[2].png(0))
    assert reproduce(file).same_bytes
