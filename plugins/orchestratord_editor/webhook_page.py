"""An endpoint's webhooks: those of its file, those that it inherits, and which of them fire.

All of it can be read without a script. The form, `static/webhook-editor.js`, takes the place of
the list where the visitor may write, and the daemon can.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from orchestratord import (
    PHASES,
    ConfigError,
    Conflict,
    Control,
    InvalidParams,
    NotFound,
    Page,
    PageVisit,
    Problem,
)

FOLDER = Path(__file__).parent
KEY = "webhooks"
STRATEGIES = ("fixed", "linear", "exponential", "list")
"""Whose options have fields of their own."""
HTTP = "http"
_USUAL = {"event": "ok", "sql": "error"}
"""The status code that is asked about first, of types without codes of HTTP."""


def webhook_page(control: Control) -> Page:
    """The page of each endpoint's webhooks."""

    async def show(visit: PageVisit) -> Markup:
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
        adopted_at = datetime.fromtimestamp(control.config.adopted_at / 1000, UTC)
        shown = {
            "id": endpoint_id,
            "writes": visit.caller.writes,
            "declaration": declaration,
            "problems": problems,
            "reason": declaration.reason if declaration else "its file cannot be read",
            "generation": control.config.generation,
            "adopted_at": adopted_at.isoformat(timespec="milliseconds"),
            "phases": phases,
            "other_phases": [phase for phase in PHASES if phase not in phases],
            "strategies": STRATEGIES,
            "firing": await _firing(control, endpoint_id, visit.query),
        }
        return Markup(await asyncio.to_thread(_template().render, shown))  # noqa: S704  # escaped

    path, files = "/endpoints/{api}/{name}/webhooks", ("webhooks.css", "webhook-editor.js")
    return Page(
        path,
        "Webhooks of {api}/{name}",
        show,
        menu="endpoints",
        files=[FOLDER / "static" / name for name in files],
        live="config.*,webhook.*",
    )


@cache
def _template() -> Template:
    templates = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return templates.get_template("webhooks.html")


def _type_of(phase: str) -> str | None:
    """The type of endpoint that a phase is only for; None where it is for all."""
    if phase.endswith("_request"):
        return HTTP
    return "sql" if phase.endswith("_execute") else None


async def _firing(control: Control, endpoint_id: str, query: Mapping[str, str]) -> dict[str, Any]:
    """Which webhooks fire for the answer that the address names; without one, for a failure, and of
    an event for what it has."""
    phase = query.get("phase", "")
    usual = _USUAL.get(control.config.endpoints[endpoint_id].type, "503")
    code = query.get("status_code", "" if phase.startswith("before_") else usual)
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
