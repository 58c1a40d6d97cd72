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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from orchestratord.api.api_routes import application
from orchestratord.api.openapi import ANYWHERE, OVER_TCP, WITH_BODY, WRITING
from orchestratord.api.server.problem_json import PROBLEMS, title
from orchestratord.api.service import Service
from orchestratord.plugin.host import Host

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT, PAGES = DOCS / "openapi.json", (DOCS / "api.md", DOCS / "problems.md")

_MADE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_COMMON = {*ANYWHERE, *OVER_TCP, *WITH_BODY, *WRITING, "plugin_fault"}
"""Problems that are listed once for all routes."""


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
    parts = {
        "routes": _routes, "problem": _problem, "problems": _problems, "remedies": _remedies,
        "reference": _reference,
    }  # fmt: skip

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


def _routes(document: Mapping[str, Any]) -> Iterator[str]:
    yield "| route | |"
    yield "|---|---|"
    for method, path, operation in _operations(document):
        anchor = re.sub(r"[^a-z0-9_ -]", "", f"{method} {path}".lower()).replace(" ", "-")
        yield f"| [`{method} {path}`](#{anchor}) | {_lower(operation['summary'])} |"


def _problem(document: Mapping[str, Any]) -> Iterator[str]:
    for answer in document["components"]["responses"].values():
        examples = answer["content"]["application/problem+json"]["examples"]
        if (found := examples.get("invalid_params")) is not None:
            yield from ("```json", json.dumps(found["value"], indent=2), "```")
            return


def _problems(document: Mapping[str, Any]) -> Iterator[str]:
    yield "| status | code | |"
    yield "|---|---|---|"
    for code, (status, text, _) in sorted(PROBLEMS.items(), key=lambda item: item[1].status):
        yield f"| {status} | [`{code}`](problems.md#{code}) | {text} |"


def _remedies(document: Mapping[str, Any]) -> Iterator[str]:
    for code, (status, text, remedy) in sorted(PROBLEMS.items(), key=lambda item: item[1].status):
        words = text[:1].upper() + text[1:]
        yield from ("", f"## {code}", "", f"{status} {title(status)}. {words}.", "", remedy)


def _reference(document: Mapping[str, Any]) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    bodies = set()
    for method, path, operation in _operations(document):
        yield from ("", f"### {method} {path}", "", f"{operation['summary']}.")
        if text := operation.get("description"):
            yield from ("", text)
        rows = [
            (one["name"], one["schema"], one.get("description", ""), one["in"])
            for one in operation["parameters"]
            if one["in"] != "path"
        ]
        if "requestBody" in operation:
            name = _name(operation["requestBody"]["content"]["application/json"]["schema"])
            bodies.add(name)
            fields = schemas[name].get("properties", {})
            rows += [
                (field, one, one.get("description", ""), "body") for field, one in fields.items()
            ]
        if rows:
            yield from ("", "| in | name | | |", "|---|---|---|---|")
            for field, schema, text, where in rows:
                yield f"| {where} | `{field}` | {_type(schema)} | {_lower(text)} |"
        yield ""
        yield from _answers(document, operation)
    yield from ("", "### The documents")
    for name, schema in schemas.items():
        if name not in bodies and name != "Refusal":
            yield from _document(name, schema)


def _answers(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[str]:
    refusals = []
    for status, answer in operation["responses"].items():
        if "$ref" not in answer:
            ((media_type, content),) = answer["content"].items()
            is_text = content["schema"] == {"type": "string"}
            yield f"- {status}: {f'`{media_type}`' if is_text else _type(content['schema'])}"
            continue
        found = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        refined = found["content"]["application/problem+json"]["schema"]["allOf"][1]
        codes = refined["properties"]["code"]["enum"]
        refusals += [f"{status} `{code}`" for code in codes if code not in _COMMON]
    if refusals:
        yield f"- refused: {', '.join(refusals)}"


def _document(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"#### {name}", "", schema.get("description", ""))
    needed = schema.get("required", ())
    if fields := schema.get("properties"):
        yield from ("", "| | | |", "|---|---|---|")
        for field, one in fields.items():
            optional = "" if field in needed else " (may be missing)"
            text = _lower(one.get("description", ""))
            yield f"| `{field}` | {_type(one)}{optional} | {text} |"


def _type(schema: Mapping[str, Any]) -> str:
    """What fits a schema, in words."""
    if "$ref" in schema:
        name = _name(schema)
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"] if word)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if kind == "object" and isinstance(more := schema.get("additionalProperties"), Mapping):
        return f"object of {_type(more)}"
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
