"""Makes docs/openapi.json, and what the pages have of it: `python -m scripts.docs`.

The description is asked of the API itself, with the plugins that come with it, as a client would.
Of docs/api.md, what stands between `<!-- made: NAME -->` and `<!-- end -->` is made; all else is
written. A test fails where a file is not up to date.
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
from orchestratord.api.filters import NAMES
from orchestratord.api.service import Service
from orchestratord.plugin.host import Host

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT, PAGE = DOCS / "openapi.json", DOCS / "api.md"

_MADE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


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
    """The text of docs/api.md with what is made of a description."""
    parts = {"problem": _problem, "reference": _reference}

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


def _reference(document: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| route | | fields of query, headers and body |", "|---|---|---|")
    schemas = document["components"]["schemas"]
    for method, path, operation in _operations(document):
        names = [one["name"] for one in operation["parameters"] if one["in"] != "path"]
        if "requestBody" in operation:
            sent = operation["requestBody"]["content"]["application/json"]["schema"]
            names += schemas[_name(sent)].get("properties", {})
        named = [f"`{name}`" for name in dict.fromkeys(names)]
        if {*NAMES} <= {*names}:
            named = [one for one in named if one.strip("`") not in NAMES]
            named.insert(0, "[filters](#looking)")
        yield f"| `{method} {path}` | {operation['summary']} | {', '.join(named)} |"


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def main() -> None:
    """Write the files."""
    document = asyncio.run(described())
    DOCUMENT.write_text(written(document))
    PAGE.write_text(renewed(PAGE.read_text(), document))
