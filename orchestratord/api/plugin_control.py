"""The daemon as plugins' routes see it: verbs, in the words of the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestratord.api import serialize
from orchestratord.api.filters import ORDERS, place_text, read_filter, read_id, read_place
from orchestratord.api.previews import preview
from orchestratord.api.verbs import Verbs
from orchestratord.errors import InvalidParams
from orchestratord.model.edit import Declaration, Edit
from orchestratord.model.event import Event
from orchestratord.model.settings import Config
from orchestratord.model.task import Effect
from orchestratord.simulate.report import request_json, with_curl
from orchestratord.values.clock import rfc3339
from orchestratord.values.redact import Redactor

MAX_BULKS = 20
"""That are listed, the latest ones."""


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

    async def retries(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        limit: int = 100,
        after: int | str | None = None,
        bounded: bool = False,
        order: str = "newest",
    ) -> dict[str, Any]:
        wanted = read_filter(filter, self._verbs.now)
        following: int | str | None
        if order == "ended":
            place = read_place(None if after is None else str(after))
            tasks, last = await self._verbs.last_ended(wanted, limit, place)
            following = place_text(last)
        elif order == "newest":
            page = await self._verbs.tasks(wanted, limit, read_id(after), bounded=bounded)
            tasks, following = page.tasks, page.next
        else:
            raise InvalidParams({"order": f"must be one of {', '.join(ORDERS)}"})
        shown = [serialize.task_json(task, self._redactor) for task in tasks]
        return {"retries": shown, "next": following}

    async def retry(self, task_id: int) -> dict[str, Any]:
        page = await self._verbs.task(task_id)
        return serialize.task_page_json(
            page.task, page.response, page.attempts, page.waits, self._redactor
        )

    async def request(self, task_id: int) -> dict[str, Any]:
        request = await self._verbs.request(task_id)
        return with_curl(request_json(request, self._redactor)) or {}

    async def bulk(self, bulk_id: int) -> dict[str, Any]:
        return serialize.bulk_json(await self._verbs.bulk(bulk_id), self._redactor)

    async def bulks(self) -> list[dict[str, Any]]:
        return [
            serialize.bulk_json(bulk, self._redactor)
            for bulk in await self._verbs.latest_bulks(MAX_BULKS)
        ]

    async def actions(self, *, limit: int = 100, after: int | None = None) -> dict[str, Any]:
        found, following = await self._verbs.actions(limit, after)
        done = [serialize.done_json(one, self._redactor) for one in found]
        return {"actions": done, "next": following}

    async def endpoints(self, ids: Iterable[str] | None = None) -> list[dict[str, Any]]:
        paused, runs = await self._verbs.paused(), self._verbs.next_runs()
        wanted = self._verbs.config.endpoints if ids is None else ids
        return [
            serialize.endpoint_json(one, one.id in paused, runs.get(one.id), self._redactor)
            for one in map(self._verbs.endpoint, wanted)
        ]

    async def endpoint(self, endpoint_id: str) -> dict[str, Any]:
        endpoint = self._verbs.endpoint(endpoint_id)
        paused = endpoint.id in await self._verbs.paused()
        next_run = self._verbs.next_runs().get(endpoint.id)
        return serialize.endpoint_json(endpoint, paused, next_run, self._redactor)

    def waits(self, endpoint_id: str) -> list[dict[str, Any]]:
        return [asdict(wait) for wait in self._verbs.waits(endpoint_id)]

    def runs(self, endpoint_id: str, count: int) -> list[str]:
        found = self._verbs.upcoming_runs(endpoint_id, count)
        return [text for text in map(rfc3339, found) if text is not None]

    async def explain(self, endpoint_id: str, **asked: Any) -> dict[str, Any]:
        return await preview(self._verbs, endpoint_id, asked)

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
