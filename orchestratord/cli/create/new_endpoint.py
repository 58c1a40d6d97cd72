"""A new endpoint: its file, and the api.yaml that it needs.

Names and keys are judged by the code that reads the configuration, on a copy of the few files that
matter, so that nothing is written which would be refused afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from orchestratord.cli.create.scaffold import SCHEMA_FOLDER, template, write_new, write_schemas
from orchestratord.cli.opened_config import copy_of, errors_in, existing_folder, host_of
from orchestratord.config.folder import SUFFIXES, Files, read_folder
from orchestratord.config.yaml.document import root_of
from orchestratord.config.yaml.nodes import mapping_of
from orchestratord.plugin.host import Host

_WITH_BODY = ("POST", "PUT", "PATCH")


def write_endpoint(
    folder: Path, endpoint_id: str, method: str | None, *, event: bool = False
) -> None:
    """Write the files of a new endpoint and say which.

    Args:
        folder: the config folder.
        endpoint_id: `api/name`.
        method: of its requests; None for a statement on a database, and for an event.
        event: it is one.

    Raises:
        click.ClickException: the id is no id or is taken, or the files cannot be written.
        ConfigError: orchestratord.yaml cannot be read.
    """
    api, slash, name = endpoint_id.partition("/")
    if not (slash and api and name) or "/" in name or "\0" in name:
        raise click.ClickException(f"{endpoint_id!r} is no endpoint; one is named API/NAME")
    if name.endswith(SUFFIXES):
        raise click.ClickException(f"{endpoint_id!r}: leave out {Path(name).suffix} of the file")
    files = read_folder(existing_folder(folder))
    if endpoint_id in files.endpoints:
        raise click.ClickException(
            f"there is an endpoint {endpoint_id} already: {folder / files.endpoints[endpoint_id]}"
        )
    texts = {}
    if files.apis.get(api) is None and method is not None:
        texts[f"apis/{api}/api.yaml"] = template("endpoint/api.yaml.in", api=api)
    values = {"id": endpoint_id, "name": name}
    if event:
        kind = "event"
    elif method is None:
        kind, values["database"] = "sql", _database(files)
    else:
        kind = "post" if method in _WITH_BODY else "get"
        values |= {"method": method, "idempotent": str(method == "PUT").lower()}
    own = f"apis/{api}/endpoints/{name}.yaml"
    texts[own] = template(f"endpoint/{kind}.yaml.in", **values)
    host = host_of(folder)
    _judge(host, files, texts, endpoint_id)
    # What the endpoint needs is there before it, for a daemon that may be looking.
    for path, text in texts.items():
        write_new(folder / path, text)
    if not (folder / SCHEMA_FOLDER).is_dir():  # the files name them
        write_schemas(folder, host.registry)


def _database(files: Files) -> str:
    """The first of the databases that are declared. Raises ClickException where there is none."""
    names = list(mapping_of(root_of(files, files.daemon).child("databases")).entries)
    if not names:
        raise click.ClickException(
            "no database is declared; write one into orchestratord.yaml, such as\n"
            "databases: {warehouse: {url: sqlite:///warehouse.db}}"
        )
    return names[0]


def _judge(host: Host, files: Files, texts: Mapping[str, str], endpoint_id: str) -> None:
    """Raise ClickException where the endpoint would not be read, or bring an error."""
    needed = (files.daemon, files.apis.get(endpoint_id.partition("/")[0]))
    shared = {file: files.contents[file] for file in needed if file in files.contents if file}
    with copy_of(shared) as folder:
        before = list(map(str, errors_in(folder, host)))
    try:
        with copy_of(shared | {file: text.encode() for file, text in texts.items()}) as folder:
            known = read_folder(folder).endpoints
            after = list(map(str, errors_in(folder, host)))
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(f"{endpoint_id!r} cannot be a file: {why}") from None
    if endpoint_id not in known:
        raise click.ClickException(
            f"{endpoint_id!r} would not be read: both names are made of letters, digits, '.', "
            "'_' and '-', and begin with a letter or digit"
        )
    if errors := [error for error in after if error not in before]:
        lines = [f"{endpoint_id} would not be good, nothing was written:", *errors]
        raise click.ClickException("\n".join(lines))
