"""The routes of the API: what the service does is here only read from a request and answered."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from orchestratord.api import bodies, event_stream, plugin_api
from orchestratord.api.answer_documents import (
    AcceptedBatch,
    AcceptedCall,
    ActionLog,
    BegunBulk,
    BulkDocument,
    BulksDocument,
    EndpointDocument,
    EndpointsDocument,
    ExplanationDocument,
    LiftedDocument,
    PausedDocument,
    RequestDocument,
    SurveyDocument,
    TaskDocument,
    TaskPageDocument,
    TasksDocument,
)
from orchestratord.api.daemon_documents import (
    BatchPageDocument,
    GroupQuery,
    GroupsDocument,
    NoDashboard,
    OkDocument,
    PluginsDocument,
    ReadyDocument,
    ReloadDocument,
    SchedulesDocument,
    StatusDocument,
    UpgradeDocument,
)
from orchestratord.api.filters import MAX_ID, NAMES, items, read_number, whole_number
from orchestratord.api.openapi import ApiDescription
from orchestratord.api.route_paths import ROUTES
from orchestratord.api.run_document import RunDocument, RunsDocument
from orchestratord.api.server.handler import Asked, Handler, Responder, endpoint_of, no_route
from orchestratord.api.server.problem_json import Refusal
from orchestratord.api.service import DEFAULT_BY, Service
from orchestratord.errors import (
    ConfigError,
    Conflict,
    InvalidParams,
    NotFound,
    Overtaken,
    Replaced,
    SchemaTooCostly,
    UniqueKeyReused,
    UpgradeUnderWay,
)
from orchestratord.model.task import Action
from orchestratord.plugin.event_bus import EventBus
from orchestratord.plugin.host import Host
from orchestratord.plugin.route import Answer, described
from orchestratord.plugin.served import plugin_routes
from orchestratord.queue.records import CANCEL, RESOLVE, RETRY
from orchestratord.values.json_body import is_larger

_PAGE = 100
"""Rows of a page, where the query does not say."""
UNKNOWN = "/404"
"""Where the page is that a browser gets at a path without a route."""
MOST_RECORDED = 4_000
"""Bytes of changed parameters that the action log keeps; of larger ones it has the names."""


class ApiRoutes:
    """The core's handlers."""

    def __init__(self, service: Service, events: EventBus) -> None:
        self._service = service
        self._feed = event_stream.Feed(events)

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """(method, path) → handler."""
        return {route: getattr(self, name) for route, name in ROUTES.items()}

    @described(answers={200: OkDocument})
    async def healthz(self, asked: Asked) -> Answer:
        """Answer while the daemon lives."""
        return Answer({"status": "ok"})

    @described(answers={200: ReadyDocument}, problems=["not_ready"])
    async def readyz(self, asked: Asked) -> Answer:
        """Answer 200 while the daemon takes new work and carries it out."""
        if troubles := self._service.troubles():
            errors = [{"key": found["code"], "message": found["why"]} for found in troubles]
            why = "; ".join(found["why"] for found in troubles)
            raise Refusal("not_ready", why, errors=errors)
        return Answer({"status": "ready"})

    @described(answers={200: StatusDocument})
    async def status(self, asked: Asked) -> Answer:
        """Show the state of the daemon."""
        return Answer(await self._service.status())

    @described(answers={200: PluginsDocument})
    async def plugins(self, asked: Asked) -> Answer:
        """List all plugins, disabled and failed ones too."""
        return Answer({"plugins": self._service.plugins()})

    @described(
        query=bodies.EventsQuery,
        headers={"Last-Event-ID": "number of the last event that the client received"},
        answers={200: event_stream.MEDIA_TYPE},
        problems=["too_many_followers"],
    )
    async def events(self, asked: Asked) -> Answer:
        """Stream events as they happen."""
        bodies.refuse_unknown(asked.query, bodies.EventsQuery)
        wanted = event_stream.read_wanted(asked.query, self._service.own_endpoints)
        after = event_stream.read_number(asked.headers)
        headers = {"Cache-Control": "no-store"}
        chunks = self._feed.chunks(wanted, after)
        return Answer(chunks, headers=headers, media_type=event_stream.MEDIA_TYPE)

    @described(body=bodies.ReloadBody, answers={200: ReloadDocument}, problems=[ConfigError])
    async def reload(self, asked: Asked) -> Answer:
        """Reload the configuration."""
        body = bodies.read_body(bodies.ReloadBody, asked.body)
        if body.folder and not (body.dry_run and asked.local):
            why = "is for dry runs over the control socket"
            raise InvalidParams({"folder": why})
        answer = await self._service.reload(**body.model_dump())
        if body.dry_run:
            return Answer(answer)
        detail = {"generation": answer["generation"]}
        if body.accept_removals:
            detail["accept_removals"] = True
        return Answer(answer, done=Action("reload", detail=detail))

    @described(answers={202: UpgradeDocument}, problems=[Conflict, UpgradeUnderWay])
    async def upgrade(self, asked: Asked) -> Answer:
        """Restart as the installed version."""
        answer = await self._service.upgrade()
        return Answer(answer, 202, done=Action("upgrade", detail=answer))

    @described(answers={200: EndpointsDocument}, problems=[InvalidParams])
    async def endpoints(self, asked: Asked) -> Answer:
        """List all endpoints with their merged declarations."""
        bodies.refuse_unknown(asked.query)
        return Answer({"endpoints": await self._service.endpoints()})

    @described(answers={200: EndpointDocument})
    async def endpoint(self, asked: Asked) -> Answer:
        """Show one endpoint."""
        return Answer(await self._service.endpoint(_endpoint_id(asked)))

    @described(
        query=bodies.ExplainQuery,
        body=bodies.ExplainBody,
        answers={200: ExplanationDocument},
        problems=[Conflict, ConfigError, SchemaTooCostly],
    )
    async def explain(self, asked: Asked) -> Answer:
        """Predict the consequences of an answer."""
        bodies.refuse_unknown(asked.query, bodies.ExplainQuery)
        question = asked.body
        if asked.query:
            if question is not None:
                raise InvalidParams({"body": "repeats the query"})
            question = {name: text for name, text in asked.query.items() if text}
        body = bodies.read_body(bodies.ExplainBody, question).model_dump(exclude_unset=True)
        return Answer(await self._service.explain(_endpoint_id(asked), **body))

    @described(
        headers={"Idempotency-Key": "the same key is the same call for 24 hours"},
        body=bodies.CallBody,
        answers={200: AcceptedCall | AcceptedBatch, 202: AcceptedCall | AcceptedBatch},
        problems=[Conflict, SchemaTooCostly, UniqueKeyReused],
    )
    async def call(self, asked: Asked) -> Answer:
        """Make a call or a batch of calls."""
        endpoint_id = _endpoint_id(asked)
        # A mistyped endpoint is told of before anything else.
        self._service.declared(endpoint_id)
        body = bodies.read_body(bodies.CallBody, asked.body)
        key = bodies.read_key(asked.headers)
        if body.batch is not None:
            if others := body.model_fields_set - {"batch", "delay", "at"}:
                what = ", ".join(sorted(others))
                raise InvalidParams({what: "goes with a single call, not with a batch"})
            ids, repeated = await self._service.call_batch(
                endpoint_id, body.batch, delay=body.delay, at=body.at, key=key
            )
            return Answer({"ids": ids}, 200 if repeated else 202)
        made = await self._service.call(
            endpoint_id,
            body.params,
            text_params=body.text_params,
            delay=body.delay,
            at=body.at,
            key=key,
        )
        # A program's calls are too many for the log, and each is a task of its own.
        manually = asked.session and not made.repeated
        done = Action("call", endpoint_id, task=made.id) if manually else None
        answer = {"id": made.id, "status": made.status}
        return Answer(answer, 200 if made.repeated else 202, done=done)

    @described(body=bodies.NoBody, answers={200: PausedDocument})
    async def pause(self, asked: Asked) -> Answer:
        """Pause an endpoint: its calls wait."""
        return await self._set_paused(asked, True)

    @described(body=bodies.NoBody, answers={200: PausedDocument})
    async def resume(self, asked: Asked) -> Answer:
        """Resume an endpoint and end its throttles."""
        answer = await self._set_paused(asked, False)
        # One that is paused may not be declared any more.
        answer.body["lifted"] = await self._service.lift(_endpoint_id(asked), known=True)
        endpoint = self._service.config.endpoints.get(_endpoint_id(asked))
        if endpoint is not None and not endpoint.enabled:
            answer.body["disabled_in"] = endpoint.source
        return answer

    @described(body=bodies.ResumeBody, answers={200: LiftedDocument}, problems=[NotFound])
    async def lift(self, asked: Asked) -> Answer:
        """End the throttle of a lane, URL, endpoint or webhook."""
        name = bodies.read_body(bodies.ResumeBody, asked.body).name
        answer = {"name": name, "lifted": await self._service.lift(name)}
        return Answer(answer, done=Action("resume", detail=answer))

    async def _set_paused(self, asked: Asked, paused: bool) -> Answer:
        bodies.read_body(bodies.NoBody, asked.body)
        endpoint_id = _endpoint_id(asked)
        await self._service.pause(endpoint_id, paused)
        done = Action("pause" if paused else "resume", endpoint_id)
        return Answer({"id": endpoint_id, "paused": paused}, done=done)

    @described(query=bodies.TasksQuery, answers={200: TasksDocument})
    async def retries(self, asked: Asked) -> Answer:
        """List tasks, the newest first."""
        bodies.refuse_unknown(asked.query, bodies.TasksQuery)
        given = {name: value for name, value in asked.query.items() if name in NAMES}
        limit = _limit(asked)
        found = await self._service.retries(
            given,
            limit=limit,
            after=asked.query.get("after"),
            order=asked.query.get("order") or "newest",
        )
        return Answer(found)

    @described(query=GroupQuery, answers={200: GroupsDocument})
    async def grouped(self, asked: Asked) -> Answer:
        """Count tasks by endpoint, reason, status code and so on."""
        bodies.refuse_unknown(asked.query, GroupQuery)
        given = {name: value for name, value in asked.query.items() if name in NAMES}
        by = items(asked.query["by"]) if asked.query.get("by") else DEFAULT_BY
        return Answer(await self._service.grouped(given, by))

    @described(answers={200: SchedulesDocument}, problems=[InvalidParams])
    async def schedules(self, asked: Asked) -> Answer:
        """List all schedules with their next and last runs."""
        bodies.refuse_unknown(asked.query)
        return Answer({"schedules": await self._service.schedules()})

    @described(query=bodies.TaskPageQuery, answers={200: TaskPageDocument})
    async def retry(self, asked: Asked) -> Answer:
        """Show one task in full; with `wait`, once it has ended."""
        bodies.refuse_unknown(asked.query, bodies.TaskPageQuery)
        wait = bodies.read_wait(asked.query, bodies.MAX_WAIT)
        return Answer(await self._service.retry(_id(asked, "task"), wait))

    @described(answers={200: RequestDocument}, problems=[Conflict])
    async def request(self, asked: Asked) -> Answer:
        """Show the request that a task would send."""
        return Answer(await self._service.request(_id(asked, "task")))

    @described(
        body=bodies.TriggerBody,
        answers={202: TaskDocument},
        problems=[Conflict, Overtaken, Replaced, SchemaTooCostly],
    )
    async def trigger(self, asked: Asked) -> Answer:
        """Retry a task now, or make a child task with other parameters."""
        body, id_ = bodies.read_body(bodies.TriggerBody, asked.body), _id(asked, "task")
        if not (body.params or body.text_params):
            return _done("retry", await self._service.trigger(id_, force=body.force))
        if twice := body.params.keys() & body.text_params.keys():
            raise InvalidParams(dict.fromkeys(sorted(twice), "is given twice"))
        child = await self._service.one.replace(
            id_, body.params, body.text_params, force=body.force
        )
        changed = {**body.params, **body.text_params}
        if is_larger(changed, MOST_RECORDED):
            changed = dict.fromkeys(changed, "…")
        detail = {"child": child["id"], "params": changed}
        return Answer(child, 202, done=Action("retry", child["endpoint"], task=id_, detail=detail))

    @described(body=bodies.NoBody, answers={202: TaskDocument}, problems=[Conflict, Replaced])
    async def cancel(self, asked: Asked) -> Answer:
        """Cancel a task."""
        bodies.read_body(bodies.NoBody, asked.body)
        return _done("cancel", await self._service.cancel(_id(asked, "task")))

    @described(body=bodies.ResolveBody, answers={202: TaskDocument}, problems=[Conflict, Replaced])
    async def resolve(self, asked: Asked) -> Answer:
        """Say how a pending or failed task ended."""
        body = bodies.read_body(bodies.ResolveBody, asked.body)
        task = await self._service.one.resolve(
            _id(asked, "task"), body.status, note=body.note, body=body.body
        )
        detail = {"as": body.status} | ({"note": body.note} if body.note else {})
        done = Action("resolve", task["endpoint"], task["webhook"], task["id"], detail=detail)
        return Answer(task, 202, done=done)

    @described(body=bodies.RetryAllBody, answers={200: SurveyDocument, 202: BegunBulk})
    async def trigger_all(self, asked: Asked) -> Answer:
        """Retry all tasks that match a filter."""
        body = bodies.read_body(bodies.RetryAllBody, asked.body)
        more = {"include_ambiguous": body.include_ambiguous, "force": body.force}
        return await self._begin_bulk(RETRY, body, body.stop_after, **more)

    @described(body=bodies.BulkBody, answers={200: SurveyDocument, 202: BegunBulk})
    async def cancel_all(self, asked: Asked) -> Answer:
        """Cancel all tasks that match a filter."""
        return await self._begin_bulk(CANCEL, bodies.read_body(bodies.BulkBody, asked.body))

    @described(body=bodies.ResolveAllBody, answers={200: SurveyDocument, 202: BegunBulk})
    async def resolve_all(self, asked: Asked) -> Answer:
        """Resolve all tasks that match a filter, each with an empty answer."""
        body = bodies.read_body(bodies.ResolveAllBody, asked.body)
        return await self._begin_bulk(
            RESOLVE, body, resolution={"as": body.status, "note": body.note}
        )

    async def _begin_bulk(
        self, action: str, body: bodies.BulkBody, stop_after: int = 0, **more: Any
    ) -> Answer:
        begun = await self._service.many.begin(
            action, body.filter, rate=body.rate, dry_run=body.dry_run, stop_after=stop_after, **more
        )
        if body.dry_run:
            return Answer(begun)
        given = {name: value for name, value in body.filter.items() if value and name != "id"}
        detail = {"matched": begun["matched"], "filter": given}
        detail |= {name: value for name, value in more.items() if value}
        done = Action(f"{action} many", bulk=begun["bulk"], detail=detail)
        return Answer(begun, 202, done=done)

    @described(query=bodies.RunsQuery, answers={200: RunsDocument}, problems=[InvalidParams])
    async def runs(self, asked: Asked) -> Answer:
        """List runs that have child tasks or an `on_run_end`, the newest first."""
        limit, after = _page(asked, bodies.RunsQuery)
        status = asked.query.get("status") or None
        if status not in (None, "running", "ended"):
            raise InvalidParams({"status": "must be running or ended"})
        found = await self._service.newest_runs(limit=limit, after=after, status=status)
        return Answer(found)

    @described(query=bodies.RunQuery, answers={200: RunDocument}, problems=[InvalidParams])
    async def run(self, asked: Asked) -> Answer:
        """Show a run with its first tasks."""
        limit, _ = _page(asked, bodies.RunQuery)
        return Answer(await self._service.run(_id(asked, "run"), limit))

    @described(query=bodies.RowsQuery, answers={200: BatchPageDocument})
    async def batch(self, asked: Asked) -> Answer:
        """List the members of a delivered batch."""
        limit, after = _page(asked, bodies.RowsQuery)
        return Answer(await self._service.batch(_id(asked, "batch"), limit, after or 0))

    @described(answers={200: BulksDocument}, problems=[InvalidParams])
    async def bulks(self, asked: Asked) -> Answer:
        """List the latest bulks."""
        bodies.refuse_unknown(asked.query)
        return Answer({"bulks": await self._service.bulks()})

    @described(answers={200: BulkDocument})
    async def bulk(self, asked: Asked) -> Answer:
        """Show the progress of a bulk."""
        return Answer(await self._service.bulk(_id(asked, "bulk")))

    @described(body=bodies.NoBody, answers={202: BulkDocument})
    async def cancel_bulk(self, asked: Asked) -> Answer:
        """Cancel a bulk."""
        bodies.read_body(bodies.NoBody, asked.body)
        bulk = await self._service.many.cancel(_id(asked, "bulk"))
        return Answer(bulk, 202, done=Action("stop bulk", bulk=bulk["id"]))

    @described(body=bodies.NoBody, answers={202: BulkDocument}, problems=[Conflict])
    async def resume_bulk(self, asked: Asked) -> Answer:
        """Resume a bulk that paused after failures."""
        bodies.read_body(bodies.NoBody, asked.body)
        bulk = await self._service.many.resume(_id(asked, "bulk"))
        return Answer(bulk, 202, done=Action("resume bulk", bulk=bulk["id"]))

    @described(query=bodies.RowsQuery, answers={200: ActionLog})
    async def actions(self, asked: Asked) -> Answer:
        """List manual actions, the newest first."""
        limit, after = _page(asked, bodies.RowsQuery)
        return Answer(await self._service.actions(limit=limit, after=after))


def application(service: Service, host: Host) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The API as an ASGI application: the core's routes, then those of plugins."""
    handlers = ApiRoutes(service, host.events).handlers()
    handlers["GET", "/openapi.json"] = ApiDescription(handlers).document
    for plugin, route in plugin_routes(host, service, ROUTES):
        handlers[route.method, route.path] = plugin_api.Contained(host, plugin, route)
    handlers.setdefault(("GET", "/"), _front)
    service.routes = handlers
    by_path: dict[str, dict[str, Handler]] = {}
    for (method, path), handler in handlers.items():
        by_path.setdefault(path, {})[method] = handler

    # Each takes every method, and refuses what it has not: else `GET /v1/retries/cancel` would be
    # about a task of that name. So paths without a parameter come first.
    plain: dict[str, Responder] = {}
    patterns: list[tuple[Callable[[str], re.Match[str] | None], Responder]] = []
    for path, methods in by_path.items():
        endpoint = endpoint_of(methods, service.record, lambda: service.config.daemon.max_params)
        if "{" in path:
            patterns.append((compile_path(path)[0].match, endpoint))
        else:
            plain[path] = endpoint

    disabled = [name for name, one in host.plugins.items() if one.status == "disabled"]

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})
        endpoint = plain.get(path := scope["path"])
        for match, of_pattern in patterns if endpoint is None else ():
            if (found := match(path)) is not None:
                scope["path_params"], endpoint = found.groupdict(), of_pattern
                break
        request = Request(scope, receive)
        if endpoint is None and "text/html" in request.headers.get("accept", ""):
            endpoint = plain.get(UNKNOWN)
        response = await (no_route(request, disabled) if endpoint is None else endpoint(request))
        await response(scope, receive, send)

    return run


@described(answers={200: NoDashboard})
async def _front(asked: Asked) -> Answer:
    """What is answered instead of the dashboard where it is not installed."""
    return Answer({"detail": "no dashboard is installed; the API begins at /v1/status"})


def _done(what: str, task: TaskDocument) -> Answer:
    done = Action(what, task["endpoint"], task["webhook"], task["id"])
    return Answer(task, 202, done=done)


def _page(asked: Asked, understood: type) -> tuple[int, int | None]:
    """How many rows are asked for, and after which; refuses what is not `understood`."""
    bodies.refuse_unknown(asked.query, understood)
    return _limit(asked), read_number(asked.query.get("after"), "after", MAX_ID)


def _limit(asked: Asked) -> int:
    return read_number(asked.query.get("limit"), "limit", bodies.MAX_PAGE) or _PAGE


def _endpoint_id(asked: Asked) -> str:
    return f"{asked.path['api']}/{asked.path['name']}"


def _id(asked: Asked, what: str) -> int:
    text = asked.path["id"]
    number = whole_number(text)
    if number is None or number > MAX_ID:
        raise NotFound.of(what, text)
    return number
