"""Keep the README's links to formulas true: each names a symbol, and its line number is where the symbol is defined.

Run: python scripts/readme_links.py (part of `make format`)
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\[`([\w.]+)`\]\((src/[\w/.]+\.py)#L(\d+)\)")
"""[`Symbol` or `Class.method`](src/.../file.py#L12)"""


def line_of(symbol: str, path: Path) -> int:
    """The line of a class, function or method in a file. KeyError where it is not there."""
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    line = 0
    for name in symbol.split("."):
        found = [node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name]
        if not found:
            raise KeyError(f"{path} has no {symbol}")
        body, line = found[0].body, found[0].lineno
    return line


def linked(text: str, root: Path = ROOT) -> str:
    """`text` with the line number of every link put right."""

    def put_right(match: re.Match[str]) -> str:
        symbol, path = match[1], match[2]
        return f"[`{symbol}`]({path}#L{line_of(symbol, root / path)})"

    return LINK.sub(put_right, text)


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(linked(readme.read_text()))


if __name__ == "__main__":
    main()
