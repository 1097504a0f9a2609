"""The run folder: all that is known about a training, on the disk. Reading it costs no torch and executes no code.

run.json          what was asked: config, plan, model, versions (sealed with its own digest)
data.json         the manifest of the data, rejected files included
metrics.jsonl     one line every few steps            events.jsonl   saves, rollbacks, starts
checkpoints/<images>/{task,optimizer,ema0,ema1,...}.safetensors + state.json
ema/<part>of<whole>-<sigma_rel>.safetensors           samples/<images>.png    index.html
"""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import cast

from nirvana.errors import Refused
from nirvana.files import (
    TEMPORARY,
    Json,
    append_line,
    digest_of,
    explained,
    json_line,
    json_text,
    locked,
    new_folder,
    read_json,
    read_lines,
    read_sealed,
    remove_abandoned,
    remove_folder,
    remove_temporaries,
    repair_lines,
    sealed,
    write_chunks,
)
from nirvana.train.plan import TrainPlan

FORMAT_VERSION = 1
RUN, DATA, METRICS, EVENTS, REPORT, LOCK = (
    "run.json",
    "data.json",
    "metrics.jsonl",
    "events.jsonl",
    "index.html",
    ".lock",
)
CHECKPOINTS, SNAPSHOTS, SAMPLES = "checkpoints", "ema", "samples"
_AGAIN = "restore it from a copy, or train anew with --fresh"


@dataclass(frozen=True)
class Checkpoint:
    """A complete state of a training after `images` images.

    scheduled  it lies where the plan has one; only these are rolled back to
    settled    samples, snapshots and metrics due at `images` were written before it
    rollbacks  how often the training had been rolled back
    seconds    spent training so far
    window     what the next line of the metrics has of the steps before this checkpoint
    sigma_rels of the files ema0, ema1, ...
    files      name -> (bytes, sha256)
    """

    path: Path
    images: int
    scheduled: bool
    settled: bool
    rollbacks: int
    seconds: float
    window: list[Json]
    sigma_rels: tuple[float, ...]
    files: Mapping[str, tuple[int, str]]

    @property
    def packed(self) -> bool:
        """Whether it holds averaged weights alone, in 16 bits, under the name of the trained ones (`train.pack`)."""
        return not self.sigma_rels

    @property
    def way_out(self) -> str:
        """What to do when it is damaged."""
        return f"delete the folder {self.path} to go on from the checkpoint before it, or restore it from a copy"

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read `state.json`; raises Refused where it is missing, damaged, edited or newer than this nirvana."""
        way_out = f"delete the folder {path} to go on from the checkpoint before it, or restore it from a copy"
        state = read_sealed(path / "state.json", way_out, FORMAT_VERSION)
        files = cast("dict[str, dict[str, Json]]", state["files"])
        return cls(
            path=path,
            images=cast("int", state["images"]),
            scheduled=cast("bool", state["scheduled"]),
            settled=cast("bool", state["settled"]),
            rollbacks=cast("int", state["rollbacks"]),
            seconds=cast("float", state["seconds"]),
            window=list(cast("list[Json]", state["window"])),
            sigma_rels=tuple(cast("list[float]", state["sigma_rels"])),
            files={name: (cast("int", f["bytes"]), cast("str", f["sha256"])) for name, f in files.items()},
        )


@dataclass(frozen=True)
class Snapshot:
    """EMA weights kept at a fraction of the run."""

    path: Path
    fraction: Fraction
    sigma_rel: float


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A run folder that was opened or created (do either through the class methods)."""

    path: Path
    config: Mapping[str, Json]
    plan: TrainPlan
    model_spec: Mapping[str, Json]
    info: Mapping[str, Json]

    @classmethod
    def create(
        cls,
        path: Path,
        config: Mapping[str, Json],
        plan: TrainPlan,
        data_manifest: Mapping[str, Json],
        model_spec: Mapping[str, Json],
        command: str,
        *,
        fresh: bool = False,
    ) -> RunFolder:
        """A new run folder at `path`, which appears complete or not at all.

        `fresh` replaces the run that is there. Raises Refused where `path` is taken by anything else, or a training
        is going on in it.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            if not (path / RUN).is_file():
                raise Refused(f"{path} exists and is no run folder; choose another --out, or move it away")
            if not fresh:
                raise Refused(f"{path} is a run already; choose another --out, or add --fresh to start anew")
        run: dict[str, Json] = {
            "format_version": FORMAT_VERSION,
            "created": now(),
            "command": command,
            "versions": versions(),
            "data_digest": digest_of(data_manifest),
            "config": config,
            "plan": plan.to_json(),
            "model": model_spec,
        }
        with explained(path, "make room or choose another --out, and run the same command again"):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(path)
            with _free(path), new_folder(path, replace=True) as temporary:
                for name in (CHECKPOINTS, SNAPSHOTS, SAMPLES):
                    (temporary / name).mkdir()
                write_chunks(temporary / DATA, [json_text(data_manifest).encode()])
                write_chunks(temporary / RUN, [json_text(sealed(run)).encode()])
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run folder at `path`. Raises Refused where it is none, is damaged, or comes from a newer nirvana."""
        path = Path(path)
        if not path.is_dir():
            raise Refused(
                f"{path} is {'no folder' if path.exists() else 'not there'}; name a folder that training made"
            )
        if not (path / RUN).is_file():
            raise Refused(f"{path} is no run folder (it has no {RUN}); name a folder that training made")
        info = read_sealed(path / RUN, _AGAIN, FORMAT_VERSION)
        try:
            plan = TrainPlan.from_json(cast("Mapping[str, Json]", info["plan"]))
            config = cast("Mapping[str, Json]", info["config"])
            return cls(path, config, plan, cast("Mapping[str, Json]", info["model"]), info)
        except (KeyError, TypeError) as error:
            raise Refused(f"{path / RUN} is damaged ({error}); {_AGAIN}") from None

    @classmethod
    def open_or_create(
        cls,
        path: Path,
        config: Mapping[str, Json],
        plan: TrainPlan,
        data_manifest: Mapping[str, Json],
        model_spec: Mapping[str, Json],
        command: str,
        *,
        fresh: bool = False,
    ) -> RunFolder:
        """The run that this command began, to be continued with its own plan (`.plan`), or else a new one.

        Raises Refused where the run at `path` has another config or other data, naming the first difference.
        """
        path = Path(path)
        if fresh or not (path / RUN).is_file():
            return cls.create(path, config, plan, data_manifest, model_spec, command, fresh=fresh)
        run = cls.open(path)
        difference = run.first_difference(config, data_manifest)
        if difference:
            raise Refused(f"{path} is a run of another command: {difference}; choose another --out, or add --fresh")
        return run

    def first_difference(self, config: Mapping[str, Json], data_manifest: Mapping[str, Json]) -> str | None:
        """The first field in which this run was asked for differently, or None."""
        for name in [*self.config, *(name for name in config if name not in self.config)]:
            before, after = self.config.get(name), config.get(name)
            if digest_of(before) != digest_of(after):
                return f"its {name} is {before}, not {after}"
        if self.info["data_digest"] != digest_of(data_manifest):
            return "its data have changed"
        return None

    @property
    def data(self) -> dict[str, Json]:
        """The manifest of the data. Raises Refused where it was damaged or edited."""
        manifest = read_json(self.path / DATA, _AGAIN)
        if digest_of(manifest) != self.info["data_digest"]:
            raise Refused(f"{self.path / DATA} is damaged or was edited (its digest does not fit); {_AGAIN}")
        return manifest

    @property
    def metrics_path(self) -> Path:
        return self.path / METRICS

    @property
    def samples_path(self) -> Path:
        return self.path / SAMPLES

    def metrics(self) -> list[dict[str, Json]]:
        """The lines of the metrics."""
        return read_lines(self.metrics_path, "delete that line, or the whole file: training does not need it")

    def events(self) -> list[dict[str, Json]]:
        """The log of events."""
        return read_lines(self.path / EVENTS, "delete that line, or restore the file from a copy")

    def log_event(self, kind: str, values: Mapping[str, Json]) -> None:
        """Append an event to the log; it is on the disk when this returns."""
        append_line(self.path / EVENTS, json_line({"event": kind, "at": now(), **values}), durable=True)

    def checkpoint_path(self, images: int) -> Path:
        return self.path / CHECKPOINTS / f"{images:09d}"

    def checkpoints(self) -> Iterator[Checkpoint]:
        """All checkpoints, newest first, read one by one: a damaged one is Refused only when it is reached."""
        folder = self.path / CHECKPOINTS
        names = [name.name for name in folder.iterdir() if name.name.isdigit()] if folder.is_dir() else []
        for name in sorted(names, key=int, reverse=True):
            yield Checkpoint.read(folder / name)

    def valid_checkpoints(self) -> Iterator[Checkpoint]:
        """The checkpoints on the path the training is on: not those that a rollback has left behind."""
        rollbacks = [event for event in self.events() if event.get("event") == "rolled_back"]
        back_to = cast("int", rollbacks[-1]["to"]) if rollbacks else 0
        for checkpoint in self.checkpoints():
            if checkpoint.rollbacks == len(rollbacks) or checkpoint.images <= back_to:
                yield checkpoint

    def latest(self) -> Checkpoint | None:
        """The newest valid checkpoint."""
        return next(self.valid_checkpoints(), None)

    def scheduled(self) -> list[Checkpoint]:
        """The valid checkpoints that lie where the plan has them, newest first."""
        return [checkpoint for checkpoint in self.valid_checkpoints() if checkpoint.scheduled]

    def snapshot_path(self, fraction: Fraction, sigma_rel: float) -> Path:
        return self.path / SNAPSHOTS / f"{fraction.numerator}of{fraction.denominator}-{sigma_rel!r}.safetensors"

    def snapshots(self) -> list[Snapshot]:
        """The EMA snapshots on the disk, earliest first."""
        found: list[Snapshot] = []
        for path in (self.path / SNAPSHOTS).glob("*of*-*.safetensors"):
            if not path.name.startswith(TEMPORARY):
                fraction, _, width = path.name.removesuffix(".safetensors").partition("-")
                part, _, whole = fraction.partition("of")
                found.append(Snapshot(path, Fraction(int(part), int(whole)), float(width)))
        return sorted(found, key=lambda snapshot: (snapshot.fraction, -snapshot.sigma_rel))

    @property
    def finished(self) -> bool:
        """Whether the training has reached the end of its plan."""
        latest = self.latest()
        return latest is not None and latest.images == self.plan.images and latest.settled

    def lock(self) -> AbstractContextManager[None]:
        """Hold this folder for a training. Raises Refused where another one holds it."""
        return locked(self.path / LOCK, f"a training is going on in {self.path}; wait for it, or choose another --out")

    def clean(self) -> None:
        """Remove what a killed training left half-written (call it with the lock held)."""
        for folder in (self.path, *(self.path / name for name in (CHECKPOINTS, SNAPSHOTS, SAMPLES))):
            folder.mkdir(exist_ok=True)
            remove_temporaries(folder)
        repair_lines(self.path / EVENTS)
        repair_lines(self.metrics_path)


@contextmanager
def _free(path: Path) -> Generator[None, None, None]:
    # What is replaced must not be in use; an empty folder is simply taken.
    if (path / RUN).is_file():
        with locked(path / LOCK, f"a training is going on in {path}; wait for it, or choose another --out"):
            yield
    else:
        if path.is_dir():
            remove_folder(path)
        yield


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, Json]:
    """Versions that decide about the weights, without importing anything heavy."""
    found: dict[str, Json] = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("nirvana", "torch", "numpy", "pillow", "safetensors"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
