"""What plugins have the daemon serve, and run beside it: each hook asked once, its answers checked.

What is none of what it should be, or has what another plugin has, is its plugin's fault and is left
out. `check` asks the same without a daemon, so nothing is imported here that only serves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from orchestratord.errors import PluginError
from orchestratord.plugin.background_service import Service
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault, check_service
from orchestratord.plugin.route import Control, Page, PortHandler, Route

ROUTES, PORTS, PAGES = "register_routes", "register_ports", "register_pages"
SERVICES = "register_services"
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
    owners = {(method, _PARAMETER.sub("{}", path)): "orchestratord" for method, path in taken}
    for plugin, routes in host.ask(ROUTES, {"control": control}):
        for route in routes:
            if not _is_sound(route):
                host.fault(plugin, ROUTES, HookFault(f"returned {route!r}, which is no route"))
                continue
            key = route.method, _PARAMETER.sub("{}", route.path)
            if (owner := owners.get(key)) is not None:
                other = "twice" if owner == plugin else f"and by {plugin}"
                text = f"{route.method} {route.path} is registered by {owner} {other}"
                host.fault(plugin, ROUTES, PluginError(text))
                continue
            owners[key] = plugin
            yield plugin, route
    for plugin, verbs in host.registry.verbs.items():
        for verb in verbs if host.plugins[plugin].status == "loaded" else ():
            if (verb.method, _PARAMETER.sub("{}", verb.path)) not in owners:
                text = f"returned {verb.name}, which asks {verb.method} {verb.path}: no such route"
                host.fault(plugin, "register_verbs", HookFault(text))


def _is_sound(route: Any) -> bool:
    from starlette.routing import compile_path

    try:
        compile_path(route.path)
        return isinstance(route, Route) and route.path.startswith("/")
    except Exception:
        return False


def plugin_ports(host: Host, control: Control) -> Iterator[tuple[str, PortHandler]]:
    """What answers at the ports of plugins, each with its plugin."""
    owners: dict[str, str] = {}
    for plugin, handlers in host.ask(PORTS, {"control": control}):
        for handler in handlers:
            if not isinstance(handler, PortHandler):
                host.fault(plugin, PORTS, HookFault(f"returned {handler!r}, which is no handler"))
            elif (owner := owners.get(handler.key)) is not None:
                text = f"the port {handler.key} is registered by {owner} and by {plugin}"
                host.fault(plugin, PORTS, PluginError(text))
            else:
                owners[handler.key] = plugin
                yield plugin, handler


def plugin_pages(host: Host, control: Control) -> Iterator[tuple[str, Page]]:
    """The pages of all plugins, each with its plugin."""
    for plugin, found in host.ask(PAGES, {"control": control}):
        for page in found:
            if isinstance(page, Page) and str(page.path).startswith("/"):
                yield plugin, page
            else:
                host.fault(plugin, PAGES, HookFault(f"returned {page!r}, which is no Page"))


def plugin_services(host: Host, control: Control) -> Iterator[tuple[str, Service]]:
    """The services of all plugins, each with its plugin."""
    for plugin, found in host.ask(SERVICES, {"control": control}):
        names: set[str] = set()
        for one in found:
            try:
                service = check_service(one)
                if service.name in names:
                    raise HookFault(f"returned two services named {service.name}")
            except HookFault as fault:
                host.fault(plugin, SERVICES, fault)
                continue
            names.add(service.name)
            yield plugin, service
