"""What an evaluation says: scores with their intervals, sample sizes, floors and warnings, as values and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from PIL import Image

from nirvana.errors import Refused
from nirvana.evaluate.statistics import Interval
from nirvana.files import Json, read_json, write_json

VERSION = 1
FILE, PAGE = "evaluation.json", "index.html"
FOLDER = "evaluation"


@dataclass(frozen=True)
class Score:
    """A figure and all that is needed to judge it.

    name: with the feature space, where there is one. better: "lower", "higher" or "" where neither is. interval: at
    95%. samples, references: how many pictures it rests on. floor: the same figure for real pictures against real ones.
    """

    name: str
    value: float
    better: str = ""
    interval: Interval | None = None
    samples: int = 0
    references: int = 0
    floor: float | None = None
    warning: str = ""

    def to_json(self) -> dict[str, Json]:
        """All fields."""
        interval = None if self.interval is None else list(self.interval)
        return cast("dict[str, Json]", {**asdict(self), "interval": interval})

    @staticmethod
    def from_json(value: Mapping[str, Json]) -> Score:
        """KeyError or TypeError where it is none."""
        ends = cast("Sequence[float] | None", value["interval"])
        return Score(
            name=str(value["name"]),
            value=float(cast("float", value["value"])),
            better=str(value["better"]),
            interval=None if ends is None else Interval(*ends),
            samples=int(cast("int", value["samples"])),
            references=int(cast("int", value["references"])),
            floor=cast("float | None", value["floor"]),
            warning=str(value["warning"]),
        )


@dataclass(frozen=True)
class Findings:
    """What one measure found. details: tables and curves for the report; pictures: for the report, by title."""

    scores: Sequence[Score] = ()
    details: Mapping[str, Json] = field(default_factory=dict[str, Json])
    pictures: Mapping[str, Image.Image] = field(default_factory=dict[str, Image.Image])
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Evaluation:
    """All scores of a run. about: the run, the request, the weights, the data and the space."""

    about: Mapping[str, Json]
    scores: Sequence[Score]
    details: Mapping[str, Json]
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Json]:
        """What is stored as evaluation.json."""
        return {
            "version": VERSION,
            "about": self.about,
            "scores": [score.to_json() for score in self.scores],
            "details": self.details,
            "notes": list(self.notes),
        }

    def write(self, folder: Path) -> None:
        """Into `folder`, in one step. OSError where it cannot be written."""
        write_json(folder / FILE, self.to_json())

    @staticmethod
    def read(path: Path) -> Evaluation:
        """The evaluation in a run folder, or in the folder of --out, or a file. Refused where there is none."""
        places = [path / FOLDER / FILE, path / FILE] if path.is_dir() else [path]
        place = next((p for p in places if p.is_file()), places[0])
        again = f"run `nirvana evaluate {path}` first" if path.is_dir() else "name a run folder that was evaluated"
        value = read_json(place, again)
        if value.get("version") != VERSION:
            raise Refused(f"{place} has version {value.get('version')}, this nirvana reads {VERSION}; evaluate it anew")
        try:
            return Evaluation(
                about=cast("Mapping[str, Json]", value["about"]),
                scores=[Score.from_json(s) for s in cast("list[Mapping[str, Json]]", value["scores"])],
                details=cast("Mapping[str, Json]", value["details"]),
                notes=tuple(str(note) for note in cast("list[Json]", value["notes"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"{place} is damaged ({type(error).__name__}: {error}); evaluate the run anew") from None
