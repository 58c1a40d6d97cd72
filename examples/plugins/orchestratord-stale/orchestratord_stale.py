"""Endpoints without a success for long: noted by a service, shown on a page and by a verb."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import click
from markupsafe import Markup

from orchestratord import (
    Answer,
    ConfigFolder,
    Control,
    Counter,
    DaemonSetting,
    Delete,
    Duration,
    Page,
    PageVisit,
    Route,
    Service,
    Table,
    Upsert,
    VerbRow,
    config_option,
    format_duration,
    hookimpl,
    parse_duration,
    parse_yaml,
    rough_duration,
)

AFTER: DaemonSetting[float] = DaemonSetting("stale_after", Duration, default=86_400.0)
STALE = Table("stale", {"endpoint": "TEXT NOT NULL", "since": "REAL"}, key=("endpoint",))
FOUND = Counter("stale_found", "Endpoints that were found to have had no success for long.")
LOOK = 60.0
"""Seconds between two looks."""
ROW = Markup("<tr><td>{}</td><td>{}</td></tr>")


async def look(control: Control) -> None:
    """Note which endpoints have had no success for long, and forget those that have."""
    known = {row["endpoint"] for row in await control.rows(STALE.name)}
    begun, oldest = control.last_successes(), time.time() - control.config[AFTER]
    stale = {name: at for name, at in begun.items() if at < oldest}
    gone = [Delete(STALE.name, {"endpoint": name}) for name in known - stale.keys()]
    new = [Upsert(STALE.name, {"endpoint": n}, {"since": stale[n]}) for n in stale.keys() - known]
    if gone or new:
        await control.write([*gone, *new])
        FOUND.add(by=len(new))


@hookimpl
def register_daemon_settings() -> Iterable[DaemonSetting[float]]:
    return [AFTER]


@hookimpl
def register_tables() -> Iterable[Table]:
    return [STALE]


@hookimpl
def register_metrics() -> Iterable[Counter]:
    return [FOUND]


@hookimpl
def register_services(control: Control) -> Iterable[Service]:
    async def run(stop: asyncio.Event) -> None:
        while not stop.is_set():
            await look(control)
            try:
                async with asyncio.timeout(LOOK):
                    await stop.wait()
            except TimeoutError:
                continue

    return [Service("look", run)]  # once for all daemons: what it writes is everybody's


@hookimpl
def register_pages(control: Control) -> Iterable[Page]:
    async def show(visit: PageVisit) -> Markup:
        found = sorted(await control.rows(STALE.name), key=lambda row: row["since"])
        rows = [ROW.format(one["endpoint"], _ago(one["since"])) for one in found]
        table = Markup("<table><tr><th>Endpoint</th><th>Last success</th></tr>{}</table>")
        return table.format(Markup("").join(rows)) if rows else Markup("<p>None.</p>")

    return [Page("/stale", "Stale", show)]


@hookimpl
def register_routes(control: Control) -> Iterable[Route]:
    async def stale(path: object, query: object, body: object) -> Answer:
        found = sorted(await control.rows(STALE.name), key=lambda row: row["since"])
        rows = [{"endpoint": one["endpoint"], "success": _ago(one["since"])} for one in found]
        return Answer({"stale": rows})

    return [Route("GET", "/v1/stale", stale)]


@hookimpl
def register_verbs() -> Iterable[VerbRow]:
    return [VerbRow("stale", "list the endpoints without a success for long", "/v1/stale")]


@hookimpl
def register_commands() -> Iterable[click.Command]:
    @click.command("stale")
    @config_option
    def stale(config: str | None) -> None:
        """Say after which time an endpoint counts as stale."""
        written = ConfigFolder(config).contents.get("orchestratord.yaml", b"")
        after = (parse_yaml(written) or {}).get(AFTER.key, AFTER.default)
        click.echo(format_duration(parse_duration(after)))

    return [stale]


def _ago(since: float) -> str:
    return f"{rough_duration(time.time() - since)} ago"
