"""What can be said of webhooks before the first event: for `check`, and at each (re)load."""

from __future__ import annotations

from collections.abc import Iterator

from orchestratord import Endpoint, Problem, suggest
from orchestratord_webhooks import signature
from orchestratord_webhooks.declaration import WEBHOOKS, Webhook

HTTP, SQL = "http", "sql"


def problems(endpoint: Endpoint) -> Iterator[Problem]:
    """All that is wrong or looks wrong with the webhooks of one endpoint."""
    webhooks = endpoint[WEBHOOKS]
    yield from _expected(endpoint, frozenset(webhook.name for webhook in webhooks))
    for index, webhook in enumerate(webhooks):
        key = f"webhooks.{index}"
        yield from _phase(webhook, endpoint, key)
        yield from _payload(webhook, key)
        yield from _headers(webhook, key)
        yield from _secrets(webhook, key)


def _expected(endpoint: Endpoint, known: frozenset[str]) -> Iterator[Problem]:
    """The names of webhooks that the endpoint's tests expect."""
    for number, test in enumerate(endpoint.tests):
        for index, name in enumerate(test.expect.webhooks or ()):
            if name not in known:
                yield Problem(
                    f"there is no webhook {name!r}{suggest(name, known)}",
                    key=f"tests.{number}.expect.webhooks.{index}",
                )


def _phase(webhook: Webhook, endpoint: Endpoint, key: str) -> Iterator[Problem]:
    if endpoint.type == HTTP and webhook.phase.endswith("_execute"):
        other, what = webhook.phase.replace("_execute", "_request"), "a call by HTTP"
    elif endpoint.type == SQL and webhook.phase.endswith("_request"):
        other, what = webhook.phase.replace("_request", "_execute"), "a statement"
    else:
        return
    yield Problem(
        f"never fires: {what} has no phase {webhook.phase}; did you mean {other!r}?",
        key=f"{key}.phase",
        severity="warning",
    )


def _payload(webhook: Webhook, key: str) -> Iterator[Problem]:
    if webhook.payload is not None and webhook.include is not None:
        yield Problem(
            "`include` narrows the standard envelope; this webhook has a payload of its own",
            key=f"{key}.include",
            severity="warning",
        )


def _headers(webhook: Webhook, key: str) -> Iterator[Problem]:
    for name in webhook.headers:
        if name.lower() in signature.HEADERS:
            yield Problem(
                f"{name} is set by the signature; what stands here is not sent",
                key=f"{key}.headers.{name}",
                severity="warning",
            )


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
