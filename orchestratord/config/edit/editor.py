"""Writing a list of an endpoint back to its file: the lists of plugins that are united by name.

Everything is tried before anything is written: the text is spliced, read again and compared, and
the whole folder is validated with it in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestratord.config.edit.edit_secrets import SecretsByOrigin
from orchestratord.config.edit.edited_file import EditedFile, Surroundings
from orchestratord.config.edit.write_file import check_writable, replace, target
from orchestratord.config.folder import Files, read_folder
from orchestratord.config.inherit import Merger
from orchestratord.config.loader import Loader
from orchestratord.config.validate.node_reader import NodeReader
from orchestratord.config.validate.problems import Problems
from orchestratord.config.yaml.document import root_of
from orchestratord.config.yaml.references import References
from orchestratord.errors import (
    ConfigError,
    NotFound,
    NotWritable,
    Outdated,
    Problem,
    Unconditional,
)
from orchestratord.model.edit import Declaration, Edit
from orchestratord.model.settings import Config


class Editor:
    """Reads and writes the lists of endpoints' files. Edits take turns.

    Args:
        loader: holds the configuration in force, and says how another one would be.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def declaration(self, endpoint_id: str, key: str) -> Declaration:
        """What the endpoint's file says under `key`.

        Raises:
            NotFound: no such endpoint, or no such key.
            ConfigError: its file cannot be read.
        """
        opened = self._open(endpoint_id, key)
        return _declared(opened, opened.content, opened.content.secrets)

    def edit(
        self, endpoint_id: str, key: str, value: Any, *, etag: str | None, dry_run: bool = False
    ) -> Edit:
        """Have the endpoint's file say `value` under `key`; everything else in it stays.

        Args:
            endpoint_id: `api/name`.
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
            ConfigError: it would be refused; the places are those of the file as it would be.
            NotFound: no such endpoint, or no such key.
        """
        opened = self._open(endpoint_id, key)
        before = opened.content
        if not etag:
            raise Unconditional("If-Match is required: the ETag of what was read before")
        if etag.strip() != "*" and before.etag not in [tag.strip() for tag in etag.split(",")]:
            raise _outdated(before)
        wanted = before.wanted(value)
        if not dry_run:
            check_writable(opened.path())
        problems: tuple[Problem, ...] = ()
        config: Config | None = None
        after, allowed = before, before.secrets
        try:
            after = before.changed(wanted)
            if found := tuple(after.problems(allowed)):
                raise ConfigError(found)
            config = self._loader.check(after.file, after.bytes)
        except ConfigError as error:
            if not dry_run:
                raise
            problems = error.problems
        written = after.bytes != before.bytes and not dry_run
        if written:
            # What is inherited may be others' by now, and would bring other secrets along.
            now = self._open(endpoint_id, key)
            if now.content.etag != before.etag or not replace(
                opened.path(), after.bytes, before.bytes
            ):
                raise _outdated(before)
        declaration = _declared(opened, after, allowed if dry_run else after.secrets)
        return Edit(
            declaration, before.diff(after), problems, written, config=config if dry_run else None
        )

    def _open(self, endpoint_id: str, key: str) -> _Opened:
        sources, registry = self._loader.sources, self._loader.sources.host.registry
        setting = registry.settings.get(key)
        if setting is None or setting.merge != "by_name":
            raise NotFound(f"there is no list {key!r} that can be edited")
        files = read_folder(sources.folder, self._loader.cache.files)
        file = files.endpoints.get(endpoint_id)
        if file is None:
            if files.problems:  # it may be in a folder that cannot be read
                raise ConfigError(files.problems)
            raise NotFound.of("endpoint", endpoint_id)
        if file not in files.contents:
            raise ConfigError([problem for problem in files.problems if problem.file == file])
        reader = NodeReader(
            References(sources.environ, kinds=registry.references), registry, Problems()
        )
        merger = Merger(reader, registry.settings)
        daemon = root_of(files, files.daemon)
        api = root_of(files, files.apis[endpoint_id.partition("/")[0]])
        inherited = merger.inherited(daemon, api, {key})
        redactor = self._loader.config.redactor
        surroundings = Surroundings(file, setting, merger, inherited, redactor)
        return _Opened(sources.folder, files, EditedFile(surroundings, files.contents[file]))


@dataclass(frozen=True, slots=True)
class _Opened:
    """An endpoint's file as it was found."""

    folder: Path
    files: Files
    content: EditedFile

    def path(self) -> Path:
        """The file to replace. Raises NotWritable."""
        return target(self.folder, self.content.file, self.files.contents)


def _declared(opened: _Opened, file: EditedFile, allowed: SecretsByOrigin) -> Declaration:
    reason = ""
    try:
        check_writable(opened.path())
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


def _outdated(file: EditedFile) -> Outdated:
    return Outdated(f"{file.file} has changed since it was read; read it again")
