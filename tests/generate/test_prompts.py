"""Prompts at generation: what is asked for is what is drawn, recorded and reproduced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nirvana.cli.main import main
from nirvana.condition import LabelConditioner, NoConditioner, TextConditioner, conditioner_from_config
from nirvana.condition.encoder import JointEncoder
from nirvana.condition.tokens import learn
from nirvana.engine.network import Inputs, traced
from nirvana.errors import Refused
from nirvana.generate import Model, load, reproduce
from nirvana.generate import sheet as sheets
from nirvana.generate.asked import Ask, asked, end_of, prompts_in
from nirvana.generate.request import SampleRequest
from nirvana.generate.spec import network_spec
from nirvana.generate.wanted import check_engine
from nirvana.modality.png import read_png
from nirvana.nn import UNetConfig
from tiny_run import NAMES, make_run, spec

CAPTIONS = ("a red circle", "a blue square", "a green star")
LONG = "a red circle " * 9


def described(names: tuple[str, ...] = ()) -> dict[str, object]:
    """A tiny model of 8 x 8 pictures that takes texts, and classes too where there are `names`."""
    encoder = JointEncoder(learn(CAPTIONS * 2, 100), width=8, depth=1, places=6)
    text = TextConditioner(encoder, 8, 0.1, CAPTIONS).config()
    label = {"kind": "labels", "names": list(names), "dim": 8, "drop": 0.1}
    network = UNetConfig(1, 1, width=8, multipliers=(1, 2), blocks=1, group_width=4, vector_dim=8, token_dim=8)
    conditioner = {"kind": "label+text", "label": label, "text": text} if names else text
    return {**spec(), "network": network_spec(network), "conditioner": conditioner}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("prompts")
    made = {"text": described(), "both": described(NAMES), "label": spec(), "none": spec(())}
    return {name: make_run(folder / name, description) for name, description in made.items()}


@pytest.fixture(scope="module")
def model(runs: dict[str, Path]) -> Model:
    return load(runs["text"])


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts that encoders were asked for."""
    found: list[list[str]] = []
    forward = JointEncoder.forward

    def counted(self: JointEncoder, texts: Any) -> Any:
        found.append(list(texts))
        return forward(self, texts)

    monkeypatch.setattr(JointEncoder, "forward", counted)
    return found


def test_each_text_is_encoded_once_for_any_number_of_pictures(model: Model, encoded: list[list[str]]) -> None:
    model.generate("a red circle", n=5, batch=2, steps=2)
    assert encoded == [["a red circle"]]


def test_a_blend_goes_from_the_text_of_one_picture_to_that_of_the_other(model: Model, encoded: list[list[str]]) -> None:
    a, b = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    texts = ("a red circle", "a blue square")
    blend = model.blend(a, b, source=texts, n=3, steps=3, solver="ddim")
    assert (blend.request.prompts, blend.request.to, blend.request.guidance) == (texts[:1], texts[1], 1.0)
    assert {text for asked in encoded for text in asked} == set(texts)
    for picture, text, end in ((a, texts[0], blend[0]), (b, texts[1], blend[2])):
        alone = model.vary(picture, text, encode=True, source=text, guidance=1.0, steps=3, solver="ddim")[0]
        assert np.abs(alone.pixels.astype(int) - end.pixels).max() <= 1
    encoded.clear()
    silent = model.blend(a, b, n=2, steps=2).request
    assert (silent.prompts, silent.to, silent.guidance) == (("",), None, 0.0)
    assert {text for asked in encoded for text in asked} <= {""}


def test_an_edit_without_a_prompt_says_nothing_or_what_is_encoded(model: Model, encoded: list[list[str]]) -> None:
    """It does not draw one of the captions of the training."""
    picture, mask = np.zeros((2, 8, 8), np.uint8)
    mask[2:5] = 255
    filled = model.inpaint(picture, mask, method="ddnm", steps=2)
    assert (filled.request.prompts, filled.request.guidance, filled.metadata(0)["prompt"]) == (("",), 0.0, "")
    assert {text for asked in encoded for text in asked} <= {""}
    ignored = model.inpaint(picture, mask, CAPTIONS[0], method="ddnm", steps=2, guidance=0.0)
    assert np.array_equal(filled[0].pixels, ignored[0].pixels)
    shown = model.vary(picture, encode=True, source=CAPTIONS[1], steps=2)
    assert shown.request.prompts == CAPTIONS[1:2] and shown.request.guidance == 2.0


def test_guidance_is_between_the_prompt_and_the_null_or_the_negative(model: Model) -> None:
    def made(prompt: str, guidance: float, **more: Any) -> np.ndarray:
        request = model.request(prompt, n=2, steps=1, guidance=guidance, **more)
        return torch.cat([preview.x0 for preview in model.stream(request)]).double().numpy()

    plain, null = made("a red circle", 1.0), made("", 1.0)
    np.testing.assert_allclose(made("a red circle", 3.0), null + 3 * (plain - null), atol=1e-4)
    other = made("a blue square", 1.0)
    np.testing.assert_allclose(
        made("a red circle", 3.0, negative="a blue square"), other + 3 * (plain - other), atol=1e-4
    )
    np.testing.assert_allclose(made("a red circle", 0.0), null, atol=1e-5)
    mixed = made("a red circle:1.5 + a blue square:0.5", 2.0)
    np.testing.assert_allclose(mixed, null + 2 * (1.5 * (plain - null) + 0.5 * (other - null)), atol=1e-4)


def test_an_empty_prompt_is_the_model_without_one(model: Model) -> None:
    assert (model.generate("", n=2, steps=2).array == model.generate(" \n", n=2, steps=2, guidance=5.0).array).all()


def test_without_a_prompt_examples_of_captions_take_turns(model: Model) -> None:
    images = model.generate(n=4, steps=2)
    assert images.request.prompts == CAPTIONS
    assert (images.array[1] == model.generate("a blue square", n=1, steps=2, seed=1).array[0]).all()
    assert images.metadata(3)["prompt"] == "a red circle"


def test_a_prompt_is_the_same_alone_and_beside_longer_ones(model: Model) -> None:
    alone = model.generate("a red circle", n=1, steps=3).array[0]
    beside = model.generate(["a red circle", LONG, "a blue square:2 + a red circle:0.5"], n=3, steps=3).array[0]
    assert np.abs(alone.astype(int) - beside.astype(int)).max() <= 1


def test_the_way_to_another_prompt_begins_and_ends_at_the_pictures_of_the_two(model: Model) -> None:
    images = model.generate("a red circle", to="a blue square", n=4, steps=3, seed=5)
    for index, prompt in ((0, "a red circle"), (3, "a blue square")):
        alone = model.generate(prompt, n=1, steps=3, seed=5).array[0]
        assert np.abs(images.array[index].astype(int) - alone.astype(int)).max() <= 1
    assert [images.metadata(i)["seed"] for i in range(4)] == [5] * 4
    steps = np.abs(np.diff(images.array.astype(float), axis=0)).mean((1, 2, 3))
    ends = np.abs(images.array[0].astype(float) - images.array[3]).mean()
    assert (steps < ends).all() and (steps > 0).all()
    assert images.grid().height < images.grid().width / 3


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpmpp-2m-sde"])
def test_the_way_to_another_seed_begins_and_ends_at_the_pictures_of_the_two(model: Model, solver: str) -> None:
    ways = [
        model.generate("a red circle", to=f"{end}seed:9", n=3, steps=3, seed=5, solver=solver, batch=2)
        for end in ("", "a blue square ")
    ]
    for images, end in zip(ways, ("a red circle", "a blue square"), strict=True):
        for index, prompt, seed in ((0, "a red circle", 5), (2, end, 9)):
            alone = model.generate(prompt, n=1, steps=3, seed=seed, solver=solver).array[0]
            assert np.abs(images.array[index].astype(int) - alone.astype(int)).max() <= 1
            assert images.metadata(index)["seed"] == seed
        assert (images.array[1] != images.array[0]).any() and (images.array[1] != images.array[2]).any()


@pytest.mark.parametrize(
    ("written", "end"),
    [
        (None, (None, None)),
        ("a cat", ("a cat", None)),
        ("", ("", None)),
        ("seed:5", (None, 5)),
        ("a cat seed:05 ", ("a cat", 5)),
        ("a seed:5 a cat", ("a seed:5 a cat", None)),
        ("birdseed:5", ("birdseed:5", None)),
    ],
)
def test_the_end_of_a_way_is_a_text_a_seed_or_both(written: str | None, end: tuple[str | None, int | None]) -> None:
    assert end_of(written) == end


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a red circle", (("a red circle", 1.0),)),
        ("a cat:1.5 + a dog:0.5", (("a cat", 1.5), ("a dog", 0.5))),
        ("a cat:-1+a dog:2", (("a cat", -1.0), ("a dog", 2.0))),
        ("C++: 1", (("C++: 1", 1.0),)),
        ("scale 4:3", (("scale 4:3", 1.0),)),
        ("a + b:2", (("a + b:2", 1.0),)),
        ("", (("", 1.0),)),
    ],
)
def test_a_mixture_is_written_so_and_any_other_text_is_a_prompt(text: str, parts: Any) -> None:
    assert prompts_in(text) == parts


@pytest.mark.parametrize("text", ["a:0 + b:1", "a:1+a:2"])
def test_an_impossible_mixture_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="the prompt"):
        prompts_in(text)


def test_ways_and_mixtures_multiply_for_classes_and_texts() -> None:
    request = SampleRequest(n=5, labels=("cat",), prompts=("x:2 + y:1",), to="y")
    assert asked(request, 0, NAMES, True) == ((Ask("cat", "x"), 2.0), (Ask("cat", "y"), 1.0))
    assert dict(asked(request, 1, NAMES, True)) == {Ask("cat", "x"): 1.5, Ask("cat", "y"): 1.0}
    assert asked(request, 4, NAMES, True) == ((Ask("cat", "y"), 1.0),)
    label = SampleRequest(n=3, labels=("cat",), to="dog")
    assert asked(label, 1, NAMES, False) == ((Ask("cat", ""), 0.5), (Ask("dog", ""), 0.5))


def test_pictures_record_their_prompts_and_reproduce(model: Model, tmp_path: Path) -> None:
    asked_for: dict[str, Any] = {"negative": "a green star", "to": "a blue square", "rule": "apg:eta=0.25"}
    paths = model.generate("a red circle:1.5 + a green star:0.5", n=3, steps=2, batch=2, **asked_for).save(
        tmp_path / "a"
    )
    saved: Any = read_png(paths[1])[1]
    assert saved["prompt"] == "a red circle:1.5 + a green star:0.5"
    assert {name: saved["request"][name] for name in asked_for} == asked_for
    for path in [
        *paths,
        *model.generate(["a red circle", "\N{HEAVY BLACK HEART} سلام"], n=3, steps=2).save(tmp_path / "b"),
    ]:
        assert reproduce(path).same_bytes


def test_requests_of_earlier_versions_have_no_prompts() -> None:
    old = {k: v for k, v in SampleRequest().to_json().items() if k not in ("prompts", "to", "to_seed", "edit")}
    request = SampleRequest.from_json({**old, "version": 3})
    assert (request.prompts, request.to) == ((), None) and request.to_json() == {**old, "version": 3}
    with pytest.raises(Refused, match="version 3 has no 'prompts'"):
        SampleRequest(prompts=("a",), version=3)


def test_long_prompts_are_read_in_pieces_and_strict_refuses_them(
    model: Model, capsys: Any, runs: dict[str, Path]
) -> None:
    (reading,) = model.sampler().readings(model.request(LONG))
    assert reading.chunks == 6 and not reading.whole
    with pytest.raises(Refused, match=r"27 tokens, and .* reads 5 at once"):
        model.generate(LONG, strict=True)
    assert main(["prompt", str(runs["text"]), LONG, "--strict"]) == 2
    assert main(["prompt", str(runs["text"]), f"{LONG}\N{SNOWMAN}"]) == 0
    shown = capsys.readouterr().out
    assert "piece 7" in shown and "unknown" in shown and "7 pieces of 5 tokens" in shown
    assert main(["prompt", str(runs["text"]), "a red circle:2 + a blue square:1", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["prompts"]
    assert (first["pieces"], first["weight"]) == ([" a", " red", " circle"], 2.0) and second["kept"] == 3


@pytest.mark.parametrize(
    "prompt", ["\0", "\N{PILE OF POO}" * 9, "سلام", "x" * 100_000, "a" + "\n" * 50, "a:b+c"], ids=range(6)
)
def test_any_text_makes_finite_pictures(model: Model, prompt: str) -> None:
    assert len(model.generate(prompt, n=1, steps=1)) == 1


def test_a_text_that_is_no_unicode_is_refused(model: Model) -> None:
    with pytest.raises(Refused, match="no text in UTF-8"):
        model.generate("a \udcff circle")


def test_labels_and_prompts_find_their_models(runs: dict[str, Path], model: Model) -> None:
    with pytest.raises(Refused, match="takes prompts, not labels; give 'cat' as a prompt"):
        model.generate(label="cat")
    label, none, both = load(runs["label"]), load(runs["none"]), load(runs["both"])
    with pytest.raises(Refused, match="knows labels, not prompts"):
        label.generate("a red circle")
    with pytest.raises(Refused, match="without labels or captions"):
        none.generate("a red circle")
    with pytest.raises(Refused, match="leave the way to 'cat' out"):
        none.generate(to="cat", n=2)
    assert label.generate("cat", to="dog", n=3, steps=1).request.labels == ("cat",)
    assert (label.generate("cat", n=1, steps=1).array == label.generate(label="cat", n=1, steps=1).array).all()
    requests = [both.request("a red circle"), both.request(label="cat"), both.request("a red circle", label="cat")]
    assert [(r.labels, r.prompts) for r in requests] == [
        ((), ("a red circle",)),
        (("cat",), ("",)),
        (("cat",), ("a red circle",)),
    ]
    pictures = [both.gather(r, both.stream(r)).array for r in requests]
    assert all((a != b).any() for a, b in [(pictures[0], pictures[1]), (pictures[1], pictures[2])])
    assert both.request().labels == () and both.request().prompts == CAPTIONS


def test_missing_parts_are_what_training_dropped(runs: dict[str, Path]) -> None:
    both = load(runs["both"])
    conditioner = both.parts.conditioner
    assert not isinstance(conditioner, LabelConditioner | NoConditioner | TextConditioner)
    request = both.request("a red circle", n=2, guidance=1.0)
    _, cond = both.sampler().steering(request).conditioned(range(2))
    expected = conditioner(torch.tensor([0, 0]), torch.tensor([[True, False]] * 2), ["a red circle"] * 2)
    for name, value in expected.items():
        torch.testing.assert_close(cond[name], value)


def test_a_sheet_over_prompts(model: Model) -> None:
    axis = sheets.axis("prompt=a red circle, left|a blue square")
    assert axis.values == ("a red circle, left", "a blue square")
    made = sheets.sheet(model, model.request("", n=1, steps=1), axis, sheets.axis("guidance=1,3"))
    assert made.array.shape[:2] == (2, 2)
    expected = model.generate("a blue square", n=1, steps=1, guidance=3.0).array
    assert np.abs(made.array[1, 1].astype(int) - expected.astype(int)).max() <= 1


def test_the_command_says_what_is_made_of_a_prompt(runs: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    run = str(runs["text"])
    assert main(["generate", run, "", "--steps", "1", "--out", str(tmp_path / "a")]) == 0
    assert "it is empty: pictures as without a prompt" in capsys.readouterr().err
    assert main(["generate", run, "--steps", "1", "--out", str(tmp_path / "b")]) == 0
    assert "drawing 3 of the captions" in capsys.readouterr().err
    words = ["generate", run, "a red circle", "--to", "a green star", "-n", "3", "--steps", "1", "--animate"]
    assert main([*words, "--out", str(tmp_path / "c"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["request"]["to"] == "a green star" and said["read"]["a red circle"]["kept"] == 3
    assert (tmp_path / "c" / "animation.webp").is_file()
    assert main(["generate", run, "a", "--to", "b", "--out", str(tmp_path / "d")]) == 2
    assert "needs two pictures or more" in capsys.readouterr().err


def test_what_is_not_read_whole_is_said_by_all_that_draw_and_refused_under_strict(
    runs: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    run, file = str(runs["text"]), str(tmp_path / "p.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file)
    out = ["--out", str(tmp_path / "x")]
    vary = ["vary", run, file, "a \N{SNOWMAN}", "--encode", "--source", LONG, "--steps", "2", *out]
    sheet = ["sheet", run, "--x", f"prompt=a red circle|{LONG}", "--steps", "1", "--out", str(tmp_path / "sheet.png")]
    assert main(["vary", run, file, "--steps", "2", "--out", str(tmp_path / "y")]) == 0
    assert "the prompt" not in capsys.readouterr().err  # there is none
    for command, said in ((vary, f"the prompt '{LONG[:57]}...': it is read in"), (sheet, "it is read in")):
        assert main([*command, "--strict"]) == 2
        assert "tokens, and" in capsys.readouterr().err and not (tmp_path / "sheet.png").exists()
        assert main(command) == 0
        assert said in (noted := capsys.readouterr().err) and noted.count("it is read in") == 1
    told: Any = read_png(tmp_path / "x" / "p.png")[1]
    assert told["read"][LONG]["chunks"] > 1 and told["read"]["a \N{SNOWMAN}"]["unknown"] == 4
    paper: Any = read_png(tmp_path / "sheet.png")[1]
    assert paper["read"].keys() == {"a red circle", LONG.strip()}


def test_a_picture_says_how_its_texts_were_read_and_what_it_is_of(model: Model) -> None:
    way = model.generate("a red circle", to="a green star", n=3, steps=1)
    assert [(way.metadata(i)["prompt"], way.metadata(i)["to"], way.metadata(i)["share"]) for i in range(3)] == [
        ("a red circle", "a green star", share) for share in (0.0, 0.5, 1.0)
    ]
    read: Any = way.metadata(0)["read"]
    assert read["a green star"] == model.parts.conditioner.read("a green star").to_json()
    alone: Any = model.generate("a red circle", n=1, steps=1).metadata(0)
    assert "to" not in alone and alone["read"].keys() == {"a red circle"}


def test_config_of_the_tiny_model_is_that_of_its_conditioner(model: Model) -> None:
    conditioner = model.parts.conditioner
    assert conditioner_from_config(conditioner.config()).config() == conditioner.config()


def test_an_exported_network_takes_texts_of_one_length(model: Model) -> None:
    parts, request = model.parts, model.request("a red circle", n=2, guidance=1.0)
    _, cond = model.sampler().steering(request).conditioned(range(2))
    x, noise = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 400.0, 900.0])
    inputs = Inputs.of(x, cond)
    program = traced(parts.denoiser.net, inputs).module()
    three = {name: value[[0, 1, 0]] for name, value in cond.items()}
    made = program(x, noise, *(three[name] for name in inputs.slots))
    torch.testing.assert_close(made, parts.denoiser.net(x, noise, three))
    engine = replace(request, engine="onnx")
    check_engine(parts.conditioner, engine)
    with pytest.raises(Refused, match="has 33 token states, and the engine 'onnx' takes 6"):
        check_engine(parts.conditioner, replace(engine, prompts=(LONG,)))
