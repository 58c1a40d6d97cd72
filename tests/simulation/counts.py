"""Every count equals the rows that it is of: checks as those of `checks.py`."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from tests.simulation.evidence import ENDED, Evidence, Row
from tests.simulation.model import covers
from tests.simulation.records import ACKNOWLEDGED, REFUSED

UNTOLD = ("stopped", "resolved", "cancelled")
"""How `why` of an attempt begins that is not counted for its webhook."""
LOST = "the daemon died while", "nothing in the daemon held"
"""How the error of an attempt begins that says nothing of its receiver."""


def statuses(seen: Evidence) -> None:
    """What is counted of how many tasks each status has, is so, and each daemon says the same."""
    there, counted = Counter(row["status"] for row in seen.rows), Counter[str]()
    for row in seen.tables["task_counts"]:
        counted[row["status"]] += row["tasks"] if not row["bulk_id"] else 0
    if any(counted[name] != there[name] for name in counted.keys() | there.keys()):
        seen.broken(f"{dict(counted)} are counted, and there are {dict(there)}")
    for report in seen.universe.reports:
        said = {name: report.status["queue"][name] for name in ("pending", "running", *ENDED)}
        for name in ("missed", "resolved"):
            said["failed"] += report.status["queue"][name]
        if not seen.prunes and any(said[name] != there[name] for name in said):
            seen.broken(f"{report.process} counts {said}, and there are {dict(there)}")


def runs(seen: Evidence) -> None:
    """A run counts its calls, and has ended as they have; its end is told once each time."""
    of_run: dict[int, list[Row]] = defaultdict(list)
    for row in seen.rows:
        if row["run_id"] is not None:
            of_run[row["run_id"]].append(row)
    told = Counter(
        (row["parent_id"], row["webhook"])
        for row in seen.rows if row["phase"] == "on_run_end"
    )  # fmt: skip
    for run in seen.tables["runs"]:
        id_, calls = run["id"], of_run.pop(run["id"], [])
        there = Counter(row["status"] for row in calls)
        counted = {name: run[name] for name in ENDED}
        if not seen.prunes and (
            run["tasks"] != len(calls) or any(counted[name] != there[name] for name in ENDED)
        ):
            seen.broken(f"run {id_} counts {run['tasks']}: {counted}, and has {dict(there)}")
        if run["open_tasks"] or run["ended_at"] is None:
            seen.broken(f"run {id_} has not ended: {run}")
        for name in _told_of_runs(seen, run["endpoint_id"]):
            if not seen.prunes and told[id_, name] != run["ends"]:
                seen.broken(f"run {id_} ended {run['ends']} times, {name} told {told[id_, name]}")
    if of_run and not seen.prunes:
        seen.broken(f"calls are of runs that there are not: {sorted(of_run)}")


def _told_of_runs(seen: Evidence, endpoint_id: str) -> set[str]:
    """The webhooks that are told of the ends of its runs, and always were."""
    every = [
        {name for name, one in each.webhooks(endpoint_id).items() if _is_of_runs(one)}
        if endpoint_id in each.endpoints else set()
        for each in seen.configurations
    ]  # fmt: skip
    return set.intersection(*every)


def _is_of_runs(webhook: dict[str, object]) -> bool:
    return webhook["phase"] == "on_run_end" and "batch" not in webhook


def batches(seen: Evidence) -> None:
    """Each member is in one batch, which counts it, and of which one delivery tells."""
    members = Counter(one["batch_id"] for one in seen.tables["batch_members"])
    if members.pop(None, 0):
        seen.broken("a member of a batch is in none")
    for batch in seen.tables["batches"]:
        if batch["members"] != members[batch["id"]] and not seen.prunes:
            seen.broken(
                f"batch {batch['id']} counts {batch['members']}, not {members[batch['id']]}"
            )
        if not batch["task_id"] or (batch["task_id"] not in seen.by_id and not seen.prunes):
            seen.broken(f"no delivery tells of batch {batch['id']}")
    told = Counter(batch["task_id"] for batch in seen.tables["batches"])
    for task, count in told.items():
        if count > 1:
            seen.broken(f"delivery {task} tells of {count} batches")


def bulks(seen: Evidence) -> None:
    """A bulk ends; it counts what it moved, and how that ended."""
    of_bulk = Counter((row["bulk_id"], row["status"]) for row in seen.rows)
    counted = Counter[tuple[int, str]]()
    for row in seen.tables["task_counts"]:
        counted[row["bulk_id"], row["status"]] += row["tasks"]
    for bulk in seen.tables["bulks"]:
        id_, moved = bulk["id"], bulk["moved"]
        if bulk["status"] not in ("finished", "cancelled") or bulk["ended_at"] is None:
            seen.broken(f"bulk {id_} is still {bulk['status']}")
        ended = {status: counted[id_, status] for status in ("succeeded", "failed")}
        if sum(ended.values()) > moved or moved + bulk["skipped"] > bulk["matched"]:
            seen.broken(f"bulk {id_} counts more than it has moved: {bulk}, {ended}")
        for status, count in ended.items():
            if bulk["action"] == "retry" and count < of_bulk[id_, status]:
                there = of_bulk[id_, status]
                seen.broken(f"bulk {id_} counts {count} {status}, and has {there}")


def webhooks(seen: Evidence) -> None:
    """How each webhook fares is as its deliveries went: attempts, failures, failures in a row."""
    logs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for one in sorted(seen.tables["attempts"], key=lambda one: one["id"]):
        row = seen.by_id.get(one["task_id"])
        told = one["status_code"] is not None and not one["why"].startswith(UNTOLD)
        if row is not None and row["webhook"] and told:
            logs[row["endpoint_id"], row["webhook"]].append(one)
    counted: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in seen.tables.get("webhook_attempts", ()):
        sums = counted[one["endpoint_id"], one["name"]]
        sums[0] += one["attempts"]
        sums[1] += one["failed"]
    for one in seen.tables.get("webhooks", ()):
        key = one["endpoint_id"], one["name"]
        if seen.prunes or not _always_there(seen, *key):
            continue
        failed = [not covers("2xx", _code(row["status_code"])) for row in logs[key]]
        # Hours are deleted two hours later, which a clock that is set may bring soon.
        was_set = seen.universe.machine.was_set
        if not was_set and counted[key] != [len(failed), sum(failed)]:
            seen.broken(f"{key} counts {counted[key]} attempts, not {[len(failed), sum(failed)]}")
        in_a_row = {_in_a_row(logs[key], since) for since in _enabled(seen, *key)}
        if in_a_row and (one["failures"] or 0) not in in_a_row:
            seen.broken(f"{key} counts {one['failures']} failures in a row, not {in_a_row}")


def _in_a_row(log: list[Row], since: float) -> int:
    """How many failures there were after the last success, of what ended after `since`."""
    count = 0
    for row in log:
        if (row["error"] or "").startswith(LOST):
            continue
        fails = not covers("2xx", _code(row["status_code"]))
        if row["started_at"] + row["duration_ms"] >= since:
            count = count + 1 if fails else 0
    return count


def _enabled(seen: Evidence, endpoint_id: str, name: str) -> set[float]:
    """From when its failures count, in milliseconds: a person who enables it begins anew, at a
    moment between question and answer, and perhaps where no answer came. Of no use where clocks
    have jumped."""
    machine, found = seen.universe.machine, {0.0}
    for deed in seen.deeds("enable"):
        if deed.target == f"{endpoint_id}#{name}" and deed.outcome != REFUSED:
            if seen.jumps:
                return set()
            done = {deed.at, deed.answered_at or deed.at}
            times = {1000 * (machine.slept + machine.wall_ahead + at) for at in done}
            found = times if deed.outcome == ACKNOWLEDGED else found | times
    return found


def _code(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _always_there(seen: Evidence, endpoint_id: str, name: str) -> bool:
    return all(
        endpoint_id in each.endpoints and name in each.webhooks(endpoint_id)
        for each in seen.configurations
    )


def schedules(seen: Evidence) -> None:
    """A slot makes one task, and only slots do."""
    made: Counter[tuple[str, int]] = Counter()
    for row in seen.rows:
        said = [
            each.endpoints[row["endpoint_id"]].get("schedule")
            for each in seen.configurations
            if row["endpoint_id"] in each.endpoints
        ]
        by_client = json.loads(row["params"]).get("n") is not None or row["parent_id"] is not None
        if any(said) and row["kind"] == "call" and not by_client:
            made[row["endpoint_id"], row["scheduled_at"]] += 1
    for (endpoint_id, slot), count in made.items():
        if count > 1:
            seen.broken(f"the slot {slot} of {endpoint_id} made {count} tasks")


CHECKS = statuses, runs, batches, bulks, webhooks, schedules
