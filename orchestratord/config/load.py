"""The config folder becomes one immutable snapshot, or a complete list of what is wrong with it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from orchestratord.config.cache import Memory
from orchestratord.config.daemon_file import DaemonReader
from orchestratord.config.endpoint_file import Declared, EndpointReader
from orchestratord.config.folder import Files, combined, read_daemon_file, read_folder
from orchestratord.config.inherit import Inherited, SharedReader
from orchestratord.config.plugin_checks import check_with_plugins
from orchestratord.config.validate.node_reader import NodeReader
from orchestratord.config.validate.problems import Problems
from orchestratord.config.validate.request_rules import AddressRules
from orchestratord.config.yaml.document import YamlDocument, read_document
from orchestratord.config.yaml.nodes import MapNode
from orchestratord.config.yaml.references import References
from orchestratord.config.yield_gil import Breathe, no_breath
from orchestratord.errors import ConfigError
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.settings import Config, DaemonSettings, Plugins
from orchestratord.plugin.host import Host
from orchestratord.plugin.registry import Registry
from orchestratord.values.redact import Redactor

DAEMON_FILE = "orchestratord.yaml"


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
    with uncollected():
        return read(folder, host, environ, credentials, addresses, Memory()).config


def read(
    folder: Path,
    host: Host,
    environ: Mapping[str, str],
    credentials: Path | None,
    addresses: AddressRules | None,
    memory: Memory,
    breathe: Breathe = no_breath,
    instead: Mapping[str, bytes] = MappingProxyType({}),
) -> Reading:
    """The same as `load`, for whoever reads again and again, with the memory of it.

    `breathe` is called every now and then, for other threads to have their turn. `instead` has
    what some of the files are taken to hold.
    """
    try:
        return _read(folder, host, environ, credentials, addresses, memory, breathe, instead)
    finally:
        memory.close(breathe)


@contextmanager
def uncollected(*, freeze: bool = False) -> Iterator[None]:
    """Keep the garbage collector away from what is built in here: very much, and no garbage.

    Args:
        freeze: also afterwards, for what is to stay. The collector would stop everything for as
            long as it takes to walk a million objects, again and again, and find nothing to do:
            there are no cycles in a configuration, and what nobody holds any more is freed all the
            same.
    """
    collecting = gc.isenabled()
    gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if collecting:
            gc.enable()


def _read(
    folder: Path,
    host: Host,
    environ: Mapping[str, str],
    credentials: Path | None,
    addresses: AddressRules | None,
    memory: Memory,
    breathe: Breathe,
    instead: Mapping[str, bytes],
) -> Reading:
    if credentials is None and environ.get("CREDENTIALS_DIRECTORY"):
        credentials = Path(environ["CREDENTIALS_DIRECTORY"])
    files = read_folder(folder, memory.files, breathe)
    if not instead:
        memory.digest = files.whole
    files.contents.update(instead)
    references = References(environ, credentials, folder)
    try:
        return _read_files(files, folder, host, references, addresses, memory, breathe)
    finally:
        # Good or bad: what was named is what a change can mend or break.
        memory.files.attached = frozenset(references.files)
        if not instead:
            memory.digest = combined(files.digest, references.files)


def _read_files(
    files: Files,
    folder: Path,
    host: Host,
    references: References,
    addresses: AddressRules | None,
    memory: Memory,
    breathe: Breathe,
) -> Reading:
    problems = Problems()
    problems.extend(files.problems)
    reader = NodeReader(references, host.registry, problems)
    shared = SharedReader(reader, host.registry, addresses, memory)

    def document(file: str | None, missing: str = "") -> YamlDocument:
        found = _document(files, file, missing)
        problems.extend(found.problems)
        return found

    def content(file: str | None) -> bytes | None:
        return files.contents.get(file or "")

    settings, of_plugins, defaults = memory.part(
        DAEMON_FILE, (content(files.daemon),), reader,
        lambda: DaemonReader(reader, host, shared).read(document(files.daemon, DAEMON_FILE)),
    )  # fmt: skip
    allow = settings.egress.allow if settings is not None else ()
    apis: dict[str, Inherited] = {}
    for api, file in files.apis.items():
        missing = f"apis/{api}/api.yaml"
        apis[api] = memory.part(
            missing, (content(file), defaults, allow), reader,
            partial(lambda *of: shared.api(of[0], document(*of[1:]), defaults, allow),
                    api, file, missing),
        )  # fmt: skip
    endpoint_reader = EndpointReader(reader, host.registry, shared)

    def declare(identity: str) -> Declared | None:
        inherited = apis[identity.partition("/")[0]]
        return endpoint_reader.read(identity, document(files.endpoints[identity]), inherited)

    def endpoint(identity: str) -> Endpoint | None:
        declared = declare(identity)
        return None if declared is None else declared.endpoint

    endpoints: dict[str, Endpoint] = {}
    for identity, file in files.endpoints.items():
        sources = (content(file), apis[identity.partition("/")[0]])
        found = memory.part(identity, sources, reader, partial(endpoint, identity))
        if found is not None:
            endpoints[identity] = found
        breathe()

    redactor = Redactor(reader.secrets)
    config = Config(
        folder=folder,
        daemon=settings or DaemonSettings.model_validate({}),
        apis=MappingProxyType({name: item.api for name, item in apis.items() if item.api}),
        endpoints=MappingProxyType(endpoints),
        redactor=redactor,
        digest=combined(files.digest, references.files),
        files=tuple(sorted(files.contents)),
        settings=of_plugins,
    )
    check_with_plugins(host, config, declare, problems, files.contents, breathe)
    if problems.errors:
        raise ConfigError(problems.sorted(redactor, files.contents))
    warnings = problems.sorted(redactor, files.contents)
    return Reading(replace(config, warnings=warnings), reader.references)


def _document(files: Files, file: str | None, missing: str = "") -> YamlDocument:
    """The document of a file; an empty one, called `missing`, where there is no file."""
    if file is None:
        return YamlDocument(missing, MapNode(), [])
    if file not in files.contents:
        return YamlDocument(file, None, [])  # which is a problem of the folder already
    return read_document(file, files.contents[file])


def read_plugins(folder: Path) -> Plugins:
    """Which plugins `orchestratord.yaml` asks for, before any is loaded.

    Lenient: whatever is wrong with it but its syntax is for `load` to say, which knows the
    plugins' keys; until then the defaults serve.

    Raises:
        ConfigError: the file cannot be read as YAML.
    """
    files = read_daemon_file(folder)
    document = _document(files, files.daemon, DAEMON_FILE)
    problems = [p for p in (*files.problems, *document.problems) if p.severity == "error"]
    if document.root is None:
        raise ConfigError(problems)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    references = References(os.environ, Path(credentials) if credentials else None)
    reader = NodeReader(references, Registry(), Problems())
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
