"""The families of models: diffusion, and the two that draw from a latent vector; one way to build them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from nirvana.errors import Refused, unknown
from nirvana.files import Json
from nirvana.generate.latent_spec import FAMILIES, LatentParts, build_latent
from nirvana.generate.spec import ModelParts, Spec, build

Parts = ModelParts | LatentParts

ARTICLES: Mapping[str, str] = {"diffusion": "a diffusion model", "gan": "a GAN", "vae": "a VAE"}


def family_of(spec: Spec) -> str:
    """ "diffusion", which a description need not say, "gan" or "vae". Refused where it is another."""
    family = spec.get("family", "diffusion")
    if family not in ("diffusion", *FAMILIES):
        raise unknown("family", str(family), ("diffusion", *FAMILIES))
    return str(family)


def model_parts(spec: Spec) -> Parts:
    """The model of `spec`, of any family, with fresh weights. Refused at anything unknown, missing or ill-typed."""
    return build(spec) if family_of(spec) == "diffusion" else build_latent(spec)


def check_diffusion(spec: Spec, where: str, what: str) -> None:
    """Refused, naming `where` and the family, unless `spec` is a diffusion model, which alone has `what`."""
    family = family_of(spec)
    if family != "diffusion":
        raise Refused(f"{where} is {ARTICLES[family]}, which has no {what}; name the run of a diffusion model")


def recommending(spec: Mapping[str, Json], where: str, changes: Mapping[str, Json]) -> dict[str, Json]:
    """`spec` with `changes` in what it recommends (`Recommended`), where the user of the model says nothing.

    Refused, naming `where`, for a family without solvers, and for an unknown entry or value.
    """
    if not changes:
        return dict(spec)
    check_diffusion(spec, where, "solver, grid or guidance to recommend")
    changed: dict[str, Json] = {**spec, "recommended": {**cast("dict[str, Json]", spec["recommended"]), **changes}}
    build(changed)
    return changed
