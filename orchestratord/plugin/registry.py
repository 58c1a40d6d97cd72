"""What plugins registered, and what is known of each plugin."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal, NoReturn

from orchestratord.errors import Conflict, PluginError
from orchestratord.model.backoff import Backoff, Fixed
from orchestratord.model.edit import Editor
from orchestratord.model.endpoint import OWN_ENDPOINT, Api, Endpoint, Setting
from orchestratord.model.settings import Config, DaemonSetting, DaemonSettings
from orchestratord.model.task import Effect, RowKind, Table
from orchestratord.plugin.background_service import ServiceState
from orchestratord.plugin.doctor_check import Check
from orchestratord.plugin.executor import Executor
from orchestratord.plugin.function_check import check_function, check_functions
from orchestratord.plugin.metric import Counter, Gauge
from orchestratord.plugin.verb_row import VerbRow

MAX_REGISTERED = 10_000
"""Of each kind, by one plugin; a generator need not end."""

CORE = "orchestratord"
"""The owner of what no plugin brings."""

_CORE_KEYS = {
    "type", "timeout", "retry", "idempotent", "enabled", "params", "schedule", "tests",
    "partition", *Api.model_fields,
} - {"name"}  # fmt: skip
_DAEMON_KEYS = {*DaemonSettings.model_fields, "defaults"}
_DAEMON_KEY = "key of orchestratord.yaml"
CORE_TABLES = (
    "actions attempts batch_members batches bulks chores commits daemons endpoint_state meta "
    "orchestratord_outbox rates retry_schedule runs schedules schema "
    "schema_migration task_counts throttles"
).split()
"""Those of the queue."""
_RESERVED = ("sqlite_", "pg_")
"""Names that begin so the databases keep for themselves."""
REFERENCE_KINDS = ("secret", "file", "credential")
"""Those of `${kind:…}` that no plugin brings."""
Reference = Callable[[str], str]
"""What `${kind:path}` stands for, by its path. Raises ValueError, with the reason."""
_REFERENCE = "kind of reference"
_KIND = re.compile("[a-z]{1,16}")
_DISABLED = "is disabled"
ChoreStep = Callable[[str], Awaitable[Iterable[Effect]]]
"""What follows from a chore, by its data."""
CHORE = "kind of chore"
"""What a plugin claims for each of its steps."""
DISABLED = "the plugin {} is disabled; take it out of plugins.disabled"


@dataclass(slots=True)
class PluginInfo:
    """What is known of one plugin. `status` is `loaded`, `disabled` or `failed`."""

    name: str
    version: str
    source: str
    """`entry point`, or the file."""
    status: Literal["loaded", "disabled", "failed"] = "loaded"
    hooks: tuple[str, ...] = ()
    error: str | None = None
    """Why it cannot be loaded."""
    line: int | None = None
    """Where in its file that is, if it is known."""
    faults: int = 0
    last_fault: str | None = None
    home: str = ""
    """The package that brings it, with its version, or its file."""
    requires: str = ""
    """Which orchestratord its package asks for, as in `orchestratord>=1.2`."""
    services: dict[str, ServiceState] = field(default_factory=dict)
    """What it has beside the worker, by name."""

    @property
    def shipped(self) -> bool:
        """Whether it came with orchestratord: in its package, or as one of its objects."""
        return self.home.partition(" ")[0] in (CORE, "")


def _refusing(why: str) -> Editor:
    def refuse(*args: Any, **named: Any) -> NoReturn:
        raise Conflict(f"the file cannot be edited here: {why}")

    return Editor(refuse, refuse)


_NO_EDITOR = CORE, _refusing("no plugin does that")


@dataclass(slots=True)
class Registry:
    """What plugins registered. The `disabled_` names are those of plugins that are switched off."""

    settings: dict[str, Setting[Any]] = field(default_factory=dict)
    daemon_settings: dict[str, DaemonSetting[Any]] = field(default_factory=dict)
    backoffs: dict[str, type[Backoff]] = field(default_factory=dict)
    executors: list[Executor] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)
    references: dict[str, Reference] = field(default_factory=dict)
    chores: dict[str, ChoreStep] = field(default_factory=dict)
    """By the kinds of `NewChore`."""
    checks: list[tuple[str, Check]] = field(default_factory=list)
    """Each with its plugin."""
    metrics: list[tuple[str, Counter | Gauge]] = field(default_factory=list)
    """Each with its plugin."""
    verbs: dict[str, list[VerbRow]] = field(default_factory=dict)
    """What each plugin adds to `orchestratorctl`, or would."""
    editor: tuple[str, Editor] = _NO_EDITOR
    """With its plugin."""
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    """Of each plugin the package that brings it, or its file."""
    row_kinds: defaultdict[str, dict[RowKind, tuple[bool, ...]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """The kinds of rows that plugins wrote and may write: of each value, whether it is a text."""
    absent: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Of each plugin that is not in force: why, and whether it decides about attempts."""
    disabled_keys: dict[str, str] = field(default_factory=dict)
    """Key of the YAML → the disabled plugin."""
    disabled_daemon_keys: dict[str, str] = field(default_factory=dict)
    """Key of `orchestratord.yaml` → the disabled plugin."""
    disabled_backoffs: dict[str, str] = field(default_factory=dict)
    disabled_types: dict[str, str] = field(default_factory=dict)
    words_of_failed: dict[str, str] = field(default_factory=dict)
    """Words in the text of plugins that cannot be loaded, which may be names → the plugin."""

    def __post_init__(self) -> None:
        for key in _CORE_KEYS:
            self.claim("key", key, CORE)
        for key in _DAEMON_KEYS:
            self.claim(_DAEMON_KEY, key, CORE)
        for kind in REFERENCE_KINDS:
            self.claim(_REFERENCE, kind, CORE)
        self.claim("backoff", "fixed", CORE)
        self.backoffs["fixed"] = _named(Fixed, "fixed")

    def claim(self, what: str, name: str, plugin: str) -> None:
        """Give `name` to `plugin`. Raises PluginError where it is given already."""
        if (owner := self.owners.get((what, name))) is not None:
            remedy = "choose another name, or name one of the two in plugins.disabled"
            raise PluginError(f"{self.taken(f'the {what} {name!r}', owner, plugin)}; {remedy}")
        self.owners[what, name] = plugin

    def taken(self, what: str, owner: str, plugin: str) -> PluginError:
        """The error that `plugin` registers what `owner` has: says of which package, or in which
        file, both are."""
        if owner == plugin:
            return PluginError(f"{what} is registered by {owner} twice")
        homes = [f"{one}: {self.homes[one]}" for one in (owner, plugin) if one in self.homes]
        where = f" ({', '.join(homes)})" if homes else ""
        return PluginError(f"{what} is registered by {owner} and by {plugin}{where}")

    def add(self, plugin: Any, name: str) -> None:
        """Take up all that a plugin registers. Raises PluginError for a name given twice."""
        for setting in _registered(plugin, "register_settings", Setting):
            self.claim("key", setting.key, name)
            self.settings[setting.key] = setting
        for own in _registered(plugin, "register_daemon_settings", DaemonSetting):
            self.claim(_DAEMON_KEY, own.key, name)
            self.daemon_settings[own.key] = own
        for strategy, class_ in _mapping(plugin, "register_backoff").items():
            self.claim("backoff", strategy, name)
            self.backoffs[strategy] = _named(class_, strategy)
        for executor in _registered(plugin, "register_executor", Executor):
            self.claim("executor", _label(executor), name)
            self.executors.append(executor)
        for table in _registered(plugin, "register_tables", Table):
            if table.name.lower() in CORE_TABLES or table.name.lower().startswith(_RESERVED):
                raise ValueError(
                    f"the table {table.name!r} has a name of the queue's; choose another"
                )
            self.claim("table", table.name, name)
            self.tables[table.name] = table
        for kind, reference in _mapping(plugin, "register_references").items():
            check_function(f"the reference {kind!r} is", reference, 1)
            self.claim(_REFERENCE, _word(_REFERENCE, kind), name)
            self.references[kind] = reference
        for kind, step in _mapping(plugin, "register_chores").items():
            self.claim(CHORE, _word(CHORE, kind), name)
            self.chores[kind] = step
        self.checks += ((name, check) for check in _registered(plugin, "register_checks", Check))
        for metric in _registered(plugin, "register_metrics", (Counter, Gauge)):
            begins = name.replace("-", "_")
            if not re.fullmatch(f"{begins}_[a-z0-9_]+", metric.name):
                raise ValueError(f"the metric {metric.name!r} is to begin with {begins}_")
            self.claim("metric", metric.name, name)
            self.metrics.append((name, metric))
        self.verbs[name] = _registered(plugin, "register_verbs", VerbRow)
        for verb in self.verbs[name]:
            self.claim("verb", verb.name, name)
        for editor in _registered(plugin, "register_editor", Editor):
            self.claim("hook", "register_editor", name)
            self.editor = name, editor
        for executor in self.executors:
            for key in _keys(executor.model) & self.settings.keys():
                owners = self.owners["executor", _label(executor)], self.owners["key", key]
                raise self.taken(f"the key {key!r}", *owners)

    def forget(self, plugin: str) -> None:
        """Take back all that a plugin has registered."""
        self.row_kinds.clear()
        known: dict[str, dict[str, Any]] = {
            "key": self.settings,
            _DAEMON_KEY: self.daemon_settings,
            "backoff": self.backoffs,
            "table": self.tables,
            _REFERENCE: self.references,
            CHORE: self.chores,
        }
        for (what, name), owner in list(self.owners.items()):
            if owner == plugin:
                del self.owners[what, name]
                known.get(what, {}).pop(name, None)
        self.verbs.pop(plugin, None)
        self.checks = [item for item in self.checks if item[0] != plugin]
        self.metrics = [item for item in self.metrics if item[0] != plugin]
        if self.editor[0] == plugin:
            self.editor = _NO_EDITOR
        self.executors = [
            item for item in self.executors if ("executor", _label(item)) in self.owners
        ]

    def remember_failed(self, name: str, why: str, words: Iterable[str], *, decides: bool) -> None:
        """Know a plugin that could not be asked for its names by the words of its text."""
        self.absent[name] = why, decides
        self.words_of_failed |= dict.fromkeys(words, name)
        said = partial(_absent_reference, f"the plugin {name} {why}")
        self.references = dict.fromkeys(filter(_KIND.fullmatch, words), said) | self.references

    def absent_owner(self, name: str, names: Mapping[str, str]) -> tuple[str, str, bool] | None:
        """The plugin that is not in force and has this name, among these `names` of disabled ones
        or in its text; why, and whether it decides about attempts. None if there is none."""
        plugin = names.get(name) or self.words_of_failed.get(name)
        return None if plugin is None else (plugin, *self.absent.get(plugin, (_DISABLED, False)))

    def remember_disabled(self, plugin: Any, name: str, *, decides: bool = False) -> None:
        """Only know what a plugin would register, so that the YAML that names it is accepted."""
        self.absent[name] = _DISABLED, decides
        settings = _registered(plugin, "register_settings", Setting)
        executors = _registered(plugin, "register_executor", Executor)
        self.disabled_keys |= {setting.key: name for setting in settings}
        own = _registered(plugin, "register_daemon_settings", DaemonSetting)
        self.disabled_daemon_keys |= {setting.key: name for setting in own}
        self.disabled_backoffs |= dict.fromkeys(_mapping(plugin, "register_backoff"), name)
        kinds = _mapping(plugin, "register_references")
        self.references |= dict.fromkeys(kinds, partial(_absent_reference, DISABLED.format(name)))
        self.verbs[name] = _registered(plugin, "register_verbs", VerbRow)
        if _registered(plugin, "register_editor", Editor) and self.editor[0] == CORE:
            self.editor = CORE, _refusing(DISABLED.format(name))
        self.disabled_types |= {e.type: name for e in executors if e.kind == "call"}

    def all_settings(self) -> Iterator[tuple[str, str, Setting[Any] | DaemonSetting[Any]]]:
        """Each key of a plugin's, with the hook that it came by, and the plugin."""
        for key, setting in self.settings.items():
            yield "register_settings", self.owners["key", key], setting
        for key, own in self.daemon_settings.items():
            yield "register_daemon_settings", self.owners[_DAEMON_KEY, key], own

    def counters(self) -> dict[str, Counter]:
        """Those of all plugins, by their names."""
        return {one.name: one for _, one in self.metrics if isinstance(one, Counter)}

    def gauges_of_all(self) -> dict[str, tuple[str, Gauge]]:
        """Those to which each worker has something to say, by their names, with their plugins."""
        gauges = ((plugin, one) for plugin, one in self.metrics if isinstance(one, Gauge))
        return {one.name: (plugin, one) for plugin, one in gauges if one.workers != "first"}

    def call_executors(self) -> dict[str, Executor]:
        """`type` of an endpoint → its executor."""
        return {item.type: item for item in self.executors if item.kind == "call"}

    def is_immediate(self, type_: str) -> bool:
        """Whether nothing is sent for the calls of an endpoint of this type."""
        executor = self.executor("call", type_)
        return executor is not None and executor.immediate

    def owner_of(self, executor: Executor) -> str:
        """The plugin that registered an executor."""
        return self.owners.get(("executor", _label(executor)), CORE)

    def executor(self, kind: str, type_: str) -> Executor | None:
        """The executor of a task of this kind for an endpoint of this type; of a delivery, unless
        one is for that type, the one for all types or without endpoints of its own."""
        mine = {item.type: item for item in self.executors if item.kind == kind}
        if kind == "call" or type_ in mine:
            return mine.get(type_)
        return mine.get("") or next((one for one in mine.values() if not one.own_endpoints), None)

    @property
    def own_endpoints(self) -> set[str]:
        """The endpoints that no file declares: that of the daemon itself, and of executors."""
        return {OWN_ENDPOINT, *(name for one in self.executors for name in one.own_endpoints)}

    def own_endpoint(self, endpoint_id: str, config: Config) -> Endpoint | None:
        """The endpoint that an executor brings, and no file declares; None if none does."""
        owner = next((one for one in self.executors if endpoint_id in one.own_endpoints), None)
        return None if owner is None else owner.own_endpoint(endpoint_id, config)


def plain(result: Any) -> Any:
    """The result of a hook that has to be a `def`. Raises TypeError for that of an `async def`."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("it is an `async def`; write a `def`")
    return result


def _absent_reference(why: str, path: str) -> str:
    raise ValueError(why)


def _word(what: str, name: object) -> str:
    if not (isinstance(name, str) and _KIND.fullmatch(name)):
        raise ValueError(f"the {what} {name!r} is not a word of small letters")
    return name


def _registered(plugin: Any, hook: str, type_: Any) -> list[Any]:
    items = list(_call(plugin, hook))
    for item in items:
        if not isinstance(item, type_):
            types = type_ if isinstance(type_, tuple) else (type_,)
            words = " or ".join(one.__name__ for one in types)
            raise TypeError(f"{hook} returned {item!r}, which is no {words}")
        try:
            check_functions(item)
        except TypeError as error:
            raise TypeError(f"{hook} returned {error}") from None
    return items


def _mapping(plugin: Any, hook: str) -> dict[str, Any]:
    return dict(_call(plugin, hook))


def _call(plugin: Any, hook: str) -> Any:
    function: Callable[[], Any] | None = getattr(plugin, hook, None)
    if function is None or getattr(function, "orchestratord_impl", None) is None:
        return ()
    found = plain(function()) or ()
    return found if isinstance(found, Mapping) else islice(found, MAX_REGISTERED)


def _named(class_: type[Backoff], name: str) -> type[Backoff]:
    if not (isinstance(class_, type) and issubclass(class_, Backoff)):
        raise TypeError(f"the backoff {name!r} is not a subclass of orchestratord.Backoff")
    check_function(f"{class_.__name__}.seconds is", class_.seconds, 2)
    class_.name = name
    return class_


def _label(executor: Executor) -> str:
    return f"{executor.kind} {executor.type}".strip()


def _keys(model: Any) -> set[str]:
    fields = model.model_fields if model is not None else {}
    return {info.alias or name for name, info in fields.items()}
