"""From what a user says pictures shall be of, to the labels and prompts of a request; how a model reads them."""

from __future__ import annotations

from collections.abc import Sequence

from nirvana.condition import Conditioner, LabelConditioner, NoConditioner, Reading
from nirvana.errors import Refused, nearest
from nirvana.generate.asked import prompts_in
from nirvana.generate.request import SampleRequest

_MOST_NAMED = 20
_SHOWN = 60

Said = str | Sequence[str] | None


def subjects(conditioner: Conditioner) -> tuple[str, ...]:
    """What pictures are of where nobody says: examples of captions, or the classes; empty for a model without."""
    return (conditioner.examples or ("",)) if conditioner.prompts else conditioner.names


def wanted(
    conditioner: Conditioner, where: str, prompt: Said, label: Said, known: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels and the prompts that take turns; where nobody says, all classes, or examples of captions.

    known: the classes a label can be of, the model's or a classifier's. Refused, naming `where`, where a model of
    labels is given a prompt, or one of texts a label.
    """
    if not conditioner.prompts:
        if prompt is not None and not isinstance(prompt, str):
            raise Refused(f"{where} takes no prompts; give labels")
        return _labels(conditioner, where, prompt, label, known), ()
    if label is not None and not known:
        conditioner.index(label if isinstance(label, str) else "".join(label[:1]))
    chosen = subjects(conditioner) if prompt is None and label is None else "" if prompt is None else prompt
    prompts = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    if not prompts:
        raise Refused("an empty list of prompts was given; give at least one, or leave it out for examples")
    # Without a label a model of both is asked for none; a classifier must be.
    if label is None and conditioner.names:
        return (), prompts
    return _labels(conditioner, where, None, label, known), prompts


def _labels(
    conditioner: Conditioner, where: str, prompt: str | None, label: Said, known: tuple[str, ...]
) -> tuple[str, ...]:
    if prompt is not None and label is not None:
        raise Refused(f"both the prompt '{prompt}' and a label were given; this model takes labels: give one of them")
    if prompt is not None and prompt not in known:
        raise Refused(_no_prompts(conditioner, where, prompt))
    chosen = prompt if label is None else label
    if chosen is None:
        return known
    names = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    if not names:
        raise Refused("an empty list of labels was given; name at least one, or leave it out for all of them in turn")
    return names


def _no_prompts(conditioner: Conditioner, where: str, prompt: str) -> str:
    names = conditioner.names
    if not names:
        return f"{where} was trained without labels or captions; leave the prompt '{prompt}' out"
    known = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
    return (
        f"{where} knows labels, not prompts; '{prompt}' is none of them{nearest(prompt, names)}"
        f" (use --label with one of: {known})"
    )


def readings(conditioner: Conditioner, request: SampleRequest) -> list[Reading]:
    """How the model reads every text of `request`, each once; none for a model without texts."""
    if isinstance(conditioner, LabelConditioner | NoConditioner):
        return []
    sources = () if request.edit is None else request.edit.sources
    texts = [*request.prompts, *filter(None, (request.to, *sources))]
    parts = [part for text in texts for part, _ in prompts_in(text)]
    return [conditioner.read(text) for text in dict.fromkeys([*parts, *filter(None, [request.negative])])]


def check_whole(conditioner: Conditioner, where: str, request: SampleRequest) -> None:
    """Refused where a text is too long to be read at once."""
    for reading in readings(conditioner, request):
        if not reading.whole:
            raise Refused(
                f"the prompt '{reading.text[:_SHOWN]}' has {len(reading.tokens)} tokens, and {where} reads"
                f" {reading.window} at once; shorten it, or do without strict"
            )


def check_engine(conditioner: Conditioner, request: SampleRequest) -> None:
    """Refused where a text is longer than those an exported network takes: the longest caption of its training."""
    if request.engine == "torch" or isinstance(conditioner, LabelConditioner | NoConditioner):
        return
    for reading in readings(conditioner, request):
        if reading.states > conditioner.places:
            raise Refused(
                f"the prompt '{reading.text[:_SHOWN]}' has {reading.states} token states, and the engine"
                f" '{request.engine}' takes {conditioner.places}; shorten it, or use the engine 'torch'"
            )
