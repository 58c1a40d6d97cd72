"""What plugins have the daemon serve, and run beside it: each hook asked once, its answers checked.

What is none of what it should be, or has what another plugin has, is its plugin's fault and is left
out. `check` asks the same without a daemon, so nothing is imported here that only serves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from orchestratord.plugin.background_service import Service
from orchestratord.plugin.function_check import check_functions
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault, check_service, is_ctrl_c
from orchestratord.plugin.metric import Counter, Gauge, MetricSamples, samples_of
from orchestratord.plugin.registry import CORE
from orchestratord.plugin.route import Control, Page, PortHandler, Route, StatusPart

ROUTES, PORTS, PAGES = "register_routes", "register_ports", "register_pages"
SERVICES, STATUS, COMMANDS = "register_services", "register_status", "register_commands"
_KINDS = {ROUTES: ("route", Route), PORTS: ("handler", PortHandler), COMMANDS: ("Command", str)}
_KINDS |= {PAGES: ("Page", Page), STATUS: ("StatusPart", StatusPart)}
_PARAMETER = re.compile(r"\{[^{}]*\}")


def plugin_routes(
    host: Host, control: Control, taken: Collection[tuple[str, str]]
) -> Iterator[tuple[str, Route]]:
    """The routes of all plugins, each with its plugin.

    Args:
        host: asks them.
        control: what the plugins get to reach the daemon by.
        taken: (method, path) of the core's own routes.
    """
    owners = {_key(f"{method} {path}"): CORE for method, path in taken}
    given = host.ask(ROUTES, {"control": control})
    yield from _served(host, ROUTES, given, "{0.method} {0.path}", owners, _is_path)
    for plugin, verbs in host.registry.verbs.items():
        for verb in verbs if host.plugins[plugin].status == "loaded" else ():
            if _key(asked := f"{verb.method} {verb.path}") not in owners:
                text = f"returned {verb.name}, which asks {asked}: no such route"
                host.fault(plugin, "register_verbs", HookFault(text))


def _is_path(route: Any) -> bool:
    from starlette.routing import compile_path

    try:
        compile_path(route.path)
        return bool(route.path.startswith("/"))
    except Exception:
        return False


def plugin_ports(host: Host, control: Control) -> Iterator[tuple[str, PortHandler]]:
    """What answers at the ports of plugins, each with its plugin."""

    given = host.ask(PORTS, {"control": control})
    return _served(host, PORTS, given, "the port {0.key}", {})


def plugin_pages(host: Host, control: Control) -> Iterator[tuple[str, Page]]:
    """The pages of all plugins, each with its plugin."""

    def is_sound(page: Page) -> bool:
        return str(page.path).startswith("/")

    given = host.ask(PAGES, {"control": control})
    return _served(host, PAGES, given, "the page {0.path}", {}, is_sound)


def plugin_status(
    host: Host, control: Control, taken: Iterable[str]
) -> Iterator[tuple[str, StatusPart]]:
    """What plugins have in the status, each with its plugin. `taken`: the keys of the core."""

    def is_sound(part: StatusPart) -> bool:
        return re.fullmatch("[a-z][a-z0-9_]*", part.key) is not None

    called = "the key {0.key} of the status"
    owners = {f"the key {key} of the status": CORE for key in taken}
    return _served(host, STATUS, host.ask(STATUS, {"control": control}), called, owners, is_sound)


def plugin_commands(host: Host, taken: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The commands of all plugins by their names, each with its plugin. Plugins may share a group,
    but no command within it. `taken`: those of the core."""
    import click

    groups: set[str | None] = set()

    def names_of(found: Iterable[Any]) -> Iterator[Any]:
        for one in found:
            if not isinstance(one, click.Group):
                yield one.name if isinstance(one, click.Command) else one
                continue
            if one.name not in groups:
                groups.add(one.name)
                yield one.name
            yield from (f"{one.name} {part}" for part in one.commands)

    owners = {f"the command {name!r}": CORE for name in taken}
    given = [(plugin, names_of(found)) for plugin, found in reversed(host.ask(COMMANDS, {}))]
    return _served(host, COMMANDS, given, "the command {0!r}", owners)


def _served(
    host: Host,
    hook: str,
    given: Iterable[tuple[str, Iterable[Any]]],
    called: str,
    owners: dict[str, str],
    is_sound: Callable[[Any], bool] = lambda one: True,
) -> Iterator[tuple[str, Any]]:
    """Of what plugins returned all that is sound, and of what is `called` the same the first; the
    host knows what is taken, with which no daemon starts."""
    kind, type_ = _KINDS[hook]
    for plugin, found in given:
        for one in found:
            try:
                if not isinstance(one, type_) or not is_sound(one):
                    raise TypeError(f"{one!r}, which is no {kind}")
                check_functions(one)
            except TypeError as error:
                host.fault(plugin, hook, HookFault(f"returned {error}"))
                continue
            if (owner := owners.get(_key(what := called.format(one)))) is not None:
                host.taken.append(taken := host.registry.taken(what, owner, plugin))
                host.fault(plugin, hook, taken)
            else:
                owners[_key(what)] = plugin
                yield plugin, one


def _key(what: str) -> str:
    """Two paths are the same, whatever their parameters are called."""
    return _PARAMETER.sub("{}", what)


def plugin_metrics(
    host: Host, metrics: Iterable[tuple[str, Counter | Gauge]] | None = None
) -> Iterator[MetricSamples]:
    """Those of all plugins, or of these, as they are now; what cannot be read is a fault."""
    for plugin, metric in host.registry.metrics if metrics is None else metrics:
        try:
            found = samples_of(metric)
        except BaseException as error:  # a plugin may raise anything
            if is_ctrl_c(error):
                raise
            host.fault(plugin, f"metric {metric.name}", error)
        else:
            yield found


def plugin_services(host: Host, control: Control) -> Iterator[tuple[str, Service]]:
    """The services of all plugins, each with its plugin."""
    for plugin, found in host.ask(SERVICES, {"control": control}):
        names: set[str] = set()
        for one in found:
            try:
                service = check_service(one)
                check_functions(service)
                if service.name in names:
                    raise HookFault(f"returned two services named {service.name}")
            except (HookFault, TypeError) as fault:
                host.fault(plugin, SERVICES, fault)
                continue
            names.add(service.name)
            yield plugin, service
