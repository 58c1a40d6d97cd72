"""Webhooks over the API: listing, writing and trying them out, switching them on and off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from orchestratord import (
    OWN_ENDPOINT,
    Action,
    Answer,
    Caller,
    Config,
    ConfigError,
    Conflict,
    Control,
    Declaration,
    Endpoint,
    InvalidParams,
    NotFound,
    NotWritable,
    Outdated,
    Problem,
    Route,
    RunSummary,
    Unconditional,
    described,
    rfc3339,
    world,
)
from orchestratord_webhooks.announcement import Announcer
from orchestratord_webhooks.attempt_counts import COUNTS, RecentAttempts, counted_since, recent
from orchestratord_webhooks.batches import example_of
from orchestratord_webhooks.checks import SQL
from orchestratord_webhooks.declaration import WEBHOOKS, Webhook
from orchestratord_webhooks.envelope import time_text
from orchestratord_webhooks.health import (
    MISSED,
    TABLE,
    Health,
    Name,
    Row,
    find,
    key_of,
    unwritten_row,
)
from orchestratord_webhooks.operational import example_delivery
from orchestratord_webhooks.operational_webhook import OperationalWebhook, find_operational
from orchestratord_webhooks.route_documents import (
    DeclaredWebhooks,
    EditedWebhooks,
    EnabledWebhook,
    HealthQuery,
    ProblemOfEdit,
    ReplayFilter,
    TestDelivery,
    WebhookHealth,
    WebhooksHealth,
    WriteQuery,
    WrittenWebhooks,
)
from orchestratord_webhooks.webhook_templates import RUN_END

Params = Mapping[str, str]

MAX_DIFF = 4_000
"""Characters of what changed in a file that the action log keeps."""

_EXAMPLE_REQUEST = {"method": "GET", "url": "https://api.example.com/example"}
_EXAMPLE_STATEMENT = {"database": "example", "statement": "SELECT 1", "params": {}}
_SENT = WrittenWebhooks.__annotations__.keys()
"""Keys of a body; all but the first are passed over, so that what was read can be sent back."""


class WebhookRoutes:
    """The handlers. Each takes path parameters, query parameters and the body."""

    def __init__(
        self,
        control: Control,
        health: Health,
        announcer: Announcer,
    ) -> None:
        self._control = control
        self._health = health
        self._announcer = announcer

    def all(self) -> tuple[Route, ...]:
        """What the plugin registers."""
        of_endpoint = "/v1/endpoints/{api}/{name}/webhooks"
        of_daemon = f"/v1/endpoints/{OWN_ENDPOINT}/webhooks"
        return (
            Route("GET", "/v1/webhooks", self.list_health),
            Route("GET", of_endpoint, self.list_declared),
            Route("PUT", of_endpoint, self.write, caller=True),
            Route("POST", of_endpoint + "/{webhook}/enable", self.enable),
            Route("POST", of_endpoint + "/{webhook}/disable", self.disable),
            Route("POST", of_endpoint + "/{webhook}/test", self.test),
            Route("POST", of_daemon + "/{webhook}/enable", self.enable_operational),
            Route("POST", of_daemon + "/{webhook}/disable", self.disable_operational),
            Route("POST", of_daemon + "/{webhook}/test", self.test_operational),
        )

    @described(query=HealthQuery, answers={200: WebhooksHealth}, problems=[NotFound])
    async def list_health(self, path: Params, query: Params, body: Any) -> Answer:
        """List the declared webhooks with their health."""
        wanted = query.get("endpoint")
        if wanted and wanted != OWN_ENDPOINT:
            _endpoint(self._control.config, wanted)
        rows = await self._control.rows(TABLE.name, {"endpoint_id": wanted} if wanted else {})
        rows.sort(key=lambda row: (row["endpoint_id"], row["name"]))
        return Answer({"webhooks": await self._all_shown(rows)})

    @described(answers={200: DeclaredWebhooks}, problems=[ConfigError, Conflict])
    async def list_declared(self, path: Params, query: Params, body: Any) -> Answer:
        """Show the webhooks in an endpoint's file and those that it inherits."""
        endpoint_id = f"{path['api']}/{path['name']}"
        return _declared(await self._control.declaration(endpoint_id, WEBHOOKS.key))

    @described(
        query=WriteQuery,
        headers={"If-Match": "the `ETag` of your GET"},
        body=WrittenWebhooks,
        answers={200: EditedWebhooks},
        problems=[Unconditional, Outdated, NotWritable, ConfigError, Conflict],
    )
    async def write(self, path: Params, query: Params, body: Any, caller: Caller) -> Answer:
        """Write an endpoint's webhooks to its file."""
        wrong = {name: "there is no such parameter" for name in query if name != "dry_run"}
        dry_run = query.get("dry_run", "false")
        if dry_run not in ("true", "false"):
            wrong["dry_run"] = "must be true or false"
        if not isinstance(body, Mapping) or "webhooks" not in body:
            wrong["webhooks"] = "is required"
        elif unknown := body.keys() - _SENT:
            wrong |= dict.fromkeys(sorted(unknown), "unknown key")
        if wrong:
            raise InvalidParams(wrong)
        edit = await self._control.edit(
            f"{path['api']}/{path['name']}",
            WEBHOOKS.key,
            body["webhooks"],
            etag=caller.headers.get("if-match"),
            dry_run=dry_run == "true",
            who=caller.name,
        )
        done = None
        if edit.written:
            detail = {"file": edit.declaration.file, "diff": edit.diff[:MAX_DIFF]}
            done = Action("edit webhooks", f"{path['api']}/{path['name']}", detail=detail)
        more: dict[str, Any] = {"diff": edit.diff, "written": edit.written}
        if dry_run == "true":
            more["problems"] = _problems(edit.problems)
        else:
            more["generation"] = edit.generation
            more["problems"] = _problems(edit.refused)
        return replace(_declared(edit.declaration, **more), done=done)

    @described(answers={200: EnabledWebhook}, problems=[Conflict])
    async def enable(self, path: Params, query: Params, body: Any) -> Answer:
        """Enable a webhook that was disabled."""
        endpoint, webhook = self._find_enabled(path)
        name = (endpoint.id, webhook.name)
        replay = self._replay(name, (await self._columns(name, webhook))["last_disabled_at"])
        await self._health.enable(name, self._control)
        answer: EnabledWebhook = {**await self._row(name, webhook), "replay": replay}
        return Answer(answer, done=Action("enable webhook", *name))

    def _replay(self, name: Name, last_disabled_at: int | None) -> ReplayFilter | None:
        if last_disabled_at is None:
            return None
        return {
            "kind": "webhook",
            "endpoint": name[0],
            "webhook": name[1],
            "status": "failed",
            "reason": MISSED,
            "ended_since": time_text(self._health.failed_since(name, last_disabled_at)),
        }

    @described(answers={200: WebhookHealth})
    async def disable(self, path: Params, query: Params, body: Any) -> Answer:
        """Disable a webhook until a person enables it or its YAML changes."""
        endpoint, webhook = self._find(path)
        name = (endpoint.id, webhook.name)
        await self._health.disable(name, self._control)
        return Answer(await self._row(name, webhook), done=Action("disable webhook", *name))

    @described(answers={202: TestDelivery}, problems=[Conflict])
    async def test(self, path: Params, query: Params, body: Any) -> Answer:
        """Send a webhook an example delivery."""
        endpoint, webhook = self._find_enabled(path)
        if self._health.disabled(endpoint.id, webhook.name):
            raise Conflict(f"{webhook.name} is disabled: enable it, and then test it")
        at = world.time()
        data = _example(endpoint, webhook, at)
        moment = datetime.fromtimestamp(at, UTC)
        context = {
            "params": data["params"],
            "task": {"id": 0, "attempt": 1, "scheduled_at": moment, "last_success_at": None},
            "now": moment,
        }
        redactor = self._control.config.redactor
        if webhook.batch is not None:
            task = example_of(webhook, endpoint, data, at, redactor)
        else:
            task = self._announcer.delivery(webhook, data, context, at, redactor, None)
        (task_id,) = await self._control.write([task])
        done = Action("test webhook", endpoint.id, webhook.name, task_id)
        return Answer({"id": task_id}, status=202, done=done)

    @described(answers={202: TestDelivery}, problems=[Conflict])
    async def test_operational(self, path: Params, query: Params, body: Any) -> Answer:
        """Send an operational webhook an example delivery."""
        webhook = self._find_operational(path)
        task = example_delivery(webhook, self._control.config, world.time())
        (task_id,) = await self._control.write([task])
        done = Action("test webhook", OWN_ENDPOINT, webhook.name, task_id)
        return Answer({"id": task_id}, status=202, done=done)

    @described(answers={200: WebhookHealth}, problems=[Conflict])
    async def enable_operational(self, path: Params, query: Params, body: Any) -> Answer:
        """Change nothing: operational webhooks stay enabled."""
        webhook = self._find_operational(path)
        return Answer(await self._row((OWN_ENDPOINT, webhook.name), webhook))

    @described(answers={}, problems=[Conflict])
    async def disable_operational(self, path: Params, query: Params, body: Any) -> Answer:
        """Refuse: only its YAML disables an operational webhook."""
        webhook = self._find_operational(path)
        raise Conflict(
            f"the operational webhook {webhook.name} is never disabled; to send it nothing, set "
            "`enabled: false` in orchestratord.yaml"
        )

    def _find_operational(self, path: Params) -> OperationalWebhook:
        webhook = find_operational(self._control.config, path["webhook"])
        if webhook is None:
            raise NotFound(f"there is no operational webhook {path['webhook']!r}")
        if not webhook.enabled:
            raise Conflict(
                f"the operational webhook {webhook.name} is switched off: take `enabled: false` "
                "out of orchestratord.yaml"
            )
        return webhook

    def _find(self, path: Params) -> tuple[Endpoint, Webhook]:
        endpoint = _endpoint(self._control.config, f"{path['api']}/{path['name']}")
        webhook = find(endpoint, path["webhook"])
        if webhook is None:
            raise NotFound(f"{endpoint.id} has no webhook {path['webhook']!r}")
        if webhook.subscribers is not None:
            raise Conflict(f"{webhook.name} goes to subscriptions: see `subscriptions` instead")
        return endpoint, webhook

    def _find_enabled(self, path: Params) -> tuple[Endpoint, Webhook]:
        endpoint, webhook = self._find(path)
        if not webhook.enabled:
            file = endpoint.source or "its YAML"
            raise Conflict(f"{webhook.name} is disabled in {file}: take `enabled: false` out there")
        return endpoint, webhook

    async def _row(self, name: Name, webhook: Webhook | OperationalWebhook) -> WebhookHealth:
        return (await self._all_shown([await self._columns(name, webhook)]))[0]

    async def _columns(self, name: Name, webhook: Webhook | OperationalWebhook) -> Row:
        rows = await self._control.rows(TABLE.name, key_of(name))
        # That of a webhook that was declared just now may not be written yet.
        return rows[0] if rows else unwritten_row(name, webhook, self._control.config.redactor)

    async def _all_shown(self, rows: Sequence[Mapping[str, Any]]) -> list[WebhookHealth]:
        """Rows of the table for people, with how their deliveries went lately."""
        now = int(world.time() * 1000)
        endpoints = {row["endpoint_id"] for row in rows}
        of_one = {"endpoint_id": endpoints.pop()} if len(endpoints) == 1 else {}
        counts = recent(await self._control.rows(COUNTS.name, of_one), now)
        none = RecentAttempts(counted_since(now))
        missed = await missed_of(self._control, rows)
        names = [(row["endpoint_id"], row["name"]) for row in rows]
        return [
            _shown(row, counts.get(name, none), missed.get(name, 0))
            for row, name in zip(rows, names, strict=True)
        ]


def _declared(found: Declaration, **more: Any) -> Answer:
    body = {
        "webhooks": list(found.items),
        "names": list(found.names),
        "references": [list(references) for references in found.references],
        "inherited": [
            {"origin": one["origin"], "overridden": one["overridden"], "webhook": one["item"]}
            for one in found.inherited
        ],
        "file": found.file,
        "writable": found.writable,
        "reason": found.reason or None,
        "etag": found.etag,
        **more,
    }
    return Answer(body, headers={"ETag": found.etag, "Cache-Control": "no-store"})


def _problems(problems: Sequence[Problem]) -> list[ProblemOfEdit]:
    return [
        {
            "file": one.file,
            "line": one.line,
            "column": one.column,
            "key": one.key,
            "message": one.message,
            "hint": one.hint or None,
        }
        for one in problems
    ]


def _endpoint(config: Config, endpoint_id: str) -> Endpoint:
    try:
        return config.endpoints[endpoint_id]
    except KeyError:
        raise NotFound.of("endpoint", endpoint_id) from None


async def missed_of(control: Control, rows: Sequence[Row]) -> dict[Name, int]:
    """How many deliveries are kept of each webhook that it missed while it was disabled."""
    endpoints = {row["endpoint_id"] for row in rows if row["last_disabled_at"] is not None}
    if not endpoints:
        return {}
    asked = {"status": "failed", "reason": MISSED, "kind": "webhook"}
    if len(endpoints) == 1:
        asked["endpoint"] = endpoints.pop()
    found = await control.grouped(asked, ("endpoint", "webhook"))
    return {(one["endpoint"], one["webhook"]): one["tasks"] for one in found["groups"]}


def _shown(row: Mapping[str, Any], counts: RecentAttempts, missed: int) -> WebhookHealth:
    """A row of the table for people: one word on whether it is enabled, times as texts."""
    code = row["last_status_code"]
    return {
        "endpoint": row["endpoint_id"],
        "name": row["name"],
        "phase": row["phase"],
        "status_code": row["status_code"],
        "url": row["url"],
        "enabled": bool(row["enabled"]) and row["disabled_at"] is None,
        "disabled_at": rfc3339(row["disabled_at"]),
        "disabled_reason": row["disabled_reason"],
        "last_disabled_at": rfc3339(row["last_disabled_at"]),
        "missed": missed,
        "missed_deleted": row["missed_deleted"] or 0,
        "last_status_code": int(code) if code is not None and code.isdigit() else code,
        "last_error": row["last_error"],
        "last_attempt_at": rfc3339(row["last_attempt_at"]),
        "last_success_at": rfc3339(row["last_success_at"]),
        "failures": row["failures"] or 0,
        "counted_since": rfc3339(counts.since),
        "attempts": counts.attempts,
        "failed_attempts": counts.failed,
        "success_rate": counts.success_rate,
    }


def _example(endpoint: Endpoint, webhook: Webhook, at: float) -> dict[str, Any]:
    """The data of an event that did not happen."""
    executed = endpoint.type == SQL
    code = _example_code(webhook, "ok" if executed else 200, "error" if executed else 503)
    answered = (code == "ok" or isinstance(code, int)) and webhook.phase != RUN_END
    partition = {} if endpoint.partition is None else {"partition": "example"}
    response = {"headers": {"content-type": "application/json"}, "body": '{"example": true}'}
    request: Any = _EXAMPLE_STATEMENT if executed else _EXAMPLE_REQUEST
    if webhook.phase == RUN_END:
        code, request = _example_code(webhook, "ok", "error"), None
    return {
        "test": True,
        "endpoint": endpoint.id,
        "phase": webhook.phase,
        "status_code": code,
        "task_id": 0,
        "attempt": 1,
        "params": {name: param.default for name, param in endpoint.params.items()},
        "request": request,
        "response": response if answered else None,
        "reason": "exhausted" if webhook.phase == "on_final_failure" else None,
        "error": "an example" if code == "error" else None,
        "next_try": time_text(at + 60) if webhook.phase == "on_retry" else None,
        "run_id": 0,
        **partition,
        **(_example_end(endpoint, at) if webhook.phase == RUN_END else {}),
    }


def _example_end(endpoint: Endpoint, at: float) -> dict[str, Any]:
    """What `on_run_end` adds, of a run that did not end."""
    ended_at = int(at * 1000)
    return RunSummary(0, endpoint.id, 1, 1, 0, 0, 1, ended_at - 1000, ended_at).details()


def _example_code(webhook: Webhook, good: int | str, bad: int | str) -> int | str | None:
    if webhook.phase.startswith("before_"):
        return None
    if webhook.status_code is None:
        return bad if webhook.phase in ("on_retry", "on_final_failure") else good
    if webhook.status_code.ranges:
        return webhook.status_code.ranges[0][0]
    return min(webhook.status_code.words)
