"""Writing a list of an endpoint back to its file: the lists of plugins that are united by name.

Everything is tried before anything is written: the text is spliced, read again and compared, and
the whole folder is validated with it in its place.
"""

from __future__ import annotations

from typing import Any

from orchestratord import (
    Config,
    ConfigError,
    Declaration,
    Edit,
    EndpointFile,
    NotWritable,
    Outdated,
    Problem,
    Unconditional,
)
from orchestratord_editor.edit_secrets import SecretsByOrigin
from orchestratord_editor.edited_file import EditedFile


def declaration(file: EndpointFile, key: str) -> Declaration:
    """What the endpoint's file says under `key`.

    Raises:
        NotFound: there is no such list.
        ConfigError: the file cannot be read.
    """
    found = EditedFile(file, key, file.content)
    return _declared(file, found, found.secrets)


def edit(
    file: EndpointFile, key: str, value: Any, *, etag: str | None, dry_run: bool = False
) -> Edit:
    """Have the endpoint's file say `value` under `key`; everything else in it stays.

    Args:
        file: the endpoint's.
        key: of a setting that is united by name.
        value: the list; an empty one takes the key out. `***` in an item keeps what stands
            there in the one that it is made from.
        etag: the value of If-Match.
        dry_run: try it, and write nothing.

    Raises:
        Unconditional, Outdated: no `etag`, or another one.
        NotWritable: the file cannot be written.
        StorageFull: the disk has no room for it.
        InvalidParams: `value` is no such list.
        ConfigError: it would be refused, and not only for what is wrong with other files already;
            the places are those of the file as it would be.
        NotFound: there is no such list.
    """
    before = EditedFile(file, key, file.content)
    if not etag:
        raise Unconditional("If-Match is required: the ETag of what was read before")
    if etag.strip() != "*" and before.etag not in [tag.strip() for tag in etag.split(",")]:
        raise _outdated(file)
    wanted = before.wanted(value)
    if not dry_run:
        file.check_writable()
    problems: tuple[Problem, ...] = ()
    config: Config | None = None
    after, allowed = before, before.secrets
    try:
        after = before.changed(wanted)
        if found := tuple(after.problems(allowed)):
            raise ConfigError(found)
        config = file.check(after.bytes)
    except ConfigError as error:
        problems = _caused(file, error.problems)
        if problems and not dry_run:
            raise
    written = after.bytes != before.bytes and not dry_run
    if written and not file.replace(after.bytes):
        raise _outdated(file)
    declared = _declared(file, after, allowed if dry_run else after.secrets)
    return Edit(declared, before.diff(after), problems, written, config=config if dry_run else None)


def _caused(file: EndpointFile, found: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """Of these problems those that other files do not have already, without the edit."""
    if all(problem.file == file.name for problem in found):
        return found
    try:
        file.check(file.content)
    except ConfigError as error:
        return tuple(one for one in found if one.file == file.name or one not in error.problems)
    return found


def _declared(on_disk: EndpointFile, file: EditedFile, allowed: SecretsByOrigin) -> Declaration:
    reason = ""
    try:
        on_disk.check_writable()
    except NotWritable as error:
        reason = str(error)
    return Declaration(
        file.file,
        file.items,
        file.inherited,
        file.etag,
        reason,
        file.references(allowed),
        file.names,
    )


def _outdated(file: EndpointFile) -> Outdated:
    return Outdated(f"{file.name} has changed since it was read; read it again")
