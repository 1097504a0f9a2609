"""The plan of a training, said before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from nirvana.cli.console import Console, duration
from nirvana.files import Json

if TYPE_CHECKING:
    from nirvana.recipes.image import Training
    from nirvana.recipes.order import Order
    from nirvana.recipes.planner import Forecast

_EXPECT = (
    (3_000, "blurred patches with the right colours"),
    (12_000, "rough shapes"),
    (40_000, "shapes that can be recognised, with broken details"),
    (150_000, "mostly convincing pictures with wrong details"),
    (10**18, "about the best this network can do; more time is better spent on a wider one"),
)
"""Images seen, and what samples look like by then: from runs on clothes, emoji and photographs (docs/benchmarks.md)."""
_FEW_PICTURES, _MANY_PASSES = 500, 200
_EXAMPLES = 3


def tell(console: Console, training: Training, order: Order) -> None:
    """Print the plan; with --json one line of it."""
    hard = unread(training)
    if console.json:
        forecast = training.forecast
        manifest = training.data.manifest
        console.emit(
            {
                "event": "plan",
                "accepted": manifest.pictures,
                "rejected": len(manifest.rejected),
                "captioned": manifest.captioned,
                "hard_to_read": list(hard),
                "parameters": training.parameters,
                "model": training.run.model_spec,
                "plan": training.run.plan.to_json(),
                "forecast": None if forecast is None else forecast.to_json(),
            }
        )
    rows = {
        "pictures": pictures(training),
        "told": told(training),
        "network": network(training),
        "training": steps(training),
    }
    if training.forecast is not None:
        rows |= expected(training, training.forecast, order)
    for name, row in rows.items():
        console.note(f"  {name:<10}{row}")
    for notice in (*unused(training), *hard, *training.data.manifest.notes, *training.data.notices):
        console.note(f"  {notice}")


def tell_memory(console: Console, training: Training) -> None:
    """Say how much memory the training took in the end, beside what was planned."""
    from nirvana.recipes.planner import gib
    from nirvana.train.memory import peak

    planned = "" if training.forecast is None else f" (planned: {gib(training.forecast.memory)})"
    console.note(f"peak memory {gib(peak(training.task.device))}{planned}")


def pictures(training: Training) -> str:
    """Files accepted and rejected, kind, size, labels."""
    manifest = training.data.manifest
    kind = "grey" if manifest.channels == 1 else "colour"
    classes = f"{len(manifest.names)} labels" if manifest.names else "no labels"
    text = f"{manifest.pictures} {kind}, {manifest.size}x{manifest.size}, {classes}"
    rejected = manifest.rejected
    if not rejected:
        return text
    examples = "; ".join(f"{entry['path']}: {entry['reason']}" for entry in rejected[:_EXAMPLES])
    more = ", …" if len(rejected) > _EXAMPLES else ""
    where = training.run.path / "data.json"
    return f"{text}; {len(rejected)} unreadable, left out ({examples}{more}; all in {where})"


def unused(training: Training) -> tuple[str, ...]:
    """What the model is not told: captions, or labels beside captions."""
    from nirvana.recipes.subject import subject_in

    manifest, subject = training.data.manifest, subject_in(training.run.model_spec)
    left: list[str] = []
    if manifest.captioned and subject.encoder is None:
        left.append(f"{manifest.captioned} pictures have captions, which are not used (--condition captions)")
    if manifest.names and not subject.names and subject.encoder is not None:
        left.append(f"the {len(manifest.names)} labels are not used beside the captions (--condition both)")
    return tuple(left)


def unread(training: Training) -> tuple[str, ...]:
    """What of the captions the model does not read as they are."""
    from nirvana.recipes.subject import hard_to_read

    wording, captions = training.batches.wording, training.data.captions
    if wording is None or captions is None:
        return ()
    return hard_to_read(training.task.parts.conditioner, wording.all(captions))


def told(training: Training) -> str:
    """What the model is told of its pictures."""
    from nirvana.recipes.subject import subject_in

    subject = subject_in(training.run.model_spec)
    parts = [f"{len(subject.names)} labels"] if subject.names else []
    if subject.encoder is not None:
        captioned = training.data.manifest.captioned
        parts.append(f"the captions of {captioned} pictures, read by {encoder_name(subject.encoder)}")
    seen = cast("Mapping[str, Json]", training.run.model_spec.get("concat") or {}).get("kind")
    if seen == "masked":
        parts.append("a part of each picture, chosen at random")
    elif seen == "paired" and training.data.inputs is not None:
        parts.append(f"the partner of each picture in {training.data.inputs.manifest.source}")
    return " and ".join(parts) or "nothing"


def encoder_name(encoder: Mapping[str, Json]) -> str:
    """A text encoder in words."""
    if encoder["kind"] == "frozen":
        return f"{encoder['source']} (up to {encoder['places']} tokens)"
    return f"an encoder that learns with it (up to {cast(int, encoder['places']) - 1} tokens)"


def network(training: Training) -> str:
    """Parameters, width and stem or patches."""
    spec = cast("dict[str, int | str]", training.run.model_spec["network"])
    size = f"{training.parameters / 1e6:.1f} million parameters"
    if "patch" in spec:
        cells = f"patches of {spec['patch']}x{spec['patch']} pixels"
        return f"transformer of {size}, {spec['width']} wide and {spec['depth']} deep, on {cells}"
    kind = {"unet": "U-Net", "pyramid": "two pyramids of residual blocks"}[str(spec["kind"])]
    return f"{kind} of {size}, {spec['width']} channels wide, on cells of {spec['stem']}x{spec['stem']} pixels"


def steps(training: Training) -> str:
    """Images, batch, passes."""
    plan = training.run.plan
    parts = f" computed in {plan.accumulate} parts" if plan.accumulate > 1 else ""
    often = f"each picture {training.passes:.0f} times" if training.passes >= 1.5 else "each picture once or not at all"
    return f"{plan.images} images in batches of {plan.batch}{parts}, {often}"


def expected(training: Training, forecast: Forecast, order: Order) -> dict[str, str]:
    """Time, memory, and what to expect."""
    from nirvana.generate.family import family_of
    from nirvana.recipes.order import DEFAULT_MINUTES
    from nirvana.recipes.planner import gib

    plan = training.run.plan
    speed = plan.images / forecast.steps
    minutes = "" if order.images is not None else f" of {order.minutes or DEFAULT_MINUTES:g} min"
    expect = next(text for images, text in _EXPECT if plan.images <= images)
    if training.passes > _MANY_PASSES and len(training.data) < _FEW_PICTURES:
        expect = f"copies of the {len(training.data)} pictures rather than new ones: more pictures would help most"
    rows = {
        "time": f"{duration(forecast.seconds)}{minutes} at {speed:.0f} images/s",
        "memory": f"{gib(forecast.memory)} of {gib(forecast.available)}",
    }
    # What images teach a GAN or a VAE was not looked at.
    return {**rows, "expect": expect} if family_of(training.run.model_spec) == "diffusion" else rows
