"""The public face: each name is there, loaded when it is asked for, and the type checker's too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import orchestratord


def imported_for_the_type_checker() -> dict[str, str]:
    """Name → module, as the file's `if TYPE_CHECKING` has them."""
    tree = ast.parse(Path(orchestratord.__file__).read_text())
    return {
        alias.name: node.module or ""
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_all_lists_agree() -> None:
    imported = imported_for_the_type_checker()
    assert sorted(imported) == sorted(orchestratord.__all__)
    assert imported == orchestratord._HOMES


@pytest.mark.parametrize("name", orchestratord.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(orchestratord, name) is not None
    assert name in dir(orchestratord)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        orchestratord.nothing  # noqa: B018


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, orchestratord; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "httpx", "jinja2", "peewee"} & set(done.stdout.split())
