from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from orchestratord_webhooks import TABLE, WEBHOOKS, health
from orchestratord_webhooks.attempt_counts import COUNTS, recent
from orchestratord_webhooks.health import Health
from webhook_parts import ENDPOINT, EVERY, SECRET, FakeControl, declared

from orchestratord import (
    BatchMember,
    Config,
    Delete,
    Endpoint,
    EventType,
    Outcome,
    RecurringRows,
    Task,
    TaskEvent,
    Upsert,
)
from orchestratord.errors import StorageFull
from orchestratord.testing import Rig, answered, task, unanswered

DELIVERY = task(kind="webhook", endpoint_id=ENDPOINT, webhook="ops", payload="{}")
GONE = answered(410).failure("410 Gone", reason="webhook_disabled")


class Table:
    """The plugin's table, kept by the hooks alone, as the daemon keeps it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.control: FakeControl = FakeControl(rig.config())
        self.endpoint: Endpoint
        self.config: Config
        self.secrets = [SECRET]

    async def adopt(self, *webhooks: dict[str, Any]) -> int:
        """Adopt a configuration; how many rows that wrote."""
        self.endpoint = self.rig.endpoint(ENDPOINT, webhooks=list(webhooks))
        self.config = self.rig.config(self.endpoint, secrets=self.secrets)
        rows = await self.control.rows("webhooks")
        effects = self.rig.adopt(self.config, {"webhooks": rows})
        for effect in effects:
            self.control.apply(effect)
        return len(effects)

    async def tell(
        self, phase: str, outcome: Outcome, endpoint: Endpoint | None = None, **fields: Any
    ) -> None:
        """An attempt of the delivery was decided."""
        about = replace(DELIVERY, **fields)
        for effect in await self.rig.tell(
            phase, outcome, task=about, endpoint=endpoint or self.endpoint, next_try=1
        ):
            assert isinstance(effect, Upsert)
            self.control.apply(effect)

    async def gone(self, endpoint: Endpoint | None = None) -> None:
        await self.tell(
            "on_final_failure", GONE, endpoint, status="failed", reason="webhook_disabled"
        )

    async def row(self, name: str = "ops") -> dict[str, Any]:
        return {row["name"]: row for row in await self.control.rows("webhooks")}[name]


@pytest.fixture
async def table(rig: Rig) -> Table:
    table = Table(rig)
    await table.adopt(declared(status_code=["5xx", "error"], secret=SECRET))
    return table


# -- the configuration -----------------------------------------------------------------------------


async def test_one_row_for_each_declared_webhook(table: Table) -> None:
    row = await table.row()
    assert row == dict.fromkeys(TABLE.columns) | {
        "endpoint_id": ENDPOINT,
        "name": "ops",
        "phase": "after_request",
        "status_code": "5xx,error",
        "url": "https://ops.example.com/hook",
        "fingerprint": table.endpoint[WEBHOOKS][0].fingerprint,
        "enabled": 1,
        "failures": 0,
    }


async def test_rows_follow_the_yaml(table: Table) -> None:
    await table.adopt(declared(name="new", enabled=False), declared(phase="on_retry"))
    assert (await table.row("new"))["enabled"] == 0
    assert (await table.row())["phase"] == "on_retry"
    assert (await table.row())["status_code"] is None
    await table.adopt(declared(name="new"))
    assert [row["name"] for row in await table.control.rows("webhooks")] == ["new"]
    assert (await table.row("new"))["enabled"] == 1


async def test_rows_of_endpoints_that_other_daemons_declare_stay(table: Table) -> None:
    for elsewhere, left in (([ENDPOINT], 1), ((), 0)):
        rows = await table.control.rows("webhooks")
        for effect in table.rig.adopt(table.rig.config(), {"webhooks": rows}, elsewhere):
            table.control.apply(effect)
        assert len(await table.control.rows("webhooks")) == left


async def test_what_another_daemon_disabled_is_disabled_here(table: Table) -> None:
    rows = [{**row, "disabled_at": 1, "disabled_reason": "by hand"}
            for row in await table.control.rows("webhooks")]  # fmt: skip
    table.rig.adopt(table.config, {"webhooks": rows})
    assert health.disabled(ENDPOINT, "ops") == "by hand"
    table.rig.adopt(table.config, {"webhooks": await table.control.rows("webhooks")})
    assert health.disabled(ENDPOINT, "ops") is None


@pytest.mark.parametrize(
    ("phase", "outcome", "status"),
    [("on_success", answered(200), "succeeded"), ("on_final_failure", answered(503), "failed")],
)
async def test_what_a_person_says_of_a_delivery_says_nothing_of_its_receiver(
    table: Table, phase: str, outcome: Outcome, status: str
) -> None:
    await table.tell("on_retry", answered(503))
    before = await table.row()
    assert before["failures"] == 1
    await table.tell(phase, outcome, status=status, reason="resolved")
    assert await table.row() == before
    await table.tell(phase, outcome, status=status)
    assert await table.row() != before


async def test_what_did_not_change_is_not_written(table: Table) -> None:
    await table.tell("on_retry", answered(503))
    assert await table.adopt(declared(status_code=["5xx", "error"], secret=SECRET)) == 0


async def test_secrets_in_a_url_are_masked(table: Table) -> None:
    await table.adopt(declared(url=f"https://ops.example.com/{SECRET}/x"))
    assert (await table.row())["url"] == "https://ops.example.com/***/x"


# -- how deliveries fare ---------------------------------------------------------------------------


async def test_failures_are_counted_until_a_success(table: Table) -> None:
    await table.tell("on_retry", answered(503))
    await table.tell("on_retry", unanswered(f"refused\nby {SECRET}"))
    row = await table.row()
    assert (row["last_status_code"], row["last_error"]) == ("error", "refused by ***")
    assert row["failures"] == 2
    assert row["last_success_at"] is None
    await table.tell("on_final_failure", answered(404), reason="exhausted")
    assert (await table.row())["failures"] == 3
    await table.tell("on_success", answered(204))
    row = await table.row()
    assert (row["last_status_code"], row["last_error"], row["failures"]) == ("204", None, 0)
    assert row["last_success_at"] == row["last_attempt_at"] > 1_700_000_000_000


async def test_calls_are_not_deliveries(table: Table) -> None:
    effects = await table.rig.tell(
        "on_success", answered(200), task=task(endpoint_id=ENDPOINT), endpoint=table.endpoint
    )
    assert effects == []


@pytest.mark.parametrize("reason", ["webhook_removed", "webhook_disabled", "expired", "poisoned"])
async def test_what_was_never_tried_says_nothing_of_the_receiver(table: Table, reason: str) -> None:
    await table.tell("on_final_failure", Outcome("failure", None, error=reason), reason=reason)
    assert (await table.row())["failures"] == 0


async def test_a_payload_that_did_not_render_shows(table: Table) -> None:
    outcome = Outcome("failure", None, error="there is no 'x'")
    await table.tell("on_final_failure", outcome, reason="invalid_payload")
    row = await table.row()
    assert (row["last_error"], row["failures"]) == ("there is no 'x'", 1)


async def test_a_webhook_that_is_gone_gets_no_row_again(table: Table) -> None:
    before = table.endpoint
    await table.adopt()
    await table.tell("on_retry", answered(503), before)
    assert await table.control.rows("webhooks") == []


async def test_what_a_receiver_writes_is_bounded(table: Table) -> None:
    outcome = replace(answered(503), error="503 " + "x" * 10_000)
    await table.tell("on_retry", outcome)
    assert len((await table.row())["last_error"]) == 2_000


# -- 410 -------------------------------------------------------------------------------------------


async def test_410_disables_it(table: Table) -> None:
    await table.gone()
    row = await table.row()
    assert (row["disabled_reason"], row["enabled"]) == ("410 Gone", 1)
    assert row["disabled_at"] > 1_700_000_000_000
    assert health.disabled(ENDPOINT, "ops") == "410 Gone"
    assert health.disabled(ENDPOINT, "other") is None


async def test_that_outlives_a_restart_and_a_reload(table: Table) -> None:
    await table.gone()
    table.rig.adopt(table.rig.config())
    assert health.disabled(ENDPOINT, "ops") is None
    assert await table.adopt(declared(status_code=["5xx", "error"], secret=SECRET)) == 0
    assert health.disabled(ENDPOINT, "ops") == "410 Gone"


async def test_a_change_of_its_yaml_lifts_it(table: Table) -> None:
    await table.gone()
    await table.adopt(declared(url="https://ops.example.com/v2"))
    row = await table.row()
    assert (row["disabled_at"], row["disabled_reason"]) == (None, None)
    assert health.disabled(ENDPOINT, "ops") is None


async def test_a_late_410_of_the_old_url_does_not_disable_the_new_one(table: Table) -> None:
    before = table.endpoint
    await table.adopt(declared(url="https://ops.example.com/v2"))
    await table.gone(before)
    assert (await table.row())["disabled_at"] is None
    assert health.disabled(ENDPOINT, "ops") is None


async def test_deliveries_that_fail_because_it_is_disabled_change_nothing(table: Table) -> None:
    await table.gone()
    row = await table.row()
    waiting = Outcome("failure", None, final_reason="webhook_disabled")
    await table.tell("on_final_failure", waiting, reason="webhook_disabled")
    assert await table.row() == row


# -- disable_after ---------------------------------------------------------------------------------


def happened(id_: int, at: float, *, succeeded: bool = False) -> TaskEvent:
    type_ = EventType.TASK_SUCCEEDED if succeeded else EventType.TASK_RETRIED
    return TaskEvent(
        type_, int(at * 1000), id_, "webhook", ENDPOINT, "ops", "pending",
        status_code=204 if succeeded else 503,
    )  # fmt: skip


def told(health: Health, outcome: Outcome, task: Task, config: Config) -> Iterable[Any]:
    """What is written with the end of an attempt."""
    if outcome.verdict != "success":
        return health.record_failure(outcome, task, config.endpoints[ENDPOINT], config)
    found = health.record_success(outcome, task)
    return found.upserts(int(health._now() * 1000)) if isinstance(found, RecurringRows) else found


async def test_disable_after(rig: Rig) -> None:
    """No success for five days, and two deliveries that failed twelve hours apart."""
    now, days = [1_795_557_600.0], 86_400
    own, other = Health(now=lambda: now[0]), Health(now=lambda: now[0])
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(disable_after="5d")])
    config = rig.config(endpoint)
    control = FakeControl(config)
    own.bind(control)

    async def fails(id_: int, after: float, outcome: Outcome | None = None) -> str | None:
        now[0] += after
        about = replace(DELIVERY, id=id_)
        # It is another worker's, and this one is told.
        for effect in told(other, outcome or answered(503), about, config):
            control.apply(effect)
        own.observe([happened(id_, now[0], succeeded=outcome is not None)])
        while own._judging:
            await asyncio.sleep(0)
        return own.disabled(ENDPOINT, "ops")

    async def adopts() -> None:
        for worker in (own, other):
            for effect in worker.adopt(config, *(await control.tables()).values()):
                if effect is not None:
                    control.apply(effect)

    await adopts()
    assert await fails(1, 0) is None
    assert await fails(1, 6 * days) is None, "one delivery alone says little"
    assert await fails(2, 1, answered(204)) is None
    assert await fails(3, 0) is None
    assert await fails(4, 4.9 * days) is None
    own.__init__(now=lambda: now[0])  # type: ignore[misc]  # a restart
    own.bind(control)
    await adopts()
    assert control.events == []
    assert await fails(5, 0.2 * days) == "no success for 5d"
    assert [(event.type, event.reason) for event in control.events] == [  # type: ignore[union-attr]
        ("webhook.disabled", "no success for 5d")
    ]
    assert control.looked_again == [ENDPOINT]
    assert own.disabled(ENDPOINT, "ops") == "no success for 5d"
    await own.enable((ENDPOINT, "ops"), control)
    assert await fails(6, 0) is None


@pytest.mark.parametrize("lifted_by", ["its YAML", "another daemon"])
async def test_one_that_is_enabled_again_has_as_long_as_before(rig: Rig, lifted_by: str) -> None:
    now = [1_795_557_600.0]
    own, other = Health(now=lambda: now[0]), Health(now=lambda: now[0])

    def config_of(timeout: str) -> Config:
        hook = declared(disable_after="5d", timeout=timeout)
        return rig.config(rig.endpoint(ENDPOINT, webhooks=[hook]))

    config = config_of("5s")
    control = FakeControl(config)
    own.bind(control)

    async def adopts(config: Config) -> None:
        for effect in own.adopt(config, *(await control.tables()).values()):
            if effect is not None:
                control.apply(effect)

    async def fails(id_: int, days: float) -> str | None:
        now[0] += days * 86_400
        for effect in told(own, answered(503), replace(DELIVERY, id=id_), config):
            control.apply(effect)
        own.observe([happened(id_, now[0], succeeded=False)])
        while own._judging:
            await asyncio.sleep(0)
        return own.disabled(ENDPOINT, "ops")

    await adopts(config)
    assert await fails(1, 0) is None
    assert await fails(2, 5) == "no success for 5d"
    now[0] += 60
    if lifted_by == "its YAML":
        config = config_of("9s")
    else:
        await other.enable((ENDPOINT, "ops"), control)
    await adopts(config)
    assert own.disabled(ENDPOINT, "ops") is None
    assert await fails(3, 0.1) is None, "the failures before count no more"
    assert await fails(4, 0.1) is None
    assert await fails(5, 5) == "no success for 5d"


async def test_an_attempt_that_was_lost_with_its_daemon_says_nothing_of_the_receiver(
    rig: Rig,
) -> None:
    """It is counted as made. A failure and a death, days apart, are no five days of failures."""
    now, lost = [1_795_557_600.0], replace(unanswered("the daemon died"), lost=True)
    health, config = (
        Health(now=lambda: now[0]),
        rig.config(rig.endpoint(ENDPOINT, webhooks=[declared(disable_after="5d")])),
    )
    control = FakeControl(config)
    health.bind(control)
    for effect in health.adopt(config, *(await control.tables()).values()):
        assert effect is not None
        control.apply(effect)
    for id_, outcome in ((1, lost), (2, answered(503)), (3, lost)):
        for effect in told(health, outcome, replace(DELIVERY, id=id_), config):
            control.apply(effect)
        event = happened(id_, now[0], succeeded=False)
        health.observe([event._replace(lost=outcome.lost)])
        assert health._judging == {}
        now[0] += 6 * 86_400
    [row] = await control.rows("webhooks")
    assert (row["failures"], row["last_status_code"], row["failing_id"]) == (1, "503", 2)
    assert sum(row["failed"] for row in await control.rows("webhook_attempts")) >= 1


@pytest.mark.parametrize(("skipped", "disabled"), [(10, None), (0, "no success for 5d")])
async def test_time_that_a_clock_has_skipped_disables_nothing(
    rig: Rig, skipped: int, disabled: str | None
) -> None:
    days = 86_400
    now = [1_795_557_600.0]
    jumped_at, by = int(now[0] * 1000) + 1000, skipped * days * 1000
    health = Health(lambda: now[0], lambda since: by if since <= jumped_at else 0)
    config = rig.config(rig.endpoint(ENDPOINT, webhooks=[declared(disable_after="5d")]))
    control = FakeControl(config)
    health.bind(control)
    for effect in health.adopt(config, *(await control.tables()).values()):
        if effect is not None:
            control.apply(effect)
    for id_, after in ((1, 0.0), (2, 10 * days)):
        now[0] += after
        for effect in told(health, answered(503), replace(DELIVERY, id=id_), config):
            control.apply(effect)
        health.observe([happened(id_, now[0])])
    while health._judging:
        await asyncio.sleep(0)
    assert health.disabled(ENDPOINT, "ops") == disabled


async def test_it_is_known_since_when_it_fails_though_another_daemon_had_a_success(
    rig: Rig,
) -> None:
    now = [1_795_557_600.0]
    own, other = Health(now=lambda: now[0]), Health(now=lambda: now[0])
    config = rig.config(rig.endpoint(ENDPOINT, webhooks=[declared()]))
    control = FakeControl(config)
    for one in (own, other):
        for effect in one.adopt(config, *(await control.tables()).values()):
            if effect is not None:
                control.apply(effect)

    async def sent(daemon: Health, outcome: Outcome) -> Any:
        now[0] += 60
        for effect in told(daemon, outcome, DELIVERY, config):
            control.apply(effect)
        [row] = await control.rows("webhooks")
        return row["failing_since"]

    assert await sent(own, answered(503)) == now[0] * 1000
    assert await sent(other, answered(204)) is None
    assert await sent(own, answered(503)) is not None
    started = Health(now=lambda: now[0])
    for one in (started, own):
        list(one.adopt(config, *(await control.tables()).values()))
        assert (ENDPOINT, "ops") not in one._failing, "it is not known since when, after a success"


async def test_attempts_are_counted_for_an_hour_and_what_has_passed_of_the_next(rig: Rig) -> None:
    """By two daemons together, each in rows of its own; what is over is not kept."""
    begin, hour = 1_795_557_600.0, 3_600
    now = [begin]
    own, other = Health(now=lambda: now[0]), Health(now=lambda: now[0])
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(), declared(name="quiet")])
    config = rig.config(endpoint)
    control = FakeControl(config)

    async def apply(effects: Iterable[Upsert | Delete | BatchMember | None]) -> None:
        for effect in effects:
            if effect is not None:
                control.apply(effect)

    async def sent(worker: Health, after: float, outcome: Outcome, name: str = "ops") -> None:
        now[0] += after
        await apply(told(worker, outcome, replace(DELIVERY, webhook=name), config))

    async def known(name: str = "ops") -> tuple[int, int] | None:
        at = int(now[0] * 1000)
        one = recent(await control.rows("webhook_attempts"), at).get((ENDPOINT, name))
        if one is not None:
            assert hour <= now[0] - one.since / 1000 < 2 * hour
        return one and (one.attempts, one.failed)

    for worker in (own, other):
        worker.bind(control)
        await apply(worker.adopt(config, []))
    await sent(own, 0, answered(204), "quiet")
    await sent(own, 0, answered(204))
    await sent(other, 60, answered(503))
    await sent(own, hour - 61, unanswered("refused"))
    assert await known() == (3, 2)
    await sent(own, 1, answered(204))
    await sent(other, hour - 1, answered(503))
    assert await known() == (5, 3)
    await sent(other, 1, answered(204))
    assert (await known(), await known("quiet")) == ((3, 1), None)
    rows = await control.rows("webhook_attempts")
    assert len({row["worker"] for row in rows}) == 2
    assert sorted((row["name"], row["at"] / 1000 - begin) for row in rows) == [
        ("ops", 0), ("ops", 0), ("ops", hour), ("ops", hour), ("ops", 2 * hour), ("quiet", 0)
    ]  # fmt: skip
    assert COUNTS.keep == 2 * hour


def test_a_success_is_written_as_the_last_one_was(rig: Rig) -> None:
    now = [1_795_557_600.0 + 60]
    health = Health(now=lambda: now[0])
    config = rig.config(rig.endpoint(ENDPOINT, webhooks=[declared()]))
    assert health.record_success(answered(204), DELIVERY) == [], "it is not known yet"
    list(health.adopt(config, []))
    found = health.record_success(answered(204), DELIVERY)
    assert isinstance(found, RecurringRows)
    assert found.until == (now[0] - 60 + 3_600) * 1000
    [row, counted] = found.upserts(7, times=3)
    assert row.values["last_success_at"] == row.values["last_attempt_at"] == 7
    assert row.values["last_status_code"] == "204"
    assert counted.add == {"attempts": 3, "failed": 0}


class CountedReads(FakeControl):
    """Its database answers when it is told to."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.reads = 0
        self.answer = asyncio.Event()

    async def rows(self, table: str, where: Mapping[str, Any] = EVERY) -> list[dict[str, Any]]:
        self.reads += 1
        await self.answer.wait()
        return await super().rows(table, where)


async def test_another_daemon_had_a_success(rig: Rig) -> None:
    now = [1_795_557_600.0]
    own = Health(now=lambda: now[0])
    endpoint = rig.endpoint(ENDPOINT, webhooks=[declared(disable_after="1d")])
    control = FakeControl(rig.config(endpoint))
    own.bind(control)
    for effect in own.adopt(control.config, []):
        if effect is not None:
            control.apply(effect)
    own.observe([happened(1, now[0])])
    at = int((now[0] + 3_600) * 1000)
    key = {"endpoint_id": ENDPOINT, "name": "ops"}
    control.apply(Upsert("webhooks", key, {"last_success_at": at}))
    now[0] += 200_000
    own.observe([happened(2, now[0])])
    assert own._judging
    while own._judging:
        await asyncio.sleep(0)
    assert own.disabled(ENDPOINT, "ops") is None


async def test_one_judges_however_many_fail_meanwhile(rig: Rig) -> None:
    now = 1_795_557_600.0
    own = Health(now=lambda: now)
    control = CountedReads(
        rig.config(rig.endpoint(ENDPOINT, webhooks=[declared(disable_after="1d")]))
    )
    own.bind(control)
    for effect in own.adopt(control.config, []):
        if effect is not None:
            control.apply(effect)
    own.observe([happened(1, now)])
    for id_ in range(2, 52):
        own.observe([happened(id_, now + 200_000)])
        await asyncio.sleep(0)
    assert control.reads == 1
    assert own.disabled(ENDPOINT, "ops") is None
    control.answer.set()
    while own._judging:
        await asyncio.sleep(0)
    assert own.disabled(ENDPOINT, "ops") == "no success for 1d"
    assert control.reads == 1


class FullDisk(FakeControl):
    """Its database refuses the first write."""

    refused = 0

    async def write(self, effects: Sequence[Any]) -> list[int]:
        if not self.refused:
            self.refused += 1
            raise StorageFull("the disk takes no more")
        return await super().write(effects)


async def test_a_disk_that_is_full_as_it_is_to_be_disabled(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1_795_557_600.0
    own = Health(now=lambda: now)
    control = FullDisk(rig.config(rig.endpoint(ENDPOINT, webhooks=[declared(disable_after="1d")])))
    own.bind(control)
    for effect in own.adopt(control.config, []):
        if effect is not None:
            control.apply(effect)
    own.observe([happened(1, now)])
    for id_, reason in ((2, None), (3, "no success for 1d")):
        own.observe([happened(id_, now + 200_000)])
        while own._judging:
            await asyncio.sleep(0)
        assert own.disabled(ENDPOINT, "ops") == reason
    assert caplog.messages == [
        f"cannot disable webhook ops of {ENDPOINT} yet: the disk takes no more"
    ]


async def test_another_daemon_has_enabled_it(rig: Rig) -> None:
    now = [1_795_557_600.0]
    here, there = Health(now=lambda: now[0]), Health(now=lambda: now[0])
    control = FakeControl(rig.config(rig.endpoint(ENDPOINT, webhooks=[declared()])))
    here.begin(control)  # in a worker that does not judge
    there.bind(control)
    for own in (here, there):
        for effect in own.adopt(control.config, await control.rows("webhooks")):
            if effect is not None:
                control.apply(effect)
    name = ENDPOINT, "ops"
    await here.disable(name, control)
    await here.look_again(name)
    assert here.disabled(*name) == "by hand"
    now[0] += 1
    await there.enable(name, control)
    control.looked_again.clear()
    await here.look_again(name)
    assert here.disabled(*name) is None
    assert control.looked_again
    # Its receiver says that it is gone, and that is not written yet.
    gone = replace(DELIVERY, reason="webhook_disabled")
    here.record_failure(GONE, gone, control.config.endpoints[ENDPOINT], control.config)
    assert here.disabled(*name) == "410 Gone"
    await here.look_again(name)
    assert here.disabled(*name) == "410 Gone"
