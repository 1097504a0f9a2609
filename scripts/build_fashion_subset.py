"""Rebuild the pictures that ship in `src/nirvana/data/embedded/`, byte for byte, from their public sources.

    python scripts/build_fashion_subset.py [--source /usr/share/datasets/fashion-mnist] [--out FOLDER]

`fashion-mnist.png`: a sheet of 100 columns and 50 rows of 28x28 tiles. Rows 4k..4k+3 are the first 400 training
pictures of class k, row 40+k the first 100 test pictures of class k, in the order of the original files.

`digits.png`: scikit-learn's 1797 digits of 8x8 in order, 40 columns, value v of 0..16 stored as round(255 v / 16).
The text chunk "labels" holds one character a picture. Needs scikit-learn, here only.
"""

from __future__ import annotations

import argparse
import gzip
import io
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

TRAIN_PER_CLASS, TEST_PER_CLASS, COLUMNS = 400, 100, 100


def read_idx(path: Path) -> np.ndarray:
    """The unsigned bytes of a gzipped IDX file, in the shape its header states."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def first_of_each_class(source: Path, part: str, count: int) -> np.ndarray:
    """The first `count` pictures of class 0, then of class 1, and so on."""
    images = read_idx(source / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(source / f"{part}-labels-idx1-ubyte.gz")
    return np.concatenate([images[np.flatnonzero(labels == label)[:count]] for label in range(10)])


def tiled(images: np.ndarray, columns: int) -> np.ndarray:
    """A sheet of the pictures row by row; the last row is filled up with black."""
    rows = -(-len(images) // columns)
    height, width = images.shape[1:]
    full = np.zeros((rows * columns, height, width), np.uint8)
    full[: len(images)] = images
    return full.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def png(sheet: np.ndarray, text: dict[str, str]) -> bytes:
    """The smallest PNG that Pillow makes of the sheet."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        chunks.add_text(key, value)
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, "PNG", optimize=True, pnginfo=chunks)
    return out.getvalue()


def fashion(source: Path) -> bytes:
    """The Fashion-MNIST sheet."""
    train = first_of_each_class(source, "train", TRAIN_PER_CLASS)
    test = first_of_each_class(source, "t10k", TEST_PER_CLASS)
    credit = "Fashion-MNIST (c) 2017 Zalando SE, MIT licence, https://github.com/zalandoresearch/fashion-mnist"
    return png(tiled(np.concatenate([train, test]), COLUMNS), {"Copyright": credit})


def digits() -> bytes:
    """The digits sheet."""
    from sklearn.datasets import load_digits

    values, target = load_digits(return_X_y=True)
    images = np.round(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    credit = (
        "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI, CC BY 4.0, by way of scikit-learn"
    )
    return png(tiled(images, 40), {"Copyright": credit, "labels": "".join(str(label) for label in target)})


def main() -> None:
    """Write both sheets."""
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=here / "src" / "nirvana" / "data" / "embedded")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, data in (("fashion-mnist.png", fashion(args.source)), ("digits.png", digits())):
        (args.out / name).write_bytes(data)
        print(f"{args.out / name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
