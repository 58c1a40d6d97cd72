"""`endpoints`, `schedules`, `pause` and `resume`."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.argument_types import is_endpoint
from orchestratorctl.console import Console
from orchestratorctl.exit_codes import OK, RequestRefused
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
    """Pauses an endpoint, or all of an api."""
    return _set_paused(client, console, arguments.endpoint, "pause")


def resume(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lets a paused endpoint go on, or all of an api, and whatever is throttled."""
    name = arguments.name
    if is_endpoint(name):
        return _set_paused(client, console, name, "resume")
    answer = client.post("/v1/resume", {"name": name})
    console.report(answer, f"{name} {'goes on' if answer.get('lifted') else 'was not throttled'}.")
    return OK


def _set_paused(client: SocketClient, console: Console, name: str, action: str) -> int:
    """Pauses or resumes an endpoint, or with API/* all of the api that the daemon has."""
    ids = [name]
    if name.endswith("/*"):
        known = [one["id"] for one in client.get("/v1/endpoints")["endpoints"]]
        ids = [one for one in known if one.startswith(name[:-1])]
        if not ids:
            raise RequestRefused(404, {}, f"there is no endpoint {name}")
    answers = [client.post(endpoint_path(one, action)) for one in ids]
    if console.tables:
        console.say(*(_said(action, *one) for one in zip(ids, answers, strict=True)))
    else:
        console.data({"endpoints": answers} if name.endswith("/*") else answers[0])
    return OK


def _said(action: str, name: str, answer: dict[str, Any]) -> str:
    if action == "pause":
        return f"{name} is paused: its calls wait, its deliveries go on."
    if file := answer.get("disabled_in"):
        return f"{name} stays disabled by `enabled: false` in {file}: take that out there."
    return f"{name} goes on."


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
