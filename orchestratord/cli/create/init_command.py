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
    from orchestratord.cli.create.scaffold import TEMPLATES, make_empty, write_new, write_schemas
    from orchestratord.cli.opened_config import host_of

    if (folder is None) == (config is None):
        raise click.UsageError("name one folder to make, such as: orchestratord init config")
    made = Path(folder or config or "")
    make_empty(made)
    source = TEMPLATES / "config"
    for path in sorted(source.rglob("*.yaml")):
        write_new(made / path.relative_to(source), path.read_text(encoding="utf-8"))
    host, _ = host_of(made.absolute())
    write_schemas(made, host.registry)
    where = shlex.quote(str(made))
    click.echo(
        "\nNext:\n"
        f"  orchestratord check --config {where}\n"
        f"  orchestratord run --config {where}\n"
        "  orchestratorctl call example/getPage -p topic=retries --wait"
    )
