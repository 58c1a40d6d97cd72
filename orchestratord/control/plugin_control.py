"""The daemon as plugins' routes see it: verbs, in the words of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestratord.clock import rfc3339
from orchestratord.config.editing.records import Declaration, Edit
from orchestratord.control.verbs import Verbs
from orchestratord.events import Event
from orchestratord.redact import Redactor
from orchestratord.settings import Config
from orchestratord.task import Effect


class PluginControl:
    """The one implementation of `Control`; that says what each of these is for."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    @property
    def config(self) -> Config:
        return self._verbs.config

    @property
    def _redactor(self) -> Redactor:
        return self._verbs.config.redactor

    # -- looking -------------------------------------------------------------------------------

    async def status(self, *, all_lanes: bool = False) -> dict[str, Any]:
        return await self._verbs.status(all_lanes=all_lanes)

    async def due_next(self, limit: int) -> list[dict[str, Any]]:
        text = self._redactor.text
        return [
            {
                "endpoint": text(key.endpoint_id),
                "webhook": text(key.webhook) or None,
                "next_try": rfc3339(next_try),
            }
            for key, next_try in await self._verbs.due_next(limit)
        ]

    # -- the plugin's own ----------------------------------------------------------------------

    async def rows(self, table: str) -> list[dict[str, Any]]:
        return await self._verbs.rows(table)

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        return await self._verbs.write(effects)

    def standing_changed(self, endpoint_id: str) -> None:
        self._verbs.standing_changed(endpoint_id)

    def publish(self, event: Event) -> None:
        self._verbs.publish(event)

    # -- what stands in the files --------------------------------------------------------------

    async def declaration(self, endpoint_id: str, key: str) -> Declaration:
        return await self._verbs.declaration(endpoint_id, key)

    async def edit(
        self,
        endpoint_id: str,
        key: str,
        value: Any,
        *,
        etag: str | None,
        dry_run: bool = False,
        who: str = "",
    ) -> Edit:
        return await self._verbs.edit(endpoint_id, key, value, etag=etag, dry_run=dry_run, who=who)
