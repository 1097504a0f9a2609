"""What each picture of a request is to be of: classes, texts, mixtures of them, and the way from one to another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from nirvana.errors import Refused
from nirvana.generate.labels import Mixture, mixture
from nirvana.generate.request import SampleRequest

_WEIGHTED = re.compile(r"\s*(?P<text>.*\S)\s*:\s*(?P<weight>[-+]?\d+(\.\d+)?)\s*", re.DOTALL)


class Ask(NamedTuple):
    """A class (None: without one) and a text ("": without one)."""

    label: str | None
    text: str


_END = re.compile(r"(?:(?P<what>.*\S)\s+)?seed:(?P<seed>\d+)", re.DOTALL)

Asked = tuple[tuple[Ask, float], ...]
"""What a picture is of, with weights."""


def prompts_in(text: str) -> Mixture:
    """The prompts and weights in "a red circle:1.5 + a blue square:0.5"; any other text is one prompt of weight 1.

    It is a mixture where every part between plus signs ends in a colon and a number, and there are two parts or more.
    Refused where a weight is 0, or a prompt is there twice.
    """
    found = [_WEIGHTED.fullmatch(part) for part in text.split("+")]
    parts = [(match["text"], float(match["weight"])) for match in found if match]
    if len(parts) < 2 or len(parts) < len(found):
        return ((text, 1.0),)
    for prompt, weight in parts:
        if weight == 0:
            raise Refused(f"the prompt '{text}' gives '{prompt}' the weight 0; give another number, or leave it out")
    if len({prompt for prompt, _ in parts}) < len(parts):
        raise Refused(f"the prompt '{text}' has a part twice; add its weights up")
    return tuple(parts)


def end_of(written: str | None) -> tuple[str | None, int | None]:
    """The prompt (or label) and the seed where a way ends: "a cat", "seed:5" or "a cat seed:5"; None: as begun."""
    if written is None:
        return None, None
    match = _END.fullmatch(written.strip())
    return (written, None) if match is None else (match["what"], int(match["seed"]))


def asked(request: SampleRequest, i: int, names: Sequence[str], prompts: bool) -> Asked:
    """What picture i is of. names: of the classes; prompts: whether the model takes texts.

    On the way to `request.to` picture i is of the start by the share 1 - i/(n - 1), and of the end by the rest.
    """
    label, text = request.label(i), request.prompt(i)
    begin = _product(label, text or "", names, prompts)
    if request.to is None:
        return begin
    end = _product(label, request.to, names, prompts) if prompts else _product(request.to, "", names, prompts)
    share = request.share(i)
    weights: dict[Ask, float] = {}
    for part, of in ((begin, 1 - share), (end, share)):
        for ask, weight in part:
            weights[ask] = weights.get(ask, 0.0) + of * weight
    return tuple((ask, weight) for ask, weight in weights.items() if weight)


def _product(label: str | None, text: str, names: Sequence[str], prompts: bool) -> Asked:
    labels: Sequence[tuple[str | None, float]] = (
        mixture(label, names) if label is not None and names else ((None, 1.0),)
    )
    texts = prompts_in(text) if prompts else (("", 1.0),)
    return tuple((Ask(name, prompt), weight * other) for name, weight in labels for prompt, other in texts)
