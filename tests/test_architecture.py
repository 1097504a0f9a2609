"""The house keeps its shape: who may import whom, what never occurs in the source, what importing costs.

Each rule is a function from a source folder to the lines that break it. The real source breaks none; planted ones do.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nirvana"

_BASE = {"nn", "diffusion", "latent"}
_PARTS = _BASE | {"data", "condition", "codec", "modality", "errors", "files", "page", "zoo", "edit"}
_WORK = _PARTS | {"train", "generate"}
ALLOWED: dict[str, set[str]] = {
    "diffusion": set(),
    "nn": set(),
    "latent": set(),
    "errors": set(),
    "files": {"errors"},
    "zoo": {"errors", "files"},
    "edit": {"data", "modality", "errors", "files"},
    "page": set(),
    "data": _BASE | {"errors", "files", "page"},
    "condition": _BASE | {"errors", "files"},
    "codec": _BASE | {"errors", "files"},
    "modality": _BASE | {"errors", "files"},
    "engine": _BASE | {"errors", "files"},
    "train": _PARTS,
    "generate": _PARTS | {"train", "engine"},
    "evaluate": _WORK,
    "verify": {"diffusion", "errors", "files"},
    "recipes": _WORK | {"evaluate"},
    "cli": _WORK | {"evaluate", "recipes", "verify"},
    "__init__": {"generate"},
    "__main__": {"cli"},
}
"""For each package or module the others of ours that it may import. A new package gets its line here first."""

MATHEMATICS = {"diffusion", "latent", "nn"}
"""These import torch, jaxtyping and the standard library alone."""

TORCH_FREE = {"data", "modality", "errors", "files", "page", "zoo", "edit", "__init__"}
"""These import no torch until a function that needs it runs."""

CHECKED_READER = "evaluate/weights.py"
"""The one place that reads torch's own files, and only with `weights_only=True`, which calls nothing they name."""

EXECUTING = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
"""Formats that can run code when they are read."""


class Module(NamedTuple):
    """A parsed source file."""

    path: Path
    name: str
    tree: ast.Module

    @property
    def part(self) -> str:
        """The package or top-level module of ours it belongs to."""
        return Path(self.name).parts[0].removesuffix(".py")


def modules(source: Path) -> Iterator[Module]:
    for path in sorted(source.rglob("*.py")):
        yield Module(path, path.relative_to(source).as_posix(), ast.parse(path.read_text(encoding="utf-8")))


def imported(module: Module, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported below `tree`; `from a import b` gives `a.b`."""
    package = ["nirvana", *Path(module.name).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            start = [*base, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*start, alias.name])) for alias in node.names)


def wrong_imports(source: Path) -> Iterator[str]:
    """Imports against the arrows."""
    for module in modules(source):
        allowed = ALLOWED.get(module.part)
        if allowed is None:
            yield f"{module.name}: '{module.part}' has no line in ALLOWED"
            continue
        for line, name in imported(module, module.tree):
            top, *rest = name.split(".")
            if top == "nirvana":
                target = rest[0] if rest else ""
                if target == "__version__" and module.part not in MATHEMATICS:
                    continue
                if target != module.part and target not in allowed:
                    yield f"{module.name}:{line}: {module.part} imports {name}"
            elif module.part in MATHEMATICS and top not in {"torch", "jaxtyping", *sys.stdlib_module_names}:
                yield f"{module.name}:{line}: {module.part} imports {name}"


def outside_functions(tree: ast.AST) -> Iterator[ast.stmt]:
    """The import statements that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from outside_functions(node)


def early_torch(source: Path) -> Iterator[str]:
    """Modules that should cost no torch and import it at once."""
    for module in modules(source):
        if module.part not in TORCH_FREE:
            continue
        for statement in outside_functions(module.tree):
            for line, name in imported(module, statement):
                if name.split(".")[0] == "torch":
                    yield f"{module.name}:{line}: imports {name} at module level"


def checked_readers(module: Module) -> set[ast.expr]:
    """The uses of `torch.load` that are allowed."""
    if module.name != CHECKED_READER:
        return set()
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    return {call.func for call in calls if "weights_only=True" in map(ast.unparse, call.keywords)}


def executed_data(source: Path) -> Iterator[str]:
    """Ways to run code that comes from a file."""
    for module in modules(source):
        for line, name in imported(module, module.tree):
            if name.split(".")[0] in EXECUTING or name in (
                "torch.load",
                "numpy.load",
                "builtins.eval",
                "builtins.exec",
            ):
                yield f"{module.name}:{line}: imports {name}"
        checked = checked_readers(module)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("eval", "exec", "compile", "__import__"):
                yield f"{module.name}:{node.lineno}: calls {ast.unparse(node.func)}"
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load" and node not in checked:
                yield f"{module.name}:{node.lineno}: uses torch.load"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                yield f"{module.name}:{node.value.lineno}: allows pickles"


def callables(
    tree: ast.Module | ast.ClassDef, where: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions and methods that other code can call; those inside of functions are nobody else's business."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{where}:{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from callables(node, f"{where}:{node.name}")


def swallowed_options(source: Path) -> Iterator[str]:
    """Functions with `**options`, in which a misspelt argument would vanish."""
    for module in modules(source):
        for where, node in callables(module.tree, module.name):
            if node.args.kwarg:
                yield f"{where}: takes **{node.args.kwarg.arg}"


def undocumented(source: Path) -> Iterator[str]:
    """Public modules, classes and functions without a docstring (overloads aside)."""
    for module in modules(source):
        if not ast.get_docstring(module.tree):
            yield f"{module.name}: no docstring"
        for node in module.tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            overload = any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)
            if not ast.get_docstring(node) and not overload:
                yield f"{module.name}:{node.name}: no docstring"


RULES = [wrong_imports, early_torch, executed_data, swallowed_options, undocumented]


@pytest.mark.parametrize("rule", RULES)
def test_source_breaks_no_rule(rule: Callable[[Path], Iterator[str]]) -> None:
    assert list(rule(SOURCE)) == []


def test_the_source_is_really_read() -> None:
    assert {"diffusion", "nn", "errors", "files"} <= {module.part for module in modules(SOURCE)}


PLANTED = [
    (wrong_imports, "diffusion/a.py", "from nirvana.nn import UNet"),
    (wrong_imports, "nn/a.py", "import nirvana.errors"),
    (wrong_imports, "nn/a.py", "from ..diffusion import level"),
    (wrong_imports, "diffusion/solver/a.py", "from ... import files"),
    (wrong_imports, "diffusion/a.py", "import numpy as np"),
    (wrong_imports, "nn/a.py", "from einops import rearrange"),
    (wrong_imports, "diffusion/a.py", "from nirvana import __version__"),
    (wrong_imports, "data/a.py", "from nirvana.modality.image import grid"),
    (wrong_imports, "codec/a.py", "from nirvana import condition"),
    (wrong_imports, "train/a.py", "def f():\n    from nirvana.generate import load"),
    (wrong_imports, "train/a.py", "from nirvana import load"),
    (wrong_imports, "generate/a.py", "import os, nirvana.evaluate.judge"),
    (wrong_imports, "evaluate/a.py", "from nirvana.recipes import image"),
    (wrong_imports, "recipes/a.py", "from nirvana.cli.main import main"),
    (wrong_imports, "files.py", "from nirvana.data import order"),
    (wrong_imports, "errors.py", "from nirvana.files import write_text"),
    (wrong_imports, "unheard_of/a.py", ""),
    (early_torch, "data/a.py", "import torch"),
    (early_torch, "modality/a.py", "class A:\n    from torch import Tensor"),
    (early_torch, "data/a.py", "try:\n    import torch.nn\nexcept ImportError:\n    pass"),
    (executed_data, "train/a.py", "import pickle"),
    (executed_data, "train/a.py", "def f():\n    import joblib.numpy_pickle"),
    (executed_data, "train/a.py", "import torch\nx = torch.load('a', weights_only=True)"),
    (executed_data, "evaluate/weights.py", "import torch\nx = torch.load('a')"),
    (executed_data, "evaluate/weights.py", "import torch\nx = torch.load('a', weights_only=False)"),
    (executed_data, "train/a.py", "from torch import load"),
    (executed_data, "cli/a.py", "x = eval('1')"),
    (executed_data, "cli/a.py", "exec('x = 1')"),
    (executed_data, "data/a.py", "import numpy\nx = numpy.load('a', allow_pickle=True)"),
    (swallowed_options, "generate/a.py", "def f(**kwargs): ..."),
    (swallowed_options, "generate/a.py", "class A:\n    async def f(self, n, **options): ..."),
    (undocumented, "generate/a.py", "x = 1"),
    (undocumented, "generate/a.py", '"""A."""\ndef f(): ...'),
    (undocumented, "generate/a.py", '"""A."""\nclass A:\n    x: int'),
]


@pytest.mark.parametrize(("rule", "name", "text"), PLANTED)
def test_a_planted_violation_is_found(
    tmp_path: Path, rule: Callable[[Path], Iterator[str]], name: str, text: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    found = list(rule(tmp_path))
    assert len(found) == 1
    assert found[0].startswith(name)


INNOCENT = [
    (
        wrong_imports,
        "diffusion/solver/a.py",
        "import math, torch\nfrom jaxtyping import Float\nfrom ..level import Level",
    ),
    (
        wrong_imports,
        "train/a.py",
        "from nirvana import __version__\nfrom nirvana.data import order\nimport nirvana.files",
    ),
    (wrong_imports, "recipes/a.py", "from nirvana.evaluate import FashionJudge"),
    (early_torch, "data/a.py", "def f():\n    import torch"),
    (early_torch, "data/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    (early_torch, "train/a.py", "import torch"),
    (
        executed_data,
        "nn/a.py",
        "import re, torch\nre.compile('a')\nnet.eval()\ntorch.compile(net)\nnumpy.load('a', allow_pickle=False)",
    ),
    (executed_data, "evaluate/weights.py", "import torch\nx = torch.load('a', weights_only=True)"),
    (swallowed_options, "cli/a.py", "def f(*rest):\n    def g(**values): ...\n    return g(**{'a': 1})"),
    (
        undocumented,
        "nn/a.py",
        '"""A."""\ndef _f(): ...\nclass _B: ...\nclass A:\n    """A."""\n    def __init__(self): ...',
    ),
]


@pytest.mark.parametrize(("rule", "name", "text"), INNOCENT)
def test_the_innocent_pass(tmp_path: Path, rule: Callable[[Path], Iterator[str]], name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert list(rule(tmp_path)) == []


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    report = "import sys; sys.stderr.write('LOADED ' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(done.stderr.partition("LOADED ")[2].split())


HELP = """
import sys
from nirvana.cli.main import main
sys.argv = ["nirvana", "--help"]
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    ("code", "never"),
    [
        ("import nirvana", {"torch", "numpy", "PIL", "tyro", "rich"}),
        (HELP, {"torch", "numpy", "PIL"}),
        ("import nirvana.data, nirvana.modality", {"torch"}),
        ("import nirvana.diffusion", {"PIL", "tyro", "rich"}),
    ],
    ids=["import", "help", "data", "diffusion"],
)
def test_importing_costs_only_what_is_used(code: str, never: set[str]) -> None:
    loaded = loaded_by(code)
    assert "nirvana" in loaded
    assert loaded & never == set()
