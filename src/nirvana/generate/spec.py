"""The model a run folder describes, built in one way for training and for sampling."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from nirvana.codec import Identity, codec_from_config
from nirvana.condition import MASKED, Concat, Conditioner, concat_from_config, conditioner_from_config
from nirvana.diffusion.denoiser import NOISE_CODES, Native, NoiseCode, Preconditioned, TableCode
from nirvana.diffusion.grid import GRIDS
from nirvana.diffusion.markov import Chain
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.prediction import EDM, PARAMETERIZATIONS, FlowVelocity, Parameterization
from nirvana.diffusion.schedule import BETAS, SCHEDULES, WRAPPERS, Schedule, Tabulated
from nirvana.errors import Refused, nearest, unknown
from nirvana.files import Json
from nirvana.generate.checks import flag, number, text, whole
from nirvana.nn import DiT, DiTConfig, UNet, UNetConfig

T = TypeVar("T")

Spec = Mapping[str, object]
"""JSON: what `run.json` has under "model"."""

NetworkConfig = UNetConfig | DiTConfig

NETWORKS: Mapping[str, tuple[type[NetworkConfig], type[UNet | DiT]]] = {
    "unet": (UNetConfig, UNet),
    "dit": (DiTConfig, DiT),
}
"""Kind -> the dataclass of its numbers, and the network."""

_REQUIRED = (
    "network",
    "parameterization",
    "native",
    "c_in",
    "c_noise",
    "schedule",
    "conditioner",
    "codec",
    "shape",
    "trained_lam",
    "recommended",
)
_DEFAULTS: Spec = {"learned_variance": False, "sigma_data": 0.5, "concat": None}
_NATIVES: tuple[Native, ...] = ("unit", "ratio", "sum")
_C_IN: tuple[Literal["none", "edm"], ...] = ("none", "edm")


@dataclass(frozen=True)
class Recommended:
    """What a run is best sampled with, where the user does not say."""

    steps: int = 25
    solver: str = "ddim"
    grid: str = "uniform"
    guidance: float = 1.0
    clip: bool = False


@dataclass(frozen=True, eq=False)
class ModelParts:
    """A model: the denoiser and conditioner (the weights), the codec, the schedule, and the chain where it has one.

    shape: (C, H, W) of what the denoiser sees. trained_lam: the range of levels it was trained on. concat: the picture
    that its network sees beside the noisy one, None for a model without.
    """

    denoiser: Preconditioned
    conditioner: Conditioner
    codec: Identity
    schedule: Schedule
    chain: Chain | None
    shape: tuple[int, ...]
    trained_lam: tuple[float, float]
    recommended: Recommended
    concat: Concat | None = None

    def modules(self) -> nn.ModuleDict:
        """The modules with weights. Their `state_dict` and `named_parameters` are the names in every checkpoint."""
        return nn.ModuleDict({"denoiser": self.denoiser, "conditioner": self.conditioner})

    def load(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Take over `weights`, all of them; Refused, naming `where`, where names or shapes differ."""
        load_weights_into(self.modules(), weights, where)


def load_weights_into(modules: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Take over `weights`, all of them; Refused, naming `where`, where names or shapes differ."""
    try:
        modules.load_state_dict(weights)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n")[1:2]).strip() or str(error)
        raise Refused(f"the weights in {where} do not fit its run.json ({first}); one of the two was edited") from None


def build(spec: Spec) -> ModelParts:
    """The model of `spec`, with fresh weights. Refused, naming the entry, at anything unknown, missing or ill-typed."""
    spec = {**_DEFAULTS, **spec}
    for name in _REQUIRED:
        if name not in spec:
            raise Refused(f"the model's description lacks '{name}'; its run.json is damaged or edited")
    for name in spec:
        if name not in (*_REQUIRED, *_DEFAULTS):
            raise Refused(f"the model's description has an unknown entry '{name}'{nearest(name, _REQUIRED)}")
    schedule, chain = _schedule(_object(spec, "schedule"))
    conditioner = conditioner_from_config(_object(spec, "conditioner"))
    shape = tuple(whole("the sizes of the model's shape", size, least=1) for size in _list(spec, "shape", least=2))
    learned = _one_of("learned_variance", spec["learned_variance"], (True, False))
    concat = None if spec["concat"] is None else concat_from_config(_object(spec, "concat"))
    net = _network(_object(spec, "network"), conditioner, concat, shape, learned)
    sigma_data = number("sigma_data", spec["sigma_data"], least=1e-6)
    denoiser = Preconditioned(
        net,
        _parameterization(spec["parameterization"], sigma_data, schedule),
        native=_one_of("native", spec["native"], _NATIVES),
        c_in=_one_of("c_in", spec["c_in"], _C_IN),
        c_noise=_noise_code(spec["c_noise"], schedule),
        sigma_data=sigma_data,
        learned_variance=learned,
    )
    low, high = (number("trained_lam", lam, least=-math.inf) for lam in _list(spec, "trained_lam", least=2)[:2])
    return ModelParts(
        denoiser=denoiser,
        conditioner=conditioner,
        codec=codec_from_config(_object(spec, "codec")),
        schedule=schedule,
        chain=chain,
        shape=shape,
        trained_lam=(low, high),
        recommended=_recommended(_object(spec, "recommended")),
        concat=concat,
    )


def network_spec(config: NetworkConfig) -> dict[str, Json]:
    """The "network" entry of a description."""
    values = dataclasses.asdict(config)
    return {
        "kind": next(kind for kind, (made_of, _) in NETWORKS.items() if isinstance(config, made_of)),
        **{name: list(cast("tuple[int, ...]", v)) if isinstance(v, tuple) else v for name, v in values.items()},
    }


def config_of(made_of: type[T], values: Spec) -> T:
    """The numbers of a network from its description. Refused where an entry is unknown or they are not possible."""
    known = [field.name for field in dataclasses.fields(made_of)]  # pyright: ignore[reportArgumentType]
    for name in values:
        if name not in known:
            raise Refused(f"the network has an unknown entry '{name}'{nearest(name, known)}")
    numbers = {name: tuple(cast("list[int]", v)) if isinstance(v, list) else v for name, v in values.items()}
    try:
        return made_of(**numbers)
    except (TypeError, ValueError) as error:
        raise Refused(f"the network of the model's description cannot be built ({error})") from None


def _network(
    spec: Spec, conditioner: Conditioner, concat: Concat | None, shape: Sequence[int], learned: bool
) -> UNet | DiT:
    config, network = _config_in(spec)
    wanted = (shape[0], shape[0] * (2 if learned else 1), conditioner.dim, conditioner.token_dim)
    found = (config.channels, config.out_channels, config.vector_dim, config.token_dim)
    if found != wanted or config.dims != len(shape) - 1:
        raise Refused(
            f"the network's channels {config.channels} -> {config.out_channels}, dims {config.dims}, vector_dim"
            f" {config.vector_dim} and token_dim {config.token_dim} do not fit the shape {list(shape)} and the"
            f" conditioner's dim {conditioner.dim} and token_dim {conditioner.token_dim}"
        )
    width = 0 if concat is None else concat.width
    if config.concat_channels != width or (
        concat is not None and concat.kind == MASKED and concat.channels != shape[0]
    ):
        raise Refused(
            f"the network's concat_channels {config.concat_channels} do not fit the concat of the model's description"
            f" ({'none' if concat is None else concat}) and its pictures of {shape[0]} channels"
        )
    return network(config)  # pyright: ignore[reportArgumentType]


def _config_in(spec: Spec) -> tuple[UNetConfig | DiTConfig, type[UNet] | type[DiT]]:
    """The numbers of a described network, and what is made of them."""
    values = dict(spec)
    kind = str(values.pop("kind", None))
    if kind not in NETWORKS:
        raise unknown("network", kind, NETWORKS)
    made_of, network = NETWORKS[kind]
    return config_of(made_of, values), network


def network_bytes(spec: Spec) -> int:
    """Bytes of the weights of a described network, told without the memory for them."""
    config, network = _config_in(_object(spec, "network"))
    with torch.device("meta"):
        return sum(parameter.nbytes for parameter in network(config).parameters())  # pyright: ignore[reportArgumentType]


def _schedule(spec: Spec) -> tuple[Schedule, Chain | None]:
    kind = text("schedule", spec.get("kind"))
    if kind == "chain":
        betas = text("betas", spec.get("betas"))
        if betas not in BETAS:
            raise unknown("beta schedule", betas, BETAS)
        chain = Chain(BETAS[betas](whole("the chain's T", spec.get("T"), least=2, most=1_000_000)))
        return chain.schedule(), chain
    return _made(kind, spec), None


def _made(kind: str, spec: Spec) -> Schedule:
    """The schedule of that kind from the numbers in its description, and from the one it changes, which it is "of"."""
    if kind not in SCHEDULES and kind not in WRAPPERS:
        raise unknown("schedule", kind, (*SCHEDULES, *WRAPPERS, "chain"))
    if kind in WRAPPERS and "of" not in spec:
        raise Refused(f"the schedule '{kind}' of the model's description lacks 'of', the schedule that it changes")
    factory = partial(WRAPPERS[kind], _schedule(_object(spec, "of"))[0]) if kind in WRAPPERS else SCHEDULES[kind]
    given = [name for name in spec if name != "kind" and not (name == "of" and kind in WRAPPERS)]
    known = [name for name, p in inspect.signature(factory).parameters.items() if p.annotation in ("float", float)]
    for name in given:
        if name not in known:
            takes = ", ".join(known) or "none"
            raise Refused(f"the schedule '{kind}' has no number '{name}'{nearest(name, known)} (known: {takes})")
    try:
        return factory(**{name: number(f"{name} of the schedule", spec[name], least=-math.inf) for name in given})
    except (TypeError, ValueError) as error:
        raise Refused(f"the schedule '{kind}' of the model's description cannot be built ({error})") from None


def _parameterization(name: object, sigma_data: float, schedule: Schedule) -> Parameterization:
    known = {**PARAMETERIZATIONS, "edm": EDM(sigma_data), "velocity": FlowVelocity(schedule)}
    if name not in known:
        raise unknown("parameterization", str(name), known)
    return known[cast(str, name)]


def _noise_code(name: object, schedule: Schedule) -> NoiseCode:
    if name == "table" and isinstance(schedule, Tabulated):
        return TableCode(schedule)
    if name not in NOISE_CODES:
        raise unknown(
            "noise code", str(name), (*NOISE_CODES, "table") if isinstance(schedule, Tabulated) else NOISE_CODES
        )
    return NOISE_CODES[cast(str, name)]


def _recommended(spec: Spec) -> Recommended:
    known = [field.name for field in dataclasses.fields(Recommended)]
    for name in spec:
        if name not in known:
            raise Refused(f"the model's recommended settings have an unknown entry '{name}'{nearest(name, known)}")
    default = dataclasses.asdict(Recommended())
    made = Recommended(
        steps=whole("the recommended steps", spec.get("steps", default["steps"]), least=1),
        solver=text("the recommended solver", spec.get("solver", default["solver"])),
        grid=text("the recommended grid", spec.get("grid", default["grid"])),
        guidance=number("the recommended guidance", spec.get("guidance", default["guidance"])),
        clip=flag("the recommended clip", spec.get("clip", default["clip"])),
    )
    for what, name, names in (("solver", made.solver, SOLVERS), ("grid", made.grid, GRIDS)):
        if name not in names:
            raise unknown(what, str(name), names)
    return made


def _object(spec: Spec, name: str) -> Spec:
    value = spec[name]
    if not isinstance(value, Mapping):
        raise Refused(f"'{name}' of the model's description must be an object, got {value!r}")
    return cast(Spec, value)


def _list(spec: Spec, name: str, least: int) -> list[object]:
    value = spec[name]
    if not isinstance(value, list | tuple) or len(cast("list[object]", value)) < least:
        raise Refused(f"'{name}' of the model's description must be a list of {least} or more numbers, got {value!r}")
    return list(cast("list[object]", value))


def _one_of(name: str, value: object, known: tuple[T, ...]) -> T:
    for one in known:
        if type(one) is type(value) and one == value:
            return one
    raise unknown(name, str(value), map(str, known))


@runtime_checkable
class WithModules(Protocol):
    """A model of any family."""

    def modules(self) -> nn.ModuleDict:
        """The modules with weights."""
        ...


P = TypeVar("P", bound=WithModules)


def on_device(parts: P, device: torch.device) -> P:
    """`parts` with its weights on `device`, in evaluation mode, without gradients."""
    parts.modules().to(device).eval().requires_grad_(False)
    return parts
