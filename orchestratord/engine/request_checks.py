"""What `check` says of a request, and of what judges its answers: what cannot be, and what looks as
if something else was meant."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestratord.config.validate.undefined_names import written
from orchestratord.engine.answer_rules import answer_rules
from orchestratord.engine.file_keys import FilePart, save_as
from orchestratord.errors import InvalidPayload, Problem
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.settings import FilesSettings
from orchestratord.values.durations import format_duration
from orchestratord.values.template import Template, TemplateTree

HTTP = "http"

_READS = ("GET", "HEAD")
# Each begins with a character, so that `re` looks for that first: a reload asks of all endpoints.
_SINGLE = re.compile(r"\{(?<!\{\{)\s*([A-Za-z_][\w.]*)\s*\}(?!\})")
_SEGMENT = re.compile(r"/:([A-Za-z_]\w*)(?=[/?]|$)")
"""A parameter in a path as other programs write it."""
_SHELL = re.compile(r"\$([A-Z][A-Z0-9_]{2,})\b")
_BARE = re.compile(r'(?<!"from": )"(\$?(params\.\w+))"(?!:)')
"""A whole text, in JSON, that names a parameter as an expression of `then` does."""
_ENVELOPE = re.compile(r"(?<![\w.])response\.(body|headers|status_code)\b")
"""As a webhook's `when` has it."""
_HOUR = 3600
"""Seconds; of longer timeouts, thousands that are no whole hours were meant as milliseconds."""
_QUOTES = "[\u2018-\u201f\u00ab\u00bb]"
_QUOTED = re.compile(rf"\A{_QUOTES}|{_QUOTES}\s*\{{\{{|\}}\}}\s*{_QUOTES}")
"""A value, or a template, within quotes that are no quotes in YAML."""


def problems(endpoint: Endpoint, files: FilesSettings) -> Iterator[Problem]:
    """What is wrong, or looks wrong, with an endpoint."""
    if endpoint.type != HTTP:
        why = "looks at answers by HTTP, and there are none here"
        if endpoint.retry.if_ is not None:
            yield Problem(why, key="retry.if", own=True)
        return
    if endpoint.spec.poll is not None and not endpoint.idempotent:
        yield Problem(
            "asks again and again, and a repeat is not safe here: poll by an endpoint of its "
            "own that reads, which `then` calls, or write idempotent: true",
            key="poll",
        )
    if endpoint.spec.target is not endpoint.spec.path and endpoint.spec.method not in _READS:
        yield Problem("takes all of it from a parameter for GET and HEAD only", key="path.from")
    for key, message in _file_faults(endpoint.spec, files):
        yield Problem(message, key=key)
    for key, message in _doubts(endpoint):
        yield Problem(message, key=key, severity="warning")


def _file_faults(spec: Any, files: FilesSettings) -> Iterator[tuple[str, str]]:
    """Each key that speaks of a file which cannot be read or written, and why."""
    body = spec.body
    reads = body is not None and (body.read_path or body.multipart)
    if reads and not files.read:
        key = "body.multipart" if body.multipart else "body.file"
        if body.read_path or any(isinstance(part, FilePart) for part in body.multipart.values()):
            yield key, "sends files, and none may be read: name folders in files.read"
    if body is not None and body.multipart and "content-type" in map(str.lower, spec.headers):
        yield "headers", "Content-Type is set by the client itself for multipart; leave it out"
    if spec.save is not None and spec.save.folder not in files.write:
        yield "save.folder", "is no folder of files.write in orchestratord.yaml"
    if spec.save is not None and spec.save.name.constant:
        try:
            save_as(spec.save, {})
        except InvalidPayload as error:
            yield "save.name", str(error).removeprefix("save.name: ")


def _doubts(endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    """Each key that looks wrong, and why."""
    templates = dict(_templates(endpoint.spec))
    for key, template in templates.items():
        yield from _doubtful(key, template, endpoint)
    for key in ("path", "query", "headers", "body"):
        for text, path in _BARE.findall(json.dumps(endpoint.shown.get(key))):
            yield key, f"{text} is sent as it stands: a template is {{{{ {path} }}}}"
    for key, expression in answer_rules(endpoint).named():
        if wrong := expression.capital_header:
            yield key, wrong
        if found := _ENVELOPE.search(expression.source):
            yield key, f"sees the answer itself: write {found[1]} for {found[0]}"
    for word in sorted(endpoint.spec.success.words):
        yield "success", f"{word} is never a success: write codes of answers, such as 2xx"
    body = endpoint.spec.body
    if body is not None and "method" not in endpoint.spec.model_fields_set:
        yield "body", "is sent with GET, as no method is written: write method: POST"
    if endpoint.timeout >= _HOUR and endpoint.timeout % 1000 == 0 and endpoint.timeout % _HOUR:
        given = format_duration(endpoint.timeout)
        yield "timeout", f"is {given}, as a number is in seconds: write its unit, as in 30s"
    if body is not None and body.json_ is not None and _is_json(body.json_.tree):
        yield "body.json", "is sent as one text: take the quotes around it away, for JSON is YAML"
    poll = endpoint.spec.poll
    if poll is not None and poll.every > poll.for_:
        yield "poll.every", f"exceeds `for`: the last look is after {format_duration(poll.for_)}"
    retry = endpoint.retry
    delay = getattr(retry.backoff, "delay", None)
    written_down = "max_delay" in retry.model_fields_set
    if written_down and isinstance(delay, float) and retry.max_delay < delay:
        longest, given = format_duration(retry.max_delay), format_duration(delay)
        message = f"is shorter than the delay of the backoff, {given}: each one is {longest}"
        yield "retry.max_delay", message
    yield from _nowhere_named(endpoint, templates)


def _templates(spec: Any) -> Iterator[tuple[str, Template | TemplateTree]]:
    """All that is rendered for each request, by its key."""
    yield "path", spec.target
    for part in ("query", "headers"):
        for name, template in getattr(spec, part).items():
            yield f"{part}.{name}", template
    if (body := spec.body) is not None:
        for name, template in (body.form or {}).items():
            yield f"body.form.{name}", template
        for name, part in (body.multipart or {}).items():
            for template in part.templates() if isinstance(part, FilePart) else (part,):
                yield f"body.multipart.{name}", template
        alone = {"body.text": body.text, "body.json": body.json_, "body.file": body.read_path}
        for key, template in alone.items():
            if template is not None:
                yield key, template
    if spec.save is not None:
        yield "save.name", spec.save.name


def _doubtful(
    key: str, template: Template | TemplateTree, endpoint: Endpoint
) -> Iterator[tuple[str, str]]:
    if isinstance(template, TemplateTree):
        return
    text = written(template)
    for name in _SINGLE.findall(text):
        path = name if "." in name else f"params.{name}"
        if path.startswith("params.") and (key == "path" or "." in name):
            yield key, f"{{{name}}} is sent as it stands: a template is {{{{ {path} }}}}"
    for name in _SEGMENT.findall(text) if key == "path" else ():
        yield key, f":{name} is sent as it stands: a template is {{{{ params.{name} }}}}"
    for name in _SHELL.findall(text):
        yield key, f"${name} is sent as it stands: a reference is ${{{name}}}"
    if not template.source.isascii() and _QUOTED.search(template.source):
        yield key, "its typographic quotes are sent along: quotes of YAML are ' and \""


def _is_json(value: Any) -> bool:
    """Whether a text holds an object or a list."""
    if isinstance(value, Template):
        return re.match(r"\s*(\[|\{(?!\{))", value.source) is not None
    with contextlib.suppress(ValueError):
        return isinstance(value, str) and isinstance(json.loads(value), dict | list)
    return False


def _nowhere_named(
    endpoint: Endpoint, templates: Mapping[str, Template | TemplateTree]
) -> Iterator[tuple[str, str]]:
    """Required parameters that nothing uses, neither the request nor what follows from it."""
    used = {path for template in templates.values() for path in template.paths}
    left = [
        name
        for name, param in endpoint.params.items()
        if param.required and not {"params", f"params.{name}"} & used
    ]
    if not left:
        return
    rest = json.dumps({key: value for key, value in endpoint.shown.items() if key != "params"})
    for name in left:
        if not re.search(rf"\bparams\b(?!\.(?!{re.escape(name)}\b))", rest):
            yield f"params.{name}", "is required, and nothing uses it"
