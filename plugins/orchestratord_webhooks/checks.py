"""What can be said of webhooks before the first event: for `check`, and at each (re)load."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from orchestratord import Endpoint, Problem, Template
from orchestratord_webhooks import delivery, envelope, signature
from orchestratord_webhooks.declaration import WEBHOOKS, Webhook

HTTP = "http"
PAYLOAD_NAMES = envelope.NAMES | {"task", "now"}

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_EXPRESSION = re.compile(r"""\{\{(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^'"])*?\}\}""", re.DOTALL)


def problems(endpoint: Endpoint) -> Iterator[Problem]:
    """All that is wrong or looks wrong with the webhooks of one endpoint."""
    webhooks = endpoint[WEBHOOKS]
    yield from _expected(endpoint, frozenset(webhook.name for webhook in webhooks))
    for index, webhook in enumerate(webhooks):
        key = f"webhooks.{index}"
        yield from _phase(webhook, endpoint, key)
        yield from _payload(webhook, key)
        yield from _sent_by(webhook, key)
        yield from _secrets(webhook, key)


def _expected(endpoint: Endpoint, known: frozenset[str]) -> Iterator[Problem]:
    """The names of webhooks that the endpoint's tests expect."""
    for number, test in enumerate(endpoint.tests):
        for index, name in enumerate(test.expect.webhooks or ()):
            if name not in known:
                yield Problem(
                    f"there is no webhook {name!r}{_nearest(name, known)}",
                    key=f"tests.{number}.expect.webhooks.{index}",
                )


def _nearest(name: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f", did you mean {near[0]!r}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""


def _phase(webhook: Webhook, endpoint: Endpoint, key: str) -> Iterator[Problem]:
    if endpoint.type == HTTP and webhook.phase.endswith("_execute"):
        request = webhook.phase.replace("_execute", "_request")
        yield Problem(
            f"never fires: a call by HTTP has no phase {webhook.phase}; did you mean {request!r}?",
            key=f"{key}.phase",
            severity="warning",
        )


def _payload(webhook: Webhook, key: str) -> Iterator[Problem]:
    payload = webhook.payload
    if payload is None:
        return
    yield from _undefined(payload.names, PAYLOAD_NAMES, f"{key}.payload")
    if payload.secret:
        yield Problem(
            "a payload is stored, and a secret never is: it would be sent as ***; "
            "put it into a header",
            key=f"{key}.payload",
        )
    if webhook.include is not None:
        yield Problem(
            "`include` narrows the standard envelope; this webhook has a payload of its own",
            key=f"{key}.include",
            severity="warning",
        )


def _sent_by(webhook: Webhook, key: str) -> Iterator[Problem]:
    yield from _undefined(webhook.url.template.names, delivery.NAMES, f"{key}.url")
    for name, template in webhook.headers.items():
        yield from _undefined(template.names, delivery.NAMES, f"{key}.headers.{name}")
        if _CONTROL.search(_literal(template)):
            yield Problem(
                "a header holds no line break or control character", key=f"{key}.headers.{name}"
            )
        if name.lower() in signature.HEADERS:
            yield Problem(
                f"{name} is set by the signature; what stands here is not sent",
                key=f"{key}.headers.{name}",
                severity="warning",
            )


def _literal(template: Template) -> str:
    """What is the same in each delivery: with references, as far as no expression is near."""
    return str(template.render({})) if template.constant else _EXPRESSION.sub("", template.source)


def _secrets(webhook: Webhook, key: str) -> Iterator[Problem]:
    smallest, largest = signature.SIZES[0], signature.SIZES[-1]
    for secret in webhook.secret:
        if len(secret.value) not in signature.SIZES:
            yield Problem(
                f"the secret has {len(secret.value)} bytes; Standard Webhooks asks for "
                f"{smallest} to {largest}, and some receivers take no other",
                key=f"{key}.secret",
                severity="warning",
            )


def _undefined(used: frozenset[str], known: frozenset[str], key: str) -> Iterator[Problem]:
    for name in sorted(used - known):
        near = difflib.get_close_matches(name, known, n=1)
        if name in PAYLOAD_NAMES:
            remedy = "only a payload can use it; it is not kept until the delivery is sent"
        elif near:
            remedy = f"did you mean {near[0]!r}?"
        else:
            remedy = f"known are {', '.join(sorted(known))}"
        yield Problem(f"{name!r} is not known in this template: {remedy}", key=key)
