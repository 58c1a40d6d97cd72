"""What one page of the dashboard is, and who looks at it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord import Caller


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody opens a page.

    Args:
        path: the names in braces of the page's path.
        query: the query's parameters; one that was given twice is joined by a comma.
        caller: who asks. A page that offers something which `caller.writes` does not allow says
            so instead.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    caller: Caller


@dataclass(frozen=True, slots=True)
class Page:
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
    show: Callable[[Visit], Awaitable[Mapping[str, Any]]]
