"""The parameters of an operation, as those of an endpoint and the templates that send them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestratord.cli.importing.document import Document, mapping, text
from orchestratord.cli.importing.schemas import (
    MISSING,
    default_of,
    properties_of,
    type_of,
    words_of,
)

_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_IN_PATH = re.compile(r"\{([^{}]+)\}")
_SEPARATORS = {
    "csv": ",", "ssv": " ", "tsv": "\t", "pipes": "|",
    "form": ",", "simple": ",", "label": ",", "matrix": ",",
    "spaceDelimited": " ", "pipeDelimited": "|",
}  # fmt: skip
_BEFORE = {"label": ".", "matrix": ";{name}="}
_OURS = frozenset({"accept", "content-type", "authorization"})
"""Headers of which OpenAPI says that they are not parameters."""


@dataclass(frozen=True, slots=True)
class Argument:
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
class Arguments:
    """What an operation takes, and where it goes."""

    arguments: list[Argument] = field(default_factory=list)
    path: str = ""
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What cannot be sent."""
    obstacle: str | None = None
    """Why no call of it can be made as it should be."""

    def add(
        self, name: str, where: str, type_: str | None, required: bool, default: Any, words: str
    ) -> Argument:
        """One more, under its name or, where that is taken, one like it."""
        chosen = _UNFIT.sub("_", name).strip("_.-") or where
        taken = {argument.name for argument in self.arguments}
        if chosen in taken:
            chosen = f"{chosen}_{where}"
        while chosen in taken:
            chosen += "_"
        argument = Argument(chosen, type_, required and default is MISSING, default, words)
        self.arguments.append(argument)
        return argument

    def leave_out(self, what: str, required: bool) -> None:
        """Note what cannot be sent; where it is required, the operation cannot be called."""
        self.problems.append(what)
        if required:
            self.obstacle = self.obstacle or what


def arguments_of(
    document: Document, path: str, shared: Mapping[str, Any], operation: Mapping[str, Any]
) -> Arguments:
    """The parameters of one operation, but for those of its body.

    Args:
        document: of all of them.
        path: as the document has it.
        shared: what the path says of all its operations.
        operation: the operation itself.
    """
    made = Arguments()
    in_path: dict[str, str] = {}
    for parameter in parameters_of(document, shared, operation):
        name, where = str(parameter.get("name", "")), parameter.get("in")
        if where in ("body", "formData") or not name:
            continue
        if where == "path":
            in_path[name] = _in_path(document, made, name, parameter)
        elif where == "query":
            _in_query(document, made, name, parameter)
        elif where == "header":
            _in_header(document, made, name, parameter)
        else:
            required = parameter.get("required") is True
            made.leave_out(f"the {text(where)} parameter {text(name)} cannot be sent", required)
    made.path = _path(made, path, in_path)
    return made


def parameters_of(
    document: Document, shared: Mapping[str, Any], operation: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The parameters of an operation; its own take the place of those of its path."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for source in (shared, operation):
        given = source.get("parameters")
        for one in given if isinstance(given, list) else ():
            parameter = document.look(one)
            found[str(parameter.get("name")), str(parameter.get("in"))] = parameter
    return list(found.values())


def _declared(
    document: Document, made: Arguments, name: str, parameter: Mapping[str, Any], where: str
) -> tuple[Argument, Any, bool]:
    """The argument, its schema, and whether it goes as JSON."""
    schema: Any = parameter.get("schema", parameter if document.version == "2.0" else {})
    content = mapping(parameter.get("content"))
    if content:
        schema = mapping(next(iter(content.values()))).get("schema", {})
    type_ = type_of(document, schema)
    words = words_of(document, schema, parameter.get("description"))
    required = parameter.get("required") is True or where == "path"
    default = default_of(document, schema, type_)
    return made.add(name, where, type_, required, default, words), schema, bool(content)


def _in_path(document: Document, made: Arguments, name: str, parameter: Mapping[str, Any]) -> str:
    argument, _, as_json = _declared(document, made, name, parameter, "path")
    style = parameter.get("style", parameter.get("collectionFormat", "simple"))
    if argument.type == "object" and not as_json:
        made.leave_out(f"the object {text(name)} cannot be written into a path", True)
    before = _BEFORE.get(style, "").format(name=name)
    if argument.type == "array":
        return f"{before}{{{{ {_joined(argument, style)} }}}}"
    return f"{before}{{{{ {argument.read}{' | tojson' if as_json else ''} }}}}"


def _in_query(document: Document, made: Arguments, name: str, parameter: Mapping[str, Any]) -> None:
    argument, schema, as_json = _declared(document, made, name, parameter, "query")
    if as_json:
        made.query[name] = _unless_null(argument, f"{argument.read} | tojson")
        return
    old = document.version == "2.0"
    if old:
        style = parameter.get("collectionFormat", "csv")
        repeated = style == "multi"
    else:
        style = parameter.get("style", "form")
        repeated = parameter.get("explode", style in ("form", "deepObject")) is True
    if argument.type == "object":
        properties = properties_of(document, schema)
        if not properties or not repeated:
            made.arguments.remove(argument)
            required = parameter.get("required") is True
            made.leave_out(f"the object {text(name)} cannot be written into a query", required)
        for inner in properties if repeated else ():
            key = f"{name}[{inner}]" if style == "deepObject" else inner
            if "'" not in inner and "\\" not in inner:
                made.query[key] = f"{{{{ ({argument.read} or {{}}).get('{inner}') }}}}"
        return
    if argument.type == "array" and style == "deepObject":
        made.query[f"{name}[]"] = f"{{{{ {argument.read} }}}}"
    elif argument.type == "array" and not repeated:
        made.query[name] = _unless_null(argument, _joined(argument, style))
    else:
        made.query[name] = f"{{{{ {argument.read} }}}}"


def _in_header(
    document: Document, made: Arguments, name: str, parameter: Mapping[str, Any]
) -> None:
    if name.lower() in _OURS:
        return
    if not _TOKEN.fullmatch(name):
        made.leave_out(f"{text(name)!r} is no name of a header", parameter.get("required") is True)
        return
    argument, _, as_json = _declared(document, made, name, parameter, "header")
    if as_json:
        made.headers[name] = _unless_null(argument, f"{argument.read} | tojson")
    elif argument.type == "array":
        made.headers[name] = _unless_null(argument, _joined(argument, "simple"))
    else:
        made.headers[name] = f"{{{{ {argument.read} }}}}"


def _joined(argument: Argument, style: Any) -> str:
    return f"{argument.read} | join('{_SEPARATORS.get(style, ',')}')".replace("\t", "\\t")


def _unless_null(argument: Argument, expression: str) -> str:
    if argument.required:
        return f"{{{{ {expression} }}}}"
    return f"{{{{ {expression} if {argument.read} is not none else none }}}}"


def _path(made: Arguments, path: str, in_path: Mapping[str, str]) -> str:
    """The path with a template for each of its parameters, those that nobody declared too."""

    def template(match: re.Match[str]) -> str:
        wire = match[1]
        name = wire if wire in in_path else re.split("[=:]", wire, maxsplit=1)[0]
        if name not in in_path:
            return f"{{{{ {made.add(name, 'path', 'string', True, MISSING, '').read} }}}}"
        return in_path[name]

    # What a template or a reference could be taken for is written as the bytes that go out.
    literal = re.sub(r"\$(?=\{)", "%24", path).replace("#", "%23")
    found = _IN_PATH.sub(template, literal)
    return found if found.startswith("/") else f"/{found}"
