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
    """What today's configuration says about the tasks of one key. One task in flight keeps its own.

    Args:
        endpoint: the endpoint that the tasks belong to.
        retry: when they are tried again.
        timeout: seconds for a whole attempt.
        idempotent: whether a repeat is safe.
        lane: what shares a fate: `api:NAME`, or `host:port` of a receiver.
        concurrency: how many of the lane may be in flight in this daemon.
        egress: the rules of `egress.allow` that apply.
        detail: whatever the executor wants to keep (for a delivery: what is known of its webhook).
        rate: how many of the lane may begin, in all daemons together; None for any number.
        access: the API whose TLS, proxy and token its requests take; None for none of these.
        url: of a delivery, where it goes, in a form that people may see: all that go there wait
            together where its receiver says so by Retry-After. Empty for a call, whose lane waits.
        guards: of a delivery, when its circuit breakers open, and whether it has a pace; None for
            what the endpoint's API says.
        lane_breaker: False where what shares the lane shares no fate: what fails to connect speaks
            of its key alone, and the lane has no circuit breaker.
        global_concurrency: how many calls of the endpoint's API may be in flight in all daemons
            together; None for any number.
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
        reason: in a word, where a person who retries one of them is refused that, since it would
            only wait until the files are changed; empty where it may wait.
    """

    why: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Doomed:
    """The tasks of a key fail with `reason` once this has been so for `after` seconds."""

    reason: str
    why: str
    after: float = 60.0


Standing = Target | Parked | Doomed


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that an executor needs, as `orchestratord doctor` tells of it.

    Args:
        what: what was tried and how it is, such as `the database crm answers`.
        fault: what is wrong with it; empty where nothing is.
        remedy: what to do, where something is wrong.
        severity: whether what is wrong fails, or warns.
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
        phases: the names of its before_ and after_ phase; the first one is empty where nothing is
            sent, and so nothing comes before.
        model: for calls, the pydantic model of the endpoint's keys of this type; a `ParamRules`
            where they say something of the parameters.
        immediate: for calls: nothing has to be sent, so that a new one is written already
            succeeded, with what follows from it. Only what had to wait is executed.
        refused: keys that mean nothing for endpoints of this type → what to write instead.
        own_endpoints: what `own_endpoint` knows.
    """

    kind: ClassVar[str] = "call"
    type: ClassVar[str] = ""
    phases: ClassVar[tuple[str, str]] = ("before_request", "after_request")
    model: ClassVar[Any] = None
    immediate: ClassVar[bool] = False
    refused: ClassVar[Mapping[str, str]] = {}
    own_endpoints: ClassVar[tuple[str, ...]] = ()

    instance: str = ""
    """The queue's random name. What is sent of a task by which a repeat is told comes from
    `task.nonce`, or, where that is None, from this and the task's id."""
    last_success: Mapping[str, int] = {}
    """Endpoint → when its last successful call started (milliseconds); kept by the core."""

    now: Callable[[], float] = staticmethod(lambda: world.time())
    """What time it is (seconds since the epoch) for the daemon, which does not follow each jump of
    a clock; kept by the core."""
    skipped_since: Callable[[int], int] = staticmethod(lambda since: 0)
    """How much of the time since then (both milliseconds) has not passed, since the clock was put
    forward; kept by the core."""

    def own_endpoint(self, endpoint_id: str, config: Config) -> Endpoint | None:
        """The endpoint of tasks that belong to none that the files declare, such as deliveries that
        tell of the daemon itself: `endpoint_id` has no slash then. None where there is none. What
        is `shown` tells daemons that declare the same from others."""
        return None

    @property
    def sending_phases(self) -> tuple[str, ...]:
        """The phases that an attempt goes through before its end; none where nothing is sent."""
        return () if self.immediate else self.phases

    def bind(self, instance: str, last_success: Mapping[str, int]) -> None:
        """Called once, before the first task."""
        self.instance = instance
        self.last_success = last_success

    def context(self, task: Task, now: float) -> dict[str, Any]:
        """The names that a call's templates may use; `now` in seconds since the epoch."""
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
        """Called once, when the daemon ends and nothing is carried out any more."""

    def default_idempotent(self, spec: Any) -> bool:
        """For calls: whether a repeat is safe, where the endpoint does not say.

        `spec` holds the endpoint's keys of this type.
        """
        return False

    def evaluates(self, target: Target) -> bool:
        """Whether `prepare` may evaluate expressions, whose cost has to be counted. Asked once for
        each key while the configuration stays as it is."""
        return True

    def needs(self, config: Config) -> Iterable[Need]:
        """What tasks of this kind need beside the configuration, tried now and each within seconds.

        Nothing is changed by it, and no loop runs: `orchestratord doctor` asks.
        """
        return ()

    def pretend(self, request: Any, target: Target, body: Any) -> Outcome | None:
        """How an attempt would end that was answered `ok`; None where it cannot be told.

        For calls that are not sent by HTTP: `explain` and the test cases of the YAML ask. `body` is
        what the answer is supposed to hold, as JSON has it. Raises ValueError where none is so.
        """
        return None

    def repeat_key(self, task: Task, endpoint: Endpoint) -> str | None:
        """What the receiver tells a repeat of a task by, as its Idempotency-Key; None where nothing
        is sent for that. For those who look at a task."""
        return None

    def access(self, name: str, config: Config) -> Api | None:
        """What a `Target` of this kind has as its `access` and no api.yaml declares, by its name;
        None for any other name. Asked where another worker needs its token."""
        return None

    @abstractmethod
    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        """Where the tasks of the key (endpoint.id, webhook) stand under this configuration.

        The core has checked before that the endpoint exists and, for calls, is enabled.
        """

    @abstractmethod
    def prepare(self, task: Task, target: Target, now: float) -> Any:
        """The request of the next attempt. Pure: it is shown without being sent, too, and for large
        parameters, or dear templates, it is called in a thread.

        Raises InvalidPayload where it does not render.
        """

    @abstractmethod
    async def execute(self, request: Any, task: Task, target: Target, send: Send) -> Outcome:
        """Carry it out once and judge the answer. Failures are outcomes; it raises nothing."""


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
