"""`orchestratord import`: endpoint files from another description of an API."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestratord import config_option

if TYPE_CHECKING:
    from orchestratord_openapi.imported_files import Outcomes
    from orchestratord_openapi.openapi_document import OpenApiDocument
    from orchestratord_openapi.openapi_operation import ImportedOperation
    from orchestratord_openapi.security_schemes import SecurityScheme

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@click.group("import")
def import_() -> None:
    """Take over what another system describes."""


@import_.command()
@config_option
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--api", metavar="NAME", help="What the API is called; else by the document's title.")
def openapi(config: str | None, file: str, api: str | None) -> None:
    """Write an endpoint file for each operation of an OpenAPI document, and its api.yaml.

    FILE is JSON or YAML, of OpenAPI 2.0 (Swagger), 3.0 or 3.1. What is written is good at once. Run
    it again with a newer document: new operations are added, files that have not been edited are
    renewed, and those that have been are left alone.
    """
    from orchestratord_openapi.openapi_document import read_openapi, text
    from orchestratord_openapi.openapi_operation import operations_of
    from orchestratord_openapi.security_schemes import schemes_of

    if re.match("https?://", file, re.IGNORECASE):
        raise click.ClickException(
            f"FILE is a file, and nothing is fetched here: curl -fLo api.json {shlex.quote(file)} "
            "&& orchestratord import openapi api.json"
        )
    document = read_openapi(Path(file))
    name = _api_name(document, api)
    operations, left = operations_of(document)
    if not operations:
        raise click.ClickException(f"{file} has no operations under `paths`")
    schemes = schemes_of(document, name)
    written = _write(config, document, name, operations, schemes)
    for operation in left:
        click.echo(f"left out   {operation}: this method cannot be called")
    for reference in sorted(document.followed):
        what = text(reference)
        click.echo(f"left out   {what}: it is in another file; bundle them into one first")
    _tell_next(document, name, schemes, written)


def _api_name(document: OpenApiDocument, given: str | None) -> str:
    from orchestratord_openapi.openapi_operation import name_of

    if given is None:
        title = re.sub(r"'s\b", "", document.title).lower()
        return name_of(re.sub("[^a-z0-9.]+", "-", title), "api", "")
    if not _NAME.fullmatch(given):
        raise click.UsageError(
            f"--api {given}: a name is made of letters, digits, '.', '_' and '-', and begins with "
            "a letter or digit"
        )
    return given


def _write(
    config: str | None,
    document: OpenApiDocument,
    api: str,
    operations: list[ImportedOperation],
    schemes: list[SecurityScheme],
) -> Outcomes:
    """Write the files and say which. Raises ClickException."""
    from orchestratord import ConfigFolder
    from orchestratord_openapi import imported_files
    from orchestratord_openapi.endpoint_yaml import api_text, endpoint_text

    folder = ConfigFolder(config)
    files = imported_files.files_for(operations, folder, api)
    own = folder.apis.get(api) or f"apis/{api}/api.yaml"
    texts = {own: imported_files.stamped(api_text(document, schemes))}
    for operation in operations:
        text = imported_files.stamped(endpoint_text(operation, schemes), operation.key)
        texts |= dict.fromkeys(files[operation.key], text)
    gone = [
        file
        for identity, file in folder.endpoints.items()
        if identity.startswith(f"{api}/")
        and file not in texts
        and imported_files.is_imported(folder.contents.get(file, b""))
    ]
    tried = {
        file: text
        for file, text in texts.items()
        if file not in folder.contents or imported_files.is_untouched(folder.contents[file])
    }
    for problem in folder.errors_with(tried):
        if problem.file == own:
            raise click.ClickException(f"nothing was written, as it would not be good: {problem}")
        if texts.pop(problem.file, None) is not None:
            click.echo(f"left out   {problem}")
    written = imported_files.write(folder, texts, gone)
    _tell(written, operations, files)
    return written


def _tell(
    written: Outcomes, operations: list[ImportedOperation], files: dict[str, list[str]]
) -> None:
    for outcome, word, why in (
        ("new", "wrote", ""),
        ("renewed", "renewed", ""),
        ("edited", "left alone", ": it has been edited"),
        ("gone", "gone", ": the document has it no more; the file stays"),
    ):
        for file in written[outcome]:
            click.echo(f"{word:<10} {file}{why}")
    for operation in operations:
        for problem in operation.request.problems:
            off = ", so it is switched off" if operation.request.obstacle == problem else ""
            click.echo(f"note       {', '.join(files[operation.key])}: {problem}{off}")


def _tell_next(
    document: OpenApiDocument, api: str, schemes: list[SecurityScheme], written: Outcomes
) -> None:
    words = {"same": "the same", "edited": "edited and left alone"}
    counts = {words.get(outcome, outcome): len(files) for outcome, files in written.items()}
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    click.echo(f"\napis/{api}: {said} files")
    if not written["new"]:
        return
    steps = []
    if document.base_url() is None:
        steps.append("write the host into base_url")
    if schemes:
        steps.append("set a secret and take the # before `auth` away")
    if steps:
        click.echo(f"Next, in apis/{api}/api.yaml: {'; '.join(steps)}.")
