"""An answer as expressions see it: `{status_code, headers, body, text}`, and its parts.

The body is JSON, XML or the fields of a form, by its Content-Type; without one what begins with
`<?xml` is XML. XML has local names: prefixes are dropped, attributes are `@name`, and a text beside
attributes is `#text`. Entities are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import parse_qs
from xml.parsers import expat

import httpx

from orchestratord.model.answer_expression import OF_ANSWER, WHOLE
from orchestratord.model.http_message import header, header_items
from orchestratord.plugin.long_work import off_loop
from orchestratord.values.budget import INLINE_STEPS, Budget, TooCostly
from orchestratord.values.jmespath_expression import Expression
from orchestratord.values.json_body import INLINE_BYTES, MAX_DEPTH, free_json, parse_json

INLINE_XML = 4 << 10
"""Bytes of XML up to which it is looked into on the event loop."""
MOST_XML = 200_000
"""Elements and attributes that are taken."""
_PIECE = 65_536
"""Bytes of XML that are parsed in one go."""

T = TypeVar("T")


class UnreadableBody(ValueError):
    """A body that expressions cannot look at.

    Args:
        message: why, in words.
        kind: what it should have been: JSON, XML; empty where it was cut.
        detail: what is wrong with it as such.
    """

    def __init__(self, message: str, kind: str = "", detail: str = "") -> None:
        self.kind, self.detail = kind, detail
        super().__init__(message)


class AnswerView:
    """One answer; what no expression names is not read.

    `lenient`: a body that cannot be read is null.
    """

    def __init__(self, response: httpx.Response, *, lenient: bool = False) -> None:
        self._response, self._lenient = response, lenient
        self._known: dict[str, Any] = {"status_code": response.status_code}

    def seen_by(self, expression: Expression) -> Any:
        """What an expression looks at: the document, or the body alone where it names nothing of
        the document. Raises UnreadableBody where it names the body."""
        if expression.names.isdisjoint(OF_ANSWER):
            return self._part("body")
        return self.document(expression.names)

    def document(self, names: frozenset[str]) -> Mapping[str, Any]:
        """All that can be looked at, at least what `names` names. Raises UnreadableBody."""
        for name in OF_ANSWER if WHOLE in names else names & OF_ANSWER:
            self._part(name)
        return self._known

    def search(self, expression: Expression, budget: Budget | None = None) -> Any:
        """What an expression finds.

        Raises:
            TooCostly: it costs more than `budget`, or than it may at all.
            ValueError: the body cannot be read, or a function does not take what it is given.
        """
        return expression.search(self.seen_by(expression), budget)

    def holds(self, expression: Expression, budget: Budget | None = None) -> bool:
        """Whether what an expression finds counts as true. Raises what `search` does."""
        return expression.holds(self.seen_by(expression), budget)

    def root(self) -> Any:
        """The body, or what its root element holds. Raises UnreadableBody."""
        body = self._part("body")
        return next(iter(body.values())) if is_xml(self._response) and body else body

    def _part(self, name: str) -> Any:
        if name not in self._known:
            try:
                self._known[name] = _PARTS[name](self._response)
            except UnreadableBody:
                if not self._lenient:
                    raise
                self._known[name] = None
        return self._known[name]

    def free(self) -> None:
        """Free what was read, in pieces; nothing is looked at any more."""
        free_json([self._known.pop("body", None)])


async def look(
    response: httpx.Response,
    ask: Callable[[AnswerView, Budget | None], T],
    *,
    lenient: bool = False,
) -> T:
    """Ask something of an answer: at once where that is quick, else in a thread.

    `ask` gets the answer's view, and what it may cost, None for as much as it takes. It raises
    TooCostly where it costs more, and is asked again in a thread then.
    """
    if reads_quickly(response):
        try:
            return ask(AnswerView(response, lenient=lenient), Budget(INLINE_STEPS))
        except TooCostly:
            pass
    return await off_loop(_ask_apart, AnswerView(response, lenient=lenient), ask)


def _ask_apart(view: AnswerView, ask: Callable[[AnswerView, None], T]) -> T:
    try:
        return ask(view, None)
    finally:
        view.free()


# -- the parts of an answer ------------------------------------------------------------------------


def read_headers(response: httpx.Response) -> dict[str, str]:
    """Every header, its name in small letters; those with one name are joined by a comma."""
    found: dict[str, str] = {}
    for name, value in header_items(response):
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def read_text(response: httpx.Response) -> str:
    """The body as a text, in the charset that the answer names."""
    try:
        return response.content.decode(response.charset_encoding or "utf-8", "replace")
    except (LookupError, TypeError, ValueError):  # of a header that `email` cannot read, too
        return response.content.decode("utf-8", "replace")


def read_body(response: httpx.Response) -> Any:
    """The value of the body; None where it is empty.

    Raises UnreadableBody where it is not all there, or is neither JSON, XML nor a form.
    """
    content = response.content
    if (saved := response.extensions.get("saved")) is not None:
        return saved
    if response.extensions.get("truncated"):
        raise UnreadableBody("the body is longer than max_response")
    if not content.strip():
        return None
    if is_xml(response):
        return _read_xml(response)
    if media_type_of(response) == "application/x-www-form-urlencoded":
        fields = parse_qs(read_text(response), keep_blank_values=True)
        return {name: found if len(found) > 1 else found[0] for name, found in fields.items()}
    try:
        try:
            return parse_json(content, parse_constant=_refuse)
        except UnicodeDecodeError:  # old servers have other charsets, and say so
            text = content.decode(response.charset_encoding or "utf-8")
            return parse_json(text, parse_constant=_refuse)
    except RecursionError:
        detail = "it is nested too deeply"
    except (LookupError, TypeError, ValueError) as error:
        detail = str(error)
    raise UnreadableBody("the body is no JSON", "JSON", detail)


_PARTS: dict[str, Callable[[httpx.Response], Any]] = {
    "headers": read_headers,
    "body": read_body,
    "text": read_text,
}


def reads_quickly(response: httpx.Response) -> bool:
    """Whether the body is short enough to be read on the event loop."""
    return len(response.content) <= (INLINE_XML if is_xml(response) else INLINE_BYTES)


def is_xml(response: httpx.Response) -> bool:
    """Whether the body is taken for XML."""
    kind = media_type_of(response)
    if not kind:
        return response.content.lstrip().startswith(b"<?xml")
    return kind.endswith(("/xml", "+xml")) and kind != "application/xhtml+xml"


def media_type_of(response: httpx.Response) -> str:
    """What the Content-Type says, in small letters and without its parameters."""
    return (header(response, "content-type") or "").partition(";")[0].strip().lower()


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _read_xml(response: httpx.Response) -> Any:
    import xmltodict  # most APIs speak JSON

    try:
        encoding = response.charset_encoding
        pieces: Any = _bounded_pieces(response.content, encoding)
        return xmltodict.parse(pieces, encoding=encoding, postprocessor=cast("Any", _local))
    except TooCostly:
        detail = f"it has more than {MOST_XML:,} elements and attributes"
    except Exception as error:  # expat's own, and LookupError for an unknown encoding
        detail = str(error)
    raise UnreadableBody("the body is no XML that is taken", "XML", detail)


def _bounded_pieces(content: bytes, encoding: str | None) -> Iterator[bytes]:
    """The pieces of XML, as long as it is neither too deep nor too much: the library calls nothing
    of ours before an element ends. Other threads run between two pieces."""
    left, depth = Budget(MOST_XML), 0

    def begin(name: str, attributes: list[str]) -> None:
        nonlocal depth
        depth += 1
        left.spend(1 + len(attributes) // 2)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH}")

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate(encoding)
    parser.ordered_attributes = True
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    for start in range(0, len(content), _PIECE):
        piece = content[start : start + _PIECE]
        parser.Parse(piece, False)
        yield piece


def _local(path: list[Any], key: str, value: Any) -> tuple[str, Any] | None:
    """An element or an attribute by its local name; None for a declaration of a namespace."""
    if key.startswith("@"):
        name = key[1:]
        if name == "xmlns" or name.startswith("xmlns:"):
            return None
        return f"@{name.rpartition(':')[2]}", value
    return key.rpartition(":")[2], value
