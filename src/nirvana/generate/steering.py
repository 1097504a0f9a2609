"""How a request steers a model: checked before the first network call, then a denoiser and its condition per batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.condition import Conditioner
from nirvana.diffusion.denoiser import Cond, Denoiser, Preconditioned
from nirvana.diffusion.guidance import RULES, ClassifierGuided, Clipped, Composed, Guided, Interval, Rule, WithCond
from nirvana.diffusion.guidance.classifier import Reads
from nirvana.diffusion.level import Coefficient, Level
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.solver import Ancestral, Solver
from nirvana.errors import Refused
from nirvana.generate.asked import Ask, Asked, asked, prompts_in
from nirvana.generate.conditions import Conditions
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
    return made("solver", request.solver, cast("Mapping[str, Callable[..., Solver[object]]]", SOLVERS))


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
        self._check_prompts()
        self._check_branches()
        if self.guide is not None:
            self._check_guide(self.guide.classifier)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes a label can be of."""
        return class_names(self.parts, self.guide)

    def conditioned(self, batch: range, seen: Cond | None = None) -> tuple[Denoiser, Cond]:
        """The denoiser for the pictures `batch` of the request, and the condition it is called with.

        seen: the slot `concat` of a model that has one; None: nothing is seen.
        """
        denoiser, cond = self._guided(batch, self._nothing_seen(len(batch)) if seen is None else seen)
        if self.guide is not None:
            denoiser = self.guide.around(
                denoiser, [mixture(cast(str, self.request.label(i)), self.names) for i in batch]
            )
        # The range is kept after guidance, which leaves it.
        return (Clipped(denoiser, *self.parts.codec.bounds) if self.request.clip else denoiser), cond

    def _guided(self, batch: range, seen: Cond) -> tuple[Denoiser, Cond]:
        conditioner = self.parts.conditioner
        if not conditional(conditioner):
            return self._unasked(len(batch), seen), seen
        rule = rule_of(self.request)
        asks = [asked(self.request, i, conditioner.names, conditioner.prompts) for i in batch]
        columns, weights = _columns(asks)
        # The negative one among them: conditions that are made together have the same shapes, and run in one call.
        told = self._conditions.of([*columns, *([ask] * len(batch) for ask in self._avoided)])
        # What is seen is seen in all branches: guidance is by what is asked for.
        conds: list[Cond] = [{**cond, **seen} for cond in told]
        strong = (WithCond(self.denoiser, cond) for cond in conds[: len(columns)])
        if weights != [1.0]:
            rule = Composed(tuple(weights), rule)
        return Guided((*strong, self._weak_branch(conds, columns[0], seen)), rule), conds[0]

    def _unasked(self, n: int, seen: Cond) -> Denoiser:
        """The denoiser of a model that is told nothing: guided by itself earlier, or by what it sees, or not."""
        rule = rule_of(self.request)
        if self.weak is not None:
            return Guided((self.denoiser, self.weak.denoiser), rule)
        if not self._steered:
            return self.denoiser
        return Guided((WithCond(self.denoiser, seen), WithCond(self.denoiser, self._nothing_seen(n))), rule)

    def _nothing_seen(self, n: int) -> Cond:
        concat, size = self.parts.concat, self.parts.shape[1:]
        return {} if concat is None else concat.nothing(n, size, self.device)

    def _weak_branch(self, conds: Sequence[Cond], first: Sequence[Ask], seen: Cond) -> WithCond:
        if self.weak is not None:
            return WithCond(self.weak.denoiser, {**self._weak_conditions.of([first])[0], **seen})
        weak = conds[-1] if self._avoided else {**self.parts.conditioner.null(conds[0]), **seen}
        return WithCond(self.denoiser, weak)

    @property
    def _unled(self) -> bool:
        """Whether the pictures need be of nothing: guidance follows no label, or leads away from something else."""
        request = self.request
        plain = request.guidance == 0 or (request.guidance == 1 and request.edit is not None)
        return plain or request.negative is not None or self.weak is not None

    @property
    def _steered(self) -> bool:
        """Whether the request asks for guidance."""
        request = self.request
        return request.guidance != 1 or request.guidance_interval is not None or request.rule != "cfg"

    @cached_property
    def _conditions(self) -> Conditions:
        return Conditions(self.parts.conditioner, self.device)

    @cached_property
    def _weak_conditions(self) -> Conditions:
        return Conditions(cast(ModelParts, self.weak).conditioner, self.device)

    @property
    def _avoided(self) -> list[Ask]:
        """What to lead away from: a text, or a class where the model takes no texts."""
        negative = self.request.negative
        if negative is None:
            return []
        return [Ask(None, negative) if self.parts.conditioner.prompts else Ask(negative, "")]

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
        conditioner = self.parts.conditioner
        if not self.names:
            for label in self.request.labels:
                conditioner.index(label)
            return
        if not self.request.labels and (self.guide is not None or not (conditioner.prompts or self._unled)):
            raise Refused(f"{self.where} needs labels, and the request has none; name some of: {', '.join(self.names)}")
        for label in self.request.labels:
            several = len(mixture(label, self.names)) > 1
            if several and self.weak is not None:
                raise Refused(
                    f"the label '{label}' is made with the plain model, autoguidance goes without; use one of the two"
                )

    def _check_prompts(self) -> None:
        request, conditioner = self.request, self.parts.conditioner
        if request.prompts and not conditioner.prompts:
            raise Refused(f"{self.where} was not trained on captions; leave the prompt '{request.prompts[0]}' out")
        if conditioner.prompts and not request.prompts:
            raise Refused(f'{self.where} needs prompts, and the request has none; give one, or "" for none')
        if request.to is not None and not conditional(conditioner):
            raise Refused(f"{self.where} was trained without labels or captions; leave the way to '{request.to}' out")
        mixed = [prompt for prompt in request.prompts if len(prompts_in(prompt)) > 1]
        if self.weak is not None and (mixed or request.to is not None):
            raise Refused("mixtures are made with the plain model, autoguidance goes without; use one of the two")
        if request.to is not None and not conditioner.prompts:
            mixture(request.to, self.names)

    def _check_branches(self) -> None:
        request, conditioner = self.request, self.parts.conditioner
        guided = self._steered and self.parts.concat is None
        if not conditional(conditioner) and self.weak is None and (guided or request.negative is not None):
            raise Refused(
                f"{self.where} was trained without labels or captions, so there is nothing to guide; leave guidance at"
                " 1, or guide it by an earlier moment of its training (autoguidance)"
            )
        if request.negative is not None and self.weak is not None:
            raise Refused("negative and autoguidance are two things to lead away from; give one of them")
        if request.negative is not None and not conditioner.prompts:
            conditioner.index(request.negative)
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


def conditional(conditioner: Conditioner) -> bool:
    """Whether a model with this conditioner is told anything of its pictures."""
    return bool(conditioner.names) or conditioner.prompts


def _columns(asks: Sequence[Asked]) -> tuple[list[list[Ask]], list[Coefficient]]:
    """The first thing and weight of every picture, the second, ...: weight 0 where a picture has no such one.

    A weight is a number where it is the same for all.
    """
    columns: list[list[Ask]] = []
    weights: list[Coefficient] = []
    for column in range(max(map(len, asks))):
        chosen = [one[column] if column < len(one) else (one[0][0], 0.0) for one in asks]
        columns.append([ask for ask, _ in chosen])
        numbers = [weight for _, weight in chosen]
        weights.append(numbers[0] if len(set(numbers)) == 1 else torch.tensor(numbers, dtype=torch.float64))
    return columns, weights


def class_names(parts: ModelParts, guide: Guide | None) -> tuple[str, ...]:
    """The classes a label can be of: the model's, or else the classifier's."""
    return parts.conditioner.names or (() if guide is None else guide.classifier.names)
