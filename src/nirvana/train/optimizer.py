"""AdamW for one phase: gradients in parts, clipped by their global norm; its state as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from nirvana.train.plan import TrainPlan
from nirvana.train.task import Phase

_STATE = ("exp_avg", "exp_avg_sq", "step")
_FUSED = ("cpu", "cuda")


class PhaseOptimizer:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) over the trainable parameters of a phase."""

    def __init__(self, phase: Phase, plan: TrainPlan) -> None:
        self.phase = phase
        self.peak = plan.lr if phase.lr is None else phase.lr
        self._clip = plan.clip
        self._named = {name: tensor for name, tensor in phase.parameters.items() if tensor.requires_grad}
        if not self._named:
            raise ValueError(f"phase '{phase.name}' has no trainable parameter")
        self._list = list(self._named.values())
        self._adamw = torch.optim.AdamW(
            self._list,
            lr=self.peak,
            betas=phase.betas,
            eps=phase.eps,
            weight_decay=phase.weight_decay,
            fused=all(tensor.device.type in _FUSED for tensor in self._list),
        )

    def clear(self) -> None:
        """Forget the gradients."""
        self._adamw.zero_grad(set_to_none=True)

    def backward(self, total: Tensor) -> None:
        """Add the gradients of `total` for this phase's parameters; those of other phases are not touched."""
        torch.autograd.backward(total, inputs=self._list)

    def step(self, rate: float) -> Tensor:
        """Clip, update with the rate `rate`, forget the gradients; returns their global norm before clipping.

        Does not wait for the device.
        """
        gradients = [tensor.grad for tensor in self._list if tensor.grad is not None]
        norm = get_total_norm(gradients)
        if self._clip is not None:
            clip_grads_with_norm_(self._list, self._clip, norm)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        self._adamw.step()
        self.clear()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The state under `<phase>/<parameter>/<quantity>`; parameters that were never stepped have none."""
        return {
            f"{self.phase.name}/{name}/{key}": value
            for name, tensor in self._named.items()
            for key, value in self._adamw.state.get(tensor, {}).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the state that `tensors` wrote. Raises ValueError where it does not fit."""
        self.clear()
        self._adamw.state.clear()
        for name, tensor in self._named.items():
            keys = {key: f"{self.phase.name}/{name}/{key}" for key in _STATE}
            if keys["step"] in tensors:
                self._adamw.state[tensor] = {key: _like(tensor, key, tensors, full) for key, full in keys.items()}


def _like(parameter: Tensor, key: str, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors or (key != "step" and tensors[name].shape != parameter.shape):
        raise ValueError(f"the optimiser state '{name}' is missing or has another shape")
    if key == "step":
        return tensors[name].to(parameter.device)
    # The fused kernels walk through memory: the state must have its parameter's strides (channels-last).
    return torch.empty_like(parameter, requires_grad=False).copy_(tensors[name])
