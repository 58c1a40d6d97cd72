"""The command itself, which imports the rest only when it is used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestratord.cli.options import BAD_CONFIG, complain, config_option, folder_of

if TYPE_CHECKING:
    from orchestratord.cli.importing.access import Scheme
    from orchestratord.cli.importing.document import Document
    from orchestratord.cli.importing.folder import Written
    from orchestratord.cli.importing.operation import Operation

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@click.group("import")
def import_() -> None:
    """Write endpoint files from somebody else's description of an API."""


@import_.command()
@config_option
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--api", metavar="NAME", help="What the API is called; else by the document's title.")
def openapi(config: str | None, file: Path, api: str | None) -> None:
    """Write an endpoint file for each operation of an OpenAPI document, and its api.yaml.

    FILE is JSON or YAML, of OpenAPI 2.0 (Swagger), 3.0 or 3.1. What is written is good at once. Run
    it again with a newer document: new operations are added, files that nobody has edited are
    renewed, and those that somebody has are left alone.
    """
    from orchestratord.cli.importing import document as documents
    from orchestratord.cli.importing.access import schemes_of
    from orchestratord.cli.importing.operation import operations_of
    from orchestratord.errors import ConfigError

    document = documents.read(file)
    name = _api_name(document, api)
    operations, left = operations_of(document)
    if not operations:
        raise click.ClickException(f"{file} has no operations under `paths`")
    schemes = schemes_of(document, name)
    try:
        written = _write(folder_of(config), document, name, operations, schemes)
    except ConfigError as error:
        complain(error.problems)
        raise SystemExit(BAD_CONFIG) from None
    for operation in left:
        click.echo(f"left out   {operation}: this method cannot be called")
    for reference in sorted(document.followed):
        what = documents.text(reference)
        click.echo(f"left out   {what}: it is in another file; bundle them into one first")
    _tell_next(document, name, schemes, written)


def _api_name(document: Document, given: str | None) -> str:
    from orchestratord.cli.importing.operation import name_of

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
    folder: Path,
    document: Document,
    api: str,
    operations: list[Operation],
    schemes: list[Scheme],
) -> Written:
    """Write the files and say which. Raises ConfigError and ClickException."""
    from orchestratord.cli.importing import folder as config
    from orchestratord.cli.importing.writing import api_text, endpoint_text
    from orchestratord.cli.loading import host_of

    host, _ = host_of(folder)
    files = config.read(folder)
    names = config.names_for(operations, files, api)
    own = files.apis.get(api) or f"apis/{api}/api.yaml"
    texts = {own: config.stamped(api_text(document, schemes))}
    for operation in operations:
        text = config.stamped(endpoint_text(operation, schemes), operation.key)
        texts[names[operation.key]] = text
    untouched = {
        file
        for file in texts
        if file not in files.contents or config.is_untouched(files.contents[file])
    }
    tried = {file: text for file, text in texts.items() if file in untouched}
    for problem in config.errors_of(host, files, tried):
        if problem.file == own:
            raise click.ClickException(f"nothing was written, as it would not be good: {problem}")
        if texts.pop(problem.file, None) is not None:
            click.echo(f"left out   {problem}")
    known = set(names.values())
    gone = [
        file
        for identity, file in files.endpoints.items()
        if identity.startswith(f"{api}/")
        and file not in known
        and config.is_imported(files.contents.get(file, b""))
    ]
    written = config.write(folder, files, texts, gone)
    _tell(written, operations, names)
    return written


def _tell(written: Written, operations: list[Operation], names: dict[str, str]) -> None:
    for word, found in (
        ("wrote", written.new),
        ("renewed", written.renewed),
        ("left alone", written.edited),
        ("gone", written.gone),
    ):
        for file in found:
            why = {
                "left alone": ": somebody has edited it",
                "gone": ": the document has it no more; the file stays",
            }
            click.echo(f"{word:<10} {file}{why.get(word, '')}")
    for operation in operations:
        for problem in operation.problems:
            off = ", so it is switched off" if operation.obstacle == problem else ""
            click.echo(f"note       {names[operation.key]}: {problem}{off}")


def _tell_next(document: Document, api: str, schemes: list[Scheme], written: Written) -> None:
    from orchestratord.cli.importing.access import base_url

    counts = {
        "new": len(written.new),
        "renewed": len(written.renewed),
        "the same": len(written.same),
        "edited and left alone": len(written.edited),
        "gone": len(written.gone),
    }
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    click.echo(f"\napis/{api}: {said} files")
    if not written.new:
        return
    steps = []
    if base_url(document) is None:
        steps.append("write the host into base_url")
    if schemes:
        steps.append("set a secret and take the # before `auth` away")
    if steps:
        click.echo(f"Next, in apis/{api}/api.yaml: {'; '.join(steps)}.")
