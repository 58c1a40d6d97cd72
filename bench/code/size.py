"""How large the house is: modules, lines of code, folders, names that are used twice.

\b
    python -m bench.code.size              of this checkout
    python -m bench.code.size ../other     of another one

A line of code is one that is not blank, no comment, and in no docstring; the product is what lies
in orchestratord/, orchestratorctl/ and plugins/. `tests/test_house.py` counts with this, too.
"""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
PRODUCT = ("orchestratord", "orchestratorctl", "plugins")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, eq=False)
class Module:
    """A file of Python.

    Attributes:
        root: the checkout that it is of.
        path: its path from there.
    """

    root: Path
    path: Path

    @cached_property
    def text(self) -> str:
        return (self.root / self.path).read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def code_lines(self) -> int:
        """Lines that are not blank, no comment, and in no docstring of a name or an attribute."""
        prose: set[int] = set()
        for node in self.nodes:
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        return sum(
            number not in prose and bool(line.strip()) and not line.strip().startswith("#")
            for number, line in enumerate(self.text.splitlines(), 1)
        )

    @property
    def functions(self) -> Iterator[Function]:
        return (node for node in self.nodes if isinstance(node, Function))

    @property
    def classes(self) -> Iterator[ast.ClassDef]:
        """The classes of the module itself, not those in others or in functions."""
        return (node for node in self.tree.body if isinstance(node, ast.ClassDef))


class House:
    """A checkout, and what lies in it.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self._modules: dict[Path, Module] = {}

    @cached_property
    def files(self) -> list[Path]:
        """What git tracks, and what it would if it were added, by path from the root."""
        asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(  # noqa: S603  # a fixed command
            asked, cwd=self.root, check=True, capture_output=True, text=True
        )
        paths = {Path(name) for name in listed.stdout.split("\0") if name}
        return sorted(path for path in paths if (self.root / path).is_file())

    def below(self, *folders: str) -> list[Path]:
        """The files in some folders of the root and in those below."""
        return [path for path in self.files if path.parts[0] in folders]

    @cached_property
    def product(self) -> list[Module]:
        return self.modules(*PRODUCT)

    def modules(self, *folders: str) -> list[Module]:
        return [self.module(path) for path in self.below(*folders) if path.suffix == ".py"]

    def module(self, path: Path) -> Module:
        """The file at a path from the root; read and parsed once."""
        return self._modules.setdefault(path, Module(self.root, path))


def twice(names: Iterable[str]) -> dict[str, int]:
    """How often each of these names occurs that does so more than once."""
    return {name: count for name, count in sorted(Counter(names).items()) if count > 1}


def file_names(house: House) -> Iterator[str]:
    """The names of the product's modules, but `__init__` and `__main__`."""
    return (module.path.name for module in house.product if not module.path.stem.startswith("__"))


def class_names(house: House) -> Iterator[str]:
    """The names of the product's public classes."""
    for module in house.product:
        yield from (node.name for node in module.classes if not node.name.startswith("_"))


def handing_on(module: Module) -> Iterator[str]:
    """Methods that do nothing but hand their own arguments on to something that the object has.

    What is handed on may be bound to a function by `partial`, with constants and names beside it;
    a property that only reads an attribute's attribute counts as well.
    """
    for owner in module.classes:
        for function in owner.body:
            if isinstance(function, Function) and _hands_on(function):
                yield f"{owner.name}.{function.name}"


def _hands_on(function: Function) -> bool:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if len(body) != 1 or not isinstance(body[0], ast.Return | ast.Expr):
        return False
    value = body[0].value
    value = value.value if isinstance(value, ast.Await) else value
    if isinstance(value, ast.Call):
        return _of_own(value.func) and all(_carried(given) for given in _given(value))
    return isinstance(value, ast.Attribute) and _of_own(value)


def _of_own(node: ast.expr) -> bool:
    """`self.one.two`"""
    return (
        ast.unparse(node).startswith("self.")
        and isinstance(node, ast.Attribute)
        and (isinstance(node.value, ast.Attribute))
    )


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _carried(node: ast.expr) -> bool:
    """An argument that is only carried further."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "partial" and all(map(_carried, _given(node)))
    return isinstance(node, ast.Name | ast.Attribute | ast.Constant)


def documented(modules: Sequence[Module]) -> tuple[int, int]:
    """How many public functions, methods and classes have a docstring, and how many there are."""
    found = [
        node
        for module in modules
        for owner in (module.tree, *module.classes)
        for node in owner.body
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")
    ]
    return sum(ast.get_docstring(node) is not None for node in found), len(found)


def report(house: House) -> Iterator[str]:
    """The lines that the command says."""
    yield f"{len(house.product):>7,}  modules of the product"
    yield f"{sum(module.code_lines for module in house.product):>7,}  lines of code of the product"
    for folder in PRODUCT:
        modules = house.modules(folder)
        code = sum(module.code_lines for module in modules)
        yield f"{code:>7,}  in {folder}, {len(modules)} modules"
    tests = house.modules("tests")
    code = sum(module.code_lines for module in tests)
    yield f"{code:>7,}  in tests, {len(tests)} modules"
    skips = sum(module.text.count("# fmt: skip") for module in house.product)
    yield f"{skips:>7,}  fmt: skip"
    known, public = documented(house.product)
    yield f"{100 * known / public:>6.1f}%  of {public:,} public functions and classes documented"
    methods = [name for module in house.product for name in handing_on(module)]
    owners = Counter(name.partition(".")[0] for name in methods)
    most = ", ".join(f"{owner} {count}" for owner, count in owners.most_common(5))
    yield f"{len(methods):>7,}  methods that only hand on; most in {most}"
    yield from _listed("file names used twice", twice(file_names(house)))
    yield from _listed("public classes' names used twice", twice(class_names(house)))
    yield "folders with the most files"
    folders = Counter(path.parent for path in house.below(*PRODUCT, "tests", "bench"))
    for folder, count in folders.most_common(12):
        yield f"{count:>7,}  {folder}"


def _listed(title: str, found: dict[str, int]) -> Iterator[str]:
    yield f"{len(found):>7,}  {title}"
    if found:
        yield f"         {', '.join(found)}"


@click.command(help=__doc__)
@click.argument("root", type=click.Path(path_type=Path, exists=True, file_okay=False), default=ROOT)
def main(root: Path) -> None:
    for line in report(House(root)):
        click.echo(line)


if __name__ == "__main__":
    main(prog_name="python -m bench.code.size")
