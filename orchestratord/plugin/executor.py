"""How a kind of task is carried out: the part that plugins can bring.

The core's own executor makes the HTTP calls of endpoints with `type: http`; the webhooks plugin
brings the one that delivers webhooks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from orchestratord.model.endpoint import Api, Endpoint, Guards
from orchestratord.model.outcome import Outcome, Send
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.task import Task
from orchestratord.values import world
from orchestratord.values.rate_limit import RateLimit

if TYPE_CHECKING:
    from orchestratord.model.settings import Config


@dataclass(frozen=True, slots=True)
class Target:
    """How the current configuration carries out the tasks of a key. A task in flight keeps its own.

    Args:
        endpoint: the endpoint of the tasks.
        retry: when to try them again.
        timeout: seconds for a whole attempt.
        idempotent: whether a repeat is safe.
        lane: tasks that share limits and throttles: `api:NAME`, or `host:port` of a receiver.
        concurrency: the most tasks of the lane in flight in this daemon.
        egress: the rules of `egress.allow` that apply.
        detail: anything the executor wants to keep (for a delivery: facts about its webhook).
        rate: the most tasks of the lane that may begin, in all daemons; None for any number.
        access: the API whose TLS, proxy and token its requests use; None for none of these.
        url: the receiver of a delivery, without secrets: all deliveries to it wait together for
            its Retry-After. Empty for a call, whose lane waits.
        guards: when a delivery's circuit breakers open, and whether it has a pace; None for the
            settings of the endpoint's API.
        lane_breaker: False if the lane has no circuit breaker: a failed connection then concerns
            its key alone.
        global_concurrency: the most calls of the endpoint's API in flight in all daemons; None for
            any number.
    """

    endpoint: Endpoint
    retry: RetryPolicy
    timeout: float
    idempotent: bool
    lane: str
    concurrency: int
    egress: tuple[str, ...]
    detail: Any = None
    rate: RateLimit | None = None
    access: Api | None = None
    url: str = ""
    global_concurrency: int | None = None
    guards: Guards | None = None
    lane_breaker: bool = True

    @property
    def guarded_by(self) -> Guards:
        """When the circuit breakers of its tasks open, and whether they have a pace."""
        return self.guards or self.endpoint.api


@dataclass(frozen=True, slots=True)
class Parked:
    """The tasks of a key wait, for `why`.

    Args:
        why: in words.
        reason: in a word, if the daemon refuses a manual retry, since the task would wait until
            the files change; empty if it may wait.
    """

    why: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Doomed:
    """The tasks of a key fail with `reason` after `after` seconds of this."""

    reason: str
    why: str
    after: float = 60.0


Standing = Target | Parked | Doomed


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that an executor needs, for `orchestratord doctor`.

    Args:
        what: the subject and its state, such as `the database crm answers`.
        fault: the fault; empty if there is none.
        remedy: the remedy of the fault.
        severity: whether the fault fails, or warns.
    """

    what: str
    fault: str = ""
    remedy: str = ""
    severity: Literal["error", "warning"] = "error"


class Executor(ABC):
    """Carries out one kind of task.

    Class attributes:
        kind: `call`, or the kind of the plugin's own tasks.
        type: for calls, the endpoint's `type`.
        phases: the names of its before_ and after_ phase; the first one is empty if it sends
            nothing.
        model: for calls, the pydantic model of the endpoint's keys of this type; a `ParamRules`
            if they limit the parameters.
        only_sends: all that reaches a receiver goes through `send`: what is cancelled before a byte
            of that has left has done nothing.
        immediate: for calls: it sends nothing, so the daemon writes a new one as succeeded, with
            its consequences. It executes only a task that had to wait.
        refused: keys without a meaning for endpoints of this type → the key to write instead.
        own_endpoints: the endpoints that `own_endpoint` knows.
    """

    kind: ClassVar[str] = "call"
    type: ClassVar[str] = ""
    phases: ClassVar[tuple[str, str]] = ("before_request", "after_request")
    model: ClassVar[Any] = None
    only_sends: ClassVar[bool] = False
    immediate: ClassVar[bool] = False
    refused: ClassVar[Mapping[str, str]] = {}
    own_endpoints: ClassVar[tuple[str, ...]] = ()

    instance: str = ""
    """The queue's random name. The key that shows a repeat is made of `task.nonce`, or, if that is
    None, of this and the task's id."""
    last_success: Mapping[str, int] = {}
    """Endpoint → when its last successful call started (milliseconds); the core sets it."""

    now: Callable[[], float] = staticmethod(lambda: world.time())
    """Returns the daemon's time (seconds since the epoch), which does not follow each clock jump;
    the core sets it."""
    skipped_since: Callable[[int], int] = staticmethod(lambda since: 0)
    """Returns the part of the time since then (both milliseconds) that a clock put forward has
    skipped; the core sets it."""

    def own_endpoint(self, endpoint_id: str, config: Config) -> Endpoint | None:
        """Return the endpoint of tasks without a declared one, such as deliveries of the daemon's
        own events: `endpoint_id` then has no slash. None if there is none. Daemons whose `shown`
        is equal declare the same."""
        return None

    @property
    def sending_phases(self) -> tuple[str, ...]:
        """The phases of an attempt before its end; none if it sends nothing."""
        return () if self.immediate else self.phases

    def bind(self, instance: str, last_success: Mapping[str, int]) -> None:
        """Take the queue's name and last successes, once, before the first task."""
        self.instance = instance
        self.last_success = last_success

    def context(self, task: Task, now: float) -> dict[str, Any]:
        """Return the names for a call's templates; `now` in seconds since the epoch."""
        return {
            "params": task.params,
            "task": {
                "id": task.id,
                "attempt": task.attempts,
                "scheduled_at": _moment(task.scheduled_at),
                "last_success_at": _moment(self.last_success.get(task.endpoint_id)),
            },
            "now": datetime.fromtimestamp(now, UTC),
        }

    async def close(self) -> None:  # noqa: B027  # most have nothing to let go of
        """Release everything, once, when the daemon ends and carries out nothing any more."""

    def default_idempotent(self, spec: Any) -> bool:
        """Return whether a repeat of a call is safe, if the endpoint does not say.

        `spec` has the endpoint's keys of this type.
        """
        return False

    def evaluates(self, target: Target) -> bool:
        """Return whether `prepare` may evaluate expressions, so that the daemon counts their cost.
        The daemon asks once for each key and configuration."""
        return True

    def needs(self, config: Config) -> Iterable[Need]:
        """Try everything that its tasks need beside the configuration, each within seconds.

        It changes nothing, and no loop runs: `orchestratord doctor` asks.
        """
        return ()

    def pretend(self, request: Any, target: Target, body: Any) -> Outcome | None:
        """Return the outcome of a simulated answer `ok`; None if unknown.

        For calls without HTTP: `explain` and the test cases of the YAML ask. `body` is the answer's
        content as JSON. Raises ValueError if no answer can have it.
        """
        return None

    def repeat_key(self, task: Task, endpoint: Endpoint) -> str | None:
        """Return the key that shows the receiver a repeat, such as the Idempotency-Key; None if it
        sends none. For people who look at a task."""
        return None

    def access(self, name: str, config: Config) -> Api | None:
        """Return a `Target`'s `access` that no api.yaml declares, by its name; None for any other
        name. The daemon asks if another worker needs its token."""
        return None

    @abstractmethod
    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        """Return whether the tasks of the key (endpoint.id, webhook) can run, wait or must fail.

        The endpoint exists and, for calls, is enabled: the core has checked it.
        """

    async def look_again(self, endpoint_id: str, webhook: str) -> None:
        """Read anew what `standing` remembers of a table, where another daemon may have changed
        that since. The daemon calls this before tasks fail as `Doomed` says, within
        `plugins.timeout`; if it raises, they wait."""
        return

    @abstractmethod
    def prepare(self, task: Task, target: Target, now: float) -> Any:
        """Return the request of the next attempt. Pure: the daemon also shows it without sending,
        and calls this in a thread for large parameters or costly templates.

        Raises InvalidPayload if it does not render.
        """

    @abstractmethod
    async def execute(self, request: Any, task: Task, target: Target, send: Send) -> Outcome:
        """Carry it out once and judge the answer. Failures are outcomes: raise nothing."""


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
