"""Denoisers: x at a level to a prediction of x0. `Preconditioned` makes one of a network."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol, cast, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nirvana.diffusion.level import Coefficient, Level, Native, at, combined, moved, times
from nirvana.diffusion.prediction import Coefficients, Parameterization, Prediction, x0_coefficients
from nirvana.diffusion.schedule import Tabulated

Cond = Mapping[str, Tensor]
"""Named slots of condition tensors, one row per item of the batch: vector, tokens, tokens_mask, concat, ..."""

NoiseCode = Callable[[Level], Tensor]
"""c_noise: a level to the number the network is told, finite at every level, of the shape of the level."""


@runtime_checkable
class Denoiser(Protocol):
    """Anything that predicts x0 from x at a level."""

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The prediction at `level`; networks of two levels use `nxt`, the level the solver goes to."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A denoiser with memory along a trajectory; `trajectory` starts with a fresh one."""

    def fresh(self) -> Denoiser:
        """The same denoiser with an empty memory."""
        ...


def freshened(denoiser: Denoiser) -> Denoiser:
    """`denoiser` with an empty memory, if it has one."""
    return denoiser.fresh() if isinstance(denoiser, Remembers) else denoiser


@runtime_checkable
class Demanding(Protocol):
    """A denoiser that may be defined for the steps of deterministic first-order solvers only, as CFG++ is."""

    @property
    def first_order_only(self) -> bool:
        """Whether it is; `trajectory` refuses other solvers."""
        ...


def first_order_only(denoiser: Denoiser) -> bool:
    """Whether `denoiser` takes deterministic solvers of the first order alone."""
    return isinstance(denoiser, Demanding) and denoiser.first_order_only


@runtime_checkable
class Net(Protocol):
    """A network: x (B, C, *s), noise (B,), cond -> (B, C_out, *s). `slots` names the condition tensors it takes."""

    slots: frozenset[str]

    def __call__(self, x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
        """The raw output F, with the raw variance fraction behind it in the channels where it is learned."""
        ...


@dataclass(frozen=True)
class AngleCode:
    """1000 * angle/(pi/2): 0 (clean) to 1000 (pure noise)."""

    def __call__(self, level: Level) -> Tensor:
        """The code of `level`."""
        return level.angle * (2000 / torch.pi)


@dataclass(frozen=True)
class FlowTimeCode:
    """1000 * sigma/(alpha + sigma), the time of rectified flow: 0 (clean) to 1000 (pure noise)."""

    def __call__(self, level: Level) -> Tensor:
        """The code of `level`."""
        return 1000 * level.sigma / (level.alpha + level.sigma)


@dataclass(frozen=True)
class EDMCode:
    """log(ratio)/4 = -lam/4 (Karras et al. 2022, table 1), with lam clipped to `limit` on both sides."""

    limit: float = 12.0

    def __call__(self, level: Level) -> Tensor:
        """The code of `level`."""
        return -level.lam.clamp(-self.limit, self.limit) / 4


@dataclass(frozen=True)
class TableCode:
    """The 0-based index, 0 to T - 1, in the table a discrete-time network was trained on; data counts as index 0."""

    table: Tabulated

    def __call__(self, level: Level) -> Tensor:
        """The code of `level`, an exact integer on the points of the table."""
        return (self.table.index(level.lam) - 1).clamp(min=0)


NOISE_CODES: Mapping[str, NoiseCode] = MappingProxyType(
    {"angle": AngleCode(), "flow_time": FlowTimeCode(), "edm": EDMCode()}
)


@dataclass(frozen=True, eq=False)
class Output:
    """What the network said: F = p*x0 + q*eps at the native scale, where x_native = alpha*x0 + sigma*eps."""

    F: Float[Tensor, "b *s"]
    x_native: Float[Tensor, "b *s"]
    level_native: Level
    var_frac: Float[Tensor, "b *s"] | None
    pq: Coefficients


_NO_SCALE = 1e-15
"""A scale this near to 1 is 1: the norm of a level is rounded in its last digits."""


@dataclass(frozen=True, eq=False)
class _Inputs:
    """(scale to native, c_noise, and c_in where there is one) of a level."""

    native: Native
    c_noise: NoiseCode
    sigma_data: float | None

    def __call__(self, level: Level) -> tuple[Tensor, ...]:
        scale = level.scale_to(self.native)
        scale = torch.where((scale - 1).abs() < _NO_SCALE, 1.0, scale)  # then `times` has nothing to do
        native = level.scaled(scale)
        if self.sigma_data is None:
            return scale, self.c_noise(native)
        return scale, self.c_noise(native), 1 / torch.hypot(native.sigma, self.sigma_data * native.alpha)


@dataclass(frozen=True, eq=False)
class _Answer:
    """(of_F, of_x) of x0 = of_F*F + of_x*x_native at a level."""

    native: Native
    parameterization: Parameterization

    def __call__(self, level: Level) -> tuple[Tensor, Tensor]:
        native = level.scaled(level.scale_to(self.native))
        return x0_coefficients(native, self.parameterization(native))


class Preconditioned(nn.Module):
    """A network as a denoiser: scales x and level to the native scale, codes the level, turns F into x0.

    net: the network; parameterization: its F = p*x0 + q*eps; native: its scale; c_in: "none", or "edm" for
    x_native/sqrt(sigma^2 + sigma_data^2 alpha^2), which has unit variance; c_noise: the number it is told;
    learned_variance: it gives 2C channels, the second half a raw variance fraction.
    Denoising does not depend on the scale: D(c*x, (c*alpha, c*sigma)) = D(x, (alpha, sigma)).
    The only place that enters and leaves the dtype of the network; coefficients are float64.
    """

    def __init__(
        self,
        net: nn.Module,
        parameterization: Parameterization,
        *,
        native: Native,
        c_in: Literal["none", "edm"],
        c_noise: NoiseCode,
        sigma_data: float = 0.5,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        if native not in get_args(Native):
            raise ValueError(f"unknown native scale '{native}' (known: {', '.join(get_args(Native))})")
        if c_in not in ("none", "edm"):
            raise ValueError(f"unknown c_in '{c_in}' (known: none, edm)")
        self.net = net
        self.parameterization = parameterization
        self.native: Native = native
        self.c_in: Literal["none", "edm"] = c_in
        self.c_noise = c_noise
        self.sigma_data = sigma_data
        self.learned_variance = learned_variance
        self._inputs = _Inputs(native, c_noise, sigma_data if c_in == "edm" else None)
        self._answer = _Answer(native, parameterization)

    def around(self, net: nn.Module) -> Preconditioned:
        """The same of another network, which has its weights in another form."""
        return Preconditioned(
            net,
            self.parameterization,
            native=self.native,
            c_in=self.c_in,
            c_noise=self.c_noise,
            sigma_data=self.sigma_data,
            learned_variance=self.learned_variance,
        )

    def check_level(self, level: Level) -> None:
        """Raise ValueError, without a call of the network, where it does not determine x0 at `level`."""
        self._inputs(level)
        self._answer(level)

    def forward(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The prediction of x0 at `level`. Raises ValueError where slots do not match or x0 is undetermined."""
        del nxt  # a network of one level
        of_F, of_x = at(self._answer, level)  # first: what it does not determine is refused before the network runs
        F, x_native, var_frac = self._called(x, at(self._inputs, level), cond)
        return Prediction(combined((of_x, x_native), (of_F, F)), var_frac)

    def output(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond) -> Output:
        """The raw output, for objectives: its loss needs no division by a small alpha or sigma."""
        F, x_native, var_frac = self._called(x, self._inputs(level), cond)
        level_native = level.scaled(level.scale_to(self.native))
        return Output(F, x_native, level_native, var_frac, self.parameterization(level_native))

    def _called(self, x: Tensor, inputs: Sequence[Coefficient], cond: Cond) -> tuple[Tensor, Tensor, Tensor | None]:
        """F, x at the native scale, and the raw variance fraction."""
        net = cast(Net, self.net)
        check_slots(net.slots, cond, x.shape[0])
        scale, code, *c_in = inputs
        x_native = times(scale, x)
        scaled = times(c_in[0], x_native) if c_in else x_native
        F, var_frac = self._halves(net(*self._enter(scaled, code, cond)).to(x.dtype), x.shape)
        return F, x_native, var_frac

    def _enter(self, x: Tensor, noise: Coefficient, cond: Cond) -> tuple[Tensor, Tensor, Cond]:
        """x, the noise code and the condition in the dtype of the network; codes up to 1000 need more than 16 bits."""
        dtype = next((p.dtype for p in self.net.parameters()), x.dtype)
        wide = torch.promote_types(dtype, torch.float32)
        if not isinstance(noise, Tensor):
            code = torch.full((x.shape[0],), noise, dtype=wide, device=x.device)
        elif noise.ndim > 1:
            raise ValueError(
                f"a network takes one level per item, shape () or ({x.shape[0]},), got {tuple(noise.shape)}"
            )
        else:
            code = moved(noise, x.device, wide).expand(x.shape[0])
        slots = {name: value.to(dtype) if value.is_floating_point() else value for name, value in cond.items()}
        return x.to(dtype), code, slots

    def _halves(self, F: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor | None]:
        channels = shape[1] * (2 if self.learned_variance else 1)
        if F.shape != (shape[0], channels, *shape[2:]):
            raise ValueError(
                f"the network gave {tuple(F.shape)} for an x of {tuple(shape)}, expected {channels} channels"
                + (" (learned_variance doubles them)" if self.learned_variance else "")
            )
        if not self.learned_variance:
            return F, None
        mean, var_frac = F.chunk(2, dim=1)
        return mean, var_frac


def check_slots(slots: frozenset[str], cond: Cond, batch: int) -> None:
    """Raise ValueError where `cond` has a slot the network does not take, lacks one it takes, or has another batch."""
    for name in cond.keys() - slots:
        near = difflib.get_close_matches(name, slots - cond.keys(), n=1, cutoff=0.5)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"the network takes no condition '{name}'{hint} (it takes: {', '.join(sorted(slots)) or 'none'})"
        )
    for name in sorted(slots - cond.keys()):
        raise ValueError(f"the network needs the condition '{name}' (given: {', '.join(sorted(cond)) or 'none'})")
    for name, value in cond.items():
        if value.ndim == 0 or value.shape[0] != batch:
            raise ValueError(f"the condition '{name}' has shape {tuple(value.shape)}, the batch has {batch} items")
