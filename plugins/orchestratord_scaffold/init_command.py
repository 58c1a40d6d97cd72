"""`orchestratord init`: a config folder to begin with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

DASHBOARD_FILE = ".dashboard-token"
_UNFIT = re.compile(r"""[{}"\\\x00-\x1f]""")


@click.command()
@click.argument("folder", metavar="DIR", required=False, type=click.Path(file_okay=False))
@click.option(
    "--config", metavar="DIR", type=click.Path(file_okay=False), help="Another way to name DIR."
)
def init(folder: str | None, config: str | None) -> None:
    """Make a small config folder that works.

    It holds the daemon's settings, one API and one endpoint, with comments that say what else there
    is, JSON Schemas by which an editor completes and checks, and a token for the dashboard, which
    is shown once. A folder that is not empty is left alone.
    """
    from orchestratord import opened_host, world
    from orchestratord_scaffold.scaffold import TEMPLATES, make_empty, write_new, write_schemas

    if (folder is None) == (config is None):
        raise click.UsageError("name one folder to make, such as: orchestratord init config")
    made = Path(folder or config or "")
    make_empty(made)
    token = world.token_urlsafe(32)
    file = made.absolute() / DASHBOARD_FILE
    # A path that no reference can hold is rare: the token then stands in the file itself.
    reference = token if _UNFIT.search(str(file)) else f"${{file:{file}}}"
    source = TEMPLATES / "config"
    for path in sorted(source.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8").replace("@TOKEN@", reference)
        write_new(made / path.relative_to(source), text)
    write_new(made / DASHBOARD_FILE, f"{token}\n", secret=True)
    write_new(made / ".gitignore", f"/{DASHBOARD_FILE}\n")
    write_schemas(made, opened_host(str(made)).registry)
    where = shlex.quote(str(made))
    click.echo(
        "\nNext:\n"
        f"  orchestratord check --config {where}\n"
        f"  orchestratord run --config {where}\n"
        "  orchestratorctl call example/getPage -p topic=retries --wait\n"
        "\nThe dashboard of the running daemon is at http://127.0.0.1:8420\n"
        f"  token: {token}\n"
        f"  also in {made / DASHBOARD_FILE}"
    )
