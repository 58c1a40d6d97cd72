"""The routes of the API: what the service does is here only read from a request and answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from orchestratord.api import bodies, event_stream, plugin_api
from orchestratord.api.filters import MAX_ID, NAMES, whole_number
from orchestratord.api.server.handler import Asked, Handler, endpoint_of, no_route
from orchestratord.api.server.problem_json import Refusal
from orchestratord.api.service import MAX_PAGE, MAX_WAIT, Service
from orchestratord.errors import InvalidParams, NotFound
from orchestratord.model.task import Action
from orchestratord.plugin.event_bus import EventBus
from orchestratord.plugin.host import Host
from orchestratord.plugin.route import Answer
from orchestratord.queue.records import CANCEL, RETRY


class ApiRoutes:
    """The core's handlers."""

    def __init__(self, service: Service, events: EventBus) -> None:
        self._service = service
        self._feed = event_stream.Feed(events)

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """(method, path) → handler."""
        endpoint, retry, bulk = "/v1/endpoints/{api}/{name}", "/v1/retries/{id}", "/v1/bulks/{id}"
        return {
            ("GET", "/healthz"): self.healthz,
            ("GET", "/readyz"): self.readyz,
            ("GET", "/v1/status"): self.status,
            ("GET", "/v1/plugins"): self.plugins,
            ("GET", "/v1/events"): self.events,
            ("POST", "/v1/reload"): self.reload,
            ("GET", "/v1/endpoints"): self.endpoints,
            ("GET", endpoint): self.endpoint,
            ("GET", f"{endpoint}/explain"): self.explain,
            ("POST", f"{endpoint}/explain"): self.explain,
            ("POST", f"{endpoint}/calls"): self.call,
            ("POST", f"{endpoint}/pause"): self.pause,
            ("POST", f"{endpoint}/resume"): self.resume,
            ("GET", "/v1/retries"): self.retries,
            ("POST", "/v1/retries/trigger"): self.trigger_all,
            ("POST", "/v1/retries/cancel"): self.cancel_all,
            ("GET", retry): self.retry,
            ("GET", f"{retry}/request"): self.request,
            ("POST", f"{retry}/trigger"): self.trigger,
            ("POST", f"{retry}/cancel"): self.cancel,
            ("GET", "/v1/bulks"): self.bulks,
            ("GET", bulk): self.bulk,
            ("POST", f"{bulk}/cancel"): self.cancel_bulk,
            ("GET", "/v1/actions"): self.actions,
        }

    async def healthz(self, asked: Asked) -> Answer:
        """The loop answers."""
        return Answer({"status": "ok"})

    async def readyz(self, asked: Asked) -> Answer:
        """Whether new work would be taken and carried out."""
        why = self._service.unready()
        if why is not None:
            raise Refusal(503, "not_ready", why)
        return Answer({"status": "ready"})

    async def status(self, asked: Asked) -> Answer:
        """How the daemon is."""
        return Answer(await self._service.status())

    async def plugins(self, asked: Asked) -> Answer:
        """All plugins, those that are switched off or did not load as well."""
        return Answer({"plugins": self._service.plugins()})

    async def events(self, asked: Asked) -> Answer:
        """What happens, as it happens."""
        bodies.refuse_unknown(asked.query, event_stream.NAMES)
        wanted, after = (
            event_stream.read_wanted(asked.query),
            event_stream.read_number(asked.headers),
        )
        headers = {"Cache-Control": "no-store"}
        chunks = self._feed.chunks(wanted, after)
        return Answer(chunks, headers=headers, media_type=event_stream.MEDIA_TYPE)

    async def reload(self, asked: Asked) -> Answer:
        """Adopt what the files say now."""
        body = bodies.read_body(bodies.ReloadBody, asked.body)
        answer = await self._service.reload(diff=body.diff)
        done = Action("reload", detail={"generation": answer["generation"]})
        return Answer(answer, done=done)

    async def endpoints(self, asked: Asked) -> Answer:
        """All endpoints as they are declared and merged."""
        bodies.refuse_unknown(asked.query, ())
        return Answer({"endpoints": await self._service.endpoints()})

    async def endpoint(self, asked: Asked) -> Answer:
        """One endpoint."""
        return Answer(await self._service.endpoint(_endpoint_id(asked)))

    async def explain(self, asked: Asked) -> Answer:
        """What would follow from an answer."""
        bodies.refuse_unknown(asked.query, ("phase", "status_code", "error", "attempt"))
        question = asked.body
        if asked.query:
            if question is not None:
                raise InvalidParams({"body": "says what the query says already"})
            question = {name: text for name, text in asked.query.items() if text}
        body = bodies.read_body(bodies.ExplainBody, question).model_dump(exclude_unset=True)
        return Answer(await self._service.explain(_endpoint_id(asked), **body))

    async def call(self, asked: Asked) -> Answer:
        """Make a call, or a batch of them."""
        endpoint_id = _endpoint_id(asked)
        # A mistyped endpoint is told of before anything else.
        self._service.declared(endpoint_id)
        body = bodies.read_body(bodies.CallBody, asked.body)
        key = bodies.read_key(asked.headers)
        if body.batch is not None:
            others = body.model_fields_set - {"batch", "delay"}
            if others or key is not None:
                what = ", ".join(sorted(others)) or "Idempotency-Key"
                raise InvalidParams({what: "goes with a single call, not with a batch"})
            ids = await self._service.call_batch(endpoint_id, body.batch, delay=body.delay)
            return Answer({"ids": ids}, 202)
        made = await self._service.call(
            endpoint_id, body.params, text_params=body.text_params, delay=body.delay, key=key
        )
        # A program's calls are too many for the log, and each is a task of its own.
        manually = asked.session and not made.repeated
        done = Action("call", endpoint_id, task=made.id) if manually else None
        answer = {"id": made.id, "status": made.status}
        return Answer(answer, 200 if made.repeated else 202, done=done)

    async def pause(self, asked: Asked) -> Answer:
        """Let an endpoint's calls wait."""
        return await self._set_paused(asked, True)

    async def resume(self, asked: Asked) -> Answer:
        """Let them go on."""
        return await self._set_paused(asked, False)

    async def _set_paused(self, asked: Asked, paused: bool) -> Answer:
        bodies.read_body(bodies.NoBody, asked.body)
        endpoint_id = _endpoint_id(asked)
        await self._service.pause(endpoint_id, paused)
        done = Action("pause" if paused else "resume", endpoint_id)
        return Answer({"id": endpoint_id, "paused": paused}, done=done)

    async def retries(self, asked: Asked) -> Answer:
        """A page of tasks."""
        bodies.refuse_unknown(asked.query, (*NAMES, "order", "limit", "after"))
        given = {name: value for name, value in asked.query.items() if name in NAMES}
        limit = bodies.read_number(asked.query, "limit", 100, MAX_PAGE)
        assert limit is not None
        found = await self._service.retries(
            given,
            limit=limit,
            after=asked.query.get("after"),
            order=asked.query.get("order") or "newest",
        )
        return Answer(found)

    async def retry(self, asked: Asked) -> Answer:
        """One task in full, once it has ended if `wait` is given."""
        bodies.refuse_unknown(asked.query, ("wait",))
        wait = bodies.read_wait(asked.query, MAX_WAIT)
        return Answer(await self._service.retry(_id(asked, "task"), wait))

    async def request(self, asked: Asked) -> Answer:
        """What a task would send."""
        return Answer(await self._service.request(_id(asked, "task")))

    async def trigger(self, asked: Asked) -> Answer:
        """Have a task tried now."""
        body = bodies.read_body(bodies.TriggerBody, asked.body)
        return _done("retry", await self._service.trigger(_id(asked, "task"), force=body.force))

    async def cancel(self, asked: Asked) -> Answer:
        """Give a task up."""
        bodies.read_body(bodies.NoBody, asked.body)
        return _done("cancel", await self._service.cancel(_id(asked, "task")))

    async def trigger_all(self, asked: Asked) -> Answer:
        """Have all tasks tried that match a filter."""
        return await self._begin_bulk(asked, RETRY)

    async def cancel_all(self, asked: Asked) -> Answer:
        """Give all tasks up that match a filter."""
        return await self._begin_bulk(asked, CANCEL)

    async def _begin_bulk(self, asked: Asked, action: str) -> Answer:
        body = bodies.read_body(bodies.BulkBody, asked.body)
        bulk = await self._service.begin_bulk(
            action, body.filter, rate=body.rate, dry_run=body.dry_run
        )
        if body.dry_run:
            return Answer({"matched": bulk["matched"], "bulk": None})
        given = {name: value for name, value in body.filter.items() if value and name != "id"}
        detail = {"matched": bulk["matched"], "filter": given}
        done = Action(f"{action} many", bulk=bulk["id"], detail=detail)
        return Answer({"matched": bulk["matched"], "bulk": bulk["id"]}, 202, done=done)

    async def bulks(self, asked: Asked) -> Answer:
        """The latest retries and cancels of many."""
        bodies.refuse_unknown(asked.query, ())
        return Answer({"bulks": await self._service.bulks()})

    async def bulk(self, asked: Asked) -> Answer:
        """How far a retry or cancel of many has come."""
        return Answer(await self._service.bulk(_id(asked, "bulk")))

    async def cancel_bulk(self, asked: Asked) -> Answer:
        """End it early."""
        bodies.read_body(bodies.NoBody, asked.body)
        bulk = await self._service.cancel_bulk(_id(asked, "bulk"))
        return Answer(bulk, 202, done=Action("stop bulk", bulk=bulk["id"]))

    async def actions(self, asked: Asked) -> Answer:
        """What was done manually, newest first."""
        bodies.refuse_unknown(asked.query, ("limit", "after"))
        limit = bodies.read_number(asked.query, "limit", 100, MAX_PAGE)
        after = bodies.read_number(asked.query, "after", None, MAX_ID)
        assert limit is not None
        return Answer(await self._service.actions(limit=limit, after=after))


def application(service: Service, host: Host) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The API as an ASGI application: the core's routes, then those of plugins."""
    handlers = ApiRoutes(service, host.events).handlers()
    for plugin, route in plugin_api.collect(host, service, set(handlers)):
        handlers[route.method, route.path] = plugin_api.Contained(host, plugin, route)
    handlers.setdefault(("GET", "/"), _front)
    by_path: dict[str, dict[str, Handler]] = {}
    for (method, path), handler in handlers.items():
        by_path.setdefault(path, {})[method] = handler
    starlette = Starlette(
        routes=[
            Route(path, endpoint_of(methods, service.record), methods=list(methods))
            for path, methods in by_path.items()
        ],
        exception_handlers={HTTPException: no_route},
    )
    starlette.router.redirect_slashes = False

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        # Routes are found by the path as it was sent, so that `%2F` is a part of a name.
        await starlette({**scope, "path": scope["raw_path"].decode("ascii")}, receive, send)

    return run


async def _front(asked: Asked) -> Answer:
    """What is answered instead of the dashboard where it is not installed."""
    return Answer({"detail": "no dashboard is installed; the API begins at /v1/status"})


def _done(what: str, task: dict[str, Any]) -> Answer:
    done = Action(what, task["endpoint"], task["webhook"], task["id"])
    return Answer(task, 202, done=done)


def _endpoint_id(asked: Asked) -> str:
    return f"{asked.path['api']}/{asked.path['name']}"


def _id(asked: Asked, what: str) -> int:
    text = asked.path["id"]
    number = whole_number(text)
    if number is None or number > MAX_ID:
        raise NotFound.of(what, text)
    return number
