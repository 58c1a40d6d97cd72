"""What has to be true at the end of a universe, whatever went wrong in it.

Each check is a function of the `Evidence`, which says in its docstring what promise it holds, and
stands in `CHECKS`."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

from tests.simulation import counts
from tests.simulation.burst import UNITS
from tests.simulation.configuration import BUSY
from tests.simulation.evidence import CLAIMED, ENDED, SHORTEST_TIMEOUT, Evidence, Row
from tests.simulation.model import Life, covers, seconds
from tests.simulation.records import ACKNOWLEDGED

if TYPE_CHECKING:
    from tests.simulation.configuration import Configuration
    from tests.simulation.receiver import Arrival
    from tests.simulation.universe import Universe


def all_ended(universe: Universe) -> bool:
    """Whether no task waits or runs, and none is to follow."""
    with closing(sqlite3.connect(universe.path)) as db:
        return not any(db.execute(f"SELECT 1 FROM {one} LIMIT 1").fetchone() for one in GOES_ON)


GOES_ON = (
    "retry_schedule WHERE status IN ('pending', 'running')",
    "batch_members WHERE batch_id IS NULL",
    "batches WHERE task_id IS NULL AND members > 0",
    "bulks WHERE status IN ('running', 'paused') OR ended_at IS NULL",
    "chores",
)
"""Rows of which something is still to come."""


def written(universe: Universe) -> tuple[int, int]:
    """The id of the newest task, and what each write of a task changes."""
    with closing(sqlite3.connect(universe.path)) as db:
        row = db.execute(WRITTEN).fetchone()
    return row[0] or 0, row[1] or 0


WRITTEN = """
SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'retry_schedule'),
    (SELECT sum(updated_at) FROM retry_schedule)
"""


def check(universe: Universe) -> None:
    """Say what is wrong."""
    try:
        evidence = Evidence(universe)
    except sqlite3.Error as error:
        universe.broken("the queue cannot be read", error)
        return
    for one in CHECKS:
        one(evidence)


# -- liveness --------------------------------------------------------------------------------------


def ends(seen: Evidence) -> None:
    """An hour after the last fault everything has ended, and no row is owned."""
    for row in seen.rows:
        if row["status"] not in ENDED:
            seen.broken(f"task {row['id']} of {row['endpoint_id']} is still {row['status']}")
        elif row["locked_by"] is not None or row["lease_until"] is not None or row["held"]:
            seen.broken(f"task {row['id']} has ended, and is still claimed or held")


def ready(seen: Evidence) -> None:
    """Each daemon is ready again, and no slot is missing."""
    universe = seen.universe
    told = {report.process for report in universe.reports}
    for process in universe.living:
        if process.name not in told and universe.reports_asked:
            seen.broken(f"{process.name} does not say how it is")
    for report in universe.reports:
        if not report.status["health"]["ready"]:
            seen.broken(f"{report.process} is not ready: {report.status['health']['troubles']}")
        busy = report.claimed, report.unsettled, report.running, report.status["in_flight"]
        if any(busy):
            seen.broken(f"{report.process} has slots taken, and nothing to do: {busy}")
        for lane in report.status["lanes"]:
            if lane["in_flight"]:
                seen.broken(f"{report.process} has slots of a lane taken: {lane}")


def tokens(seen: Evidence) -> None:
    """No token of a rate is missing: none is used but by what was sent within its unit; where
    daemons share a rate, by what was claimed, which is not given back where it was not sent."""
    network, alone = seen.universe.network, seen.universe.rule == "alone"
    for report in seen.universe.reports:
        for lane in report.status["lanes"]:
            if lane["rate"] is None:
                continue
            _, _, unit = lane["rate"]["limit"].partition("/")
            since, api = report.at - 1.1 * UNITS[unit] - 1.0, lane["name"].rpartition(":")[2]
            sent = [one for one in network.sent if one.host == f"{api}.test" and one.at >= since]
            # Of what was under way as a daemon died its successor cannot know what was sent.
            died = any((one.died_at or 0) >= since for one in seen.universe.processes)
            known = alone and not died
            most = len(sent) if known else _claims(seen, api, since, report.at)
            if lane["rate"]["used"] > most:
                seen.broken(f"{report.process} misses tokens: {lane}, {most} were used")


def _claims(seen: Evidence, api: str, since: float, until: float) -> float:
    """How many there may have been of the calls of an API in this time."""
    if seen.prunes:
        return inf
    # By a clock that was put back it is not known when a row was last written.
    machine, jumped = seen.universe.machine, seen.jumped(since, until)
    latest = 0.0 if jumped else (machine.slept + machine.wall_ahead + since) * 1000
    claimed = [
        row["claims"] for row in seen.rows
        if row["endpoint_id"].startswith(f"{api}/") and not row["webhook"]
        and row["updated_at"] >= latest
    ]  # fmt: skip
    return sum(claimed)


def let_go(seen: Evidence) -> None:
    """No breaker is open of what a receiver served last; as nothing waits, nothing is slowed. A
    report is of all workers, each of which has breakers of its own, and may have sent nothing."""
    last: dict[str, dict[str, Arrival]] = defaultdict(dict)
    alive = {one.name for one in seen.universe.processes if one.died_at is None}
    sent = [one for one in seen.universe.network.sent if one.ended_at is not None]
    for one in sorted(sent, key=seen.until):
        scopes = [f"api:{one.host.removesuffix('.test')}", f"receiver:{one.host}:80"]
        if (row := seen.row_of.get(id(one))) is not None:
            webhook = f"#{row['webhook']}" if row["webhook"] else ""
            scopes.append(f"{row['endpoint_id']}{webhook}")
        for name in scopes:
            last[name][one.process] = one
    for report in seen.universe.reports:
        for scope in (*report.status["lanes"], *report.status["throttled"]):
            of = last[scope["name"]]
            served = all(name in of and 200 <= (of[name].told or 0) < 300 for name in alive)
            if scope["overload"] or (served and scope["breaker"]):
                seen.broken(f"{report.process} throttles still: {scope}")


def drained(seen: Evidence) -> None:
    """A daemon that is to end waits for the answers that it waits for, as long as `drain_timeout`
    says."""
    for one in seen.universe.network.arrivals:
        process, until = seen.processes[one.process], seen.until(one)
        begun, left = process.ending_at, one.given_up or one.ended_at is None
        if begun is None or process.ended is None or one.at > begun or until <= begun:
            continue
        overdue = until - one.at >= SHORTEST_TIMEOUT or seen.is_late(one)
        if left and not overdue and until < begun + DRAINS - ROUNDED:
            seen.broken(f"{_words(one)} was left {until - begun:.3f} s after a SIGTERM")


DRAINS = 5.0
"""Seconds, as the configuration says, until a daemon that is to end gives up."""


def flow(seen: Evidence) -> None:
    """The rate at each healthy receiver is what its configuration allows, as `Burst.check` says."""
    if seen.universe.burst is not None:
        seen.universe.burst.check(seen)


# -- what was accepted -----------------------------------------------------------------------------


def acknowledged(seen: Evidence) -> None:
    """What is accepted is on disk before it is acknowledged; nothing is there twice."""
    calls = {row["id"]: row for row in seen.rows if row["kind"] == "call"}
    for call in seen.universe.calls:
        if call.id is None:
            continue
        row = calls.get(call.id)
        if row is None and not seen.prunes:
            seen.broken(f"call {call.number} was acknowledged as {call.id}, and is lost")
        elif row is not None and json.loads(row["params"])["n"] != call.number:
            seen.broken(f"call {call.number} was acknowledged as {call.id}, which is another one")
    made = [row for row in calls.values() if row["parent_id"] is None]
    for number, count in Counter(json.loads(row["params"]).get("n") for row in made).items():
        if count > 1 and number is not None:
            seen.broken(f"call {number} is there {count} times")


def lived(seen: Evidence) -> None:
    """Each row is as the model of a task's life allows: its status, its reason, its attempts; what
    was sent was to be sent, and has the number of its attempt. A success had its 2xx; what may not
    be repeated was not, without a person."""
    for row in seen.rows:
        if row["id"] in seen.forced:
            continue
        found = seen.lives(row)
        if isinstance(found, str):
            seen.broken(f"task {row['id']}: {found}")
        elif not _matching(row, found):
            is_ = Life(row["status"], row["reason"], row["attempts"]).words()
            may = " or ".join(sorted({one.words() for one in found if one.status in ENDED}))
            seen.broken(f"task {row['id']} is {is_}; it may be {may or 'nothing that has ended'}")


def _matching(row: Row, found: Iterable[Life]) -> list[Life]:
    """The lives that end as the row has it."""
    is_ = row["status"], row["reason"], row["attempts"]
    return [one for one in found if (one.status, one.reason, one.attempts) == is_]


def ended_once(seen: Evidence) -> None:
    """No attempt ends twice: what was lost with its daemon takes no late result. Where none may
    have come, another attempt began within the millisecond in which the lost one did. What people
    resolve is no attempt."""
    ends = Counter(
        (one["task_id"], one["attempt"], one["started_at"])
        for one in seen.tables["attempts"]
        if not one["why"].startswith("resolved")
    )
    for (task, attempt, _), count in ends.items():
        if count > 1 and any(map(seen.is_late, seen.requests.get(task, ()))):
            seen.broken(f"attempt {attempt} of task {task} ended {count} times")


def known_requests(seen: Evidence) -> None:
    """Nothing is sent that no row is about; each repeat is told by the same key, and no other task
    has it."""
    keys: dict[str, tuple[int, int]] = {}
    for task, requests in seen.requests.items():
        row = seen.by_id.get(task)
        if row is None:
            if not seen.prunes and requests and not (task == 0 and seen.forced):
                seen.broken(f"{len(requests)} requests of a task {task}, which there is not")
            continue
        mine = {
            one.headers.get("webhook-id", one.headers.get("idempotency-key", ""))
            for one in requests
        }
        if len(mine) > 1 + row["generation"]:  # each success that is repeated by force has its own
            seen.broken(f"task {task} was repeated by several keys: {sorted(mine)}")
        for key in mine - {""}:
            if keys.setdefault(key, (task, 0))[0] != task:
                seen.broken(f"tasks {task} and {keys[key][0]} have one key, {key}")


def partitions(seen: Evidence) -> None:
    """A task is in the partition that its parameters say, by a rule that the configuration had."""
    for row in seen.rows:
        owner = seen.by_id.get(row["parent_id"], {}) if row["webhook"] else row
        params = json.loads(owner.get("params") or "null")
        if params is None or row["phase"] == "on_run_end":
            continue
        said = {
            _partition(each, row["endpoint_id"], row["webhook"], params)
            for each in seen.having(row)
        }
        if row["replaces"] is not None:  # it has the place of that, and no turn of its own
            said |= {(value, 1 if rule and rule < 0 else rule) for value, rule in said}
        if (is_ := (row["partition"], row["partition_rule"])) not in said:
            seen.broken(f"task {row['id']} is in the partition {is_}, and not in {said}")


def _partition(
    configuration: Configuration, endpoint_id: str, webhook: str, params: dict[str, Any]
) -> tuple[str | None, int | None]:
    """The value and the rule, as its row has them: how many at once, 0 for any, -1 in order, -2
    in order and holding."""
    endpoint = configuration.endpoints[endpoint_id]
    said = (configuration.webhooks(endpoint_id)[webhook] if webhook else endpoint).get("partition")
    if said is None:
        return None, None
    rule = {"by": said} if isinstance(said, str) else said
    name = rule["by"].strip("{ }").removeprefix("params.")
    value = params.get(name)
    if rule.get("ordered"):
        return str(value), -2 if rule.get("on_failure") == "hold" else -1
    return str(value), rule.get("concurrency", 0)


# -- when it was sent ------------------------------------------------------------------------------


def floors(seen: Evidence) -> None:
    """The backoff is a floor: between an attempt that counted and the next automatic one at least
    the delay passes that stands in `attempts`. But for a breaker that was open, or has closed, and
    never with `breaker: off`. It is no shorter than what the receiver has asked for."""
    delays = {(one["task_id"], one["attempt"]): one["delay"] for one in seen.tables["attempts"]}
    for task, requests in seen.requests.items():
        row = seen.by_id.get(task)
        if row is None or row["webhook"]:
            continue
        floor = 0.0
        for before, after in pairwise(requests):
            counted = after.attempt == before.attempt + 1
            delay = delays.get((task, before.attempt)) if counted else None
            if delay:
                floor = seen.until(before) + delay
            if seen.touched(row, before.at, after.at) or seen.jumped(before.at, after.at):
                floor = 0.0
            if after.at < floor - ROUNDED and not _may_be_early(seen, row, after):
                seen.broken(f"task {task} was sent {floor - after.at:.3f} s early: {_words(after)}")
            rules = seen.rules(row, seen.in_force(before.process, before.at, before.at))
            shortest = min((rule.delay(1) * (1 - rule.jitter) for rule in rules), default=0.0)
            shortest = max(shortest, _asked_to_wait(before))
            if delay and floor and floor < seen.until(before) + shortest - ROUNDED:
                seen.broken(f"the delay after {_words(before)} is {delay}, and not {shortest}")


def _asked_to_wait(one: Arrival) -> float:
    """The seconds that its answer has as Retry-After."""
    after = one.kind.partition(" ")[2]
    return float(after) if after.isdigit() and one.told is not None else 0.0


def _words(one: Arrival) -> str:
    where = f"{one.host}{one.path} at {one.at - 1000:.3f}"
    return f"{one.process} to {where}, attempt {one.attempt}: {one.kind}"


ROUNDED = 0.002
"""Seconds by which a time may be another one in a row, which has whole milliseconds."""


def _may_be_early(seen: Evidence, row: Row, one: Arrival) -> bool:
    """Whether a breaker may be open, or have closed: enough has failed there lately."""
    rules = seen.rules(row, seen.in_force(one.process, one.at, one.at))
    if not any(rule.breaks for rule in rules):
        return seen.is_late(one)
    configurations = seen.in_force(one.process, one.at, one.at)
    said = [found.of_endpoint(row["endpoint_id"], "breaker") or {} for found in configurations]
    least = min((rule.get("failures", 20) for rule in said if rule != "off"), default=20)
    failed = [
        other for other in seen.universe.network.sent
        if other.host == one.host and other.at <= one.at and (other.status or 500) >= 500
    ]  # fmt: skip
    return len(failed) >= least


def looks(seen: Evidence) -> None:
    """Between an answer that says that the work is not done yet and the next look at least `every`
    passes, or what is left of `for`; one look follows that, and ends it. The row counts each."""
    for row in seen.rows:
        rules = seen.rules(row, seen.configurations)
        polls = [rule.poll for rule in rules if rule.poll and rule.limit == inf]
        requests = seen.requests.get(row["id"], ())
        found = [one for one in requests if _is_look(one)]
        if len(polls) != 1 or not found:
            continue
        # What the same daemon goes on from was written.
        written = [
            before for before, after in pairwise(requests)
            if _is_look(before) and before.process == after.process and not seen.is_late(before)
        ]  # fmt: skip
        every, for_ = seconds(polls[0]["every"]), seconds(polls[0]["for"])
        soonest = seen.until(found[0]) + for_
        end = min((seen.until(one) for one in written), default=inf) + for_
        for before, after in pairwise(requests):
            since = found[0].at
            if before not in written or seen.jumped(since, after.at):
                continue
            if seen.touched(row, since, after.at):
                break
            if after.at < min(seen.until(before) + every, soonest) - ROUNDED:
                seen.broken(f"task {row['id']} is looked at early: {_words(after)}")
            if before.at > end + ROUNDED:
                seen.broken(f"task {row['id']} is looked at after its time: {_words(after)}")
        least = len(written) - (row["reason"] == "expired")
        if not least <= row["looks"] <= len(found) and not any(seen.acts(row)):
            seen.broken(f"task {row['id']} counts {row['looks']} looks, and had {len(found)}")


def _is_look(one: Arrival) -> bool:
    return 200 <= (one.told or 0) < 300 and one.work == BUSY and not one.given_up


def paused(seen: Evidence) -> None:
    """The calls of an endpoint wait while it is paused."""
    for deed in seen.deeds("pause"):
        resumes = [one for one in seen.deeds("resume") if one.target == deed.target]
        until = min((one.at for one in resumes if (one.answered_at or inf) >= deed.at), default=inf)
        if deed.outcome != ACKNOWLEDGED or deed.answered_at is None:
            continue
        for one in seen.universe.network.arrivals:
            row, awake = seen.row_of.get(id(one)), deed.answered_at
            if row is None or row["webhook"] or row["endpoint_id"] != deed.target:
                continue
            for since, end in seen.processes[one.process].stood:
                awake = max(awake, end) if since <= one.at else awake
            after = PREPARED if one.process == deed.process else PREPARED + TOLD
            if awake + after < one.at < until:
                seen.broken(f"{_words(one)} is of an endpoint that is paused")


PREPARED, TOLD = 4.0, 10.0
"""Seconds from a claim to its request, by a slow disk; and until each daemon knows what another has
written."""


def order(seen: Evidence) -> None:
    """An ordered partition goes in the order of ids: none is sent once a later one has been, nor
    while another is under way; where it holds, none after one that has failed. What replaces
    another one has the place of that."""
    for line, members in _lines(seen).items():
        if line[-1]:
            _check_order(seen, members)


def _lines(seen: Evidence) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of each partition, and whether that is ordered."""
    found = defaultdict(list)
    for row in seen.rows:
        place = _place(seen, row)
        if place["partition"] is not None:
            line = place["endpoint_id"], place["webhook"], place["partition"]
            found[*line, (place["partition_rule"] or 0) < 0].append(row)
    return found


def _place(seen: Evidence, row: Row) -> Row:
    """The row whose place in an ordered partition it has: its own, or that of one it replaces."""
    place = seen.by_id.get(row["replaces"], row)
    return place if (place["partition_rule"] or 0) < 0 else row


def _check_order(seen: Evidence, members: list[Row]) -> None:
    requests = [(one.at, row, one) for row in members for one in seen.requests.get(row["id"], ())]
    requests.sort(key=lambda one: one[0])
    for (_, first, before), (_, second, after) in pairwise(requests):
        if _sent_late(seen, before) or _sent_late(seen, after):
            continue
        place, other = _place(seen, first), _place(seen, second)
        one, two = place["id"], other["id"]
        if one > two and not _is_moved(seen, second):
            seen.broken(f"task {second['id']} was sent after {first['id']}, which is behind it")
        if one != two and seen.until(before) > after.at and not seen.is_late(before):
            seen.broken(f"task {second['id']} was sent while {first['id']} was under way")
        if one < two and first["status"] in ENDED and not any(seen.acts(first)):
            holds = place["partition_rule"] == -2 and first["status"] == "failed"
            if holds and first["reason"] not in LETS_GO:
                seen.broken(
                    f"task {second['id']} was sent, though {first['id']} holds its partition"
                )


def _is_moved(seen: Evidence, row: Row) -> bool:
    """Whether a person may have had it go at another time than its place says."""
    made = [one for one in seen.deeds("replace") if one.target == row["parent_id"]]
    by_force = row["replaces"] is not None and any(one.arguments["force"] for one in made)
    return by_force or any(seen.acts(row))


def _sent_late(seen: Evidence, one: Arrival) -> bool:
    """Whether it was sent by a daemon that could not know that it had lost the claim: it stood
    still as the request was on its way, or the clock of leases was set."""
    stood = seen.processes[one.process].stood
    on_its_way = any(since <= one.at and end > one.left_at for since, end in stood)
    return seen.is_late(one) and (on_its_way or seen.jumped(one.at - CLAIMED, one.at))


LETS_GO = ("expired", "endpoint_removed", "webhook_removed", "webhook_disabled", "resolved")
"""Reasons with which a failure holds no partition."""


# -- how much was sent at once ---------------------------------------------------------------------


def concurrency(seen: Evidence) -> None:
    """At each instant of the receivers no more is under way than `concurrency` of a daemon, of an
    API in it, of a webhook's receiver, `global_concurrency`, and a partition's."""
    groups: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
    workers = seen.universe.rule == "workers"
    for one in seen.universe.network.arrivals:
        daemon = "all workers" if workers else one.process
        groups["daemon", daemon].append(one)
        groups[one.host, daemon].append(one)
        groups[one.host, ""].append(one)
        row = seen.row_of.get(id(one))
        if row is not None and (row["partition_rule"] or 0) > 0:
            line = f"{row['endpoint_id']} {row['webhook']} {row['partition']}"
            groups["partition", line].append(one)
    for (what, daemon), arrivals in groups.items():
        for one, others in _under_way(seen, arrivals):
            most = _most_at_once(seen, what, daemon, one, others)
            if most is not None and len(others) > most:
                of = f"{what} in {daemon or 'all daemons'}"
                seen.broken(
                    f"{len(others)} requests of {of} were under way, not {most}: {_words(one)}"
                )
                break


def _under_way(seen: Evidence, arrivals: list[Arrival]) -> Iterator[tuple[Arrival, list[Arrival]]]:
    """Each that comes, with those that are under way then. What its daemon has forgotten, since it
    stood still, is of another one now."""
    open_: list[Arrival] = []
    for one in arrivals:
        open_ = [other for other in open_ if seen.until(other) > one.at]
        if not seen.is_late(one):
            open_.append(one)
        yield one, open_


def _most_at_once(
    seen: Evidence, what: str, daemon: str, one: Arrival, others: list[Arrival]
) -> int | None:
    """How many of these may be under way; None for any number."""
    since = min((other.at for other in others), default=one.at) - 10
    found = [
        configuration for other in others
        for configuration in seen.in_force(other.process, since, one.at)
    ]  # fmt: skip
    if not found:
        return None
    if what == "daemon":
        return max(int(each.daemon.get("concurrency", 100)) for each in found)
    if what == "partition":
        rows = [seen.row_of[id(other)] for other in others]
        return max((int(row["partition_rule"]) for row in rows), default=None)
    api = what.removesuffix(".test")
    if api not in found[0].apis:
        return DELIVERIES if daemon else None
    key = "concurrency" if daemon else "global_concurrency"
    limits = [each.apis[api].get(key) for each in found if api in each.apis]
    return max(limits) if limits and None not in limits else None


DELIVERIES = 10
"""To one receiver of a daemon at once."""
JITTER = 0.05
"""Seconds by which two requests may come nearer to each other on their way."""


def rates(seen: Evidence) -> None:
    """No more begins of an API within a unit of its `rate_limit` than that says, in all daemons
    together; also what is refused. What is tried `inline` is one attempt."""
    network = seen.universe.network
    by_host: dict[str, list[float]] = defaultdict(list)
    last: dict[tuple[str, int], Arrival] = {}
    for one in sorted((*network.arrivals, *network.refused), key=lambda one: one.at):
        before = last.get((one.host, one.task))  # its webhooks tell of the same task
        last[one.host, one.task] = one
        row = seen.by_id.get(one.task)
        rules = seen.rules(row, seen.configurations) if row is not None else ()
        inline = row is None or any(rule.retry.get("inline") for rule in rules)
        # Who stands still with a request on its way has counted it before.
        stood = seen.processes[one.process].stood
        halted = any(since < one.at and until > one.left_at for since, until in stood)
        of = (before.process, before.attempt) if before is not None else None
        same = inline and of == (one.process, one.attempt)
        if not (same or halted):
            by_host[one.host].append(one.at)
    for host, times in by_host.items():
        api = host.removesuffix(".test")
        said = {str(each.apis.get(api, {}).get("rate_limit")) for each in seen.configurations}
        if said == {"None"} or len(said) > 1:
            continue
        number, _, unit = said.pop().partition("/")
        most, length = int(number), UNITS[unit]
        for first, last in zip(times, times[most:], strict=False):
            if last - first < length - JITTER and not seen.jumped(first, last):
                seen.broken(f"{most + 1} requests came to {host} within {last - first:.3f} s")
                break


# -- what follows ----------------------------------------------------------------------------------


def deliveries(seen: Evidence) -> None:
    """A delivery, or a member of a batch, for each end of a call that a webhook asks for, and none
    else."""
    if seen.prunes:
        return
    made = _made(seen)
    for row in seen.rows:
        if row["kind"] != "call":
            continue
        found = seen.lives(row)
        ends = _matching(row, found) if not isinstance(found, str) else []
        for name, phase, everywhere in _webhooks(seen, row["endpoint_id"], *OF_ENDS):
            told = {one.successes if phase == "on_success" else one.failures for one in ends}
            count = made[row["id"], name, phase]
            if told and count not in told and (everywhere or count > max(told)):
                seen.broken(
                    f"{count} deliveries to {name} of the {phase} of {row['id']}, not {told}"
                )


OF_ENDS = ("on_success", "on_final_failure")


def _made(seen: Evidence) -> Counter[tuple[int, str, str]]:
    """How many deliveries, and members of batches, there are by task, webhook and phase."""
    told = [(row["parent_id"], row) for row in seen.rows if row["kind"] == "webhook"]
    told += [(one["task_id"], one) for one in seen.tables["batch_members"]]
    return Counter((task, row["webhook"], row["phase"]) for task, row in told if task is not None)


def retries_told(seen: Evidence) -> None:
    """A delivery, or a member of a batch, for each retry and each answer that a webhook asks for,
    and none else: as many as there are rows in `attempts`. An event has neither, but a retry where
    a daemon died with it."""
    if seen.prunes:
        return
    made, log = _made(seen), defaultdict(list)
    for one in seen.tables["attempts"]:
        log[one["task_id"]].append(one)
    for row in seen.rows:
        if row["kind"] != "call":
            continue
        event = any(rule.event for rule in seen.rules(row, seen.configurations))
        attempts = [one for one in log[row["id"]] if not event or one["status_code"] == "error"]
        for name, phase, everywhere in _webhooks(seen, row["endpoint_id"], *BY_ATTEMPT):
            webhook = seen.having(row)[-1].webhooks(row["endpoint_id"]).get(name, {})
            of = [] if event and phase.startswith("after_") else attempts
            told = [_told(one, phase, webhook.get("status_code")) for one in of]
            least = told.count("told") if everywhere else 0
            most, count = len(told) - told.count("not"), made[row["id"], name, phase]
            if not least <= count <= most:
                seen.broken(
                    f"{count} deliveries to {name} of the {phase} of {row['id']}, "
                    f"not {least} to {most}"
                )


def _told(attempt: Row, phase: str, codes: Any) -> str:
    """Whether a webhook for these status codes is told of an attempt: told, not, or perhaps."""
    why = attempt["why"]
    if why.startswith("stopped"):
        return "not"  # it is given back
    if why == "cancelled while it ran" and attempt["error"] == STOPPED:
        return "perhaps"  # given back and cancelled at once (seed 156), or not idempotent
    if phase == "on_retry":
        again = attempt["delay"] is not None or why.startswith("early, since")
        return "told" if again and _asked_for(codes, attempt) else "not"
    if why.startswith("resolved manually as failed"):
        # Where it had failed already, only its reason is another one.
        return "perhaps" if codes is None or covers(codes, "error") else "not"
    return "told" if _asked_for(codes, attempt) else "not"


BY_ATTEMPT = ("on_retry", "after_request")
STOPPED = "the daemon stopped before an answer came"


def _asked_for(codes: Any, attempt: Row) -> bool:
    """Whether a webhook for these status codes is told of an attempt."""
    code = attempt["status_code"]
    if codes is None or code is None:
        return code is not None
    return covers(codes, int(code) if code.isdigit() else code)


def children(seen: Evidence) -> None:
    """What `then` says follows from a call once for each time that it ended so, and nothing else
    does: a child for each item of the answer, one for a failure, one for the end of its run."""
    made: Counter[tuple[int, int]] = Counter()
    for row in seen.rows:
        params = json.loads(row["params"])
        if row["kind"] == "call" and params.get("parent") == row["parent_id"] is not None:
            made[params["parent"], params["item"]] += 1
    runs = {run["id"]: run["ends"] for run in seen.tables["runs"]}
    for row in seen.rows:
        thens = [each.of_endpoint(row["endpoint_id"], "then") for each in seen.having(row)]
        if row["kind"] != "call" or not thens or not thens[0] or seen.prunes:
            continue
        found = seen.lives(row)
        ends = _matching(row, found) if not isinstance(found, str) else []
        always = len(thens) == len(seen.configurations) and all(one == thens[0] for one in thens)
        always = always and not any(seen.acts(row))  # a person may have said another answer
        items = int(json.loads(row["params"]).get("items") or 0)
        expected = {place: {one.successes for one in ends} for place in range(items)}
        for one in thens[0]:
            if one.get("on") == "failure":
                expected[one["params"]["item"]] = {end.failures for end in ends}
            elif one.get("on") == "run_end":
                expected[one["params"]["item"]] = {runs.get(row["id"], 0)}
        for place, told in expected.items():
            count = made[row["id"], place]
            if told and (count not in told if always else count > max(told)):
                seen.broken(f"{count} children of {row['id']} for {place}, not {told}")


def _webhooks(seen: Evidence, endpoint_id: str, *phases: str) -> set[tuple[str, str, bool]]:
    """The names and phases of those that are told of these, and whether they always were."""
    every = [
        {
            (name, one["phase"])
            for name, one in each.webhooks(endpoint_id).items()
            if one["phase"] in phases
        }
        for each in seen.configurations
        if endpoint_id in each.endpoints
    ]
    always = set.intersection(*every) if len(every) == len(seen.configurations) else set()
    return {(*one, one in always) for one in set().union(*every)}


CHECKS = (
    *(ends, ready, tokens, let_go, drained, flow),
    *(acknowledged, lived, ended_once, known_requests, partitions),
    *(floors, looks, paused, order, concurrency, rates),
    *(deliveries, retries_told, children),
    *counts.CHECKS,
)
"""What `check` goes through; a new check is a function, and stands here."""
