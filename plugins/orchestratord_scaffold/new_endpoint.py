"""A new endpoint: its file, and the api.yaml that it needs.

Names and keys are judged by the code that reads the configuration, on a copy of the few files that
matter, so that nothing is written which would be refused afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from orchestratord import ConfigFolder, parse_yaml
from orchestratord_scaffold.scaffold import SCHEMA_FOLDER, template, write_new, write_schemas

_WITH_BODY = ("POST", "PUT", "PATCH")


def write_endpoint(
    config: str | None, endpoint_id: str, method: str | None, *, event: bool = False
) -> None:
    """Write the files of a new endpoint and say which.

    Args:
        config: names the config folder.
        endpoint_id: `api/name`.
        method: of its requests; None for a statement on a database, and for an event.
        event: it is one.

    Raises:
        click.ClickException: the id is no id or is taken, or the files cannot be written.
    """
    api, slash, name = endpoint_id.partition("/")
    if not (slash and api and name) or "/" in name or "\0" in name:
        raise click.ClickException(f"{endpoint_id!r} is no endpoint; one is named API/NAME")
    if name.endswith(ConfigFolder.SUFFIXES):
        raise click.ClickException(f"{endpoint_id!r}: leave out {Path(name).suffix} of the file")
    folder = ConfigFolder(config)
    if endpoint_id in folder.endpoints:
        file = folder.path / folder.endpoints[endpoint_id]
        raise click.ClickException(f"there is an endpoint {endpoint_id} already: {file}")
    registry, texts = folder.host.registry, {}
    if folder.apis.get(api) is None and method is not None:
        texts[f"apis/{api}/api.yaml"] = template("endpoint/api.yaml.in", api=api)
    values = {"id": endpoint_id, "name": name}
    if event:
        kind = "event"
    elif method is None:
        kind, values["database"] = "sql", _database(folder)
    else:
        kind = "post" if method in _WITH_BODY else "get"
        values |= {"method": method, "idempotent": str(method == "PUT").lower()}
    own = f"apis/{api}/endpoints/{name}.yaml"
    texts[own] = template(f"endpoint/{kind}.yaml.in", **values)
    _judge(folder, texts, endpoint_id)
    # What the endpoint needs is there before it, for a daemon that may be looking.
    for path, text in texts.items():
        write_new(folder.path / path, text)
    if not (folder.path / SCHEMA_FOLDER).is_dir():  # the files name them
        write_schemas(folder.path, registry)


def _database(folder: ConfigFolder) -> str:
    """The first of the databases that are declared. Raises ClickException where there is none."""
    written = parse_yaml(folder.contents.get(folder.daemon or "", b""))
    names = list((written or {}).get("databases") or ())
    if not names:
        raise click.ClickException(
            "no database is declared; write one into orchestratord.yaml, such as\n"
            "databases: {warehouse: {url: sqlite:///warehouse.db}}"
        )
    return str(names[0])


def _judge(folder: ConfigFolder, texts: Mapping[str, str], endpoint_id: str) -> None:
    """Raise ClickException where the endpoint would not be read, or bring an error."""
    api, _, name = endpoint_id.partition("/")
    if not (folder.NAME.fullmatch(api) and folder.NAME.fullmatch(name)):
        raise click.ClickException(
            f"{endpoint_id!r} would not be read: both names are made of letters, digits, '.', "
            "'_' and '-', and begin with a letter or digit"
        )
    needed = (folder.daemon, folder.apis.get(api))
    shared = {file: folder.contents[file] for file in needed if file in folder.contents if file}
    before = list(map(str, folder.errors_of(shared)))
    try:
        new = {file: text.encode() for file, text in texts.items()}
        after = list(map(str, folder.errors_of(shared | new)))
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(f"{endpoint_id!r} cannot be a file: {why}") from None
    if errors := [error for error in after if error not in before]:
        lines = [f"{endpoint_id} would not be good, nothing was written:", *errors]
        raise click.ClickException("\n".join(lines))
