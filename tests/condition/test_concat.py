"""What a network sees beside the noisy picture: the slot, its null condition, and random masks."""

from __future__ import annotations

import math

import pytest
import torch

from nirvana.condition import Concat, concat_from_config
from nirvana.condition.masks import NUMBERS, SHARES, hidden
from nirvana.errors import Refused

RNG = torch.Generator().manual_seed(0)


def test_the_slot_says_where_a_picture_is_seen_and_what_is_seen_there() -> None:
    picture = torch.randn(2, 3, 4, 5, generator=RNG)
    picture[:, :, 0] = math.nan  # what is not seen does not matter
    shown = torch.ones(1, 1, 4, 5, dtype=torch.bool)
    shown[..., 0, :] = False
    slot = Concat("masked", 3).slot(picture, shown)["concat"]
    assert slot.shape == (2, 4, 4, 5) and not slot[:, :, 0].any()
    assert torch.equal(slot[:, 1:, 1:], picture[:, :, 1:]) and slot[:, 0, 1:].eq(1).all()


def test_nothing_seen_is_the_null_condition() -> None:
    concat = Concat("paired", 2)
    nothing = concat.nothing(3, (4, 5), torch.device("cpu"))["concat"]
    unseen = concat.slot(torch.randn(3, 2, 4, 5, generator=RNG), torch.zeros(1, 1, 1, 1, dtype=torch.bool))["concat"]
    assert torch.equal(nothing, unseen)


def test_it_is_rebuilt_from_its_description() -> None:
    concat = Concat("paired", 3, drop=0.25)
    assert concat_from_config(concat.config()) == concat


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"kind": "depth", "channels": 1}, "unknown kind of concat 'depth'"),
        ({"kind": "masked", "channels": 0}, "channels >= 1"),
        ({"kind": "masked", "channels": 1, "drop": 1.5}, "drop in"),
        ({"kind": "masked", "channels": "1"}, "whole channels"),
        ({"kind": "masked"}, "whole channels"),
    ],
)
def test_other_descriptions_are_refused(config: dict[str, object], said: str) -> None:
    with pytest.raises(Refused, match=said):
        concat_from_config(config)


def of_kind(kind: int, count: int, side: int) -> torch.Tensor:
    u = torch.rand(count, NUMBERS, generator=RNG)
    u[:, 0] = sum(SHARES[:kind]) + SHARES[kind] * u[:, 0]
    return hidden(u, (side, side))[:, 0]


def is_box(mask: torch.Tensor) -> bool:
    return torch.equal(mask, mask.any(1)[:, None] & mask.any(0)[None]) and bool(mask.any())


def test_masks_are_of_their_kinds() -> None:
    strokes, boxes, halves, borders = (of_kind(kind, 64, 24) for kind in range(4))
    assert all(is_box(mask) and 0.02 < mask.float().mean() < 0.7 for mask in boxes)
    assert all(is_box(~mask) and 0.3 < mask.float().mean() < 0.95 for mask in borders)
    # One half plane and its opposite through the middle: no pixel is in both, and each holds a corner.
    assert not (halves & halves.flip(1, 2))[halves.float().mean((1, 2)) < 0.5].any()
    corners = halves[:, [0, 0, -1, -1], [0, -1, 0, -1]].sum(1)
    assert ((corners >= 1) & (corners <= 3)).all()
    covered = strokes.float().mean((1, 2))
    assert covered.max() < 0.6 and covered.mean() > 0.05 and not any(map(is_box, strokes[covered > 0.1]))


def test_a_stroke_is_all_that_is_near_its_way() -> None:
    u = torch.zeros(1, NUMBERS)
    u[0, 1:10] = torch.tensor([0.5, 0.2, 0.5, 0.25, 0.5, 0.5, 1.0, 1.0, 1.0])
    # One stroke from (0.5, 0.2) straight along the columns, three ways of 0.4, of radius 0.075; the others are off.
    mask = hidden(u, (40, 40))[0, 0]
    rows, columns = torch.meshgrid(*[(torch.arange(40) + 0.5) / 40] * 2, indexing="ij")
    along = columns.clamp(0.2, 1.4)
    assert torch.equal(mask, torch.hypot(rows - 0.5, columns - along) < 0.075)


def test_kinds_come_in_their_shares_and_each_mask_is_a_function_of_its_own_numbers() -> None:
    u = torch.rand(4000, NUMBERS, generator=RNG)
    masks = hidden(u, (12, 12))
    boxes = sum(is_box(mask) for mask in masks[:, 0]) / len(masks)
    borders = sum(is_box(~mask) for mask in masks[:, 0]) / len(masks)
    # A single short stroke, or a half plane along an axis, may look like a box.
    assert abs(boxes - SHARES[1]) < 0.06 and abs(borders - SHARES[3]) < 0.06
    assert torch.equal(torch.cat([hidden(part, (12, 12)) for part in u[:9].split(2)]), masks[:9])
    assert (masks.float().mean(0) > 0.1).all()  # no place is always seen
