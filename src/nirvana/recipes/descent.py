"""A model that starts from another one: what it keeps, what it leaves, and what of it stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.spec import ModelParts
from nirvana.recipes.recipe import Facts, Recipe
from nirvana.recipes.subject import subject_in
from nirvana.train.checkpoint import load_weights
from nirvana.train.run import RunFolder

_TABLE = "conditioner.embedding.weight"
_NULL, _ROW = f"{_TABLE}/null", f"{_TABLE}/"
_ENTRIES = (".tokens.", ".embedding.vector.")
"""Parts of the names of a network's weights that its conditions enter by."""


def descended(recipe: Recipe, parent: RunFolder, facts: Facts) -> dict[str, Json]:
    """The description of a model that starts from `parent`: its network and levels, these conditions and this size.

    Refused where its pictures, its codec or its levels are others.
    """
    before = parent.model_spec
    shape = cast("list[int]", before["shape"])
    if shape[0] != facts.channels:
        raise Refused(
            f"{parent.path} makes pictures of {shape[0]} channels, and these have {facts.channels};"
            " start from a run of the same kind of pictures, or leave --from out"
        )
    if before["codec"] != recipe.model["codec"]:
        raise Refused(
            f"{parent.path} was trained with the codec {before['codec']}, and the recipe has {recipe.model['codec']};"
            " start from a run with the same codec, or leave --from out"
        )
    # A schedule says which levels are trained, which a child may change; only a table is what its network is told.
    table = ("schedule",) if recipe.model["c_noise"] == "table" else ()
    for name in ("parameterization", "native", "c_in", "c_noise", "learned_variance", *table):
        if before[name] != recipe.model[name]:
            raise Refused(
                f"{parent.path} was trained with {name} {before[name]}, and the recipe has {recipe.model[name]};"
                " choose the recipe it was trained with"
            )
    own = cast("Mapping[str, Json]", recipe.model["network"])
    ways_in = {name: own[name] for name in ("vector_dim", "token_dim")}
    network = {**cast("Mapping[str, Json]", before["network"]), **ways_in}
    return {**recipe.model, "network": network, "sigma_data": before["sigma_data"]}


def descended_weights(parent: RunFolder, facts: Facts) -> dict[str, Tensor]:
    """The averaged weights of `parent`, the rows of its label table named by these classes."""
    weights = {_alone(name): tensor for name, tensor in load_weights(parent).items()}
    table = weights.pop(_TABLE, None)
    known = subject_in(parent.model_spec).names
    if table is not None:
        weights[_NULL] = table[-1]
        for row, name in enumerate(facts.names):
            if name in known:
                weights[f"{_ROW}{row}"] = table[known.index(name)]
    return weights


def take_over(parts: ModelParts, start: Mapping[str, Tensor]) -> None:
    """Copy `start` into the model where names and shapes fit. A class that is new begins at the parent's null class."""
    own = {_alone(name): tensor for name, tensor in parts.modules().state_dict().items()}
    for name, tensor in own.items():
        if name == _TABLE and _NULL in start and start[_NULL].shape == tensor.shape[1:]:
            rows = [start.get(f"{_ROW}{row}", start[_NULL]) for row in range(len(tensor) - 1)]
            tensor.copy_(torch.stack([*rows, start[_NULL]]))
        elif name in start and start[name].shape == tensor.shape:
            tensor.copy_(start[name])


def _alone(name: str) -> str:
    """The name of a weight as in a model of labels alone or of texts alone."""
    return name.replace("conditioner.label.", "conditioner.").replace("conditioner.text.", "conditioner.")


def freeze(parts: ModelParts, frozen: Sequence[str]) -> None:
    """Take the gradients of parts of a model: "encoder", of texts; "network", all but where conditions enter.

    Refused where nothing would be left to train, or where there is no encoder to freeze.
    """
    names = dict(parts.modules().named_parameters())
    for name, parameter in names.items():
        encoder = _alone(name).startswith("conditioner.encoder.")
        network = name.startswith("denoiser.") and not any(entry in name for entry in _ENTRIES)
        if ("encoder" in frozen and encoder) or ("network" in frozen and network):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise Refused("--freeze network leaves nothing to train in a model without a condition; leave it out")
