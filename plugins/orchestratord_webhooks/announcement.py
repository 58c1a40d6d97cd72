"""From a phase of a call to the deliveries that it causes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from orchestratord import (
    INLINE_STEPS,
    Budget,
    Config,
    Endpoint,
    Explanation,
    Expression,
    InvalidPayload,
    NewTask,
    Outcome,
    Redactor,
    RunSummary,
    Task,
    TooCostly,
    format_duration,
    hookimpl,
    off_loop,
    only_for,
    required,
    within_budget,
    world,
)
from orchestratord_webhooks import signature
from orchestratord_webhooks.batches import example_of, member_of
from orchestratord_webhooks.declaration import WEBHOOKS, Webhook
from orchestratord_webhooks.envelope import data_of, names_of, payload_of, run_data_of
from orchestratord_webhooks.event_view import EventView, is_quick
from orchestratord_webhooks.health import Health
from orchestratord_webhooks.subscribers import Made, ToSubscribers, announcement, expanded
from orchestratord_webhooks.webhook_templates import RUN_END

log = logging.getLogger("orchestratord.webhooks")

LARGE = 20_000
"""Bytes from which on the Standard Webhooks specification thinks a payload large."""
USUAL_CODES = frozenset({None, "error", *range(600)})
"""Status codes by which it is remembered what fires; plugins may have any number of their own."""

Context = Callable[[Task, float], Mapping[str, Any]]
"""The names that the templates of a task may use, at a time in seconds since the epoch."""


def _declares(kind: str, endpoint: Endpoint) -> bool:
    return kind == "call" and bool(endpoint[WEBHOOKS])


def _awaits(kind: str, endpoint: Endpoint, phase: str) -> bool:
    webhooks = endpoint[WEBHOOKS] if kind == "call" else ()
    return any(webhook.phase == phase and webhook.enabled for webhook in webhooks)


class Firing(NamedTuple):
    """What fires at a phase with a status code, but for what `when` says."""

    webhooks: Sequence[Webhook]
    asked: Sequence[Expression]
    """The `when` of those that have one."""
    told: bool
    """Whether one goes to subscriptions."""
    named: bool
    """Whether one has templates that are rendered now."""


def _firing(endpoint: Endpoint, phase: str, status_code: int | str | None) -> Firing:
    question = "webhooks", phase, status_code
    known: Firing | None = endpoint.remembered.get(question)
    if known is not None:
        return known
    firing = [one for one in endpoint[WEBHOOKS] if one.obstacle(phase, status_code) is None]
    found = Firing(
        firing,
        asked=[one.when for one in firing if one.when is not None],
        told=any(one.subscribers is not None for one in firing),
        named=any(one.payload is not None or one.partition is not None for one in firing),
    )
    if status_code in USUAL_CODES:
        endpoint.remembered[question] = found
    return found


class Announcer:
    """Makes the deliveries of what happens to calls. Deliveries themselves cause none."""

    def __init__(self, health: Health, context: Context) -> None:
        self._health = health
        self._context = context
        self._large: set[tuple[str, str]] = set()
        self.to_subscribers: ToSubscribers | None = None
        """What makes the deliveries to subscriptions; the plugin that has these sets it."""

    @hookimpl
    @required
    @only_for(_awaits)
    def announce(
        self,
        phase: str,
        outcome: Outcome | None,
        request: Any,
        task: Task,
        endpoint: Endpoint,
        next_try: int | None,
        config: Config,
    ) -> list[Made] | Awaitable[list[Made]]:
        """The hook `announce`: for each webhook that waits for this a delivery, or a member of the
        batch that one will tell of."""
        data = partial(data_of, phase, outcome, request, task, next_try, config.redactor)
        return self._deliveries(phase, outcome, task, endpoint, data, config)

    @hookimpl
    @required
    @only_for(lambda kind, endpoint: _awaits("call", endpoint, RUN_END))
    def on_run_end(
        self,
        run: RunSummary,
        outcome: Outcome,
        task: Task,
        endpoint: Endpoint | None,
        config: Config,
    ) -> list[Made] | Awaitable[list[Made]]:
        """The hook `on_run_end`: a delivery for each webhook that waits for it."""
        if endpoint is None:
            return []
        data = partial(run_data_of, run, outcome, task, config.redactor)
        return self._deliveries(RUN_END, outcome, task, endpoint, data, config)

    def _deliveries(
        self,
        phase: str,
        outcome: Outcome | None,
        task: Task,
        endpoint: Endpoint,
        data_now: Callable[[], dict[str, Any]],
        config: Config,
    ) -> list[Made] | Awaitable[list[Made]]:
        """What each webhook that fires makes of it; `data_now` makes the envelope's data."""
        firing, asked, told, named = _firing(
            endpoint, phase, outcome.status_code if outcome else None
        )
        if not firing:
            return []
        at = world.time()
        response = outcome.response if outcome and asked else None

        def deliveries(budget: Budget | None = None) -> list[Any]:
            data = data_now()
            context = self._context(task, at) if named else {"params": task.params}
            view = EventView(data, response, config.redactor) if asked else None
            made: list[Any] = []
            for one in firing:
                holds, error = _holds(one, view, budget)
                if not holds:
                    continue
                about = one, data, context, at, config.redactor, task, error
                if one.subscribers is not None:
                    made.append(announcement(*about))
                elif one.batch is not None and not error:
                    made.append(member_of(one, endpoint, data))
                else:
                    made.append(self.delivery(*about))
                    self._notice_size(made[-1])
            if view is not None and budget is None:
                view.free()
            return made

        if task.is_large or (asked and not all(is_quick(when, response) for when in asked)):
            return self._expand_later(off_loop(deliveries)) if told else off_loop(deliveries)
        if not named and not asked:  # nothing is evaluated, and no subscribers: these have payloads
            return deliveries()
        budget = Budget(INLINE_STEPS)
        try:
            made = within_budget(budget, deliveries, budget)
            return expanded(made, self.to_subscribers) if told else made
        except TooCostly:
            return self._expand_later(off_loop(deliveries)) if told else off_loop(deliveries)

    async def _expand_later(self, made: Awaitable[list[Any]]) -> list[Made]:
        found = expanded(await made, self.to_subscribers)
        return found if isinstance(found, list) else await found

    @hookimpl
    @only_for(_declares)
    def explain(
        self,
        phase: str,
        outcome: Outcome | None,
        request: Any,
        task: Task,
        endpoint: Endpoint,
        next_try: int | None,
        config: Config,
        now: float,
        run: RunSummary | None,
    ) -> list[Explanation]:
        """The hook `explain`: each webhook of the endpoint, whether it fires, and why."""
        status_code = outcome.status_code if outcome else None
        if run is not None and outcome is not None:
            data = run_data_of(run, outcome, task, config.redactor)
        else:
            data = data_of(phase, outcome, request, task, next_try, config.redactor)
        context = self._context(task, now)
        view = EventView(data, outcome.response if outcome else None, config.redactor)
        explanations: list[Explanation] = []
        for webhook in endpoint[WEBHOOKS]:
            obstacle = webhook.obstacle(phase, status_code)
            if obstacle is None and (why := self._health.disabled(endpoint.id, webhook.name)):
                obstacle = f"disabled: {why}"
            delivery, tenant, error = None, "", ""
            if obstacle is None:
                holds, error = _holds(webhook, view)
                if not holds and webhook.when is not None:
                    obstacle = f"when does not hold: {webhook.when.written()}"
                elif webhook.subscribers is not None:
                    told = announcement(webhook, data, context, now, config.redactor, task, error)
                    tenant = f"; to the subscriptions of {told.tenant or 'no tenant'}"
                    error = told.error or error
                elif webhook.batch is not None and not error:
                    delivery = example_of(webhook, endpoint, data, now, config.redactor)
                else:
                    delivery = self.delivery(
                        webhook, data, context, now, config.redactor, task, error
                    )
            explanations.append(
                Explanation(
                    kind="webhook",
                    name=webhook.name,
                    phase=webhook.phase,
                    happens=delivery is not None or bool(tenant),
                    why=error or obstacle or f"{_why(webhook, status_code)}{tenant}",
                    task=delivery,
                    adds=signature.HEADERS if webhook.secret else signature.HEADERS[:2],
                )
            )
        return explanations

    def delivery(
        self,
        webhook: Webhook,
        data: Mapping[str, Any],
        context: Mapping[str, Any],
        at: float,
        redactor: Redactor,
        task: Task | None,
        wrong: str = "",
    ) -> NewTask:
        """The task that delivers `data` to `webhook`; `task` is the call that it is of, if any.

        Where something is `wrong`, or the payload or the partition does not render, the task says
        so and fails at its first attempt: what went wrong is seen where deliveries are looked at.
        """
        endpoint_id = str(data["endpoint"])
        payload, error, partition = None, None, None
        try:
            if wrong:
                raise InvalidPayload(wrong)
            if webhook.partition is not None:
                partition = webhook.partition.of(names_of(data, context))
            payload = payload_of(webhook, data, context, at, redactor)
        except InvalidPayload as invalid:
            error = redactor.text(str(invalid))
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
            partition=partition,
        )

    def _notice_size(self, delivery: NewTask) -> None:
        name = (delivery.endpoint_id, delivery.webhook)
        large = delivery.payload is not None and len(delivery.payload) > LARGE
        if large and name not in self._large:
            self._large.add(name)
            log.warning(
                "payloads of the webhook %s of %s are over %d bytes; `include` narrows them",
                delivery.webhook,
                delivery.endpoint_id,
                LARGE,
            )


def _holds(
    webhook: Webhook, view: EventView | None, budget: Budget | None = None
) -> tuple[bool, str]:
    """Whether a webhook fires by its `when`, and why that cannot be told: it fires then, and the
    delivery says so."""
    if webhook.when is None or view is None:
        return True, ""
    try:
        return view.holds(webhook.when, budget), ""
    except ValueError as error:
        return True, f"when: {error}"


def _why(webhook: Webhook, status_code: int | str | None) -> str:
    """In words why it fires."""
    batch = "" if webhook.when is None else ", and when holds"
    if webhook.batch is not None:
        span = format_duration(webhook.batch.every)
        batch += f"; in a batch, which closes after {span} or with {webhook.batch.max}"
    if webhook.status_code is None:
        return f"phase is {webhook.phase}, any status code{batch}"
    covers = f"status_code {webhook.status_code} covers {status_code}"
    return f"phase is {webhook.phase}, {covers}{batch}"
