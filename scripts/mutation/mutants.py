"""Small wrong changes of a source file, found in its syntax tree, and a fixed sample of them."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">")),
    ast.LtE: ("<=", ("<", ">=")),
    ast.Gt: (">", (">=", "<")),
    ast.GtE: (">=", (">", "<=")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
UNARY: dict[type[ast.unaryop], str] = {ast.USub: "-", ast.Invert: "~", ast.Not: "not "}
NAMES = {"now": "nxt", "nxt": "now", "strong": "weak", "weak": "strong"}
"""Variables that are taken for each other."""
ATTRIBUTES = {"alpha": "sigma", "sigma": "alpha", "any": "all", "all": "any"}
FUNCTIONS = {"min": "max", "max": "min"}
COUNTS = {"range", "arange"}
"""Functions whose whole numbers are ends: one more or less is an error by one."""
INERT = {"strict", "repr", "eq", "frozen", "dtype", "device"}
"""Keywords whose value changes no number."""
TOLERANCE = 1e-5
"""A number below it is a tolerance: twice as much is no error."""


@dataclass(frozen=True)
class Mutant:
    """One change: bytes `start` to `end` of a file become `new`.

    file: below the root of the repository; kind: sign, swap, coefficient, index, count, comparison, logic, or a named
    bug's name; scope: the qualified name of the function it is in, empty at module or class level; before, after:
    its line, stripped; key: its identity, which no line number enters.
    """

    file: str
    start: int
    end: int
    new: str
    kind: str
    scope: str
    line: int
    before: str
    after: str
    key: str = ""

    def applied(self, source: bytes) -> bytes:
        """`source` with the change."""
        return source[: self.start] + self.new.encode() + source[self.end :]


def made(file: str, source: bytes, start: int, end: int, new: str, kind: str, scope: str) -> Mutant:
    """The mutant without a key, its line worked out."""
    first = source.rfind(b"\n", 0, start) + 1
    last = source.find(b"\n", end)
    last = len(source) if last < 0 else last
    before, after = source[first:last], source[first:start] + new.encode() + source[end:last]
    line = source.count(b"\n", 0, start) + 1
    return Mutant(file, start, end, new, kind, scope, line, before.decode().strip(), after.decode().strip())


def keyed(found: Iterable[Mutant]) -> list[Mutant]:
    """The same with keys: equal changes of equal lines in one function are told apart by their order."""
    seen: dict[tuple[str, ...], int] = {}
    result: list[Mutant] = []
    for mutant in found:
        identity = (mutant.file, mutant.scope, mutant.kind, mutant.before, mutant.after)
        seen[identity] = seen.get(identity, 0) + 1
        digest = hashlib.sha256("\0".join([*identity, str(seen[identity])]).encode()).hexdigest()
        result.append(replace(mutant, key=digest[:16]))
    return result


def mutants(file: str, source: bytes) -> list[Mutant]:
    """Every mutant of a file, in the order of its text; those that change nothing or do not compile left out."""
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    return keyed(sorted(finder.found, key=lambda mutant: (mutant.start, mutant.end, mutant.new)))


def sample(found: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` of them, fixed by `seed` and by what each is: an edit moves few others in or out."""
    ranked = sorted(found, key=lambda mutant: hashlib.sha256(f"{seed}/{mutant.key}".encode()).digest())
    return sorted(ranked[:count], key=lambda mutant: (mutant.file, mutant.start))


class _Finder(ast.NodeVisitor):
    """Walks a module; messages of errors, annotations, decorators and docstrings are no behaviour and left alone."""

    def __init__(self, file: str, source: bytes) -> None:
        self.file, self.source = file, source
        self.found: list[Mutant] = []
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._scope: list[str] = []
        self._in_function = False
        self._whole_numbers = "coefficient"

    # Where things are.

    def _start(self, node: ast.expr) -> int:
        return self._lines[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None  # noqa: S101  # parsed from text
        return self._lines[node.end_lineno - 1] + node.end_col_offset

    def _add(self, start: int, end: int, new: str, kind: str) -> None:
        if self._in_function:
            scope = "".join(self._scope).removesuffix(".<locals>.")
        else:
            scope = ""
        self.found.append(made(self.file, self.source, start, end, new, kind, scope))

    def _replace_between(self, left: ast.expr, right: ast.expr, old: str, new: Iterable[str], kind: str) -> None:
        """Replace the operator `old` that stands between two operands, unless a comment there makes that unclear."""
        start, end = self._end(left), self._start(right)
        gap = self.source[start:end].decode()
        if gap.count(old) == 1:
            at = start + len(gap[: gap.index(old)].encode())
            for text in new:
                self._add(at, at + len(old), text, kind)

    # What is left alone.

    def visit_Raise(self, node: ast.Raise) -> None:
        """An error's message is no behaviour; the condition above it is."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Text."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in INERT:
            self.visit(node.value)

    # Scopes.

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scope.append(f"{node.name}.")
        for statement in node.body:
            self.visit(statement)
        self._scope.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *(value for value in node.args.kw_defaults if value)]:
            self.visit(default)
        outer = self._in_function
        self._scope.append(f"{node.name}.<locals>.")
        self._in_function = True
        for statement in node.body:
            self.visit(statement)
        self._in_function = outer
        self._scope.pop()

    # What is changed.

    def visit_BinOp(self, node: ast.BinOp) -> None:
        swap = ARITHMETIC.get(type(node.op))
        unions = isinstance(node.op, ast.BitOr | ast.BitAnd) and not self._in_function
        if swap is not None and not unions:
            old, new = swap
            kind = "logic" if old in "&|" else "sign" if old in "+-" else "coefficient"
            self._replace_between(node.left, node.right, old, [new], kind)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        swap = ARITHMETIC.get(type(node.op))
        if swap is not None:
            self._replace_between(node.target, node.value, f"{swap[0]}=", [f"{swap[1]}="], "sign")
        self.visit(node.value)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        sign = UNARY.get(type(node.op))
        if sign is not None:
            self._add(self._start(node), self._start(node) + len(sign), "", "sign" if sign == "-" else "logic")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            old, new = COMPARISONS[type(op)]
            self._replace_between(left, right, old, new, "comparison")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._replace_between(left, right, old, [new], "logic")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, ast.Compare | ast.UnaryOp | ast.BoolOp):  # those have changes of their own
            text = self.source[self._start(test) : self._end(test)].decode()
            self._add(self._start(test), self._end(test), f"(not {text})", "logic")

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in NAMES:
            self._add(self._start(node), self._end(node), NAMES[node.id], "swap")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        new = ATTRIBUTES.get(node.attr)
        if isinstance(node.ctx, ast.Load) and new is not None:
            end = self._end(node)
            self._add(end - len(node.attr), end, new, "swap" if node.attr in ("alpha", "sigma") else "logic")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("isinstance", "issubclass"):
            return
        if name in FUNCTIONS:
            end = self._end(node.func)
            self._add(end - len(name), end, FUNCTIONS[name], "comparison")
        for keyword in node.keywords:
            if keyword.arg in FUNCTIONS:
                start = self._lines[keyword.lineno - 1] + keyword.col_offset
                self._add(start, start + len(keyword.arg), FUNCTIONS[keyword.arg], "comparison")
        self.visit(node.func)
        outer, self._whole_numbers = self._whole_numbers, "count" if name in COUNTS else "coefficient"
        # Of these only the shape is read, and alpha and sigma have the same.
        of_shape = name.endswith("_like") or (name == "len" and isinstance(node.args[0], ast.Attribute))
        for argument in [*node.args[int(of_shape) :], *node.keywords]:
            self.visit(argument)
        self._whole_numbers = outer

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        outer, self._whole_numbers = self._whole_numbers, "index"
        self.visit(node.slice)
        self._whole_numbers = outer

    def visit_Constant(self, node: ast.Constant) -> None:
        start, end = self._start(node), self._end(node)
        for new in _others(node.value):
            kind = "logic" if isinstance(node.value, bool) else self._whole_numbers
            self._add(start, end, new, "coefficient" if isinstance(node.value, float) else kind)


def _others(value: object) -> Iterator[str]:
    """The constants to put in place of one."""
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int):
        yield str(value + 1)
        yield str(value - 1) if value else "(-1)"
    elif isinstance(value, float) and not 0 < abs(value) < TOLERANCE:
        yield repr(2 * value) if value else "1.0"
