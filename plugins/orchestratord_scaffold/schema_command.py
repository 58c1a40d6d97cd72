"""`orchestratord schema`: what the files may hold, for editors and other programs."""

from __future__ import annotations

import click

from orchestratord import config_option, folder_of
from orchestratord_scaffold.scaffold import SCHEMA_KINDS, SchemaKind, schema_text, write_schemas


@click.command()
@config_option
@click.option(
    "--write", is_flag=True, help="Write all three into the folder .schema of the config folder."
)
@click.argument("file", required=False, type=click.Choice(SCHEMA_KINDS))
def schema(config: str | None, write: bool, file: SchemaKind | None) -> None:
    """Print or write the JSON Schemas of the files.

    endpoint: apis/API/endpoints/NAME.yaml; api: apis/API/api.yaml; daemon: orchestratord.yaml.
    The keys of the installed plugins are part of it: write them again when plugins come or go.
    """
    from orchestratord import opened_host

    if write == (file is not None):
        raise click.UsageError("say endpoint, api or daemon to see one, or --write to write all")
    host = opened_host(config)
    if file is not None:
        click.echo(schema_text(file, host.registry), nl=False)
    else:
        write_schemas(folder_of(config), host.registry)
