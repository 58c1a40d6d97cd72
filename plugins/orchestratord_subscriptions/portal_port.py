"""The portal: what tenants do themselves, at a port where nothing else answers.

A link has a token in its fragment, which the page exchanges once for a session. The page keeps that
in memory, and sends it as bearer to the routes of its tenant, which are those of the API.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from orchestratord_webhooks import WEBHOOKS, time_text
from pydantic import Field
from typing_extensions import TypedDict

from orchestratord import (
    Action,
    Answer,
    Caller,
    Config,
    Conflict,
    InvalidParams,
    NotFound,
    PortRequest,
    Route,
    Upsert,
    described,
    world,
)
from orchestratord_subscriptions import portal_token
from orchestratord_subscriptions.declaration import ENDPOINT, PUBLIC
from orchestratord_subscriptions.subscription import LINKS
from orchestratord_subscriptions.subscription_documents import Time
from orchestratord_subscriptions.tenant_rows import Row, TenantRows
from orchestratord_subscriptions.tenant_verbs import SUBSCRIPTIONS_PATH

log = logging.getLogger("orchestratord.subscriptions")

FOLDER = Path(__file__).parent / "portal"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".txt": "text/plain"}
MOST = 64 << 10
"""Bytes of a body."""
SESSION = "/session"
_HEADERS = {"Referrer-Policy": "no-referrer"}
"""Those beside what every answer at a port has."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)


class PortalLink(TypedDict):
    """A link to the portal."""

    url: Annotated[str, Field(examples=["https://hooks.example.com/#…"])]
    expires: Time


class PortalPort:
    """Answers at the portal's port by those of the `routes` that are about subscriptions."""

    def __init__(self, tenants: TenantRows, routes: Iterable[Route]) -> None:
        self._tenants = tenants
        mine = (route for route in routes if route.path.startswith(SUBSCRIPTIONS_PATH))
        self._routes = [(_pattern(route.path), route) for route in mine]
        self._files = {
            "/" + path.relative_to(FOLDER).as_posix(): (path.read_text(), TYPES[path.suffix])
            for path in FOLDER.rglob("*")
            if path.suffix in TYPES
        }
        self._files["/"] = self._files.pop("/index.html")

    @described(answers={201: PortalLink}, problems=[Conflict, NotFound])
    async def link(self, path: Mapping[str, str], query: Mapping[str, str], body: Any) -> Answer:
        """Make a link to the portal of a tenant, good for 15 minutes and one session of an hour."""
        tenant, settings = path["tenant"], self._tenants.settings
        if settings.portal is None:
            raise Conflict("there is no portal: write `portal:` below `subscriptions:`")
        row = await self._tenants.tenant(tenant)
        token = portal_token.PortalToken.new("link", tenant, row["created_at"])
        url = f"{settings.portal.url.rstrip('/')}/#{token.signed(settings.key[0])}"
        document: PortalLink = {"url": url, "expires": time_text(token.until)}
        done = Action("open portal of tenant", ENDPOINT, tenant)
        return Answer(document, 201, {"Cache-Control": "no-store"}, done=done)

    # -- at the port -------------------------------------------------------------------------------

    def admit(self, request: PortRequest) -> int | Answer:
        """How large the body may be, or what is answered without it."""
        if request.path in self._files:
            if request.method != "GET":
                return _refused(405, "method_not_allowed", "this is only read", Allow="GET")
            return self._file(request.path)
        if request.path != SESSION and self._session(request) is None:
            return _refused(401, "no_session", "the session has ended; open a new link")
        return MOST

    async def answer(self, request: PortRequest) -> Answer:
        """Answer what was admitted."""
        if request.path == SESSION:
            if request.method != "POST":
                return _refused(405, "method_not_allowed", "a session is begun by POST")
            return await self._begin(_json(request))
        session = self._session(request)
        if session is None or await self._tenant_of(session) is None:
            return _refused(401, "no_session", "the session has ended; open a new link")
        for pattern, route in self._routes:
            found = pattern.fullmatch(request.path)
            if found is None or route.method != request.method:
                continue
            path = {name: unquote(value) for name, value in found.groupdict().items()}
            if path["tenant"] != session.tenant:
                break
            asked: list[Any] = [path, dict(request.query), _json(request)]
            if route.caller:
                asked.append(Caller(f"tenant {session.tenant}", dict(request.headers)))
            answer = await route.handler(*asked)
            if answer.done is not None:
                done, tenant = answer.done, session.tenant
                log.info("tenant %s, in the portal: %s %s", tenant, done.name, done.webhook)
            answer.headers = {**answer.headers, **_HEADERS}
            return answer
        raise NotFound("there is no such thing")

    # -- within ------------------------------------------------------------------------------------

    def _file(self, path: str) -> Answer:
        content, type_ = self._files[path]
        portal = self._tenants.settings.portal
        framed = " ".join(portal.frame_origins if portal else ()) or "'none'"
        headers = {**_HEADERS, "Content-Security-Policy": _POLICY + framed}
        return Answer(content, headers=headers, media_type=type_)

    async def _begin(self, body: Any) -> Answer:
        """Exchange the token of a link for a session, once."""
        given = body.get("token") if isinstance(body, Mapping) else None
        settings = self._tenants.settings
        found = portal_token.read(given, "link", settings.key) if isinstance(given, str) else None
        row = None if found is None else await self._tenant_of(found)
        if found is None or row is None or (portal := settings.portal) is None:
            return _refused(401, "bad_link", "the link is no good any more; ask for a new one")
        key = {"nonce": found.nonce}
        used = Upsert(LINKS.name, key, {"at": int(world.time() * 1000)})
        try:
            absent = Upsert(LINKS.name, key, {"at": None})
            await self._tenants.control.write([used], expected=[absent])
        except Conflict:
            return _refused(401, "used_link", "the link was opened before; ask for a new one")
        session = portal_token.PortalToken.new("session", found.tenant, found.made_at)
        document = {
            "session": session.signed(settings.key[0]),
            "expires": time_text(session.until),
            "tenant": found.tenant,
            "name": row["name"] or found.tenant,
            "portal": {"name": portal.name, "colour": portal.colour},
            "events": public_events(self._tenants.control.config),
        }
        return Answer(document, headers=_HEADERS)

    def _session(self, request: PortRequest) -> portal_token.PortalToken | None:
        scheme, _, token = (request.header("authorization") or "").partition(" ")
        settings = self._tenants.settings
        if scheme.lower() != "bearer" or settings.portal is None:
            return None
        return portal_token.read(token, "session", settings.key)

    async def _tenant_of(self, token: portal_token.PortalToken) -> Row | None:
        """The row of its tenant; None where that is not the one that it was made for any more."""
        try:
            row = await self._tenants.tenant(token.tenant)
        except NotFound:
            return None
        return row if row["created_at"] == token.made_at else None


def public_events(config: Config) -> list[dict[str, str]]:
    """The events that tenants may choose: what they call each, and what it says."""
    found = {}
    for endpoint in config.endpoints.values():
        if any(webhook.subscribers is not None for webhook in endpoint[WEBHOOKS]):
            public = endpoint[PUBLIC]
            name = endpoint.id if public is None else public.name
            found[name] = "" if public is None else public.description
    return [{"name": name, "description": found[name]} for name in sorted(found)]


def _pattern(path: str) -> re.Pattern[str]:
    """What matches a path with names in braces."""
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


def _json(request: PortRequest) -> Any:
    """The body. Raises InvalidParams."""
    try:
        return json.loads(request.body) if request.body else None
    except (ValueError, RecursionError):
        raise InvalidParams({"body": "is not JSON"}) from None


def _refused(status: int, code: str, detail: str, **headers: str) -> Answer:
    document = {"status": status, "code": code, "detail": detail}
    return Answer(json.dumps(document), status, _HEADERS | headers, "application/problem+json")
