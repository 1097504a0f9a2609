"""`nirvana info`."""

from __future__ import annotations

from typing import Annotated, cast

from tyro.conf import Positional, arg

from nirvana.cli.console import Console
from nirvana.files import Json

_SEEN = {
    "masked": "what is known of a picture (nirvana inpaint)",
    "paired": "a picture to make another one of (nirvana translate)",
}


def info(console: Console, model: Annotated[Positional[str], arg(metavar="MODEL")]) -> None:
    """Say what is known about a trained model.

    examples:
      nirvana info runs/flowers
      nirvana info runs/flowers --json

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
    """
    from nirvana.generate.model import load

    found = load(model, device="cpu")
    known = found.info()
    console.result(_lines(known), known)


def _lines(known: dict[str, Json]) -> str:
    shape = " x ".join(map(str, cast("list[int]", known["shape"])))
    none = "none" if known["prompts"] else "none (unconditional)"
    labels = ", ".join(cast("list[str]", known["labels"])) or none
    best = ", ".join(f"{name} {value}" for name, value in cast("dict[str, Json]", known["recommended"]).items())
    state = "finished" if known["finished"] else f"stopped before {known['planned_images']}"
    concat = cast("dict[str, Json] | None", known["concat"])
    seen = {} if concat is None else {"sees": f"{_SEEN[str(concat['kind'])]}, {concat['channels']} channels"}
    diffusion = {
        "recommended": best,
        "solvers": ", ".join(cast("list[str]", known["solvers"])),
        "rules": ", ".join(cast("list[str]", known["rules"])),
        "moments": ", ".join(cast("list[str]", known["moments"])) or "none (for autoguidance)",
    }
    rows = {
        "model": known["path"],
        "family": known["family"],
        "makes": f"{shape} (channels, height, width)",
        "labels": labels,
        "prompts": "any text" if known["prompts"] else "none",
        **seen,
        "parameters": f"{known['parameters']:,}",
        "trained": f"{known['trained_images']} images seen, {state}",
        "data": f"{known['source']}, {known['pictures']} pictures, {known['rejected']} files rejected",
        **(diffusion if known["family"] == "diffusion" else {}),
        "made": " by ".join(str(part) for part in (known["created"], known["command"]) if part),
        "weights": f"sha256 {known['weights_sha256']}",
    }
    return "\n".join(f"{name:<12}{value}" for name, value in rows.items())
