"""What can be said of webhooks before the first event: for `check`, and at each (re)load."""

from __future__ import annotations

from collections.abc import Iterator

from orchestratord import Endpoint, Problem, StatusSet, Template, format_duration, misused, suggest
from orchestratord_webhooks import signature, webhook_templates
from orchestratord_webhooks.declaration import WEBHOOKS, Webhook
from orchestratord_webhooks.webhook_templates import NOWHERE, TYPES, payload_names, wrong_names

HTTP, SQL, EVENT = "http", "sql", "event"
SHORT = 12 * 3600.0
"""Seconds of `disable_after` that are few."""
OF_EVENTS = ("on_success", "on_run_end")
_CODES = {
    HTTP: ("a call by HTTP", StatusSet.parse(["100-599", "error"])),
    SQL: ("a statement", StatusSet.parse(["ok", "error"])),
    EVENT: ("an event", StatusSet.parse("ok")),
    "on_run_end": ("the end of a run", StatusSet.parse(["ok", "error"])),
}
"""What has status codes, and which: of each type of an endpoint, and of a phase."""


def problems(endpoint: Endpoint) -> Iterator[Problem]:
    """All that is wrong or looks wrong with the webhooks of one endpoint."""
    webhooks = endpoint[WEBHOOKS]
    known = frozenset(webhook.name for webhook in webhooks)
    for number, test in enumerate(endpoint.tests):
        for index, name in enumerate(test.expect.webhooks or ()):
            if name not in known:
                key = f"tests.{number}.expect.webhooks.{index}"
                yield Problem(f"there is no webhook {name!r}{suggest(name, known)}", key=key)
    for index, webhook in enumerate(webhooks):
        if endpoint.type == EVENT and webhook.phase not in OF_EVENTS:
            message = f"an event has no phase {webhook.phase}: write phase: on_success"
            yield Problem(message, key=f"webhooks.{index}.phase", own=True)
        for key, message in (*_errors(webhook), *_errors_of_subscribers(webhook, endpoint)):
            yield Problem(message, key=f"webhooks.{index}.{key}")
        for key, message in _warnings(webhook, endpoint):
            yield Problem(message, key=f"webhooks.{index}.{key}", severity="warning")
        yield from _params(webhook, endpoint, f"webhooks.{index}")


def _params(webhook: Webhook, endpoint: Endpoint, key: str) -> Iterator[Problem]:
    """Parameters that no call has, and values of `when` that are compared with another type."""
    for name in ("payload", "subscribers"):
        yield from misused(f"{key}.{name}", getattr(webhook, name), endpoint)
    if webhook.partition is not None:
        yield from misused(f"{key}.partition", webhook.partition.by, endpoint)
    for name, template in _of_delivery(webhook):
        yield from misused(f"{key}.{name}", template, endpoint)
    yield from misused(f"{key}.when", webhook.when, endpoint, TYPES, condition=True)


def _of_delivery(webhook: Webhook) -> Iterator[tuple[str, Template]]:
    """What is rendered when a delivery is sent, by its keys."""
    yield "url", webhook.url.template
    for name, template in webhook.headers.items():
        yield f"headers.{name}", template


def _errors(webhook: Webhook) -> Iterator[tuple[str, str]]:
    """Each key of a webhook that goes with `batch` alone, or not with it, and why."""
    payload = webhook.payload
    if webhook.batch is None:
        if payload is not None and (wrong := wrong_names(payload, payload_names(webhook.phase))):
            yield "payload", wrong
        return
    if payload is not None and (wrong := wrong_names(payload, webhook_templates.OF_BATCH)):
        yield "payload", f"{wrong}, which announces a batch"
    if webhook.partition is not None:
        yield "partition", "a batch has no partition; take `partition` or `batch` out"
    for key, template in _of_delivery(webhook):
        if wrong := wrong_names(template, webhook_templates.DELIVERY_OF_BATCH):
            yield key, f"{wrong}, as its deliveries announce many calls"


OF_ADDRESS = frozenset(
    "url secret headers auth include timeout retry breaker pace batch disable_after "
    "keep_missed".split()
)
"""Keys of a webhook that goes to one address."""


def _errors_of_subscribers(webhook: Webhook, endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    """Each key that does not go with `subscribers`, and why."""
    if webhook.subscribers is None:
        return
    if webhook.payload is None:
        yield "subscribers", "strangers are sent no envelope: write a payload beside it"
    for key in sorted(webhook.model_fields_set & OF_ADDRESS):
        if key != "url" or webhook.url is not NOWHERE:
            yield key, "each subscription has its own; take it out, or subscribers"


def _warnings(webhook: Webhook, endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    """Each key of a webhook that looks wrong, and why."""
    for type_, own, others, what in (
        (HTTP, "_request", "_execute", "a call by HTTP"),
        (SQL, "_execute", "_request", "a statement"),
    ):
        if endpoint.type == type_ and webhook.phase.endswith(others):
            other = webhook.phase.replace(others, own)
            message = f"never fires: {what} has no phase {webhook.phase}; did you mean {other!r}?"
            yield "phase", message
    if (told := webhook.subscribers) is not None and told.source.startswith("params."):
        yield "subscribers", f"is one tenant, {told.source}: a template is {{{{ {told.source} }}}}"
    coded = _CODES.get(webhook.phase) or _CODES.get(endpoint.type)
    success = getattr(endpoint.spec, "success", None)
    if webhook.status_code is not None and coded and not coded[1].overlaps(webhook.status_code):
        has = " has ".join(map(str, coded))
        yield "status_code", f"never fires: {has}; write one of these, or leave it out"
    elif (
        webhook.phase == "on_success"
        and webhook.status_code is not None
        and isinstance(success, StatusSet)
        and not success.overlaps(webhook.status_code)
    ):
        message = f"fires only if a plugin decides so: a success has {success}; leave it out"
        yield "status_code", message
    if webhook.payload is not None and webhook.include is not None:
        message = "`include` narrows the standard envelope; this webhook has a payload of its own"
        yield "include", message
    named = {f"headers.{name}": name for name in webhook.headers}
    if webhook.auth is not None:
        named["auth"] = webhook.auth.sent[0]
        if webhook.auth.basic is not None and ":" in webhook.auth.basic.username:
            yield "auth.basic.username", "a colon ends it for the receiver"
    for key, name in named.items():
        if name.lower() in signature.HEADERS:
            yield key, f"{name} is set by the signature; the value here is not sent"
    if webhook.disable_after is not None and webhook.disable_after < SHORT:
        message = (
            f"a receiver that is down for {format_duration(webhook.disable_after)} loses what "
            "comes meanwhile: 12h or more outlasts a night"
        )
        yield "disable_after", message
    smallest, largest = signature.SIZES[0], signature.SIZES[-1]
    for secret in webhook.secret:
        if len(secret.value) not in signature.SIZES:
            yield (
                "secret",
                f"the secret has {len(secret.value)} bytes; Standard Webhooks asks for "
                f"{smallest} to {largest}, and some receivers take no other",
            )
