"""Windows of the model's canvas over a larger picture, in an order in which each sees as much as is known by then."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool


class Window(NamedTuple):
    """The pixels [top, top + height) x [left, left + width) of a picture."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """For arrays whose first axes are rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def windows(open_: Bool[np.ndarray, "h w"], canvas: tuple[int, int], context: int) -> list[Window]:
    """Windows of size `canvas` that cover every open pixel, each to be filled before the next.

    One that holds all open pixels with `context` pixels of the picture around them, where there is one. Else windows
    that lie apart by the canvas less the context, so that each sees so many pixels of what was there or was filled
    before; of those left the one with the largest known part comes next. open_: what is to be filled. Nothing open
    takes no window. Raises ValueError where the picture is smaller than the canvas or the context leaves no step.
    """
    height, width = open_.shape
    tall, wide = canvas
    if height < tall or width < wide:
        raise ValueError(f"a picture of {width}x{height} is smaller than the canvas, {wide}x{tall}; pad it first")
    if not 0 <= context < min(canvas):
        raise ValueError(f"a context of {context} pixels leaves nothing to fill on a canvas of {wide}x{tall}")
    if not open_.any():
        return []
    rows, columns = np.flatnonzero(open_.any(1)), np.flatnonzero(open_.any(0))
    tops = _places(int(rows[0]), int(rows[-1]) + 1, height, tall, context)
    lefts = _places(int(columns[0]), int(columns[-1]) + 1, width, wide, context)
    return _ordered(open_.copy(), [[Window(top, left, tall, wide) for left in lefts] for top in tops])


def _ordered(unfilled: Bool[np.ndarray, "h w"], grid: Sequence[Sequence[Window]]) -> list[Window]:
    """Those of the rows of windows that fill something, each time the one that knows most, and of equals the first.

    `unfilled` is used up. Only windows near the one that is filled are counted anew, so that the work grows with the
    picture and not with its square.
    """
    places = [(row, column) for row in range(len(grid)) for column in range(len(grid[0]))]
    missing = {place: int(unfilled[grid[place[0]][place[1]].slices].sum()) for place in places}
    queue, order = [(missing[place], place) for place in places], list[Window]()
    heapify(queue)
    while queue:
        count, (row, column) = heappop(queue)
        if not count or count != missing[row, column]:
            continue  # nothing left, or counted anew since
        chosen = grid[row][column]
        order.append(chosen)
        unfilled[chosen.slices] = False
        for place in _meeting(grid, row, column):
            near = int(unfilled[grid[place[0]][place[1]].slices].sum())
            if near != missing[place]:
                missing[place] = near
                heappush(queue, (near, place))
    return order


def _meeting(grid: Sequence[Sequence[Window]], row: int, column: int) -> list[tuple[int, int]]:
    """The places of the windows that share pixels with the one there, itself among them."""
    chosen, first = grid[row][column], [line[0] for line in grid]
    rows = [i for i, one in enumerate(first) if abs(one.top - chosen.top) < chosen.height]
    columns = [i for i, one in enumerate(grid[0]) if abs(one.left - chosen.left) < chosen.width]
    return [(i, j) for i in rows for j in columns]


def _places(first: int, end: int, length: int, side: int, context: int) -> list[int]:
    """Where windows begin, along one axis, to cover [first, end) of [0, length)."""
    around = min(end + context, length) - max(first - context, 0)
    if around <= side or length == side:
        middle = (first + end - side) // 2
        return [min(max(middle, 0), length - side)]
    step = side - context
    start = min(max(first - context, 0), length - side)
    places = [start]
    while places[-1] + side < end:
        places.append(min(places[-1] + step, length - side))
    return places
