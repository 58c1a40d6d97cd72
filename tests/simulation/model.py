"""A plain model of a task's life: sections 4 to 6 of the contract, without any code of the product.

It goes through what happened to a task as it was seen from outside, in its order: its requests and
what they came to, what people did, deaths of daemons. From outside it cannot be seen how far a
daemon had come when it died; so a task has several *lives* at once, one for each way that it may
have gone, and each thing that is seen ends those in which it cannot have happened. The row has to
be the end of one that is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any, NamedTuple

CALL_WHEN = ("error", 408, 425, 429, 500, 502, 503, 504)
DELIVERY_DELAYS = tuple(3600 * hours for hours in (5 / 3600, 1 / 12, 0.5, 2, 5, 10, 14, 20, 24))
UNCLEAR = (500, 502, 504)
"""Answers after which it may have been carried out."""
DOUBTFUL = ("ambiguous", "poisoned")
POISON_AFTER = 3
DAY = 86_400.0
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY}


def seconds(duration: Any) -> float:
    """A duration of the YAML, as `5s`, `500ms` or a number."""
    if isinstance(duration, str):
        number = duration.rstrip("mshd")
        return float(number) * UNITS[duration[len(number) :] or "s"]
    return float(duration)


def covers(patterns: Any, code: int | str) -> bool:
    """Whether a status set of the YAML has a code: `5xx`, `500-599`, 503, `error`, or a list."""
    for one in patterns if isinstance(patterns, list | tuple) else (patterns,):
        first, _, last = str(one).partition("-")
        if str(one) == str(code) or str(one) == f"{str(code)[0]}xx":
            return True
        if last and isinstance(code, int) and int(first) <= code <= int(last):
            return True
    return False


@dataclass(eq=True)
class Rule:
    """What the configuration says of the tasks of an endpoint or a webhook."""

    idempotent: bool
    retry: Mapping[str, Any]
    breaks: bool
    """Whether there are breakers."""
    delivery: bool
    event: bool = False
    poll: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, configuration: Any, endpoint_id: str, webhook: str) -> Rule | None:
        """What a `Configuration` says; None where it lacks that."""
        endpoint = configuration.endpoints.get(endpoint_id)
        if endpoint is None:
            return None
        if webhook:
            found = configuration.webhooks(endpoint_id).get(webhook)
            if found is None:
                return None
            return cls(True, found.get("retry", {}), found.get("breaker") != "off", True)
        retry = configuration.of_endpoint(endpoint_id, "retry") or {}
        breaks = configuration.of_endpoint(endpoint_id, "breaker") != "off"
        safe = endpoint.get("method", "GET") not in ("POST", "PATCH")
        event = endpoint.get("type") == "event"
        poll = endpoint.get("poll")
        return cls(endpoint.get("idempotent", safe), retry, breaks, False, event, poll)

    @cached_property
    def most(self) -> int:
        """How often it is tried in all."""
        return int(self.retry.get("max_attempts", 10 if self.delivery else 15))

    def again(self, code: int | str) -> bool:
        """Whether a failure is tried again."""
        if "when" in self.retry or not self.delivery:
            return covers(self.retry.get("when", CALL_WHEN), code)
        return code != 410

    def delay(self, n: int) -> float:
        """Seconds after `n` failed attempts, before jitter."""
        asked = self.retry.get("backoff", "list" if self.delivery else "exponential")
        backoff = {"strategy": asked} if isinstance(asked, str) else asked
        first, factor = seconds(backoff.get("delay", 5)), float(backoff.get("factor", 2))
        delays = [seconds(one) for one in backoff.get("delays", DELIVERY_DELAYS)]
        found = {
            "fixed": first,
            "linear": first * n,
            "exponential": first * factor ** (n - 1),
            "list": delays[min(n, len(delays)) - 1],
        }[backoff["strategy"]]
        return min(found, seconds(self.retry.get("max_delay", DAY if self.delivery else 3600)))

    @property
    def jitter(self) -> float:
        """How much chance is in each delay."""
        return float(self.retry.get("jitter", 0.2 if self.delivery else 0.1))

    @cached_property
    def limit(self) -> float:
        """Seconds after which it is given up."""
        return seconds(self.retry["give_up_after"]) if "give_up_after" in self.retry else inf

    @cached_property
    def longest(self) -> float:
        """Seconds that all its attempts take at least, which is when probes end too."""
        return sum(self.delay(n) for n in range(1, self.most)) * (1 - self.jitter)


class Try(NamedTuple):
    """A request, and what its daemon has learnt of it."""

    at: float
    """When its daemon knew, or died."""
    number: int
    """Which attempt it says it is; 0 where it does not say so."""
    rules: Sequence[Rule]
    """Those that it may have been made by."""
    status: int | None
    """Of the answer; None for none."""
    sent: bool
    """Whether it was at its receiver."""
    settled: bool = True
    """Its daemon may have written how it ended."""
    lost: bool = False
    """It may also not have, since it died or lost its claim."""
    stopped: bool = False
    """It was told to end meanwhile."""
    late: bool = False
    """It may have been sent by one that had lost its claim."""
    unseen: bool = False
    """Its daemon may have given it up with the answer at hand, as it had stood still."""
    work: str = "done"
    """What the answer says of the work, where it is waited for: done, busy or broken."""

    def words(self) -> str:
        """For a person."""
        which = f"attempt {self.number}" if self.number else "an attempt"
        return f"{which} that ended with {self.status or 'an error'} at {self.at - 1000:.3f} s"


class Death(NamedTuple):
    """A daemon has died, or may have lost its claims."""

    at: float
    rules: Sequence[Rule]
    """Of the task in question."""
    stopped: bool
    """By a SIGTERM, in an orderly way."""


class Act(NamedTuple):
    """A person begins to do something, or has the answer."""

    at: float
    place: int
    """Which of all that was done; negative for what happens by itself."""
    verb: str
    """retry, cancel, succeed, fail, replace; of its endpoint or webhook: remove, lose, disable."""
    force: bool = False
    ends: bool = False
    """The answer came, that it is done."""
    refused: bool = False
    """The answer came, that it is not."""
    early: bool = False
    """The end of an attempt was known, and may not have been written yet."""
    only: tuple[str, str | None, bool] | None = None
    """Done to many: to those with this status, this reason if there is one, and whether also to
    those that may have been carried out."""
    answered_at: float = inf
    """When the answer came that it is done; inf for none."""

    @property
    def kind(self) -> tuple[str, bool, bool, tuple[str, str | None, bool] | None]:
        """What it does: two that are equal in it do the same."""
        return self.verb, self.force, self.early, self.only

    def concerns(self, life: Life) -> bool:
        """Whether it is about a task that is so."""
        if self.only is None:
            return True
        status, reason, doubtful = self.only
        same = life.status == status and reason in (None, life.reason)
        return same and (doubtful or life.reason not in DOUBTFUL)

    def words(self) -> str:
        """For a person."""
        return f"{self.verb} that was acknowledged at {self.at - 1000:.3f} s"


class Life(NamedTuple):
    """One way that a task may have gone."""

    status: str = "pending"
    reason: str | None = None
    attempts: int = 0
    granted: int = 0
    most: int = 0
    """How often it may be tried, as of when that was last written."""
    asked: bool = False
    """A cancel was asked for while it ran."""
    deaths: int = 0
    successes: int = 0
    failures: int = 0
    """How often its end was told."""
    orphan: bool = False
    """It ended so by a death, and may still run as far as the queue knows."""
    open: frozenset[int] = frozenset()
    """What people have begun to do and may still happen."""

    def end(self, status: str, reason: str | None, attempts: int) -> Life:
        """It has ended so, by itself."""
        return self._replace(
            status=status, reason=reason, attempts=attempts, asked=False,
            successes=self.successes + (status == "succeeded"),
            failures=self.failures + (status == "failed"), orphan=False,
        )  # fmt: skip

    def again(self, attempts: int) -> Life:
        """It is to be tried again, unless a cancel was asked for."""
        if self.asked:
            return self._replace(status="cancelled", reason=None, attempts=attempts, asked=False)
        return self._replace(attempts=attempts)

    def words(self) -> str:
        """For a person."""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.status}{why} after {self.attempts}"


def lives(rules: Sequence[Rule], created_at: float, events: Sequence[Any]) -> set[Life] | str:
    """Which lives a task may have had; in words what cannot have happened, where none is left.

    Args:
        rules: those that may have been in force when it was accepted.
        created_at: when that was.
        events: what was seen since, each a `Try`, a `Death` or an `Act`.
    """
    found = {Life(most=rule.most) for rule in rules}
    happens = any(rule.event for rule in rules)
    if happens:
        found |= {one.end("succeeded", None, n) for one in found for n in (0, 1)}
    expires_at = created_at + min((rule.limit for rule in rules), default=inf)
    answers = [one for one in events if isinstance(one, Act)]
    ended = {one.place: one.at for one in answers if one.ends}
    refused = {one.place for one in answers if one.refused}
    acts: dict[int, Act] = {}
    nexts: dict[tuple[Life, bool], list[Life]] = {}
    for event in sorted(events, key=lambda one: one.at):
        if isinstance(event, Death) and all(
            one.status != "pending" and not one.open for one in found
        ):
            continue
        if isinstance(event, Act) and event.place in refused:
            continue  # it has done nothing
        before = found
        found = _meanwhile(found, acts, nexts, event.at > expires_at, happens)
        if isinstance(event, Try):
            found = {life for one in found for life in _tried(one, event, created_at)}
        elif isinstance(event, Death):
            found = {life for one in found for life in _died(one, event)}
        elif event.ends:
            found = {one for one in found if event.place not in one.open}
        else:
            acts[event.place] = event._replace(answered_at=ended.get(event.place, inf))
            found = {one._replace(open=one.open | {event.place}) for one in found}
        if not found:
            known = sorted({one.words() for one in before})
            return f"{event.words()} cannot be, as it is {' or '.join(known)}"
    return _meanwhile(found, acts, nexts, expires_at < inf, happens)


def _meanwhile(
    found: set[Life],
    acts: Mapping[int, Act],
    nexts: dict[tuple[Life, bool], list[Life]],
    expires: bool,
    happens: bool,
) -> set[Life]:
    """These, and what they may have become by what people have begun to do; by time, where it
    `expires`; and by itself, where it is an event that `happens`: nothing is sent for it. What
    each becomes next stands in `nexts` from then on."""
    if not (acts or expires or happens):
        return found
    seen: set[Life] = set()
    waiting = list(found)
    while waiting:
        life = waiting.pop()
        if life in seen:
            continue
        seen.add(life)
        if (life, expires) in nexts:
            waiting += nexts[life, expires]
            continue
        before = len(waiting)
        if expires and life.status == "pending":
            waiting.append(life.end("failed", "expired", life.attempts))
        if happens and life.status == "pending":
            waiting.append(life.end("succeeded", None, life.attempts + 1))
        if life.asked and life.status == "pending":  # its claim was released
            waiting.append(life.again(life.attempts))
        # One of each kind, that which is answered first: another order makes no difference.
        by_answer = sorted(life.open, key=lambda one: (-acts[one].answered_at, one))
        for place in {acts[one].kind: one for one in by_answer}.values():
            done = life._replace(open=life.open - {place})
            waiting += _acted(done, acts[place])
        nexts[life, expires] = waiting[before:]
    return seen


def _acted(life: Life, act: Act) -> Iterator[Life]:
    """What a person makes of it."""
    status, verb = life.status, act.verb
    if not act.concerns(life):
        return
    if verb == "cancel" and act.early and status in ("succeeded", "failed"):
        yield life  # it ran still: it is cancelled instead of its next retry, and there is none
    if verb == "retry" and (status != "succeeded" or act.force):
        more = max(life.attempts + 1 - life.most, 0)
        granted, most = life.granted + more, life.most + more
        yield life._replace(status="pending", reason=None, granted=granted, most=most, orphan=False)
    elif verb == "cancel" and status != "succeeded":
        doubt = life.reason if life.reason in DOUBTFUL else None
        yield life._replace(status="cancelled", reason=doubt)
        if status == "pending":
            yield life._replace(asked=True)
        elif status == "cancelled" or life.orphan:  # what was asked for then is no cancel
            yield life
    elif verb in ("succeed", "fail") and status in ("pending", "failed"):
        ended = "succeeded" if verb == "succeed" else "failed"
        told = life.end(ended, "resolved", life.attempts)
        yield told if ended != status else told._replace(failures=life.failures)
    elif verb == "replace" and status in ("failed", "cancelled"):
        yield life._replace(status="cancelled", reason="replaced")
    elif verb == "disable" and status == "pending":
        yield life.end("failed", "webhook_disabled", life.attempts)
    elif verb in ("remove", "lose") and status == "pending":
        reason = "endpoint_removed" if verb == "remove" else "webhook_removed"
        yield life.end("failed", reason, life.attempts)


def _tried(life: Life, one: Try, created_at: float) -> Iterator[Life]:
    """What a request makes of it."""
    if one.late:
        yield life
    if life.status != "pending" or one.number not in (0, life.attempts + 1):
        return
    for rule in one.rules:
        if one.settled:
            yield from _decided(life, one, rule, created_at)
        if one.unseen:
            yield from _decided(life, one._replace(status=None), rule, created_at)
        if one.lost:
            yield from _lost(life, rule, stopped=one.stopped, sent=one.sent)


def _decided(life: Life, one: Try, rule: Rule, created_at: float) -> Iterator[Life]:
    """What its daemon has made of what it learnt."""
    n, code = life.attempts + 1, one.status or "error"
    unclear = one.sent and (one.status is None or one.status in UNCLEAR)
    if rule.retry.get("inline") and rule.again(code) and (rule.idempotent or not unclear):
        yield life  # the same attempt sends it once more
    life = life._replace(most=rule.most + life.granted)
    if isinstance(code, int) and 200 <= code < 300:
        yield from _answered(life, one, rule, created_at)
        return
    written = "when" in rule.retry and one.status is not None and rule.again(code)
    if unclear and not rule.idempotent and not written:
        yield life.end("failed", "ambiguous", n)
        return
    if not rule.again(code):
        gone = rule.delivery and code == 410
        yield life.end("failed", "webhook_disabled" if gone else "not_retryable", n)
        return
    if rule.breaks:  # a probe of an open breaker, or early since it closed: free
        yield life.again(life.attempts)
        if rule.delivery and one.at - created_at > rule.longest:
            yield life.end("failed", "exhausted", n)
    if rule.limit < inf and one.at + rule.delay(n) * (1 + rule.jitter) > created_at + rule.limit:
        yield life.end("failed", "expired", n)
    if n >= life.most:
        yield life.end("failed", "exhausted", n)
    else:
        yield life.again(n)


def _answered(life: Life, one: Try, rule: Rule, created_at: float) -> Iterator[Life]:
    """What an answer with a code of success makes of it."""
    n = life.attempts + 1
    if rule.poll is None or one.work == "done":
        yield life.end("succeeded", None, n)
    elif one.work == "broken":
        yield life.end("failed", "not_retryable", n)
    else:  # a look, which costs no attempt
        yield life.again(life.attempts)
        if one.at - created_at > seconds(rule.poll["for"]):
            yield life.end("failed", "expired", n)


def _lost(life: Life, rule: Rule, *, stopped: bool, sent: bool = True) -> Iterator[Life]:
    """Nothing was written of an attempt that had started."""
    if not rule.idempotent:
        yield life.end("failed", "ambiguous", life.attempts)._replace(orphan=True)
        if stopped and sent:  # it still said so itself
            yield life.end("failed", "ambiguous", life.attempts + 1)
        return
    deaths = life.deaths + (not stopped)
    yield life.again(life.attempts)._replace(deaths=min(deaths, POISON_AFTER))
    if deaths >= POISON_AFTER:
        yield life.end("failed", "poisoned", life.attempts)


def _died(life: Life, death: Death) -> Iterator[Life]:
    """It may have started, and have sent nothing that was seen, when its daemon died."""
    yield life
    if life.status == "pending":
        for rule in death.rules:
            yield from _lost(life, rule, stopped=death.stopped)
