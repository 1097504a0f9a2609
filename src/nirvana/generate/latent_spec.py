"""GANs and VAEs as a run folder describes them: models that draw a picture from a latent vector in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nirvana.codec import Identity, codec_from_config
from nirvana.condition import Conditioner, conditioner_from_config
from nirvana.errors import Refused, nearest
from nirvana.files import Json
from nirvana.generate.checks import text, whole
from nirvana.generate.spec import Recommended, Spec, config_of, load_weights_into
from nirvana.latent import log_scale
from nirvana.nn import Critic, Decoder, Encoder, PyramidConfig

DIRECT = "direct"
"""The solver and grid of a model that draws in one call, and has neither."""

DRAWING = Recommended(steps=1, solver=DIRECT, grid=DIRECT, guidance=1.0, clip=False)

FAMILIES = ("gan", "vae")

_HASTE = 10.0
"""An optimiser that moves every number by about the rate moves log sigma so many times faster: it has far to go."""

_REQUIRED = ("family", "network", "latent", "conditioner", "codec", "shape")


@dataclass(frozen=True, eq=False)
class LatentParts:
    """A model that draws x0 = decoder(z, cond) for a unit normal z of `latent` numbers: what a GAN and a VAE share.

    shape: (C, H, W) of what it draws.
    """

    family: ClassVar[str]

    decoder: Decoder
    conditioner: Conditioner
    codec: Identity
    shape: tuple[int, ...]
    latent: int

    @property
    def recommended(self) -> Recommended:
        """One call, and nothing to choose."""
        return DRAWING

    def modules(self) -> nn.ModuleDict:
        """The modules with weights. Their `state_dict` and `named_parameters` are the names in every checkpoint."""
        return nn.ModuleDict({"decoder": self.decoder, "conditioner": self.conditioner})

    def load(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Take over `weights`, all of them; Refused, naming `where`, where names or shapes differ."""
        load_weights_into(self.modules(), weights, where)

    def draw(self, z: Float[Tensor, "b latent"], cond: Mapping[str, Tensor]) -> Float[Tensor, "b c *s"]:
        """The pictures of latent vectors under a condition."""
        return self.decoder(z, cond.get("vector"))


@dataclass(frozen=True, eq=False)
class GanParts(LatentParts):
    """A GAN: the decoder is the generator; the critic and its own classes serve in training only."""

    family: ClassVar[str] = "gan"

    critic: Critic
    critic_conditioner: Conditioner

    def modules(self) -> nn.ModuleDict:
        """All modules with weights."""
        own = {"critic": self.critic, "critic_conditioner": self.critic_conditioner}
        return nn.ModuleDict({"decoder": self.decoder, "conditioner": self.conditioner, **own})


class Scale(nn.Module):
    """The logarithm of the scale of a VAE's likelihood, one learned number for all pictures."""

    def __init__(self, start: float = -1.0) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(start / _HASTE))

    def forward(self) -> Float[Tensor, ""]:
        """log sigma."""
        return log_scale(_HASTE * self.raw)


@dataclass(frozen=True, eq=False)
class VaeParts(LatentParts):
    """A VAE: the decoder gives the mean of a Gaussian with a learned scale; the encoder gives the posterior of z."""

    family: ClassVar[str] = "vae"

    encoder: Encoder
    scale: Scale

    def modules(self) -> nn.ModuleDict:
        """All modules with weights."""
        own = {"encoder": self.encoder, "scale": self.scale}
        return nn.ModuleDict({"decoder": self.decoder, "conditioner": self.conditioner, **own})


def latent_spec(family: str, net: PyramidConfig, latent: int, names: tuple[str, ...]) -> dict[str, Json]:
    """The description of a GAN or VAE: what `build_latent` reads."""
    network: dict[str, Json] = {**dataclasses.asdict(net), "size": list(net.size), "multipliers": list(net.multipliers)}
    conditioner: dict[str, Json] = {"kind": "none"}
    if names:
        conditioner = {"kind": "labels", "names": list(names), "dim": net.vector_dim, "drop": 0.0}
    return {
        "family": family,
        "network": {"kind": "pyramid", **network},
        "latent": latent,
        "conditioner": conditioner,
        "codec": {"kind": "identity"},
        "shape": [net.channels, *net.size],
    }


def build_latent(spec: Spec) -> LatentParts:
    """The model of `spec`, with fresh weights. Refused, naming the entry, at anything unknown, missing or ill-typed."""
    for name in _REQUIRED:
        if name not in spec:
            raise Refused(f"the model's description lacks '{name}'; its run.json is damaged or edited")
    for name in spec:
        if name not in _REQUIRED:
            raise Refused(f"the model's description has an unknown entry '{name}'{nearest(name, _REQUIRED)}")
    net, classes = _pyramid(spec["network"]), _object(spec, "conditioner")
    latent = whole("latent", spec["latent"], least=1)
    conditioner = conditioner_from_config(classes)
    if spec["shape"] != [net.channels, *net.size] or net.vector_dim != conditioner.dim:
        raise Refused(
            f"the pyramid of {net.channels} channels, size {list(net.size)} and vector_dim {net.vector_dim} does not"
            f" fit the shape {spec['shape']} and the conditioner's dim {conditioner.dim}"
        )
    decoder, codec, shape = Decoder(net, latent), codec_from_config(_object(spec, "codec")), (net.channels, *net.size)
    if spec["family"] == "vae":
        return VaeParts(decoder, conditioner, codec, shape, latent, Encoder(net, 2 * latent), Scale())
    # The critic is told the class by projection, onto as many features as its own table is wide.
    features = max(latent, net.vector_dim)
    own = conditioner_from_config({**classes, "dim": features} if conditioner.names else classes)
    critic = Critic(dataclasses.replace(net, vector_dim=0), features)
    return GanParts(decoder, conditioner, codec, shape, latent, critic, own)


def _pyramid(value: object) -> PyramidConfig:
    if not isinstance(value, Mapping) or value.get("kind") != "pyramid":
        raise Refused(f"'network' of the model's description must be a pyramid, got {value!r}")
    return config_of(PyramidConfig, {name: v for name, v in cast(Spec, value).items() if name != "kind"})


def _object(spec: Spec, name: str) -> Spec:
    value = spec[name]
    if not isinstance(value, Mapping):
        raise Refused(f"'{name}' of the model's description must be an object, got {value!r}")
    text(f"kind of the {name}", cast(Spec, value).get("kind"))
    return cast(Spec, value)
