"""The config folder becomes one immutable snapshot, or a complete list of what is wrong with it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from orchestratord.config.cache import Cache
from orchestratord.config.daemon_reader import DaemonFile, DaemonReader
from orchestratord.config.endpoint_reader import Declared, EndpointReader
from orchestratord.config.folder import Files, combined, read_daemon_file, read_folder
from orchestratord.config.inherit import Inherited, SharedReader
from orchestratord.config.params import TOO_LARGE
from orchestratord.config.validate.node_reader import NodeReader
from orchestratord.config.validate.plugin_rules import plugin_problems
from orchestratord.config.validate.problems import KeyProblems, Problems, lines_of
from orchestratord.config.validate.request_rules import AddressRules
from orchestratord.config.validate.shapes import fields_of
from orchestratord.config.yaml.blocks import CutDocument
from orchestratord.config.yaml.document import YamlDocument, read_document, root_of
from orchestratord.config.yaml.nodes import MapNode, Node, Scalar, Spot, locate, passage
from orchestratord.config.yaml.references import References
from orchestratord.errors import ConfigError, Problem
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.settings import Config, DaemonSettings, FilesSettings, Plugins
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault
from orchestratord.plugin.long_work import Breathe, no_breath
from orchestratord.plugin.registry import Registry
from orchestratord.values.json_body import is_larger
from orchestratord.values.redact import Redactor

DAEMON_FILE = "orchestratord.yaml"
_HOOK, _HOOK_OF_ALL = "check_endpoint", "check_config"


@dataclass(frozen=True, slots=True)
class Sources:
    """What a configuration is made from.

    Args:
        folder: the config folder.
        host: the plugins, loaded as this folder asks for.
        environ: what references read.
        addresses: the engine's rules; without them, egress rules and literal addresses are not
            checked.
        pretended: gathers the secrets that are not here, which are taken to be good; None: each is
            an error.
    """

    folder: Path
    host: Host
    environ: Mapping[str, str]
    addresses: AddressRules | None
    pretended: set[str] | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A snapshot, what its references stood for when it was made, and the files."""

    config: Config
    references: Mapping[str, str]
    files: Files


def load(
    folder: Path,
    host: Host,
    *,
    environ: Mapping[str, str] = os.environ,
    addresses: AddressRules | None = None,
    pretended: set[str] | None = None,
) -> Config:
    """Read the folder. The arguments are those of `Sources`.

    Raises:
        ConfigError: with every error of every file, in the order of the files, and then with every
            warning.
    """
    with uncollected():
        return read(Sources(folder, host, environ, addresses, pretended), Cache()).config


def read(
    sources: Sources,
    cache: Cache,
    breathe: Breathe = no_breath,
    instead: Mapping[str, bytes] = MappingProxyType({}),
    given: Files | None = None,
) -> Reading:
    """Read a folder that is read again and again.

    `cache` has what the reading before has made. `breathe` is called every now and then, for other
    threads to have their turn. `instead` has what some of the files are taken to hold; `given` are
    the files to take for those of the folder.
    """
    try:
        files = given or read_folder(sources.folder, cache.files, breathe)
        kinds = sources.host.registry.references
        references = References(
            sources.environ, sources.folder, sources.pretended, kinds, files.referred
        )
        if not instead:
            cache.digest = files.whole
        files.contents.update(instead)
        try:
            return _FolderReader(sources, files, references, cache, breathe).read()
        finally:
            # Good or bad: what was named is what a change can mend or break.
            cache.files.attached = frozenset(references.files)
            if not instead:
                cache.digest = combined(files.digest, references.files)
    finally:
        cache.close(breathe)


@contextmanager
def uncollected(*, freeze: bool = False) -> Iterator[None]:
    """Keep the garbage collector away from what is built in here: very much, and no garbage.

    Args:
        freeze: also afterwards, for what is to stay. The collector would stop everything for as
            long as it takes to walk a million objects, again and again, and find nothing to do:
            there are no cycles in a configuration, and what is not in use any more is freed all the
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


class _FolderReader:
    """Makes one snapshot of the files.

    Args:
        sources: what it is made from.
        files: those of the folder.
        references: resolve what the files refer to.
        cache: what the reading before has made.
        breathe: called between two endpoints, for other threads to have their turn.
    """

    def __init__(
        self,
        sources: Sources,
        files: Files,
        references: References,
        cache: Cache,
        breathe: Breathe,
    ) -> None:
        self._files = files
        self._folder, self._host = sources.folder, sources.host
        self._environ = sources.environ
        self._references = references
        self._cache = cache
        self._breathe = breathe
        self._problems = Problems()
        self._problems.extend(files.problems)
        self._reader = NodeReader(references, sources.host.registry, self._problems)
        self._shared = SharedReader(self._reader, sources.addresses, cache)
        self._endpoint_reader = EndpointReader(self._shared)
        self._apis: dict[str, Inherited] = {}

    def read(self) -> Reading:
        """The snapshot, with all warnings. Raises ConfigError, with all errors as well."""
        files, reader = self._files, self._reader
        settings, of_plugins, defaults = self._daemon_file()
        if settings is not None:
            self._check_plugins(settings.plugins)
        allow = settings.egress.allow if settings is not None else ()
        for api, file in files.apis.items():
            self._apis[api] = self._api(api, file, defaults, allow)
        endpoints = self._endpoints()
        apis = {name: item.api for name, item in self._apis.items() if item.api}
        redactor = Redactor(reader.secrets, reader.hosts)
        config = Config(
            folder=self._folder,
            daemon=settings or DaemonSettings.model_validate({}),
            apis=MappingProxyType(apis),
            endpoints=MappingProxyType(endpoints),
            redactor=redactor,
            digest=combined(files.digest, self._references.files),
            files=tuple(sorted(files.contents)),
            settings=of_plugins,
            guards=defaults.guards,
        )
        self._check_file_folders(config.daemon.files)
        self._check_sizes(config)
        self._check_with_plugins(config)
        problems = self._problems.sorted(redactor, files.contents)
        if self._problems.errors:
            raise ConfigError(problems)
        return Reading(replace(config, warnings=problems), reader.references, files)

    def _content(self, file: str | None) -> bytes | None:
        return self._files.contents.get(file or "")

    def _document(self, file: str | None, missing: str = "") -> YamlDocument:
        found = _document(self._files, file, missing)
        self._problems.extend(replace(problem, unread=True) for problem in found.problems)
        return found

    def _daemon_file(self) -> DaemonFile:
        file = self._files.daemon
        daemon_reader = DaemonReader(self._shared, self._folder, self._environ)
        return self._cache.part(
            DAEMON_FILE,
            (self._content(file),),
            self._reader,
            lambda: daemon_reader.read(self._document(file, DAEMON_FILE)),
        )

    def _check_plugins(self, plugins: Plugins) -> None:
        # Apart from the file, which is not read again as long as it is the same: folders go and
        # come.
        file = self._files.daemon
        spot, root = Spot(file or DAEMON_FILE, 1, 1, ""), root_of(self._files, file)
        found = plugin_problems(plugins, self._host, self._folder, spot, root)
        self._problems.extend(found)

    def _api(
        self, api: str, file: str | None, defaults: Inherited, allow: tuple[str, ...]
    ) -> Inherited:
        missing = f"apis/{api}/api.yaml"
        return self._cache.part(
            missing,
            (self._content(file), defaults, allow),
            self._reader,
            lambda: self._shared.api(api, self._document(file, missing), defaults, allow),
        )

    def _endpoints(self) -> dict[str, Endpoint]:
        endpoints: dict[str, Endpoint] = {}
        for identity, file in self._files.endpoints.items():
            sources = (self._content(file), self._apis[identity.partition("/")[0]])
            make = partial(self._endpoint, identity)
            found = self._cache.part(identity, sources, self._reader, make)
            if found.endpoint is not None:
                endpoints[identity] = found.endpoint
            self._breathe()
        return endpoints

    def _endpoint(self, identity: str) -> _ReadFile:
        file, problems, blocks = self._files.endpoints[identity], self._problems, self._cache.blocks
        if file not in self._files.contents:
            return _ReadFile(None, None)
        mark, content = problems.mark(), self._files.contents[file]
        # A file that is the same is not parsed again because what it inherits has changed.
        earlier: _ReadFile | None = self._cache.earlier(identity, content)
        cut = (earlier and earlier.cut) or blocks.read(file, content)
        declared = self._read(identity, cut.document)
        if cut.known and problems.errors > mark[1]:
            problems.back_to(mark)
            declared = self._declared(identity)
        else:
            found = problems.since(mark[0])
            if cut.known and found:
                problems.back_to(mark)
                problems.extend(map(cut.placed, found))
            if earlier is None:
                wrong = {p.key.partition(".")[0] for p in found if p.severity == "error"}
                if all(p.key != "type" for p in found):  # or nothing has looked at the type's keys
                    blocks.learn(cut, wrong)
        return _ReadFile(declared.endpoint if declared else None, replace(cut, new={}))

    def _declared(self, identity: str) -> Declared | None:
        return self._read(identity, _document(self._files, self._files.endpoints[identity]))

    def _read(self, identity: str, document: YamlDocument) -> Declared | None:
        self._problems.extend(replace(problem, unread=True) for problem in document.problems)
        inherited = self._apis[identity.partition("/")[0]]
        return self._endpoint_reader.read(identity, document, inherited)

    def _check_file_folders(self, files: FilesSettings) -> None:
        """No folder of `files` holds what references read, such as `${file:/path}`."""
        for folder in {*files.read, *files.write}:
            for path in self._references.files:
                if not Path(path).resolve().is_relative_to(Path(folder).resolve()):
                    continue
                file = self._files.daemon
                spot, root = Spot(file or DAEMON_FILE, 1, 1, ""), root_of(self._files, file)
                message = f"{folder} holds {path}, which the configuration reads"
                KeyProblems(self._problems, spot, root).error(message, "files")

    def _check_sizes(self, config: Config) -> None:
        """A schedule's calls are no larger than others."""
        for identity, endpoint in config.endpoints.items():
            given = endpoint.schedule.params if endpoint.schedule is not None else {}
            if not is_larger(given, most := config.daemon.max_params):
                continue
            found = Problem(TOO_LARGE.format(most), key="schedule.params")
            if (declared := self._declared(identity)) is not None:
                contents = self._files.contents
                self._problems.add(_placed(found, declared.spot, declared.node, contents))

    def _check_with_plugins(self, config: Config) -> None:
        """Ask each plugin about each of the endpoints, which are those that are good so far."""
        host = self._host
        spot, root = Spot(self._files.daemon or DAEMON_FILE, 1, 1, ""), None
        here = [p for p in self._problems.since(0) if p.file == spot.file and p.severity == "error"]
        wrong = host.registry.daemon_settings.keys() & {p.key.partition(".")[0] for p in here}
        # A plugin takes a key of its own that has errors for one that is missing.
        misled = {plugin for _, plugin, own in host.registry.all_settings() if own.key in wrong}
        for plugin, answer in host.ask(_HOOK_OF_ALL, {"config": config}):
            for problem in self._problems_among(answer, plugin, _HOOK_OF_ALL):
                root = root or root_of(self._files, self._files.daemon)
                self._problems.add(_placed(problem, spot, root, self._files.contents))
        if host.compiled(_HOOK) is None:
            return
        inherited: set[Problem] = set()
        """What many endpoints may inherit, and the first one is told of."""
        for identity, endpoint in config.endpoints.items():
            self._breathe()
            for plugin, answer in host.ask(_HOOK, {"endpoint": endpoint, "config": config}):
                found = () if plugin in misled else answer
                for problem in self._problems_among(found, plugin, _HOOK):
                    # Read once more, for the places in its files.
                    item, placed = self._declared(identity), problem
                    if item is not None:
                        placed = _placed(problem, item.spot, item.node, self._files.contents)
                    if placed.file != endpoint.source:
                        message = placed.message.partition(endpoint.source)[0]
                        one = replace(placed, message=message)
                        if problem.own or one in inherited:
                            continue
                        inherited.add(one)
                    self._problems.add(placed)

    def _problems_among(
        self, answer: Iterable[object], plugin: str, hook: str
    ) -> Iterator[Problem]:
        """What a hook found; all else that it returned is its fault."""
        for problem in answer:
            if isinstance(problem, Problem):
                yield problem
            else:
                fault = HookFault(f"returned a {type(problem).__name__} among its problems")
                self._host.fault(plugin, hook, fault)


class _ReadFile(NamedTuple):
    """What came of an endpoint's file, and how it was parsed."""

    endpoint: Endpoint | None
    cut: CutDocument | None


def _placed(problem: Problem, spot: Spot, node: Node, contents: Mapping[str, bytes]) -> Problem:
    """The problem with its file, line and column, unless the plugin found these itself."""
    if problem.file:
        return problem
    spot, node, skipped = locate(spot, node, problem.key.split(".") if problem.key else ())
    for part in skipped:
        spot = spot.below(part)
    if problem.offset is not None and isinstance(node, Scalar) and spot.file in contents:
        spot = passage(spot, node.text, problem.offset, lines_of(contents[spot.file]))
    return replace(problem, file=spot.file, line=spot.line, column=spot.column, key=spot.key)


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
    reader = NodeReader.quiet(Registry(), os.environ)
    spot, node = document.root.entries.get("plugins", (document.spot, MapNode()))
    return Plugins(**reader.read(spot, node, Plugins).fields)


def read_settings(folder: Path, host: Host, environ: Mapping[str, str]) -> DaemonSettings | None:
    """What `orchestratord.yaml` says, though other files, or plugins, be wrong; None where it is
    wrong itself."""
    files = read_daemon_file(folder)
    document = _document(files, files.daemon, DAEMON_FILE)
    if document.root is None:
        return None
    reader = NodeReader.quiet(host.registry, environ, folder)
    known = document.root.only(fields_of(DaemonSettings))
    settings: DaemonSettings | None = reader.read(document.spot, known, DaemonSettings).value
    return settings
