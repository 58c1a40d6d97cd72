"""An endpoint's file, as a plugin edits it: what it says, and what takes its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestratord.config import write_file
from orchestratord.config.folder import MAX_BYTES, read_folder
from orchestratord.config.inherit import Merger
from orchestratord.config.loader import Loader
from orchestratord.config.validate.node_reader import NodeReader
from orchestratord.config.yaml.document import read_document, root_of
from orchestratord.config.yaml.nodes import MapNode, data_of
from orchestratord.errors import ConfigError, NotFound, Problem
from orchestratord.model.endpoint import Setting
from orchestratord.model.settings import Config
from orchestratord.values.redact import Redactor


@dataclass(frozen=True, slots=True)
class EndpointFile:
    """The file as it was read.

    Attributes:
        endpoint_id: whose it is.
        name: below the config folder.
        content: its bytes.
        settings: the keys of plugins whose lists are united by name.
        inherited: what `api.yaml` and `defaults` say under them.
        redactor: knows the secrets of the configuration in force.
        MAX_BYTES: of a file.
    """

    endpoint_id: str
    name: str
    content: bytes
    settings: Mapping[str, Setting[Any]]
    inherited: MapNode
    redactor: Redactor
    _merger: Merger
    _loader: Loader
    _files: Collection[str]
    MAX_BYTES: ClassVar[int] = MAX_BYTES

    @classmethod
    def read(cls, loader: Loader, endpoint_id: str) -> EndpointFile:
        """Read it, and what it inherits. Raises NotFound, ConfigError."""
        sources, registry = loader.sources, loader.sources.host.registry
        files = read_folder(sources.folder, loader.cache.files)
        name = files.endpoints.get(endpoint_id)
        if name is None:
            if files.problems:  # it may be in a folder that cannot be read
                raise ConfigError(files.problems)
            raise NotFound.of("endpoint", endpoint_id)
        if name not in files.contents:
            raise ConfigError([problem for problem in files.problems if problem.file == name])
        merger = Merger(NodeReader.quiet(registry, sources.environ))
        settings = {key: one for key, one in registry.settings.items() if one.merge == "by_name"}
        api = root_of(files, files.apis[endpoint_id.partition("/")[0]])
        inherited = merger.inherited(root_of(files, files.daemon), api, settings)
        content, redactor = files.contents[name], loader.config.redactor
        about = endpoint_id, name, content, settings, inherited, redactor
        return cls(*about, merger, loader, files.contents.keys())

    def tree(self, content: bytes) -> MapNode:
        """What `content` says in the place of the file's own. Raises ConfigError."""
        document = read_document(self.name, content)
        errors = [problem for problem in document.problems if problem.severity == "error"]
        if document.root is None or errors:
            raise ConfigError(errors or [Problem("cannot be read", file=self.name)])
        return document.root

    def merged(self, own: MapNode, *, inherits: bool = True) -> MapNode:
        """`own` keys over what is inherited, or over nothing; each item of a list has its name."""
        return self._merger.merge(self.inherited if inherits else MapNode(), own)

    def check(self, content: bytes) -> Config:
        """The configuration as it would be with `content` in the file. Raises ConfigError."""
        return self._loader.check(self.name, content)

    def check_writable(self) -> None:
        """Raise NotWritable, with the reason, where it cannot be replaced."""
        folder = self._loader.sources.folder
        write_file.check_writable(write_file.target(folder, self.name, self._files))

    def replace(self, content: bytes) -> bool:
        """Write `content` in its place; False where it, or what it inherits, is no longer as it was
        read. Raises NotFound, ConfigError, NotWritable, StorageFull."""
        now = EndpointFile.read(self._loader, self.endpoint_id)
        # What is inherited may be others' by now, and would bring other secrets along.
        if now.content != self.content or data_of(now.inherited) != data_of(self.inherited):
            return False
        path = write_file.target(self._loader.sources.folder, self.name, now._files)
        return write_file.replace(path, content, self.content)
