"""What a model can do to pictures: the five edits, each in one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nirvana.generate.changes import METHOD, TRANSLATED, UNREAD, Changes, blending, check_extent, varying
from nirvana.generate.drawing import Drawing
from nirvana.generate.edits import Draws, Edited, Picture, prepare_edit


class Editable:
    """Edits of pictures by a diffusion model. A picture is a path, a Pillow image, or an array: uint8 or uint16, (h, w)
    or (h, w, 1 to 4), channels last; with (h, w, 2 or 4) the last one is alpha.

    All of them take what `generate` takes: prompt, label (those of the new part), n variants, steps, solver, guidance,
    rule, negative, seed, batch, and grid, the name of the noise levels; what is None is the run's recommendation (the
    solver dpmpp-2m where a picture is encoded).
    Refused where a picture cannot be read, a value is not possible, or the model is no diffusion model.
    """

    def inpaint(
        self: Draws,
        image: Picture,
        mask: Picture,
        prompt: str | None = None,
        *,
        method: str = METHOD,
        strength: float = 1.0,
        invert: bool = False,
        fit: bool = False,
        feather: int = 0,
        context: int | None = None,
        label: str | Sequence[str] | None = None,
        n: int = 1,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        rule: str = "cfg",
        negative: str | None = None,
        grid: str | None = None,
        seed: int = 0,
        batch: int | None = None,
    ) -> Edited:
        """`image` with new content where `mask` is white; what is black stays, to the bit.

        method: how the new part comes to agree with the rest ("langevin:steps=8"). strength: in (0, 1], less begins
        with what is there. invert: black changes. fit: stretch a mask of another size. feather: pixels inside the mask
        over which the new fades in. context: pixels of the rest that a window sees at least, None a quarter of the
        canvas.
        """
        change = Changes(UNREAD, UNREAD, method=method, strength=strength, invert=invert, fit=fit, feather=feather)
        how = Drawing(label, n, steps, solver, guidance, rule, negative, grid, seed, batch)
        ask = partial(how.request, self, prompt)
        return prepare_edit(self, image, mask, change=change, ask=ask, context=context).result()

    def outpaint(
        self: Draws,
        image: Picture,
        prompt: str | None = None,
        *,
        left: int = 0,
        right: int = 0,
        top: int = 0,
        bottom: int = 0,
        to: tuple[int, int] | None = None,
        method: str = METHOD,
        context: int | None = None,
        label: str | Sequence[str] | None = None,
        n: int = 1,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        rule: str = "cfg",
        negative: str | None = None,
        grid: str | None = None,
        seed: int = 0,
        batch: int | None = None,
    ) -> Edited:
        """`image` extended by so many pixels on each side, or in the middle of a whole of size `to`, (width, height).

        All of it stays, to the bit. method, context: as for `inpaint`.
        """
        check_extent((left, right, top, bottom), to)
        change = Changes(UNREAD, left=left, right=right, top=top, bottom=bottom, method=method)
        how = Drawing(label, n, steps, solver, guidance, rule, negative, grid, seed, batch)
        ask = partial(how.request, self, prompt)
        return prepare_edit(self, image, change=change, ask=ask, context=context, size=to).result()

    def vary(
        self: Draws,
        image: Picture,
        prompt: str | None = None,
        *,
        strength: float | None = None,
        encode: bool = False,
        source: str | None = None,
        context: int | None = None,
        label: str | Sequence[str] | None = None,
        n: int = 1,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        rule: str = "cfg",
        negative: str | None = None,
        grid: str | None = None,
        seed: int = 0,
        batch: int | None = None,
    ) -> Edited:
        """`image` drawn again: noise up to `strength` (0.6), or with `encode` from the noise that it is the picture of.

        source: what it shows now, for `encode`; None says nothing. context: pixels of its neighbours that a window sees
        at least.
        """
        change = varying(strength, encode=encode, source=source)
        how = Drawing(label, n, steps, solver, guidance, rule, negative, grid, seed, batch)
        ask = partial(how.request, self, prompt)
        return prepare_edit(self, image, change=change, ask=ask, context=context).result()

    def translate(
        self: Draws,
        image: Picture,
        prompt: str | None = None,
        *,
        label: str | Sequence[str] | None = None,
        n: int = 1,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        rule: str = "cfg",
        negative: str | None = None,
        grid: str | None = None,
        seed: int = 0,
        batch: int | None = None,
    ) -> Edited:
        """What `image`, fitted to the model's canvas, becomes: by a model that was trained on pairs, else Refused."""
        how = Drawing(label, n, steps, solver, guidance, rule, negative, grid, seed, batch)
        ask = partial(how.request, self, prompt)
        return prepare_edit(self, image, change=Changes(UNREAD, method=TRANSLATED), ask=ask).result()

    def blend(
        self: Draws,
        first: Picture,
        last: Picture,
        prompt: str | None = None,
        *,
        source: str | Sequence[str] = (),
        fit: bool = False,
        context: int | None = None,
        label: str | Sequence[str] | None = None,
        n: int = 8,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        rule: str = "cfg",
        negative: str | None = None,
        grid: str | None = None,
        batch: int | None = None,
    ) -> Edited:
        """n pictures on the way from `first` to `last`, drawn from between their noises; the ends are these two.

        source: what both show, or [what the first shows, what the last]; they are encoded under it, and all are drawn
        under it unless there is a prompt (or label). None of them: nothing is said. guidance: None is 1 where
        something is said, since with more the ends move away. fit: scale and crop `last` to the size of `first`.
        """
        how = Drawing(label, n, steps, solver, guidance, rule, negative, grid, batch=batch)
        ask = partial(how.request, self, prompt)
        change = blending(source, fit=fit)
        return prepare_edit(self, first, end=last, change=change, ask=ask, context=context).result()
