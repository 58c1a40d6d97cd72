"""From a sender's request to the params of the event: headers, query and body."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from orchestratord import (
    MAX_DEPTH,
    InvalidParams,
    PortRequest,
    Redactor,
    is_named_for_secret,
    is_shallow,
    parse_json,
)

LEFT_OUT = frozenset(
    "accept-encoding authorization connection content-length cookie expect host keep-alive "
    "proxy-authorization te trailer transfer-encoding upgrade x-forwarded-for x-real-ip".split()
)
"""Headers that say who asked, or how the request was sent, and nothing of what has happened."""
MASK = "***"
_SIGNATURE = re.compile("signature|hmac|(^|[^a-z])sig($|[^a-z])", re.IGNORECASE)
"""In the name of a header, or of a parameter of the query, that says who has signed."""
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([\w.:+-]{1,40})', re.IGNORECASE | re.ASCII)
CHARSETS = {*aliases, *aliases.values()}
"""Python knows further codecs, which are no charsets, and keeps each name that it is asked for."""
MAX_FIELDS = 1_000
"""Of a form."""


def params_of(request: PortRequest, redactor: Redactor, signature: str) -> dict[str, Any]:
    """What the event says. Raises InvalidParams where the body is none that it could say.

    `signature`: the header that holds it.
    """
    return {
        "headers": _headers(request, redactor, signature),
        "query": _query(request, redactor),
        "body": body_of(request),
    }


def body_of(request: PortRequest) -> Any:
    """The body as its type says: JSON, a form, or a text. Raises InvalidParams."""
    declared = request.header("content-type") or ""
    kind = declared.partition(";")[0].strip().lower()
    try:
        if kind == "application/json" or kind.endswith("+json"):
            return _json(request.body) if request.body else None
        if kind == "application/x-www-form-urlencoded":  # always in UTF-8
            text = request.body.decode()
            return _grouped(
                parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
            )
        return _text(request.body, _CHARSET.search(declared))
    except ValueError as error:
        raise InvalidParams({"body": f"is not what its content-type says: {error}"}) from None


def _text(body: bytes, declared: re.Match[str] | None) -> str:
    """In its charset; else in UTF-8, of which ASCII is a part. Raises ValueError."""
    charset = normalize_encoding(declared[1]).lower() if declared else "utf_8"
    for one in (charset, "utf_8"):
        with contextlib.suppress(LookupError, ValueError):
            if one in CHARSETS:
                return body.decode(one)
    raise ValueError(f"no text in {charset}")


def _json(body: bytes) -> Any:
    try:
        value = parse_json(body, parse_constant=_refuse)
        if is_shallow(value):
            return value
    except RecursionError:
        pass
    raise InvalidParams({"body": f"is nested more than {MAX_DEPTH} deep"})


def _query(request: PortRequest, redactor: Redactor) -> Mapping[str, Any]:
    """What the query says, but for what only shows that the sender may ask."""
    return _grouped(
        (name, redactor.text(value))
        for name, value in request.query
        if not (is_named_for_secret(name) or _SIGNATURE.search(name))
    )


def _headers(request: PortRequest, redactor: Redactor, signature: str) -> Any:
    found: dict[str, str] = {}
    for name, value in redactor.headers(request.headers):
        # Many senders sign in several ways at once, and one of these is verified.
        if name in LEFT_OUT or name == signature or value == MASK or _SIGNATURE.search(name):
            continue
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _grouped(pairs: Iterable[tuple[str, str]]) -> Mapping[str, Any]:
    """Each name with its value, or with all of them where there are several."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")
