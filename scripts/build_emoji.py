"""Rebuild `src/nirvana/data/embedded/emoji.zip`, the captioned emoji in three styles, from their npm packages.

    python scripts/build_emoji.py [--packages FOLDER] [--out FOLDER]

Needs npm; `--packages` keeps the downloaded packages in a folder and uses those that are there. A concept is taken when
all three styles draw it and it is no flag, no symbol and no component (a skin tone, a hair style, a letter). Each
picture is composited on white and resampled to 64 x 64 pixels. The zip holds `index.json` (concepts in the order of
Unicode) and one lossless WebP sheet a style: tile i, row by row, shows concept i. Byte for byte the same with the
versions of `constraints.txt`.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

TILE, COLUMNS = 64, 38
WHITE = (255, 255, 255)
CAPTIONS = ("emojibase-data", "17.0.0")
STYLES = {
    "noto": ("emoji-datasource-google", "16.0.0", "package/img/google/64/"),
    "flat": ("emoji-datasource-twitter", "16.0.0", "package/img/twitter/64/"),
    "3d": ("@lobehub/fluent-emoji-3d", "1.1.0", "package/assets/"),
}
GROUPS = {
    0: "smileys and emotion",
    1: "people and body",
    3: "animals and nature",
    4: "food and drink",
    5: "travel and places",
    6: "activities",
    7: "objects",
}
"""Emojibase's number of each group that is taken."""


def packed(name: str, version: str, folder: Path) -> Path:
    """The package as npm packs it, in `folder`."""
    path = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not path.is_file():
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{name}@{version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The wanted files of a package by their names in it."""
    with tarfile.open(path) as package:
        files = {info.name: package.extractfile(info) for info in package if info.isfile() and wanted(info.name)}
        return {name: file.read() for name, file in files.items() if file is not None}


def code(name: str) -> str:
    """The key on which pictures and captions are joined: the code points in upper case, without variation selectors."""
    return Path(name).stem.upper().replace("-FE0F", "")


def concepts(package: Path) -> list[dict[str, Any]]:
    """Code, label, tags and group of every concept that is taken, in Unicode's order."""
    data = json.loads(members(package, lambda name: name == "package/en/data.json")["package/en/data.json"])
    taken = sorted((entry for entry in data if entry.get("group") in GROUPS), key=lambda entry: entry["order"])
    return [
        {
            "code": code(entry["hexcode"]),
            "label": entry["label"],
            "group": GROUPS[entry["group"]],
            "tags": [tag for tag in entry.get("tags", []) if tag != entry["label"]],
        }
        for entry in taken
    ]


def tile(data: bytes) -> Image.Image:
    """One picture, opaque, of the tile's size."""
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    ground = Image.new("RGB", picture.size, WHITE)
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground if picture.size == (TILE, TILE) else ground.resize((TILE, TILE), Image.Resampling.LANCZOS)


def sheet(pictures: list[bytes]) -> bytes:
    """A lossless WebP of the pictures, row by row; the last row is filled up with white."""
    canvas = Image.new("RGB", (COLUMNS * TILE, math.ceil(len(pictures) / COLUMNS) * TILE), WHITE)
    for i, data in enumerate(pictures):
        canvas.paste(tile(data), (i % COLUMNS * TILE, i // COLUMNS * TILE))
    out = io.BytesIO()
    canvas.save(out, "WEBP", lossless=True, quality=100, method=6)
    return out.getvalue()


def build(folder: Path) -> dict[str, bytes]:
    """The files of the zip."""
    wanted = concepts(packed(*CAPTIONS, folder))
    drawn: dict[str, dict[str, bytes]] = {}
    for style, (name, version, prefix) in STYLES.items():
        files = members(packed(name, version, folder), lambda path, prefix=prefix: path.startswith(prefix))
        drawn[style] = {code(path): data for path, data in files.items()}
    chosen = [concept for concept in wanted if all(concept["code"] in pictures for pictures in drawn.values())]
    index = {"tile": TILE, "columns": COLUMNS, "styles": list(STYLES), "concepts": chosen}
    sheets = {
        f"{style}.webp": sheet([pictures[concept["code"]] for concept in chosen]) for style, pictures in drawn.items()
    }
    return {"index.json": json.dumps(index, ensure_ascii=False, separators=(",", ":")).encode(), **sheets}


def main() -> None:
    """Write the zip."""
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--out", type=Path, default=here / "src" / "nirvana" / "data" / "embedded")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.packages or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = build(folder)
    path = args.out / "emoji.zip"
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():  # a fixed date, so that the same files give the same bytes
            kind = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
            out.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, kind, 9)
    count = len(json.loads(files["index.json"])["concepts"])
    print(f"{path}: {count} concepts in {len(STYLES)} styles, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
