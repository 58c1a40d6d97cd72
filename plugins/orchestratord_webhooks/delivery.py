"""Sending deliveries: the executor of tasks of the kind `webhook`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, cast

import httpx
from pydantic_core import SchemaValidator, core_schema

from orchestratord import (
    OWN_ENDPOINT,
    AnswerRules,
    Api,
    Config,
    Doomed,
    Endpoint,
    Executor,
    Form,
    InvalidPayload,
    Outcome,
    Parked,
    Request,
    RetryPolicy,
    Secret,
    Send,
    SendError,
    Standing,
    StatusSet,
    Target,
    Task,
    Template,
    put_headers,
)
from orchestratord_webhooks import signature
from orchestratord_webhooks.declaration import CONTROL, WEBHOOKS, Addressed
from orchestratord_webhooks.health import Health, find
from orchestratord_webhooks.operational_webhook import (
    LANE,
    OPERATIONAL_WEBHOOKS,
    REMOVED_AFTER,
    find_operational,
    own_endpoint,
)
from orchestratord_webhooks.signature import SigningKey

CONCURRENCY = 10
"""Deliveries in flight to one receiver's host and port."""
MAX_ANSWER = 20_000
"""Bytes of a receiver's answer that are read."""

SUCCESS = StatusSet.parse("2xx")
_JSON = SchemaValidator(core_schema.typed_dict_schema({}, extra_behavior="ignore"))
"""Reads a JSON object to its end, and keeps nothing of it."""


class Deliveries(Executor):
    """Delivers payloads: today's URL, headers and secret, and the body of when it happened."""

    kind: ClassVar[str] = "webhook"
    only_sends: ClassVar[bool] = True
    own_endpoints: ClassVar[tuple[str, ...]] = (OWN_ENDPOINT,)

    def __init__(self, health: Health) -> None:
        self._health = health

    def own_endpoint(self, endpoint_id: str, config: Config) -> Endpoint | None:
        return own_endpoint(config) if endpoint_id == OWN_ENDPOINT else None

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        lane, declared = "", cast("Addressed | None", find(endpoint, webhook))
        if endpoint.id == OWN_ENDPOINT:
            lane, declared = LANE, find_operational(config, webhook)
            if declared is None:
                why = f"there is no operational webhook {webhook} any more"
                return Doomed("webhook_removed", why, after=REMOVED_AFTER)
        if declared is None:
            return Doomed("webhook_removed", f"{endpoint.id} has no webhook {webhook} any more")
        if not declared.enabled:
            why = f"the webhook {webhook} is switched off"
            remedy = "to deliver to it again, set `enabled: true` in its YAML"
            return Parked(f"{why}; {remedy}", "webhook_disabled")
        reason = self._health.disabled(endpoint.id, webhook)
        if reason is not None:
            why = self._health.why_disabled((endpoint.id, webhook), reason)
            return Doomed("webhook_disabled", why, after=0)
        return Target(
            endpoint=endpoint,
            retry=declared.retry,
            timeout=declared.timeout,
            idempotent=True,  # a receiver tells a repeat by its webhook-id
            lane=f"{lane}{declared.url.receiver}",
            concurrency=CONCURRENCY,
            egress=endpoint.api.egress,
            detail=DeliveryPlan(declared),
            url=declared.url.name,
            guards=declared.guards(config.guards),
            access=access_of(declared, endpoint),
        )

    async def look_again(self, endpoint_id: str, webhook: str) -> None:
        await self._health.look_again((endpoint_id, webhook))

    def access(self, name: str, config: Config) -> Api | None:
        own = [(one, own_endpoint(config)) for one in config[OPERATIONAL_WEBHOOKS]]
        of_calls = [
            (one, endpoint) for endpoint in config.endpoints.values() for one in endpoint[WEBHOOKS]
        ]
        found = (access_of(*one) for one in (*own, *of_calls))
        return next((api for api in found if api is not None and api.name == name), None)

    def evaluates(self, target: Target) -> bool:
        webhook: Addressed = target.detail.webhook
        return webhook.templated

    def prepare(self, task: Task, target: Target, now: float) -> httpx.Request:
        plan: DeliveryPlan = target.detail
        if task.payload is None:
            raise InvalidPayload(task.last_error or "its payload did not render")
        if plan.sends_json:
            _check_json(task.payload)
        form = plan.form
        if form is not None:
            return form.request(task.payload.encode())
        webhook = plan.webhook
        context = {
            **self.context(task, now),
            "endpoint": task.endpoint_id,
            "phase": task.phase,
            "task_id": task.parent_id,
        }
        headers = _headers(webhook)
        for name, template in webhook.headers.items():
            headers[name.lower()] = _header(name, template, context)
        headers |= _authorization(webhook)
        url = webhook.url.render(context)
        try:
            return Request("POST", url, headers=headers, content=task.payload.encode())
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidPayload(f"the request cannot be built: {error}") from None

    async def execute(self, request: Any, task: Task, target: Target, send: Send) -> Outcome:
        now = self.now()
        keys = target.detail.keys(now)
        signed = signature.signed(keys, self.message_id(task), int(now), request.content)
        # Whatever else has set one of these: they are the signature's.
        put_headers(request, signed, instead_of=signature.HEADERS)
        fresh, inline = False, target.retry.inline
        while True:
            try:
                response = await send(request, fresh=fresh, max_response=MAX_ANSWER)
            except SendError as error:
                if error.stale and not fresh:
                    # A kept-alive connection had been closed, which says nothing of the receiver.
                    fresh = True
                    continue
                outcome = Outcome.from_error(error, when=target.retry.when)
            else:
                outcome = _judge(response, target.retry, task)
                if target.retry.if_ is not None and outcome.decided_by is None:
                    outcome = await AnswerRules(target.retry).judge(outcome)
            if outcome.verdict != "retry" or outcome.retry_after is not None or not inline:
                return outcome
            fresh, inline = True, inline - 1

    def repeat_key(self, task: Task, endpoint: Endpoint) -> str | None:
        """The webhook-id."""
        return self.message_id(task)

    def message_id(self, task: Task) -> str:
        """The webhook-id: stable over retries, unique over queues; a forced repeat has its own."""
        if task.nonce is not None:
            return f"msg_{task.nonce}"
        again = f"_{task.generation}" if task.generation else ""
        return f"msg_{self.instance}_{task.id}{again}"


class DeliveryPlan:
    """What the deliveries of one webhook have in common, made for its first one."""

    def __init__(self, webhook: Addressed) -> None:
        self.webhook = webhook
        self.sends_json = not isinstance(webhook.payload, Template)

    def keys(self, now: float) -> Sequence[SigningKey]:
        """What they are signed with `now` (seconds since the epoch), newest first."""
        return self.webhook.secret

    @cached_property
    def form(self) -> Form | None:
        """For all of its requests; None for a webhook with templates."""
        webhook = self.webhook
        if webhook.templated:
            return None
        try:
            headers = _headers(webhook) | _authorization(webhook)
            return Form("POST", webhook.url.render({}), headers)
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidPayload(f"the request cannot be built: {error}") from None


def access_of(webhook: Addressed, endpoint: Endpoint) -> Api | None:
    """What has the token of a webhook, as if it were an API; None where it needs none. Webhooks
    that ask for it in the same way share one."""
    if webhook.auth is None or webhook.auth.oauth2 is None:
        return None
    asks = [str(one.reveal() if isinstance(one, Secret) else one) for _, one in webhook.auth.oauth2]
    digest = hashlib.sha256("\n".join(asks).encode()).hexdigest()[:6]
    name = f"webhook {webhook.name}~{digest}"
    keys = {"name": name, "auth": webhook.auth, "egress": endpoint.api.egress}
    return Api.model_validate(keys)


def _authorization(webhook: Addressed) -> dict[str, str]:
    """The header that says who calls, if the receiver is told."""
    if webhook.auth is None:
        return {}
    name, value = webhook.auth.sent
    return {name.lower(): value}


def _check_json(payload: str) -> None:
    """Raise InvalidPayload where what is stored is no JSON, as after an edit of the table."""
    try:
        _JSON.validate_json(payload)  # takes a sixth of the time, and makes no objects
        return
    except (ValueError, TypeError):
        pass  # or no object, or escapes of surrogates, or nesting, that it does not take
    try:
        json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(f"its payload is not JSON: {error}", stored=True) from None


def _headers(webhook: Addressed) -> dict[str, str]:
    text = isinstance(webhook.payload, Template)
    return {
        "user-agent": "orchestratord",
        "accept": "*/*",
        "content-type": "text/plain; charset=utf-8" if text else "application/json",
    }


def _judge(response: httpx.Response, retry: RetryPolicy, task: Task) -> Outcome:
    outcome = Outcome.from_response(response, success=SUCCESS, when=retry.when)
    if response.status_code != 410:
        return outcome
    if task.endpoint_id == OWN_ENDPOINT:  # who runs the daemon is never told no more
        return replace(outcome, verdict="retry")
    error = "410 Gone: the receiver wants no more"
    return outcome.failure(error, reason="webhook_disabled")


def _header(name: str, template: Template, context: Mapping[str, Any]) -> str:
    value: str = template.render(context, quote=str)
    if not value.isascii() or CONTROL.search(value):
        raise InvalidPayload(f"the header {name} would hold a character that no header may have")
    return value
