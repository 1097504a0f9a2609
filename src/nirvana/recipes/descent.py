"""A model that starts from another one: what it keeps, what it leaves, and what of it stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from nirvana.condition import extended_table
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.family import ARTICLES, Parts, family_of
from nirvana.generate.spec import ModelParts
from nirvana.recipes.recipe import Facts, Recipe
from nirvana.recipes.subject import JOINT, subject_in
from nirvana.train.checkpoint import load_weights
from nirvana.train.run import RunFolder
from nirvana.zoo import called

_TABLE = "conditioner.embedding.weight"
"""So end the names of the tables of classes: a GAN has one for each of its players."""
_TOKENS, _PLACES = (f"conditioner.encoder.network.{name}.weight" for name in ("tokens", "places"))
"""The tables of a text encoder that learns with the network."""
_WAYS_IN = ("vector_dim", "token_dim", "concat_channels")
"""The sizes of a network's conditions, which a child may have others of."""
_ENTRIES = (".tokens.", ".embedding.vector.", ".concat.")
"""Parts of the names of a network's weights that its conditions enter by."""


def descended(recipe: Recipe, parent: RunFolder, facts: Facts) -> dict[str, Json]:
    """The description of a model that starts from `parent`: its network and levels, these conditions and this size.

    Refused where its pictures, its codec or its levels are others.
    """
    before, name = parent.model_spec, called(parent.path)
    shape = cast("list[int]", before["shape"])
    if shape[0] != facts.channels:
        raise Refused(
            f"{name} makes pictures of {shape[0]} channels, and these have {facts.channels};"
            " start from a run of the same kind of pictures, or leave --from out"
        )
    if family_of(before) != family_of(recipe.model):
        raise Refused(
            f"{name} is {ARTICLES[family_of(before)]}, and the recipe makes {ARTICLES[family_of(recipe.model)]};"
            " choose the recipe it was trained with"
        )
    if before["codec"] != recipe.model["codec"]:
        raise Refused(
            f"{name} was trained with the codec {before['codec']}, and the recipe has {recipe.model['codec']};"
            " start from a run with the same codec, or leave --from out"
        )
    own = cast("Mapping[str, Json]", recipe.model["network"])
    kept = cast("Mapping[str, Json]", before["network"])
    if own["kind"] != kept["kind"]:
        raise Refused(
            f"{name} has a {kept['kind']}, and the recipe a {own['kind']}; choose the recipe it was trained with"
        )
    network = {**kept, **{n: own[n] for n in _WAYS_IN if n in own}}
    if family_of(before) != "diffusion":
        return _of_latent(recipe, parent, network)
    # A schedule says which levels are trained, which a child may change; only a table is what its network is told.
    table = ("schedule",) if recipe.model["c_noise"] == "table" else ()
    for entry in ("parameterization", "native", "c_in", "c_noise", "learned_variance", *table):
        if before[entry] != recipe.model[entry]:
            raise Refused(
                f"{name} was trained with {entry} {before[entry]}, and the recipe has {recipe.model[entry]};"
                " choose the recipe it was trained with"
            )
    return {**recipe.model, "network": network, "sigma_data": before["sigma_data"]}


def _of_latent(recipe: Recipe, parent: RunFolder, network: Mapping[str, Json]) -> dict[str, Json]:
    """The description of a GAN or VAE that starts from `parent`; Refused where its pictures have another size."""
    before, name = parent.model_spec, called(parent.path)
    if before["shape"] != recipe.model["shape"]:
        side = cast("list[int]", before["shape"])[-1]
        raise Refused(f"{name} makes pictures of {side} pixels, and its network has one size; give --size {side}")
    return {**recipe.model, "network": network, "latent": before["latent"]}


def descended_weights(parent: RunFolder, facts: Facts) -> dict[str, Tensor]:
    """The averaged weights of `parent`, the rows of its label table named by these classes, of its tokens by these."""
    weights = {_alone(name): tensor for name, tensor in load_weights(parent).items()}
    before = subject_in(parent.model_spec)
    known = before.names
    if _TOKENS in weights:
        table = weights.pop(_TOKENS)
        if before.encoder is not None and facts.encoder is not None and facts.encoder["kind"] == JOINT:
            rows = extended_table(table, before.encoder, facts.encoder)
            weights |= {} if rows is None else {_TOKENS: rows}
    for of in [name for name in weights if name.endswith(_TABLE)]:
        table = weights.pop(of)
        weights[f"{of}/null"] = table[-1]
        for row, name in enumerate(facts.names):
            if name in known:
                weights[f"{of}/{row}"] = table[known.index(name)]
    return weights


def take_over(parts: Parts, start: Mapping[str, Tensor]) -> None:
    """Copy `start` into the model where names and shapes fit. A class that is new begins at the parent's null class."""
    own = {_alone(name): tensor for name, tensor in parts.modules().state_dict().items()}
    for name, tensor in own.items():
        null = start.get(f"{name}/null")
        if null is not None and null.shape == tensor.shape[1:]:
            rows = [start.get(f"{name}/{row}", null) for row in range(len(tensor) - 1)]
            tensor.copy_(torch.stack([*rows, null]))
        elif name in start and start[name].shape == tensor.shape:
            tensor.copy_(start[name])
        elif name == _PLACES and name in start and start[name].shape[1:] == tensor.shape[1:]:
            both = min(len(tensor), len(start[name]))
            tensor[:both].copy_(start[name][:both])


def _alone(name: str) -> str:
    """The name of a weight as in a model of labels alone or of texts alone."""
    return name.replace("conditioner.label.", "conditioner.").replace("conditioner.text.", "conditioner.")


def freeze(parts: Parts, frozen: Sequence[str]) -> None:
    """Take the gradients of parts of a model: "encoder", of texts; "network", all but where conditions enter.

    Refused where nothing would be left to train, or in a model of another family than diffusion, which has neither.
    """
    if frozen and not isinstance(parts, ModelParts):
        raise Refused(f"{ARTICLES[parts.family]} has no parts to freeze; leave --freeze out")
    names = dict(parts.modules().named_parameters())
    for name, parameter in names.items():
        encoder = _alone(name).startswith("conditioner.encoder.")
        network = name.startswith("denoiser.") and not any(entry in name for entry in _ENTRIES)
        if ("encoder" in frozen and encoder) or ("network" in frozen and network):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise Refused("--freeze network leaves nothing to train in a model without a condition; leave it out")
