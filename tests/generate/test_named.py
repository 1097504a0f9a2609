"""How solvers, rules, labels and moments are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import pytest

from nirvana.errors import Refused
from nirvana.generate.labels import Mixture, mixture
from nirvana.generate.moment import Moment, moment
from nirvana.generate.named import Named, listed, made, parameters, parse, taken


def thing(first: str, eta: float = 0.5, order: int = 2, flag: bool = False, name: str = "x") -> tuple[object, ...]:
    if eta > 1:
        raise ValueError(f"eta is {eta}: give at most 1")
    return first, eta, order, type(order), flag, name


KNOWN = {"thing": thing, "bare": lambda first: (first,)}


def test_a_name_and_its_numbers() -> None:
    assert parse("rule", "apg") == Named("apg", {})
    assert parse("rule", "apg: eta = 0, norm=inf,momentum=-5e-1") == Named(
        "apg", {"eta": 0.0, "norm": math.inf, "momentum": -0.5}
    )


@pytest.mark.parametrize("text", ["apg", "apg:eta=0,norm=inf", "cfg++:w=0.30000000000000004", "x:a=-1e-300,b=15"])
def test_what_is_written_is_read_again(text: str) -> None:
    assert str(parse("rule", text)) == text.replace("1e-300", "1e-300")
    assert parse("rule", str(parse("rule", text))) == parse("rule", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("apg:", "not written as NAME:KEY=VALUE"),
        ("apg:eta", "not written as NAME:KEY=VALUE"),
        ("apg:eta=", "not written as NAME:KEY=VALUE"),
        ("apg:=3", "not written as NAME:KEY=VALUE"),
        ("apg:eta=1,,norm=2", "not written as NAME:KEY=VALUE"),
        (":eta=1", "has no name"),
        ("apg:eta=1,eta=2", "says its 'eta' twice"),
        ("apg:eta=much", "which takes a number"),
        ("apg:eta=nan", "which takes a number"),
    ],
)
def test_what_is_not_written_so_is_refused(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        parse("rule", text)


def test_factories_get_their_numbers() -> None:
    assert parameters(thing, 1) == {"eta": 0.5, "order": 2}
    assert made("thing", "thing", KNOWN, "a") == ("a", 0.5, 2, int, False, "x")
    assert made("thing", "thing:eta=0.25,order=3", KNOWN, "a") == ("a", 0.25, 3, int, False, "x")
    assert made("thing", "bare", KNOWN, "a") == ("a",)


class Listing:
    """A factory that says itself what it takes."""

    parameters: Mapping[str, float] = {"eta": 1.0}

    def __call__(self, **values: float) -> dict[str, float]:
        return values


def test_a_factory_may_list_its_numbers() -> None:
    assert made("thing", "own:eta=2", {"own": Listing()}) == {"eta": 2.0}
    with pytest.raises(Refused, match=r"did you mean 'eta'\? \(known: eta\)"):
        made("thing", "own:etta=2", {"own": Listing()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("thin", r"unknown thing 'thin'; did you mean 'thing'\? \(known: bare, thing\)"),
        ("thing:etta=1", r"no parameter 'etta'; did you mean 'eta'\? \(known: eta, order\)"),
        ("thing:first=1", "no parameter 'first'"),
        ("thing:flag=1", "no parameter 'flag'"),
        ("bare:eta=1", r"no parameter 'eta' \(known: none\)"),
        ("thing:order=1.5", "whole number for 'order', got 1.5"),
        ("thing:eta=2", "'thing:eta=2' is not possible: eta is 2.0: give at most 1"),
    ],
)
def test_what_no_factory_makes_is_refused(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        made("thing", text, KNOWN, "a")


def test_a_key_can_be_taken_out() -> None:
    assert taken("rule", "apg:w=3,eta=0", "w") == ("apg:eta=0", 3.0)
    assert taken("rule", "cfg:w=3", "w") == ("cfg", 3.0)
    assert taken("rule", "apg:eta=0.10", "w") == ("apg:eta=0.10", None)


def test_lists_keep_numbers_with_their_name() -> None:
    assert listed("cfg, apg:eta=0,norm=15, cfg++:w=0.3,ddim") == ["cfg", "apg:eta=0,norm=15", "cfg++:w=0.3", "ddim"]
    assert listed("1/8:width=0.2,none") == ["1/8:width=0.2", "none"]
    assert listed("a,b=1") == ["a", "b=1"]


NAMES = ("tulip", "rose", "a+b", "10:30", "tulip:2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tulip", (("tulip", 1.0),)),
        ("tulip:1.5+rose:0.5", (("tulip", 1.5), ("rose", 0.5))),
        ("tulip + rose : -0.5", (("tulip", 1.0), ("rose", -0.5))),
        ("rose:3", (("rose", 3.0),)),
        ("a+b", (("a+b", 1.0),)),
        ("10:30", (("10:30", 1.0),)),
        ("tulip:2", (("tulip:2", 1.0),)),
        ("tulip:2:2+10:30", (("tulip:2", 2.0), ("10:30", 1.0))),
    ],
)
def test_labels_and_their_weights(text: str, expected: Mixture) -> None:
    assert mixture(text, NAMES) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tulp", "unknown label 'tulp'; did you mean 'tulip'"),
        ("tulip:1+ros:2", "unknown label 'ros'; did you mean 'rose'"),
        ("tulip:much", "unknown label 'tulip:much'"),
        ("tulip+", "unknown label ''"),
        ("tulip:0+rose", "weight 0; give a number other than 0"),
        ("tulip:inf", "give a number other than 0"),
        ("tulip+tulip", "names a class twice"),
    ],
)
def test_labels_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        mixture(text, NAMES)


def test_moments() -> None:
    assert moment("1/8") == moment("0.125") == Moment(Fraction(1, 8), None)
    assert moment("7500") == Moment(7500, None)
    assert moment("1/8:width=0.2") == Moment(Fraction(1, 8), 0.2)
    for text in ("0", "-1/8", "3/2", "1.5", "early", "1/0", "nan"):
        with pytest.raises(Refused, match="fraction of the run such as 1/8"):
            moment(text)
    with pytest.raises(Refused, match="did you mean 'width'"):
        moment("1/8:with=1")
