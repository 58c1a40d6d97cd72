"""From a request to its answer: what every route has in common."""

from __future__ import annotations

import asyncio
import logging
import pwd
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from orchestratord import log as logs
from orchestratord.api.serialize import json_bytes
from orchestratord.api.server.problem_json import Refusal, no_memory
from orchestratord.api.server.request_body import SentBody
from orchestratord.api.server.seat import Seat
from orchestratord.model.storable_text import check_texts
from orchestratord.model.task import Action
from orchestratord.plugin.route import JSON, Answer

log = logging.getLogger("orchestratord.control")

READING = ("GET", "HEAD")
"""Methods that change nothing."""
_LOGGED = 200
"""Characters of a path that are logged."""
_ON_LOOP = 16 << 10
"""Characters of an answer, about, that are written as JSON on the loop."""
_PER_VALUE = 8


@dataclass(slots=True)  # not frozen: each request makes one, and a field takes a call then
class Asked:
    """One request, taken apart. A query parameter that was given twice is joined by a comma."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]
    who: str = ""
    """The caller, for the log."""
    writes: bool = True
    """Whether the caller may do more than look."""
    session: bool = False
    """Whether the caller is a browser that has logged in."""
    local: bool = False
    """Whether the caller asks over the control socket."""


Handler = Callable[[Asked], Awaitable[Answer]]

Responder = Callable[[Request], Awaitable[Response]]
"""Answers the requests for a path."""

Record = Callable[[str, Action], Awaitable[None]]
"""Writes down who has done what manually; does not fail."""


def endpoint_of(
    methods: Mapping[str, Handler], record: Record, max_params: Callable[[], int]
) -> Responder:
    """What is called for a path that has these methods.

    `max_params`: as it is configured now.
    """

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        if (handler := methods.get(method)) is None:
            allowed = ", ".join(sorted(methods.keys() | ({"HEAD"} if "GET" in methods else set())))
            detail = f"{request.method} is not possible here; possible: {allowed}"
            refusal = Refusal("method_not_allowed", detail, headers={"Allow": allowed})
            response = refusal.response()
        else:
            response = await _answer(handler, request, record, max_params)
        _log(request, response)
        return response

    return endpoint


async def _answer(
    handler: Handler, request: Request, record: Record, max_params: Callable[[], int]
) -> Response:
    body = SentBody(request)
    asked: Asked | None = None
    try:
        asked = await _asked(request, body, max_params)
        asking = handler(asked)
        if "wait" in asked.query:
            asking = _while_connected(request, asking)
        answer = await asking
        if answer.done is not None:
            await record(asked.who, answer.done)
        if isinstance(answer.body, AsyncIterator):
            return _stream(request, answer)
        return await _response(answer)
    except Refusal as refusal:
        return refusal.response()
    except ClientDisconnect:
        return Response(status_code=400)  # its reader has gone
    except asyncio.CancelledError:
        return Refusal("stopping", "the daemon is being stopped").response()
    except MemoryError:
        return no_memory().response()
    except Exception as error:
        meaning = Refusal.of(error)
        if meaning.status == 500:
            log.exception("the request %s %s failed", request.method, _path(request))
        return meaning.response()
    finally:
        del asked
        body.forget()


async def _asked(request: Request, sent: SentBody, max_params: Callable[[], int]) -> Asked:
    query: dict[str, str] = {}
    if request.scope["query_string"]:
        for name, value in request.query_params.multi_items():
            query[name] = f"{query[name]},{value}" if name in query else value
    path = {name: unquote(value) for name, value in request.path_params.items()}
    # Of a page that names no such thing there is none, whatever its address holds.
    check_texts({**query, **path} if request.scope["path"].startswith("/v1/") else query)
    body = None if request.method in READING else await sent.read_json(max_params)
    state = request.scope["state"]
    await _learn_user(state)
    # A caller at the control socket may do everything.
    writes, session = state.get("writes", True), state.get("session", False)
    local = bool(state.get("peer"))
    return Asked(path, query, body, request.headers, _who(state), writes, session, local)


def _who(state: Mapping[str, Any]) -> str:
    peer = state.get("peer")
    if not peer:
        return state.get("caller") or ""
    name, ids = _users.get(peer.uid), f"uid {peer.uid}, pid {peer.pid}"
    return f"{name} ({ids})" if name else ids


async def _learn_user(state: Mapping[str, Any]) -> None:
    """Look the user's name up where it is not known yet: a directory service may take its time."""
    peer = state.get("peer")
    if peer and peer.uid not in _users:
        _users[peer.uid] = await asyncio.to_thread(_user, peer.uid)


_users: dict[int, str | None] = {}
"""The names of users that have been here."""


def _user(uid: int) -> str | None:
    """The name of a user of this machine; None where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return None


async def _while_connected(request: Request, asking: Awaitable[Answer]) -> Answer:
    """The answer; work on it ends once the client has gone."""
    seat: Seat = request.scope["state"]["seat"]
    seat.waits = True
    working = asyncio.ensure_future(asking)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Stream(StreamingResponse):
    """An answer that goes on until it ends or its reader goes away."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]  # it is a generator
            await super().stream_response(send)


def _stream(request: Request, answer: Answer) -> Response:
    if request.method == "HEAD":
        return Response(None, answer.status, answer.headers, answer.media_type)
    request.scope["state"]["seat"].waits = True
    return _Stream(answer.body, answer.status, answer.headers, answer.media_type)


async def _response(answer: Answer) -> Response:
    content = answer.body
    if answer.media_type == JSON and not isinstance(content, bytes):
        if _is_small(content):
            content = json_bytes(content)
        else:
            content = await asyncio.to_thread(json_bytes, content)
    return Response(content, answer.status, answer.headers, answer.media_type)


def _is_small(value: Any) -> bool:
    """Whether writing a value as JSON takes no longer than having a thread do it."""
    room, waiting = _ON_LOOP, [value]
    while waiting:
        item = waiting.pop()
        room -= len(item) if isinstance(item, str | bytes) else _PER_VALUE
        if room < 0:
            return False
        if isinstance(item, str | int):
            continue  # it is asked first, as a look at an abstract class takes long
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
    return True


async def no_route(request: Request, disabled: Sequence[str]) -> Response:
    """The answer where no route fits; one of a plugin that is `disabled` would perhaps."""
    perhaps = f"; disabled is the plugin {', '.join(disabled)}" if disabled else ""
    response = Refusal("not_found", f"there is nothing at this path{perhaps}").response()
    _log(request, response)
    return response


def _log(request: Request, response: Response) -> None:
    if request.method in READING:
        return
    state = request.scope["state"]
    who, what = _who(state), f"{request.method} {_path(request)}: {response.status_code}"
    line = f"{what}, by {who}" if who else what
    logs.info(log, (line,), _log_fields, ((request, response),))


def _log_fields(request: Request, response: Response) -> dict[str, Any]:
    peer, caller = (request.scope["state"].get(name) for name in ("peer", "caller"))
    return {
        "method": request.method,
        "path": _path(request),
        "status_code": response.status_code,
        **({f"peer_{name}": value for name, value in peer._asdict().items()} if peer else {}),
        **({"caller": caller} if caller else {}),
    }


def _path(request: Request) -> str:
    path: str = request.scope["path"]
    return path[:_LOGGED]
