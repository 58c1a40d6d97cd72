"""The executor of `type: event`, which has nothing to do unless an event had to wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from orchestratord import (
    Config,
    Endpoint,
    Executor,
    Outcome,
    ParamRules,
    Send,
    Standing,
    Target,
    Task,
)
from orchestratord_event.data_schema import PROCESS, DataSchema

LANE, CONCURRENCY = "events", 100


class EventSpec(ParamRules):
    """The keys of an endpoint with `type: event`."""

    schema_: DataSchema | None = Field(None, alias="schema")
    """A JSON Schema for the data of an event."""

    @property
    def free(self) -> bool:
        """The data of an event are what its producer sends, unless `params` says what they are."""
        return True

    def problems(self, params: Mapping[str, Any]) -> dict[str, str]:
        return {} if self.schema_ is None else self.schema_.file.check.problems(dict(params))

    @property
    def apart(self) -> bool:
        return self.schema_ is not None

    async def problems_apart(self, calls: Sequence[Mapping[str, Any]]) -> Sequence[dict[str, str]]:
        assert self.schema_ is not None
        return await PROCESS.problems(self.schema_.file.check, calls)


class EventExecutor(Executor):
    """Says that an event has happened."""

    kind: ClassVar[str] = "call"
    type: ClassVar[str] = "event"
    phases: ClassVar[tuple[str, str]] = ("", "after_execute")
    model: ClassVar[Any] = EventSpec
    immediate: ClassVar[bool] = True
    refused: ClassVar[Mapping[str, str]] = {
        "retry": "an event cannot fail; each webhook has its own `retry`",
        "schedule": "an event happens when it is accepted; give the schedule to the endpoint that "
        "is called",
        "timeout": "an event sends nothing; each webhook has its own `timeout`",
        "idempotent": "an event sends nothing",
    }

    def default_idempotent(self, spec: EventSpec) -> bool:
        return True

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        return Target(
            endpoint=endpoint,
            retry=endpoint.retry,
            timeout=endpoint.timeout,
            idempotent=True,
            lane=LANE,
            concurrency=CONCURRENCY,
            egress=(),
        )

    def prepare(self, task: Task, target: Target, now: float) -> None:
        """Nothing is sent."""

    async def execute(self, request: Any, task: Task, target: Target, send: Send) -> Outcome:
        return Outcome("success", "ok")

    async def close(self) -> None:
        await PROCESS.close()

    def pretend(self, request: Any, target: Target, body: Any) -> Outcome:
        if body is not None:
            raise ValueError("an event has no answer")
        return Outcome("success", "ok")
