"""What the templates of a webhook may use, and its URL, which may hold some.

Where a URL goes is fixed; what follows the host may be rendered for each delivery.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, unquote

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from orchestratord import InvalidPayload, Template, TemplateTree, Text, host_and_port, suggest

DATA = frozenset(
    {"endpoint", "phase", "status_code", "task_id", "attempt", "params", "request", "response",
     "reason", "error", "next_try", "partition", "run_id"}
)  # fmt: skip
"""The fields of the envelope's data."""

RUN_END = "on_run_end"
"""The phase of a run that has ended."""
OF_RUN_END = frozenset(
    {"end", "counts", "failed_endpoints", "first_errors", "started_at", "ended_at", "duration_ms"}
)
"""What it adds to these."""

PAYLOAD = DATA | {"task", "now"}
"""For a payload, which is rendered when the event happens."""

OF_BATCH = frozenset(
    {"webhook", "phase", "batch", "count", "counts", "first", "filter", "opened_at", "closed_at",
     "now"}
)  # fmt: skip
"""For the payload of a batch, which is rendered when that has closed."""

OPERATIONAL = OF_BATCH - {"phase"}
"""For the payload of an operational webhook."""

DELIVERY_OF_BATCH = frozenset({"phase", "now"})
"""For the URL and headers of its delivery."""

DELIVERY = frozenset({"params", "task", "now", "endpoint", "phase", "task_id"})
"""For URL and headers, which are rendered when a delivery is sent."""

FIELDS = {
    "task": frozenset({"id", "attempt", "scheduled_at", "last_success_at"}),
    "request": frozenset({"method", "url", "database", "statement", "params"}),
    "response": frozenset({"headers", "body", "encoding", "truncated"}),
    "counts": frozenset(
        {"endpoint", "reason", "status_code", "type", "total", "succeeded", "failed", "cancelled"}
    ),
}
"""What these names hold."""

TYPES = {
    **dict.fromkeys(("attempt", "task_id"), "integer"),
    **dict.fromkeys(("endpoint", "phase", "reason", "error", "partition", "run_id"), "string"),
    "status_code": "status code",
}
"""Of these names."""

_AUTHORITY_ENDS = re.compile(r"[/?#]")


def data_names(phase: str) -> frozenset[str]:
    """What the envelope's data of this phase hold."""
    return DATA | OF_RUN_END if phase == RUN_END else DATA


def payload_names(phase: str) -> frozenset[str]:
    """What the payload of a webhook of this phase may use."""
    return PAYLOAD | data_names(phase)


def check_names(template: Template | TemplateTree, known: frozenset[str]) -> None:
    """Raises ValueError where a template uses a name that there is not."""
    if wrong := wrong_names(template, known):
        raise ValueError(wrong)


def wrong_names(template: Template | TemplateTree, known: frozenset[str]) -> str:
    """What is wrong with the names that a template uses; empty for nothing."""
    wrong = [
        f"{name!r} is not known in this template{why}" for name, why in _wrong(template, known)
    ]
    return "; ".join(wrong)


def _wrong(template: Template | TemplateTree, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(template.names - known):
        if name in OF_RUN_END and known == PAYLOAD:
            yield name, f": only a payload of the phase {RUN_END} can use it"
        elif name in PAYLOAD and known == DELIVERY:
            yield name, ": only a payload can use it; it is not kept until the delivery is sent"
        else:
            within = [root for root, fields in FIELDS.items() if name in fields and root in known]
            yield name, f": write {within[0]}.{name}" if within else suggest(name, known)
    for path in sorted(template.paths):
        root, _, field = path.partition(".")
        # What every mapping can do, such as `response.get("truncated")`, is no name of ours.
        if root in known and root in FIELDS and not hasattr(dict, field):
            fields = {f"{root}.{name}" for name in FIELDS[root]}
            if path not in fields:
                yield path, suggest(path, fields)


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """A parsed URL.

    `receiver` is its `host:port`, known before anything is rendered; `shown` is the URL for
    people, with what came from a secret reference masked. `name` is the same, and tells two apart
    that differ in a secret alone.
    """

    template: Template
    receiver: str
    shown: str
    name: str

    @classmethod
    def parse(cls, value: Any) -> WebhookUrl:
        """Read a URL. Raises ValueError, without the URL: it may be a secret as a whole."""
        if isinstance(value, WebhookUrl):
            return value
        if not isinstance(value, str):
            raise ValueError("a URL is a text, such as https://ops.example.com/hook")
        pieces = value.parts if isinstance(value, Text) else ((value, False),)
        secret = isinstance(value, Text) and value.secret
        shown = "".join("***" if referenced and secret else text for text, referenced in pieces)
        name = shown
        if secret:  # six digits tell a few apart, and nothing of what they were made of
            name += f"~{hashlib.sha256(value.encode()).hexdigest()[:6]}"
        return cls(Template(value), _receiver(pieces), shown, name)

    def render(self, context: Mapping[str, Any]) -> str:
        """The URL for one delivery; values are percent-encoded, `/` included.

        Raises InvalidPayload where a template fails or a value would lead to another path.
        """
        url: str = self.template.render(context, quote=lambda text: quote(text, safe=""))
        if not self.template.constant:
            path = _AUTHORITY_ENDS.split(url.split("://", 1)[1].split("?", 1)[0])[1:]
            if any(unquote(segment) in (".", "..") for segment in path):
                raise InvalidPayload("a value would make the path of the webhook's URL climb")
        return url


NOWHERE = WebhookUrl(Template(""), "", "", "")
"""That of a webhook which goes to subscribers."""


def _receiver(pieces: tuple[tuple[str, bool], ...]) -> str:
    """`host:port` of the text that stands before the first template. Raises ValueError."""
    head, templated = "", False
    for text, referenced in pieces:
        # What a reference stands for is never read as a template.
        literal, braces, _ = (text, "", "") if referenced else text.partition("{{")
        head += literal
        if braces:
            templated = True
            break
    scheme, separator, rest = head.partition("://")
    authority = _AUTHORITY_ENDS.split(rest, maxsplit=1)[0]
    if templated and (not separator or authority == rest):
        raise ValueError("no template can stand in the scheme, host or port of a URL")
    if scheme.lower() not in ("http", "https") or not authority:
        raise ValueError("a URL begins with http:// or https:// and a host")
    if "@" in authority:
        raise ValueError("a URL holds no user name or password; write them into a header")
    if (found := host_and_port(f"{scheme}://{authority}")) is None:
        raise ValueError("the host or the port of the URL is not valid")
    host, port = found
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


UrlKey = Annotated[
    WebhookUrl,
    PlainValidator(WebhookUrl.parse),
    PlainSerializer(lambda url: url.shown),
    WithJsonSchema(
        {
            "type": "string",
            "description": "http:// or https://; templates may stand in its path and query",
        }
    ),
]
"""A key that holds a URL."""
