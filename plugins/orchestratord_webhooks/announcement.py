"""From a phase of a call to the deliveries that it causes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from orchestratord import (
    Config,
    Endpoint,
    InvalidPayload,
    NewTask,
    Outcome,
    Redactor,
    Task,
)
from orchestratord_webhooks.declaration import WEBHOOKS, Webhook
from orchestratord_webhooks.envelope import data_of, payload_of
from orchestratord_webhooks.health import Health

log = logging.getLogger("orchestratord.webhooks")

LARGE = 20_000
"""Bytes from which on the Standard Webhooks specification thinks a payload large."""

Context = Callable[[Task, float], Mapping[str, Any]]
"""The names that the templates of a task may use, at a time in seconds since the epoch."""


class Announcer:
    """Makes the deliveries of what happens to calls. Deliveries themselves cause none."""

    def __init__(
        self, health: Health, context: Context, now: Callable[[], float] = time.time
    ) -> None:
        self._health = health
        self._context = context
        self._now = now
        self._large: set[tuple[str, str]] = set()

    def announce(
        self,
        phase: str,
        outcome: Outcome | None,
        request: Any,
        task: Task,
        endpoint: Endpoint,
        next_try: int | None,
        config: Config,
    ) -> list[NewTask]:
        """The hook `announce`: a delivery for each webhook that waits for this."""
        webhooks = endpoint[WEBHOOKS]
        if not webhooks or task.kind != "call":
            return []
        status_code = outcome.status_code if outcome else None
        firing = [
            webhook
            for webhook in webhooks
            if webhook.enabled
            and webhook.fires_for(phase, status_code)
            and self._health.disabled(endpoint.id, webhook.name) is None
        ]
        if not firing:
            return []
        at = self._now()
        data = data_of(phase, outcome, request, task, next_try, config.redactor)
        context = self._context(task, at)
        return [
            self.delivery(webhook, data, context, at, config.redactor, task) for webhook in firing
        ]

    def delivery(
        self,
        webhook: Webhook,
        data: Mapping[str, Any],
        context: Mapping[str, Any],
        at: float,
        redactor: Redactor,
        task: Task | None,
    ) -> NewTask:
        """The task that delivers `data` to `webhook`; `task` is the call that caused it, if any.

        Where the payload does not render, the task says so and fails at its first attempt: what
        went wrong is seen where deliveries are looked at.
        """
        endpoint_id = str(data["endpoint"])
        payload, error = None, None
        try:
            payload = payload_of(webhook, data, context, at, redactor)
        except InvalidPayload as invalid:
            error = redactor.text(str(invalid))
        else:
            self._notice_size(endpoint_id, webhook.name, payload)
        return NewTask(
            kind="webhook",
            endpoint_id=endpoint_id,
            webhook=webhook.name,
            phase=webhook.phase,
            # The templates of its URL and headers, rendered when it is sent, may use them.
            params=context["params"],
            payload=payload,
            error=error,
            parent_id=task.id if task else None,
            max_attempts=webhook.retry.max_attempts,
        )

    def _notice_size(self, endpoint_id: str, name: str, payload: str) -> None:
        if len(payload) > LARGE and (endpoint_id, name) not in self._large:
            self._large.add((endpoint_id, name))
            log.warning(
                "payloads of the webhook %s of %s are over %d bytes; `include` narrows them",
                name,
                endpoint_id,
                LARGE,
            )
