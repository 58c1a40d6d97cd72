"""What plugins bring for the dashboard and for `/metrics`, kept from harming anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from orchestratord.api.daemon_documents import StatusDocument
from orchestratord.api.serialize import json_bytes
from orchestratord.errors import OrchestratordError, PluginError
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault, call, is_ctrl_c
from orchestratord.plugin.registry import plain
from orchestratord.plugin.route import Control, Page, PageVisit
from orchestratord.plugin.served import plugin_pages, plugin_status


def contained_pages(host: Host, control: Control) -> Iterator[Page]:
    """The pages of all plugins; what one of them does wrong is its plugin's fault."""
    return (_contained(host, plugin, page) for plugin, page in plugin_pages(host, control))


def _contained(host: Host, plugin: str, page: Page) -> Page:
    async def show(visit: PageVisit) -> str:
        try:
            shown = await call(page.show, [visit], host.timeout)
            if not isinstance(shown, str):  # as a Markup is
                raise HookFault(f"returned {type(shown).__name__}, not a Markup or a text")
        except HookFault as fault:
            if isinstance(fault.__cause__, OrchestratordError):
                raise fault.__cause__ from None
            host.fault(plugin, f"page {page.path}", fault)
            raise PluginError(f"the plugin {plugin} failed; the daemon's log says more") from fault
        return shown

    return replace(page, show=show)


STATUS_KEYS = StatusDocument.__annotations__.keys() - {"outbox"}
"""What the status says of the core. `outbox` is described there, so that each answer has it, and is
a plugin's to say."""


def contained_status(host: Host, control: Control) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The parts of the status that are plugins', by their keys; what one of them does wrong is its
    plugin's fault, and its part is null then."""

    def contained(plugin: str, key: str, read: Callable[[], Any]) -> Any:
        try:
            found = plain(read())
            json_bytes(found)
        except BaseException as error:  # a plugin may raise anything
            if is_ctrl_c(error):
                raise
            host.fault(plugin, f"status {key}", error)
            return None
        return found

    for plugin, part in plugin_status(host, control, STATUS_KEYS):
        yield part.key, partial(contained, plugin, part.key, part.read)
