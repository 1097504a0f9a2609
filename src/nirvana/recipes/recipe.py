"""What a run is made of, by name: a recipe is a function from facts about the data to a frozen dataclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from nirvana.condition import concat_from_config
from nirvana.diffusion import (
    Chain,
    DiscreteUniform,
    EDMLogNormal,
    EDMWeight,
    FlowWeight,
    LogitNormal,
    Objective,
    SameSpace,
    Schedule,
    Simple,
)
from nirvana.files import Json
from nirvana.generate.latent_spec import latent_spec
from nirvana.generate.spec import ModelParts, NetworkConfig, Recommended, network_spec
from nirvana.latent import Evidence, Relativistic
from nirvana.nn import DiTConfig, PyramidConfig, UNetConfig

VECTOR = 128
"""Width of the vector a class label or a text becomes."""

DROP = 0.1
"""The share of samples that are shown without their condition."""

TEXT_SHIFT, TEXT_SPREAD = 2.0, 1.5
"""In training on texts, ratios of noise are so many times larger (Esser et al. 2024, eq. 23), and their logarithms
spread so many times wider: much noise teaches where things lie, little noise their edges, and neither may be rare.
"""

RATE, TEXT_RATE = 2e-3, 7e-4
"""Peak rates of a U-Net. What words mean together, who is left of whom, is not learned while the network that reads
them changes quickly: at 2e-3 two things are where they are by chance even after 100,000 pictures (docs/text.md).
"""

LATENT = 64
"""Numbers of the latent vector of a GAN or VAE, and of the vector a class becomes there."""

WIDTH = 32
"""Channels at the finest level where nothing says otherwise."""


@dataclass(frozen=True)
class Facts:
    """What a recipe looks at: the pictures' size and channels, the names of the classes, the description of the text
    encoder (neither: unconditional) with examples of captions, and the planner's choice of the network: channels at the
    finest level, and the side of the stem's cells (None: `stem_of`). concat: the description of what is seen beside the
    noisy picture (`Concat`), None for a model without.
    """

    size: int
    channels: int
    names: tuple[str, ...] = ()
    width: int = WIDTH
    stem: int | None = None
    encoder: Mapping[str, Json] | None = None
    examples: tuple[str, ...] = ()
    concat: Mapping[str, Json] | None = None

    @property
    def conditional(self) -> bool:
        """Whether the model is told anything of its pictures."""
        return bool(self.names) or self.encoder is not None


_DIT_TIMES = 4
"""A transformer is so many times as wide as a U-Net would be."""


def as_in(facts: Facts, spec: Mapping[str, Json]) -> Facts:
    """`facts` with the width and the cells of the network of a description: a recipe chooses by them."""
    network = cast("Mapping[str, Any]", spec["network"])
    cells, times = ("patch", _DIT_TIMES) if network["kind"] == "dit" else ("stem", 1)
    return replace(facts, width=network["width"] // times, stem=network[cells])


AnyObjective = Objective | Relativistic | Evidence
"""What models of the three families are trained on."""


@dataclass(frozen=True)
class Recipe:
    """One way to train a model of pictures.

    model: the description that goes into run.json and that `model_parts` makes a model of. objective: of that model's
    parts, the loss that they are trained on; its kind is that of their family.
    lr: peak rate; warmup and decay: fractions of the run; flip: show half of the pictures mirrored.
    """

    model: Mapping[str, Json]
    objective: Callable[[Any], AnyObjective]
    batch: int = 32
    lr: float = RATE
    warmup: float = 0.05
    decay: float = 0.6
    weight_decay: float = 0.01
    flip: bool = False


def stem_of(size: int) -> int:
    """The side of the cells that leaves a grid of about 16 x 16: 1 up to 20 px, 2 up to 40, 4 up to 80, 8 beyond."""
    return next((stem for stem in (1, 2, 4) if size <= 20 * stem), 8)


def network(facts: Facts, outputs: int = 1) -> UNetConfig:
    """The U-Net for pictures of `facts`; `outputs` times as many channels come out as go in."""
    return UNetConfig(
        channels=facts.channels,
        out_channels=facts.channels * outputs,
        width=facts.width,
        stem=facts.stem or stem_of(facts.size),
        group_width=16,
        positions=facts.encoder is not None,
        vector_dim=vector_dim(facts),
        token_dim=token_dim(facts),
        concat_channels=concat_channels(facts),
    )


def concat_channels(facts: Facts) -> int:
    """The size of the network's slot for a picture beside the noisy one."""
    return 0 if facts.concat is None else concat_from_config(facts.concat).width


def vector_dim(facts: Facts) -> int:
    """The size of the network's slot for a vector."""
    return VECTOR if facts.conditional else 0


def token_dim(facts: Facts) -> int:
    """The size of the network's slot for tokens: the states of the text encoder."""
    return 0 if facts.encoder is None else cast(int, facts.encoder["width"])


def patch_of(size: int) -> int:
    """The side of the patches that leaves a grid of about 8 x 8: 2 up to 20 px, 4 up to 40, 8 up to 80, 16 beyond."""
    return next((patch for patch in (2, 4, 8) if size <= 10 * patch), 16)


def conditioner(facts: Facts) -> dict[str, Json]:
    """The description of what turns classes, texts or both into the slots of the network."""
    shared: dict[str, Json] = {"dim": VECTOR, "drop": DROP}
    label: dict[str, Json] = {"kind": "labels", "names": list(facts.names), **shared}
    if facts.encoder is None:
        return label if facts.names else {"kind": "none"}
    text: dict[str, Json] = {"kind": "text", "encoder": facts.encoder, "examples": list(facts.examples), **shared}
    return {"kind": "label+text", "label": label, "text": text} if facts.names else text


def describe(
    facts: Facts,
    net: NetworkConfig,
    *,
    parameterization: str,
    native: str,
    c_noise: str,
    schedule: Mapping[str, Json],
    trained_lam: tuple[float, float],
    recommended: Recommended,
    c_in: str = "none",
    sigma_data: float = 0.5,
    learned_variance: bool = False,
) -> dict[str, Json]:
    """The model's description: what `nirvana.generate.spec.build` reads."""
    beside: dict[str, Json] = {} if facts.concat is None else {"concat": facts.concat}
    return {
        "network": cast("Json", network_spec(net)),
        "parameterization": parameterization,
        "native": native,
        "c_in": c_in,
        "c_noise": c_noise,
        "schedule": schedule,
        "conditioner": conditioner(facts),
        "codec": {"kind": "identity"},
        "shape": [facts.channels, facts.size, facts.size],
        "sigma_data": sigma_data,
        "learned_variance": learned_variance,
        **beside,
        "trained_lam": list(trained_lam),
        "recommended": {
            "steps": recommended.steps,
            "solver": recommended.solver,
            "grid": recommended.grid,
            "guidance": recommended.guidance if facts.conditional else 1.0,
            "clip": recommended.clip,
        },
    }


def flow_schedule(facts: Facts) -> dict[str, Json]:
    """Rectified flow; for texts with its times shifted to more noise, in training and in sampling.

    Where things lie is decided while little else can be seen: at a ratio of about 10, for a shape of 6 pixels.
    """
    plain: dict[str, Json] = {"kind": "rectified-flow"}
    return plain if facts.encoder is None else {"kind": "timestep-shift", "shift": TEXT_SHIFT, "of": plain}


def flow_levels(facts: Facts, schedule: Schedule) -> LogitNormal:
    """The levels that a flow is trained at: times logit-normal, spread wider for texts."""
    return LogitNormal(schedule, std=1.0 if facts.encoder is None else TEXT_SPREAD)


def flow(facts: Facts) -> Recipe:
    """Rectified flow, times logit-normal (Esser et al. 2024): the default, quickest to good pictures.

    Where a cell of the stem holds more numbers than a third of the channels, noise does not pass through the network:
    it predicts x0, with the same loss on the velocity (Li & He 2025).
    """
    net = network(facts)
    tight = facts.channels * net.stem**2 * 3 > net.width
    model = describe(
        facts,
        net,
        parameterization="x0" if tight else "flow",
        native="sum",
        c_noise="flow_time",
        schedule=flow_schedule(facts),
        trained_lam=(-7.0, 7.0),
        recommended=Recommended(steps=25, guidance=2.5),
    )
    weight = FlowWeight() if tight else SameSpace()
    rate = RATE if facts.encoder is None else TEXT_RATE
    return Recipe(model, lambda parts: Objective(flow_levels(facts, parts.schedule), weight), lr=rate)


def dit(facts: Facts) -> Recipe:
    """Rectified flow by a transformer over about 8 x 8 patches, four times as wide as a U-Net would be.

    It predicts x0, with the loss on the velocity: of a large patch noise is what a narrow token cannot hold (Li & He
    2025).
    """
    net = DiTConfig(
        channels=facts.channels,
        out_channels=facts.channels,
        width=_DIT_TIMES * facts.width,
        patch=facts.stem or patch_of(facts.size),
        vector_dim=vector_dim(facts),
        token_dim=token_dim(facts),
        concat_channels=concat_channels(facts),
    )
    model = describe(
        facts,
        net,
        parameterization="x0",
        native="sum",
        c_noise="flow_time",
        schedule=flow_schedule(facts),
        trained_lam=(-7.0, 7.0),
        recommended=Recommended(steps=25, guidance=2.5),
    )
    return Recipe(model, lambda parts: Objective(flow_levels(facts, parts.schedule), FlowWeight()), lr=1e-3)


def edm(facts: Facts) -> Recipe:
    """EDM's preconditioning, log-normal levels and weight (Karras et al. 2022, table 1)."""
    model = describe(
        facts,
        network(facts),
        parameterization="edm",
        native="ratio",
        c_in="edm",
        c_noise="edm",
        schedule={"kind": "cosine"},
        trained_lam=(-4.4, 6.2),
        recommended=Recommended(steps=25, grid="karras", guidance=2.0),
    )
    return Recipe(model, lambda _parts: Objective(EDMLogNormal(), EDMWeight(0.5)))


def _discrete(facts: Facts, betas: str, learned: bool, recommended: Recommended) -> dict[str, Json]:
    return describe(
        facts,
        network(facts, outputs=2 if learned else 1),
        parameterization="eps",
        native="unit",
        c_noise="table",
        schedule={"kind": "chain", "betas": betas, "T": 1000},
        trained_lam=(-5.1, 4.6),
        learned_variance=learned,
        recommended=recommended,
    )


def _chain(parts: ModelParts) -> Chain:
    if parts.chain is None:
        raise ValueError("this recipe's model must be described with a chain")
    return parts.chain


def ddpm(facts: Facts) -> Recipe:
    """The original: eps of the linear chain with T = 1000, plain MSE (Ho et al. 2020)."""
    model = _discrete(facts, "linear", learned=False, recommended=Recommended(steps=50, guidance=2.0, clip=True))
    return Recipe(model, lambda parts: Objective(DiscreteUniform(_chain(parts)), Simple()))


def improved_ddpm(facts: Facts) -> Recipe:
    """The cosine chain with a learned variance, hybrid loss (Nichol & Dhariwal 2021, eq. 16)."""
    recommended = Recommended(steps=100, solver="ddpm-learned", guidance=2.0, clip=True)
    model = _discrete(facts, "cosine", learned=True, recommended=recommended)

    def objective(parts: ModelParts) -> Objective:
        chain = _chain(parts)
        return Objective(DiscreteUniform(chain), Simple(), chain, vb_weight=0.001)

    return Recipe(model, objective)


def _pyramid(facts: Facts) -> PyramidConfig:
    return PyramidConfig(
        channels=facts.channels,
        size=(facts.size, facts.size),
        width=facts.width,
        stem=facts.stem or stem_of(facts.size),
        vector_dim=LATENT if facts.names else 0,
    )


def gan(facts: Facts) -> Recipe:
    """A GAN: the relativistic pairing loss with R1 and R2 (Huang et al. 2024). Baseline for diffusion."""
    model = latent_spec("gan", _pyramid(facts), LATENT, facts.names)
    return Recipe(model, lambda _parts: Relativistic(gamma=1.0), lr=1e-3, weight_decay=0.0)


def vae(facts: Facts) -> Recipe:
    """A VAE with a learned scale of its likelihood (Rybkin et al. 2021), beta = 1. Baseline for diffusion."""
    model = latent_spec("vae", _pyramid(facts), LATENT, facts.names)
    return Recipe(model, lambda _parts: Evidence(beta=1.0), lr=3e-3, weight_decay=0.0)


RECIPES: Mapping[str, Callable[[Facts], Recipe]] = {
    "flow": flow,
    "dit": dit,
    "edm": edm,
    "ddpm": ddpm,
    "improved-ddpm": improved_ddpm,
    "gan": gan,
    "vae": vae,
}
"""`nirvana train --recipe NAME`; the first one is the default."""
