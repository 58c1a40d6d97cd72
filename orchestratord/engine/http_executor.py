"""The core's own executor: the HTTP call of an endpoint with `type: http`."""

from __future__ import annotations

import json
import re
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote, unquote, urlencode

import httpx
from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from pydantic_core import to_json

from orchestratord.engine.answer_rules import answer_rules
from orchestratord.engine.answer_saving import SAVE_AS
from orchestratord.engine.file_keys import (
    FilePart,
    FileToSend,
    SaveRule,
    media_type,
    multipart,
    save_as,
)
from orchestratord.engine.file_transfer import BODY_PARTS, with_files
from orchestratord.engine.request_checks import problems
from orchestratord.engine.retry_delay import parse_reset
from orchestratord.errors import InvalidPayload, Problem, Reject, SendError, SendErrorKind
from orchestratord.http.error_message import error_message
from orchestratord.http.response_parser import ACCEPT_ENCODING
from orchestratord.model.answer_expression import AnswerExpression, ErrorMessage
from orchestratord.model.declared import Model
from orchestratord.model.endpoint import SUCCESS, Endpoint
from orchestratord.model.http_message import BODY_FILE, Form, Request, origin_of
from orchestratord.model.outcome import Outcome, Send, is_over_quota
from orchestratord.model.poll_rule import PollRule
from orchestratord.model.quota import Quota
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config, FilesSettings
from orchestratord.model.task import Task
from orchestratord.plugin.executor import Executor, Standing, Target
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.values import world
from orchestratord.values.attached_file import BodyFile
from orchestratord.values.redact import Redactor
from orchestratord.values.status_set import StatusSet
from orchestratord.values.template import JsonText, Template, TemplateTree, checked_name, to_text

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
IDEMPOTENT_METHODS = SAFE_METHODS | {"PUT", "DELETE"}
FINAL_KINDS: frozenset[SendErrorKind] = frozenset({"certificate", "access"})
"""Ways in which no answer comes that no repeat mends: an operator has to look."""
USER_AGENT = "orchestratord"
KEY = "Idempotency-Key"
"""The header by which a receiver tells a repeat."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_JSON = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=to_text
)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class SentFile(BodyFile):
    """A file of the config folder; or, where there is a template in it, one of `files.read`."""

    __slots__ = ()
    json_schema: ClassVar[Mapping[str, Any]] = {
        **BodyFile.json_schema,
        "description": "the path of a file in the config folder, relative to it; with a template "
        "in it that of a file in a folder of files.read, which is read when it is sent",
    }

    @classmethod
    def parse(cls, value: Any, info: ValidationInfo) -> Any:
        """A file that is read now, or the template of a path."""
        if isinstance(value, str) and "{{" in value:
            return Template.parse(value)
        made = isinstance(value, BodyFile | Template)
        return value if made else super().parse(value, info)


def _plain_keys(json: TemplateTree) -> TemplateTree:
    """Raises ValueError where a key looks like a template."""
    waiting = [json.tree]
    for one in waiting:  # and what is added meanwhile
        if isinstance(one, Mapping):
            waiting += [one[checked_name(key)] for key in one]
        elif isinstance(one, list):
            waiting += one
    return json


FieldName = Annotated[str, AfterValidator(checked_name)]


class HttpBody(Model):
    """The body of a request: one of `json`, `form`, `text`, `file`, `multipart`."""

    json_: Annotated[TemplateTree, AfterValidator(_plain_keys)] | None = Field(None, alias="json")
    """JSON; each text in it is a template."""
    form: Mapping[FieldName, Template] | None = None
    """Fields of a form, as `application/x-www-form-urlencoded`."""
    text: Template | None = None
    """A template, whose result is the body."""
    file: SentFile | None = None
    """The file to send, relative to the config folder. With a template, a file in a folder of
    files.read, which the daemon reads while it sends."""
    multipart: Mapping[FieldName, Template | FilePart] | None = None
    """The fields of a form with files in it, as `multipart/form-data`: texts, and {path: …}."""

    @property
    def read_path(self) -> Template | None:
        """The path of a file that is read while it is sent."""
        found: Any = self.file
        return found if isinstance(found, Template) else None

    @property
    def attached(self) -> BodyFile | None:
        """A file of the config folder."""
        return self.file if self.read_path is None else None

    @property
    def content_type(self) -> str:
        """What the Content-Type header says where the endpoint says nothing."""
        if "json_" in self.model_fields_set:
            return "application/json"
        if self.form is not None:
            return "application/x-www-form-urlencoded"
        if self.multipart is not None:
            return "multipart/form-data"
        if self.file is not None:
            return media_type(self.file.name if self.read_path is None else self.read_path.source)
        return "text/plain; charset=utf-8"

    def templates(self) -> Iterable[Template | TemplateTree]:
        """All that is rendered for each request."""
        one = self.json_ or self.text or self.read_path
        if one is not None:
            return (one,)
        parts = (self.multipart or {}).values()
        in_parts = (part.templates() if isinstance(part, FilePart) else (part,) for part in parts)
        return (*(self.form or {}).values(), *chain.from_iterable(in_parts))

    @model_validator(mode="after")
    def _one(self) -> HttpBody:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of json, form, text and file; or multipart")
        one = next(iter(self.model_fields_set))
        if one != "json_" and getattr(self, one) is None:
            raise ValueError(f"{one} is empty")
        return self


class ParamPath(Template):
    """The dotted path of a parameter, `params.location`: a template of nothing else."""

    __slots__ = ()
    json_schema: ClassVar[Mapping[str, Any]] = {"type": "string", "pattern": r"^params(\.\w+)+$"}

    @classmethod
    def parse(cls, value: Any) -> ParamPath:
        """Raises ValueError where it is no such path."""
        if not isinstance(value, str) or not re.fullmatch(r"params(\.[A-Za-z_]\w*)+", value):
            raise ValueError("names a parameter, such as params.location")
        return cls(f"{{{{ {value} }}}}")

    def written(self) -> str:
        return ".".join(self.path or ())


class WholeTarget(Model):
    """A parameter that has the whole URL of the request."""

    from_: ParamPath = Field(alias="from")
    """The parameter, such as params.location: a URL of base_url's origin, or relative to it."""


class HttpSpec(Model):
    """The keys of an endpoint with `type: http`."""

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """The method of the request."""
    path: Template | WholeTarget
    """The path after the API's base_url. Values in it are percent-encoded, `/` included. For GET
    and HEAD, {from: params.location} takes the whole URL from a parameter."""
    query: Mapping[FieldName, Template] = {}
    """The parameters of the query. A value that renders to null leaves one out."""
    headers: Mapping[str, Template] = {}
    """Headers of the request; they override the API's. A value that renders to null leaves one
    out."""
    body: HttpBody | None = None
    """The body of the request: `json`, `form`, `text`, `file` or `multipart`."""
    save: SaveRule | None = None
    """The file for the body of a 2xx answer: {folder: …, name: …}."""
    success: StatusSet = SUCCESS
    """Status codes of success, such as 2xx; all others are failures."""
    success_if: AnswerExpression | None = None
    """JMESPath over the answer, `{status_code, headers, body, text}`, or its body alone: false
    means no success."""
    fail_if: AnswerExpression | None = None
    """JMESPath over the answer: true means failed for good, whatever the status code."""
    poll: PollRule | None = None
    """Asks again while an answer says not done yet: {until: …}."""
    error_message: ErrorMessage | None = None
    """JMESPath to the error text in a failed answer, `{status_code, headers, body, text}`, such as
    body.error.message. By default that of api.yaml, or the usual places."""

    @property
    def target(self) -> Template:
        """What is rendered of `path`."""
        return self.path.from_ if isinstance(self.path, WholeTarget) else self.path


class HttpExecutor(Executor):
    """Makes the call, and judges the answer by `success` and `retry.when`."""

    kind: ClassVar[str] = "call"
    type: ClassVar[str] = "http"
    phases: ClassVar[tuple[str, str]] = ("before_request", "after_request")
    model: ClassVar[Any] = HttpSpec
    only_sends: ClassVar[bool] = True

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
            detail=Planned(endpoint, config.redactor, config.daemon.files),
            rate=endpoint.api.rate_limit,
            access=None if endpoint.api.plain else endpoint.api,
            global_concurrency=endpoint.api.global_concurrency,
        )

    def evaluates(self, target: Target) -> bool:
        return bool(target.detail.plan.evaluates)

    def prepare(self, task: Task, target: Target, now: float) -> httpx.Request:
        try:
            plan: RequestPlan = target.detail.plan
            context = self.context(task, now) if plan.wants_all else {"params": task.params}
            if plan.form is None:
                request = self._rendered(task, plan, context)
            else:
                key = (self._key(task),) if plan.keyed else ()
                request = plan.form.request(_content(plan, context) or b"", key)
            if plan.body_file is not None:
                request.extensions[BODY_FILE] = plan.body_file
            if plan.transfers:
                _name_files(request, plan.spec, context)
            return request
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            # Such as a parameter with half a surrogate pair, which no encoding can write.
            raise InvalidPayload(f"the request cannot be built: {error}") from None

    def _rendered(self, task: Task, plan: RequestPlan, context: Mapping[str, Any]) -> httpx.Request:
        if plan.problem is not None:
            raise InvalidPayload(plan.problem)
        headers = dict(plan.headers)
        for name, template in plan.rendered:
            value = template.render(context)
            if value is None:
                del headers[name]
            else:
                headers[name] = checked(name, to_text(value))
        if plan.keyed:
            headers[KEY] = self._key(task)
        content, url = _content(plan, context), _url(plan, context)
        return Request(plan.spec.method, url, headers=headers, content=content)

    def execute(
        self, request: Any, task: Task, target: Target, send: Send
    ) -> Coroutine[Any, Any, Outcome]:
        if not target.detail.plan.transfers:  # as nearly all, for which this is no step more
            return self._call(request, target, send)
        call = partial(self._call, request, target)
        return with_files(request, target, target.detail.files, send, call)

    async def _call(self, request: Any, target: Target, send: Send) -> Outcome:
        retry, endpoint = target.retry, target.endpoint
        api, spec = endpoint.api, endpoint.spec
        success = SUCCESS if spec is None else spec.success
        rules = target.detail.plan.rules
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
                if error.kind in FINAL_KINDS:
                    outcome = replace(outcome, verdict="failure", final_reason="not_retryable")
            else:
                outcome = Outcome.from_response(response, success=success, when=retry.when)
                if rules is not None:
                    outcome = await rules.judge(outcome)
                if api.quota is not None:
                    outcome = _with_quota(outcome, api.quota, retry, int(self.now() * 1000))
                if outcome.verdict == "success":
                    return outcome
            safe = target.idempotent or not outcome.maybe_done
            told_to_wait = retry.respect_retry_after and outcome.retry_after is not None
            told_to_wait = told_to_wait or outcome.quota_until is not None
            final = outcome.verdict != "retry" or outcome.look
            if final or not safe or told_to_wait or inline <= 0:
                if outcome.response is None:
                    return outcome
                where = (spec and spec.error_message) or api.error_message
                said = await error_message(outcome.response, where, target.detail.redactor)
                if said is None:
                    return outcome
                return replace(outcome, error=f"{outcome.error}: {said}")
            fresh, inline = True, inline - 1

    def repeat_key(self, task: Task, endpoint: Endpoint) -> str | None:
        """The Idempotency-Key of its requests; None where they have none, or one of their own."""
        return self._key(task) if RequestPlan(endpoint).keyed else None

    def _key(self, task: Task) -> str:
        """The Idempotency-Key: stable over attempts, and never that of another task."""
        if task.nonce is not None:
            return task.nonce
        suffix = f"-{task.generation}" if task.generation else ""
        return f"{self.instance}-{task.id}{suffix}"


def _with_quota(outcome: Outcome, quota: Quota, retry: RetryPolicy, now: int) -> Outcome:
    """An outcome with until when nothing is left, where its answer says so; a refusal for that is
    tried again, whatever its code. `now` in milliseconds since the epoch."""
    if outcome.response is None or (reset := quota.reset_of(outcome.response)) is None:
        return outcome
    seconds = parse_reset(reset, now)
    if not seconds:
        return outcome  # it is past, or cannot be read
    until = now + round(min(seconds, retry.max_retry_after) * 1000)
    outcome = replace(outcome, quota_until=until)
    if outcome.verdict == "failure" and outcome.final_reason is None and is_over_quota(outcome):
        return replace(outcome, verdict="retry")
    return outcome


class Planned:
    """The plan of an endpoint, made for its first request: a reload looks at thousands."""

    def __init__(self, endpoint: Endpoint, redactor: Redactor, files: FilesSettings) -> None:
        self._endpoint = endpoint
        self.redactor = redactor
        self.files = files

    @cached_property
    def plan(self) -> RequestPlan:
        """Made where it is asked for first."""
        return RequestPlan(self._endpoint)


class RequestPlan:
    """What the requests of one endpoint have in common, worked out once.

    Args:
        endpoint: of `type: http`.
    """

    __slots__ = tuple(
        "base body_file evaluates form headers json keyed problem rendered rules spec "
        "transfers wants_all".split()
    )

    def __init__(self, endpoint: Endpoint) -> None:
        spec: HttpSpec = endpoint.spec
        self.spec = spec
        self.base = (endpoint.api.base_url or "").rstrip("/")
        self.headers: dict[str, str] = {}
        """In the order of the wire; those of `rendered` keep their place."""
        self.rendered: list[tuple[str, Template]] = []
        """Headers that differ from request to request."""
        self.problem: str | None = None
        """Why no request can be made."""
        try:
            self._collect(endpoint, spec)
        except InvalidPayload as error:
            self.problem = str(error)
        self.keyed = spec.method not in SAFE_METHODS and not self._has(KEY.lower())
        if spec.body is not None and not self._has("content-type"):
            self.headers["Content-Type"] = spec.body.content_type
        headers = [template for _, template in self.rendered]
        body = spec.body.templates() if spec.body is not None else ()
        saved = () if spec.save is None else (spec.save.name,)
        templates = (spec.target, *spec.query.values(), *headers, *body, *saved)
        self.wants_all = any(template.names - {"params"} for template in templates)
        """Whether a template uses more than the parameters."""
        self.evaluates = any(template.computed for template in templates)
        """Whether an expression in it is more than a path, and may cost something."""
        self.json: JsonText | None = None
        if spec.body is not None and spec.body.json_ is not None:
            try:
                self.json = JsonText(spec.body.json_, _json)
            except (TypeError, ValueError) as error:
                self.problem = self.problem or f"body.json cannot be written as JSON: {error}"
        rules = answer_rules(endpoint)
        self.rules = rules if any(rules.named()) else None
        attached = spec.body.attached if spec.body else None
        self.body_file = attached.name if attached else None
        """The name of the file that the body is, if it is one."""
        streams = spec.body is not None and (spec.body.read_path or spec.body.multipart)
        self.transfers = bool(spec.save or streams)
        """Whether the body is read while it is sent, or the answer is saved."""
        self.form: Form | None = None
        """Where nothing but the body differs from request to request."""
        alike = spec.target.constant and not spec.query and not self.rendered
        if alike and spec.body is not None and self.problem is None and not streams:
            # What is wrong with it is told of each request.
            with suppress(httpx.InvalidURL, ValueError, InvalidPayload):
                own = (KEY,) if self.keyed else ()
                self.form = Form(spec.method, _url(self, {}), self.headers, own)

    def _collect(self, endpoint: Endpoint, spec: HttpSpec) -> None:
        usual = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": ACCEPT_ENCODING}
        for name, text in usual.items():
            self._put(name, text)
        for name, template in {**endpoint.api.headers, **spec.headers}.items():
            self._set(name, template)
        if endpoint.api.auth is not None:
            self._put(*endpoint.api.auth.sent)

    def _has(self, name: str) -> bool:
        return any(known.lower() == name for known in self.headers)

    def _put(self, name: str, value: str) -> None:
        known = next((known for known in self.headers if known.lower() == name.lower()), name)
        self.rendered = [pair for pair in self.rendered if pair[0] != known]
        self.headers[known] = checked(name, value)

    def _set(self, name: str, template: Template) -> None:
        if template.constant:
            self._put(name, to_text(template.render({})))
            return
        self._put(name, "")
        known = next(known for known in self.headers if known.lower() == name.lower())
        self.rendered.append((known, template))


def checked(name: str, value: str) -> str:
    """The value of a header. Raises InvalidPayload where it or its name cannot be one."""
    if not _TOKEN.fullmatch(name):
        raise InvalidPayload(f"{name!r} is not the name of a header")
    if _CONTROL.search(value):
        raise InvalidPayload(f"the header {name} would hold a control character")
    return value


def _json(value: Any) -> bytes:
    kind = type(value)
    try:
        # An encoder sets itself up for each value that is no text.
        if kind is int:
            return b"%d" % value
        if kind is str:
            return to_json(value)  # the same, of a long one in a third of the time
    except ValueError:
        pass  # half a surrogate pair, or a number of very many digits: told in Python's words
    return _JSON.encode(value).encode()


def _content(plan: RequestPlan, context: Mapping[str, Any]) -> bytes | None:
    if plan.json is not None:
        try:
            return plan.json.render(context)
        except UnicodeEncodeError:
            raise  # half a surrogate pair: `prepare` says so
        except (TypeError, ValueError) as error:
            raise InvalidPayload(f"body.json cannot be written as JSON: {error}") from None
    body = plan.spec.body
    if body is None:
        return None
    if "json_" in body.model_fields_set:
        return b"null"
    if body.form is not None:
        return urlencode(list(_pairs(body.form, context))).encode()
    if body.attached is not None:
        return body.attached.content
    if body.text is None:  # it is read while it is sent
        return None
    return to_text(body.text.render(context)).encode()


def _name_files(request: httpx.Request, spec: HttpSpec, context: Mapping[str, Any]) -> None:
    """Say in a request which files it is sent from, and where its answer goes."""
    body = spec.body
    if body is not None and body.read_path is not None:
        path = to_text(body.read_path.render(context))
        request.extensions |= {BODY_FILE: path, BODY_PARTS: [FileToSend(path)]}
    elif body is not None and body.multipart is not None:
        boundary = world.token_hex(16)
        request.extensions[BODY_PARTS] = multipart(body.multipart, context, boundary)
        request.headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
    if spec.save is not None:
        request.extensions[SAVE_AS] = save_as(spec.save, context)


def _pairs(
    templates: Mapping[str, Template], context: Mapping[str, Any]
) -> Iterable[tuple[str, str]]:
    """Rendered names and values; a list gives its name once for each item, null none."""
    for name, template in templates.items():
        value = template.render(context)
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is not None:
                yield name, to_text(item)


def _url(plan: RequestPlan, context: Mapping[str, Any]) -> str:
    spec = plan.spec
    if isinstance(spec.path, WholeTarget):
        url = _whole(plan.base, spec.path.from_.render(context))
    else:
        url = plan.base + _path(spec.path, context)
    pairs = list(_pairs(spec.query, context)) if spec.query else []
    if pairs:
        url += ("&" if "?" in url else "?") + urlencode(pairs, quote_via=quote)
    return url


def _whole(base: str, target: Any) -> str:
    """A URL that a parameter holds, as an answer's Location does. Raises Reject for one of another
    origin, which would be sent this one's credentials."""
    try:
        url = httpx.URL(f"{base}/").join(target)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise Reject(f"path.from: {str(target)[:200]!r} is no URL: {error}") from None
    if origin_of(url) != origin_of(httpx.URL(base)) or url.userinfo:
        raise Reject(f"path.from: {target[:200]!r} is not of the origin of base_url, {base}")
    return str(url.copy_with(fragment=None))


def _path(template: Template, context: Mapping[str, Any]) -> str:
    path: str = template.render(context, quote=_quoted)
    if not template.constant and ("." in path or "%" in path):
        # A value of `..` would climb out of the path that the operator wrote; behind an encoded
        # slash too, which some servers decode first.
        for segment in re.split(r"[/\\]", unquote(path.split("?", 1)[0])):
            if segment in (".", ".."):
                raise InvalidPayload(f"a parameter would make the path {path!r} climb")
    # A request has no fragment: the character is meant as part of the path.
    path = path.replace("#", "%23")
    return path if path.startswith("/") else f"/{path}"


def _quoted(text: str) -> str:
    return quote(text, safe="")


class HttpPlugin:
    """The core's own registration, made like a plugin's."""

    @hookimpl
    def register_executor(self) -> Iterable[Executor]:
        """Calls of endpoints with `type: http`."""
        return (HttpExecutor(),)

    @hookimpl
    def check_endpoint(self, endpoint: Endpoint, config: Config) -> Iterator[Problem]:
        """What is wrong, or looks wrong, with a request and with what judges its answers."""
        return problems(endpoint, config.daemon.files)
