"""What is served at the ports of plugins: a bounded body, and a handler that harms only itself.

No token is asked for here: what a request has to show is its plugin's to say.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestratord.api.serialize import json_bytes
from orchestratord.api.server.problem_json import Refusal, no_memory
from orchestratord.errors import OrchestratordError, PluginError
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault, call
from orchestratord.plugin.route import JSON, Answer, Control, PortHandler, PortRequest

log = logging.getLogger("orchestratord.control")

HOOK = "register_ports"

READ_ON = 1 << 20
"""Bytes of a body that is too large that are read all the same: who is still sending does not
read."""
MAX_FIELDS = 100
"""Parameters of a query."""


class PortApplication:
    """An ASGI application: the requests at one port, answered by one plugin."""

    def __init__(self, host: Host, plugin: str, handler: PortHandler) -> None:
        self._host = host
        self._plugin = plugin
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._answer(scope, receive)
        except Refusal as refusal:
            response = refusal.response()
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            response = Refusal("stopping", "the daemon is being stopped").response()
        except MemoryError:
            response = no_memory().response()
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        try:
            request = _request_of(scope)
            most = self._handler.admit(request)
            if isinstance(most, Answer):
                return _response(most)
            body = await _read(Request(scope, receive), most)
            running = asyncio.current_task()
            given = [replace(request, body=body)]
            answer = await call(self._handler.handler, given, self._host.timeout, running)
            if not isinstance(answer, Answer):
                raise HookFault(f"returned {type(answer).__name__}, not an Answer")
            return _response(answer)
        except (Refusal, ClientDisconnect):
            raise
        except HookFault as fault:
            if isinstance(fault.__cause__, OrchestratordError):
                raise Refusal.of(fault.__cause__) from None
            raise self._fault(fault) from fault
        except OrchestratordError as error:
            raise Refusal.of(error) from None
        except Exception as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> Refusal:
        self._host.fault(self._plugin, f"{HOOK} {self._handler.key}", error)
        return Refusal("plugin_fault", "the daemon could not do it; its log says more")


def port_applications(host: Host, control: Control) -> dict[str, ASGIApp]:
    """What plugins answer at ports of their own, by the keys of orchestratord.yaml."""
    found: dict[str, ASGIApp] = {}
    for plugin, handlers in host.ask(HOOK, {"control": control}):
        for handler in handlers:
            if not isinstance(handler, PortHandler):
                host.fault(plugin, HOOK, HookFault(f"returned {handler!r}, which is no handler"))
            elif handler.key in found:
                text = f"the port {handler.key} is answered by another plugin, too"
                host.fault(plugin, HOOK, PluginError(text))
            else:
                found[handler.key] = PortApplication(host, plugin, handler)
    return found


async def no_handler(scope: Scope, receive: Receive, send: Send) -> None:
    """What is answered at a port whose plugin answers nothing."""
    refusal = Refusal("not_ready", "nothing answers here now")
    await refusal.response()(scope, receive, send)


def _request_of(scope: Scope) -> PortRequest:
    """The request without its body. Raises Refusal (400)."""
    try:
        pairs = parse_qsl(
            scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise Refusal("bad_request", "the query cannot be read") from None
    return PortRequest(
        scope["method"],
        scope["raw_path"].decode("ascii", "replace"),
        pairs,
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        scope["client"][0] if scope.get("client") else "",
    )


async def _read(request: Request, most: int) -> bytes:
    """The body. Raises Refusal (413) for more than `most` bytes, and hangs up then."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most + READ_ON:
        raise _too_large(most)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most + READ_ON:
            break
        if size > most:
            chunks.clear()
        else:
            chunks.append(chunk)
    if size > most:
        raise _too_large(most)
    return b"".join(chunks)


def _too_large(most: int) -> Refusal:
    detail = f"the body is larger than {most} bytes"
    return Refusal("too_large", detail, headers={"Connection": "close"})


def _response(answer: Answer) -> Response:
    content = json_bytes(answer.body) if answer.media_type == JSON else answer.body
    return Response(content, answer.status, answer.headers, answer.media_type)
