"""The core's own executor: the HTTP call of an endpoint with `type: http`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal
from urllib.parse import quote, unquote, urlencode

import httpx
from pydantic import Field, model_validator

from orchestratord.endpoint import SUCCESS, Api, Endpoint, Model
from orchestratord.engine.decoding import ACCEPT_ENCODING
from orchestratord.errors import InvalidPayload, SendError
from orchestratord.executor import Executor, Standing, Target
from orchestratord.hookspecs import hookimpl
from orchestratord.message import Outcome, Send
from orchestratord.settings import Config
from orchestratord.task import Task
from orchestratord.template import Template, TemplateTree, to_text
from orchestratord.values import StatusSet

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
IDEMPOTENT_METHODS = SAFE_METHODS | {"PUT", "DELETE"}
USER_AGENT = "orchestratord"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Body(Model):
    """The body of a request: one of `json`, `form`, `text`."""

    json_: TemplateTree | None = Field(None, alias="json")
    form: Mapping[str, Template] | None = None
    text: Template | None = None

    @model_validator(mode="after")
    def _one(self) -> Body:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of json, form and text")
        if "json_" not in self.model_fields_set and self.form is None and self.text is None:
            raise ValueError(f"{next(iter(self.model_fields_set))} is empty")
        return self


class HttpSpec(Model):
    """The keys of an endpoint with `type: http`."""

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: Template
    """Added to the API's base_url; values in it are percent-encoded, `/` included."""
    query: Mapping[str, Template] = {}
    """A value that renders to null is left out."""
    headers: Mapping[str, Template] = {}
    body: Body | None = None
    success: StatusSet = SUCCESS
    """Anything else is a failure."""


class HttpExecutor(Executor):
    """Makes the call, and judges the answer by `success` and `retry.when`."""

    kind: ClassVar[str] = "call"
    type: ClassVar[str] = "http"
    phases: ClassVar[tuple[str, str]] = ("before_request", "after_request")
    model: ClassVar[Any] = HttpSpec

    def default_idempotent(self, spec: HttpSpec) -> bool:
        """Whether a repeat is safe, where the endpoint does not say: false for POST and PATCH."""
        return spec.method in IDEMPOTENT_METHODS

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        return Target(
            endpoint=endpoint,
            retry=endpoint.retry,
            timeout=endpoint.timeout,
            idempotent=endpoint.idempotent,
            lane=f"api:{endpoint.api.name}",
            concurrency=endpoint.api.concurrency,
            egress=endpoint.api.egress,
        )

    def prepare(self, task: Task, target: Target, now: float) -> httpx.Request:
        try:
            return self._request(task, target.endpoint, self.context(task, now))
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            # Such as a parameter with half a surrogate pair, which no encoding can write.
            raise InvalidPayload(f"the request cannot be built: {error}") from None

    def _request(self, task: Task, endpoint: Endpoint, context: Mapping[str, Any]) -> httpx.Request:
        spec: HttpSpec = endpoint.spec
        headers = httpx.Headers(
            {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": ACCEPT_ENCODING}
        )
        for name, template in {**endpoint.api.headers, **spec.headers}.items():
            _set(headers, name, to_text(template.render(context)))
        _authorize(headers, endpoint.api)
        if spec.method not in SAFE_METHODS:
            headers.setdefault("Idempotency-Key", self._key(task))
        content = _content(spec.body, context, headers)
        url = _url(endpoint, spec, context)
        return httpx.Request(spec.method, url, headers=headers, content=content)

    async def execute(self, request: Any, task: Task, target: Target, send: Send) -> Outcome:
        retry, api = target.retry, target.endpoint.api
        success = target.endpoint.spec.success if target.endpoint.spec else SUCCESS
        # A kept-alive connection may be closed at the very moment of sending; whether the request
        # was carried out could then not be told.
        fresh, inline = not target.idempotent, retry.inline
        while True:
            try:
                response = await send(
                    request,
                    fresh=fresh,
                    follow_redirects=api.follow_redirects,
                    max_response=api.max_response,
                )
            except SendError as error:
                if error.stale and not fresh:
                    # It says nothing about the receiver, whatever `when` says about errors.
                    fresh = True
                    continue
                outcome = Outcome.from_error(error, when=retry.when)
            else:
                outcome = Outcome.from_response(response, success=success, when=retry.when)
            safe = target.idempotent or not outcome.maybe_done
            told_to_wait = retry.respect_retry_after and outcome.retry_after is not None
            if outcome.verdict != "retry" or not safe or told_to_wait or inline <= 0:
                return outcome
            fresh, inline = True, inline - 1

    def _key(self, task: Task) -> str:
        suffix = f"-{task.generation}" if task.generation else ""
        return f"{self.instance}-{task.id}{suffix}"


def _set(headers: httpx.Headers, name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise InvalidPayload(f"{name!r} is no name of a header")
    if any((character < " " and character != "\t") or character == "\x7f" for character in value):
        raise InvalidPayload(f"the header {name} would hold a control character")
    headers[name] = value


def _authorize(headers: httpx.Headers, api: Api) -> None:
    auth = api.auth
    if auth is None:
        return
    if auth.bearer is not None:
        _set(headers, "Authorization", f"Bearer {auth.bearer.reveal()}")
    if auth.basic is not None:
        pair = httpx.BasicAuth(auth.basic.username, auth.basic.password.reveal())
        headers["Authorization"] = pair._auth_header
    if auth.header is not None:
        _set(headers, auth.header.name, auth.header.value.reveal())


def _content(body: Body | None, context: Mapping[str, Any], headers: httpx.Headers) -> bytes | None:
    if body is None:
        return None
    if "json_" in body.model_fields_set:
        headers.setdefault("Content-Type", "application/json")
        value = body.json_.render(context) if body.json_ is not None else None
        try:
            text = json.dumps(
                value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=to_text
            )
        except (TypeError, ValueError) as error:
            raise InvalidPayload(f"body.json cannot be written as JSON: {error}") from None
        return text.encode()
    if body.form is not None:
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        return urlencode(list(_pairs(body.form, context))).encode()
    assert body.text is not None
    headers.setdefault("Content-Type", "text/plain; charset=utf-8")
    return to_text(body.text.render(context)).encode()


def _pairs(
    templates: Mapping[str, Template], context: Mapping[str, Any]
) -> Iterable[tuple[str, str]]:
    """Rendered names and values; a list gives its name once for each item, null none."""
    for name, template in templates.items():
        value = template.render(context)
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is not None:
                yield name, to_text(item)


def _url(endpoint: Endpoint, spec: HttpSpec, context: Mapping[str, Any]) -> str:
    path = spec.path.render(context, quote=lambda text: quote(text, safe=""))
    if not spec.path.constant:
        # A value of `..` would climb out of the path that the operator wrote; behind an encoded
        # slash too, which some servers decode first.
        for segment in re.split(r"[/\\]", unquote(path.split("?", 1)[0])):
            if segment in (".", ".."):
                raise InvalidPayload(f"a parameter would make the path {path!r} climb")
    # A request has no fragment: whoever writes the character means it.
    path = path.replace("#", "%23")
    base = (endpoint.api.base_url or "").rstrip("/")
    url = base + (path if path.startswith("/") else f"/{path}")
    pairs = list(_pairs(spec.query, context))
    if pairs:
        url += ("&" if "?" in url else "?") + urlencode(pairs, quote_via=quote)
    return url


class HttpPlugin:
    """The core's own registration, made like a plugin's."""

    @hookimpl
    def register_executor(self) -> Iterable[Executor]:
        """Calls of endpoints with `type: http`."""
        return (HttpExecutor(),)
