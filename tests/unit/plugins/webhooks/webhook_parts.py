"""What the tests of webhooks share: a declaration, a receiver, and the daemon as routes see it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

import httpx
import orchestratord_webhooks

from orchestratord import (
    BatchMember,
    Config,
    Declaration,
    Delete,
    Edit,
    Event,
    NewTask,
    NotFound,
    Problem,
    SendError,
    Upsert,
)
from orchestratord.model.task import Effect

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLDER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ENDPOINT = "shop/getOrder"
EVERY: Mapping[str, Any] = MappingProxyType({})
URL = "https://ops.example.com/hook"


def declared(**keys: Any) -> dict[str, Any]:
    """A webhook as it stands in the YAML."""
    return {"name": "ops", "phase": "after_request", "url": URL, **keys}


class Receiver:
    """A real HTTP server on 127.0.0.1; `script` names the status code of each answer, then 200."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.script: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.path, headers, body))
                self.send_response(receiver.script.pop(0) if receiver.script else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


async def send(request: httpx.Request, **options: Any) -> httpx.Response:
    """A `send` over a real connection."""
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return await client.send(request)
        except httpx.ConnectError as error:
            raise SendError(str(error), kind="connect", sent=False) from None


class FakeControl:
    """The daemon as routes see it, over rows in memory that follow Upsert and Delete."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tasks: list[NewTask] = []
        self.members: list[BatchMember] = []
        self.looked_again: list[str] = []
        self.events: list[Event] = []
        self.edits: list[tuple[Any, ...]] = []
        self.reason = ""
        self.missed: dict[tuple[str, str], int] = {}
        self._rows: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {
            table.name: {} for table in orchestratord_webhooks.register_tables()
        }

    async def rows(self, table: str, where: Mapping[str, Any] = EVERY) -> list[dict[str, Any]]:
        rows = self._rows[table].values()
        return [dict(row) for row in rows if where.items() <= row.items()]

    async def grouped(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        by: Sequence[str],
    ) -> dict[str, Any]:
        """What was missed, as `missed` says it: (endpoint, webhook) → how many."""
        found = [dict(zip(by, name, strict=True), tasks=n) for name, n in self.missed.items()]
        return {"groups": found, "complete": True}

    async def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each table, as `config_adopted` is given them."""
        return {"webhooks": await self.rows("webhooks")}

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        ids = []
        for effect in effects:
            if isinstance(effect, NewTask):
                self.tasks.append(effect)
                ids.append(40 + len(self.tasks))
            else:
                self.apply(effect)
        return ids

    def apply(self, effect: Upsert | Delete | BatchMember) -> None:
        if isinstance(effect, BatchMember):
            self.members.append(effect)
            return
        rows, key = self._rows[effect.table], tuple(effect.key.values())
        if isinstance(effect, Delete):
            del rows[key]
            return
        (table,) = (t for t in orchestratord_webhooks.register_tables() if t.name == effect.table)
        row = rows.setdefault(key, dict.fromkeys(table.columns) | dict(effect.key))
        row.update(effect.values)
        for column, number in effect.add.items():
            row[column] = (row[column] or 0) + number

    async def declaration(self, endpoint_id: str, key: str) -> Declaration:
        assert key == "webhooks"
        if endpoint_id not in self.config.endpoints:
            raise NotFound(endpoint_id)
        inherited = {"origin": "apis/shop/api.yaml:3", "overridden": True, "item": {"name": "z"}}
        shown = self.config.endpoints[endpoint_id].shown
        items = tuple(shown.get("webhooks", ()))
        return Declaration("apis/shop/endpoints/x.yaml", items, (inherited,), '"1"', self.reason)

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
        self.edits.append((endpoint_id, key, value, etag, dry_run, who))
        found = await self.declaration(endpoint_id, key)
        problem = Problem("bad", found.file, 3, 5, "webhooks.0.url", hint="write another")
        if dry_run:
            return Edit(found, "- old\n+ new\n", (problem,))
        return Edit(found, "- old\n+ new\n", (), True, 7, (problem,))

    def standing_changed(self, endpoint_id: str, webhook: str | None = None) -> None:
        self.looked_again.append(endpoint_id)

    def publish(self, event: Event) -> None:
        self.events.append(event)
