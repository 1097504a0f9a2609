"""What the training loop drives: a task (its losses), batches (its data), a position (where in the run it is)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)
B_contra = TypeVar("B_contra", contravariant=True)


@dataclass(frozen=True)
class Position:
    """Where in the run a batch lies: all randomness of a task is a function of `seed` and `indices`.

    `indices` are the global sample indices of this batch (it may be a part of a step's batch, where gradients are
    accumulated); `images` are those seen before this step.
    """

    seed: int
    indices: range
    images: int


@dataclass(frozen=True, eq=False)
class Phase:
    """A group of parameters with an optimiser of its own: one for most tasks, two for a GAN.

    `lr` of None is the plan's; the plan's schedule scales either. The phase is stepped at every `every`-th step,
    the first included. Phases of a step run in order, on the same batch,
    each with gradients of its own parameters only.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    eps: float = 1e-8
    every: int = 1


@dataclass(frozen=True, eq=False)
class Loss:
    """What a batch costs. `total` must be a mean over the samples of the batch, so that accumulation adds up.

    `per_sample` names the culprits of a non-finite loss and, with `coordinate` (for diffusion: lam), gives the plot
    of the loss by noise level. `terms` are scalars worth a curve of their own.
    """

    total: Float[Tensor, ""]
    per_sample: Float[Tensor, "b"] | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    coordinate: Float[Tensor, "b"] | None = None


@runtime_checkable
class Task(Protocol[B_contra]):
    """A thing to train. Diffusion is the first; GANs, autoencoders, contrastive pairs and distillation fit as well."""

    @property
    def phases(self) -> Sequence[Phase]:
        """The phases in the order they run in within a step; the parameters must stay the same objects."""
        ...

    def loss(self, phase: Phase, batch: B_contra, position: Position) -> Loss:
        """The loss of `batch`. torch's own generator is seeded from the position around this call, for dropout."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All weights and buffers as plain tensors, without optimiser state."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object:
        """Take `state_dict` over in place. Raises KeyError, RuntimeError or ValueError where it does not fit."""
        ...

    def ema_parameters(self) -> dict[str, Tensor]:
        """The floating-point tensors to average, under their names in `state_dict`."""
        ...


@runtime_checkable
class Batches(Protocol[B_co]):
    """The data, by global sample index (epochs, order and augmentation are its affair)."""

    def batch(self, indices: range) -> B_co:
        """The samples `indices`."""
        ...

    def files(self, indices: range) -> list[str]:
        """What a person would look at to find the samples `indices`: their files, in order."""
        ...
