"""Holds what is asked of the API, and what it answers, against its description.

Whatever speaks to a daemon in the tests hands its answers to `check`: an answer, a field, a problem
or a route that docs/openapi.json does not describe fails the test that got it. (Readers are to pass
over fields that they do not know; here such a field is one that was forgotten.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import httpx
import jsonschema_rs

DOCUMENT = Path(__file__).parents[1] / "docs" / "openapi.json"

JSON, PROBLEM = "application/json", "application/problem+json"

PLAIN_HEADERS = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host"}
)
"""What any request may have."""

FREE = ("/login", "/logout")
"""What is no part of the API."""
NO_ROUTE = "there is nothing at this path"
"""What is said of a path that a plugin has elsewhere, too."""


class DescribedPath(NamedTuple):
    """A path of the description."""

    pattern: re.Pattern[str]
    template: str
    operations: Mapping[str, Any]


def check(answer: httpx.Response) -> None:
    """Raise AssertionError where the request, if it was done, or its answer is not described.

    The answer has been read.
    """
    request = answer.request
    path = request.url.raw_path.decode().partition("?")[0]
    where = f"{request.method} {path}: {answer.status_code}"
    found = _path(path)
    if found is None:
        code = answer.json().get("code") if answer.status_code >= 400 else None
        is_refusal = code in ("not_found", "no_token", "wrong_token", "unknown_host", "cross_site")
        assert path in FREE or is_refusal, f"{where}: this route is not described"
        return
    method = "get" if request.method == "HEAD" else request.method.lower()
    operation = found.operations.get(method)
    if operation is None:
        assert answer.status_code in (401, 403, 405, 421), f"{where}: the method is not described"
        return
    if "default" in operation["responses"]:  # a page of the dashboard
        return
    if answer.status_code == 404 and answer.json()["detail"].startswith(NO_ROUTE):
        return
    if answer.is_success:
        _check_request(request, operation, where)
    described = _resolved(operation["responses"].get(str(answer.status_code)))
    assert described is not None, f"{where}: this status is not described: {answer.text[:500]}"
    if request.method == "HEAD":
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    if media_type == "text/html" and answer.status_code == 401:
        return  # the form, for a person
    content = described["content"].get(media_type)
    assert content is not None, f"{where}: {media_type} is not described"
    if media_type in (JSON, PROBLEM):
        _check(_key(content["schema"]), answer.json(), where)


def check_request(request: httpx.Request) -> None:
    """Raise AssertionError where a request is one that the description does not know."""
    path = request.url.raw_path.decode().partition("?")[0]
    where = f"{request.method} {path}"
    found = _path(path)
    assert found is not None, f"{where}: this route is not described"
    operation = found.operations.get(request.method.lower())
    assert operation is not None, f"{where}: the method is not described"
    _check_request(request, operation, where)
    described = {one["name"].lower() for one in operation["parameters"] if one["in"] == "header"}
    undescribed = request.headers.keys() - described - PLAIN_HEADERS
    assert not undescribed, f"{where}: headers are not described: {undescribed}"
    if request.content:
        assert "requestBody" in operation, f"{where}: it takes no body"


def _check_request(request: httpx.Request, operation: Mapping[str, Any], where: str) -> None:
    given = dict(parse_qsl(request.url.query.decode()))
    known = {one["name"]: one["schema"] for one in operation["parameters"] if one["in"] == "query"}
    assert given.keys() <= known.keys(), f"{where}: parameters are not described: {given}"
    for name, text in given.items():
        _check(_key(known[name]), _value(text, known[name]), f"{where}, {name}")
    body = request.content.strip()
    if body and "requestBody" in operation:
        schema = operation["requestBody"]["content"][JSON]["schema"]
        _check(_key(schema), json.loads(body), f"{where}, the body")


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    if schema.get("type") == "array":
        return [_value(item.strip(), schema["items"]) for item in text.split(",")]
    if schema.get("type") in ("integer", "boolean"):
        return json.loads(text)
    return text


def _key(schema: Mapping[str, Any]) -> str:
    # What is compiled is kept by its text.
    return json.dumps(schema)


def _check(schema: str, value: Any, where: str) -> None:
    errors = [
        f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"
        for error in _validator(schema).iter_errors(value)
    ]
    assert not errors, "\n".join([f"{where} is not as docs/openapi.json describes it:", *errors])


@cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    whole = {**json.loads(schema), "components": _document()["components"]}
    return jsonschema_rs.Draft202012Validator(whole)


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DOCUMENT.read_text())
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document


@cache
def _paths() -> tuple[DescribedPath, ...]:
    paths = _document()["paths"]
    # Those without a parameter come first.
    return tuple(
        DescribedPath(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path, paths[path])
        for path in sorted(paths, key=lambda path: path.count("{"))
    )


def _path(path: str) -> DescribedPath | None:
    return next((one for one in _paths() if one.pattern.fullmatch(path)), None)


def _resolved(response: Any) -> Any:
    if response is None or "$ref" not in response:
        return response
    return _document()["components"]["responses"][response["$ref"].rpartition("/")[2]]
