"""`orchestratord init`: a config folder to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", required=False, type=click.Path(file_okay=False))
@click.option(
    "--config", metavar="DIR", type=click.Path(file_okay=False), help="Another way to name DIR."
)
def init(folder: str | None, config: str | None) -> None:
    """Make a small config folder that works.

    It holds the daemon's settings, one API and one endpoint, with comments that say what else there
    is, and JSON Schemas by which an editor completes and checks. A folder that is not empty is left
    alone.
    """
    from orchestratord.cli import schema_folder
    from orchestratord.cli.loading import host_of
    from orchestratord.cli.scaffold import TEMPLATES, make_empty, unwritable, write_new

    if (folder is None) == (config is None):
        raise click.UsageError("name one folder to make, such as: orchestratord init config")
    made = Path(folder or config or "")
    make_empty(made)
    source = TEMPLATES / "config"
    for path in sorted(source.rglob("*.yaml")):
        write_new(made / path.relative_to(source), path.read_text(encoding="utf-8"))
    host, _ = host_of(made.absolute())
    try:
        for path in schema_folder.write(made, host.registry):
            click.echo(f"wrote {path}")
    except OSError as error:
        raise unwritable(made / schema_folder.NAME, error) from None
    where = shlex.quote(str(made))
    click.echo(
        "\nNext:\n"
        f"  orchestratord check --config {where}\n"
        f"  orchestratord run --config {where}\n"
        "  orchestratorctl call example/getPage -p topic=retries --wait"
    )
