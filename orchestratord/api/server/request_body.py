"""Reading a request's body: bounded, and as JSON in the strict sense.

The content type is not looked at: no browser reaches a unix socket, and `curl -d` says that it
sends a form.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from starlette.requests import Request

from orchestratord.api.server.problem_json import Refusal
from orchestratord.api.server.received_body import SMALL, BodyRoom, ReceivedBody
from orchestratord.plugin.long_work import yield_gil
from orchestratord.values.json_body import (
    MAX_BATCH,
    MAX_DEPTH,
    TooMany,
    free_json,
    is_shallow,
    parse_json,
)

MAX_BODY = 16 << 20
"""Bytes."""
ROOM = BodyRoom(again=1)
"""That of all requests to the API. Up to `SMALL` bytes are also parsed on the loop."""

LONGEST_NUMBER = 4_300
"""Characters; so many Python takes of a whole one."""

# A client that is still sending does not read: what is too long is read on for a while.
_READ_ON = 4 * MAX_BODY
_WRITER = json.JSONEncoder(ensure_ascii=False)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class SentBody:
    """The body of one request, from its first byte until the request is answered."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._received = ReceivedBody(ROOM)
        self._values: list[Any] = []
        """What a large one says, to be freed off the loop."""

    async def read_json(self, max_params: Callable[[], int]) -> Any:
        """The body as a JSON value; None where there is none.

        Raises Refusal: 413 for more than `MAX_BODY` bytes, 503 where others take all the room
        there is, 400 for what is not JSON in UTF-8, 422 for what cannot be the params of a call, as
        soon as that is seen.
        """
        headers = self._request.headers
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > MAX_BODY and "expect" in headers:
            raise _too_large()
        receive = self._request.receive
        raw = await self._received.read(receive, MAX_BODY, _READ_ON, _too_large)
        if not raw:
            return None
        if raw.strip() == b"null":
            # What is called for is an object, and there being no body is told by None.
            raise Refusal("bad_json", "the body is null: leave it out, or send an object")
        if len(raw) <= SMALL:
            return json_value(raw)
        # Not as its result: asyncio ties that into a ring, which would keep it for long.
        await asyncio.to_thread(self._parse, raw, max_params())
        return self._values[0]

    def _parse(self, raw: bytes, max_params: int) -> None:
        with yield_gil():
            # No value is shorter than this, with what stands before the next one.
            self._values.append(json_value(raw, max_params // 2 + 1))

    def forget(self) -> None:
        """The request is answered, and nothing holds what it says: others may have its room."""
        self._received.forget()
        if self._values:
            asyncio.get_running_loop().run_in_executor(None, free_json, self._values)


def json_value(raw: bytes, room: int | None = None) -> Any:
    """What JSON that a client sent says. Raises Refusal for what JSON is not, and for what of it
    cannot be stored; `room` is that of `parse_json`."""
    try:
        value = parse_json(
            raw.decode(),
            room,
            parse_constant=_no_number,
            parse_float=_number,
            object_pairs_hook=_object,
        )
        if _SURROGATE.search(raw):
            # Half of a surrogate pair is no character, and cannot be stored.
            for piece in _WRITER.iterencode(value):
                piece.encode()
    except RecursionError:
        raise _too_deep() from None
    except TooMany as error:
        why = f"larger than max_params, or has a member that is, or over {MAX_BATCH} members"
        problem = {"key": str(error), "message": f"is {why}"}
        raise Refusal("invalid_params", f"{error} is {why}", errors=[problem]) from None
    except ValueError as error:
        raise Refusal("bad_json", f"the body is not JSON: {error}") from None
    # Each level begins with a bracket, of which most texts have few.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and not is_shallow(value):
        raise _too_deep()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands in it twice says two things, of which one would go unheard."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                break
            seen.add(name)
        raise ValueError(f"the key {json.dumps(name[:80])} stands twice in one object")
    return found


def _number(text: str) -> float:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number has {len(text)} characters; {LONGEST_NUMBER} are taken")
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _too_deep() -> Refusal:
    return Refusal("bad_json", f"the body is nested more than {MAX_DEPTH} deep")


def _too_large() -> Refusal:
    limit = f"{MAX_BODY >> 20} MiB"
    return Refusal("too_large", f"the body is larger than {limit}; send several batches")
