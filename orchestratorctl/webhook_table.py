"""How webhooks look in a table."""

from __future__ import annotations

from collections.abc import Iterable

from orchestratorctl.render import Column, Painted, compact, table
from orchestratorctl.screen import Screen
from orchestratorctl.times import ago

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DECLARED = (
    Column("NAME"),
    Column("PHASE"),
    Column("STATUS CODE"),
    Column("URL", cut="middle"),
    Column("ENABLED"),
)
_HEALTH = (
    Column("ENDPOINT", cut="middle"),
    Column("WEBHOOK", cut="middle"),
    Column("PHASE"),
    Column("ON"),
    Column("URL", cut="middle", spare=True),
    Column("STATE", cut="end"),
    Column("LAST", right=True),
    Column("FAILED", right=True, spare=True),
)


def declared_table(webhooks: Iterable[dict[str, Any]], screen: Screen) -> list[str]:
    """The lines of a table of webhooks as an endpoint declares them."""
    rows = [
        [
            compact(webhook.get("name")),
            compact(webhook.get("phase")),
            codes(webhook.get("status_code")),
            compact(webhook.get("url")),
            "no" if webhook.get("enabled") is False else "yes",
        ]
        for webhook in webhooks
    ]
    return table(_DECLARED, rows, screen)


def webhook_table(webhooks: Iterable[dict[str, Any]], screen: Screen, now: float) -> list[str]:
    """The lines of a table of webhooks and how their deliveries fare at `now`."""
    return table(_HEALTH, [_health_row(webhook, now) for webhook in webhooks], screen)


def codes(value: Any) -> str:
    """The status codes that a webhook fires on, as `5xx,error`; `any` where it names none."""
    if value is None or value == []:
        return "any"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return compact(value)


def _health_row(webhook: dict[str, Any], now: float) -> list[str | Painted]:
    enabled = webhook.get("enabled") is not False
    reason = webhook.get("disabled_reason")
    state = "enabled" if enabled else f"disabled ({reason})" if reason else "disabled"
    tried = webhook.get("last_attempt_at")
    last = compact(webhook.get("last_status_code"))
    failures = webhook.get("failures") or 0
    return [
        compact(webhook.get("endpoint")),
        compact(webhook.get("name")),
        compact(webhook.get("phase")),
        codes(webhook.get("status_code")),
        compact(webhook.get("url")),
        Painted(state, "green" if enabled else "red"),
        f"{last} {ago(tried, now)}" if tried else last,
        Painted(compact(failures), "yellow" if failures else None),
    ]
