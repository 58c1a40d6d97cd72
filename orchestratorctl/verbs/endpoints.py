"""`endpoints`, `pause` and `resume`."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.client import Client, endpoint_path
from orchestratorctl.failures import OK
from orchestratorctl.render import Column, Painted, compact, fields, table
from orchestratorctl.screen import Screen
from orchestratorctl.webhook_table import declared_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (
    Column("ENDPOINT"),
    Column("STATE"),
    Column("TARGET", cut="middle"),
    Column("SCHEDULE", cut="end"),
    Column("WEBHOOKS", right=True),
)


def endpoints(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Lists the endpoints, or shows one as it is declared and merged."""
    if arguments.id is not None:
        endpoint = client.get(endpoint_path(arguments.id))
        if screen.tables:
            screen.lines(_page(endpoint, screen))
        else:
            screen.data(endpoint)
        return OK
    document = client.get("/v1/endpoints")
    if not screen.tables:
        screen.data(document)
        return OK
    rows = [_row(endpoint) for endpoint in document.get("endpoints") or []]
    if rows:
        screen.lines(table(_COLUMNS, rows, screen))
    else:
        screen.say("No endpoint is declared.")
    return OK


def pause(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Pauses an endpoint."""
    answer = client.post(endpoint_path(arguments.endpoint, "pause"))
    return _switched(
        answer,
        screen,
        f"{arguments.endpoint} is paused: its calls wait, its deliveries go on.",
    )


def resume(client: Client, screen: Screen, arguments: Namespace) -> int:
    """Lets a paused endpoint go on."""
    answer = client.post(endpoint_path(arguments.endpoint, "resume"))
    return _switched(answer, screen, f"{arguments.endpoint} goes on.")


def _switched(answer: dict[str, Any], screen: Screen, words: str) -> int:
    if screen.tables:
        screen.say(words)
    else:
        screen.data(answer)
    return OK


def _row(endpoint: dict[str, Any]) -> list[str | Painted]:
    return [
        compact(endpoint.get("id")),
        _state(endpoint),
        _target(endpoint),
        _schedule(endpoint.get("schedule")),
        str(len(endpoint.get("webhooks") or [])),
    ]


def _state(endpoint: dict[str, Any]) -> Painted:
    if endpoint.get("enabled") is False:
        return Painted("disabled", "dim")
    if endpoint.get("paused"):
        return Painted("paused", "yellow")
    return Painted("enabled", None)


def _target(endpoint: dict[str, Any]) -> str:
    where = endpoint.get("path")
    if where is None:
        statement = endpoint.get("statement")
        return compact(" ".join(str(statement).split()) if statement else endpoint.get("type"))
    return f"{endpoint.get('method') or 'GET'} {compact(where)}"


def _schedule(schedule: Any) -> str:
    if not isinstance(schedule, dict):
        return compact(schedule)
    if schedule.get("cron"):
        return compact(schedule["cron"])
    words = [f"every {compact(schedule['every'])}"] if schedule.get("every") else []
    words += [f"at {compact(schedule['at'])}"] if schedule.get("at") else []
    return " ".join(words) or compact(schedule)


def _page(endpoint: dict[str, Any], screen: Screen) -> list[str]:
    lines = [screen.paint(compact(endpoint.get("id")), "bold"), ""]
    pairs: list[tuple[str, str | Painted]] = [("state", _state(endpoint))]
    pairs += [
        pair
        for key, value in endpoint.items()
        if key not in ("id", "webhooks", "paused", "enabled")
        for pair in _flat(key, value)
    ]
    lines += fields(pairs, screen)
    webhooks = endpoint.get("webhooks")
    if webhooks:
        lines += ["", "Webhooks", *declared_table(webhooks, screen)]
    return lines


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    """A nested declaration as `retry.backoff.delay`, without what is not set."""
    if isinstance(value, dict):
        return [pair for name, inner in value.items() for pair in _flat(f"{key}.{name}", inner)]
    if value is None or value == []:
        return []
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return [(key, ", ".join(compact(item) for item in value))]
    return [(key, compact(value))]
