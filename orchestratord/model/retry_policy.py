"""When a failed attempt is tried again, and how often: the keys under `retry`, and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from orchestratord.model.backoff import Backoff, Fixed
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
    """The first one counts."""
    max_delay: Duration = 3600.0
    jitter: float = Field(0.1, ge=0, le=1)
    """The delay is drawn from d·(1 ± jitter); 0 for none."""
    give_up_after: Duration | None = None
    """Since the task was created or last retried manually; a next try past it fails at once."""
    inline: int = Field(0, ge=0, le=10)
    """Tries at once, inside one attempt and its timeout, where a repeat is safe."""
    when: StatusSet = CALL_WHEN
    """Answers that are tried again."""
    respect_retry_after: bool = True
    """The later of the backoff and the answer's Retry-After counts."""
    max_retry_after: Duration = 86400.0

    @model_validator(mode="before")
    @classmethod
    def _give_backoff(cls, value: Any, info: ValidationInfo) -> Any:
        known = cls.default_backoff["strategy"] in _strategies(info)
        if known and isinstance(value, Mapping) and "backoff" not in value:
            return {**value, "backoff": cls.default_backoff}
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

    def covers(self, status_code: StatusCode) -> bool:
        """True where a `when` of the YAML names this status code."""
        return "when" in self.model_fields_set and status_code in self.when


def _strategies(info: ValidationInfo) -> Mapping[str, type[Backoff]]:
    known: Mapping[str, type[Backoff]] = (info.context or {}).get("backoffs", {"fixed": Fixed})
    return known
