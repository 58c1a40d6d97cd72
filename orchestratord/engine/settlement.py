"""How a claim ends in the store: what is written of an attempt, bounded and without secrets."""

from __future__ import annotations

import asyncio
import base64
import codecs
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal, TypeVar

import httpx

from orchestratord.engine import task_events
from orchestratord.engine.attempt_result import AttemptResult, Run
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.poison import PoisonCandidates
from orchestratord.engine.retry import SUCCESS
from orchestratord.engine.stats import Stats
from orchestratord.log import info
from orchestratord.model.event import EventType, WebhookEvent
from orchestratord.model.http_message import header_items, headers_as_they_came
from orchestratord.model.outcome import Outcome
from orchestratord.model.settings import Config
from orchestratord.model.task import FINAL, Attempt, Reason, Status, Task
from orchestratord.plugin.event_bus import EventBus
from orchestratord.plugin.executor import Doomed, Target
from orchestratord.queue.batch import Write
from orchestratord.queue.operations import claim
from orchestratord.queue.operations.settle import settle, start
from orchestratord.queue.records import Insert, Inserted, Settled, Settlement, StoredEffect
from orchestratord.queue.rows import response_text
from orchestratord.queue.store import Store
from orchestratord.values import doc_links, world
from orchestratord.values.clock import Clock
from orchestratord.values.redact import Redactor
from orchestratord.values.status_set import StatusCode

log = logging.getLogger("orchestratord.worker")


AGAIN = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to write while the database refuses; the last one is repeated."""

REMEMBERED = 4096
"""Characters of what is stored of an answer's headers that are remembered for the next one."""

SHORTAGE_TOLD = 10.0
"""Seconds between two lines of the log about what this machine lacks."""

T = TypeVar("T")

WayOut = Literal["released", "settled", "lost", "left"]
"""How the claim of an attempt ends; there is no other way.

released: nothing was sent; it is pending again, and its attempt is given back.
settled: how it ended is on disk, or on its way there.
lost: the store says that the claim is another's.
left: the daemon ends; it stays as it is until a daemon takes it over.
"""


class Claims:
    """The claims that run here, and their way back to the store."""

    def __init__(
        self, store: Store, lanes: LaneSet, placement: Placement, events: EventBus, clock: Clock
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._placement = placement
        self._events = events
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.poison = PoisonCandidates(lanes)
        self.waiters = Waiters()
        self.running: dict[int, asyncio.Task[WayOut]] = {}
        """The attempts, and the releases of claims, that are under way, by the id of their task;
        and attempts that have ended, until how they did is written."""
        self._next_told: asyncio.Future[None] | None = None
        self.closing = False
        """The daemon ends: what the database does not take now stays as it is."""

    def release_claim_later(self, task: Task) -> None:
        """Release a claim in the background."""
        self.running[task.id] = self._loop.create_task(self._release_claim(task))

    async def release_claim(self, task: Task) -> WayOut:
        """Release a claim of which nothing was sent, again and again until the database takes
        it."""
        released = await self._insist(task, lambda: claim.release_claims([task]))
        if released is None:
            return "left"
        status, now = released[0], self._clock.now_ms()
        if status != Status.CANCELLED:
            self._placement.touched(task.key, now)
            return "lost" if status is None else "released"
        # A cancel was asked for while it was claimed.
        self.waiters.finished(task.id)
        if self._events.listening:
            gone = replace(task, status=status, attempts=task.attempts - 1, next_try=None)
            self._events.publish(task_events.cancelled(gone, now))
        return "released"

    async def settle(
        self, settlement: Settlement, error: Exception | None = None
    ) -> Settled | None:
        """Write how a claim ended, again and again until the database takes it; `error` is why it
        did not by now. None where the daemon ends before."""
        return await self._insist(settlement.task, lambda: settle(settlement), error)

    def hand_over(
        self, task_id: int, before: asyncio.Task[WayOut], after: asyncio.Task[WayOut]
    ) -> None:
        """What ran for a claim goes on as `after`. It may run again already, as in `gone`."""
        if self.running.get(task_id) is before:
            self.running[task_id] = after

    def next_told(self) -> asyncio.Future[None]:
        """Is done when some of what was to be settled soon is."""
        if self._next_told is None:
            self._next_told = self._loop.create_future()
        return self._next_told

    def told(self, runs: Iterable[Run]) -> None:
        """How these have ended is written: they run no more."""
        for run in runs:
            self.gone(run.task, run.running)
        if self._next_told is not None:
            self._next_told.set_result(None)
            self._next_told = None

    async def note_company(self, task: Task, *, alone: bool = False) -> bool:
        """Write that a poison candidate which has started no longer runs alone, or does so again: a
        death may be another one's. False where the database does not take it now."""
        try:
            await self._store.write(start(task, self._clock.now_ms(), (), alone=alone))
        except Exception as error:
            log.warning("cannot let others run beside task %s yet: %s", task.id, error)
            return False
        return True

    def webhook_disabled(self, task: Task, now: int) -> None:
        """Its receiver wants no more. Of several deliveries in flight, the first one tells."""
        before = self._placement.of(task.key)
        self._placement.standing_changed(task.endpoint_id)
        self._store.tell("tables")
        after = self._placement.of(task.key)
        if isinstance(after, Doomed) and not isinstance(before, Doomed):
            type_, name = EventType.WEBHOOK_DISABLED, task.webhook
            self._events.publish(WebhookEvent(type_, now, task.endpoint_id, name, after.why))

    def gone(self, task: Task, running: asyncio.Task[Any] | None) -> None:
        """What ran for a claim has ended."""
        # It may run again already, after a settlement that put it back at once.
        if self.running.get(task.id) is running:
            del self.running[task.id]
        if task.deaths:
            self.poison.ended(task)

    async def _release_claim(self, task: Task) -> WayOut:
        running = asyncio.current_task()
        try:
            return await self.release_claim(task)
        finally:
            self.gone(task, running)

    async def _insist(
        self, task: Task, operation: Callable[[], Write[T]], error: Exception | None = None
    ) -> T | None:
        """Repeat an operation until the database takes it; `error` is what became of it by now.

        None where the daemon ends before.
        """
        tries = 0
        while True:
            if error is not None:
                delay = AGAIN[min(tries, len(AGAIN) - 1)]
                tries += 1
                log.error("cannot write task %s (%s); again in %gs", task.id, error, delay)
                await asyncio.sleep(delay)
            if self.closing:
                break
            try:
                return await self._store.write(operation())
            except Exception as again:
                error = again
        log.error("gave up writing task %s until the next start", task.id)
        return None


class Waiters:
    """Who waits for the end of a task: futures by its id."""

    def __init__(self) -> None:
        self._futures: dict[int, list[asyncio.Future[None]]] = {}

    def finished(self, task_id: int) -> None:
        """The task reached a final state: wake all who wait for it."""
        for future in self._futures.pop(task_id, ()):
            if not future.done():
                future.set_result(None)

    def all_finished(self, task_ids: Iterable[int]) -> None:
        """The same for several."""
        if self._futures:
            for task_id in task_ids:
                self.finished(task_id)

    async def wait(self, task_id: int, timeout: float) -> None:  # noqa: ASYNC109
        """Return when the task has reached a final state, or after `timeout` seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(task_id, []).append(future)
        try:
            await asyncio.wait((future,), timeout=timeout)
        finally:
            waiting = self._futures.get(task_id, [])
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._futures[task_id]


# -- What is written of an attempt -----------------------------------------------------------------


def settlement_of(
    task: Task,
    result: AttemptResult,
    config: Config,
    target: Target | None,
    effects: Sequence[StoredEffect],
    now: int,
) -> Settlement:
    """What to write for `task`, as it was claimed; `now` in milliseconds since the epoch."""
    decision, outcome, row = result.decision, result.outcome, result.attempt
    status, redactor = decision.status, config.redactor
    code, error, response = task.last_status_code, task.last_error, None
    if outcome is not None:
        code, error = outcome.status_code, None
        if outcome.error is not None:
            error = error_record(outcome.error, redactor)
        if outcome.response is not None:
            try:
                response = response_record(outcome.response, redactor, code)
            except Exception:  # it may be a plugin's; it was sent, and must not look unsent
                log.exception("cannot keep the answer to task %s", task.id)
    next_try, last_success_at = decision.next_try, None
    if result.uncounted and next_try is not None:
        # What costs no attempt does not shorten the delay that the last one which did has chosen.
        next_try = max(next_try, task.floor(now))
    if row is not None:
        if status is Status.SUCCEEDED:
            last_success_at = row.started_at
        if row.error is not None or row.why is not SUCCESS:
            row = _attempt_record(row, outcome, error, redactor)
    return Settlement(  # by position: by name it takes half as long again
        task, status, now, decision.reason, next_try, code, error, response, row,
        result.uncounted, None if target is None else target.retry.max_attempts + task.granted,
        result.deaths, effects, last_success_at, decision.backed_off, False, result.recurring,
    )  # fmt: skip


def _attempt_record(
    row: Attempt, outcome: Outcome | None, error: str | None, redactor: Redactor
) -> Attempt:
    """The row of an attempt as it is stored; `error`: that of its outcome, as it is stored."""
    why = redactor.text(row.why)
    if len(why) > STORED_ERROR:  # a plugin's reason can be as long as it likes
        why = f"{why[: STORED_ERROR - 1]}…"
    kept = row.error
    if kept is not None:
        same = outcome is not None and kept == outcome.error
        kept = error if same and error else error_record(kept, redactor)
    if kept != row.error or why != row.why:
        return replace(row, error=kept, why=why)
    return row


SettledAttempt = tuple[Settlement, Settled, AttemptResult]
"""A claim that has ended, as it is on disk, and what it was settled with."""


class SettlementTeller:
    """Tells of claims that are settled: the log, counters, observers, and what waits for them."""

    def __init__(
        self, claims: Claims, placement: Placement, events: EventBus, stats: Stats, clock: Clock
    ) -> None:
        self._claims = claims
        self._placement = placement
        self._events = events
        self._stats = stats
        self._clock = clock
        self.runs_end = asyncio.Event()
        """A call of a run has ended."""

    def tell(self, attempts: Sequence[SettledAttempt]) -> None:
        """These are on disk, all those of one transaction at once."""
        ends = [settlement for settlement, _, _ in attempts]
        try:
            log_settled(attempts)
            self._stats.count(ends)
            if self._events.listening:
                self._events.publish_all(task_events.settled(ends))
        except Exception:
            log.exception("cannot publish the ends of %d tasks", len(attempts))
        self._claims.waiters.all_finished(end.task.id for end in ends if end.status in FINAL)
        for settlement, settled, result in attempts:
            task, status = settlement.task, settlement.status
            in_run = task.run_id is not None or settlement.begins_run
            if status == Status.SUCCEEDED and not in_run:
                continue  # as of nearly all, of which nothing else follows
            if in_run and status in FINAL:
                self.runs_end.set()
            try:
                self._follow_up(settlement, settled, result)
            except Exception:
                log.exception("cannot follow up the end of task %s", task.id)

    def _follow_up(self, settlement: Settlement, settled: Settled, result: AttemptResult) -> None:
        """Tell the lanes what an end means for the task, its partition, or its webhook."""
        task, reason = settlement.task, settlement.reason
        if settlement.status == Status.PENDING:
            self._placement.touched(task.key, settlement.next_try or settlement.at)
        if settled.holds:
            self._placement.arm(task.key, self._clock.steady())  # it may be gone by now
            self._events.publish(task_events.partition_held(task, reason, settlement.at))
        if reason == Reason.WEBHOOK_DISABLED and result.attempt is not None:
            self._claims.webhook_disabled(task, settlement.at)


LINE = 82
"""Bytes of what INFO says of an attempt: a line of 120 with its time, level and logger."""
DOOMED = (Reason.ENDPOINT_REMOVED, Reason.WEBHOOK_REMOVED, Reason.WEBHOOK_DISABLED)


def log_settled(attempts: Iterable[SettledAttempt]) -> None:
    """A line for what became of each of these attempts."""
    lines: list[str] = []
    about: list[SettledAttempt] = []
    for one in attempts:
        settlement, _, result = one
        task, status, outcome = settlement.task, settlement.status, result.outcome
        name = f"{task.endpoint_id} {task.webhook}" if task.webhook else task.endpoint_id
        code = None if outcome is None else outcome.status_code
        line = f"{task.kind} {task.id} {name}: attempt {task.attempts} {code or 'not sent'}, "
        if status == Status.SUCCEEDED:
            line += "succeeded"
        else:
            line += f"{status} ({settlement.reason or result.decision.why})"
            error = _error_of(settlement, result)
            if error is not None and not isinstance(code, int):
                line += f": {error}"
            # Of what is removed or disabled thousands fail at once: `RemovedTasks` tells of them.
            if status == Status.FAILED and (result.attempt or settlement.reason not in DOOMED):
                info(log, lines, _fields, about)
                lines, about = [], []
                log.warning("%s", line, extra=_fields(*one))
                continue
        if len(encoded := line.encode()) > LINE:  # the task has all of it
            line = f"{encoded[: LINE - 3].decode(errors='ignore')}…"
        lines.append(line)
        about.append(one)
    info(log, lines, _fields, about)


def _fields(settlement: Settlement, _: Settled, result: AttemptResult) -> dict[str, Any]:
    """What the JSON format has beside the line."""
    task, reason, row = settlement.task, settlement.reason, settlement.attempt
    return {
        "task_id": task.id,
        "kind": task.kind,
        "endpoint": task.endpoint_id,
        "webhook": task.webhook or None,
        "attempt": task.attempts,
        "status": settlement.status,
        "reason": reason,
        "status_code": None if result.outcome is None else settlement.status_code,
        "error": _error_of(settlement, result),
        "next_try": settlement.next_try,
        "duration_ms": None if row is None else row.duration_ms,
        **({"help": doc_links.trouble(reason)} if reason else {}),
    }


def _error_of(settlement: Settlement, result: AttemptResult) -> str | None:
    """That of the attempt; where there was none, the task keeps an earlier one's."""
    return None if result.outcome is None else settlement.error


class ShortageLog:
    """Says now and then that this machine lacks what it takes to send."""

    def __init__(self) -> None:
        self._again = 0.0
        """When it may say so again (`world.monotonic`)."""

    def tell(self, error: str | None, delay: float) -> None:
        """Attempts are given back for this, and made again after so many seconds."""
        if world.monotonic() < self._again:
            return
        self._again = world.monotonic() + SHORTAGE_TOLD
        log.error(
            "this daemon lacks what it takes to send (%s): such attempts are given back, and made "
            "again after %gs; `orchestratord doctor` shows its limits",
            error, delay,
        )  # fmt: skip


def log_happened(insert: Insert, inserted: Inserted) -> None:
    """One line for a task that needed no attempt."""
    new = insert.task
    words = f"{new.kind} {inserted.id} {new.endpoint_id}: an event, succeeded"
    about = {"task_id": inserted.id, "kind": new.kind, "endpoint": new.endpoint_id}
    info(log, (words,), dict, ((about,),))


# -- What is kept of an answer in the table --------------------------------------------------------

STORED_BODY = 20_000
"""Bytes."""
STORED_HEADERS = 65_536
"""Characters of all of them."""
_LONGEST_SECRET = 16_384
"""Bytes."""
STORED_ERROR = 2_000
"""Characters."""


def response_record(response: httpx.Response, redactor: Redactor, status_code: StatusCode) -> str:
    """Status code, headers and the start of the body, as the JSON that is stored, with secrets
    masked; with `body` where it is not empty, and with `truncated` where it is true.

    `status_code` is the attempt's, which need not be a number.
    """
    head = _head_of_record(response, redactor, status_code)
    content, extensions = response.content, response.extensions
    if content or extensions.get("truncated"):
        return f"{head},{response_text(_body_record(content, extensions, redactor))[1:]}"
    return f"{head}}}"


def _body_record(
    content: bytes, extensions: Mapping[str, Any], redactor: Redactor
) -> dict[str, Any]:
    """What a record has besides status code and headers; not all of it is empty."""
    truncated = len(content) > STORED_BODY or bool(extensions.get("truncated"))
    if len(content) > STORED_BODY:
        content = extensions.get("excerpt", content)
    # A secret that the cut would go through is masked before it is cut.
    start = content[: STORED_BODY + _LONGEST_SECRET]
    whole = len(start) == len(content)
    coding = "utf-8"
    try:
        text = start.decode() if whole else codecs.getincrementaldecoder(coding)().decode(start)
    except UnicodeDecodeError:
        text, coding = start.decode("latin-1"), "latin-1"
    shown = redactor.text(text)
    masked = shown.encode(coding)
    if not whole:
        # The end of what was looked at may be half a secret, which masks before it bring nearer.
        masked = masked[: len(masked) + STORED_BODY - len(text.encode(coding))]
    if coding == "utf-8":
        fits = whole and len(masked) <= STORED_BODY
        body = shown if fits else masked[:STORED_BODY].decode(errors="ignore")
        record = {"body": body, "truncated": truncated}
    else:
        body = base64.b64encode(masked[:STORED_BODY]).decode()
        record = {"body": body, "encoding": "base64", "truncated": truncated}
    return {name: value for name, value in record.items() if value}


def _head_of_record(response: httpx.Response, redactor: Redactor, status_code: StatusCode) -> str:
    """The record without a body, and without its last brace."""
    came = headers_as_they_came(response)
    if came is None:
        return _make_head(response, redactor, status_code)
    # Within a second most servers give all of their answers the same.
    names, given = came[0], (status_code, came[1])
    known: str | None = redactor.recall(names, given)
    if known is None:
        known = _make_head(response, redactor, status_code)
        if len(known) < REMEMBERED:
            redactor.remember(names, given, known)
    return known


def _make_head(response: httpx.Response, redactor: Redactor, status_code: StatusCode) -> str:
    headers = _stored_headers(redactor.headers(header_items(response)))
    return response_text({"status_code": status_code, "headers": headers})[:-1]


def _stored_headers(headers: Iterable[tuple[str, str]]) -> list[list[str]]:
    """As many as a receiver can send: a plugin can answer with more."""
    kept, room = list(map(list, headers)), STORED_HEADERS
    if sum(map(len, chain.from_iterable(kept))) > room:
        for number, (name, value) in enumerate(kept):
            room -= len(name) + len(value)
            if room < 0:
                return kept[:number]
    return kept


def error_record(text: str | None, redactor: Redactor) -> str | None:
    """An error as it is stored: one line of bounded length, without secrets."""
    if text is None:
        return None
    # Before the lines are joined, which may break a secret up, and after, which may make one.
    line = redactor.text(" ".join(redactor.text(text).split()))
    return line if len(line) <= STORED_ERROR else line[: STORED_ERROR - 1] + "…"
