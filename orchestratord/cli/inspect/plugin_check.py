"""What `check` finds wrong with plugins: whatever a daemon would only log, once it is too late.

Their hooks are asked as a daemon asks them at its start, with a stand-in for it, and each fault
that is told of becomes an error.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from orchestratord.engine.retry_delay import base_delay
from orchestratord.errors import NotFound, Problem
from orchestratord.model.settings import Config
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault
from orchestratord.plugin.registry import CORE

MOST_ATTEMPTS = 200
"""For which a strategy is asked for its delays."""
REMEDY = "correct it, or name it in plugins.disabled"


class ControlStandIn:
    """Stands for the daemon where plugins register what it is to serve."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __getattr__(self, name: str) -> Any:
        return self if name not in ("pages", "metrics") else list

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotFound("no daemon runs here")


class PluginFaults(logging.Handler):
    """Gathers what is told of plugins' faults, each once."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder.resolve()
        self._told: dict[tuple[str, str], Problem] = {}

    @property
    def problems(self) -> list[Problem]:
        """The faults so far, as errors; at their places, where their plugins are single files."""
        return list(self._told.values())

    def emit(self, record: logging.LogRecord) -> None:
        plugin, hook = getattr(record, "plugin", None), getattr(record, "hook", "")
        if plugin is None:
            return
        text = str(cast("tuple[Any, ...]", record.args)[2])
        error = record.exc_info[1] if record.exc_info else None
        file, line = self._place(error)
        message = f"the plugin {plugin}: {hook} {text}; {REMEDY}"
        column = None if line is None else 1
        self._told.setdefault((plugin, text), Problem(message, file=file, line=line, column=column))

    def _place(self, error: BaseException | None) -> tuple[str, int | None]:
        """Where a fault came from: the last place in a file below the config folder."""
        frames = traceback.extract_tb(error.__traceback__) if error is not None else []
        for frame in reversed(frames):
            path = Path(frame.filename).resolve()
            if path.is_relative_to(self._folder):
                return str(path.relative_to(self._folder)), frame.lineno
        return "", None


@contextmanager
def plugin_faults(folder: Path) -> Iterator[PluginFaults]:
    """Gather the faults that plugins of this folder are logged with."""
    log, faults = logging.getLogger("orchestratord.plugins"), PluginFaults(folder)
    log.addHandler(faults)
    try:
        yield faults
    finally:
        log.removeHandler(faults)


async def _ask_all(host: Host, config: Config) -> None:
    """Have plugins register what a daemon would serve."""
    from pydantic import TypeAdapter

    from orchestratorctl.verb_table import VERBS
    from orchestratord.api.plugin_pages import contained_status
    from orchestratord.api.route_paths import ROUTES
    from orchestratord.cli.main import PLACES
    from orchestratord.plugin import served

    control: Any = ControlStandIn(config)
    pages = [page for _, page in served.plugin_pages(host, control)]
    control.pages = lambda: pages  # the dashboard makes routes of them
    for found in (
        served.plugin_routes(host, control, ROUTES),
        served.plugin_metrics(host),
        served.plugin_services(host, control),
        contained_status(host, control),
        served.plugin_ports(host, control),
        served.plugin_commands(host, PLACES),
    ):
        list(found)
    ours = {verb.name for verb in VERBS}
    for plugin, verbs in host.registry.verbs.items():
        for taken in [verb.name for verb in verbs if verb.name in ours]:
            words = f"the verb {taken!r} is registered by {CORE} and by {plugin}"
            host.fault(plugin, "register_verbs", HookFault(words))
    for hook, plugin, setting in host.registry.all_settings():
        try:
            TypeAdapter(setting.type)
        except Exception as error:
            words = str(error).partition("\n")[0]
            fault = HookFault(f"returned {setting.key}, whose type is none: {words}")
            host.fault(plugin, hook, fault)


def ask_once(host: Host, config: Config) -> None:
    """Have strategies say their delays, and plugins register what a daemon would serve.

    Plugins that came with orchestratord are not asked by themselves: they fit together, and asking
    them imports the API and the dashboard, which takes longer than the rest of `check`.
    """
    policies = {id(one.retry.backoff): one.retry for one in config.endpoints.values()}
    for policy in policies.values():
        for n in range(1, min(policy.max_attempts, MOST_ATTEMPTS)):
            base_delay(policy, n, host.backoff_fault)
    if not all(plugin.shipped for plugin in host.plugins.values()):
        asyncio.run(_ask_all(host, config))
