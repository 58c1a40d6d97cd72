"""`GET /openapi.json`: the API's description, made of the handlers that serve it.

What stands beside a handler (`described`, its docstring) becomes its operation; what all routes
have in common, and the problems, are added here. A handler without a description is there with its
path and method only.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from orchestratord.api.daemon_documents import ProblemDocument
from orchestratord.api.filters import MAX_ID
from orchestratord.api.serialize import json_bytes
from orchestratord.api.server.guard import OPEN
from orchestratord.api.server.handler import READING, Asked
from orchestratord.api.server.problem_json import MEDIA_TYPE, PROBLEMS, Refusal, title
from orchestratord.errors import OrchestratordError
from orchestratord.plugin.route import DESCRIPTION, JSON, Answer, Description, described
from orchestratord.values.yaml_value import REFERENCE

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

ANYWHERE = (
    "bad_request invalid_params timeout head_too_large not_json internal stopping busy shortage "
    "memory_exhausted database_unreachable database_locked storage_read_only storage_error "
    "database_damaged database_gone fatal"
).split()
"""Problems that any request may meet; `not_json` where it has a body though none is needed."""
OVER_TCP = ("no_token", "wrong_token", "cross_site", "unknown_host")
"""Those of requests over TCP."""
WITH_BODY = ("bad_json", "too_large", "invalid_params")
WRITING = ("read_only", "storage_full")

_PARAMETER = re.compile(r"\{(\w+)\}")
_PATH: Mapping[str, Mapping[str, Any]] = {
    "id": {"type": "integer", "minimum": 1, "maximum": MAX_ID},
    "api": {"type": "string", "pattern": NAME},
    "name": {"type": "string", "pattern": NAME},
}
_EXAMPLES = {"id": 42, "api": "shop", "name": "getOrder", "webhook": "ops"}
_TEXT = """The API of orchestratord, over its control socket and, where `http` is configured, over
TCP. The socket needs no token: the file's mode decides who may use it. Ignore fields that you do
not know."""

Handlers = Mapping[tuple[str, str], Callable[..., Any]]


class ApiDescription:
    """Describes the API. Made when it is first asked for, and kept as it is sent."""

    def __init__(self, handlers: Handlers) -> None:
        """`handlers`: (method, path) → handler, to be complete by the first request."""
        self._handlers = handlers
        self._made: bytes | None = None
        self._making = asyncio.Lock()

    @described(answers={200: dict[str, Any]})
    async def document(self, asked: Asked) -> Answer:
        """This description of the API, in OpenAPI 3.1."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(
                    lambda: json_bytes(openapi_document(self._handlers))
                )
        return Answer(self._made)


def openapi_document(handlers: Handlers) -> dict[str, Any]:
    """The description of an API that consists of these: (method, path) → handler."""
    schemas = Schemas(_models(handlers.values()))
    paths: dict[str, dict[str, Any]] = {}
    components: dict[str, Any] = {}
    taken: set[str] = set()
    for (method, path), handler in sorted(handlers.items(), key=lambda item: item[0][::-1]):
        operation = _operation(method, path, handler, schemas, components)
        if (name := operation.get("operationId")) in taken:
            operation["operationId"] = f"{name}_{method.lower()}"
        taken.add(str(name))
        paths.setdefault(path, {})[method.lower()] = operation
    about = [getattr(handler, DESCRIPTION, None) for handler in handlers.values()]
    queries = [one.query for one in about if one is not None]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "orchestratord",
            "version": importlib.metadata.version("orchestratord"),
            "description": " ".join(_TEXT.split()),
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**schemas.shown(queries), "Refusal": _refusal(schemas)},
            "responses": dict(sorted(components.items())),
        },
    }


def _models(handlers: Iterable[Any]) -> list[Any]:
    """All that handlers are described with, each once."""
    found: list[Any] = [ProblemDocument]
    for handler in handlers:
        if (about := getattr(handler, DESCRIPTION, None)) is not None:
            answers = [answer for answer in about.answers.values() if not isinstance(answer, str)]
            found += [one for one in (about.query, about.body, *answers) if one is not None]
    return [one for number, one in enumerate(found) if one not in found[:number]]


class Schemas:
    """The JSON Schemas of documents, bodies and query strings."""

    def __init__(self, models: list[Any]) -> None:
        # As one tuple, since the configuration of a type that has none is that of what holds it.
        together: Any = tuple.__class_getitem__(tuple(models))
        config = ConfigDict(use_attribute_docstrings=True)
        adapter: TypeAdapter[Any] = TypeAdapter(together, config=config)
        made = adapter.json_schema(
            ref_template="#/components/schemas/{model}", mode="serialization"
        )
        self.components: dict[str, Any] = _plain(made.get("$defs", {}))
        self._of = list(zip(models, _plain(made["prefixItems"]), strict=True))

    def of(self, model: Any) -> dict[str, Any]:
        """The schema of one of the models; those of documents are references."""
        return next(dict(schema) for known, schema in self._of if known == model)

    def shown(self, queries: Iterable[Any]) -> dict[str, Any]:
        """All that is referred to; query strings are described as parameters."""
        hidden = {query.__name__ for query in queries if query is not None}
        return {name: one for name, one in self.components.items() if name not in hidden}

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a schema refers to, or itself."""
        if "$ref" in schema:
            found: Mapping[str, Any] = self.components[schema["$ref"].rpartition("/")[2]]
            return found
        return schema

    def example(self, schema: Mapping[str, Any]) -> Any:
        """An example of what fits a schema."""
        schema = self.resolved(schema)
        if "examples" in schema:
            return schema["examples"][0]
        for key in ("default", "const"):
            if key in schema:
                return schema[key]
        if "enum" in schema:
            return schema["enum"][0]
        if "anyOf" in schema:
            kinds = [one for one in schema["anyOf"] if one.get("type") != "null"]
            nullable = len(kinds) < len(schema["anyOf"])
            return None if nullable else self.example(kinds[0])
        match schema.get("type"):
            case "object":
                fields, needed = schema.get("properties", {}), schema.get("required", ())
                return {name: self.example(fields[name]) for name in fields if name in needed}
            case "array":
                return [self.example(schema["items"])]
            case "string":
                return ""
            case "integer" | "number":
                return schema.get("minimum", 0)
            case "boolean":
                return False
            case "null":
                return None
        return {}


def _plain(value: Any) -> Any:
    """A schema without what is only for the YAML, and without titles that repeat a name."""
    if isinstance(value, list):
        return [_plain(item) for item in value if item != REFERENCE]
    if not isinstance(value, Mapping):
        return value
    if "properties" in value:
        fields = {name: _plain(field) for name, field in value["properties"].items()}
        rest = {name: item for name, item in value.items() if name != "properties"}
        return {**_plain(rest), "properties": fields}
    return {
        name: item if name in ("examples", "default") else _plain(item)
        for name, item in value.items()
        if name != "title"
    }


# -- One operation ---------------------------------------------------------------------------------


def _operation(
    method: str, path: str, handler: Any, schemas: Schemas, responses: dict[str, Any]
) -> dict[str, Any]:
    about: Description | None = getattr(handler, DESCRIPTION, None)
    operation: dict[str, Any] = {"parameters": list(_in_path(path))}
    if path in OPEN:
        operation["security"] = []
    if about is None:
        operation["responses"] = {"default": {"description": "what a plugin answers"}}
        return operation
    summary, _, more = inspect.cleandoc(handler.__doc__ or "").partition("\n\n")
    operation["operationId"] = getattr(handler, "__name__", path)
    operation["tags"] = [path.removeprefix("/v1").split("/")[1] or "dashboard"]
    operation["summary"] = " ".join(summary.split()).rstrip(".")
    if text := more.partition("Raises")[0].strip():
        operation["description"] = text
    operation["parameters"] += _in_query(about.query, schemas)
    operation["parameters"] += _in_headers(about.headers)
    if about.body is not None and method not in READING:
        operation["requestBody"] = _body(about.body, schemas)
    operation["responses"] = {
        **{
            str(status): _answer(status, answer, schemas)
            for status, answer in about.answers.items()
        },
        **dict(_problems(method, path, about, responses)),
    }
    return operation


def _in_path(path: str) -> Iterator[dict[str, Any]]:
    for name in _PARAMETER.findall(path):
        schema = _PATH.get(name, {"type": "string", "minLength": 1})
        example = _EXAMPLES.get(name, name)
        yield {"name": name, "in": "path", "required": True, "schema": schema, "example": example}


def _in_query(query: type | None, schemas: Schemas) -> Iterator[dict[str, Any]]:
    if query is None:
        return
    for name, schema in schemas.resolved(schemas.of(query))["properties"].items():
        text = schema.get("description", "")
        shown = _as_text({key: one for key, one in schema.items() if key != "description"})
        parameter = {"name": name, "in": "query", "description": text, "schema": shown}
        if shown.get("type") == "array":
            # Several are separated by commas.
            parameter |= {"style": "form", "explode": False}
        yield parameter


def _as_text(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that takes an empty text, too, and no null: such a parameter is left out."""
    if schema.get("type") == "array":
        return {**schema, "items": _as_text(schema["items"])}
    if (kinds := schema.get("anyOf")) and kinds[1:] == [{"type": "null"}]:
        return _as_text(kinds[0])
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], ""]}
    if "pattern" in schema:
        return {**schema, "pattern": f"^$|{schema['pattern']}"}
    return dict(schema)


def _in_headers(headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for name, text in headers.items():
        schema = {"type": "string"}
        yield {"name": name, "in": "header", "description": text, "schema": schema}


def _body(model: type, schemas: Schemas) -> dict[str, Any]:
    schema = schemas.of(model)
    needed = bool(schemas.resolved(schema).get("required"))
    return {"required": needed, "content": {JSON: {"schema": schema}}}


def _answer(status: int, answer: Any, schemas: Schemas) -> dict[str, Any]:
    phrase = title(status)
    if isinstance(answer, str):
        media_type = answer.partition(";")[0]
        return {"description": phrase, "content": {media_type: {"schema": {"type": "string"}}}}
    schema = schemas.of(answer)
    text = schemas.resolved(schema).get("description", phrase).rstrip(".")
    shown = {"schema": schema, "example": schemas.example(schema)}
    return {"description": text, "content": {JSON: shown}}


# -- Problems --------------------------------------------------------------------------------------


def _problems(
    method: str, path: str, about: Description, responses: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Status → a reference to the answer; those answers are added to `responses`."""
    codes = [*ANYWHERE, *(() if path in OPEN else OVER_TCP)]
    codes += [_code(problem) for problem in about.problems]
    if "{" in path:
        codes.append("not_found")
    if method not in READING:
        codes += [*WITH_BODY, *WRITING]
    elif about.query is not None:
        codes.append("invalid_params")
    by_status: dict[int, list[str]] = {}
    for code in PROBLEMS:
        if code in codes:
            by_status.setdefault(PROBLEMS[code].status, []).append(code)
    for status, some in by_status.items():
        name = _response_name(status, some)
        responses.setdefault(name, _response(status, some))
        yield str(status), {"$ref": f"#/components/responses/{name}"}


def _code(problem: type[OrchestratordError] | str) -> str:
    code = problem if isinstance(problem, str) else problem.code
    if code not in PROBLEMS:
        raise ValueError(f"{problem!r} is no problem of the API")
    return code


def _response_name(status: int, codes: list[str]) -> str:
    special = [code for code in codes if code not in ANYWHERE]
    return ".".join([str(status), *special])


def _response(status: int, codes: list[str]) -> dict[str, Any]:
    text = "; ".join(f"`{code}`: {PROBLEMS[code].what}" for code in codes)
    refined = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Refusal"}, refined]}
    examples = {code: {"value": _example_problem(code)} for code in codes}
    return {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }


def _example_problem(code: str) -> dict[str, Any]:
    if code == "invalid_params":
        errors = [{"key": "id", "message": "is required"}]
        return Refusal(code, "1 parameter does not fit", errors=errors).document()
    return Refusal(code, PROBLEMS[code].what).document()


def _refusal(schemas: Schemas) -> dict[str, Any]:
    """The schema of `application/problem+json`, as `Refusal.document` makes it."""
    item = {
        "type": "object",
        "properties": {"key": {"type": "string"}, "message": {"type": "string"}},
        "required": ["key", "message"],
    }
    return {
        "description": "Why a request was not done (RFC 9457).",
        "type": "object",
        "properties": {
            "type": {
                "type": "string",
                "format": "uri",
                "description": "Where the documentation explains the `code`, and what to do.",
            },
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "One line for a person."},
            "code": {"type": "string", "description": "A word for programs."},
            "errors": {
                "type": "array",
                "description": "What is wrong, one by one; in files, with its place.",
                "items": {"anyOf": [schemas.of(ProblemDocument), item]},
            },
        },
        "required": ["type", "title", "status", "detail", "code"],
    }
