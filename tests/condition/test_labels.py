from __future__ import annotations

import pytest
import torch

from nirvana.condition import LabelConditioner, NoConditioner, conditioner_from_config
from nirvana.errors import Refused

NAMES = ("cat", "dog", "otter")


def test_each_label_is_its_own_row() -> None:
    conditioner = LabelConditioner(NAMES, 4)
    vector = conditioner(torch.tensor([2, 0, 1, 2]))["vector"]
    assert torch.equal(vector, conditioner.embedding.weight[[2, 0, 1, 2]])
    assert conditioner.embedding.weight.shape == (4, 4)


def test_exactly_the_dropped_samples_get_the_null_class() -> None:
    conditioner = LabelConditioner(NAMES, 4)
    drop = torch.tensor([True, False, False, True])
    vector = conditioner(torch.tensor([0, 0, 1, 2]), drop)["vector"]
    assert torch.equal(vector, conditioner.embedding.weight[[3, 0, 1, 3]])


def test_null_is_what_training_drops_to() -> None:
    conditioner = LabelConditioner(NAMES, 4)
    labels = torch.tensor([1, 2])
    assert torch.equal(
        conditioner.null(conditioner(labels))["vector"], conditioner(labels, torch.tensor([True, True]))["vector"]
    )


def test_only_the_rows_in_use_learn() -> None:
    conditioner = LabelConditioner(NAMES, 4)
    conditioner(torch.tensor([0, 1]), torch.tensor([False, True]))["vector"].sum().backward()
    gradient = conditioner.embedding.weight.grad
    assert gradient is not None
    assert gradient.sum(1).tolist() == [4.0, 0.0, 0.0, 4.0]


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_an_error_and_never_the_null_class(label: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.2"):
        LabelConditioner(NAMES, 4)(torch.tensor([0, label]))


def test_an_unknown_name_names_the_nearest() -> None:
    conditioner = LabelConditioner(NAMES, 4)
    assert conditioner.index("otter") == 2
    with pytest.raises(Refused, match="did you mean 'otter'"):
        conditioner.index("oter")
    with pytest.raises(Refused, match="without labels"):
        NoConditioner().index("cat")


def test_config_round_trip() -> None:
    made = conditioner_from_config(LabelConditioner(NAMES, 4, 0.25).config())
    assert isinstance(made, LabelConditioner)
    assert (made.names, made.dim, made.drop) == (NAMES, 4, 0.25)
    assert isinstance(conditioner_from_config(NoConditioner().config()), NoConditioner)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "label"}, "did you mean 'labels'"),
        ({"kind": "labels", "names": "cat", "dim": 4}, "list of strings"),
        ({"kind": "labels", "names": ["cat", 1], "dim": 4}, "list of strings"),
        ({"kind": "labels", "names": ["cat", "cat"], "dim": 4}, "distinct"),
        ({"kind": "labels", "names": [], "dim": 4}, "distinct"),
        ({"kind": "labels", "names": ["cat"], "dim": 0}, "dim >= 1"),
        ({"kind": "labels", "names": ["cat"], "dim": 4.5}, "integer dim"),
        ({"kind": "labels", "names": ["cat"], "dim": 4, "drop": 1.5}, "drop in"),
    ],
)
def test_a_bad_config_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(Refused, match=message):
        conditioner_from_config(config)


def test_no_conditioner_gives_no_slots() -> None:
    none = NoConditioner()
    assert none(torch.tensor([0])) == {}
    assert none.null({}) == {}
    assert not list(none.parameters())
