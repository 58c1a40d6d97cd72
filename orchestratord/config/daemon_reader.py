"""orchestratord.yaml: the daemon's own settings, and the defaults of all endpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from orchestratord.config.database_url import database_url
from orchestratord.config.inherit import Inherited, SharedReader
from orchestratord.config.validate.bind_address import host_problem, parse_bind
from orchestratord.config.validate.file_folders import STATE, check_folders
from orchestratord.config.validate.problems import KeyProblems
from orchestratord.config.validate.shapes import fields_of
from orchestratord.config.validate.socket_path import length_problem, socket_path
from orchestratord.config.yaml.document import YamlDocument
from orchestratord.config.yaml.nodes import MapNode, is_null, mapping_of
from orchestratord.config.yaml_keys import ApiKeys
from orchestratord.model.settings import DaemonSettings, FilesSettings, Http, ports_of
from orchestratord.queue.postgres.postgres_url import may_lead_to_standby, problem

_DATABASE = re.compile(r"sqlite:///(?!/*$)[^?#]+")
_POSTGRES = re.compile(r"postgres(ql)?://\S*")
_TOKEN = re.compile(r"[!-~]+")
SHORTEST_TOKEN = 16
"""Characters; a shorter one can be guessed."""
SHORTEST_LEASE = 3.0
"""Seconds; it is renewed every third of it."""


class DaemonFile(NamedTuple):
    """What orchestratord.yaml says."""

    settings: DaemonSettings | None
    """None where they have errors."""
    plugins: Mapping[str, Any]
    """The keys of plugins, where they are good."""
    defaults: Inherited


class DaemonReader:
    """Reads orchestratord.yaml."""

    def __init__(self, shared: SharedReader, folder: Path, environ: Mapping[str, str]) -> None:
        """`folder` is the config folder, and `environ` the daemon's environment."""
        self._shared = shared
        self._reader = shared.reader
        self._folder, self._environ = folder, environ
        self._problems = shared.reader.problems

    def read(self, document: YamlDocument) -> DaemonFile:
        """The settings, those of plugins, and what `defaults` gives."""
        root, spot = document.root, document.spot
        if root is None:
            return DaemonFile(None, {}, self._shared.defaults(spot, None))
        place, node = root.entries.get("defaults", (spot, None))
        defaults = self._shared.defaults(place, node)
        known = self._known(root)
        settings, _, fields = self._reader.read(spot, known, DaemonSettings)
        keys = KeyProblems(self._problems, spot, known)
        of_plugins = self._of_plugins(root, fields.get("http"))
        self._check(fields, keys)
        return DaemonFile(settings, of_plugins, defaults)

    def _known(self, root: MapNode) -> MapNode:
        keys, registry = fields_of(DaemonSettings), self._reader.registry
        known = {*keys, "defaults", *registry.daemon_settings}
        elsewhere = dict.fromkeys(
            fields_of(ApiKeys), "unknown key here; it belongs in an API's api.yaml"
        )
        disabled = registry.disabled_daemon_keys
        return self._shared.known_keys(root, known, disabled, elsewhere).only(keys)

    def _of_plugins(self, root: MapNode, http: Http | None) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        taken = {}
        if http is not None:
            with suppress(ValueError):  # which is told of where the rest of `http` is checked
                taken[parse_bind(http.bind)] = "http"
        for key, setting in self._reader.registry.daemon_settings.items():
            spot, node = root.entries.get(key, (None, None))
            if spot is None or node is None or is_null(node):
                continue
            value = self._reader.read(spot, node, setting.type).value
            for name, port in ports_of({key: value}).items():
                try:
                    place = parse_bind(port.bind)
                    if place[1] and taken.setdefault(place, name) != name:
                        raise ValueError(f"{taken[place]}.bind is the same: change one")
                except ValueError as error:
                    keys = KeyProblems(self._problems, spot, mapping_of(node))
                    keys.error(str(error), *name.split(".")[1:], "bind")
            if value is not None:
                found[key] = value
        return MappingProxyType(found)

    def _check(self, fields: Mapping[str, Any], keys: KeyProblems) -> None:
        for key in ("database", "control_socket"):
            keys.no_template("write ${secret:NAME}, or the value itself", key)
        database = fields.get("database")
        if database is not None and _POSTGRES.fullmatch(database):
            if (wrong := problem(database)) is not None:
                keys.error(wrong, "database")
            elif may_lead_to_standby(database):
                keys.warn(
                    "may lead to a standby, which takes no tasks: write "
                    "target_session_attrs=read-write",
                    "database",
                )
        elif database is not None and not _DATABASE.fullmatch(database):
            keys.error(
                "expected sqlite:////absolute/path, sqlite:///path below the config folder, or "
                "postgresql://user@host/database",
                "database",
            )
        if "control_socket" in fields:
            named = fields["control_socket"]
            wrong = length_problem(socket_path(named, self._folder, self._environ))
            if wrong is not None:
                keys.error(wrong, "control_socket")
        if fields.get("lease", SHORTEST_LEASE) < SHORTEST_LEASE:
            keys.error(f"must be at least {SHORTEST_LEASE:g}s", "lease")
        if "egress" in fields:
            self._shared.request_rules.check_allow(fields["egress"].allow, keys)
        if "files" in fields:
            self._check_files(fields, keys)
        if fields.get("http") is not None:
            _check_http(fields["http"], keys)
        if "plugins" in fields and fields["plugins"].timeout <= 0:
            keys.error("must be more than 0", "plugins", "timeout")

    def _check_files(self, fields: Mapping[str, Any], keys: KeyProblems) -> None:
        database = database_url(fields.get("database"), self._folder, self._environ)
        socket = socket_path(fields.get("control_socket"), self._folder, self._environ)
        kept = {str(self._folder.absolute()): "the configuration", str(socket.parent): STATE}
        if credentials := self._environ.get("CREDENTIALS_DIRECTORY"):
            kept[credentials] = "credentials"
        if database.startswith("sqlite:"):
            kept[str(Path(database.removeprefix("sqlite:///")).parent)] = STATE
        elif fields["files"] != FilesSettings():
            keys.warn("each daemon that works on the queue has to have these folders", "files")
        check_folders(fields["files"], keys, kept)


def _check_http(http: Http, keys: KeyProblems) -> None:
    try:
        address, _ = parse_bind(http.bind)
    except ValueError as error:
        keys.error(str(error), "http", "bind")
    else:
        if not address.is_loopback:
            message = (
                "nothing encrypts the traffic here, tokens included: bind 127.0.0.1, and put a "
                "proxy with TLS before it"
            )
            keys.warn(message, "http", "bind")
        if address.is_unspecified and not http.hosts:
            message = "write into http.hosts the names that browsers reach the daemon by"
            keys.warn(message, "http", "bind")
    for index, host in enumerate(http.hosts):
        if (wrong := host_problem(host)) is not None:
            keys.error(wrong, "http", "hosts", index)
    for name, token in (("token", http.token), ("read_token", http.read_token)):
        if token is None:
            continue
        if not _TOKEN.fullmatch(token.reveal()):
            keys.error("expected letters, digits and signs of ASCII", "http", name)
        elif len(token.reveal()) < SHORTEST_TOKEN:
            message = f"needs {SHORTEST_TOKEN} or more characters; a shorter one can be guessed"
            keys.error(message, "http", name)
    if http.read_token == http.token:
        keys.error("must differ from token", "http", "read_token")
