"""How a request steers a model: checked before the first network call, then a denoiser and its condition per batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.condition import LabelConditioner
from nirvana.diffusion.denoiser import Cond, Denoiser, Preconditioned
from nirvana.diffusion.guidance import RULES, ClassifierGuided, Clipped, Composed, Guided, Interval, Rule, WithCond
from nirvana.diffusion.guidance.classifier import Reads
from nirvana.diffusion.level import Coefficient, Level
from nirvana.diffusion.solver import SOLVERS, Ancestral, Solver
from nirvana.errors import Refused
from nirvana.generate.labels import Mixture, mixture
from nirvana.generate.named import made, parse
from nirvana.generate.request import SampleRequest
from nirvana.generate.spec import ModelParts

CFGPP_GUIDANCE = 0.4
AUTO_GUIDANCE = 2.0
"""What guides where neither the user nor the run says: CFG++ by its own scale, and a model without labels by itself."""


@runtime_checkable
class Classifier(Protocol):
    """A classifier that can steer a model. names: of its K classes; shape: (C, *s) of what it reads, None for any.

    reads: "x0", pictures as the denoiser predicts them (-1 to 1), or "x", noisy ones of the level it is told.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...] | None
    reads: Reads

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, /) -> Float[Tensor, "b k"]:
        """log p(class | x), which autograd can differentiate."""
        ...


@dataclass(frozen=True, eq=False)
class Guide:
    """A classifier, and how strongly it steers. Raises ValueError unless scale is finite and >= 0."""

    classifier: Classifier
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"scale is {self.scale}: give a number from 0 (ignore it) upwards")

    def around(self, denoiser: Denoiser, mixtures: Sequence[Mixture]) -> ClassifierGuided:
        """`denoiser` steered to the classes of each picture, log p = sum_i weight_i log p(class_i | x)."""
        names = self.classifier.names
        weights = torch.tensor([[dict(one).get(name, 0.0) for name in names] for one in mixtures])

        def log_prob(x: Tensor, level: Level) -> Tensor:
            log_probs = self.classifier(x, level)
            return (log_probs * weights.to(log_probs)).sum(1)

        return ClassifierGuided(denoiser, log_prob, self.scale, self.classifier.reads)


def solver_of(request: SampleRequest) -> Solver[object]:
    """The solver that `request` names. Refused where it or a parameter is unknown or out of range."""
    return cast("Solver[object]", made("solver", request.solver, SOLVERS))


def rule_of(request: SampleRequest) -> Rule:
    """The rule of guidance that `request` names. Refused where it or a parameter is unknown or out of range."""
    rule = made("rule", request.rule, RULES, request.guidance)
    return rule if request.guidance_interval is None else Interval(rule, *request.guidance_interval)


def default_guidance(rule: str, autoguidance: bool, recommended: float) -> float:
    """The w where the user gives none: what the run recommends, unless that is of no use to `rule` or has no effect."""
    if parse("rule", rule).name == "cfg++":
        return CFGPP_GUIDANCE
    return AUTO_GUIDANCE if autoguidance and recommended == 1 else recommended


@dataclass(frozen=True, eq=False)
class Steering:
    """What `request` makes of a model. Refused when made, naming `where`, if the model cannot be steered so.

    parts: the model; denoiser: its own in the form the request asks for; weak: the same run at an earlier moment, for
    autoguidance; guide: a classifier. names: the classes that labels are of, the model's or else the classifier's.
    """

    request: SampleRequest
    where: str
    parts: ModelParts
    denoiser: Preconditioned
    device: torch.device
    weak: ModelParts | None = None
    guide: Guide | None = None

    def __post_init__(self) -> None:
        self._check_solver()
        self._check_labels()
        self._check_branches()
        if self.guide is not None:
            self._check_guide(self.guide.classifier)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes a label can be of."""
        return class_names(self.parts, self.guide)

    def conditioned(self, batch: range) -> tuple[Denoiser, Cond]:
        """The denoiser for the pictures `batch` of the request, and the condition it is called with."""
        mixtures = [mixture(cast(str, self.request.label(i)), self.names) for i in batch] if self.names else []
        denoiser, cond = self._guided(mixtures)
        if self.guide is not None:
            denoiser = self.guide.around(denoiser, mixtures)
        # The range is kept after guidance, which leaves it.
        return (Clipped(denoiser, *self.parts.codec.bounds) if self.request.clip else denoiser), cond

    def _guided(self, mixtures: Sequence[Mixture]) -> tuple[Denoiser, Cond]:
        conditioner, rule = self.parts.conditioner, rule_of(self.request)
        if not isinstance(conditioner, LabelConditioner):
            return (self.denoiser if self.weak is None else Guided((self.denoiser, self.weak.denoiser), rule)), {}
        conds, weights = self._columns(conditioner, mixtures)
        strong = (WithCond(self.denoiser, cond) for cond in conds)
        if weights != [1.0]:
            rule = Composed(tuple(weights), rule)
        return Guided((*strong, self._weak_branch(conditioner, conds[0], mixtures)), rule), conds[0]

    def _weak_branch(self, conditioner: LabelConditioner, cond: Cond, mixtures: Sequence[Mixture]) -> WithCond:
        if self.weak is not None:
            return WithCond(self.weak.denoiser, self._columns(self.weak.conditioner, mixtures)[0][0])
        if self.request.negative is not None:
            rows = torch.full((len(mixtures),), conditioner.index(self.request.negative), device=self.device)
            return WithCond(self.denoiser, conditioner(rows))
        return WithCond(self.denoiser, conditioner.null(cond))

    def _columns(
        self, conditioner: Callable[[Tensor], Cond], mixtures: Sequence[Mixture]
    ) -> tuple[list[Cond], list[Coefficient]]:
        """The condition and weight of the first class of every picture, of the second, ...: 0 where it has no such one.

        A weight is a number where it is the same for all.
        """
        conds: list[Cond] = []
        weights: list[Coefficient] = []
        for column in range(max(map(len, mixtures))):
            chosen = [one[column] if column < len(one) else (one[0][0], 0.0) for one in mixtures]
            rows = [self.parts.conditioner.index(name) for name, _ in chosen]
            conds.append(conditioner(torch.tensor(rows, device=self.device)))
            numbers = [weight for _, weight in chosen]
            same = len(set(numbers)) == 1
            weights.append(numbers[0] if same else torch.tensor(numbers, dtype=torch.float64))
        return conds, weights

    def _check_solver(self) -> None:
        solver, rule = solver_of(self.request), rule_of(self.request)
        if isinstance(solver, Ancestral) and solver.variance == "learned" and not self.parts.denoiser.learned_variance:
            others = ", ".join(sorted(SOLVERS.keys() - {"ddpm-learned"}))
            raise Refused(
                f"{self.where} has not learned a variance, so 'ddpm-learned' cannot run; use one of: {others}"
            )
        if rule.first_order_only and not (solver.order == 1 and solver.deterministic):
            raise Refused(
                f"the rule '{self.request.rule}' is for deterministic first-order steps, which the solver"
                f" '{self.request.solver}' does not make; use the solver 'ddim', or another rule"
            )

    def _check_labels(self) -> None:
        if not self.names:
            for label in self.request.labels:
                self.parts.conditioner.index(label)
            return
        if not self.request.labels:
            raise Refused(f"{self.where} needs labels, and the request has none; name some of: {', '.join(self.names)}")
        for label in self.request.labels:
            several = len(mixture(label, self.names)) > 1
            if several and self.weak is not None:
                raise Refused(
                    f"the label '{label}' is made with the plain model, autoguidance goes without; use one of the two"
                )

    def _check_branches(self) -> None:
        request = self.request
        asked = request.guidance != 1 or request.guidance_interval is not None or request.rule != "cfg"
        if not self.parts.conditioner.names and self.weak is None and (asked or request.negative is not None):
            raise Refused(
                f"{self.where} was trained without labels, so there is nothing to guide; leave guidance at 1, or guide"
                " it by an earlier moment of its training (autoguidance)"
            )
        if request.negative is not None and self.weak is not None:
            raise Refused("negative and autoguidance are two things to lead away from; give one of them")
        if request.negative is not None:
            self.parts.conditioner.index(request.negative)
        if self.weak is not None and request.engine != "torch":
            raise Refused(f"autoguidance runs weights that the engine '{request.engine}' does not have; use 'torch'")

    def _check_guide(self, classifier: Classifier) -> None:
        if classifier.shape not in (None, self.parts.shape):
            raise Refused(
                f"the classifier reads {classifier.shape} (channels, height, width), {self.where} makes"
                f" {self.parts.shape}; use one made for these pictures"
            )
        for label in self.request.labels:
            for name, _ in mixture(label, self.names):
                if name not in classifier.names:
                    known = ", ".join(classifier.names)
                    raise Refused(f"the classifier does not know the label '{name}' (known: {known})")
        if classifier.reads == "x0" and self.request.engine != "torch":
            raise Refused(f"the engine '{self.request.engine}' gives no gradients for a classifier; use 'torch'")


def class_names(parts: ModelParts, guide: Guide | None) -> tuple[str, ...]:
    """The classes a label can be of: the model's, or else the classifier's."""
    return parts.conditioner.names or (() if guide is None else guide.classifier.names)
