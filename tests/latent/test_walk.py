"""Ways between latent vectors."""

from __future__ import annotations

import math

import torch

from nirvana.latent import between, slerp


def test_on_the_unit_circle_it_goes_evenly_along_the_arc() -> None:
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    for part in (0.25, 0.5, 0.8):
        angle = part * math.pi / 2
        found = slerp(a, b, torch.tensor([part]))
        torch.testing.assert_close(found, torch.tensor([[math.cos(angle), math.sin(angle)]]))


def test_lengths_go_evenly_and_the_ends_are_exact() -> None:
    a, b = torch.randn(7, 64), 3 * torch.randn(7, 64)
    middle = slerp(a, b, torch.full((7,), 0.5))
    torch.testing.assert_close(middle.norm(dim=1), (a.norm(dim=1) + b.norm(dim=1)) / 2)
    assert torch.equal(slerp(a, b, torch.zeros(7)), a) and torch.equal(slerp(a, b, torch.ones(7)), b)


def test_where_there_is_no_arc_it_takes_the_line() -> None:
    a = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    b = torch.tensor([[2.0, 4.0], [-1.0, -2.0]])
    torch.testing.assert_close(slerp(a, b, torch.tensor([0.5, 0.25])), torch.tensor([[1.5, 3.0], [0.5, 1.0]]))


def test_places_on_the_way() -> None:
    assert [between(i, 4) for i in (0, 3, 4, 9)] == [(0, 0.0), (0, 0.75), (1, 0.0), (2, 0.25)]
