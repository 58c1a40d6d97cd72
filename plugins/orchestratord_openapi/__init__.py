"""The command `orchestratord import openapi`: endpoint files made from an OpenAPI document.

openapi_document reads it, openapi_operation and security_schemes turn it into the keys of endpoints
and of their API, endpoint_yaml into text; imported_files knows what is there and writes the rest.
"""

from collections.abc import Iterable

import click

from orchestratord import hookimpl


@hookimpl
def register_commands() -> Iterable[click.Command]:
    """The group `import` with this one command."""
    from orchestratord_openapi.import_command import import_

    return [import_]
