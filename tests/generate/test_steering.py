"""Guidance by requests: rules, negative labels, mixtures, earlier moments, classifiers, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nirvana.diffusion.guidance import APG, CFG, ClassifierGuided, Composed, Guided, Interval, Rescaled, Rule, WithCond
from nirvana.diffusion.level import Level
from nirvana.diffusion.named import DDIM
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.sample import start, trajectory
from nirvana.errors import Refused
from nirvana.generate.model import Model, load
from nirvana.generate.reproduction import reproduce
from nirvana.generate.request import VERSION
from nirvana.generate.sampler import Sampler
from nirvana.generate.sheet import axis, requests
from nirvana.generate.spec import build
from nirvana.modality.png import read_png
from nirvana.train import checkpoint
from nirvana.train.ema import Average
from nirvana.train.run import RunFolder
from tiny_run import NAMES, make_run, spec, weights

EARLY = 40
"""The seed of the weights at 1/8 of the run."""


def snapshot(path: Path, fraction: Fraction, seed: int, width: float = 0.10, **changes: Any) -> None:
    run = RunFolder.open(path)
    tensors = weights(spec(**changes), seed)
    checkpoint.save_snapshot(run, fraction, Average(run.plan.snapshot_images(fraction), width, tensors))


class Picky:
    """Likes pictures whose mean is that of their class: -0.5, 0, 0.5."""

    names: tuple[str, ...] = NAMES
    shape: tuple[int, ...] | None = (1, 8, 8)

    def __init__(self, reads: Any = "x0") -> None:
        self.reads = reads
        self.calls = 0

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        self.calls += 1
        centres = torch.tensor([-0.5, 0.0, 0.5])
        return torch.log_softmax(-20 * (x.flatten(1).mean(1, keepdim=True) - centres) ** 2, 1)


PICKY = {"picky": Picky, "noisy": lambda: Picky("x")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("steering") / "pets")
    snapshot(path, Fraction(1, 8), EARLY)
    snapshot(path, Fraction(1, 2), 50)
    snapshot(path, Fraction(1, 1), 60)
    return path


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return load(run, classifiers=PICKY)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = make_run(tmp_path_factory.mktemp("steering") / "plain", spec(names=()))
    snapshot(path, Fraction(1, 8), EARLY, names=())
    return load(path, classifiers=PICKY)


@pytest.fixture
def batches(model: Model) -> Iterator[list[int]]:
    """The number of items of every call of the model's network."""
    seen: list[int] = []
    handle = model.parts.denoiser.net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    yield seen
    handle.remove()


def by_hand(model: Model, denoiser: Any, cond: Any = None, n: int = 2, solver: DDIM | None = None) -> Tensor:
    """The end of three steps from seed 3 on."""
    request = model.request(steps=3)
    levels, noise = model.sampler().levels(request), SeededNoise(range(3, 3 + n), model.parts.shape)
    x = start(noise, levels[0])
    with torch.no_grad():
        for step in trajectory(denoiser, x, levels, solver or DDIM(), cond=cond or {}, noise=noise):
            x = step.x
    return x


def made(model: Model, n: int = 2, **changes: Any) -> Tensor:
    request = model.request(n=n, seed=3, steps=3, **changes)
    return list(model.stream(request))[-1].x


def cond_of(model: Model, *labels: str) -> dict[str, Tensor]:
    return {
        name: v.detach()
        for name, v in model.parts.conditioner(torch.tensor([NAMES.index(label) for label in labels])).items()
    }


def branches(model: Model, strong: Any, weak: Any, rule: Rule) -> Guided:
    return Guided((WithCond(model.parts.denoiser, strong), WithCond(model.parts.denoiser, weak)), rule)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, CFG(3.0)),
        ({"rule": "rescale"}, Rescaled(CFG(3.0), 0.7)),
        ({"rule": "rescale:phi=0.2"}, Rescaled(CFG(3.0), 0.2)),
        ({"rule": "apg:eta=0.5,norm=2,momentum=0.3"}, APG(3.0, 0.5, 2.0, 0.3)),
        ({"rule": "apg", "guidance_interval": (0.3, 2.0)}, Interval(APG(3.0), 0.3, 2.0)),
    ],
)
def test_a_rule_by_its_name(model: Model, changes: dict[str, Any], rule: Rule) -> None:
    cond = cond_of(model, "dog", "dog")
    null = {name: v.detach() for name, v in model.parts.conditioner.null(cond).items()}
    found = made(model, label="dog", guidance=3.0, **changes)
    assert torch.equal(found, by_hand(model, branches(model, cond, null, rule)))
    assert torch.equal(found, made(model, label="dog", guidance=3.0, **changes))


def test_a_w_in_the_text_of_a_rule_is_the_guidance(model: Model) -> None:
    request = model.request(rule="apg:w=4,eta=0.5")
    assert (request.rule, request.guidance) == ("apg:eta=0.5", 4.0)
    with pytest.raises(Refused, match="same thing"):
        model.request(rule="apg:w=4", guidance=3.0)


def test_guidance_by_default(model: Model, plain: Model) -> None:
    assert model.request(rule="apg").guidance == 2.0
    assert model.request(rule="cfg++").guidance == 0.4
    assert model.request(autoguidance="1/8").guidance == 2.0
    assert (plain.request().guidance, plain.request(autoguidance="1/8").guidance) == (1.0, 2.0)


def test_the_numbers_of_a_solver(model: Model) -> None:
    cond = cond_of(model, "dog", "dog")
    null = {name: v.detach() for name, v in model.parts.conditioner.null(cond).items()}
    found = made(model, label="dog", guidance=3.0, solver="ddim:eta=0.7")
    assert torch.equal(found, by_hand(model, branches(model, cond, null, CFG(3.0)), solver=DDIM(0.7)))


def test_a_negative_label_is_the_weak_branch(model: Model, batches: list[int]) -> None:
    found = made(model, label=["dog", "cat"], guidance=3.0, negative="otter")
    assert batches == [4] * 3
    guided = branches(model, cond_of(model, "dog", "cat"), cond_of(model, "otter", "otter"), CFG(3.0))
    assert torch.equal(found, by_hand(model, guided))


def test_weighted_labels_are_one_call_with_one_null(model: Model, batches: list[int]) -> None:
    found = made(model, label="dog:1.5+otter:-0.5", guidance=3.0)
    assert batches == [6] * 3
    conds = [cond_of(model, name, name) for name in ("dog", "otter")]
    null = {name: v.detach() for name, v in model.parts.conditioner.null(conds[0]).items()}
    parts = tuple(WithCond(model.parts.denoiser, cond) for cond in (*conds, null))
    assert torch.equal(found, by_hand(model, Guided(parts, Composed((1.5, -0.5), CFG(3.0)))))


def test_labels_with_and_without_weights_take_turns(model: Model) -> None:
    labels = ["cat", "dog:1.5+otter:0.5", "otter:2"]
    together = made(model, n=3, label=labels, guidance=3.0)
    for i, label in enumerate(labels):
        request = model.request(label=label, seed=3 + i, steps=3, guidance=3.0)
        alone = list(model.stream(request))[-1].x
        assert torch.allclose(together[i], alone[0], atol=1e-4)
    assert model.generate(label=labels, n=2, steps=1).metadata(1)["label"] == labels[1]


def test_a_model_guided_by_its_own_past(run: Path, model: Model, batches: list[int]) -> None:
    """The weak branch has the weights of then, of the conditioner too."""
    past = build(spec())
    past.load(weights(spec(), EARLY), "here")
    past.modules().eval()
    rows = torch.tensor([1, 1])
    then = {name: v.detach() for name, v in past.conditioner(rows).items()}
    guided = Guided(
        (WithCond(model.parts.denoiser, cond_of(model, "dog", "dog")), WithCond(past.denoiser, then)), CFG(2.5)
    )
    expected = by_hand(model, guided)
    batches.clear()
    images = RunFolder.open(run).plan.snapshot_images(Fraction(1, 8))
    for written in ("1/8", "0.125", str(images)):
        assert torch.equal(made(model, label="dog", guidance=2.5, autoguidance=written), expected)
    assert batches == [2] * 9
    assert not torch.equal(made(model, label="dog", guidance=2.5, autoguidance="1/2"), expected)
    assert torch.equal(
        made(model, label="dog", guidance=1.0, autoguidance="1/8"), made(model, label="dog", guidance=1.0)
    )


def test_the_past_in_another_width_is_made_of_what_was_kept(run: Path, model: Model) -> None:
    kept = checkpoint.load_earlier(RunFolder.open(run), Fraction(1, 2), 0.10)
    assert all(torch.equal(v, weights(spec(), 50)[name]) for name, v in kept.items())
    wide = checkpoint.load_earlier(RunFolder.open(run), Fraction(1, 2), 0.2)
    assert any(not torch.equal(v, kept[name]) for name, v in wide.items())
    # A single average is all there is at 1/8, whatever the width: the coefficients sum to 1.
    only = checkpoint.load_earlier(RunFolder.open(run), Fraction(1, 8), 0.2)
    assert all(torch.allclose(v, weights(spec(), EARLY)[name]) for name, v in only.items())
    assert not torch.equal(
        made(model, label="dog", autoguidance="1/2:width=0.2"), made(model, label="dog", autoguidance="1/2")
    )
    with pytest.raises(Refused, match=r"EMA length of 0\.5"):
        model.request(autoguidance="1/8:width=0.5")


def test_autoguidance_works_without_labels_and_in_bfloat16(plain: Model) -> None:
    past = build(spec(names=()))
    past.load(weights(spec(names=()), EARLY), "here")
    guided = Guided((plain.parts.denoiser, past.modules()["denoiser"].eval()), CFG(2.0))  # pyright: ignore
    exact = made(plain, autoguidance="1/8")
    assert torch.equal(exact, by_hand(plain, guided))
    rough = made(plain, autoguidance="1/8", precision="bfloat16")
    assert 0 < float((rough - exact).abs().max()) < 1.0
    weak = plain.sampler().steering(plain.request(autoguidance="1/8", precision="bfloat16")).weak
    assert weak is not None and {p.dtype for p in weak.denoiser.net.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["picky", "noisy"])
def test_a_classifier_steers_to_its_class(model: Model, name: str) -> None:
    classifier = PICKY[name]()

    def log_prob(x: Tensor, level: Level) -> Tensor:
        return classifier(x, level)[:, 2] * 2 - classifier(x, level)[:, 0]

    cond = cond_of(model, "otter", "otter")
    inner = WithCond(model.parts.denoiser, cond)
    found = made(model, label="otter", guidance=1.0, classifier=f"{name}:scale=3")
    expected = by_hand(
        model, ClassifierGuided(inner, lambda x, level: classifier(x, level)[:, 2], 3.0, classifier.reads)
    )
    assert torch.allclose(found, expected, atol=1e-5)
    assert float((found - made(model, label="otter", guidance=1.0)).abs().max()) > 1e-3
    assert not found.requires_grad
    mixed = made(model, label="otter:2+cat:-1", guidance=1.0, classifier=f"{name}:scale=3")
    parts = tuple(WithCond(model.parts.denoiser, c) for c in (cond, cond_of(model, "cat", "cat")))
    composed = Guided((*parts, parts[0]), Composed((2.0, -1.0), CFG(1.0)))
    assert torch.allclose(mixed, by_hand(model, ClassifierGuided(composed, log_prob, 3.0, classifier.reads)), atol=1e-4)


def test_a_classifier_gives_an_unconditional_model_labels(plain: Model) -> None:
    request = plain.request(n=2, classifier="picky:scale=20", label="otter", steps=6)
    otters, cats = (
        plain.generate(n=4, classifier="picky:scale=20", label=label, steps=6).array.mean()
        for label in ("otter", "cat")
    )
    assert request.labels == ("otter",)
    assert otters > cats + 10
    assert plain.request(classifier="picky").labels == NAMES
    with pytest.raises(Refused, match="did you mean 'otter'"):
        plain.request(classifier="picky", label="oter")


def test_nothing_leaks_between_steps_with_a_classifier(model: Model) -> None:
    for preview in model.stream(model.request(steps=3, classifier="picky")):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert not preview.x.requires_grad and not preview.x0.requires_grad


def test_pictures_record_what_steered_them_and_reproduce(model: Model, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "rule": "apg:eta=0.25",
        "negative": None,
        "autoguidance": "1/8",
        "classifier": "picky:scale=2",
    }
    made = model.generate(n=3, steps=2, seed=4, solver="ddim:eta=0.5", batch=2, **asked)
    paths = made.save(tmp_path / "out")
    saved: Any = read_png(paths[1])[1]["request"]
    assert {name: saved[name] for name in asked} == asked and saved["solver"] == "ddim:eta=0.5"
    assert saved["version"] == VERSION
    for path in paths:
        assert reproduce(path, classifiers=PICKY).same_bytes
    with pytest.raises(Refused, match="loaded without a classifier, so 'picky:scale=2' cannot steer"):
        reproduce(paths[0])
    negative = model.generate(n=2, steps=2, label="cat:2+dog:0.5", negative="otter", rule="cfg++").save(tmp_path / "n")
    assert reproduce(negative[1]).same_bytes


def test_sheets_over_rules(model: Model) -> None:
    base = model.request(label="dog", steps=2, guidance=3.0)
    row = requests(model, base, axis("rule=cfg,apg:w=5,eta=0,norm=15,cfg++:w=0.4"))[0]
    assert [(r.rule, r.guidance) for r in row] == [("cfg", 3.0), ("apg:eta=0,norm=15", 5.0), ("cfg++", 0.4)]
    assert axis("rule=apg:eta=0,norm=15|cfg").values == ("apg:eta=0,norm=15", "cfg")  # as all fields, between bars
    assert [r.negative for r in requests(model, base, axis("negative=none,cat"))[0]] == [None, "cat"]
    row = requests(model, base, axis("autoguidance=1/8:width=0.2,none"), axis("solver=ddim,ddim:eta=1"))
    assert [[(r.autoguidance, r.solver) for r in line] for line in row] == [
        [("1/8:width=0.2", "ddim"), (None, "ddim")],
        [("1/8:width=0.2", "ddim:eta=1"), (None, "ddim:eta=1")],
    ]
    with pytest.raises(Refused, match=r"from 0 .* to 1"):
        requests(model, base, axis("rule=cfg,cfg++"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "agp"}, r"unknown rule 'agp'; did you mean 'apg'\? \(known: apg, cfg, cfg\+\+, rescale, threshold\)"),
        ({"rule": "apg:etta=1"}, "no parameter 'etta'; did you mean 'eta'"),
        ({"rule": "apg:eta=2"}, "'apg:eta=2' is not possible: eta is 2.0"),
        ({"rule": "rescale:phi=-1"}, "phi is -1.0"),
        ({"rule": "threshold:percentile=0"}, "percentile is 0.0"),
        ({"rule": "cfg++", "guidance": 2.0}, "CFG"),
        ({"rule": "cfg++", "solver": "ddpm"}, "deterministic first-order steps, which the solver 'ddpm'"),
        ({"rule": "cfg++", "solver": "ddim:eta=0.5"}, "which the solver 'ddim:eta=0.5' does not make"),
        ({"solver": "ddim:eta=2"}, "eta is 2.0"),
        ({"solver": "ddim:etta=1"}, "did you mean 'eta'"),
        ({"solver": "dim:eta=1"}, "unknown solver 'dim'; did you mean 'ddim'"),
        ({"negative": "oter"}, "did you mean 'otter'"),
        ({"negative": "otter", "autoguidance": "1/8"}, "give one of them"),
        ({"autoguidance": "1/3"}, r"kept no earlier weights at 1/3; it has 1/8 \(20 images\), 1/2 \(50 images\)"),
        ({"autoguidance": "100"}, "kept no earlier weights at 100"),
        ({"autoguidance": "soon"}, "fraction of the run"),
        ({"autoguidance": "1/8", "engine": "onnx"}, "engine"),
        ({"autoguidance": "1/8", "label": "dog+cat"}, "autoguidance goes without"),
        ({"label": "dog:1+cta"}, "did you mean 'cat'"),
        ({"classifier": "piky"}, r"unknown classifier 'piky'; did you mean 'picky'\? \(known: noisy, picky\)"),
        ({"classifier": "picky:scale=-1"}, "scale is -1.0"),
        ({"classifier": "picky:sale=1"}, "did you mean 'scale'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_call(
    model: Model, batches: list[int], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refused, match=message):
        model.generate(**changes)
    assert batches == []


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": 2.0},
        {"rule": "apg"},
        {"negative": "cat"},
        {"guidance_interval": (0.1, 1.0)},
        {"guidance": 2.0, "classifier": "picky"},
    ],
)
def test_an_unconditional_model_has_nothing_to_guide(plain: Model, changes: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="nothing to guide"):
        plain.generate(**changes)


def test_what_a_run_or_a_classifier_does_not_have_is_refused(tmp_path: Path, model: Model) -> None:
    bare = load(make_run(tmp_path / "bare"))
    with pytest.raises(Refused, match="has none before its newest"):
        bare.generate(autoguidance="1/8")
    with pytest.raises(Refused, match="loaded without a classifier, so 'fashion' cannot steer"):
        bare.generate(classifier="fashion")
    run = make_run(tmp_path / "narrow")
    snapshot(run, Fraction(1, 8), EARLY, width=0.05)
    with pytest.raises(Refused, match=r"lacks .*1of8-0.1"):
        load(run).request(autoguidance="1/8")
    alone = Sampler(model.parts, torch.device("cpu"), "here")
    with pytest.raises(Refused, match="here has no earlier weights"):
        alone.request(autoguidance="1/8")

    class Other(Picky):
        names = ("cat", "cow")

    class Large(Picky):
        shape = (3, 8, 8)

    other = load(run, classifiers={"other": Other, "large": Large})
    with pytest.raises(Refused, match=r"does not know the label 'dog' \(known: cat, cow\)"):
        other.request(classifier="other")
    assert other.request(classifier="other", label="cat").classifier == "other"
    with pytest.raises(Refused, match="classifier reads"):
        other.request(classifier="large")


def test_a_damaged_past_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "damaged")
    snapshot(run, Fraction(1, 8), EARLY)
    kept = next((run / "ema").iterdir())
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(Refused, match="1of8"):
        load(run).request(autoguidance="1/8")


def test_info_says_what_can_steer(model: Model) -> None:
    info = model.info()
    assert info["rules"] == ["apg", "cfg", "cfg++", "rescale", "threshold"]
    assert info["moments"] == ["1/8", "1/2"]


def test_clipping_is_of_what_was_steered(model: Model) -> None:
    found = model.request(n=2, guidance=9.0, clip=True, classifier="picky:scale=9", steps=3)
    assert max(float(preview.x0.abs().max()) for preview in model.stream(found)) <= 1.0
    assert np.isfinite(model.gather(found, model.stream(found)).array).all()
