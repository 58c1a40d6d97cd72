"""The config folder as a command of a plugin works on it: what stands there, what it writes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import click

from orchestratord.cli.opened_config import config_of, host_of
from orchestratord.cli.options import bad_config_ends, folder_of, unwritable
from orchestratord.config.folder import NAME, SUFFIXES, read_folder
from orchestratord.config.write_file import replace
from orchestratord.errors import ConfigError, NotWritable, Problem, StorageFull
from orchestratord.plugin.host import Host


class ConfigFolder:
    """A folder of YAML. All files are named by their paths below it.

    Attributes:
        path: where it is.
        contents: what each file holds that could be read.
        apis: API → its api.yaml, None where it has none.
        endpoints: id → its file.
        daemon: the file with the daemon's settings, None where there is none.
        NAME: the pattern of names of APIs and endpoints.
        SUFFIXES: of files that are read.
    """

    NAME: ClassVar = NAME
    SUFFIXES: ClassVar = SUFFIXES

    def __init__(self, option: str | None) -> None:
        """Read the files of the folder that `--config` names, or the environment.

        Raises click.ClickException where there is no folder.
        """
        self.path = folder_of(option)
        if not self.path.is_dir():
            raise click.ClickException(
                f"there is no config folder {self.path}; `orchestratord init DIR` makes one"
            )
        files = read_folder(self.path)
        self.contents: Mapping[str, bytes] = files.contents
        self.apis: Mapping[str, str | None] = files.apis
        self.endpoints: Mapping[str, str] = files.endpoints
        self.daemon = files.daemon

    @cached_property
    def host(self) -> Host:
        """The plugins of the folder. Where `orchestratord.yaml` cannot be read, the command ends
        with 78."""
        with bad_config_ends():
            return host_of(self.path)

    def errors_of(self, contents: Mapping[str, bytes]) -> list[Problem]:
        """What `check` would say of a folder that has these files, and this one's plugins."""
        host = self.host
        with tempfile.TemporaryDirectory(prefix="orchestratord-") as name:
            Path(name, "apis").mkdir()
            for file, content in contents.items():
                path = Path(name) / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            try:
                config_of(Path(name), host)
            except ConfigError as error:
                return [problem for problem in error.problems if problem.severity == "error"]
        return []

    def errors_with(self, texts: Mapping[str, str]) -> list[Problem]:
        """What `check` would say of these files beside those that are there."""
        new = {file: text.encode() for file, text in texts.items()}
        found = self.errors_of({**self.contents, **new})
        return [problem for problem in found if problem.file in texts]

    def create(self, file: str, content: bytes) -> None:
        """Write a file that is not there, so that half of it is never read.

        Raises click.ClickException.
        """
        path = self.path / file
        draft = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            try:
                os.link(draft, path)
            finally:
                draft.unlink()
        except OSError as error:
            raise unwritable(path, error) from None

    def replace(self, file: str, content: bytes) -> bool:
        """Write a file anew; False where it is no longer as it was read. Raises ClickException."""
        try:
            return replace(self.path / file, content, self.contents[file])
        except (NotWritable, StorageFull) as error:
            raise click.ClickException(str(error)) from None
