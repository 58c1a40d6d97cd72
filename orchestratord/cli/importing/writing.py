"""Operations and APIs as commented YAML.

Whatever comes out of a document is data here: a text in quotes, or a comment of printable
characters. What could be read as a reference or a template is written so that it is none.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orchestratord.cli.importing.access import NOWHERE, Scheme, base_path, base_url
from orchestratord.cli.importing.arguments import Argument
from orchestratord.cli.importing.document import Document, text
from orchestratord.cli.importing.operation import Operation
from orchestratord.cli.importing.schemas import MISSING

_WIDTH = 98
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_READ_OTHERWISE = frozenset({"true", "false", "null"})
_SCHEMA = "# yaml-language-server: $schema={}.schema/{}.json"


def endpoint_text(operation: Operation, schemes: Iterable[Scheme]) -> str:
    """An endpoint's file, but for the line that says where it comes from."""
    lines = [_SCHEMA.format("../../../", "endpoint")]
    for paragraph in operation.about:
        lines += ["#", *comment(paragraph)]
    for problem in operation.problems:
        lines += ["#", *comment(f"Not imported: {problem}.")]
    lines.append("")
    if operation.obstacle is not None:
        lines.append("enabled: false")
    if operation.method != "GET":
        lines.append(f"method: {operation.method}")
    lines.append(f"path: {scalar(operation.path)}")
    lines += _arguments(operation.arguments)
    lines += _mapping("query", operation.query)
    for scheme in schemes:
        if scheme.query is not None:
            entry = f"{scalar(scheme.query[0])}: {scalar(scheme.query[1])}"
            lines.append(f"  # {entry}" if operation.query else f"# query: {{{entry}}}")
    lines += _mapping("headers", operation.headers)
    if operation.body is not None:
        kind, value = operation.body
        if isinstance(value, str):
            lines.append(f"body: {{{kind}: {scalar(value)}}}")
        else:
            lines += ["body:", *(f"  {line}" for line in _mapping(kind, value))]
    if operation.success:
        lines.append(f"success: [{', '.join(operation.success)}]")
    return "\n".join(lines) + "\n"


def api_text(document: Document, schemes: Iterable[Scheme]) -> str:
    """An api.yaml, but for the line that says where it comes from."""
    info = document.root.get("info")
    version = text(info.get("version")) if isinstance(info, Mapping) else ""
    lines = [_SCHEMA.format("../../", "api")]
    lines += ["#", *comment(f"{document.title or 'An API'} {version}".strip())]
    lines.append("")
    url = base_url(document)
    if url is None:
        lines += comment("The document names no host; write it here.")
        url = NOWHERE + base_path(document)
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
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escaped(value: Any) -> Any:
    """JSON-like data in which no text is a reference."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {str(key): escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value


def _arguments(arguments: Iterable[Argument]) -> Iterator[str]:
    first = True
    for argument in arguments:
        if first:
            yield "params:"
        first = False
        said = {
            "type": argument.type,
            "required": True if argument.required else None,
            "description": escaped(argument.description) or None,
        }
        inner = [f"    {key}: {scalar(value)}" for key, value in said.items() if value is not None]
        if argument.default is not MISSING:
            inner.append(f"    default: {scalar(escaped(argument.default))}")
        yield f"  {scalar(argument.name)}:" + ("" if inner else " {}")
        yield from inner


def _mapping(key: str, entries: Mapping[str, str]) -> Iterator[str]:
    if entries:
        yield f"{key}:"
    for name, value in entries.items():
        yield f"  {scalar(name)}: {scalar(value)}"
