"""Makes docs/openapi.json, and what the pages have of it: `python -m scripts.docs`.

The description is asked of the API itself, with the plugins that come with it, as a client would.
Of docs/api.md and docs/problems.md, what stands between `<!-- made: NAME -->` and `<!-- end -->` is
made; all else is written. A test fails where a file is not up to date.
"""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import httpx

from orchestratord.api.api_routes import application
from orchestratord.api.filters import NAMES
from orchestratord.api.openapi import ANYWHERE, OVER_TCP, WITH_BODY, WRITING
from orchestratord.api.server.problem_json import PROBLEMS, title
from orchestratord.api.service import Service
from orchestratord.errors import SendErrorKind
from orchestratord.model.task import Reason, Status
from orchestratord.plugin.hookspecs import PHASES
from orchestratord.plugin.host import Host

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT, PAGES = DOCS / "openapi.json", (DOCS / "api.md", DOCS / "problems.md")

_MADE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_COMMON = {*ANYWHERE, *OVER_TCP, *WITH_BODY, *WRITING, "plugin_fault"}
"""Problems that are listed once for all routes."""
_SETS = {
    tuple(Status): "[status](retry_schedule.md#the-way-of-a-task)",
    tuple(Reason): "[reason](retry_schedule.md#why-a-task-failed)",
    PHASES: "[phase](plugins.md#the-lifecycle)",
    get_args(SendErrorKind): "[kind of error](plugins.md#senderror)",
}
"""Sets of words that are described on another page."""
_FEW_FIELDS = 6
"""A document of no more fields is shown where it is used, if nothing is to be said of them."""
_MANY_FIELDS = 4
"""A document of so many fields is named where another one has all of them."""
_PAGE = ("limit", "after", "next")
"""Fields of all routes that answer a page at a time."""

_Schemas = Mapping[str, Mapping[str, Any]]


async def described() -> dict[str, Any]:
    """What `GET /openapi.json` answers where all plugins are loaded that come with the daemon."""
    host = Host()
    host.load()
    # Made of nothing: routes are described, and none of them is called that would ask it.
    service = Service.__new__(Service)
    service._host = host
    transport = httpx.ASGITransport(application(service, host))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/openapi.json")
    document: dict[str, Any] = answer.raise_for_status().json()
    # Of this checkout, also where it was installed before its version was raised.
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["project"]
    document["info"]["version"] = project["version"]
    return document


def written(document: Mapping[str, Any]) -> str:
    """The text of docs/openapi.json."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def renewed(page: str, document: Mapping[str, Any]) -> str:
    """The text of one of the pages with what is made of a description."""
    parts = {"problem": _problem, "remedies": _remedies, "reference": _reference}

    def made(match: re.Match[str]) -> str:
        lines = "\n".join(parts[match[2]](document))
        return f"{match[1]}{lines}\n{match[3]}"

    return _MADE.sub(made, page)


# -- The parts -------------------------------------------------------------------------------------


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "operationId" in operation:
                yield method.upper(), path, operation


def _problem(document: Mapping[str, Any]) -> Iterator[str]:
    for answer in document["components"]["responses"].values():
        examples = answer["content"]["application/problem+json"]["examples"]
        if (found := examples.get("invalid_params")) is not None:
            yield from ("```json", json.dumps(found["value"], indent=2), "```")
            return


def _remedies(document: Mapping[str, Any]) -> Iterator[str]:
    for code, (status, text, remedy) in sorted(PROBLEMS.items(), key=lambda item: item[1].status):
        words = text[:1].upper() + text[1:]
        yield from ("", f"## {code}", "", f"{status} {title(status)}. {words}.", "", remedy)


def _reference(document: Mapping[str, Any]) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    bodies = {"Refusal"}
    for method, path, operation in _operations(document):
        summary = f"{operation['summary']}. {_answers(document, path, operation)}."
        yield from ("", f"### {method} {path}", "", summary)
        if text := operation.get("description"):
            yield from ("", text)
        fields = [one for one in operation["parameters"] if one["in"] != "path"]
        rows = [
            (one["in"], one["name"], _type(one["schema"], schemas), one.get("description", ""))
            for one in fields
            if {*NAMES} - {other["name"] for other in fields} or one["name"] not in NAMES
        ]
        if len(rows) < len(fields):
            rows.insert(0, ("query", "", "[filters](#looking)", ""))
        if "requestBody" in operation:
            name = _name(operation["requestBody"]["content"]["application/json"]["schema"])
            bodies.add(name)
            rows += [
                # To leave a field out of a body is to say null.
                ("body", field, _type(one, schemas).removesuffix(" or null"),
                 one.get("description", ""))
                for field, one in schemas[name].get("properties", {}).items()
            ]  # fmt: skip
        yield from _fields(rows)
    yield from ("", "### The documents")
    for name, schema in schemas.items():
        if name not in bodies and not _is_shown_in_place(schema):
            yield from _document(name, schema, schemas)


def _fields(rows: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    """A list of fields: place, name, type and text. Fields without a text share a line by their
    type; the query and the body share what is the same."""
    places: dict[tuple[str, str, str], str] = {}
    for place, name, kind, text in rows:
        same = (name, kind, _lower(text))
        places[same] = f"{places[same]}, {place}" if same in places else place
    names: dict[tuple[str, ...], list[str]] = {}
    for (name, kind, text), place in places.items():
        if name in _PAGE and text:
            kind, text = "[page](#looking)", ""
        shared = (place, kind, text) if text == "" else (place, kind, text, name)
        names.setdefault(shared, []).append(f"`{name}`" if name else "")
    if names:
        yield ""
    for (place, kind, text, *_), group in names.items():
        named = f"{place} {', '.join(group)}".strip()
        yield f"- {named} ({kind})" + (f": {text}" if text else "")


def _answers(document: Mapping[str, Any], path: str, operation: Mapping[str, Any]) -> str:
    schemas = document["components"]["schemas"]
    common = _COMMON | {"not_found"} if "{" in path else _COMMON
    answers: dict[str, list[str]] = {}
    refusals = []
    for status, answer in operation["responses"].items():
        if "$ref" not in answer:
            ((media_type, content),) = answer["content"].items()
            is_text = content["schema"] == {"type": "string"}
            shown = f"`{media_type}`" if is_text else _type(content["schema"], schemas)
            answers.setdefault(shown, []).append(status)
            continue
        found = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        refined = found["content"]["application/problem+json"]["schema"]["allOf"][1]
        codes = refined["properties"]["code"]["enum"]
        refusals += [f"{status} `{code}`" for code in codes if code not in common]
    parts = [f"{', '.join(statuses)}: {shown}" for shown, statuses in answers.items()]
    if refusals:
        parts.append(f"refused: {', '.join(refusals)}")
    return "; ".join(parts)


def _document(name: str, schema: Mapping[str, Any], schemas: _Schemas) -> Iterator[str]:
    kinds = _kinds(schema, schemas)
    others = {
        other: _kinds(one, schemas) for other, one in schemas.items() if not _is_shown_in_place(one)
    }
    within = {
        other: one
        for other, one in others.items()
        if one.items() < kinds.items() and len(one) >= _MANY_FIELDS
    }
    base = max(within, key=lambda other: len(within[other]), default="")
    inherited = within.get(base, {})
    text = schema.get("description", "")
    if inherited:
        text += f" It has the fields of [{base}](#{base.lower()}), and:"
    yield from ("", f"#### {name}", "", text)
    yield from _fields(
        ("", field, kind, schema["properties"][field].get("description", ""))
        for field, kind in kinds.items()
        if field not in inherited
    )


def _kinds(schema: Mapping[str, Any], schemas: _Schemas) -> dict[str, str]:
    """The types of the fields of a document."""
    needed = schema.get("required", ())
    return {
        field: _type(one, schemas) + ("" if field in needed else " (may be missing)")
        for field, one in schema.get("properties", {}).items()
    }


def _is_shown_in_place(schema: Mapping[str, Any]) -> bool:
    """Whether a document has few fields, with nothing to say of them, and has no heading."""
    fields = schema.get("properties", {})
    return (
        not schema.get("additionalProperties")
        and 0 < len(fields) <= _FEW_FIELDS
        and not any("description" in one for name, one in fields.items() if name not in _PAGE)
    )


def _type(schema: Mapping[str, Any], schemas: _Schemas) -> str:
    """What fits a schema, in words."""
    if "$ref" in schema:
        name = _name(schema)
        if not _is_shown_in_place(schemas[name]):
            return f"[{name}](#{name.lower()})"
        fields: dict[str, list[str]] = {}
        for field, kind in _kinds(schemas[name], schemas).items():
            is_page = "description" in schemas[name]["properties"][field]
            fields.setdefault("" if is_page else kind, []).append(f"`{field}`")
        shown = (f"{', '.join(names)} {kind}".rstrip() for kind, names in fields.items())
        return "{" + "; ".join(shown) + "}"
    if "enum" in schema:
        words = tuple(word for word in schema["enum"] if word)
        return _SETS.get(words) or ", ".join(f"`{word}`" for word in words)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(_type(one, schemas) for one in schema["anyOf"])
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {_type(schema['items'], schemas)}"
    if kind == "object" and isinstance(more := schema.get("additionalProperties"), Mapping):
        return f"object of {_type(more, schemas)}"
    if schema.get("format") == "date-time":
        return "time"
    if "minimum" in schema and "maximum" in schema and schema["maximum"] < 1 << 62:
        return f"{kind}, {schema['minimum']} to {schema['maximum']}"
    return str(kind)


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _lower(text: str) -> str:
    """A sentence as a cell of a table has it."""
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text


def main() -> None:
    """Write the files."""
    document = asyncio.run(described())
    DOCUMENT.write_text(written(document))
    for page in PAGES:
        page.write_text(renewed(page.read_text(), document))
