"""From a sender's request to its answer: verified, on disk, and only then acknowledged."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestratord import (
    INLINE_BYTES,
    Answer,
    Config,
    Control,
    Endpoint,
    EventType,
    InboundEvent,
    InvalidParams,
    OrchestratordError,
    PortRequest,
    Table,
    Upsert,
    off_loop,
    world,
)
from orchestratord_inbound.declaration import INBOUND, UNSIGNED_IDS, Inbound
from orchestratord_inbound.sender_scheme import SenderScheme, scheme_of
from orchestratord_inbound.sent_params import params_of

log = logging.getLogger("orchestratord.inbound")

KEYS = Table(
    "inbound_keys",
    {"endpoint_id": "TEXT NOT NULL", "dedupe_key": "TEXT NOT NULL", "at": "INTEGER NOT NULL"},
    ("endpoint_id", "dedupe_key"),
    keep=7 * 86400.0,
)
"""The keys by which repeats are told, each for seven days."""

BRIM = 10_000
"""Events of a paused endpoint that wait, at most."""
LOOK_AGAIN = 1.0
"""Seconds between two looks at how many wait."""
AGAIN = {"Retry-After": "30"}
_LONGEST_KEY = 200
"""Characters of a key that is kept as it is."""
_FORM = re.compile(rb"[\w.*%+-]+=[^\s{\"]*")
"""A body that looks like a form, by a URL's rules."""
_EMPTY: tuple[Any, ...] = (None, "", [], {})
"""Results of `dedupe` that tell nothing apart."""


@dataclass(slots=True)
class WayIn:
    """A path, and what comes in there."""

    endpoint: Endpoint
    inbound: Inbound
    scheme: SenderScheme
    most: int
    """Bytes of a body."""
    free: float = 0.0
    """When as many requests may be taken at once as the rate limit says (`world.monotonic`)."""
    full: bool = False
    """As many wait as may."""
    looked: float = 0.0
    """When that was looked at (`world.monotonic`)."""


class InboundPort:
    """Answers at the port."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._config: Config | None = None
        self._ways: dict[str, WayIn] = {}

    # -- before the body is read -----------------------------------------------------------------

    def admit(self, request: PortRequest) -> int | Answer:
        """How large the body may be, or what is answered without it."""
        way = self._way(request.path)
        if way is None:
            return _refused(404, "not_found", "nothing comes in at this path")
        if request.method == "GET" and way.inbound.verify_token is not None:
            return 0
        if request.method != "POST":
            return _refused(405, "method_not_allowed", "a webhook is sent by POST", Allow="POST")
        if not way.endpoint.enabled:
            self._publish(way, "disabled", request)
            return _refused(503, "disabled", "this endpoint accepts nothing now", **AGAIN)
        if not _within_rate(way):
            return self._too_many(way, request)
        return way.most

    # -- with the body ---------------------------------------------------------------------------

    async def answer(self, request: PortRequest) -> Answer:
        """Verify it, write it, and say so."""
        way = self._way(request.path)
        if way is None:  # the configuration has changed meanwhile
            return _refused(404, "not_found", "nothing comes in at this path")
        if request.method == "GET":
            return self._meta_challenge(way, request)
        fault = way.scheme.fault(request, way.inbound.secret, world.time())
        if fault is not None:
            self._publish(way, fault, request)
            return _refused(401, f"wrong_{fault}", "the signature is wrong")
        if not _within_rate(way, take=True):  # what is not the sender's takes nothing of its rate
            return self._too_many(way, request)
        try:
            large = len(request.body) > INLINE_BYTES
            made = (request, self._control.config.redactor.data, way.scheme.header)
            params = await off_loop(params_of, *made) if large else params_of(*made)
            challenge = _slack_challenge(params["body"]) if way.inbound.verify == "slack" else None
            if challenge is not None:
                return Answer(challenge, media_type="text/plain")
            once = _once(way, params)
            if await self._is_full(way):
                self._publish(way, "full", request)
                return _refused(503, "full", "too many wait already", **AGAIN)
            task_id = await self._control.accept(way.endpoint.id, params, once)
        except InvalidParams as error:
            answer = _invalid(error)
            self._publish(way, "too_large" if answer.status == 413 else "invalid", request)
            return answer
        except OrchestratordError as error:
            # Whatever it is, the sender repeats it.
            self._publish(way, "unavailable", request)
            return _refused(503, "unavailable", str(error), **AGAIN)
        return Answer({"duplicate": True} if task_id is None else {"id": task_id})

    def refused(self, request: PortRequest, reason: str) -> None:
        """The daemon refuses a request by itself: it is counted."""
        if (way := self._way(request.path)) is not None:
            self._publish(way, reason, request)

    # -- within ----------------------------------------------------------------------------------

    def _way(self, path: str) -> WayIn | None:
        config = self._control.config
        if config is not self._config:
            self._adopt(config)
        return self._ways.get(path)

    def _adopt(self, config: Config) -> None:
        before, self._ways, self._config = self._ways, {}, config
        for endpoint in config.endpoints.values():
            if (inbound := endpoint[INBOUND]) is None:
                continue
            most = min(inbound.max_body or config.daemon.max_params, config.daemon.max_params)
            known = before.get(inbound.path)
            if known is None or known.endpoint is not endpoint or known.most != most:
                known = WayIn(endpoint, inbound, scheme_of(inbound.verify), most)
            self._ways[inbound.path] = known

    async def _is_full(self, way: WayIn) -> bool:
        now = world.monotonic()
        if now - way.looked >= LOOK_AGAIN:
            way.looked = now
            way.full = await self._control.waiting(way.endpoint.id, BRIM) >= BRIM
        return way.full

    def _too_many(self, way: WayIn, request: PortRequest) -> Answer:
        self._publish(way, "rate", request)
        limit = way.inbound.rate_limit
        return _refused(429, "rate_limited", f"at most {limit}", **{"Retry-After": "1"})

    def _publish(self, way: WayIn, reason: str, request: PortRequest) -> None:
        at, type_ = int(world.time() * 1000), EventType.INBOUND_REFUSED
        self._control.publish(InboundEvent(type_, at, way.endpoint.id, reason, request.peer))

    def _meta_challenge(self, way: WayIn, request: PortRequest) -> Answer:
        asked, token = dict(request.query), way.inbound.verify_token
        shown = asked.get("hub.verify_token", "").encode()
        good = token is not None and hmac.compare_digest(shown, token.reveal().encode())
        if not good or asked.get("hub.mode") != "subscribe":
            self._publish(way, "verify_token", request)
            return _refused(403, "wrong_verify_token", "this is not the configured token")
        return Answer(asked.get("hub.challenge", "")[:_LONGEST_KEY], media_type="text/plain")


def _within_rate(way: WayIn, *, take: bool = False) -> bool:
    """Whether another request may be taken, and `take` it: a bucket of one unit's tokens, filled
    all the time."""
    limit = way.inbound.rate_limit
    if limit is None:
        return True
    now = world.monotonic()
    window = limit.window / 1000
    free = max(way.free, now) + window / limit.times
    is_free = free <= now + window
    if is_free and take:
        way.free = free
    return is_free


def _once(way: WayIn, params: dict[str, Any]) -> Upsert | None:
    """The row by which a repeat is told; None where nothing tells it. Raises InvalidParams."""
    if way.inbound.dedupe is None:
        return None
    try:
        found = way.inbound.dedupe.search(params)
    except ValueError as error:
        raise InvalidParams({"dedupe": str(error)}) from None
    # `[a, b]` and `{x: a, y: b}` name parts of a key; what else is found may have null in it.
    parts = found.values() if isinstance(found, dict) else found
    named = way.inbound.dedupe.is_list_of_parts
    if found in _EMPTY or (named and any(part in _EMPTY for part in parts)):
        log.warning(
            "%s: its dedupe, %s, is null or empty in a request; a repeat would be a new event",
            way.endpoint.id,
            way.inbound.dedupe.source,
        )
        return None
    key = found if isinstance(found, str) else json.dumps(found, sort_keys=True)
    if len(key) > _LONGEST_KEY or not key.isprintable():
        key = "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    row = {"endpoint_id": way.endpoint.id, "dedupe_key": key}
    return Upsert(KEYS.name, row, {"at": int(world.time() * 1000)})


def _slack_challenge(body: Any) -> str | None:
    asks = isinstance(body, dict) and body.get("type") == "url_verification"
    challenge = body.get("challenge") if asks else None
    return challenge[:_LONGEST_KEY] if isinstance(challenge, str) else None


def _invalid(error: InvalidParams) -> Answer:
    words = "; ".join(f"{name}: {why}" for name, why in error.problems.items())
    if "params" in error.problems and "max_params" in error.problems["params"]:
        return _refused(413, "too_large", words)
    return _refused(422, "invalid_params", words)


def _refused(status: int, code: str, detail: str, **headers: str) -> Answer:
    text = json.dumps({"status": status, "code": code, "detail": detail})
    return Answer(text, status, headers, "application/problem+json")


def example(endpoint: Endpoint, body: bytes | None) -> Iterable[PortRequest]:
    """What a sender would send to an endpoint, signed with its newest secret."""
    inbound = endpoint[INBOUND]
    if inbound is None:
        return
    now = world.time()
    id_ = f"msg_{int(now * 1000)}"
    if body is None:
        body = json.dumps({"id": id_, "event_id": id_, "type": "example", "data": {}}).encode()
    kind = "application/x-www-form-urlencoded" if _FORM.fullmatch(body) else "text/plain"
    if body.lstrip().startswith((b"{", b"[", b'"')):  # as the daemon says where it is none
        kind = "application/json"
    headers = {"content-type": kind}
    if unsigned := UNSIGNED_IDS.get(str(inbound.verify)):
        headers[unsigned] = id_
    headers |= scheme_of(inbound.verify).signed(inbound.secret[0], body, now, id_)
    yield PortRequest("POST", inbound.path, (), tuple(headers.items()), "", body)
