"""`orchestratord plugins`: what is installed, and which hooks it implements."""

from __future__ import annotations

import json

import click

from orchestratord.cli.options import config_option, output_option


@click.command()
@config_option
@output_option("table", "json", about="The format of the output.")
def plugins(config: str | None, output: str) -> None:
    """List the plugins with their versions and hooks.

    Those that are disabled, and those that cannot be loaded, are listed too.
    """
    from orchestratord.cli.opened_config import opened_host

    host = opened_host(config)
    keys = ("name", "version", "status", "source", "hooks", "error")
    rows = [{key: getattr(info, key) for key in keys} for info in host.plugins.values()]
    if output == "json":
        click.echo(json.dumps({"plugins": rows}, indent=2))
    else:
        table = [[str(row[key]) for key in keys[:4]] for row in rows]
        hooks = [", ".join(row["hooks"]) for row in rows]
        _print_table(["PLUGIN", "VERSION", "STATUS", "SOURCE", "HOOKS"], table, hooks)


def _print_table(heads: list[str], rows: list[list[str]], last: list[str]) -> None:
    """Columns as wide as their texts; the last one is wrapped within the terminal."""
    import shutil
    import textwrap

    from orchestratord.log import escape

    rows = [[escape(cell) for cell in row] for row in rows]
    columns = zip(heads, *rows, strict=False)
    widths = [max(len(cell) for cell in column) + 2 for column in columns]
    indent = sum(widths)
    room = max(shutil.get_terminal_size().columns - indent, 30)
    click.echo("".join(h.ljust(w) for h, w in zip(heads, [*widths, 0], strict=True)))
    for row, text in zip(rows, last, strict=True):
        start = "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines = textwrap.wrap(text, room) or ["-"]
        click.echo(f"{start}{lines[0]}")
        for line in lines[1:]:
            click.echo(" " * indent + line)
