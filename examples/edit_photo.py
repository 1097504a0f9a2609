"""A photograph edited with a model of its own patches.

python examples/edit_photo.py [PHOTO] [--minutes 10] [--out runs/photo]

Without PHOTO it takes the gravel of scikit-image (CC0; pip install scikit-image), at half its size. A part is cut out
of the photograph before training, so the model has never seen what belongs there; then it fills that part, extends the
photograph to the right, and draws it again. Look at OUT/edited.png.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

import nirvana
from nirvana.recipes.image import prepare
from nirvana.recipes.order import Order
from nirvana.train.events import StepDone

SIDE, PATCHES = 32, 20_000


def photograph(path: str | None) -> np.ndarray:
    """The pixels of the file, or the gravel at half its size."""
    if path is not None:
        return np.asarray(Image.open(path))
    package = find_spec("skimage")  # found, not imported: only its picture is needed
    if package is None or package.origin is None:
        raise SystemExit("name a photograph, or: pip install scikit-image")
    with Image.open(Path(package.origin).parent / "data" / "gravel.png") as gravel:
        return np.asarray(gravel.resize((256, 256), Image.Resampling.LANCZOS))


def hole(height: int, width: int) -> np.ndarray:
    """White where the photograph is to be filled: an ellipse in the middle, a quarter of the width."""
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (height / 8)) ** 2 + ((x - width / 2) / (width / 8)) ** 2 <= 1
    return np.where(inside, 255, 0).astype(np.uint8)


def patches(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Random squares of the photograph that the hole does not touch, each in one of the eight ways to turn it."""
    rng, found = np.random.default_rng(0), []
    while len(found) < PATCHES:
        top, left = (int(rng.integers(0, side - SIDE + 1)) for side in mask.shape)
        place = slice(top, top + SIDE), slice(left, left + SIDE)
        if not mask[place].any():
            turned = np.rot90(photo[place], int(rng.integers(4)))
            found.append(turned[:, ::-1] if rng.integers(2) else turned)
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("runs/photo"))
    asked = parser.parse_args()
    photo = photograph(asked.photo)
    mask = hole(*photo.shape[:2])
    asked.out.mkdir(parents=True, exist_ok=True)
    source = asked.out / "patches.npy"
    if not source.exists():
        np.save(source, patches(photo, mask))
    training = prepare(Order(str(source), size=SIDE, minutes=asked.minutes), asked.out / "run")
    for event in training.events():  # goes on where it was stopped
        if isinstance(event, StepDone) and event.step % 100 == 0:
            print(f"{event.images} of {event.total} images, {event.seconds_left / 60:.1f} min left")

    model = nirvana.load(asked.out / "run")
    filled = model.inpaint(photo, mask, method="langevin:steps=8", feather=1).pil[0]
    wider = model.outpaint(photo, right=photo.shape[1] // 4, method="langevin:steps=8").pil[0]
    again = model.vary(photo, strength=0.5).pil[0]
    given = photo.copy()
    given[mask > 0] = 255
    shown = [Image.fromarray(given), filled, wider, again]
    sheet = Image.new(filled.mode, (sum(one.width + 8 for one in shown) - 8, filled.height), "white")
    for number, one in enumerate(shown):
        sheet.paste(one, (sum(before.width + 8 for before in shown[:number]), 0))
    sheet.save(asked.out / "edited.png")
    print(f"given, filled, extended, drawn again: {asked.out / 'edited.png'}")


if __name__ == "__main__":
    main()
