from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nirvana.errors import Refused
from nirvana.generate import SampleRequest
from nirvana.generate.request import interval

names = st.text('aZ7 é-,"\u20ac', min_size=1, max_size=8)
# Plain values: the type checker of the tests draws random numbers, which a strategy must not.
fields = st.fixed_dictionaries(
    {
        "n": st.integers(1, 10**6),
        "labels": st.lists(names, max_size=4).map(tuple),
        "steps": st.integers(1, 10**5),
        "solver": names,
        "grid": names,
        "guidance": st.floats(0, 1e6),
        "seed": st.integers(0, 2**63 - 10**6),
        "batch": st.integers(1, 10**6),
        "weights": st.sampled_from(["ema", "raw"]),
        "clip": st.booleans(),
        "guidance_interval": st.none() | st.tuples(st.floats(0, 1), st.floats(1.5, 1e6)),
        "precision": st.just("float32"),
        "engine": st.just("torch"),
        "rule": st.sampled_from(["cfg", "apg:eta=0.5,norm=inf", "cfg++"]),
        "negative": st.none() | names,
        "autoguidance": st.sampled_from([None, "1/8", "0.25", "700:width=0.2"]),
        "classifier": st.sampled_from([None, "fashion", "mine:scale=2"]),
    }
)


@given(fields)
def test_json_round_trip(fields: dict[str, Any]) -> None:
    made = SampleRequest(**fields)
    assert SampleRequest.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False))) == made


@given(st.integers(1, 300), st.integers(1, 40))
def test_batches_are_consecutive_and_cover_every_picture_once(n: int, batch: int) -> None:
    request = SampleRequest(n=n, batch=batch)
    batches = request.batches()
    assert [i for part in batches for i in part] == list(range(n))
    assert all(part.start == k * batch and len(part) <= batch for k, part in enumerate(batches))


def test_labels_take_turns() -> None:
    request = SampleRequest(n=5, labels=("a", "b"))
    assert [request.label(i) for i in range(5)] == ["a", "b", "a", "b", "a"]
    assert SampleRequest(n=2).label(1) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 10**6}, "steps must be at most"),
        ({"n": 0}, "n must be at least 1"),
        ({"n": -3}, "n must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"guidance": -0.1}, "guidance must be a finite number of at least 0"),
        ({"guidance": math.nan}, "guidance must be a finite number"),
        ({"guidance": math.inf}, "guidance must be a finite number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**63}, r"seed must be at most 2\^63-1"),
        ({"seed": 2**63 - 1, "n": 2}, "for every picture"),
        ({"solver": ""}, "solver must be a non-empty name"),
        ({"labels": ("",)}, "label must be a non-empty name"),
        ({"weights": "emma"}, "did you mean 'ema'"),
        ({"version": 8}, "newer than this nirvana"),
        ({"version": 4, "n": 2, "to_seed": 3}, "version 4 has no 'to_seed'"),
        ({"n": 2, "to_seed": -1}, "to_seed must be at least 0"),
        ({"n": 2, "to_seed": 7, "seed": 7}, "the way from seed 7 leads to the same seed"),
        ({"to_seed": 3}, "the way to seed 3 needs two pictures or more, got 1"),
        ({"to": "a cat"}, "the way to 'a cat' needs two pictures or more, got 1"),
        ({"version": 0}, "no readable version"),
        ({"guidance_interval": (2.0, 1.0)}, "must rise, got 2 to 1"),
        ({"guidance_interval": (1.0, 1.0)}, "must rise"),
        ({"guidance_interval": (-1.0, 1.0)}, "at least 0"),
        ({"guidance_interval": (0.0, math.inf)}, "finite"),
        ({"precision": "float61"}, "unknown precision 'float61'"),
        ({"engine": "opnevino"}, "did you mean 'openvino'"),
        ({"engine": "onnx", "weights": "raw"}, "leave weights at 'ema'"),
        ({"engine": "onnx", "precision": "bfloat16"}, "precision at 'float32'"),
        ({"rule": ""}, "rule must be a non-empty name"),
        ({"rule": "apg:"}, "NAME:KEY=VALUE"),
        ({"rule": "cfg:w=3"}, "give it as the guidance"),
        ({"solver": "ddim:eta"}, "NAME:KEY=VALUE"),
        ({"solver": "ddim:eta=x"}, "which takes a number"),
        ({"negative": ""}, "negative must be a non-empty name"),
        ({"autoguidance": "3/2"}, "fraction of the run such as 1/8"),
        ({"classifier": ":scale=2"}, "has no name"),
        ({"version": 2, "rule": "apg"}, "version 2 has no 'rule'"),
        ({"version": 2, "negative": "cat"}, "version 2 has no 'negative'"),
        ({"version": 1, "autoguidance": "1/8"}, "version 1 has no 'autoguidance'"),
        ({"version": 1, "precision": "bfloat16"}, "version 1 has no 'precision'"),
        ({"version": 1, "guidance_interval": (0.0, 1.0)}, "version 1 has no 'guidance_interval'"),
    ],
)
def test_bad_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(Refused, match=message):
        dataclasses.replace(SampleRequest(), **changes)  # pyright: ignore[reportArgumentType]


def test_the_ends_of_the_ranges_are_fine() -> None:
    for guidance in (0.0, 0.5, 1.0):
        assert SampleRequest(guidance=guidance).guidance == guidance
    assert SampleRequest(seed=2**63 - 1).seed == 2**63 - 1
    assert SampleRequest(seed=2**63 - 2, n=2).n == 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"setps": 3}, "unknown field 'setps'; did you mean 'steps'"),
        ({"steps": None}, "lacks its field 'steps'"),
        ({"version": None}, "no readable version"),
        ({"version": 8}, "newer"),
        ({"steps": "4"}, "whole number"),
        ({"steps": 4.0}, "whole number"),
        ({"n": True}, "whole number"),
        ({"guidance": "1"}, "must be a number"),
        ({"labels": "cat"}, "list of class names"),
        ({"labels": [1]}, "non-empty name"),
        ({"solver": 3}, "non-empty name"),
        ({"guidance_interval": 3}, "two ratios"),
        ({"guidance_interval": [1]}, "two ratios"),
        ({"guidance_interval": [0, "1"]}, "must be a number"),
        ({"precision": None}, "lacks its field 'precision'"),
        ({"engine": 3}, "non-empty name"),
        ({"version": 1, "engine": "onnx"}, "version 1 has no 'engine'"),
        ({"rule": None}, "lacks its field 'rule'"),
        ({"rule": 3}, "non-empty name"),
        ({"negative": 3}, "non-empty name"),
        ({"classifier": 3}, "non-empty name"),
    ],
)
def test_from_json_is_strict(edit: dict[str, object], message: str) -> None:
    value = {**SampleRequest().to_json(), **edit}
    with pytest.raises(Refused, match=message):
        SampleRequest.from_json({name: v for name, v in value.items() if name not in edit or v is not None})
    with pytest.raises(Refused, match="JSON object"):
        SampleRequest.from_json([1])


FIRST = {
    "n": 3,
    "labels": ["cat"],
    "steps": 4,
    "solver": "ddpm",
    "grid": "uniform",
    "guidance": 2.0,
    "seed": 5,
    "batch": 2,
    "weights": "raw",
    "clip": True,
    "version": 1,
}
"""A request as the first version wrote it."""


def test_a_request_of_the_first_version_is_read_and_written_as_it_was() -> None:
    read = SampleRequest.from_json(FIRST)
    assert (read.guidance_interval, read.precision, read.engine) == (None, "float32", "torch")
    assert (read.n, read.solver, read.clip, read.seed) == (3, "ddpm", True, 5)
    assert json.dumps(read.to_json()) == json.dumps(FIRST)
    with pytest.raises(Refused, match="lacks its field 'clip'"):
        SampleRequest.from_json({name: value for name, value in FIRST.items() if name != "clip"})


SECOND = {
    **{name: value for name, value in FIRST.items() if name != "version"},
    "guidance_interval": [0.5, 2.0],
    "precision": "bfloat16",
    "engine": "torch",
    "version": 2,
}
"""A request as the second version wrote it."""


def test_a_request_of_the_second_version_is_read_and_written_as_it_was() -> None:
    read = SampleRequest.from_json(SECOND)
    assert (read.rule, read.negative, read.autoguidance, read.classifier) == ("cfg", None, None, None)
    assert json.dumps(read.to_json()) == json.dumps(SECOND)


def test_an_interval_is_written_with_a_comma() -> None:
    assert interval("0.2, 5") == (0.2, 5.0)
    for wrong in ("1", "1,2,3", "a,b", "", "2,1", "0,nan"):
        with pytest.raises(Refused, match="interval"):
            interval(wrong)
