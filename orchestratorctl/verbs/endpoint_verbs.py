"""`endpoints`, `schedules`, `pause` and `resume`."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.argument_types import is_endpoint
from orchestratorctl.console import Console
from orchestratorctl.exit_codes import OK
from orchestratorctl.formats import compact
from orchestratorctl.socket_client import SocketClient, endpoint_path
from orchestratorctl.tables import (
    DECLARED_WEBHOOKS,
    ENDPOINTS,
    SCHEDULES,
    Painted,
    endpoint_state,
    fields,
    show_list,
    table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def endpoints(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists the endpoints, or shows one as it is declared and merged."""
    if arguments.id is not None:
        endpoint = client.get(endpoint_path(arguments.id))
        console.show(endpoint, lambda: _page(endpoint, console))
        return OK
    document = client.get("/v1/endpoints")
    show_list(document, "endpoints", ENDPOINTS, "No endpoint is declared.", console)
    return OK


def schedules(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists the schedules: their next slot, their last one, and those that were missed."""
    nothing = "No endpoint has a schedule."
    show_list(client.get("/v1/schedules"), "schedules", SCHEDULES, nothing, console)
    return OK


def pause(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Pauses an endpoint."""
    answer = client.post(endpoint_path(arguments.endpoint, "pause"))
    sentence = f"{arguments.endpoint} is paused: its calls wait, its deliveries go on."
    console.report(answer, sentence)
    return OK


def resume(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lets a paused endpoint go on, and whatever is throttled."""
    name = arguments.name
    if is_endpoint(name):
        answer = client.post(endpoint_path(name, "resume"))
    else:
        answer = client.post("/v1/resume", {"name": name})
    nothing = answer.get("lifted") is False and "paused" not in answer
    said = f"{name} was not throttled." if nothing else f"{name} goes on."
    if file := answer.get("disabled_in"):
        said = f"{name} stays disabled by `enabled: false` in {file}: take that out there."
    console.report(answer, said)
    return OK


def _page(endpoint: dict[str, Any], console: Console) -> list[str]:
    lines = [console.paint(compact(endpoint.get("id")), "bold"), ""]
    pairs: list[tuple[str, str | Painted]] = [("state", endpoint_state(endpoint))]
    pairs += [
        pair
        for key, value in endpoint.items()
        if key not in ("id", "webhooks", "paused", "enabled")
        for pair in _flat(key, value)
    ]
    lines += fields(pairs, console)
    webhooks = endpoint.get("webhooks")
    if webhooks:
        lines += ["", "Webhooks", *table(DECLARED_WEBHOOKS, webhooks, console)]
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
