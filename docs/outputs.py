"""Makes the output of commands in the docs: `python docs/outputs.py` writes it anew.

A block that begins with `$ orchestratord` is the output of that command, with the example as its
config folder, in an empty folder of its own for each page. A test says where one is no longer true.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from click.testing import CliRunner

from orchestratord.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))

_BLOCK = re.compile(r"^```console\n\$ orchestratord (.*)\n(?s:.*?)^```$", re.MULTILINE)


def renewed(page: str, run: Callable[[str], str]) -> str:
    """The text of a page with the output of each command as `run` gives it."""

    def block(match: re.Match[str]) -> str:
        return f"```console\n$ orchestratord {match[1]}\n{run(match[1])}```"

    return _BLOCK.sub(block, page)


def remade(page: str) -> str:
    """The text of a page with the output that its commands, one after the other, write today."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        return renewed(page, output_of)


def output_of(arguments: str) -> str:
    """What a command writes, with the example as its config folder."""
    environ = {"ORCHESTRATORD_CONFIG": str(ROOT / "config"), "DEMO_PORT": None, "COLUMNS": "80"}
    result = CliRunner(env=environ).invoke(main, shlex.split(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output.replace(f"{Path.cwd()}/", "")


if __name__ == "__main__":
    for path in PAGES:
        before = path.read_text()
        after = remade(before)
        if after != before:
            path.write_text(after)
            print(f"wrote {path.relative_to(ROOT)}")
