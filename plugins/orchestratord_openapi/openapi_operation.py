"""The operations of an OpenAPI document, as what the files of endpoints say of them.

Its parameters and its body are read into a RequestTemplates, which also notes what cannot be sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestratord_openapi.openapi_document import MISSING, OpenApiDocument, items, mapping, text

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._]+")
_MAX_NAME = 120
"""Characters of a name."""

_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NOT_IN_PARAM = re.compile(r"[^A-Za-z0-9_.-]+")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LIVE = {"$", "{", "}"}
"""Of a reference or a template, which the document's words may not become."""
_IN_PATH = re.compile(r"\{([^{}]+)\}")
_SEPARATORS = {"ssv": " ", "spaceDelimited": " ", "tsv": "\t", "pipes": "|", "pipeDelimited": "|"}
"""Those of the styles that have no comma."""
_PREFIXES = {"label": ".", "matrix": ";{name}="}
_NO_PARAMETERS = frozenset({"accept", "content-type", "authorization"})
"""Headers of which OpenAPI says that they are not parameters."""

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

_MAX_FIELDS = 30
"""Of an object, that are named where it is described."""
_EMPTY_BODIES: dict[str | None, Any] = {"object": {}, None: {}, "array": []}
"""What is sent for a body that need not be given."""

Body = tuple[str, str | dict[str, Any]]
"""`json` or `text` with a template; `form` or `multipart` with one for each field, or a file."""


@dataclass(frozen=True, slots=True)
class ImportedParam:
    """A parameter of the endpoint."""

    name: str
    type: str | None
    required: bool = False
    default: Any = MISSING
    description: str = ""

    @property
    def read(self) -> str:
        """How an expression reads it."""
        return f"params.{self.name}" if _PLAIN.fullmatch(self.name) else f"params['{self.name}']"


@dataclass(slots=True)
class RequestTemplates:
    """What an operation takes, and where it goes."""

    params: list[ImportedParam] = field(default_factory=list)
    path: str = ""
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: Body | None = None
    problems: list[str] = field(default_factory=list)
    """What cannot be sent."""
    obstacle: str | None = None
    """Why no call of it can be made as it should be."""

    def add(
        self, name: str, where: str, type_: str | None, required: bool, default: Any, words: str
    ) -> ImportedParam:
        """One more, under its name or, where that is taken, one like it."""
        chosen = _NOT_IN_PARAM.sub("_", name).strip("_.-") or where
        taken = {param.name for param in self.params}
        if chosen in taken:
            chosen = f"{chosen}_{where}"
        while chosen in taken:
            chosen += "_"
        param = ImportedParam(chosen, type_, required and default is MISSING, default, words)
        self.params.append(param)
        return param

    def leave_out(self, what: str, required: bool) -> None:
        """Note what cannot be sent; where it is required, the operation cannot be called."""
        self.problems.append(what)
        if required:
            self.obstacle = self.obstacle or what


@dataclass(frozen=True, slots=True)
class ImportedOperation:
    """What an endpoint's file says.

    Args:
        key: what makes it the same one in the next version of the document: `GET /pets/{id}`.
        name: what the endpoint would best be called.
        about: what the document says of it, a paragraph each.
        method: GET and so on.
        request: what it takes, and where that goes.
        success: status codes that are a success, where these are not only 2xx.
    """

    key: str
    name: str
    about: tuple[str, ...]
    method: str
    request: RequestTemplates
    success: tuple[str, ...] = ()


def operations_of(document: OpenApiDocument) -> tuple[list[ImportedOperation], list[str]]:
    """All operations that can be called, and of others what they are."""
    found: list[ImportedOperation] = []
    left: list[str] = []
    for path, method, shared, operation in document.operations():
        if method == "trace":
            left.append(f"{method.upper()} {text(path)}")
        else:
            found.append(_operation(document, path, method, shared, operation))
    return found, left


def _operation(
    document: OpenApiDocument,
    path: str,
    method: str,
    shared: Mapping[str, Any],
    operation: Mapping[str, Any],
) -> ImportedOperation:
    made = _RequestReader(document, shared, operation).read(path)
    elsewhere = _elsewhere(document, shared, operation)
    if elsewhere is not None:
        made.leave_out(f"it is served elsewhere, at {elsewhere}", True)
    codes = sorted(str(code).upper() for code in mapping(operation.get("responses")))
    return ImportedOperation(
        key=f"{method.upper()} {text(path)}",
        name=name_of(operation.get("operationId"), method, path),
        about=tuple(_about(operation, codes)),
        method=method.upper(),
        request=made,
        success=_success(codes),
    )


def name_of(operation_id: Any, method: str, path: str) -> str:
    """A name that an endpoint can have: the operation's id, else method and path."""
    name = _slug(text(operation_id)) or _slug(f"{method}-{path}") or method
    return name[:_MAX_NAME].rstrip("._-")


def _slug(words: str) -> str:
    return _NOT_IN_NAME.sub("-", words.replace("{", "").replace("}", "")).strip("-._")


def _about(operation: Mapping[str, Any], codes: list[str]) -> list[str]:
    summary, description = text(operation.get("summary")), text(operation.get("description"))
    about = [summary] if summary else []
    if description and description != summary:
        about.append(description)
    if operation.get("deprecated") is True:
        about.append("It is deprecated.")
    if "security" in operation:
        names = [text(name) for one in items(operation["security"]) for name in mapping(one)]
        about.append(f"Auth: {', '.join(names) or 'none'}.")
    if codes:
        about.append(f"Documented answers: {', '.join(text(code) for code in codes)}.")
    return about


def _success(codes: list[str]) -> tuple[str, ...]:
    """What is a success beside 2xx: a redirect, or what has not been modified."""
    further = [code.lower() for code in codes if re.fullmatch(r"1\d\d|3\d\d|3XX", code)]
    return ("2xx", *further) if further else ()


def _elsewhere(
    document: OpenApiDocument, shared: Mapping[str, Any], operation: Mapping[str, Any]
) -> str | None:
    """The URL of an operation that has servers of its own."""
    servers = operation.get("servers", shared.get("servers"))
    if document.version == "2.0" or not items(servers):
        return None
    own = document.base_url(servers)
    return own if own is not None and own != document.base_url() else None


class _RequestReader:
    """Reads the parameters and the body of one operation into `made`.

    Args:
        document: of all operations.
        shared: what the path says of all its operations.
        operation: the operation itself.
    """

    def __init__(
        self, document: OpenApiDocument, shared: Mapping[str, Any], operation: Mapping[str, Any]
    ) -> None:
        self._document = document
        self._operation = operation
        self._parameters = document.parameters_of(shared, operation)
        self.made = RequestTemplates()

    def read(self, path: str) -> RequestTemplates:
        """What the operation takes, and where it goes; `path` as the document has it."""
        in_path: dict[str, str] = {}
        for parameter in self._parameters:
            name, where = str(parameter.get("name", "")), parameter.get("in")
            if where in ("body", "formData") or not name:
                continue
            if where == "path":
                in_path[name] = self._in_path(name, parameter)
            elif where == "query":
                self._in_query(name, parameter)
            elif where == "header":
                self._in_header(name, parameter)
            else:
                what = f"the {text(where)} parameter {text(name)} cannot be sent"
                self.made.leave_out(what, parameter.get("required") is True)
        self.made.path = self._path(path, in_path)
        self.made.body = self._old_body() if self._document.version == "2.0" else self._new_body()
        return self.made

    def _declared(
        self, name: str, parameter: Mapping[str, Any], where: str
    ) -> tuple[ImportedParam, Any, bool]:
        """The endpoint's parameter, its schema, and whether it goes as JSON."""
        document = self._document
        schema: Any = parameter.get("schema", parameter if document.version == "2.0" else {})
        content = mapping(parameter.get("content"))
        if content:
            schema = mapping(next(iter(content.values()))).get("schema", {})
        type_ = document.type_of(schema)
        words = document.words_of(schema, parameter.get("description"))
        required = parameter.get("required") is True or where == "path"
        default = document.default_of(schema, type_)
        param = self.made.add(name, where, type_, required, default, words)
        return param, schema, bool(content)

    def _style(self, name: str, parameter: Mapping[str, Any], default: str) -> str:
        key = "collectionFormat" if self._document.version == "2.0" else "style"
        style = parameter.get(key, default)
        if isinstance(style, str):
            return style
        self.made.problems.append(f"the {key} of the parameter {text(name)} is not a text")
        return default

    def _in_path(self, name: str, parameter: Mapping[str, Any]) -> str:
        param, _, as_json = self._declared(name, parameter, "path")
        style = self._style(name, parameter, "simple")
        if param.type == "object" and not as_json:
            self.made.leave_out(f"the object {text(name)} cannot be written into a path", True)
        before = _PREFIXES.get(style, "").format(name=name)
        if param.type == "array":
            return f"{before}{{{{ {_joined(param, style)} }}}}"
        return f"{before}{{{{ {param.read}{' | tojson' if as_json else ''} }}}}"

    def _in_query(self, name: str, parameter: Mapping[str, Any]) -> None:
        param, schema, as_json = self._declared(name, parameter, "query")
        query = self.made.query
        if as_json:
            query[name] = _unless_null(param, f"{param.read} | tojson")
            return
        style = self._style(name, parameter, "form")
        if self._document.version == "2.0":
            repeated = style == "multi"
        else:
            repeated = parameter.get("explode", style in ("form", "deepObject")) is True
        if param.type == "object":
            properties = self._document.properties_of(schema)
            if not properties or not repeated:
                self.made.params.remove(param)
                what = f"the object {text(name)} cannot be written into a query"
                self.made.leave_out(what, parameter.get("required") is True)
            for inner in properties if repeated else ():
                key = f"{name}[{inner}]" if style == "deepObject" else inner
                if "'" not in inner and "\\" not in inner:
                    query[key] = f"{{{{ ({param.read} or {{}}).get('{inner}') }}}}"
        elif param.type == "array" and style == "deepObject":
            query[f"{name}[]"] = f"{{{{ {param.read} }}}}"
        elif param.type == "array" and not repeated:
            query[name] = _unless_null(param, _joined(param, style))
        else:
            query[name] = f"{{{{ {param.read} }}}}"

    def _in_header(self, name: str, parameter: Mapping[str, Any]) -> None:
        if name.lower() in _NO_PARAMETERS:
            return
        if not _TOKEN.fullmatch(name):
            required = parameter.get("required") is True
            self.made.leave_out(f"{text(name)!r} is not the name of a header", required)
            return
        param, _, as_json = self._declared(name, parameter, "header")
        if as_json:
            self.made.headers[name] = _unless_null(param, f"{param.read} | tojson")
        elif param.type == "array":
            self.made.headers[name] = _unless_null(param, _joined(param, "simple"))
        else:
            self.made.headers[name] = f"{{{{ {param.read} }}}}"

    def _path(self, path: str, in_path: dict[str, str]) -> str:
        """The path with a template for each of its parameters, those that are not declared too."""

        def template(match: re.Match[str]) -> str:
            wire = match[1]
            name = wire if wire in in_path else re.split("[=:]", wire, maxsplit=1)[0]
            if name not in in_path:
                param = self.made.add(name, "path", "string", True, MISSING, "")
                in_path[name] = f"{{{{ {param.read} }}}}"
            return in_path[name]

        # What a template or a reference could be taken for is written as the bytes that go out.
        literal = re.sub(r"\$(?=\{)", "%24", path).replace("#", "%23")
        found = _IN_PATH.sub(template, literal)
        return found if found.startswith("/") else f"/{found}"

    def _new_body(self) -> Body | None:
        body = self._document.look(self._operation.get("requestBody"))
        content = mapping(body.get("content"))
        if not content:
            return None
        media = min(map(str, content), key=media_rank)
        schema = mapping(content[media]).get("schema", {})
        required = body.get("required") is True
        return self._body(media, schema, required, "body", body.get("description"))

    def _old_body(self) -> Body | None:
        """The body as version 2.0 has it: one of the parameters, or several fields of a form."""
        consumes = self._operation.get("consumes", self._document.root.get("consumes"))
        medias = [str(media) for media in items(consumes)]
        fields: dict[str, Any] = {}
        for parameter in self._parameters:
            required = parameter.get("required") is True
            name = str(parameter.get("name", ""))
            if parameter.get("in") == "body":
                media = min(medias or ["application/json"], key=media_rank)
                schema, words = parameter.get("schema", {}), parameter.get("description")
                return self._body(media, schema, required, name or "body", words)
            if parameter.get("in") == "formData":
                fields[name] = parameter
        if not fields:
            return None
        needed = [name for name, field in fields.items() if field.get("required") is True]
        schema = {"type": "object", "properties": fields, "required": needed}
        files = any(field.get("type") == "file" for field in fields.values())
        forms = [media for media in medias if media in (FORM, MULTIPART)] or [FORM]
        media = MULTIPART if files else min(forms, key=media_rank)
        return self._body(media, schema, bool(needed), "body", "")

    def _body(
        self, media: str, schema: Any, required: bool, name: str, description: Any
    ) -> Body | None:
        kind, made = _kind_of(media), self.made
        if kind in (FORM, MULTIPART):
            return self._form(kind, schema, required)
        if kind.startswith("multipart/") or _LIVE & {*media}:
            made.leave_out(f"a body of {text(media)} cannot be sent", required)
            return None
        type_ = self._document.type_of(schema)
        words = self._document.words_of(schema, description)
        if kind.endswith("json") or "*" in kind:
            if kind.endswith("json") and kind != "application/json":
                made.headers["Content-Type"] = text(media)
            required = required or not self._may_be_empty(schema)
            default = MISSING if required else _EMPTY_BODIES.get(type_, MISSING)
            words = " ".join(part for part in (words, self._fields_in_words(schema)) if part)
            param = made.add(name, "body", type_, required, default, words)
            return "json", f"{{{{ {param.read} }}}}"
        made.headers["Content-Type"] = text(media)
        param = made.add(name, "body", "string", required, MISSING, words)
        return "text", f"{{{{ {param.read} }}}}"

    def _may_be_empty(self, schema: Any) -> bool:
        """Whether a body without any field, or without an item, is certain to fit."""
        known = self._document.look(schema)
        asks = any(key in known for key in ("oneOf", "anyOf", "minItems", "minProperties"))
        return not asks and not self._document.required_of(known)

    def _form(self, kind: str, schema: Any, required: bool) -> Body | None:
        document, made = self._document, self.made
        properties, needed = document.properties_of(schema), document.required_of(schema)
        if not properties:
            made.leave_out("the fields of its form are not declared", required)
            return None
        form: dict[str, Any] = {}
        for name, declared in properties.items():
            about = f"the field {text(name)} of its form"
            type_, words = document.type_of(declared), document.words_of(declared, "")
            one = document.look(declared.get("items")) if type_ == "array" else declared
            if kind == MULTIPART and (one.get("type") == "file" or one.get("format") == "binary"):
                words = "; ".join(part for part in (words, "the path of the file") if part)
                param = made.add(name, "form", "string", True, MISSING, words)
                form[name] = {"path": f"{{{{ {param.read} }}}}"}
                if one is not declared:
                    made.problems.append(f"several files in {about} cannot be sent")
                if not required or name not in needed:
                    made.problems.append(f"a form without the file {text(name)} cannot be sent")
                continue
            if type_ == "object":
                made.problems.append(f"{about} is sent as JSON")
            default = document.default_of(declared, type_)
            param = made.add(name, "form", type_, required and name in needed, default, words)
            form[name] = f"{{{{ {param.read} }}}}"
        return ("form" if kind == FORM else "multipart"), form

    def _fields_in_words(self, schema: Any) -> str:
        """The fields of a JSON object, in words."""
        document = self._document
        properties, needed = document.properties_of(schema), document.required_of(schema)
        words: list[str] = []
        for name, value in properties.items():
            more = [document.type_of(value) or "any", *(["required"] if name in needed else [])]
            words.append(f"{text(name)} ({', '.join(more)})")
        if not words:
            return ""
        rest = ", …" if len(words) > _MAX_FIELDS else ""
        return f"Fields: {', '.join(words[:_MAX_FIELDS])}{rest}"


def _joined(param: ImportedParam, style: Any) -> str:
    return f"{param.read} | join('{_SEPARATORS.get(style, ',')}')".replace("\t", "\\t")


def _unless_null(param: ImportedParam, expression: str) -> str:
    if param.required:
        return f"{{{{ {expression} }}}}"
    return f"{{{{ {expression} if {param.read} is not none else none }}}}"


def media_rank(media: str) -> int:
    """Which of several kinds of content is sent: the lowest."""
    kind = _kind_of(media)
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


def _kind_of(media: str) -> str:
    return media.partition(";")[0].strip().lower()
