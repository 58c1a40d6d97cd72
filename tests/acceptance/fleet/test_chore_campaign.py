"""Two daemons on PostgreSQL are killed in turn while chores are under way: ends of runs, slices of
a large answer, bulks, closed batches, retention, replays of what a disabled webhook missed. Then
the accounts.

The long form:

    CHORE_KILLS=40 pytest -s --all tests/acceptance/fleet/test_chore_campaign.py
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.fleet.test_fleet import MakeFleet, database, make_fleet
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

__all__ = ["database", "make_fleet"]

KILLS = int(os.environ.get("CHORE_KILLS", "8"))
"""An even number, so that what was disabled is enabled."""
ROWS, MANY = 12, 20_500
"""Children of a call, and of the one whose children are written in slices."""
TOLD = 60
"""Calls whose deliveries a disabled webhook misses, between two replays."""
LONGEST = 0.6
"""Seconds of work before a kill, at most."""
Ask = Callable[..., list[Any]]


def declare(daemon: Daemon, receiver: Receiver) -> None:
    hook = {"url": f"{receiver.url}/hooks", "retry": retry("30ms", attempts=100)}
    row = {"params": {"n": {"required": True}}, "retry": retry("30ms", attempts=2)}
    each = {"each": "body.rows", "params": {"n": "item"}}
    daemon.endpoint(
        "crm/list", "/list/{{ params.n }}", params={"n": {}}, retry=retry("30ms", attempts=100),
        then=[{"call": "crm/row", **each}],
        webhooks=[
            {"name": "end", "phase": "on_run_end", **hook},
            {"name": "some", "phase": "on_success", "batch": {"every": "300ms", "max": 4}, **hook},
        ],
    )  # fmt: skip
    daemon.endpoint(
        "crm/row", "/row/{{ params.n }}",
        webhooks=[{"name": "each", "phase": "on_success", **hook}], **row,
    )  # fmt: skip
    daemon.endpoint("crm/many", "/many", then=[{"call": "crm/seen", **each}], retry=retry())
    event = {"type": "event", "params": {"n": {}}}
    daemon.write("apis/crm/endpoints/seen.yaml", event)
    daemon.endpoint("crm/later", "/later", **row)
    audit = {**hook, "name": "audit", "phase": "on_success", "url": f"{receiver.url}/audit"}
    daemon.endpoint("crm/told", "/told", webhooks=[audit], retry=retry())


def serve(receiver: Receiver, chance: random.Random) -> None:
    """A row fails as long as it is tried the first two times; one in ten deliveries, once."""
    tries: dict[str, int] = {}

    def fails(key: str, times: int) -> bool:
        tries[key] = tries.get(key, 0) + 1
        return tries[key] <= times

    def lists(request: Received) -> Answer:
        first = int(request.path.rpartition("/")[2]) * ROWS
        return Answer(200, json.dumps({"rows": [*range(first, first + ROWS)]}))

    def row(request: Received) -> Answer:
        bad = request.path.endswith("5") and fails(request.path, 2)
        return Answer(503 if bad else 200, delay=chance.random() * 0.02)

    def deliver(request: Received) -> Answer:
        name = request.headers["webhook-id"]
        return Answer(503 if name.endswith(tuple("abcdef")) and fails(name, 1) else 204)

    receiver.reply("/list/", lists)
    receiver.reply("/row/", row)
    receiver.reply("/hooks", deliver)
    receiver.reply("/audit", deliver)
    receiver.on("/told", 200)
    receiver.on("/many", Answer(200, json.dumps({"rows": [*range(MANY)]})))


def missed_by(daemon: Daemon) -> set[int]:
    return {one["id"] for one in daemon.tasks(webhook="audit", reason="webhook_disabled")}


def miss(daemon: Daemon, other: Daemon) -> None:
    """Disable the webhook, once it has got what it missed before, and have it miss deliveries."""
    until(lambda: not missed_by(daemon), "the replay", 240)
    daemon.settle(240, endpoint="crm/told")
    assert daemon.post("/v1/endpoints/crm/told/webhooks/audit/disable").is_success
    other.batch("crm/told", [{}] * TOLD)


def replay(daemon: Daemon) -> set[int]:
    """Enable the webhook and send what it has missed; the deliveries that it has missed."""
    daemon.settle(240, endpoint="crm/told")
    missed = missed_by(daemon)
    enabled = daemon.post("/v1/endpoints/crm/told/webhooks/audit/enable")
    assert enabled.is_success, enabled.text
    sent = daemon.post("/v1/retries/trigger", {"filter": enabled.json()["replay"]})
    assert sent.json()["matched"] == len(missed) > 0, sent.text
    return missed


def test_what_is_done_later_is_done_once_whoever_dies(
    make_fleet: MakeFleet, receiver: Receiver, database: str, postgres: Postgres
) -> None:
    chance = random.Random(33)
    serve(receiver, chance)
    fleet = make_fleet(2, retention={"cancelled": "1s"}, log={"level": "warning"})
    for daemon in fleet:
        daemon.expect(r"took over from a dead daemon", r"set aside the chore", r"died")
        declare(daemon, receiver)
        daemon.start()
    lists = told = 0
    large: list[int] = []
    missed: set[int] = set()
    for number in range(KILLS):
        victim, other = fleet[number % 2], fleet[1 - number % 2]
        other.batch("crm/list", [{"n": n} for n in range(lists, lists + 6)])
        lists += 6
        if number % 4 == 0:
            large.append(other.call("crm/many"))
        for n in range(5):
            other.call("crm/later", "1h", n=n)
        assert other.post("/v1/retries/cancel", {"filter": {"endpoint": "crm/later"}}).is_success
        assert victim.post("/v1/retries/trigger", {"filter": {"endpoint": "crm/row"}}).is_success
        if number % 2:
            missed |= replay(victim)
        else:
            miss(victim, other)
            told += TOLD
        time.sleep(chance.random() * LONGEST)
        victim.kill()
        victim.start()

    name = database.rpartition("/")[2]

    def ask(statement: str, *values: Any) -> list[Any]:
        return postgres.run(name, statement, *values)

    one = fleet[0]
    one.settle(240, endpoint="crm/list")

    def rests() -> bool:
        rest = "SELECT 1 FROM chores UNION ALL SELECT 1 FROM batch_members WHERE batch_id IS NULL"
        open_ = "SELECT 1 FROM retry_schedule WHERE status IN ('pending', 'running')"
        return not ask(f"{rest} UNION ALL {open_} LIMIT 1")

    until(rests, "the end of all chores and tasks", 240)
    until(lambda: not ask("SELECT 1 FROM retry_schedule WHERE status = 'cancelled'"), "retention")
    # One under way at three deaths may have killed the daemon: it is tried no more.
    poisoned = ask("SELECT id FROM retry_schedule WHERE reason = 'poisoned'")
    assert {task_id for (task_id,) in poisoned} < {*large}
    account(ask, lists, len(large) - len(poisoned))
    account_replays(one, receiver, told, missed)


def account(ask: Ask, lists: int, large: int) -> None:
    """Hold what the database counts and tells against what it has."""
    counted = "SELECT status, sum(tasks)::int FROM task_counts WHERE bulk_id = 0 GROUP BY 1"
    there = ask("SELECT status, count(*)::int FROM retry_schedule GROUP BY 1 ORDER BY 1")
    assert ask(f"{counted} HAVING sum(tasks) <> 0 ORDER BY 1") == there
    calls = dict(
        ask("SELECT endpoint_id, count(*) FROM retry_schedule WHERE webhook = '' GROUP BY 1")
    )
    print(calls, there)
    assert calls["crm/list"] == lists
    assert (calls["crm/row"], calls["crm/seen"]) == (lists * ROWS, large * MANY)
    assert ask("SELECT count(*) FROM bulks WHERE status <> 'finished' OR ended_at IS NULL") == [
        (0,)
    ]
    # What is pruned was cancelled: these a bulk does not count as ended.
    bulks = ask("SELECT id, moved FROM bulks WHERE action = 'retry' AND moved > 0 ORDER BY id")
    ends = (
        "SELECT bulk_id, sum(tasks)::int FROM task_counts WHERE bulk_id > 0 GROUP BY 1 ORDER BY 1"
    )
    assert ask(ends) == bulks
    print(f"{len(bulks)} bulks moved {sum(moved for _, moved in bulks)} tasks")
    wrong = ask("""
        SELECT runs.id, tasks, succeeded, failed, open_tasks, ends, of_run.* FROM runs JOIN (
            SELECT run_id, count(*) AS all_of, count(*) FILTER (WHERE status = 'succeeded') AS good,
                count(*) FILTER (WHERE status = 'failed') AS bad
            FROM retry_schedule WHERE run_id IS NOT NULL GROUP BY 1
        ) AS of_run ON run_id = runs.id
        WHERE (tasks, succeeded, failed, open_tasks) <> (all_of, good, bad, 0)
    """)
    assert wrong == []
    told = (
        "SELECT parent_id, count(*) FROM retry_schedule WHERE webhook = 'end' GROUP BY 1 ORDER BY 1"
    )
    ended = ask("SELECT id, ends FROM runs WHERE endpoint_id = 'crm/list' ORDER BY id")
    assert ask(told) == ended
    assert len(ended) == lists
    print(f"{sum(ends for _, ends in ended)} ends of {lists} runs were told")
    batches = ask("""
        SELECT batches.members, (SELECT count(*) FROM batch_members WHERE batch_id = batches.id),
            (SELECT count(*) FROM retry_schedule WHERE id = batches.task_id) FROM batches
    """)
    assert all((counted, 1) == (there, told) for counted, there, told in batches)
    assert sum(members for members, *_ in batches) == lists
    print(f"{len(batches)} batches")
    attempts = ask("""
        SELECT webhook, count(*)::int, (count(*) FILTER (WHERE status_code <> '204'))::int
        FROM attempts JOIN retry_schedule ON retry_schedule.id = task_id
        WHERE webhook <> '' AND status_code IS NOT NULL GROUP BY 1 ORDER BY 1
    """)
    by_hour = "SELECT name, sum(attempts)::int, sum(failed)::int FROM webhook_attempts GROUP BY 1"
    assert ask(f"{by_hour} ORDER BY 1") == attempts
    assert ask("SELECT count(*) FROM webhooks WHERE failures <> 0 OR failing_since > 0") == [(0,)]


def account_replays(daemon: Daemon, receiver: Receiver, told: int, missed: set[int]) -> None:
    """Hold what the receiver got of the webhook that missed deliveries against their attempts."""
    deliveries = {one["id"]: daemon.task(one["id"]) for one in daemon.tasks(webhook="audit")}
    assert len(deliveries) == told
    assert missed <= {*deliveries}
    assert {one["status"] for one in deliveries.values()} == {"succeeded"}
    came = Counter(item.headers["webhook-id"] for item in receiver.received("/audit"))
    # Nothing came under another name than that of a delivery.
    assert {*came} == {one["idempotency_key"] for one in deliveries.values()}
    again = 0
    for one in deliveries.values():
        codes = [attempt["status_code"] for attempt in one["attempt_log"]]
        answered = sum(isinstance(code, int) for code in codes)
        unknown = codes.count("error") + one["deaths"]  # sent, perhaps, without an answer on disk
        got = came[one["idempotency_key"]]
        assert answered <= got <= answered + unknown, one
        again += got - answered
    print(f"{len(missed)} missed deliveries of {told} were sent, {again} again after a death")
