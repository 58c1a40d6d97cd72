"""The config folder as a command of a plugin works on it: what stands there, what it writes."""

from __future__ import annotations

import os
from collections.abc import Mapping

import click

from orchestratord.cli.create.scaffold import unwritable
from orchestratord.cli.opened_config import copy_of, errors_in, existing_folder, host_of
from orchestratord.cli.options import bad_config_ends, folder_of
from orchestratord.config.folder import read_folder
from orchestratord.config.write_file import replace
from orchestratord.errors import NotWritable, Problem, StorageFull


class ConfigFolder:
    """A folder of YAML. All files are named by their paths below it.

    Attributes:
        path: where it is.
        contents: what each file holds that could be read.
        apis: API → its api.yaml, None where it has none.
        endpoints: id → its file.
    """

    def __init__(self, option: str | None) -> None:
        """Read the files of the folder that `--config` names, or the environment.

        Raises click.ClickException where there is no folder.
        """
        self.path = existing_folder(folder_of(option))
        files = read_folder(self.path)
        self.contents: Mapping[str, bytes] = files.contents
        self.apis: Mapping[str, str | None] = files.apis
        self.endpoints: Mapping[str, str] = files.endpoints

    def errors_with(self, texts: Mapping[str, str]) -> list[Problem]:
        """What `check` would say of these files beside those that are there, tried on a copy. Where
        `orchestratord.yaml` cannot be read, the command ends with 78."""
        with bad_config_ends():
            host = host_of(self.path)
        new = {file: text.encode() for file, text in texts.items()}
        with copy_of({**self.contents, **new}) as folder:
            return [problem for problem in errors_in(folder, host) if problem.file in texts]

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
