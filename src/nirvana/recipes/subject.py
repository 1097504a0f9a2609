"""What a model is told of its pictures: classes, texts, both, or nothing, decided from the data and the order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from nirvana.condition import (
    MINILM,
    Conditioner,
    FrozenEncoder,
    JointEncoder,
    LabelConditioner,
    NoConditioner,
    TextConditioner,
    frozen_from_config,
    has_minilm,
    joint_config,
    joint_extended,
)
from nirvana.condition.encoder import MOST_PLACES
from nirvana.condition.frozen import HUB
from nirvana.data import Captions, Dataset, Wording
from nirvana.data.wording import PLACE
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.latent_spec import FAMILIES
from nirvana.recipes.order import Order
from nirvana.train.run import RunFolder

JOINT = "joint"
_FAMILIAR = 50
"""So often, in the median, captions must use a word to teach what it means."""
_MOST_TEXTS = 30_000
"""More are not encoded beforehand unless that is asked for: at about 100 a second."""

_SHOWN = 60
_GOLDEN = (5**0.5 - 1) / 2

EXAMPLES = 10
"""Captions that are kept with a model, to draw where nobody says what."""


@dataclass(frozen=True, eq=False)
class Subject:
    """names: of the classes; encoder: the description of the text encoder; wording: of the captions. None: without."""

    names: tuple[str, ...] = ()
    encoder: Mapping[str, Json] | None = None
    examples: tuple[str, ...] = ()
    wording: Wording | None = None


def subject_of(order: Order, data: Dataset, parent: RunFolder | None = None) -> Subject:
    """What a model of `data` is told, as `order` says, or else by what there is: captions, or labels, or nothing.

    A model that starts from `parent` is told what that was, where the data have it, and keeps its text encoder.
    Refused where the data have no labels and those were asked for, and where a GAN or VAE shall learn from captions.
    ValueError: no captions, which opening refuses.
    """
    condition = order.condition if order.condition != "auto" else _chosen(data, parent, order.recipe)
    if order.recipe in FAMILIES and (condition in ("captions", "both") or order.encoder != "auto"):
        raise Refused(
            f"the recipe '{order.recipe}' learns from labels or from nothing, not from captions; choose --condition"
            " labels or none and leave --encoder out, or choose a recipe of a diffusion model"
        )
    names = data.names if data.labels is not None and condition in ("labels", "both") else ()
    if condition in ("labels", "both") and not names:
        raise Refused(
            f"{order.source} has no labels to train on: put the pictures of each class into a folder of its name, or"
            " choose another --condition"
        )
    if condition not in ("captions", "both"):
        _check_unused(order, condition, data)
        return Subject(names)
    if data.captions is None:
        raise ValueError("data for a model of texts must be opened with captions=True")
    wording = wording_in(order.to_json())
    texts = wording.all(data.captions)
    kept = None if parent is None else encoder_in(parent.model_spec)
    if kept is None or order.encoder not in ("auto", kept["kind"]):
        kept = encoder_of(order.encoder, texts)
    elif kept["kind"] == JOINT and "encoder" not in order.freeze:
        kept = joint_extended(kept, texts)
    return Subject(names, kept, examples_of(wording, data.captions), wording)


def _check_unused(order: Order, condition: str, data: Dataset) -> None:
    """Refused where something is said of captions that nothing is learnt from."""
    given = [
        option
        for option, is_given in (
            ("--encoder", order.encoder != "auto"),
            ("--template", bool(order.templates)),
            ("--shuffle-tags", order.shuffle_tags),
            ("--freeze encoder", "encoder" in order.freeze),
        )
        if is_given
    ]
    if given:
        captioned = data.manifest.captioned
        there = f"{captioned} of {len(data)} pictures have one" if captioned else f"{order.source} has none"
        raise Refused(
            f"{given[0]} is for captions, and the model is told {'nothing' if condition == 'none' else condition}"
            f" ({there}); choose --condition captions, or leave it out"
        )


def check_frozen(order: Order, subject: Subject) -> None:
    """Refused where an encoder shall keep its weights that is not trained anyway."""
    if "encoder" in order.freeze and subject.encoder is not None and subject.encoder["kind"] != JOINT:
        raise Refused(f"the text encoder {subject.encoder['source']} is never trained; leave --freeze encoder out")


def encoder_of(name: str, texts: Sequence[str]) -> Mapping[str, Json]:
    """The description of the text encoder of that name for a caption set: "joint", "minilm", a folder, or "hf:NAME".

    A number behind a # is the layer (clip/#-2). "auto": captions that use each word often teach an encoder what words
    mean; others are read by the packaged one, where it is installed. Refused where the encoder is not there.
    """
    if name == "auto":
        taught = familiarity(texts) >= _FAMILIAR or len(texts) > _MOST_TEXTS or not has_minilm()
        name = JOINT if taught else MINILM
    if name == JOINT:
        return joint_config(texts)
    source, _, layer = name.partition("#")
    if layer and not layer.removeprefix("-").isdecimal():
        raise Refused(
            f"the layer of a text encoder is a whole number, got '{layer}'; -1 is the last, -2 the one before"
        )
    return FrozenEncoder.open(source, int(layer or -1), download=source.startswith(HUB)).fitted(texts).config()


def remember(subject: Subject, data: Dataset, progress: Callable[[int, int], None]) -> None:
    """Encode all wordings of the captions beforehand, where the encoder does not learn; progress(done, total)."""
    encoder, wording = subject.encoder, subject.wording
    if encoder is not None and wording is not None and data.captions is not None and encoder["kind"] == "frozen":
        frozen_from_config(encoder).remember(wording.all(data.captions), progress)


def subject_in(spec: Mapping[str, Json], config: Mapping[str, Json] | None = None) -> Subject:
    """What the model of a description is told; config: of its training, which says how captions are worded."""
    conditioner = cast("Mapping[str, Json]", spec["conditioner"])
    label = cast("Mapping[str, Json]", conditioner.get("label", conditioner))
    text = cast("Mapping[str, Json]", conditioner.get("text", conditioner))
    names = tuple(cast("list[str]", label.get("names", [])))
    encoder = cast("Mapping[str, Json] | None", text.get("encoder"))
    if encoder is None:
        return Subject(names)
    wording = None if config is None else wording_in(config)
    return Subject(names, encoder, tuple(cast("list[str]", text.get("examples", []))), wording)


def encoder_in(spec: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """The description of the text encoder in that of a model; None for a model without."""
    return subject_in(spec).encoder


def wording_in(config: Mapping[str, Json]) -> Wording:
    """How the captions are worded in a training of this `config` (that of `Order.to_json`)."""
    templates = tuple(cast("Sequence[str]", config.get("templates", ())))
    return Wording(templates or (PLACE,), bool(config.get("shuffle_tags", False)))


def _chosen(data: Dataset, parent: RunFolder | None, recipe: str) -> str:
    texts = recipe not in FAMILIES and 2 * data.manifest.captioned >= len(data)
    has = {"captions": texts, "labels": data.labels is not None}
    if parent is not None and has["labels"] and subject_in(parent.model_spec).names:
        both = encoder_in(parent.model_spec) is not None and has["captions"]
        return "both" if both else "labels"
    return next((name for name, there in has.items() if there), "none")


def hard_to_read(conditioner: Conditioner, texts: Sequence[str]) -> tuple[str, ...]:
    """What of the captions of a training the model does not read as they are, in words: nothing is cut in silence."""
    if isinstance(conditioner, LabelConditioner | NoConditioner):
        return ()
    encoder = (conditioner if isinstance(conditioner, TextConditioner) else conditioner.text).encoder
    if isinstance(encoder, JointEncoder) and encoder.places < MOST_PLACES:
        learns = all(parameter.requires_grad for parameter in encoder.parameters())
        if learns:  # its tokens and places were made for these captions: 100,000 need not be read again
            return ()
    readings = [conditioner.read(text) for text in texts]
    found = {
        "are longer than what is read at once, and read in pieces that do not know of each other": [
            r for r in readings if not r.whole
        ],
        "lose what is behind their last piece": [r for r in readings if r.kept < len(r.tokens)],
        "have tokens that the text encoder does not know": [r for r in readings if any(r.unknown)],
    }
    return tuple(
        f"{len(some)} of {len(texts)} captions {what} (first: '{_short(some[0].text)}')"
        for what, some in found.items()
        if some
    )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def examples_of(wording: Wording, captions: Captions) -> tuple[str, ...]:
    """Some captions, of pictures spread over the whole set, each once.

    Their places are multiples of the golden ratio: a period in the data, such as one picture of each style in turn,
    would hide from even steps.
    """
    with_text = [said for said in captions if said]
    places = sorted(int(i * _GOLDEN % 1 * len(with_text)) for i in range(EXAMPLES))
    chosen = [with_text[place] for place in places]
    return tuple(dict.fromkeys(wording.wordings(said)[0] for said in chosen))


def familiarity(texts: Sequence[str]) -> float:
    """How often a word occurs, in the median over the words of all texts: whether they can teach what words mean."""
    counts = sorted(Counter(word for text in texts for word in text.lower().split()).values())
    return float(counts[len(counts) // 2]) if counts else 0.0
