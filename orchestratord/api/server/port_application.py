"""What is served at the ports of plugins: a bounded body, and a handler that harms only itself.

No token is asked for here: what a request has to show is its plugin's to say.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestratord.api.serialize import json_bytes
from orchestratord.api.server.problem_json import Refusal, no_memory
from orchestratord.api.server.received_body import BodyRoom, ReceivedBody
from orchestratord.errors import OrchestratordError
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault, HookTimeout, call
from orchestratord.plugin.route import JSON, Answer, Control, PortHandler, PortRequest
from orchestratord.plugin.served import PORTS, plugin_ports

log = logging.getLogger("orchestratord.control")

READ_ON = 1 << 20
"""Bytes of a body that is too large that are read all the same: who is still sending does not
read."""
MAX_FIELDS = 100
"""Parameters of a query."""
AGAIN = 30
"""Seconds after which a sender is to try again that was not served."""

ALWAYS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
"""Headers of every answer, refusals too, but for those that an answer has itself."""


class PortApplication:
    """An ASGI application: the requests at one port, answered by one plugin."""

    def __init__(self, host: Host, plugin: str, handler: PortHandler) -> None:
        self._host = host
        self._plugin = plugin
        self._handler = handler
        self._room = BodyRoom(AGAIN)

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
        for name, value in ALWAYS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        body = ReceivedBody(self._room)
        try:
            request = _request_of(scope)
            most = self._handler.admit(request)
            if isinstance(most, Answer):
                return _response(most)
            given = [await self._whole(request, scope, receive, most, body)]
            answer = await call(self._handler.handler, given, self._host.timeout)
            if not isinstance(answer, Answer):
                raise HookFault(f"returned {type(answer).__name__}, not an Answer")
            if (seat := scope.get("state", {}).get("seat")) is not None:
                seat.known = answer.status < 400  # it is signed, where that is asked for
            return _response(answer)
        except (Refusal, ClientDisconnect):
            raise
        except HookTimeout as fault:
            # What it waited for is the daemon's, as a database that is slow.
            self._host.fault(self._plugin, f"{PORTS} {self._handler.key}", fault)
            self._handler.refused(request, "unavailable")
            detail = "it took too long; send it again in a moment"
            raise Refusal("busy", detail, headers={"Retry-After": str(AGAIN)}) from None
        except HookFault as fault:
            if isinstance(fault.__cause__, OrchestratordError):
                raise Refusal.of(fault.__cause__) from None
            raise self._fault(fault) from fault
        except OrchestratordError as error:
            raise Refusal.of(error) from None
        except Exception as error:
            raise self._fault(error) from error
        finally:
            body.forget()

    async def _whole(
        self, request: PortRequest, scope: Scope, receive: Receive, most: int, body: ReceivedBody
    ) -> PortRequest:
        """The request with its body. Raises Refusal: 413 for more than `most` bytes, 503 where
        others take all the room there is."""
        declared = request.header("content-length") or ""
        too_large = partial(_too_large, most)
        try:
            if declared.isdecimal() and int(declared) > most + READ_ON:
                raise too_large()
            return _with_body(request, await body.read(receive, most, most + READ_ON, too_large))
        except ClientDisconnect:
            seat = scope.get("state", {}).get("seat")
            if seat is not None and seat.refused is not None:
                self._handler.refused(request, seat.refused)
            raise
        except Refusal as refusal:
            self._handler.refused(request, refusal.code)
            raise

    def _fault(self, error: Exception) -> Refusal:
        self._host.fault(self._plugin, f"{PORTS} {self._handler.key}", error)
        return Refusal("plugin_fault", "the daemon could not do it; its log says more")


def port_applications(host: Host, control: Control) -> dict[str, ASGIApp]:
    """What plugins answer at ports of their own, by the keys of orchestratord.yaml."""
    return {
        handler.key: PortApplication(host, plugin, handler)
        for plugin, handler in plugin_ports(host, control)
    }


async def no_handler(scope: Scope, receive: Receive, send: Send) -> None:
    """What is answered at a port whose plugin answers nothing."""
    refusal = Refusal("not_ready", "nothing answers here now", headers=ALWAYS)
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


def _with_body(request: PortRequest, body: bytes) -> PortRequest:
    # `replace` takes three times as long.
    head = request.method, request.path, request.query, request.headers, request.peer
    return PortRequest(*head, body)


def _too_large(most: int) -> Refusal:
    detail = f"the body is larger than {most} bytes"
    return Refusal("too_large", detail, headers={"Connection": "close"})


def _response(answer: Answer) -> Response:
    content = json_bytes(answer.body) if answer.media_type == JSON else answer.body
    return Response(content, answer.status, answer.headers, answer.media_type)
