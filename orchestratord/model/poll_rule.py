"""`poll`: how long is waited for an answer that says that it is done."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestratord.model.answer_expression import AnswerExpression
from orchestratord.model.declared import Model
from orchestratord.values.durations import Duration


class PollRule(Model):
    """When to ask an API again that has not done its work yet."""

    until: AnswerExpression
    """JMESPath over the answer: true means that the work is done."""
    fail_if: AnswerExpression | None = None
    """JMESPath over the answer: true means that the work failed for good."""
    every: Annotated[Duration, Field(gt=0)] = 10.0
    """How long after an answer to ask again, unless it has a Retry-After: 10s."""
    for_: Annotated[Duration, Field(alias="for", gt=0)] = 3600.0
    """How long after the first answer to give up: 1h."""
