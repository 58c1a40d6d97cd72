"""Files that a command writes for somebody who begins, from the templates beside this module."""

from __future__ import annotations

from pathlib import Path

import click

TEMPLATES = Path(__file__).parent / "templates"


def template(file: str, **values: str) -> str:
    """The text of a template, with each `@KEY@` replaced by its value.

    Args:
        file: its path, below `templates`.
        values: by key, in lower case.
    """
    text = (TEMPLATES / file).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key.upper()}@", value)
    return text


def make_empty(folder: Path) -> None:
    """Make a folder. Raises ClickException where there is one already that holds something."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(entry.name != ".git" for entry in folder.iterdir()):
            raise click.ClickException(f"{folder} is not empty; name a new folder, or an empty one")
    except OSError as error:
        raise unwritable(folder, error) from None


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, and say so. Raises ClickException."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already") from None
    except OSError as error:
        raise unwritable(path, error) from None
    click.echo(f"wrote {path}")


def unwritable(path: Path, error: OSError) -> click.ClickException:
    """What to raise where `path` cannot be written."""
    return click.ClickException(f"{path} cannot be written: {error.strerror or error}")
