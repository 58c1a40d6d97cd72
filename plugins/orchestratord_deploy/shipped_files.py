"""Files that come with the package: in it, or in a clone beside it."""

from __future__ import annotations

from pathlib import Path

import click


def shipped(file: str, installed: str, cloned: str) -> Path:
    """A file that comes with the package. Raises ClickException where it is missing.

    Args:
        file: its name.
        installed: the folder in the package that has it.
        cloned: the one beside the package that has it in a clone.
    """
    package = Path(__file__).parent
    for path in (package / installed / file, package.parents[1] / cloned / file):
        if path.is_file():
            return path
    raise click.ClickException(f"{file} is not installed")
