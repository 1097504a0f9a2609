"""A whole evaluation: every score with its sizes, a page that needs nothing else, and resuming."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from nirvana.data import open_data
from nirvana.errors import Refused
from nirvana.evaluate import curves
from nirvana.evaluate.alignment import fit_ridge
from nirvana.evaluate.data import data_of
from nirvana.evaluate.evaluation import Outcome, Plan, evaluate
from nirvana.evaluate.measures import MEASURES
from nirvana.evaluate.prompts import alignment, prompt_following
from nirvana.evaluate.report import page
from nirvana.evaluate.samples import LEAST
from nirvana.evaluate.scores import Evaluation, Score
from nirvana.evaluate.space import ModuleSpace
from nirvana.evaluate.statistics import Interval
from nirvana.generate.model import Model, load
from nirvana.train.plot import Line, plot
from tiny_evaluation import digits_run, space


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_run(tmp_path_factory.mktemp("evaluation") / "digits")


@pytest.fixture(scope="module")
def outcome(run: Path) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "SAMPLES", 24)
        patch.setattr(curves, "STEPS", (1, 3))
        patch.setattr(curves, "GUIDANCE", (1.0, 2.0))
        return evaluate(load(run), Plan(n=260, steps=1, curves=True), space=space())


def scores(outcome: Outcome) -> dict[str, Score]:
    return {score.name: score for score in outcome.evaluation.scores}


def test_every_figure_has_its_sizes_interval_and_floor(outcome: Outcome) -> None:
    found = scores(outcome)
    assert list(found) == [
        "FD-coarse",
        "FD-coarse, not extrapolated",
        "KID-coarse x 1000",
        *(f"{name}-coarse" for name in ("precision", "recall", "density", "coverage")),
        "as asked (linear on coarse)",
        "p of no copies",
    ]
    for name, score in found.items():
        assert score.samples == 260
        assert score.references in (260, 359, 1438)
        if name not in ("FD-coarse, not extrapolated", "p of no copies"):
            assert score.floor is not None and score.interval is not None
            assert score.interval.low <= score.value <= score.interval.high
    noise_is_worse = ("FD-coarse", "KID-coarse x 1000")
    assert all(found[name].interval.low > found[name].floor for name in noise_is_worse)  # pyright: ignore
    assert found["precision-coarse"].value < 0.2 < 0.7 < (found["precision-coarse"].floor or 0)
    assert found["p of no copies"].value > 0.01
    assert not any("FID" in name for name in found)


def test_details_say_classes_curves_and_copies(outcome: Outcome) -> None:
    details: Any = outcome.evaluation.details
    assert [row["class"] for row in details["shares"]["classes"]] == list("0123456789")
    assert sum(row["share"] for row in details["shares"]["classes"]) == pytest.approx(1)
    assert [row["class"] for row in details["classes"]] == list("0123456789")
    assert {curve["against"] for curve in details["curves"]} == {"network calls", "guidance"}
    by_calls = [curve for curve in details["curves"] if curve["against"] == "network calls"]
    assert [curve["name"] for curve in by_calls] == ["ddim", "unipc-2", "heun", "dpmpp-2m-sde"]
    calls = {curve["name"]: [point["x"] for point in curve["points"]] for curve in by_calls}
    assert calls["ddim"] == [1, 3] and calls["heun"] == [1, 4]  # twice in the middle step
    assert sum(details["copies"]["samples"]) == pytest.approx(1)


def test_comes_back_from_json(outcome: Outcome, tmp_path: Path) -> None:
    outcome.evaluation.write(tmp_path)
    assert Evaluation.read(tmp_path).to_json() == outcome.evaluation.to_json()
    text = (tmp_path / "evaluation.json").read_text()
    for damaged, message in [
        (text[:-9], "is damaged"),
        (text.replace('"better"', '"beter"'), "is damaged"),
        (text.replace('"version": 1', '"version": 2'), "evaluate it anew"),
    ]:
        (tmp_path / "evaluation.json").write_text(damaged)
        with pytest.raises(Refused, match=message):
            Evaluation.read(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(Refused, match="run `nirvana evaluate"):
        Evaluation.read(tmp_path / "none")


def test_the_page_needs_nothing_else(outcome: Outcome) -> None:
    text = page(outcome)
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "http" not in text
    for shown in ("FD-coarse", "real against real", "Nearest training pictures", "against guidance", "Classes of the"):
        assert shown in text
    assert text.count("<svg") == 3
    assert "nan" not in text.replace("data:image", "").lower().split("</style>")[0]


def test_what_was_drawn_before_an_interruption_is_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nirvana.evaluate import samples

    monkeypatch.setattr(samples, "_CHUNK", 32)
    model, drawn, stream = load(digits_run(tmp_path / "r")), list[int](), Model.stream

    def counting(self: Model, request: Any, batches: Any = None) -> Any:
        drawn.extend(i for batch in batches for i in batch)
        if len(drawn) > 128:
            raise KeyboardInterrupt
        return stream(self, request, batches)

    monkeypatch.setattr(Model, "stream", counting)
    plan = Plan(n=256, steps=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, plan, space=space())
    done = len(list((tmp_path / "r").rglob("*.npy")))
    assert done == 2
    drawn.clear()
    monkeypatch.setattr(Model, "stream", stream)
    first = evaluate(model, plan, space=space())
    again = evaluate(load(digits_run(tmp_path / "other")), plan, space=space())
    assert [s.value for s in first.evaluation.scores] == [s.value for s in again.evaluation.scores]


def test_copies_planted_among_the_samples_are_reported(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nirvana.evaluate.samples import Drawn

    train, test = open_data("digits").images, open_data("digits:test").images
    planted = np.concatenate([train[:40], test[:160]])
    monkeypatch.setattr(Drawn, "chunks", lambda _: iter([planted]))
    found = evaluate(load(run), Plan(n=200, steps=1, against="digits:test"), space=space())
    assert scores(found)["p of no copies"].value < 0.01
    assert any("closer to single training pictures" in note for note in found.evaluation.notes)


def test_prompts_texts_and_any_other_measure_come_in_by_the_same_door(run: Path) -> None:
    model, asked = load(run), list[str]()

    def check(pictures: np.ndarray, prompts: Any) -> np.ndarray:
        asked.extend(prompts)
        return np.array([prompt == "3" for prompt in prompts])

    texts = np.eye(10)
    data = open_data("digits")
    ridge = fit_ridge(space()(data.images), texts[data.labels])
    measures = (prompt_following(check, "digits"), alignment(ridge, lambda t: texts[[int(x) for x in t]], "digits"))
    found = scores(evaluate(model, Plan(n=50, steps=1), space=space(), measures=measures))
    following, aligned = found["as asked (digits)"], found["alignment (digits)"]
    assert set(asked) == set("0123456789")
    assert following.value == pytest.approx(np.mean([a == "3" for a in asked]))
    assert -0.3 < aligned.value < 0.3  # noise fits no text
    assert aligned.interval is not None and following.interval is not None


def test_small_data_leave_the_frechet_distance_out_and_say_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nirvana.evaluate import reference

    monkeypatch.setattr(reference, "MOST", 16)
    found = evaluate(load(run), Plan(n=100, steps=1, against="digits:test"), space=space(), measures=MEASURES[:2])
    assert "FD-coarse" not in scores(found) and "KID-coarse x 1000" in scores(found)
    assert "16 real pictures give no covariance of 16 features" in found.evaluation.notes[0]


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path, run: Path) -> None:
    model = load(run)
    for plan, message in [
        ({"n": 16}, "-n 16 samples are fewer than needed: coarse has 16 features; give -n 24"),
        ({"n": 200, "against": "digitz"}, "did you mean 'digits'"),
        ({"n": 200, "solver": "dmi"}, "unknown solver"),
    ]:
        with pytest.raises(Refused, match=message):
            evaluate(model, Plan(**plan), space=space())
    for values, message in [
        ({"n": 5, "minutes": 1.0}, "give one of them"),
        ({"n": 1}, "at least 2"),
        ({"minutes": float("nan")}, "more than 0"),
    ]:
        with pytest.raises(Refused, match=message):
            Plan(**values)
    gone = load(digits_run(tmp_path / "gone", source=str(tmp_path / "moved")))
    with pytest.raises(Refused, match=r"training data are not there .* name real pictures with --against"):
        evaluate(gone, Plan(n=200, steps=1), space=space())
    found = evaluate(gone, Plan(n=200, steps=1, against="digits:test"), space=space())
    assert "p of no copies" not in scores(found)
    assert any("no look for copies" in note for note in found.evaluation.notes)


def test_the_time_decides_but_never_below_the_least() -> None:
    goal = Plan(minutes=2.0).goal(space())
    assert (goal.n, goal.seconds, goal.least) == (None, 120.0, LEAST)
    wide = ModuleSpace("wide", 2048, nn.Identity(), side=8, prepare=lambda x: x)
    assert Plan().goal(wide).least == 3072


def test_samples_are_held_against_unseen_pictures_of_a_built_in(run: Path) -> None:
    data = data_of(load(run), None)
    assert (data.real.manifest.source, data.unseen and data.unseen.manifest.source) == ("digits", "digits:test")
    other = data_of(load(run), "digits:test")
    assert (other.real.manifest.source, other.train and other.train.manifest.source) == ("digits:test", "digits")


def test_interval_type_survives(outcome: Outcome) -> None:
    again = Score.from_json(outcome.evaluation.scores[0].to_json())
    assert again == outcome.evaluation.scores[0] and isinstance(again.interval, Interval)


def test_a_solver_with_numbers_has_its_line_and_one_that_cannot_be_used_has_none(run: Path) -> None:
    model = load(run)
    request = model.request(solver="ddim:eta=0.5")
    assert _by_calls(curves.series(model, request)) == ["ddim:eta=0.5", "ddim", "unipc-2", "heun"]
    assert _by_calls(curves.series(model, request, ["heun", "dpmpp-3m", "heun"])) == ["heun", "dpmpp-3m"]
    limited = model.request(solver="ddim", rule="cfg++")
    assert _by_calls(curves.series(model, limited)) == ["ddim"]  # the rule is for deterministic first-order steps
    with pytest.raises(Refused, match="cfg\\+\\+"):
        curves.series(model, limited, ["heun"])


def _by_calls(lines: Sequence[curves.Series]) -> list[str]:
    return [name for against, name, _ in lines if against == curves.CALLS]


def test_solvers_of_the_curves_are_checked_before_anything_is_drawn(run: Path) -> None:
    with pytest.raises(Refused, match="unknown solver 'huen'; did you mean 'heun'"):
        evaluate(load(run), Plan(n=260, curves=True, solvers=("huen",)), space=space(), progress=_nothing_drawn)
    with pytest.raises(Refused, match="add --curves"):
        Plan(solvers=("heun",))


def _nothing_drawn(what: str, done: int, total: int) -> None:
    assert what != "drawing", (done, total)


def test_calls_are_drawn_on_an_axis_that_doubles() -> None:
    svg = plot([Line("a", [(4.0, 1.0), (8.0, 1.0), (32.0, 1.0)], "a", dots=True)], "calls", doubling=True)
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert places[2] - places[1] == pytest.approx(2 * (places[1] - places[0]), abs=0.2)
    assert re.findall(r'middle">(\d+)<', svg) == ["4", "8", "16", "32"]
