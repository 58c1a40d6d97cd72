"""The body of an operation, as the key `body` of an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestratord.cli.importing.arguments import Arguments, parameters_of
from orchestratord.cli.importing.document import Document, items, mapping, text
from orchestratord.cli.importing.schemas import (
    MISSING,
    default_of,
    properties_of,
    required_of,
    type_of,
    words_of,
)

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

_MAX_FIELDS = 30
"""Of an object, that are named where it is described."""
_EMPTY: dict[str | None, Any] = {"object": {}, None: {}, "array": []}
"""What is sent for a body that need not be given."""

Body = tuple[str, str | dict[str, str]]
"""`json` or `text` with a template, or `form` with one for each field."""


def body_of(
    document: Document,
    shared: Mapping[str, Any],
    operation: Mapping[str, Any],
    made: Arguments,
) -> Body | None:
    """The body, None for none. Its parameters, headers and problems are added to `made`."""
    if document.version == "2.0":
        return _old(document, shared, operation, made)
    body = document.look(operation.get("requestBody"))
    content = mapping(body.get("content"))
    if not content:
        return None
    media = min(map(str, content), key=_rank)
    schema = mapping(content[media]).get("schema", {})
    required = body.get("required") is True
    return _made(document, media, schema, required, "body", body.get("description"), made)


def _old(
    document: Document,
    shared: Mapping[str, Any],
    operation: Mapping[str, Any],
    made: Arguments,
) -> Body | None:
    consumes = operation.get("consumes", document.root.get("consumes"))
    medias = [str(media) for media in items(consumes)]
    fields: dict[str, Any] = {}
    for parameter in parameters_of(document, shared, operation):
        required = parameter.get("required") is True
        name = str(parameter.get("name", ""))
        if parameter.get("in") == "body":
            media = min(medias or ["application/json"], key=_rank)
            schema, words = parameter.get("schema", {}), parameter.get("description")
            return _made(document, media, schema, required, name or "body", words, made)
        if parameter.get("in") == "formData":
            fields[name] = parameter
    if not fields:
        return None
    needed = [name for name, field in fields.items() if field.get("required") is True]
    schema = {"type": "object", "properties": fields, "required": needed}
    files = any(field.get("type") == "file" for field in fields.values())
    forms = [media for media in medias if media in (FORM, MULTIPART)] or [FORM]
    media = MULTIPART if files else min(forms, key=_rank)
    return _made(document, media, schema, bool(needed), "body", "", made)


def _rank(media: str) -> int:
    """Which of several kinds of content is sent: the lowest."""
    kind = _plain(media)
    if kind == "application/json":
        return 0
    if kind.endswith("json"):
        return 1
    if "*" in kind:
        return 2
    if kind == FORM:
        return 3
    if kind.startswith("text/") or kind.endswith("xml"):
        return 4
    return 6 if kind.startswith("multipart/") else 5


def _plain(media: str) -> str:
    return media.partition(";")[0].strip().lower()


def _made(
    document: Document,
    media: str,
    schema: Any,
    required: bool,
    name: str,
    description: Any,
    made: Arguments,
) -> Body | None:
    kind = _plain(media)
    if kind.startswith("multipart/"):
        made.leave_out(f"a body of {text(media)} cannot be sent", required)
        return None
    if kind == FORM:
        return _form(document, schema, required, made)
    type_ = type_of(document, schema)
    words = words_of(document, schema, description)
    if kind.endswith("json") or "*" in kind:
        if kind.endswith("json") and kind != "application/json":
            made.headers["Content-Type"] = text(media)
        required = required or not _may_be_empty(document, schema)
        default = MISSING if required else _EMPTY.get(type_, MISSING)
        words = " ".join(part for part in (words, _fields(document, schema)) if part)
        argument = made.add(name, "body", type_, required, default, words)
        return "json", f"{{{{ {argument.read} }}}}"
    made.headers["Content-Type"] = text(media)
    argument = made.add(name, "body", "string", required, MISSING, words)
    return "text", f"{{{{ {argument.read} }}}}"


def _may_be_empty(document: Document, schema: Any) -> bool:
    """Whether a body without any field, or without an item, is certain to fit."""
    known = document.look(schema)
    asks = any(key in known for key in ("oneOf", "anyOf", "minItems", "minProperties"))
    return not asks and not required_of(document, known)


def _form(document: Document, schema: Any, required: bool, made: Arguments) -> Body | None:
    properties, needed = properties_of(document, schema), required_of(document, schema)
    if not properties:
        made.leave_out("the fields of its form are not declared", required)
        return None
    form: dict[str, str] = {}
    for name, field in properties.items():
        type_ = type_of(document, field)
        if type_ == "object":
            made.problems.append(f"the field {text(name)} of its form is sent as JSON")
        default = default_of(document, field, type_)
        words = words_of(document, field, "")
        argument = made.add(name, "form", type_, required and name in needed, default, words)
        form[name] = f"{{{{ {argument.read} }}}}"
    return "form", form


def _fields(document: Document, schema: Any) -> str:
    """The fields of a JSON object, in words."""
    known = document.look(schema)
    properties, needed = properties_of(document, known), required_of(document, known)
    words: list[str] = []
    for name, value in properties.items():
        more = [type_of(document, value) or "any", *(["required"] if name in needed else [])]
        words.append(f"{text(name)} ({', '.join(more)})")
    if not words:
        return ""
    rest = ", …" if len(words) > _MAX_FIELDS else ""
    return f"Fields: {', '.join(words[:_MAX_FIELDS])}{rest}"
