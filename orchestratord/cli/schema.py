"""`orchestratord schema`: what the files may hold, for editors and other programs."""

from __future__ import annotations

import click

from orchestratord.cli.options import BAD_CONFIG, complain, config_option, folder_of
from orchestratord.cli.schema_folder import KINDS, Kind


@click.command()
@config_option
@click.option(
    "--write", is_flag=True, help="Write all three into the folder .schema of the config folder."
)
@click.argument("file", required=False, type=click.Choice(KINDS))
def schema(config: str | None, write: bool, file: Kind | None) -> None:
    """Print the JSON Schema of one kind of file, or write those of all.

    endpoint: apis/API/endpoints/NAME.yaml; api: apis/API/api.yaml; daemon: orchestratord.yaml.
    The keys of the installed plugins are part of it: write them again when plugins come or go.
    """
    from orchestratord.cli import schema_folder
    from orchestratord.cli.loading import host_of
    from orchestratord.errors import ConfigError

    if write == (file is not None):
        raise click.UsageError("say endpoint, api or daemon to see one, or --write to write all")
    folder = folder_of(config)
    try:
        host, problems = host_of(folder)
    except ConfigError as error:
        complain(error.problems)
        raise SystemExit(BAD_CONFIG) from None
    complain(problems)
    if file is not None:
        click.echo(schema_folder.as_text(file, host.registry), nl=False)
        return
    try:
        for path in schema_folder.write(folder, host.registry):
            click.echo(f"wrote {path}")
    except OSError as error:
        raise click.ClickException(
            f"{folder / schema_folder.NAME} cannot be written: {error.strerror or error}"
        ) from None
