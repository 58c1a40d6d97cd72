"""Operations and APIs as commented YAML.

Whatever comes out of a document is data here: a text in quotes, or a comment of printable
characters. What could be read as a reference or a template is written so that it is none.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orchestratord import flow_yaml
from orchestratord_openapi.openapi_document import MISSING, OpenApiDocument, text
from orchestratord_openapi.openapi_operation import ImportedOperation, ImportedParam
from orchestratord_openapi.security_schemes import SecurityScheme

_NO_HOST = "https://api.example.com"
"""Written where a document names no host."""

_WIDTH = 98
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_READ_OTHERWISE = frozenset({"true", "false", "null"})
_SCHEMA = "# yaml-language-server: $schema={}.schema/{}.json"


def endpoint_text(operation: ImportedOperation, schemes: Iterable[SecurityScheme]) -> str:
    """An endpoint's file, but for the line that says where it comes from."""
    request = operation.request
    lines = [_SCHEMA.format("../../../", "endpoint")]
    for paragraph in operation.about:
        lines += ["#", *comment(paragraph)]
    for problem in request.problems:
        lines += ["#", *comment(f"Not imported: {problem}.")]
    lines.append("")
    if request.obstacle is not None:
        lines.append("enabled: false")
    if operation.method != "GET":
        lines.append(f"method: {operation.method}")
    lines.append(f"path: {scalar(request.path)}")
    lines += _params(request.params)
    lines += _mapping("query", request.query)
    for scheme in schemes:
        if scheme.query is not None:
            entry = f"{scalar(scheme.query[0])}: {scalar(scheme.query[1])}"
            lines.append(f"  # {entry}" if request.query else f"# query: {{{entry}}}")
    lines += _mapping("headers", request.headers)
    if request.body is not None:
        kind, value = request.body
        if isinstance(value, str):
            lines.append(f"body: {{{kind}: {scalar(value)}}}")
        else:
            lines += ["body:", *(f"  {line}" for line in _mapping(kind, value))]
    if operation.success:
        lines.append(f"success: [{', '.join(operation.success)}]")
    return "\n".join(lines) + "\n"


def api_text(document: OpenApiDocument, schemes: Iterable[SecurityScheme]) -> str:
    """An api.yaml, but for the line that says where it comes from."""
    info = document.root.get("info")
    version = text(info.get("version")) if isinstance(info, Mapping) else ""
    lines = [_SCHEMA.format("../../", "api")]
    lines += ["#", *comment(f"{document.title or 'An API'} {version}".strip())]
    lines.append("")
    url = document.base_url()
    if url is None:
        lines += comment("The document names no host; write it here.")
        url = _NO_HOST + document.base_path()
    lines.append(f"base_url: {scalar(escaped(url))}")
    alike: dict[tuple[tuple[str, ...], str], list[str]] = {}
    variables: dict[tuple[str, ...], str] = {}
    for scheme in schemes:
        alike.setdefault((scheme.lines, scheme.about), []).append(text(scheme.name))
        *others, last = [f"${name}" for name in scheme.variables] or [""]
        named = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        variables[scheme.lines] = named
    for (auth, about), names in alike.items():
        lines += ["", *comment(f"{', '.join(names)}: {about}.")]
        if auth:
            lines += comment(f"Take the # away once {variables[auth]} set:")
            lines += [f"# {line}" for line in auth]
    return "\n".join(lines) + "\n"


def comment(words: str) -> list[str]:
    """A text as lines of a comment."""
    return [
        f"# {line}"
        for line in textwrap.wrap(words, _WIDTH, break_on_hyphens=False, break_long_words=False)
    ]


def scalar(value: Any) -> str:
    """A value as it stands in YAML: plain where it can be nothing else, else as JSON writes it."""
    word = isinstance(value, str) and _WORD.fullmatch(value) is not None
    if word and value.lower() not in _READ_OTHERWISE:
        return str(value)
    return flow_yaml.visible(flow_yaml.json_text(value))


def escaped(value: Any) -> Any:
    """JSON-like data in which no text is a reference."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {str(key): escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value


def _params(params: Iterable[ImportedParam]) -> Iterator[str]:
    for number, param in enumerate(params):
        if number == 0:
            yield "params:"
        said = {
            "type": param.type,
            "required": True if param.required else None,
            "description": escaped(param.description) or None,
        }
        inner = [f"    {key}: {scalar(value)}" for key, value in said.items() if value is not None]
        if param.default is not MISSING:
            inner.append(f"    default: {scalar(escaped(param.default))}")
        yield f"  {scalar(param.name)}:" + ("" if inner else " {}")
        yield from inner


def _mapping(key: str, entries: Mapping[str, Any]) -> Iterator[str]:
    if entries:
        yield f"{key}:"
    for name, value in entries.items():
        yield f"  {scalar(name)}: {scalar(value)}"
