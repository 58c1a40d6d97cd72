"""`orchestratord schema`: what the files may hold, for editors and other programs."""

from __future__ import annotations

import json
from typing import Literal

import click

from orchestratord.cli.options import BAD_CONFIG, complain, config_option, folder_of


@click.command()
@config_option
@click.argument("file", type=click.Choice(["endpoint", "api", "daemon"]))
def schema(config: str | None, file: Literal["endpoint", "api", "daemon"]) -> None:
    """Print the JSON Schema of one kind of file.

    endpoint: apis/API/endpoints/NAME.yaml; api: apis/API/api.yaml; daemon: orchestratord.yaml.
    The keys of the installed plugins are part of it.
    """
    from orchestratord.cli.loading import host_of
    from orchestratord.config.schema import json_schema
    from orchestratord.errors import ConfigError

    try:
        host, problems = host_of(folder_of(config))
    except ConfigError as error:
        complain(error.problems)
        raise SystemExit(BAD_CONFIG) from None
    complain(problems)
    click.echo(json.dumps(json_schema(file, host.registry), indent=2))
