"""A new plugin: a package with one hook, and a test that passes."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import click

from orchestratord import HOOKS, opened_host
from orchestratord_scaffold.scaffold import make_empty, template, write_new

CORE = "orchestratord"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")

_FILES = {
    "pyproject.toml.in": "pyproject.toml",
    "module.py.in": "@MODULE@.py",
    "test.py.in": "tests/test_@MODULE@.py",
    "README.md.in": "README.md",
}


def write_plugin(config: str | None, name: str, folder: Path | None) -> None:
    """Write the package and say which files.

    Args:
        config: names the config folder, whose plugins have their names already.
        name: what orchestratord is to call the plugin.
        folder: where to write it; None for a folder named like the package.

    Raises:
        click.ClickException: the name cannot be used, or the files cannot be written.
    """
    if _NAME.fullmatch(name) is None:
        raise click.ClickException(
            f"the name {name!r} cannot be used: a plugin's name is made of words of small letters "
            "and digits, with '-' or '_' between them"
        )
    name = name.removeprefix(f"{CORE}-")
    if name == CORE or name in opened_host(config).plugins:
        raise click.ClickException(f"there is a plugin {name} already")
    distribution = f"orchestratord-{name.replace('_', '-')}"
    module = distribution.replace("-", "_")
    folder = folder or Path(distribution)
    make_empty(folder)
    hooks = textwrap.fill(", ".join(HOOKS), 92, initial_indent="    ", subsequent_indent="    ")
    for source, target in _FILES.items():
        text = template(
            f"plugin/{source}", name=name, module=module, distribution=distribution, hooks=hooks
        )
        write_new(folder / target.replace("@MODULE@", module), text)
    click.echo(
        "\nNext, in the environment that orchestratord is installed in:\n"
        f"  cd {shlex.quote(str(folder))}\n"
        "  pip install -e '.[test]'\n"
        "  pytest\n"
        "  orchestratord plugins"
    )
