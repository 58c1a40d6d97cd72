"""Pages as routes: what they have in common, from the request to the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from orchestratord import (
    Answer,
    Caller,
    Conflict,
    InvalidParams,
    NotFound,
    Route,
    Unreachable,
)
from orchestratord_dashboard import words
from orchestratord_dashboard.assets import Assets
from orchestratord_dashboard.page import Page, Visit
from orchestratord_dashboard.window import Window

TEMPLATES = Path(__file__).parent / "templates"
THEMES = ("light", "dark")
"""What a visitor can choose; otherwise the browser's setting decides."""

_MISTAKES: dict[type[Exception], tuple[int, str]] = {
    NotFound: (404, "There is no such thing"),
    InvalidParams: (422, "This address makes no sense"),
    Conflict: (409, "This is not possible now"),
    Unreachable: (503, "The database cannot be reached"),
}
AGAIN = 5
"""Seconds after which a page is asked for again whose database was out of reach."""


class Site:
    """All pages."""

    def __init__(self, pages: Iterable[Page], window: Window) -> None:
        self._pages = tuple(pages)
        self._window = window
        self._assets = Assets()
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals["asset"] = self._assets.address
        self._templates.filters |= words.FILTERS

    def routes(self) -> list[Route]:
        """What the plugin registers."""
        return [*(self._route(page) for page in self._pages), self._assets.route()]

    def warm(self) -> None:
        """Read the templates, so that nobody waits for that; in a thread of its own."""
        for name in self._templates.list_templates():
            self._templates.get_template(name)

    def _route(self, page: Page) -> Route:
        async def answer(
            path: Mapping[str, str], query: Mapping[str, str], body: Any, caller: Caller
        ) -> Answer:
            status, template = 200, page.template
            try:
                shown = await page.show(Visit(path, query, caller))
            except tuple(_MISTAKES) as error:
                status, title = next(
                    found for kind, found in _MISTAKES.items() if isinstance(error, kind)
                )
                template = "mistake.html"
                again = AGAIN if status == 503 else None
                shown = {"title": title, "why": _why(error), "again": again}
            common = {
                "section": page.section,
                "writes": caller.writes,
                "session": caller.session,
                "theme": _theme(caller.headers.get("cookie", "")),
                "refused": self._window.refused,
                "now": time.time() * 1000,
            }
            # A long page takes some milliseconds, in which everything else is to go on.
            found = self._templates.get_template(template)
            text = await asyncio.to_thread(found.render, {**common, **shown})
            return Answer(text, status, media_type="text/html; charset=utf-8")

        return Route("GET", page.path, answer, caller=True)


def _why(error: Exception) -> list[str]:
    if isinstance(error, InvalidParams):
        return [f"{name}: {why}" for name, why in error.problems.items()]
    return [str(error)]


def _theme(cookies: str) -> str:
    """What the visitor has chosen; empty where they have not."""
    try:
        morsel = SimpleCookie(cookies).get("theme")
    except CookieError:
        return ""
    return morsel.value if morsel is not None and morsel.value in THEMES else ""
