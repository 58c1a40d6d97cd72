"""What a page is, and how it becomes the route that answers with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    Page,
    PageVisit,
    PluginError,
    Route,
    Unreachable,
    world,
)
from orchestratord_dashboard import template_filters
from orchestratord_dashboard.assets import Assets
from orchestratord_dashboard.attempt_history import AttemptHistory

TEMPLATES = Path(__file__).parent / "templates"
THEMES = ("light", "dark")
"""What a visitor can choose; otherwise the browser's setting decides."""

_PROBLEMS: dict[type[Exception], tuple[int, str]] = {
    NotFound: (404, "There is no such thing"),
    InvalidParams: (422, "This address makes no sense"),
    Conflict: (409, "This is not possible now"),
    PluginError: (500, "This page cannot be shown"),
    Unreachable: (503, "The database cannot be used now"),
}
AGAIN = 5
"""Seconds after which a page is asked for again whose database was out of reach."""


@dataclass(frozen=True, slots=True)
class DashboardPage:
    """One page.

    Args:
        path: where it is, with `{names}` in braces.
        template: the file in `templates/`.
        section: which entry of the navigation it belongs to.
        show: what the template is given; it raises NotFound, InvalidParams and the like, which
            become a page that says so.
    """

    path: str
    template: str
    section: str
    show: Callable[[PageVisit], Awaitable[Mapping[str, Any]]]


class PageRenderer:
    """Renders all pages, and serves them with what they load."""

    def __init__(
        self,
        pages: Iterable[DashboardPage],
        history: AttemptHistory,
        of_plugins: Sequence[Page] = (),
    ) -> None:
        self._pages = (*pages, *map(_of_plugin, of_plugins))
        self._history = history
        self._assets = Assets()
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for file in (file for page in of_plugins for file in page.files):
            self._assets.add(file)
        self._templates.globals["menu"] = [
            (page.path, page.path, page.title) for page in of_plugins if page.menu is True
        ]
        self._templates.globals["paths"] = {page.path for page in of_plugins}
        self._templates.globals["asset"] = self._assets.address
        self._templates.filters |= template_filters.FILTERS

    def routes(self) -> list[Route]:
        """What the plugin registers."""
        return [*(self._route(page) for page in self._pages), self._assets.route()]

    def warm_after(self, seconds: float) -> None:
        """Read the templates then, so that no visitor waits for that."""
        self._warming = asyncio.create_task(self.warm(seconds))

    async def warm(self, after: float = 0.0) -> None:
        """Read the templates after so many seconds, one by one, each in a thread.

        A daemon that stops meanwhile waits for one of them at most.
        """
        await asyncio.sleep(after)
        for name in self._templates.list_templates():
            await asyncio.to_thread(self._templates.get_template, name)

    def _route(self, page: DashboardPage) -> Route:
        async def answer(
            path: Mapping[str, str], query: Mapping[str, str], body: Any, caller: Caller
        ) -> Answer:
            status, template = 200, page.template
            try:
                shown = await page.show(PageVisit(path, query, caller))
            except tuple(_PROBLEMS) as error:
                status, title = next(
                    found for kind, found in _PROBLEMS.items() if isinstance(error, kind)
                )
                template = "problem.html"
                again = AGAIN if status == 503 else None
                shown = {"title": title, "why": _why(error), "again": again}
            common = {
                "section": page.section,
                "writes": caller.writes,
                "session": caller.session,
                "theme": _theme(caller.headers.get("cookie", "")),
                "config_error": self._history.config_error,
                "now": world.time() * 1000,
            }
            # A long page takes some milliseconds, in which everything else is to go on.
            found = self._templates.get_template(template)
            text = await asyncio.to_thread(found.render, {**common, **shown})
            return Answer(text, status, media_type="text/html; charset=utf-8")

        return Route("GET", page.path, answer, caller=True)


def _of_plugin(page: Page) -> DashboardPage:
    section = page.menu if isinstance(page.menu, str) else page.path

    async def show(visit: PageVisit) -> Mapping[str, Any]:
        title = page.title
        for name, value in visit.path.items():
            title = title.replace(f"{{{name}}}", value)
        return {"title": title, "shown": await page.show(visit), "page": page}

    return DashboardPage(page.path, "page.html", section, show)


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
