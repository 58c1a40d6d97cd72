"""The action log: who did what by hand, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestratord import Control, InvalidParams
from orchestratord_dashboard.page import Page, Visit

PAGE = 50
_MAX_ID = (1 << 63) - 1


def pages(control: Control) -> Iterable[Page]:
    """The page at `/actions`."""

    async def show(visit: Visit) -> Mapping[str, Any]:
        after = visit.query.get("after")
        if after and not (after.isascii() and after.isdigit() and int(after) <= _MAX_ID):
            raise InvalidParams({"after": "must be a number"})
        found = await control.actions(limit=PAGE, after=int(after) if after else None)
        return {"actions": found["actions"], "older": found["next"], "newest": bool(after)}

    yield Page("/actions", "actions.html", "actions", show)
