"""The README is true: its links, its commands, its targets and its Python."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nirvana.cli.main import COMMANDS
from nirvana.cli.main import main as nirvana
from tiny_run import make_run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
spec = importlib.util.spec_from_file_location("readme_links", ROOT / "scripts" / "readme_links.py")
assert spec is not None and spec.loader is not None
readme_links = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme_links)


def test_every_formula_links_to_the_line_of_its_code() -> None:
    assert len(readme_links.LINK.findall(README)) > 20
    assert readme_links.linked(README) == README, "run `make format`: a linked symbol has moved"


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("\n\nclass A:\n    def f(self): ...\n")
    assert readme_links.linked("[`A.f`](src/a.py#L1)", tmp_path) == "[`A.f`](src/a.py#L4)"
    with pytest.raises(KeyError, match=r"A\.g"):
        readme_links.linked("[`A.g`](src/a.py#L1)", tmp_path)


def test_every_linked_file_is_there() -> None:
    files = re.findall(r"\]\(([^)#]+)", README)
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_every_make_target_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_command_exists_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^nirvana (.*)$", README, re.MULTILINE)
    assert len(commands) >= 6
    for line in commands:
        name, *words = shlex.split(line, comments=True)
        name = name if name in COMMANDS else f"{name} {words[0]}"
        assert name in COMMANDS
        assert nirvana([*name.split(), "--help"]) == 0
        text = capsys.readouterr().out
        for option in (word for word in words if word.startswith("-")):
            assert re.search(rf"(^|[ ,]){re.escape(option)}\b", text, re.MULTILINE), f"{name} {option}"


def test_the_example_is_the_readmes_and_runs(tmp_path: Path) -> None:
    code = (ROOT / "examples" / "own_solver.py").read_text()
    assert len(code.splitlines()) <= 60
    block = next(b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Heun" in b)
    assert block.strip() in code
    run = make_run(tmp_path / "run")
    command = [sys.executable, str(ROOT / "examples" / "own_solver.py"), str(getattr(run, "path", tmp_path / "run"))]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(shown.stdout.splitlines()) == 12 and "step 12: sigma 0.000" in shown.stdout


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    block = next(b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "nirvana.load" in b)
    import nirvana as package

    label = package.load("runs/demo").labels[0]
    exec(block.replace('sneaker"', f'{label}"'), {})
    assert (tmp_path / "sneakers" / "grid.png").is_file()
