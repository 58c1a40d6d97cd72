"""What a universe has left behind, put together by task: the rows of its queue, and what was seen
from outside."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

from tests.simulation.configuration import Configuration
from tests.simulation.model import Act, Death, Life, Rule, Try, lives
from tests.simulation.receiver import UNSENT
from tests.simulation.records import ACKNOWLEDGED, REFUSED, Deed

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.receiver import Arrival
    from tests.simulation.universe import Universe

Row = Mapping[str, Any]

ENDED = ("succeeded", "failed", "cancelled")
SHORTEST_TIMEOUT = 5.0
"""Seconds, as the configuration says, of an attempt."""
WRITTEN = 0.5
"""Seconds after an answer until its daemon has written it, as nearly always."""
SETTLING = 15.0
"""Seconds after an answer in which its daemon has written it, if it lives and its disk is well."""
CLAIMED = 10.0
"""Seconds before a request reaches its receiver in which it may have been claimed, and prepared."""
RENEWED = 19.0
"""Seconds that a daemon stands still after which its leases may have run out: they are renewed
every third of 30."""
FOLLOWED = 120.0
"""Seconds after a jump of the wall clock in which daemons may come to go by it."""
DISABLED = 0.9
"""Seconds for which a webhook with `disable_after` has to fail, as configurations have it, and a
little less."""
RESUMED = 5.0
"""Seconds that it takes until what waits in a lane comes forward which a person lets go on."""
GONE = 60.0
"""Seconds after which what is not declared any more is."""


class Evidence:
    """All that there is to judge a universe by."""

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        with closing(sqlite3.connect(universe.path)) as db:
            db.row_factory = sqlite3.Row
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master")]
            self.tables = {
                name: [dict(row) for row in db.execute(f"SELECT * FROM {name} ORDER BY rowid")]
                for name in (*TABLES, *(one for one in OF_PLUGINS if one in names))
            }
        self.rows: list[Row] = sorted(self.tables["retry_schedule"], key=lambda row: row["id"])
        self.by_id = {row["id"]: row for row in self.rows}
        self.processes = {one.name: one for one in universe.processes}
        self.leases = universe.rule == "leases"
        self._rules: dict[tuple[int, str, str], Rule | None] = {}
        self._lives: dict[int, set[Life] | str] = {}
        self._deaths: dict[tuple[str, str], list[Death]] = {}
        self._removals: dict[tuple[str, str], list[Act]] = {}
        self.jumps = universe.machine.jumps
        # Who starts after a clock was wrong by weeks takes what was written then for as old.
        self.prunes = universe.machine.was_set_far or any(
            "retention" in one.daemon for one in universe.configurations
        )
        """Rows of what has ended are deleted."""

    @cached_property
    def forced(self) -> set[int]:
        """Deliveries that were sent again by force, under another id: which of their requests that
        say no other were theirs, cannot be told."""
        said = {one.headers.get("x-delivery") for one in self.universe.network.arrivals}
        again = [row for row in self.rows if row["webhook"] and row["generation"]]
        return {row["id"] for row in again if str(row["id"]) not in said}

    def broken(self, what: str) -> None:
        """Something is not as it has to be."""
        self.universe.broken(what)

    # -- the configuration -------------------------------------------------------------------------

    @property
    def configurations(self) -> list[Configuration]:
        return self.universe.configurations

    def in_force(self, process: str, since: float, until: float) -> list[Configuration]:
        """Those that a process may have gone by in this time."""
        return [
            one.configuration for one in self.universe.in_force
            if one.process == process and one.since <= until and (one.until or inf) >= since
        ]  # fmt: skip

    def rules(self, row: Row, configurations: list[Configuration]) -> list[Rule]:
        """What these say of the tasks of its endpoint or webhook, each once."""
        found: list[Rule] = []
        for one in configurations:
            key = one.number, row["endpoint_id"], row["webhook"]
            if key not in self._rules:
                self._rules[key] = Rule.of(one, row["endpoint_id"], row["webhook"])
            rule = self._rules[key]
            if rule is not None and rule not in found:
                found.append(rule)
        return found

    def having(self, row: Row) -> list[Configuration]:
        """Those that have its endpoint, and its webhook."""
        return [one for one in self.configurations if self.rules(row, [one])]

    def jumped(self, since: float, until: float) -> bool:
        """Whether daemons may have come to go by another time then."""
        return any(at <= until and at >= since - FOLLOWED for at in self.jumps)

    # -- requests ----------------------------------------------------------------------------------

    @cached_property
    def requests(self) -> dict[int, list[Arrival]]:
        """Those of each task, also those that did not come to their receiver, in their order; of 0
        what cannot be told."""
        nonces = {f"msg_{row['nonce']}": row["id"] for row in self.rows if row["webhook"]}
        found: dict[int, list[Arrival]] = defaultdict(list)
        for one in sorted(self.universe.network.sent, key=lambda one: one.at):
            headers = one.headers
            if "webhook-id" not in headers:
                task = one.task
            elif "x-delivery" in headers:
                task = int(headers["x-delivery"])
            else:
                task = nonces.get(headers["webhook-id"], 0)
            found[task].append(one)
        return found

    @cached_property
    def row_of(self) -> dict[int, Row]:
        """The row of each request, by its identity."""
        return {
            id(one): self.by_id[task]
            for task, requests in self.requests.items() if task in self.by_id
            for one in requests
        }  # fmt: skip

    def until(self, one: Arrival) -> float:
        """When it was over: as its receiver, or its daemon, was done with it."""
        if one.ended_at is not None:
            return one.ended_at
        died = self.processes[one.process].died_at
        return self.universe.baton.now if died is None else died

    def losses(self, process: Process) -> Iterator[tuple[float, float, bool]]:
        """From when to when a process may have lost its claims, and whether it was told to end."""
        died = process.died_at
        if process.ending_at is not None:
            yield process.ending_at, inf, True
        elif died is not None:
            yield died, inf, False
        if self.leases:
            for since, until in process.stood:
                if until - since >= RENEWED:
                    yield since, until + CLAIMED, False
            for at in self.lived_through:
                yield at, at + FOLLOWED, False

    @cached_property
    def lived_through(self) -> list[float]:
        """Jumps of the clock by which leases may have run out, since daemons may go by other times
        than each other: one lived before, and the machine has had power since."""
        booted = self.universe.machine.booted_at
        began = [one.began_at for one in self.universe.processes]
        return [
            at for at in self.jumps
            if any(max(on for on in booted if on <= at) < one < at for one in began)
        ]  # fmt: skip

    def is_late(self, one: Arrival) -> bool:
        """Whether its daemon may have lost the claim before it was over."""
        until, process = self.until(one), self.processes[one.process]
        return self.leases and any(
            not stopped and since <= until and end >= one.at - CLAIMED
            for since, end, stopped in self.losses(process) if end != inf
        )  # fmt: skip

    def _settled_by(self, answered: float) -> float:
        """When what was answered then has been written: later, if one stands still that may have
        the file's lock."""
        latest = answered + SETTLING
        for since, until in (each for one in self.universe.processes for each in one.stood):
            if since <= latest and until > answered:
                latest = max(latest, until + SETTLING)
        return latest

    def tried(self, row: Row, one: Arrival) -> Try:
        """A request as the model takes it."""
        until = self.until(one)
        found = self.in_force(one.process, one.at - CLAIMED, one.at)
        losses = [
            stopped
            for since, end, stopped in self.losses(self.processes[one.process])
            if since <= self._settled_by(until) and end >= one.at - CLAIMED
        ]
        stood = self.processes[one.process].stood
        unseen = any(
            since < until and end > one.at and end - since >= SHORTEST_TIMEOUT
            for since, end in stood
        )
        rules = self.rules(row, found)
        if self.jumped(one.at - CLAIMED, one.at):
            # One that was claimed before a clock was put back looks as if it were early.
            rules = [replace(rule, breaks=True) for rule in rules]
        return Try(
            until, one.attempt if not row["webhook"] else 0, rules, one.told,
            sent=one.kind not in UNSENT, settled=one.ended_at is not None,
            lost=bool(losses), stopped=any(losses), late=self.is_late(one),
            unseen=unseen, work=one.work,
        )  # fmt: skip

    # -- what else happened ------------------------------------------------------------------------

    def deaths(self, row: Row) -> list[Death]:
        """Of the daemons that may have had the task."""
        place = row["endpoint_id"], row["webhook"]
        if place not in self._deaths:
            rules = self.rules(row, self.configurations)
            self._deaths[place] = [
                Death(since, rules, stopped)
                for process in self.universe.processes
                for since, _, stopped in self.losses(process)
            ]
        return self._deaths[place]

    def acts(self, row: Row) -> Iterator[Act]:
        """What people did to the task, or may have done with many."""
        later: list[Deed] = []
        if row["replaces"] is not None:  # the same may be replaced again, by another one
            made = [one["id"] for one in self.rows if one["replaces"] == row["replaces"]]
            taken = [one for one in self.deeds("replace") if one.outcome != REFUSED]
            taken = [one for one in taken if one.target == row["replaces"]]
            later = taken[made.index(row["id"]) + 1 :]
            for other in made[: made.index(row["id"])]:  # it ran still, and was replaced by force
                if self.by_id[other]["status"] == "succeeded":
                    yield Act(self.born(row), -200_000 - other, "replace")
        for place, deed in enumerate(self.universe.deeds):
            verb = VERBS.get(deed.verb)
            if deed.verb in ("retry_many", "cancel_many"):
                by = deed.arguments["filter"]
                about = by.get("kind", row["kind"]), by.get("endpoint", row["endpoint_id"])
                if deed.outcome != REFUSED and about == (row["kind"], row["endpoint_id"]):
                    doubtful = deed.arguments.get("include_ambiguous", verb == "cancel")
                    only = by.get("status", "failed"), by.get("reason"), bool(doubtful)
                    yield Act(deed.at, place, verb or "", only=only)
                continue
            if verb is None or (deed.target != row["id"] and deed not in later):
                continue
            if verb == "resolve":
                verb = "succeed" if deed.arguments["status"] == "succeeded" else "fail"
            force, early = bool(deed.arguments.get("force")), self._is_early(row, deed)
            yield Act(deed.at, place, verb, force, early=early)
            if verb == "replace":  # it ends once the other one has succeeded
                continue
            if deed.outcome in (ACKNOWLEDGED, REFUSED) and deed.answered_at is not None:
                done = deed.outcome == ACKNOWLEDGED
                yield Act(deed.answered_at, place, verb, force, ends=done, refused=not done)

    def _is_early(self, row: Row, deed: Deed) -> bool:
        """Whether the end of an attempt was known, and is written later: in a moment, or once the
        disk takes it."""
        refused = self.universe.machine.disk.refused_at
        known = [self.until(one) for one in self.requests.get(row["id"], ())]
        return any(since <= deed.at <= since + WRITTEN for since in known) or any(
            since <= at <= deed.at and deed.at - since <= SETTLING
            for at in refused for since in known
        )  # fmt: skip

    def removals(self, row: Row) -> list[Act]:
        """When its endpoint or webhook had been gone for long enough."""
        place = row["endpoint_id"], row["webhook"]
        if place not in self._removals:
            self._removals[place] = list(self._find_removals(row))
        return self._removals[place]

    def _find_removals(self, row: Row) -> Iterator[Act]:
        for number, one in enumerate(self.universe.in_force):
            gone = not self.rules(row, [one.configuration])
            after = 0.0 if self.jumps else GONE
            if gone and (one.until or inf) >= one.since + after:
                verb = "lose" if row["endpoint_id"] in one.configuration.endpoints else "remove"
                yield Act(one.since + after, -1 - number, verb)

    def disablings(self, row: Row) -> Iterator[Act]:
        """That its webhook may be disabled: its receiver has failed for long, or wants no more; and
        again, once a person has enabled it."""
        rules = [one.webhooks(row["endpoint_id"]) for one in self.having(row) if row["webhook"]]
        disables = any("disable_after" in one.get(row["webhook"], ()) for one in rules)
        failed = self._failed.get((row["endpoint_id"], row["webhook"]))
        at = inf
        if any(one.status == 410 for one in self.requests.get(row["id"], ())):
            at = 0.0
        elif disables and failed:
            # While the machine slept time went on, too; and daemons follow a small jump at once.
            machine = self.universe.machine
            long = max(DISABLED - machine.slept - machine.put_forward, 0.0)
            at = failed[0] + long if failed[-1] - failed[0] >= long else inf
        for number in range(1 + len(self.deeds("enable", "retry", "retry_many"))):
            if at < inf:
                yield Act(at, -100_000 - number, "disable")

    @cached_property
    def _failed(self) -> dict[tuple[str, str], list[float]]:
        """When attempts of each webhook have failed, in their order."""
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for one in self.universe.network.sent:
            if "webhook-id" in one.headers and not 200 <= (one.told or 0) < 300:
                found[self._webhook_of(one)].append(self.until(one))
        return {key: sorted(times) for key, times in found.items()}

    def _webhook_of(self, one: Arrival) -> tuple[str, str]:
        """The endpoint and the webhook of a delivery; its row may have been deleted since."""
        row = self.row_of.get(id(one))
        if row is not None:
            return row["endpoint_id"], row["webhook"]
        of = json.loads(one.body)["data"].get("endpoint", "")  # a batch is of several
        return of, one.path.rpartition("/")[2]

    def touched(self, row: Row, since: float, until: float) -> bool:
        """Whether a person may have done something to it in this time, or had its lane go on."""
        lane = f"api:{row['endpoint_id'].partition('/')[0]}"
        if any(
            deed.target == lane and since - RESUMED <= deed.at <= until
            for deed in self.deeds("lift")
        ):
            return True
        for act in self.acts(row):
            deed = self.universe.deeds[act.place]
            # What is done to many goes on after its answer.
            ended = None if deed.target is None else deed.answered_at
            if deed.at <= until and (ended or inf) >= since:
                return True
        # What failures have put off in a lane goes on with it.
        lane = f"api:{row['endpoint_id'].partition('/')[0]}"
        lifted = [one.at for one in self.deeds("lift") if one.target == lane]
        return any(since <= at <= until for at in lifted)

    def lives(self, row: Row) -> set[Life] | str:
        """Which lives it may have had, by the model."""
        if row["id"] not in self._lives:
            self._lives[row["id"]] = self._find_lives(row)
        return self._lives[row["id"]]

    def _find_lives(self, row: Row) -> set[Life] | str:
        rules = self.rules(row, self.configurations)
        # By the clock that cannot be set; that of the wall is not needed to the second.
        requests = self.requests.get(row["id"], ())
        events: list[Any] = [self.tried(row, one) for one in requests]
        events += [*self.deaths(row), *self.acts(row), *self.removals(row)]
        disablings = self.disablings(row)
        born = self.born(row)
        return lives(
            rules,
            -inf if self.jumps else born,
            [*disablings, *(one for one in events if one.at >= born)],
        )

    def born(self, row: Row) -> float:
        """When it was accepted, or before that."""
        if (at := self.accepted_at.get(row["id"])) is not None:
            return at
        parent = self.by_id.get(row["parent_id"])
        return 0.0 if parent is None else self.born(parent)

    @cached_property
    def accepted_at(self) -> dict[int, float]:
        """When clients first asked for what they were told has this id."""
        calls = self.universe.calls
        return {one.id: one.asked[0].at for one in calls if one.id is not None and one.asked}

    def deeds(self, *verbs: str) -> list[Deed]:
        """What people did of these."""
        return [one for one in self.universe.deeds if one.verb in verbs]


TABLES = (
    "retry_schedule", "attempts", "runs", "bulks", "batches", "batch_members", "endpoint_state",
    "rates", "task_counts", "throttles",
)  # fmt: skip
OF_PLUGINS = ("webhooks", "webhook_attempts")
VERBS = {
    "retry": "retry",
    "retry_many": "retry",
    "cancel": "cancel",
    "cancel_many": "cancel",
    "resolve": "resolve",
    "replace": "replace",
}
"""What people do to tasks: the model's word for each verb of `people.DEEDS`."""
