"""The models that ship: how each is trained, and what its card says that cannot be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nirvana.files import Json
from nirvana.generate.model import Model
from nirvana.recipes.order import Order
from zoo.card import Section
from zoo.concepts import concepts
from zoo.following import following


@dataclass(frozen=True)
class Shipped:
    """A model of the zoo before it is built.

    order: its training. draws, prompt, needs, licence: as on its card. data, limits: paragraphs of it. against: real
    pictures that it was not trained on. measure: what is measured of it beside `nirvana evaluate`. recommended: how it
    is drawn, where its curves say better than the recipe. solvers: those of its curves. pictures: it is trained on so
    many at least.
    """

    order: Order
    draws: str
    prompt: str
    needs: str | None
    licence: str
    data: str
    limits: str
    against: str
    measure: Callable[[Model, Model], list[Section]] = lambda _packed, _trained: []
    recommended: Mapping[str, Json] = field(default_factory=dict[str, Json])
    solvers: tuple[str, ...] = ("ddim", "dpmpp-2m")
    pictures: int = 2


SHIPPED: Mapping[str, Shipped] = {
    "fashion": Shipped(
        order=Order("fashion-mnist", recipe="improved-ddpm", width=48, images=300_000),
        draws="clothes, by class",
        prompt="sneaker",
        needs=None,
        licence="MIT",
        data=(
            "The 60,000 training pictures of Fashion-MNIST (28 x 28, grey, ten classes): Han Xiao, Kashif Rasul, Roland"
            " Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms*,"
            " arXiv:1708.07747, 2017. The MIT License, Copyright © 2017 Zalando SE; its text stands in"
            " `src/nirvana/data/embedded/ATTRIBUTION.md`. The weights are under the same licence. The 10,000 test"
            " pictures were not trained on."
        ),
        limits=(
            "Small grey pictures of ten kinds of clothes as a shop shows them, and nothing else. Writing and fine"
            " patterns on cloth are no more than texture. `shirt` is the class that is mistaken most, as it is for"
            " classifiers of the real pictures. It is drawn best with noise at every step, by the variance that it"
            " learned; a solver without noise is no quicker way to the same quality (see the table of network calls)."
        ),
        against="fashion-mnist:test",
        recommended={"steps": 25},
        solvers=("ddpm-learned", "dpmpp-2m"),
        pictures=60_000,
    ),
    "shapes": Shipped(
        order=Order("shapes", recipe="flow", width=48, images=540_000),
        draws="one to three shapes, by text",
        prompt="a small red circle above a large blue square",
        needs=None,
        licence="CC0-1.0",
        data=(
            "50,000 scenes of `shapes`, the procedural set that is part of nirvana (32 x 32, colour, captions of every"
            " scene), without the held-out combinations of shape, colour and relation. The weights are in the public"
            " domain (CC0-1.0)."
        ),
        limits=(
            'It knows the words of the grammar of `shapes` and no others: `nirvana prompt shapes "..."` shows which'
            " words of a prompt it does not know."
        ),
        against="shapes:heldout",
        measure=following,
    ),
    "emoji": Shipped(
        order=Order("emoji", recipe="flow", condition="captions", encoder="minilm", images=360_000, width=64),
        draws="emoji, by text, in three styles",
        prompt="a red heart, flat emoji",
        needs="text",
        licence="CC-BY-4.0",
        data=(
            "1,240 of the 1,376 concepts of `emoji` in three styles (64 x 64, on white): Noto Emoji (Google, Apache"
            " License 2.0), Twemoji (Twitter and contributors, CC-BY 4.0), Fluent Emoji (Microsoft, MIT License), with"
            " labels and tags of emojibase (MIT License); all of it as attributed in"
            " `src/nirvana/data/embedded/ATTRIBUTION.md`. The others were held out, as families, in all styles. Texts"
            " are read by all-MiniLM-L6-v2 (Apache License 2.0), which is no part of the weights. Pictures of this"
            " model may have to carry the attribution of Twemoji: its"
            " weights are under CC-BY 4.0."
        ),
        limits=(
            "Trained from nothing on less than four thousand pictures: it knows the concepts it has seen and mixes them"
            " for others. Outlines are rough, as drawn with a brush. Faces, hearts, clocks and other plain things are"
            " recognised; crowded ones, flags and writing are not. The style is drawn as asked about every second time."
            " English only."
        ),
        against="emoji:test",
        recommended={"guidance": 4.0},
        measure=concepts,
    ),
}
