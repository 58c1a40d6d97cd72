"""When a failed attempt is tried again, and how often: the keys under `retry`, and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from orchestratord.model.answer_expression import AnswerExpression
from orchestratord.model.backoff import Backoff, Fixed, backoff_data
from orchestratord.model.declared import Model
from orchestratord.values.durations import Duration
from orchestratord.values.status_set import StatusCode, StatusSet

CALL_WHEN = StatusSet.parse(["error", 408, 425, 429, 500, 502, 503, 504])


class RetryPolicy(Model):
    """When a failed attempt is tried again, and how often. Durations in seconds.

    A plugin that wants other defaults subclasses it. The strategies that `backoff` may name come as
    validation context, `{"backoffs": {name: class}}`; without it there is only `fixed`.
    """

    default_backoff: ClassVar[Mapping[str, Any]] = {"strategy": "exponential"}
    """As it would stand in the YAML; where no plugin brings that strategy, it is `fixed`."""

    backoff: Backoff = Field(default_factory=Fixed)
    """A strategy's name, or a mapping with `strategy` and its options."""
    max_attempts: int = Field(15, ge=1, le=1000)
    """The most attempts in all, the first one included."""
    max_delay: Duration = 3600.0
    """The longest delay between two attempts, whatever the backoff says: 1h."""
    jitter: float = Field(0.1, ge=0, le=1)
    """The random part of each delay: 0.1 is ±10 %, 0 is none."""
    give_up_after: Duration | None = None
    """How long to try a task, from its first due time or last manual retry: 1d."""
    inline: int = Field(0, ge=0, le=10)
    """Tries again at once, within one attempt and its timeout, if a repeat is safe."""
    when: StatusSet = CALL_WHEN
    """Answers to try again: `5xx`, `429`, `error` for no answer, or a list of these."""
    if_: AnswerExpression | None = Field(None, alias="if")
    """JMESPath over an answer: true tries again, whatever its status code, a POST too."""
    respect_retry_after: bool = True
    """Wait for the later of the backoff and the answer's Retry-After."""
    max_retry_after: Duration = 86400.0
    """The longest delay that a Retry-After may ask for: 1d."""

    @model_validator(mode="before")
    @classmethod
    def _give_backoff(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Mapping) and "backoff" not in value:
            strategy = _strategies(info).get(cls.default_backoff["strategy"])
            if strategy is not None:
                return {**value, "backoff": _default_of(cls, strategy)}
        return value

    @field_validator("backoff", mode="before")
    @classmethod
    def _build_backoff(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Backoff):
            return value
        options = {"strategy": value} if isinstance(value, str) else value
        if not isinstance(options, Mapping) or not isinstance(options.get("strategy"), str):
            raise ValueError(
                "expected the name of a strategy, or a mapping with `strategy` and its options"
            )
        name = str(options["strategy"])
        strategy = _strategies(info).get(name)
        if strategy is None:
            raise ValueError(f"unknown strategy {name!r}")
        given = {key: option for key, option in options.items() if key != "strategy"}
        return strategy.model_validate(given, context=info.context)

    def written(self) -> dict[str, Any]:
        """The keys of `retry` with what holds of each, written or not."""
        rest = self.model_dump(mode="json", by_alias=True, exclude={"backoff", "when"})
        return {"backoff": backoff_data(self.backoff), **rest, "when": self.when.codes}

    def covers(self, status_code: StatusCode) -> bool:
        """True where a `when` of the YAML names this status code."""
        return "when" in self.model_fields_set and status_code in self.when


@lru_cache(maxsize=64)
def _default_of(policy: type[RetryPolicy], strategy: type[Backoff]) -> Backoff:
    """What stands for a `backoff` that is left out, once for all."""
    given = {key: value for key, value in policy.default_backoff.items() if key != "strategy"}
    return strategy.model_validate(given)


def _strategies(info: ValidationInfo) -> Mapping[str, type[Backoff]]:
    known: Mapping[str, type[Backoff]] = (info.context or {}).get("backoffs", {"fixed": Fixed})
    return known
