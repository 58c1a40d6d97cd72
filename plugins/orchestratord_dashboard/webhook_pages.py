"""An endpoint's webhooks: those of its file, those that it inherits, and which of them fire.

All of it can be read without a script. The editor, `static/webhook-editor.js`, takes the place of
the list where the visitor may write, and the daemon can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestratord import (
    PHASES,
    ConfigError,
    Conflict,
    Control,
    InvalidParams,
    NotFound,
    PageVisit,
    Problem,
)
from orchestratord_dashboard.page_renderer import DashboardPage

KEY = "webhooks"
SECTION = "endpoints"
STRATEGIES = ("fixed", "linear", "exponential", "list")
"""Whose options have fields of their own."""
HTTP = "http"


def pages(control: Control) -> Iterable[DashboardPage]:
    """The page of each endpoint's webhooks."""

    async def show(visit: PageVisit) -> Mapping[str, Any]:
        endpoint_id = f"{visit.path['api']}/{visit.path['name']}"
        endpoint = control.config.endpoints.get(endpoint_id)
        if endpoint is None:
            raise NotFound.of("endpoint", endpoint_id)
        problems: tuple[Problem, ...] = ()
        declaration = None
        try:
            declaration = await control.declaration(endpoint_id, KEY)
        except ConfigError as error:
            problems = error.problems
        phases = [phase for phase in PHASES if (_type_of(phase) or endpoint.type) == endpoint.type]
        return {
            "id": endpoint_id,
            "declaration": declaration,
            "problems": problems,
            "reason": declaration.reason if declaration else "its file cannot be read",
            "generation": control.config.generation,
            "adopted_at": control.config.adopted_at,
            "phases": phases,
            "other_phases": [phase for phase in PHASES if phase not in phases],
            "strategies": STRATEGIES,
            "firing": await _firing(control, endpoint_id, visit.query),
        }

    yield DashboardPage("/endpoints/{api}/{name}/webhooks", "webhooks.html", SECTION, show)


def _type_of(phase: str) -> str | None:
    """The type of endpoint that a phase is only for; None where it is for all."""
    if phase.endswith("_request"):
        return HTTP
    return "sql" if phase.endswith("_execute") else None


async def _firing(control: Control, endpoint_id: str, query: Mapping[str, str]) -> dict[str, Any]:
    """Which webhooks fire for the answer that the address names; 503 where it names none."""
    phase = query.get("phase", "")
    code = query.get("status_code", "" if phase.startswith("before_") else "503")
    found: dict[str, Any] = {"phase": phase, "status_code": code, "webhooks": [], "error": ""}
    try:
        explanation = await control.explain(
            endpoint_id, phase=phase or None, status_code=code or None
        )
    except (InvalidParams, Conflict, NotFound) as error:
        found["error"] = str(error)
        return found
    decision = explanation["decision"]
    found["outcome"] = decision["outcome"] if decision else ""
    found["reached"] = explanation["reached"]
    found["webhooks"] = [one for one in explanation["consequences"] if one["kind"] == "webhook"]
    return found
