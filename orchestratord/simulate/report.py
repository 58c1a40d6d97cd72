"""What is to be said of one attempt: as objects, and as data for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from orchestratord.engine.file_transfer import BODY_PARTS
from orchestratord.engine.retry import Decision
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.model.http_message import BODY_FILE
from orchestratord.model.outcome import Outcome, Statement
from orchestratord.model.task import Explanation, Status, Task
from orchestratord.plugin.executor import Target
from orchestratord.values.redact import Redactor

OUTCOMES = {Status.SUCCEEDED: "succeeded", Status.PENDING: "retry", Status.FAILED: "failed"}
"""What becomes of a task, as `tests:` names it."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """Something that follows, or does not. `request`: what would be sent for it, if anything."""

    plugin: str
    explanation: Explanation
    request: Any = None
    error: str | None = None
    """Why there is no request where there should be one."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an expression found in the answer; `value` is None where it cannot be told."""

    key: str
    expression: str
    value: Any
    error: str | None = None
    """Why it cannot be told."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that can be said of one attempt."""

    endpoint: Endpoint
    task: Task
    """As it stands after the attempt."""
    target: Target
    request: Any
    """None where it cannot be prepared; then `outcome` says why."""
    hooks: Mapping[str, Sequence[str]]
    """The before_ and the after_ phase → the plugins that may decide otherwise there."""
    outcome: Outcome | None
    """None where no answer was given."""
    decision: Decision | None
    """With the delay before jitter."""
    span: tuple[float, float] | None
    """The shortest and the longest delay that jitter makes of it."""
    reached: tuple[str, ...]
    """The phases that the attempt goes through."""
    asked: tuple[str, ...]
    """The phases that `consequences` is about."""
    consequences: tuple[Consequence, ...]
    expressions: tuple[Found, ...] = ()
    """What those found that judge the answer."""
    notes: tuple[str, ...] = ()
    """What plugins did wrong meanwhile."""

    def document(self, redactor: Redactor) -> dict[str, Any]:
        """All of it as JSON-like data, secrets masked."""
        outcome, decision = self.outcome, self.decision
        return {
            "endpoint": self.endpoint.id,
            "enabled": self.endpoint.enabled,
            "attempt": self.task.attempts,
            "max_attempts": self.target.retry.max_attempts,
            "params": redactor.data.value(self.task.params),
            "partition": redactor.data.value(self.task.partition),
            "request": with_curl(
                request_json(self.request, redactor),
                [(name, redactor.text(value)) for name, value in _reaching(self.endpoint.api)],
            ),
            "hooks": {phase: list(plugins) for phase, plugins in self.hooks.items()},
            "status_code": outcome.status_code if outcome else None,
            "error": redactor.value(outcome.error) if outcome else None,
            "expressions": [redactor.data.value(asdict(one)) for one in self.expressions],
            "rate_limit": None if self.target.rate is None else str(self.target.rate),
            "decision": None
            if decision is None
            else {
                "outcome": OUTCOMES[decision.status],
                "reason": decision.reason,
                "covered": outcome is not None and outcome.status_code in self.target.retry.when,
                "why": redactor.text(decision.why),
                "delay": decision.delay,
                "shortest": self.span[0] if self.span else None,
                "longest": self.span[1] if self.span else None,
            },
            "reached": list(self.reached),
            "phases": list(self.asked),
            "consequences": [_consequence(item, redactor) for item in self.consequences],
            "notes": [redactor.text(note) for note in self.notes],
        }


def _consequence(item: Consequence, redactor: Redactor) -> dict[str, Any]:
    explanation = item.explanation
    partition = explanation.task.partition if explanation.task else None
    request = request_json(item.request, redactor)
    if request is not None:
        request["added"] = list(explanation.adds)
    return {
        "plugin": item.plugin,
        "kind": explanation.kind,
        "name": explanation.name,
        "phase": explanation.phase,
        "happens": explanation.happens,
        "why": redactor.text(explanation.why),
        "partition": partition and redactor.data.text(partition.value),
        "request": request,
        "error": redactor.value(item.error),
    }


def request_json(request: Any, redactor: Redactor) -> dict[str, Any] | None:
    """A prepared request: method, URL, headers and body, secrets masked; None for none."""
    if request is None:
        return None
    if isinstance(request, Statement):
        return {
            "database": request.database,
            "statement": redactor.text(request.text),
            "params": redactor.data.value(dict(request.params)),
        }
    if not isinstance(request, httpx.Request):
        return {"statement": redactor.text(str(request))}
    headers: dict[str, str] = {}
    for name, value in redactor.headers(_pairs(request)):
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    shown: dict[str, Any] = {
        "method": request.method,
        "url": redactor.text(str(request.url)),
        "headers": headers,
        "body": None,
    }
    if BODY_FILE in request.extensions:
        # It may be large, and no text at all.
        shown["body_file"] = redactor.text(request.extensions[BODY_FILE])
    elif (parts := request.extensions.get(BODY_PARTS)) is not None:
        texts = [p.decode() if isinstance(p, bytes) else f"(what is in {p.path})" for p in parts]
        shown["body"] = redactor.data.text("".join(texts))
    else:
        shown["body"] = redactor.data.text(request.content.decode(errors="replace")) or None
    return shown


def with_curl(
    request: dict[str, Any] | None, options: Sequence[tuple[str, str]] = ()
) -> dict[str, Any] | None:
    """A request with `curl`, its command line, where it is one of HTTP; `options` are further
    ones of curl."""
    if request is not None and "method" in request:
        request["curl"] = curl(**request, options=options)
    return request


def _reaching(api: Api) -> Iterator[tuple[str, str]]:
    """How curl is told to reach an API as the daemon does."""
    if api.proxy is not None:
        yield "--proxy", str(api.proxy)
    if api.tls is not None:
        files = {"--cacert": api.tls.ca, "--cert": api.tls.cert, "--key": api.tls.key}
        yield from ((option, file.name) for option, file in files.items() if file is not None)


def _pairs(request: httpx.Request) -> list[tuple[str, str]]:
    """Names as they are written, which httpx gives only raw."""
    encoding = request.headers.encoding
    return [(name.decode(encoding), value.decode(encoding)) for name, value in request.headers.raw]


# -- A request as a command line of curl, to try it manually ---------------------------

_BY_CURL = frozenset({"host", "content-length", "accept-encoding"})
"""Headers that curl sets by itself."""


def curl(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: str | None,
    body_file: str | None = None,
    options: Sequence[tuple[str, str]] = (),
) -> str:
    """The command line, one option a line; what is masked has to be filled in.

    Args:
        method: of the request, as are `url`, `headers` and `body`.
        body_file: instead of `body`, the file that holds it.
        options: further ones, such as ("--proxy", "http://proxy.example.com:3128").
    """
    lines = ["curl"]
    if method == "HEAD":
        lines[0] += " --head"
    elif method != "GET" or body or body_file:
        lines[0] += f" -X {method}"
    if any(character in url for character in "[]{}"):
        lines[0] += " --globoff"
    lines[0] += f" {shlex.quote(url)}"
    for name, value in headers.items():
        if name.lower() not in _BY_CURL:
            # Without a value curl would leave the header out; this is how it is told to send one.
            lines.append("-H " + shlex.quote(f"{name}: {value}" if value else f"{name};"))
    if any(name.lower() == "accept-encoding" for name in headers):
        lines.append("--compressed")
    lines += [f"{name} {shlex.quote(value)}" for name, value in options]
    if body_file:
        lines.append(f"--data-binary {shlex.quote(f'@{body_file}')}")
    elif body:
        lines.append(f"--data-raw {shlex.quote(body)}")
    return " \\\n  ".join(lines)
