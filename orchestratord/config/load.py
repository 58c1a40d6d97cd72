"""The config folder becomes one immutable snapshot, or a complete list of what is wrong with it."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from orchestratord.config.daemon_file import DaemonReader
from orchestratord.config.document import Document, read_document
from orchestratord.config.endpoints import Declared, EndpointReader
from orchestratord.config.folder import Files, read_daemon_file, read_folder
from orchestratord.config.outgoing import AddressRules
from orchestratord.config.plugin_checks import check_with_plugins
from orchestratord.config.positions import MapNode
from orchestratord.config.problems import Problems
from orchestratord.config.reader import Reader
from orchestratord.config.references import References
from orchestratord.config.shared import Inherited, SharedReader
from orchestratord.errors import ConfigError
from orchestratord.host import Host
from orchestratord.redact import Redactor
from orchestratord.registry import Registry
from orchestratord.settings import Config, DaemonSettings, Plugins

DAEMON_FILE = "orchestratord.yaml"


class Cache:
    """Documents of the last reading, by file and content: most do not change between two."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str, bytes], Document] = {}

    def read(self, files: Files) -> dict[str, Document]:
        """The document of each file, read again only where its content changed."""
        documents = {
            (file, content): self._documents.get((file, content)) or read_document(file, content)
            for file, content in files.contents.items()
        }
        self._documents = documents
        return {file: document for (file, _), document in documents.items()}


@dataclass(frozen=True, slots=True)
class Reading:
    """A snapshot, and what its references stood for when it was made."""

    config: Config
    references: Mapping[str, str]


def load(
    folder: Path,
    host: Host,
    *,
    environ: Mapping[str, str] = os.environ,
    credentials: Path | None = None,
    addresses: AddressRules | None = None,
) -> Config:
    """Read the folder.

    Args:
        folder: the config folder.
        host: the plugins, loaded as this folder asks for.
        environ: what `${NAME}` and `${secret:NAME}` read.
        credentials: what `${credential:name}` reads; by default $CREDENTIALS_DIRECTORY.
        addresses: the engine's rules; without them, egress rules and literal addresses are not
            checked.

    Raises:
        ConfigError: with every error of every file, in the order of the files, and then with every
            warning.
    """
    return read(folder, host, environ, credentials, addresses, Cache()).config


def read(
    folder: Path,
    host: Host,
    environ: Mapping[str, str],
    credentials: Path | None,
    addresses: AddressRules | None,
    cache: Cache,
) -> Reading:
    """The same as `load`, for whoever reads again and again."""
    # Very many new objects and no garbage: the collector would walk them over and over.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _read(folder, host, environ, credentials, addresses, cache)
    finally:
        if collecting:
            gc.enable()


def _read(
    folder: Path,
    host: Host,
    environ: Mapping[str, str],
    credentials: Path | None,
    addresses: AddressRules | None,
    cache: Cache,
) -> Reading:
    if credentials is None and environ.get("CREDENTIALS_DIRECTORY"):
        credentials = Path(environ["CREDENTIALS_DIRECTORY"])
    files = read_folder(folder)
    references = References(environ, credentials)
    problems = Problems()
    problems.extend(files.problems)
    documents = cache.read(files)
    for document in documents.values():
        problems.extend(document.problems)
    reader = Reader(references, host.registry, problems)
    shared = SharedReader(reader, host.registry, addresses)

    daemon = DaemonReader(reader, host, shared)
    settings, defaults = daemon.read(_document(documents, files.daemon, DAEMON_FILE))
    allow = settings.egress.allow if settings is not None else ()
    apis: dict[str, Inherited] = {}
    for name, file in files.apis.items():
        document = _document(documents, file, f"apis/{name}/api.yaml")
        apis[name] = shared.api(name, document, defaults, allow)
    declared = _endpoints(files, documents, apis, EndpointReader(reader, host.registry, shared))

    redactor = Redactor(reader.secrets)
    config = Config(
        folder=folder,
        daemon=settings or DaemonSettings.model_validate({}),
        apis=MappingProxyType({name: item.api for name, item in apis.items() if item.api}),
        endpoints=MappingProxyType({item.endpoint.id: item.endpoint for item in declared}),
        redactor=redactor,
        digest=files.digest,
        files=tuple(sorted(files.contents)),
    )
    check_with_plugins(host, config, declared, problems)
    if problems.any_error:
        raise ConfigError((*problems.errors(redactor), *problems.warnings(redactor)))
    return Reading(replace(config, warnings=problems.warnings(redactor)), references.values)


def _document(documents: Mapping[str, Document], file: str | None, missing: str) -> Document:
    """The document of a file; an empty one, called `missing`, where there is no file."""
    if file is None:
        return Document(missing, MapNode(), [])
    return documents.get(file) or Document(file, None, [])


def _endpoints(
    files: Files,
    documents: Mapping[str, Document],
    apis: Mapping[str, Inherited],
    reader: EndpointReader,
) -> list[Declared]:
    declared: list[Declared] = []
    for identity, file in files.endpoints.items():
        document = _document(documents, file, file)
        endpoint = reader.read(identity, document, apis[identity.partition("/")[0]])
        if endpoint is not None:
            declared.append(endpoint)
    return declared


def read_plugins(folder: Path) -> Plugins:
    """Which plugins `orchestratord.yaml` asks for, before any is loaded.

    Lenient: whatever is wrong with it but its syntax is for `load` to say, which knows the
    plugins' keys; until then the defaults serve.

    Raises:
        ConfigError: the file cannot be read as YAML.
    """
    files = read_daemon_file(folder)
    documents = Cache().read(files)
    document = _document(documents, files.daemon, DAEMON_FILE)
    problems = [p for p in (*files.problems, *document.problems) if p.severity == "error"]
    if document.root is None:
        raise ConfigError(problems)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    references = References(os.environ, Path(credentials) if credentials else None)
    reader = Reader(references, Registry(), Problems())
    spot, node = document.root.entries.get("plugins", (document.spot, MapNode()))
    plugins: Plugins | None = reader.read(spot, node, Plugins).value
    if plugins is not None:
        return plugins
    fields = {}
    for key, entry in node.entries.items() if isinstance(node, MapNode) else ():
        value = reader.read(spot, MapNode({key: entry}), Plugins).value
        if value is not None:
            fields[key] = getattr(value, key)
    return Plugins(**fields)
