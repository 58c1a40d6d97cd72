"""Where the example configuration is: in the package, or beside it in a clone."""

from __future__ import annotations

from pathlib import Path

import click

import orchestratord


def find_example() -> Path:
    """The example's folder. Raises ClickException where there is none."""
    package = Path(orchestratord.__file__).parent
    for folder in (package / "example", package.parent / "config"):
        if (folder / "orchestratord.yaml").is_file():
            return folder
    raise click.ClickException("the example configuration is not installed")
