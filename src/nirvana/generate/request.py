"""What is to be generated, all of it, in one frozen value that Python, the CLI and every picture's metadata share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

from nirvana.errors import Refused, unknown
from nirvana.files import Json
from nirvana.generate.changes import Changes
from nirvana.generate.checks import SEEDS, Since, check_fields, check_later, entries, flag, later, number, text, whole
from nirvana.generate.moment import moment
from nirvana.generate.named import parse

VERSION = 7
MOST_STEPS = 100_000
WEIGHTS = ("ema", "raw")
PRECISIONS = ("float32", "bfloat16")
ENGINES = ("torch", "openvino", "onnx", "aoti")

_SINCE: Since = {
    2: {"guidance_interval": None, "precision": "float32", "engine": "torch"},
    3: {"rule": "cfg", "negative": None, "autoguidance": None, "classifier": None},
    4: {"prompts": (), "to": None},
    5: {"to_seed": None},
    6: {"edit": None},
    7: {},  # the end of an edit
}


@dataclass(frozen=True)
class SampleRequest:
    """n pictures; picture i has seed `seed + i`, label `labels[i % len(labels)]`, and is made in batch `i // batch`.

    labels: class names, or several with weights ("tulip:1.5+rose:0.5"); empty for a model without classes, and
    where the pictures are of no class in particular.
    prompts: texts that take turns like the labels, also with weights ("a cat:1.5 + a dog:0.5"); "" asks for nothing.
    to: the pictures go from the prompt (or label) to this one in n even parts; to_seed: from the noise of `seed` to
    that of this one; without it all have the first. solver, grid: names that `nirvana.diffusion` knows, a solver with
    its numbers ("ddim:eta=0.5").
    guidance: w of x0 = weak + w*(strong - weak); 1 is the plain conditional model. weights: "ema" or "raw".
    clip: keep every predicted x0 in the range of the data (networks that predict eps need it).
    guidance_interval: guide only where low <= sigma/alpha <= high; None is everywhere. precision: of the network, the
    state is float32. engine: what runs the network, "torch" or one that `nirvana export` wrote.
    rule: how strong and weak make one x0, a name of `RULES` with its numbers ("apg:eta=0"). The weak branch is the
    model without a condition, or with the label or prompt `negative`, or as it was at the moment `autoguidance` of its
    training ("1/8", or images). classifier: name and scale of one that steers as well ("fashion:scale=2").
    edit: the pictures are this one, changed, or lie between two, from the one to the other; None: they are new.
    version: as which the request is written; an old one has none of the fields that came later.
    Raises Refused on every value out of range.
    """

    n: int = 1
    labels: tuple[str, ...] = ()
    steps: int = 25
    solver: str = "ddim"
    grid: str = "uniform"
    guidance: float = 1.0
    seed: int = 0
    batch: int = 16
    weights: str = "ema"
    clip: bool = False
    guidance_interval: tuple[float, float] | None = None
    precision: str = "float32"
    engine: str = "torch"
    rule: str = "cfg"
    negative: str | None = None
    autoguidance: str | None = None
    classifier: str | None = None
    prompts: tuple[str, ...] = ()
    to: str | None = None
    to_seed: int | None = None
    edit: Changes | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        check_version(self.version, "this request")
        for name in ("n", "steps", "batch", "seed"):
            whole(name, getattr(self, name), least=0 if name == "seed" else 1)
        if self.steps > MOST_STEPS:
            raise Refused(f"steps must be at most {MOST_STEPS}, got {self.steps}; 10 to 1000 is usual")
        if self.seed + self.n > SEEDS:
            raise Refused(f"seed must be in 0..2^63-1 for every picture, got {self.seed}..{self.seed + self.n - 1}")
        number("guidance", self.guidance)
        if self.guidance_interval is not None:
            _interval(self.guidance_interval)
        text("grid", self.grid)
        parse("solver", text("solver", self.solver))
        if "w" in parse("rule", text("rule", self.rule)).values:
            raise Refused(f"the rule '{self.rule}' has a w of its own; give it as the guidance")
        if self.negative is not None:
            _prompt("negative", text("negative", self.negative))
        if _optional("autoguidance", self.autoguidance) is not None:
            moment(cast(str, self.autoguidance))
        if _optional("classifier", self.classifier) is not None:
            parse("classifier", cast(str, self.classifier))
        for label in self.labels:
            text("label", label)
        for prompt in self.prompts:
            _prompt("prompt", prompt)
        self._check_way()
        for name, known in (("weights", WEIGHTS), ("precision", PRECISIONS), ("engine", ENGINES)):
            if text(name, getattr(self, name)) not in known:
                raise unknown(name, getattr(self, name), known)
        if self.engine != "torch" and (self.weights, self.precision) != ("ema", "float32"):
            raise Refused(
                f"the engine '{self.engine}' runs the averaged weights in the precision of its export; leave weights at"
                " 'ema' and precision at 'float32', or use the engine 'torch'"
            )
        check_later("a request", self, _SINCE, self.version)
        if self.edit is not None:
            self.edit.check_version(self.version)

    def _check_way(self) -> None:
        if self.to is not None:
            _prompt("to", self.to)
        if self.edit is not None and (self.to_seed is not None or (self.to is not None and not self.blends)):
            raise Refused("an edit has no way to go to another prompt or seed; leave `to` out")
        if self.to_seed is not None and whole("to_seed", self.to_seed, least=0) == self.seed:
            raise Refused(f"the way from seed {self.seed} leads to the same seed; give another one")
        if self.way and self.n < 2:
            end = "another picture" if self.blends else f"seed {self.to_seed}" if self.to is None else f"'{self.to}'"
            raise Refused(f"the way to {end} needs two pictures or more, got {self.n}; give n, such as 8")

    @property
    def blends(self) -> bool:
        """Whether the pictures lie between two that are there."""
        return self.edit is not None and self.edit.end is not None

    @property
    def way(self) -> bool:
        """Whether the pictures lead from one to another."""
        return self.blends or self.to is not None or self.to_seed is not None

    def share(self, i: int) -> float:
        """How far along its way picture i lies: 0 at the first, 1 at the last."""
        return i / (self.n - 1)

    @property
    def walked(self) -> int:
        """The steps that a picture takes in all: `steps`, and those of encoding what is edited."""
        return self.steps if self.edit is None else self.edit.walked(self.steps)

    def label(self, i: int) -> str | None:
        """The class name of picture i; None for a model without classes."""
        return self.labels[i % len(self.labels)] if self.labels else None

    def prompt(self, i: int) -> str | None:
        """The prompt of picture i; None where there is none."""
        return self.prompts[i % len(self.prompts)] if self.prompts else None

    def seed_of(self, i: int) -> int:
        """The seed of picture i: on a way the first one's, and that of its end for the last."""
        if self.to_seed is not None and i == self.n - 1:
            return self.to_seed
        return self.seed if self.way else self.seed + i

    def batches(self) -> list[range]:
        """The pictures of each batch: [k*batch, (k+1)*batch), the last one cut at n."""
        return [range(start, min(start + self.batch, self.n)) for start in range(0, self.n, self.batch)]

    def to_json(self) -> dict[str, Json]:
        """All fields of its version, as JSON values."""
        interval = self.guidance_interval
        fields: dict[str, Json] = {
            **dataclasses.asdict(self),
            "labels": list(self.labels),
            "prompts": list(self.prompts),
            "guidance": float(self.guidance),
            "guidance_interval": None if interval is None else [float(ratio) for ratio in interval],
            "edit": None if self.edit is None else self.edit.to_json(self.version),
        }
        return {name: value for name, value in fields.items() if name not in later(_SINCE, self.version)}

    @staticmethod
    def from_json(value: object) -> SampleRequest:
        """The request that `to_json` wrote; Refused on anything missing, unknown, ill-typed or from a newer version."""
        fields = entries("a request", value)
        version = check_version(fields.get("version"), "this request")
        fields = {**later(_SINCE, version), **fields}
        check_fields("the request", fields, SampleRequest)
        labels, prompts = fields["labels"], fields["prompts"]
        if not isinstance(labels, list | tuple):
            raise Refused(f"labels must be a list of class names, got {labels!r}")
        if not isinstance(prompts, list | tuple):
            raise Refused(f"prompts must be a list of texts, got {prompts!r}")
        return SampleRequest(
            labels=tuple(text("label", label) for label in cast("list[object]", labels)),
            prompts=tuple(_prompt("prompt", prompt) for prompt in cast("list[object]", prompts)),
            to=None if fields["to"] is None else _prompt("to", fields["to"]),
            to_seed=None if fields["to_seed"] is None else whole("to_seed", fields["to_seed"], least=0),
            n=whole("n", fields["n"], least=1),
            steps=whole("steps", fields["steps"], least=1),
            solver=text("solver", fields["solver"]),
            grid=text("grid", fields["grid"]),
            guidance=number("guidance", fields["guidance"]),
            seed=whole("seed", fields["seed"], least=0),
            batch=whole("batch", fields["batch"], least=1),
            weights=text("weights", fields["weights"]),
            clip=flag("clip", fields["clip"]),
            guidance_interval=None if fields["guidance_interval"] is None else _interval(fields["guidance_interval"]),
            precision=text("precision", fields["precision"]),
            engine=text("engine", fields["engine"]),
            rule=text("rule", fields["rule"]),
            negative=_optional("negative", fields["negative"]),
            autoguidance=_optional("autoguidance", fields["autoguidance"]),
            classifier=_optional("classifier", fields["classifier"]),
            edit=None if fields["edit"] is None else Changes.from_json(fields["edit"], version),
            version=version,
        )


def interval(written: str) -> tuple[float, float]:
    """The guidance interval written as "LOW,HIGH"; Refused where it is none."""
    try:
        return _interval([float(part) for part in written.split(",")])
    except ValueError:
        raise Refused(
            f"the guidance interval takes two numbers, got '{written}'; write LOW,HIGH such as 0.2,5"
        ) from None


def _interval(value: object) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(cast("list[object]", value)) != 2:
        raise Refused(f"the guidance interval is two ratios sigma/alpha, low and high, got {value!r}; such as 0.2,5")
    low, high = (number("the guidance interval", ratio) for ratio in cast("list[object]", value))
    if low >= high:
        raise Refused(f"the guidance interval must rise, got {low:g} to {high:g}; give the lower ratio first")
    return low, high


def check_version(version: object, what: str) -> int:
    """`version` if it is one this nirvana reads, else Refused."""
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Refused(f"{what} has no readable version (got {version!r}); it is damaged or was not made by nirvana")
    if version > VERSION:
        raise Refused(f"{what} has version {version}, newer than this nirvana reads ({VERSION}); upgrade nirvana")
    return version


def _prompt(name: str, value: object) -> str:
    """`value` if it is a text, the empty one too, that can be written down, else Refused."""
    if not isinstance(value, str):
        raise Refused(f"{name} must be a text, got {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(f"{name} has bytes that are no text in UTF-8 ({value[:40]!a}); write it in UTF-8") from None
    return value


def _optional(name: str, value: object) -> str | None:
    return None if value is None else text(name, value)
